"""A run that was stopped anywhere and resumed is the run that was never stopped, to the bit."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_runs import CountingDisplay, Killed, KillingDisplay, assert_same_run, metrics_of, rollouts_of, tiny, tiny_table

from mulligan.cli import evaluating, main
from mulligan.cli.training import to_toml
from mulligan.config import Recipe
from mulligan.display import Display
from mulligan.errors import ConfigError, RunError
from mulligan.evaluation.arms import read_member
from mulligan.evaluation.values import UNFINISHED
from mulligan.jobs import Job, evaluate_job, train_job
from mulligan.rollout import Player
from mulligan.runlog import RunFolder, is_trained
from mulligan.train import train
from mulligan.types import Group

QUIET = Display(quiet=True)

# 4 steps of warm-up, 4 of reinforcement learning; checkpoints after 3, 6 and 8.
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "advantage__name": "gae",
        "critic": {"kind": "separate", "lr": 1e-3},
        "loss": {"kl": 0.05, "entropy": 0.01},
        "optimizer": {"name": "muon", "lr": 3e-3, "schedule": "cosine"},
        "warmup__optimizer": {"name": "muon", "lr": 1e-2},
        "train__minibatches": 2,
        "train__epochs": 2,
        "sampling__top_p": 0.9,
    },
    "tokens": {"train__max_tokens": 380, "optimizer": {"lr": 3e-3, "schedule": "linear"}},
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    return {name: train(tiny(**changes), folder / name, display=QUIET) for name, changes in ARMS.items()}


def killed(recipe: Recipe, run: Path, after: int, dialogues: int | None = None, *, resume: bool = False) -> None:
    with pytest.raises(Killed):
        train(recipe, run, display=KillingDisplay(after, dialogues), resume=resume)


@pytest.mark.parametrize("after", [2, 4, 5, 7])
@pytest.mark.parametrize("arm", ARMS)
def test_to_the_bit(arm: str, after: int, unbroken: dict[str, Path], tmp_path: Path):
    """Killed in the warm-up before any checkpoint; at its end; in the first step after it; and later: each time the logs are
    ahead of the last checkpoint."""
    recipe, run = tiny(**ARMS[arm]), tmp_path / "r"
    killed(recipe, run, after)
    assert len(metrics_of(run)) == after
    train(recipe, run, resume=True, display=QUIET)
    assert [line["step"] for line in metrics_of(run)] == list(range(len(metrics_of(unbroken[arm])))), "no step twice, none left out"
    assert_same_run(run, unbroken[arm])
    (resumed,) = json.loads((run / "manifest.json").read_text())["resumed"]
    assert resumed["after_steps"] == after - after % 3


def test_killed_again_and_again(unbroken: dict[str, Path], tmp_path: Path):
    recipe, run = tiny(), tmp_path / "r"
    killed(recipe, run, 2)
    killed(recipe, run, 1, resume=True)
    killed(recipe, run, 5, resume=True)
    killed(recipe, run, 4, resume=True)
    killed(recipe, run, 7, resume=True)
    train(recipe, run, resume=True, display=QUIET)
    assert_same_run(run, unbroken["plain"])
    assert len(json.loads((run / "manifest.json").read_text())["resumed"]) == 5


@pytest.mark.parametrize("dialogues", [1, 9])
def test_killed_while_sampling(dialogues: int, unbroken: dict[str, Path], tmp_path: Path):
    recipe, run = tiny(), tmp_path / "r"
    killed(recipe, run, 5, dialogues)
    assert len(rollouts_of(run)) == 1
    train(recipe, run, resume=True, display=QUIET)
    assert_same_run(run, unbroken["plain"])


def test_a_damaged_checkpoint_is_passed_over(unbroken: dict[str, Path], tmp_path: Path):
    recipe, run = tiny(), tmp_path / "r"
    killed(recipe, run, 7)
    with (run / "checkpoints" / "step_000006" / "tensors.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\xff\xff\xff\xff")
    with pytest.warns(RuntimeWarning, match=r"step_000006 is damaged .*; going back to step_000003"):
        train(recipe, run, resume=True, display=QUIET)
    assert_same_run(run, unbroken["plain"])


def test_half_a_line_of_metrics_is_dropped(unbroken: dict[str, Path], tmp_path: Path):
    recipe, run = tiny(), tmp_path / "r"
    killed(recipe, run, 7)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss"')
    train(recipe, run, resume=True, display=QUIET)
    assert_same_run(run, unbroken["plain"])


def test_a_job_goes_on_where_it_was_killed_and_keeps_no_checkpoint_once_it_is_trained(unbroken: dict[str, Path], tmp_path: Path):
    """The way of an arm of the quickstart or of an experiment."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(tiny_table()))
    job, said = Job("tiny", recipe, (), tmp_path / "r"), []

    def kill_after_five(*report: object) -> None:
        said.append(report)
        if len(said) == 6:  # of which the first says that it has begun
            raise Killed

    with pytest.raises(Killed):
        train_job(job, kill_after_five)
    assert len(metrics_of(job.folder)) == 5
    train_job(job, lambda *_: None)
    assert [line["after_steps"] for line in json.loads((job.folder / "manifest.json").read_text())["resumed"]] == [3]
    assert metrics_of(job.folder) == metrics_of(unbroken["plain"]) and rollouts_of(job.folder) == rollouts_of(unbroken["plain"])
    assert (job.model / "model.safetensors").read_bytes() == (unbroken["plain"] / "model" / "model.safetensors").read_bytes()
    assert not (job.folder / "checkpoints").exists()


def test_a_trained_run_without_checkpoints_is_not_begun_anew(unbroken: dict[str, Path], tmp_path: Path):
    run = tmp_path / "r"
    shutil.copytree(unbroken["plain"], run, ignore=shutil.ignore_patterns("step_*[0-9]"))
    before = metrics_of(run)
    with pytest.raises(RunError, match=r"is trained and keeps no checkpoint to go on from: train its model further with model.path=.*/r/model"):
        train(tiny(), run, resume=True, display=QUIET)
    assert metrics_of(run) == before


def finished_and_evaluated(unbroken: Path, run: Path) -> Path:
    shutil.copytree(unbroken, run)
    (run / "eval").mkdir()
    shutil.copy(run / "eval.json", run / "eval")
    return run


def test_a_finished_run_that_goes_on_is_not_finished_until_it_ends(unbroken: dict[str, Path], tmp_path: Path):
    run = finished_and_evaluated(unbroken["plain"], tmp_path / "r")
    longer = tiny(train__steps=6)
    killed(longer, run, 9, resume=True)
    assert not is_trained(run) and not {"model", "eval", "eval.json", "values.parquet", "dialogues.parquet"} & {file.name for file in run.iterdir()}
    with pytest.raises(RunError, match="its training has not ended"):
        read_member(run)
    with pytest.raises(RunError, match="has no model yet"):
        evaluating._eval_recipe(str(run), None, None, [], {})
    assert (run / "eval-after-4-steps" / "eval.json").exists(), "hours may have gone into it"
    train(longer, run, resume=True, display=QUIET)
    assert is_trained(run) and (run / "eval.json").exists()
    assert len(metrics_of(run)) == 4 + 6


def test_what_marks_the_end_goes_before_the_longer_recipe_comes(unbroken: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = finished_and_evaluated(unbroken["plain"], tmp_path / "r")

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "truncate_after", kill)
        with pytest.raises(Killed):
            train(tiny(train__steps=6), run, resume=True, display=QUIET)
    assert not is_trained(run) and not (run / "eval.json").exists()
    assert RunFolder.open(run).recipe.train.steps == 4
    train(tiny(), run, resume=True, display=QUIET)
    assert_same_run(run, unbroken["plain"])


@pytest.mark.parametrize(
    ("arm", "changes", "message"),
    [
        ("plain", {"train__steps": 2}, r"train\.steps = 2: 4 steps are done in .*: set 4 or more, or choose another --out"),
        ("tokens", {"train__max_tokens": 100}, r"train\.max_tokens = 100: \d+ tokens are sampled in .* or more, or choose another --out"),
    ],
)
def test_what_is_done_cannot_be_undone(arm: str, changes: dict[str, Any], message: str, unbroken: dict[str, Path], tmp_path: Path):
    run = finished_and_evaluated(unbroken[arm], tmp_path / "r")
    with pytest.raises(ConfigError, match=message):
        train(tiny(**{**ARMS[arm], **changes}), run, resume=True, display=QUIET)
    assert is_trained(run)
    assert_same_run(run, unbroken[arm])
    assert RunFolder.open(run).recipe == tiny(**ARMS[arm])


def test_problems_that_changed(tmp_path: Path):
    """Those to train on are refused, another set to evaluate on is noted."""

    def write(name: str, *sums: int) -> str:
        (tmp_path / name).write_text("".join(json.dumps({"question": f"1 + {i}", "answer": str(1 + i)}) + "\n" for i in sums))
        return str(tmp_path / name)

    trained_on, held_out = write("train.jsonl", 1, 2, 3), write("test.jsonl", 4, 5)
    changes = {"problems": {"train": trained_on, "eval": [held_out]}, "protocol__feedback": "wrong {n}", "warmup__steps": 0, "eval": {"attempts": "1"}}
    recipe, run = tiny(**changes, log={"checkpoint_every": 1}, train={**tiny_table()["train"], "steps": 2}), tmp_path / "r"
    killed(recipe, run, 1)
    write("train.jsonl", 1, 2, 4)
    with pytest.raises(ConfigError, match=r"problems\.train: .*/train\.jsonl has changed since the run began: restore it or choose another --out"):
        train(recipe, run, resume=True, display=QUIET)
    assert "resumed" not in RunFolder.open(run).manifest()
    write("train.jsonl", 1, 2, 3)
    write("test.jsonl", 4, 6)
    train(recipe, run, resume=True, display=QUIET)
    ((source, (before, now)),) = RunFolder.open(run).manifest()["resumed"][-1]["changed"].items()
    assert source == f"problems of {held_out}" and before != now


# ---------------------------------------------------------------------------------------------------------------- evaluations


def grading_times(files: Sequence[Path]) -> list[float]:
    """Of every attempt: no two gradings take the same time, so these tell dialogues that were kept from those that were played again."""
    return [attempt["ms"] for file in files for row in pq.read_table(file).to_pylist() for attempt in row["attempts"]]


def test_killed_in_the_evaluation(unbroken: dict[str, Path], tmp_path: Path):
    """In its third part: the dialogues with one and with two attempts are not played again."""
    recipe, run, counted = tiny(), tmp_path / "r", CountingDisplay()
    killed(recipe, run, 8, 4 + 4 + 1)
    before = grading_times(list((run / UNFINISHED).iterdir()))
    assert len(before) >= 8 and not (run / "eval.json").exists()
    train(recipe, run, resume=True, display=counted)
    assert_same_run(run, unbroken["plain"])
    assert set(before) <= set(grading_times([run / "dialogues.parquet"]))
    assert counted.dialogues == 4 * (3 + 2) and not (run / UNFINISHED).exists()


def test_a_job_goes_on_with_its_evaluation(unbroken: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(tiny_table()))
    job, played = Job("tiny", recipe, (), tmp_path / "r"), []
    train_job(job, lambda *_: None)
    play = Player.play

    def killing(self: Player, *arguments: Any, **call: Any) -> list[Group]:
        played.append(call["budget"])
        if len(played) == 3:
            raise Killed
        return play(self, *arguments, **call)

    monkeypatch.setattr(Player, "play", killing)
    with pytest.raises(Killed):
        evaluate_job(job, lambda *_: None)
    evaluate_job(job, lambda *_: None)
    assert played == [1, 2, 3, 3, 1], "two budgets, the third and again, the samples"
    one, two = (json.loads((folder / "eval.json").read_text()) for folder in (job.folder, unbroken["plain"]))
    assert one["problem_sets"] == two["problem_sets"]
    assert not (job.folder / UNFINISHED).exists()


def test_eval_goes_on_after_ctrl_c(unbroken: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    arguments = ["eval", str(unbroken["plain"]), "--attempts", "1-3", "--samples", "2", "--temperatures", "0.6,1.0"]
    done: list[object] = []

    def interrupt(rollout: object) -> None:
        done.append(rollout)
        if len(done) == 3 * 4 + 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluating, "_progress", lambda *_: nullcontext(interrupt))
        assert main([*arguments, "--out", str(tmp_path / "a")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted: the same command goes on from the pieces that are finished"
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert "12 dialogues were there already, played by this model before the evaluation was stopped" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 0
    assert "were there already" not in capsys.readouterr().out
    # Stopped again; then another model goes to the same folder, by the same settings.
    done.clear()
    with monkeypatch.context() as patched:
        patched.setattr(evaluating, "_progress", lambda *_: nullcontext(interrupt))
        assert main([*arguments, "--out", str(tmp_path / "c")]) == 130
    other = [arguments[0], str(unbroken["tokens"]), *arguments[2:], "--out", str(tmp_path / "c")]
    assert main(other) == 0
    assert "were there already" not in capsys.readouterr().out
    assert (tmp_path / "c" / UNFINISHED).exists(), "what the first had played"
    assert (tmp_path / "a" / "eval.json").read_text() == (tmp_path / "b" / "eval.json").read_text()
    assert (tmp_path / "a" / "values.parquet").read_bytes() == (tmp_path / "b" / "values.parquet").read_bytes()
    assert {file.name for file in (tmp_path / "a").iterdir()} == {"eval.json", "values.parquet", "dialogues.parquet"}


# ---------------------------------------------------------------------------------------------------------------------- Ctrl-C

# The default action of SIGINT is set by hand: a process started in the background of a shell inherits that it is ignored.
COMMAND = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from mulligan.cli import main; sys.exit(main())"


def start(recipe: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", COMMAND, "train", str(recipe), "--out", str(run), *more]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_and_resume(tmp_path: Path):
    steps = {"train__steps": 24, "log__checkpoint_every": 2, "problems__eval": []}
    recipe, run = tmp_path / "r.toml", tmp_path / "r"
    recipe.write_text(to_toml(tiny_table(**steps)))
    process = start(recipe, run)
    deadline = time.monotonic() + 300
    while not (run / "checkpoints" / "step_000006").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted: the same command with --resume goes on from the last checkpoint"
    assert "Traceback" not in errors
    assert not (run / "model").exists(), "the run was stopped before its end"
    done = len(metrics_of(run))
    assert 6 <= done < 28

    process = start(recipe, run, "--resume")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == f"trained: {run}"
    assert [line["step"] for line in metrics_of(run)] == list(range(28))
    assert len(rollouts_of(run)) == 24
    (resumed,) = json.loads((run / "manifest.json").read_text())["resumed"]
    assert done - 2 <= resumed["after_steps"] <= done
    unbroken = train(tiny(**steps), tmp_path / "unbroken", display=QUIET)
    assert metrics_of(run) == metrics_of(unbroken)
    assert (run / "model" / "model.safetensors").read_bytes() == (unbroken / "model" / "model.safetensors").read_bytes()
