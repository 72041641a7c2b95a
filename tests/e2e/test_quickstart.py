"""`mulligan quickstart` from end to end with models and runs of the smallest size: what it leaves behind, and how it ends early."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mulligan.errors import ConfigError, RunError
from mulligan.quickstart import run_quickstart

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = (
    "model.tiny.hidden_size=32",
    "model.tiny.layers=2",
    "model.tiny.heads=2",
    "model.tiny.intermediate_size=64",
    "warmup.steps=3",
    "warmup.batch_size=16",
    "train.steps=3",
    "train.max_tokens=null",
    "train.problems_per_step=16",
    "train.minibatches=2",
    "sampling.max_rows=32",
    "problems.limit=300",
    "eval.limit=12",
    "eval.samples=3",
)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("quickstart") / "q"
    return out, run_quickstart(out, recipes=RECIPES, seed=3, overrides=SMALL)


def check_arm(arm: dict[str, Any], num_problems: int) -> None:
    assert arm["accuracy"].keys() == {"1", "2", "3", "4", "5"}
    assert arm["pass_at_k"].keys() == {"1", "2", "3"}, "three samples"
    for curve in (arm["accuracy"], arm["pass_at_k"]):
        for entry in curve.values():
            assert entry.keys() == {"mean", "low", "high", "n"}
            assert 0 <= entry["low"] <= entry["mean"] <= entry["high"] <= 1
            assert entry["n"] == num_problems


def test_the_summary(quickstart: tuple[Path, dict[str, Any]]):
    out, summary = quickstart
    assert json.loads((out / "summary.json").read_text()) == summary
    assert {"readings", "guess", "seconds"} <= summary.keys()
    assert summary["seconds"] > 0
    assert summary["seed"] == 3
    assert summary["readings"].keys() == {"multi_attempt", "single_turn", "warm_up"}
    assert summary["guess"].keys() == {"feedback", "verdict_only"}
    paired = summary["paired"]
    assert paired["readings"]["rises"].keys() == summary["readings"].keys()
    assert paired["readings"]["over_pass"] == {}, "three samples say nothing of five"
    assert paired["guess"]["over"].keys() == {"verdict_only"}
    for arm in summary["readings"].values():
        check_arm(arm, 12)
    for arm in summary["guess"].values():
        check_arm(arm, 12)


def test_table_and_plot(quickstart: tuple[Path, dict[str, Any]]):
    out, _ = quickstart
    assert (out / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "quickstart.png").stat().st_size > 20_000
    svg = (out / "quickstart.svg").read_text()
    assert "<svg" in svg
    assert "readings: trying again" in svg
    table = (out / "table.md").read_text()
    assert all(name in table for name in ("multi-attempt", "single-turn", "warm-up", "full feedback", "verdict only"))
    assert table.rstrip().splitlines()[-1].startswith("guess (learning from feedback): ")


def test_the_arms_are_what_they_are_called(quickstart: tuple[Path, dict[str, Any]]):
    runs = quickstart[0] / "runs"
    recipes = {path.name: json.loads((path / "recipe.json").read_text()) for path in runs.iterdir()}
    assert recipes.keys() == {
        "readings-warm-up",
        "readings-multi-attempt",
        "readings-single-turn",
        "guess-warm-up",
        "guess-full-feedback",
        "guess-verdict-only",
    }
    for name, task in (("readings-multi-attempt", "readings"), ("guess-full-feedback", "guess")):
        arm, warm = recipes[name], recipes[f"{task}-warm-up"]
        assert arm["model"]["path"] == str(runs / f"{task}-warm-up" / "model")
        assert (arm["warmup"]["steps"], warm["train"]["steps"]) == (0, 0)
    assert differences(recipes["readings-multi-attempt"], recipes["readings-single-turn"]) == ["attempts"]
    assert recipes["readings-single-turn"]["attempts"] == "fixed(1)"
    assert differences(recipes["guess-full-feedback"], recipes["guess-verdict-only"]) == ["protocol.feedback"]
    assert all(recipe["seed"] == 3 for recipe in recipes.values())


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(one, dict):
        return [d for key in one for d in differences(one[key], other[key], f"{where}.{key}".lstrip("."))]
    return [] if one == other else [where]


def test_nothing_is_left_behind(quickstart: tuple[Path, dict[str, Any]]):
    assert multiprocessing.active_children() == []
    assert os.environ.get("MKL_NUM_THREADS") == MKL_NUM_THREADS, "set for the worker processes alone"


MKL_NUM_THREADS = os.environ.get("MKL_NUM_THREADS")


def test_a_finished_one_is_shown_again(quickstart: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]):
    out, summary = quickstart
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert run_quickstart(out, recipes=RECIPES, seed=3) == summary
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before, "nothing ran"
    assert "was finished before and is shown again: to run it anew, remove the folder" in capsys.readouterr().out
    with pytest.raises(RunError, match="already holds a quickstart of seed 3: remove it, or choose another --out"):
        run_quickstart(out, recipes=RECIPES, seed=4)


def test_an_interrupted_one_goes_on(quickstart: tuple[Path, dict[str, Any]], tmp_path: Path):
    """As after an interrupt: one arm is done, one was cut short before it was evaluated, one was not begun. The figures are the same."""
    out, summary = quickstart
    finished = out / "runs" / "guess-full-feedback" / "eval.json"
    kept = finished.stat().st_mtime_ns
    (out / "summary.json").rename(tmp_path / "summary.json")
    (out / "runs" / "readings-multi-attempt" / "eval.json").unlink()
    shutil.rmtree(out / "runs" / "guess-verdict-only")
    again = run_quickstart(out, recipes=RECIPES, seed=3, overrides=SMALL)
    assert (again["readings"], again["guess"]) == (summary["readings"], summary["guess"])
    assert again["resumed"]
    assert finished.stat().st_mtime_ns == kept
    (out / "summary.json").unlink()
    (tmp_path / "summary.json").rename(out / "summary.json")


# -------------------------------------------------------------------------------------------------------------- ends too early


def test_a_faulty_setting_shows_before_anything_runs(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"unknown key 'train\.stepz'; did you mean 'steps'"):
        run_quickstart(tmp_path / "q", recipes=RECIPES, overrides=("train.stepz=3",))
    assert not (tmp_path / "q").exists()


def test_a_run_that_fails_ends_the_others(tmp_path: Path):
    """One task has two faults that only its plan can show, while the other's warm-up would go on for hours."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    text = (RECIPES / "quickstart.toml").read_text().replace('train = "builtin:readings', 'train = "missing.jsonl?question=')
    (recipes / "quickstart.toml").write_text(text.replace("{n} {question}", "{n} {query}"))
    (recipes / "quickstart-guess.toml").write_text((RECIPES / "quickstart-guess.toml").read_text())
    overrides = [setting for setting in SMALL if not setting.startswith("warmup.steps")]
    with pytest.raises(ConfigError) as caught:
        run_quickstart(tmp_path / "q", recipes=recipes, overrides=(*overrides, "warmup.steps=1000000"))
    faults = caught.value.faults
    assert any(fault.startswith("missing.jsonl: no such file") for fault in faults)
    assert "protocol.question: unknown field {query}; known fields: {n}, {question}, {s} (for plain braces write {{query}})" in faults
    assert multiprocessing.active_children() == []
    assert os.environ.get("MKL_NUM_THREADS") == MKL_NUM_THREADS


def processes_of(session: int) -> Sequence[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")
def test_ctrl_c(tmp_path: Path):
    """SIGINT to every process, as a terminal sends it: status 130, one line, and none of them lives on."""
    command = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from mulligan.cli import main; sys.exit(main())"
    arguments = [sys.executable, "-c", command, "quickstart", "--out", str(tmp_path / "q")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=RECIPES.parent)
    deadline = time.monotonic() + 300
    metrics = tmp_path / "q" / "runs" / "readings-warm-up" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes_of(process.pid)) >= 3, "the parent, two workers, and their manager"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("interrupted"), errors
    assert "Traceback" not in errors, errors
    deadline = time.monotonic() + 60
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(process.pid) == []
