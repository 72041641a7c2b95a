"""The loop's pure parts: which problems a step plays, what its metrics say, when a broken grader stops the run."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_dialogues import problem, rollout
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from mulligan.config import Recipe, parse_recipe
from mulligan.errors import GraderError, RunError
from mulligan.runlog import RunFolder
from mulligan.train import NEW_STATE, _check_feedback, _check_grader, _finished, problems_of_step, rollout_metrics, train
from mulligan.types import Group, Problem

PROBLEMS = [problem(i) for i in range(10)]


def recipe(**sections: Any) -> Recipe:
    return parse_recipe({"model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}, **sections})


# ------------------------------------------------------------------------------------------------------------------- problems


@given(size=st.integers(1, 30), count=st.integers(1, 40), seed=st.integers(0, 5), passes=st.integers(1, 3))
def test_every_problem_once_per_pass(size: int, count: int, seed: int, passes: int):
    problems = [problem(i) for i in range(size)]
    steps = -(-passes * size // count)
    played = [p for step in range(steps) for p in problems_of_step(problems, step, count, seed)]
    assert len(played) == steps * count
    for start in range(0, passes * size, size):
        assert {p.id for p in played[start : start + size]} == {p.id for p in problems}


def test_a_step_is_a_function_of_its_number():
    late = problems_of_step(PROBLEMS, 37, 4, seed=0)
    assert [problems_of_step(PROBLEMS, step, 4, seed=0) for step in range(38)][37] == late
    assert problems_of_step(PROBLEMS, 37, 4, seed=0) == late


def test_passes_and_seeds_are_shuffled_differently():
    def whole_pass(step: int, seed: int) -> list[str]:
        return [p.id for p in problems_of_step(PROBLEMS, step, 10, seed)]

    orders = [whole_pass(step, seed) for step in range(3) for seed in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert all(order != [p.id for p in PROBLEMS] for order in orders)


def test_a_step_larger_than_the_data_wraps_around():
    assert Counter(p.id for p in problems_of_step(PROBLEMS, 0, 25, seed=3)).most_common()[-1][1] == 2


# -------------------------------------------------------------------------------------------------------------------- metrics


def group(i: int, *scripts: str, budget: int = 3, error: str | None = None) -> Group:
    p = problem(i)
    return Group(p, tuple(rollout(p, script.split(), budget=budget, index=g, error=error) for g, script in enumerate(scripts)))


def test_rollout_metrics_by_hand():
    """Attempt t has t + 1 tokens; a dialogue is worth 1 if solved, else 0."""
    groups = [group(0, "c", "w c"), group(1, "w n t", "w w w"), group(2, "w u", budget=5), group(3, "w", budget=2, error="feedback: broken")]
    metrics = rollout_metrics(groups)
    graded, attempts = 5, 12
    assert metrics == {
        "reward": 2 / graded,
        "accuracy": 2 / graded,  # one that broke is unsolved
        "accuracy_first": 1 / graded,
        "attempts_used": (1 + 2 + 3 + 3 + 1) / graded,
        "budget": (4 * 3 + 2) / graded,  # what could not be graded enters no mean over dialogues...
        "tokens_sampled": 2.0 + 5 + 9 + 9 + 5 + 2,  # ...but its tokens were sampled
        "tokens_per_attempt": 32 / attempts,
        "dialogues_broken": 1.0,
        "share_correct": 2 / attempts,
        "share_wrong": 7 / attempts,
        "share_no_answer": 1 / attempts,
        "share_truncated": 1 / attempts,
        "share_ungradable": 1 / attempts,
    }


def test_rollout_metrics_of_nothing_trainable():
    metrics = rollout_metrics([group(0, "u")])
    assert metrics["reward"] == metrics["accuracy"] == metrics["attempts_used"] == 0.0
    assert metrics["share_ungradable"] == 1.0


# --------------------------------------------------------------------------------------------------------------------- grader


@pytest.mark.parametrize(("allowed", "stops"), [(0.0, True), (0.01, False), (1.0, False)])
def test_a_broken_grader_stops_the_run(allowed: float, stops: bool):
    """One failure is not a share yet, unless none is allowed."""
    groups, state = [group(0, "c", "w c"), group(1, "u")], dict(NEW_STATE)
    settings = recipe(grader={"max_failure_rate": allowed})
    if not stops:
        _check_grader(state, groups, settings, 7)
        assert (state["graded"], state["ungradable"]) == (4, 1)
        return
    message = r"step 7: the grader failed on 1 of 4 attempts so far \(now with: late\); mend it or raise grader\.max_failure_rate"
    with pytest.raises(GraderError, match=message):
        _check_grader(state, groups, settings, 7)


@pytest.mark.parametrize(("allowed", "stops"), [(0.24, True), (0.25, False)])
def test_the_limit_is_a_share(allowed: float, stops: bool):
    """Two of eight."""
    groups, settings = [group(0, "c", "w c", "w n t"), group(1, "u", "u")], recipe(grader={"max_failure_rate": allowed})
    if not stops:
        _check_grader(dict(NEW_STATE), groups, settings, 0)
        return
    with pytest.raises(GraderError, match="failed on 2 of 8 attempts so far"):
        _check_grader(dict(NEW_STATE), groups, settings, 0)


def test_failures_of_the_grader_are_counted_over_the_run():
    state, settings = dict(NEW_STATE), recipe(grader={"max_failure_rate": 0.01})
    _check_grader(state, [group(0, "u")], settings, 0)
    for step in range(1, 5):
        _check_grader(state, [group(0, "w n t")], settings, step)
    with pytest.raises(GraderError, match=r"failed on 2 of 14 attempts so far"):
        _check_grader(state, [group(1, "u")], settings, 5)


def test_a_sound_grader_does_not():
    _check_grader(dict(NEW_STATE), [group(0, "w n t")], recipe(grader={"max_failure_rate": 0.0}), 0)
    _check_grader(dict(NEW_STATE), [], recipe(grader={"max_failure_rate": 0.0}), 0)


# ------------------------------------------------------------------------------------------------------------------- feedback


@pytest.mark.parametrize(("allowed", "stops"), [(0.0, True), (0.24, True), (0.25, False)])
def test_a_feedback_function_that_raises_too_often_stops_the_run(allowed: float, stops: bool):
    """It was called four times, after each failure with attempts left, and raised once. That is a share of the calls: what is solved at once calls nothing."""
    groups = [group(0, "c", "c", "w c", "w w c"), group(1, "w", error="feedback: KeyError: 'x'")]
    state, settings = {**NEW_STATE, "answered": 4, "broken": 1}, recipe(grader={"max_failure_rate": allowed})
    if not stops:
        _check_feedback(state, groups, settings, 7)
        assert (state["answered"], state["broken"]) == (8, 2)
        return
    message = r"step 7: dialogues broke after 2 of 8 failed attempts so far \(now with: feedback: KeyError: 'x'\); mend protocol\.feedback or raise grader\.max_failure_rate"
    with pytest.raises(RunError, match=message):
        _check_feedback(state, groups, settings, 7)


def test_a_single_dialogue_that_breaks_is_no_share_yet():
    groups = [group(0, "c"), group(1, "w", error="feedback: KeyError: 'x'")]
    _check_feedback(dict(NEW_STATE), groups, recipe(grader={"max_failure_rate": 0.01}), 0)
    with pytest.raises(RunError, match="after 1 of 1 failed attempts"):
        _check_feedback(dict(NEW_STATE), groups, recipe(grader={"max_failure_rate": 0.0}), 0)
    _check_feedback(dict(NEW_STATE), [group(0, "w n t")], recipe(grader={"max_failure_rate": 0.0}), 0)


# ------------------------------------------------------------------------------------------------------------------------ end


@pytest.mark.parametrize(
    ("sections", "step", "tokens", "finished"),
    [
        ({"train": {"steps": 5}}, 4, 0, False),
        ({"train": {"steps": 5}}, 5, 0, True),
        ({"train": {"steps": 5}, "warmup": {"steps": 3}}, 7, 0, False),
        ({"train": {"steps": 5}, "warmup": {"steps": 3}}, 8, 0, True),
        ({"train": {"steps": 0}, "warmup": {"steps": 3}}, 3, 0, True),
        ({"train": {"steps": 5, "max_tokens": 100}}, 9, 99, False),  # tokens, where given, decide alone
        ({"train": {"steps": 5, "max_tokens": 100}}, 2, 100, True),
        ({"train": {"steps": 5, "max_tokens": 100}, "warmup": {"steps": 3}}, 2, 100, False),
        ({"train": {"steps": 0, "max_tokens": 100}, "warmup": {"steps": 3}}, 3, 0, True),  # the warm-up alone
    ],
)
def test_when_a_run_ends(sections: dict[str, Any], step: int, tokens: int, finished: bool):
    assert _finished(recipe(**sections), {"step": step, "tokens": tokens}) is finished


def test_problems_are_not_copied():
    chosen: list[Problem] = problems_of_step(PROBLEMS, 0, 3, seed=0)
    assert all(any(p is q for q in PROBLEMS) for p in chosen)


# ----------------------------------------------------------------------------------------------------------------------- disk


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("error", "reason"), [(FULL, "No space left on device"), (SafetensorError("I/O error: no space"), "I/O error: no space")])
def test_a_full_disk_is_told_with_the_way_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("mulligan.train.write_set_aside", refuse)
    with pytest.raises(RunError) as caught:
        train(recipe(), tmp_path / "r")
    assert str(caught.value) == f"{tmp_path / 'r'}: the run cannot be written ({reason}): free space, then the same command goes on (mulligan train: with --resume)"


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_what_the_disk_has_no_part_in_is_not_told_as_its_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("mulligan.train.write_set_aside", refuse)
    with pytest.raises(type(error)) as caught:
        train(recipe(), tmp_path / "r")
    assert caught.value is error


def test_a_line_that_the_full_disk_refuses_when_the_run_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What waits in the file's buffer is tried again on closing; the run lets go of its lock even so."""

    class Refusing:
        def close(self) -> None:
            raise FULL

    def stop(_: Recipe, run: RunFolder, *__: object, **___: object) -> None:
        run._file = Refusing()  # type: ignore[assignment]
        runs.append(run)

    runs: list[RunFolder] = []
    monkeypatch.setattr("mulligan.train._train", stop)
    with pytest.raises(RunError, match="free space"):
        train(recipe(), tmp_path / "r")
    assert runs[0]._lock is None and runs[0]._file is None
