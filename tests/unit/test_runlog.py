"""A run folder says what happened, survives a kill, and has no step twice after a resume."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mulligan
from mulligan import runlog
from mulligan.config import Recipe, parse_recipe
from mulligan.errors import ConfigError, RunError
from mulligan.runlog import MANIFEST, RECIPE, RunFolder, make_manifest, recipe_differences


def make_recipe(**sections: Any) -> Recipe:
    return parse_recipe({"name": "trial", "seed": 7, "model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}, **sections})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", make_recipe(), data_hashes={"builtin:guess": "abc"}, command=["mulligan", "train", "x.toml"])


def lines(run: RunFolder) -> list[str]:
    return (run.path / "metrics.jsonl").read_text().splitlines()


# ----------------------------------------------------------------------------------------------------------------- folder


def test_create_writes_recipe_manifest_and_places(run: RunFolder) -> None:
    assert json.loads((run.path / "recipe.json").read_text())["attempts"] == "uniform(1,5)"
    assert RunFolder.open(run.path).recipe == run.recipe
    assert run.rollouts.is_dir()
    assert run.checkpoints == run.path / "checkpoints"
    assert run.checkpoints.is_dir()
    assert run.model == run.path / "model"
    assert run.rollout_path(12) == run.path / "rollouts" / "step_000012.parquet"


def test_manifest_says_what_is_needed_to_repeat_the_run(run: RunFolder) -> None:
    manifest = run.manifest()
    assert manifest["mulligan"] == mulligan.__version__
    assert manifest["seed"] == 7
    assert manifest["command"] == ["mulligan", "train", "x.toml"]
    assert manifest["data"] == {"builtin:guess": "abc"}
    assert manifest["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert manifest["python"] == ".".join(map(str, sys.version_info[:3]))
    assert manifest["machine"]["cores"] >= 1
    assert manifest["machine"]["torch_threads"] == torch.get_num_threads()
    assert manifest["machine"]["cpu"]
    assert manifest["created"].endswith("+00:00")


def test_manifest_knows_the_commit_and_whether_it_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mulligan's own source, wherever the command runs."""
    monkeypatch.setattr(runlog, "__file__", str(tmp_path / "runlog.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert make_manifest(make_recipe(), {})["git"] is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q"], check=True, cwd=tmp_path)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first"], check=True, cwd=tmp_path)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=tmp_path).stdout.strip()
    assert make_manifest(make_recipe(), {})["git"] == {"commit": head, "dirty": False}
    (tmp_path / "new.txt").write_text("x")
    assert make_manifest(make_recipe(), {})["git"] == {"commit": head, "dirty": True}


def test_a_folder_with_a_run_is_not_taken_again(run: RunFolder) -> None:
    with pytest.raises(RunError, match="already holds a run: go on with it by --resume, or choose another --out"):
        RunFolder.create(run.path, run.recipe)


@pytest.mark.parametrize("part", ["metrics.jsonl", "manifest.json"])
def test_leftovers_of_a_run_are_not_overwritten(part: str, tmp_path: Path) -> None:
    (tmp_path / part).write_text("kept")
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(tmp_path, make_recipe())
    assert (tmp_path / part).read_text() == "kept"


@pytest.mark.parametrize("written", ["rollouts", "checkpoints", MANIFEST, RECIPE])
def test_a_run_that_was_killed_while_its_folder_was_made_begins_again(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if written in ("rollouts", "checkpoints"):
            make = Path.mkdir
            patch.setattr(Path, "mkdir", lambda path, *a, **k: kill() if path.name == written else make(path, *a, **k))
        else:
            write = runlog._write_json
            patch.setattr(runlog, "_write_json", lambda path, data: kill() if path.name == written else write(path, data))
        with pytest.raises(Killed):
            RunFolder.create(tmp_path, make_recipe())
    assert not RunFolder.holds_run(tmp_path)
    RunFolder.create(tmp_path, make_recipe(), command=["again"])
    found = RunFolder.open(tmp_path)
    assert found.manifest()["command"] == ["again"] and found.recipe == make_recipe()


def test_of_several_that_begin_at_once_one_gets_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = runlog.make_manifest

    def slow(*args: Any) -> dict[str, Any]:
        time.sleep(0.1)  # the others look at the folder meanwhile
        return manifest(*args)

    def begin(name: str) -> str | None:
        try:
            RunFolder.create(tmp_path / "run", make_recipe(), command=[name])
        except RunError as error:
            assert "already holds a run" in str(error)
            return None
        return name

    monkeypatch.setattr(runlog, "make_manifest", slow)
    with ThreadPoolExecutor(4) as pool:
        (owner,) = filter(None, pool.map(begin, "abcd"))
    assert RunFolder.open(tmp_path / "run").manifest()["command"] == [owner]


_SECOND = """
import sys
from mulligan.config import parse_recipe
from mulligan.errors import RunError
from mulligan.runlog import RunFolder
path, how = sys.argv[1:]
recipe = parse_recipe({"name": "second", "model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}})
try:
    (RunFolder.open(path, RunFolder.open(path).recipe) if how == "open" else RunFolder.create(path, recipe)).close()
    print("taken")
except RunError as error:
    print(error)
"""


def _from_another_process(path: Path, how: str) -> str:
    return subprocess.run([sys.executable, "-c", _SECOND, str(path), how], check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def test_two_processes_do_not_train_in_one_folder(run: RunFolder) -> None:
    refused = _from_another_process(run.path, "open")
    assert refused == f"another process trains in {run.path} (process {os.getpid()} on {platform.node()}): stop it, wait for its end, or choose another --out"
    assert RunFolder.open(run.path).manifest()["seed"] == 7, "it may be read all the same"
    run.close()
    assert _from_another_process(run.path, "open") == "taken"


def test_a_run_that_goes_on_keeps_others_out(run: RunFolder) -> None:
    """Going back to its checkpoint, as a resume does, and logging on."""
    run.close()
    again = RunFolder.open(run.path, run.recipe)
    again.truncate_after(0, 0)
    again.log_metrics(0, {"reward": 1.0})
    assert "another process trains in" in _from_another_process(run.path, "open")
    again.close()
    assert _from_another_process(run.path, "open") == "taken"


def test_a_run_that_was_not_begun_yet_is_kept_from_others_as_well(run: RunFolder) -> None:
    (run.path / "recipe.json").unlink()  # as if it had just made its folders
    assert "another process trains in" in _from_another_process(run.path, "create")


def test_who_outlives_a_killed_run_keeps_nobody_out(tmp_path: Path) -> None:
    """Graders may live a little longer than the process that was killed; the next one must be able to go on."""
    code = (
        "import multiprocessing, os, sys, time\n"
        "from mulligan.config import parse_recipe\n"
        "from mulligan.runlog import RunFolder\n"
        "recipe = parse_recipe({'name': 'killed', 'model': {'path': 'tiny:'}, 'problems': {'train': 'builtin:guess'}})\n"
        "run = RunFolder.create(sys.argv[1], recipe)\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    child = int(killed.stdout.readline())
    try:
        assert killed.wait(60) == -9
        os.kill(child, 0)  # it lives
        assert _from_another_process(tmp_path / "run", "open") == "taken"
    finally:
        os.kill(child, 9)
        killed.stdout.close()


def test_a_run_begins_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    RunFolder.create(tmp_path / "run", make_recipe())
    assert RunFolder.holds_run(tmp_path / "run")


@pytest.mark.parametrize("left", ["rollouts/step_000001.parquet", "checkpoints/step_000001", "metrics.jsonl", "model/README.md"])
def test_what_a_run_has_done_is_not_overwritten_though_its_recipe_is_lost(left: str, run: RunFolder) -> None:
    (run.path / RECIPE).unlink()
    (run.path / left).parent.mkdir(exist_ok=True)
    (run.path / left).write_text("kept")
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(run.path, run.recipe)


def test_a_folder_that_holds_other_things_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert RunFolder.holds_run(tmp_path) is False
    RunFolder.create(tmp_path, make_recipe())
    assert RunFolder.holds_run(tmp_path) is True


def test_a_path_that_cannot_be_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run: the run folder cannot be written .*another --out"):
        RunFolder.create(tmp_path / "file" / "run", make_recipe())


def test_open_says_what_is_missing_or_broken(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere holds no run \(recipe\.json is missing\)"):
        RunFolder.open(tmp_path / "nowhere")
    (run.path / "recipe.json").write_text('{"model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}, "speed": 3}')
    with pytest.raises(RunError, match=r"another version of mulligan.*unknown key 'speed'"):
        RunFolder.open(run.path)
    (run.path / "recipe.json").write_text("{")
    with pytest.raises(RunError, match=r"recipe\.json cannot be read"):
        RunFolder.open(run.path)
    (run.path / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"manifest\.json cannot be read"):
        run.manifest()


def test_a_run_goes_on_only_with_its_own_recipe(run: RunFolder) -> None:
    run.require_same(make_recipe(log={"keep_checkpoints": 5}, train={"threads": 2}, eval={"limit": 3}))
    with pytest.raises(ConfigError) as caught:
        run.require_same(make_recipe(optimizer={"lr": 0.5, "name": "muon"}))
    assert len(caught.value.faults) == 2
    assert caught.value.faults[1].startswith(f"optimizer.lr: 1e-06 in {run.path}, 0.5 now: a run goes on with the recipe that it began with")


def test_recipe_differences_are_dotted_keys_with_both_values() -> None:
    other = make_recipe(attempts="fixed(1)", train={"group_size": 4})
    assert recipe_differences(make_recipe(), other) == [("attempts", "uniform(1,5)", "fixed(1)"), ("train.group_size", 8, 4)]


def test_opening_a_run_to_go_on_checks_the_recipe_and_takes_what_may_change(run: RunFolder) -> None:
    assert RunFolder.open(run.path, make_recipe(log={"keep_checkpoints": 9})).recipe.log.keep_checkpoints == 9
    with pytest.raises(ConfigError, match="seed: 7 in"):
        RunFolder.open(run.path, make_recipe(seed=8))


def test_a_run_that_goes_on_longer_says_so(run: RunFolder) -> None:
    again = RunFolder.open(run.path, make_recipe(train={"steps": 5000}))
    assert RunFolder.open(run.path).recipe.train.steps != 5000, "opening alone changes nothing"
    again.truncate_after(3, 3)
    assert again.manifest()["resumed"][-1]["changed"] == {"train.steps": [make_recipe().train.steps, 5000]}
    assert RunFolder.open(run.path).recipe.train.steps == 5000


def test_every_resume_is_recorded(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mulligan", "train", "x.toml", "--resume"])
    run.truncate_after(4, 4)
    run.truncate_after(9, 9)
    resumed = run.manifest()["resumed"]
    assert [entry["after_steps"] for entry in resumed] == [4, 9]
    assert resumed[0]["command"][-1] == "--resume"
    assert resumed[0]["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert run.manifest()["command"] == ["mulligan", "train", "x.toml"]


def test_model_card_says_what_the_model_is(run: RunFolder) -> None:
    text = run.write_model_card("12 problems from `builtin:guess`").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "A small Llama trained from scratch, trained with mulligan" in text
    assert "on 12 problems from `builtin:guess`." in text
    assert "`uniform(1,5)`. The prompt states how many" in text
    assert "base_model" not in text


@pytest.mark.parametrize(("path", "listed"), [("Org/Name-1.5B", True), ("/models/x", False), ("some/folder/x", False), ("./here", False)])
def test_model_card_lists_only_a_base_model_of_the_hub(path: str, listed: bool, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, make_recipe(model={"path": path}))
    assert (f"base_model: {path}\n" in run.write_model_card("x").read_text()) is listed


# ---------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_are_on_disk_after_each_line(run: RunFolder) -> None:
    run.log_metrics(1, {"loss": 0.5, "tokens": 12, "note": "x", "ok": True, "none": None})
    assert len(lines(run)) == 1
    run.log_metrics(2, {"loss": torch.tensor(0.25), "n": np.int64(3), "f": np.float32(0.5), "by_attempt": {1: 0.5, 2: [np.float64(1.0)]}})
    first, second = map(json.loads, lines(run))
    assert first.pop("time") > 1.7e9
    assert first == {"step": 1, "loss": 0.5, "tokens": 12, "note": "x", "ok": True, "none": None}
    assert (second["loss"], second["n"], second["f"], second["by_attempt"]) == (0.25, 3, 0.5, {"1": 0.5, "2": [1.0]})
    assert run.metrics() == [json.loads(line) for line in lines(run)]


def test_what_is_not_finite_stays_visible_and_the_file_stays_json(run: RunFolder) -> None:
    run.log_metrics(1, {"loss": math.nan, "grad": torch.tensor(math.inf), "kl": {"k3": -math.inf}, "fine": 1.0})

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    line = json.loads(lines(run)[0], parse_constant=refuse)
    assert (line["loss"], line["grad"], line["kl"]["k3"]) == ("NaN", "Infinity", "-Infinity")
    assert line["nonfinite"] == ["loss", "grad", "kl.k3"]
    run.log_metrics(2, {"loss": 1.0})
    assert "nonfinite" not in json.loads(lines(run)[1])


def test_metrics_that_cannot_be_logged_are_named(run: RunFolder) -> None:
    with pytest.raises(TypeError, match="metric 'loss' is a set"):
        run.log_metrics(1, {"loss": {1}})
    with pytest.raises(ValueError, match="'step'"):
        run.log_metrics(1, {"step": 2})


def test_a_half_written_last_line_is_left_out_and_then_replaced(run: RunFolder) -> None:
    run.log_metrics(1, {"loss": 1.0})
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    again = RunFolder.open(run.path)
    assert [entry["step"] for entry in again.metrics()] == [1]
    again.log_metrics(2, {"loss": 2.0})
    assert [json.loads(line)["step"] for line in lines(run)] == [1, 2]


def test_a_broken_line_in_the_middle_is_named_by_its_number(run: RunFolder) -> None:
    (run.path / "metrics.jsonl").write_text('{"step": 1}\nbroken\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: not a line of metrics"):
        run.metrics()
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 1}\n')
    with pytest.raises(RunError, match="line 2"):
        run.truncate_after(1, 1)


# ----------------------------------------------------------------------------------------------------------------- resume


def test_going_back_leaves_no_step_twice(run: RunFolder) -> None:
    """Five steps were done, the newest checkpoint is of three."""
    for step in range(5):
        run.log_metrics(step, {"loss": float(step)})
        run.rollout_path(step).write_bytes(b"x")
    (run.rollouts / ".step_000005.parquet.99.tmp").write_bytes(b"half")
    (run.rollouts / "notes.txt").write_bytes(b"mine")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5')
    before = lines(run)[:3]

    again = RunFolder.open(run.path)
    again.truncate_after(3, 3)
    assert lines(run) == before
    assert sorted(file.name for file in run.rollouts.iterdir()) == ["notes.txt", *(f"step_{step:06d}.parquet" for step in (0, 1, 2))]
    again.log_metrics(3, {"loss": 0.0})
    assert [entry["step"] for entry in again.metrics()] == [0, 1, 2, 3]


def test_going_back_before_anything_was_logged_is_harmless(run: RunFolder) -> None:
    run.truncate_after(0, 0)
    assert run.metrics() == []


def test_metrics_count_the_warm_up_and_rollouts_do_not(run: RunFolder) -> None:
    for step in range(4):
        run.log_metrics(step, {"stage": "warmup" if step < 2 else "train"})
    for train_step in range(2):
        run.rollout_path(train_step).write_bytes(b"x")
    run.truncate_after(3, 1)
    assert [entry["stage"] for entry in run.metrics()] == ["warmup", "warmup", "train"]
    assert [file.name for file in run.rollouts.iterdir()] == ["step_000000.parquet"]
    run.truncate_after(1, -1)
    assert [entry["step"] for entry in run.metrics()] == [0]
    assert list(run.rollouts.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ tensorboard


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="the tensorboard extra is not installed")
    with RunFolder.create(tmp_path / "run", make_recipe(log={"tensorboard": True})) as run:
        run.log_metrics(1, {"stage": "train", "loss": 0.5, "note": "text", "grad": math.nan})
        run.log_metrics(2, {"stage": "train", "loss": 0.25})
    board = events.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert math.isnan(board.Scalars("train/grad")[0].value)
    assert sorted(board.Tags()["scalars"]) == ["train/grad", "train/loss"]


def test_tensorboard_that_is_missing_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'mulligan\[tensorboard\]'"):
        RunFolder.create(tmp_path / "run", make_recipe(log={"tensorboard": True}))
    assert not (tmp_path / "run").exists()
