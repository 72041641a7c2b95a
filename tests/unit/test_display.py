"""What a person reads while a run works: plain lines without a terminal, a bar on one, nothing at all when quiet."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_dialogues import problem, rollout
from rich.console import Console

from mulligan.config import Recipe, parse_recipe
from mulligan.display import Display
from mulligan.tasks import SetAside

WARM_UP = {"stage": "warmup", "loss": 1.2345}
STEP = {"reward": 0.25, "accuracy": 0.5, "accuracy_first": 0.125, "attempts_used": 2.5, "tokens_sampled": 3000.0, "seconds_sampling": 2.0}


def recipe(**train: Any) -> Recipe:
    return parse_recipe({"name": "demo", "model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}, "warmup": {"steps": 1}, "train": {"steps": 2, **train}})


def shown(settings: Recipe, *, terminal: bool = False, quiet: bool = False, interval: float = 0.0) -> str:
    """Everything that a run of one warm-up step and two more writes."""
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=terminal, width=150, color_system=None), quiet=quiet, interval=interval)
    with display.running(settings, {"step": 0, "tokens": 0, "seconds": 0.0}):
        display.step_done({"step": 1, "tokens": 0}, WARM_UP)
        for step in (2, 3):
            for _ in range(20):
                display.rollout_done(rollout(problem(0), ["c"]))
            display.step_done({"step": step, "tokens": 1500 * (step - 1)}, STEP)
    return out.getvalue()


def test_lines():
    figures = "reward +0.25  first 12%  end 50%  attempts 2.50  1,500 tokens/s"
    assert shown(recipe()).splitlines() == ["warm-up step 1 of 3: loss 1.234", f"train step 2 of 3: {figures}", f"train step 3 of 3: {figures}"]


def test_lines_by_tokens():
    lines = shown(recipe(max_tokens=3000)).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["warm-up step 1 of 1", "train step 2, 1,500 of 3,000 tokens", "train step 3, 3,000 of 3,000 tokens"]


def test_the_warm_up_alone_goes_by_steps():
    assert shown(recipe(steps=0, max_tokens=3000)).splitlines()[0].startswith("warm-up step 1 of 1: ")


def test_time_left():
    out = io.StringIO()
    display = Display(Console(file=out, width=150, color_system=None), interval=0.0)
    with display.running(recipe(max_tokens=3000), {"step": 0, "tokens": 0}):
        display.step_done({"step": 1, "tokens": 0, "seconds": 10.0}, WARM_UP)
        display.step_done({"step": 2, "tokens": 1000, "seconds": 100.0}, STEP)
        display.step_done({"step": 3, "tokens": 3000, "seconds": 300.0}, STEP)
    first, second, third = out.getvalue().splitlines()
    assert second.endswith("tokens/s  ETA 0:03:20")
    assert "ETA" not in first + third


def test_lines_are_rare():
    for settings in (recipe(), recipe(max_tokens=3000)):
        first, last = shown(settings, interval=1000.0).splitlines()
        assert first.startswith("warm-up step 1") and last.startswith("train step 3"), "but the end is told"


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet(terminal: bool):
    assert shown(recipe(), terminal=terminal, quiet=True) == ""


@pytest.mark.parametrize(("settings", "done"), [(recipe(), "3/3"), (recipe(max_tokens=3000), "3000/3000")])
def test_a_bar(settings: Recipe, done: str):
    text = shown(settings, terminal=True)
    assert done in text
    assert "reward +0.25" in text
    assert "train step 3" in text
    assert not any(f"train step 3{follows}" in text for follows in (":", " of", ",")), "no lines between the bars"


def test_names_are_no_markup():
    """A recipe's name and a gold answer may hold brackets."""

    @dataclass
    class Plan:
        recipe: Recipe
        problems: tuple[Any, ...]
        set_aside: dict[str, tuple[SetAside, ...]]
        remarks: tuple[str, ...]

    out = io.StringIO()
    display = Display(Console(file=out, width=60, color_system=None))
    settings = recipe().model_copy(update={"name": "[/demo]"})
    plan = Plan(settings, (problem(0),), {"a[b].jsonl": (SetAside(problem(1), "gold answer '[/a, b]' does not pass its own grader"),), "other": ()}, ("[/c]: 3 of 4",))
    display.announce(plan, Path("runs/[x]"))  # type: ignore[arg-type]
    with display.running(settings, {"step": 0, "tokens": 0}):
        pass
    assert out.getvalue().splitlines() == [
        "1 problems from builtin:guess; run folder runs/[x]",
        "1 problems of a[b].jsonl are set aside (see set_aside.jsonl), the first: gold answer '[/a, b]' does not pass its own grader",
        "[/c]: 3 of 4",
    ]
