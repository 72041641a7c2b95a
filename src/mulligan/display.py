"""What a person sees while a run works: a progress bar on a terminal, plain lines elsewhere. Reads metrics, decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mulligan.config import Recipe
from mulligan.types import Rollout

if TYPE_CHECKING:
    from mulligan.plan import Plan


class Display:
    """Progress of a run. `quiet` says nothing at all; without a terminal a line is printed at most every `interval` seconds, and at the end."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False, interval: float = 10.0):
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self.interval = interval
        self._progress: Progress | None = None
        self._last_line = float("-inf")
        self._done = 0

    def announce(self, plan: Plan, folder: Path) -> None:
        """Say what is about to run, and what was set aside."""
        if self.quiet:
            return
        self.console.print(escape(f"{len(plan.problems)} problems from {plan.recipe.problems.train}; run folder {folder}"), soft_wrap=True)
        for source, aside in plan.set_aside.items():
            if aside:
                self.console.print(
                    f"[yellow]{len(aside)} problems of {escape(source)} are set aside (see set_aside.jsonl), the first: {escape(aside[0].reason)}", soft_wrap=True
                )
        for remark in plan.remarks:
            self.console.print(f"[yellow]{escape(remark)}", soft_wrap=True)

    @contextmanager
    def running(self, recipe: Recipe, state: dict[str, Any]) -> Iterator[None]:
        self._by_tokens = recipe.train.max_tokens is not None and recipe.train.steps > 0
        total = recipe.train.max_tokens if self._by_tokens else recipe.warmup.steps + recipe.train.steps
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"))
        with Progress(*columns, console=self.console, disable=self.quiet or not self.console.is_terminal) as progress:
            self._progress = progress
            self._warmup = recipe.warmup.steps
            self._task = progress.add_task(escape(recipe.name), total=total, completed=state["tokens"] if self._by_tokens else state["step"], figures="")
            self._total = total
            yield
        self._progress = None

    def rollout_done(self, rollout: Rollout) -> None:
        """One more dialogue of the step is finished."""
        self._done += 1
        if self._progress is not None and self._done % 16 == 0:
            self._progress.update(self._task, description=f"sampling ({self._done})")

    def step_done(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        self._done = 0
        step = state["step"]
        figures = self.figures(metrics)
        stage = "warm-up" if step <= self._warmup else "train"
        if self._progress is not None:
            self._progress.update(self._task, completed=state["tokens"] if self._by_tokens else step, description=f"{stage} step {step}", figures=figures)
        now = time.monotonic()
        ended = (state["tokens"] if self._by_tokens else step) >= self._total
        if not self.quiet and not self.console.is_terminal and (ended or now - self._last_line >= self.interval):
            self._last_line = now
            of = f" of {self._total}"
            if self._by_tokens:
                of = f", {state['tokens']:,} of {self._total:,} tokens" if step > self._warmup else f" of {self._warmup}"
            self.console.print(f"{stage} step {step}{of}: {figures}{self._left(state)}", highlight=False, soft_wrap=True)

    def _left(self, state: dict[str, Any]) -> str:
        """How long the run still takes, if it goes on as it went; nothing where that cannot be said yet."""
        done = state["tokens"] if self._by_tokens else state["step"]
        if not done or not state.get("seconds") or done >= self._total:
            return ""
        return f"  ETA {timedelta(seconds=round(state['seconds'] * (self._total - done) / done))}"

    @staticmethod
    def figures(metrics: dict[str, Any]) -> str:
        if "reward" not in metrics:
            return f"loss {metrics['loss']:.3f}"
        rate = metrics["tokens_sampled"] / max(metrics["seconds_sampling"], 1e-9)
        return (
            f"reward {metrics['reward']:+.2f}  first {metrics['accuracy_first']:.0%}  end {metrics['accuracy']:.0%}  "
            f"attempts {metrics['attempts_used']:.2f}  {rate:,.0f} tokens/s"
        )
