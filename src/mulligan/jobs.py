"""Runs in worker processes: each job is a recipe with overrides, trained from where it was and evaluated, with a bar of its own.

What `mulligan quickstart` and `mulligan reproduce` have in common.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mulligan.config import Recipe, load_recipe
from mulligan.display import Display
from mulligan.errors import RunError
from mulligan.types import Rollout

SHARE_OF_EVALUATION = 0.15
"""How much of a job's bar its evaluation is."""

Report = Callable[[str, float, str], None]
"""Takes a job's name, the share of it that is done, and figures to show."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a recipe with overrides, in a folder of its own."""

    name: str
    recipe: Path
    overrides: tuple[str, ...]
    folder: Path

    def load(self, *further: str) -> Recipe:
        return load_recipe(self.recipe, (*self.overrides, *further))

    @property
    def model(self) -> Path:
        return self.folder / "model"


def find_recipes() -> Path:
    """The project's `recipes/`: in the working directory, or beside the source of an editable installation."""
    for folder in (Path("recipes"), Path(__file__).resolve().parents[2] / "recipes"):
        if (folder / "quickstart.toml").is_file():
            return folder
    raise RunError("recipes/quickstart.toml is not found: run this from the project's root")


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def train_jobs(jobs: list[Job], report: Report) -> dict[str, Any]:
    """Train jobs one after the other in this process, each from where it was; returns the figures of those that are evaluated, by name."""
    from mulligan.runlog import RunFolder
    from mulligan.train import train

    figures = {}
    for job in jobs:
        recipe = job.load()
        if not _finished(job.folder, recipe):
            train(recipe, job.folder, resume=RunFolder.holds_run(job.folder), display=JobDisplay(job.name, recipe, report))
        else:
            require_same_training(job)
        if recipe.problems.eval:
            figures[job.name] = read_figures(job.folder)
        report(job.name, 1.0, "done" if recipe.problems.eval else "trained")
    return figures


def require_same_training(job: Job) -> None:
    """Raises ConfigError if the run in the job's folder was trained with other settings; where the model lies that it began from may differ."""
    from mulligan.runlog import RunFolder

    if RunFolder.holds_run(job.folder):
        RunFolder.open(job.folder).require_same(job.load(), but=("model.path",))


def _finished(run: Path, recipe: Recipe) -> bool:
    """Whether a run left what comes last: its evaluation, or, where there is none, its model (whose card is written after it)."""
    return (run / "eval.json").exists() if recipe.problems.eval else is_trained(run)


def is_trained(run: Path) -> bool:
    return (run / "model" / "README.md").exists()


def evaluate_job(job: Job, bar: str, report: Report) -> dict[str, Any]:
    """Evaluate the model that a job has trained (or, untrained, starts from), by the job's recipe, on the bar of that name; returns the
    figures."""
    from mulligan.model import load_policy
    from mulligan.plan import make_plan
    from mulligan.runtime.local import make_player

    recipe = job.load()
    if not _finished(job.folder, recipe):
        plan = make_plan(recipe)
        if is_trained(job.folder):
            recipe = job.load(f"model.path={job.model}")
        player = make_player(recipe, load_policy(recipe.model, seed=recipe.seed, folder=job.folder / "initial_model"))
        display = JobDisplay(bar, recipe, report, evaluation_only=True)
        plan.evaluate(player, job.folder, model=recipe.model.path, on_done=display.rollout_done)
        player.grader.close()
    report(bar, 1.0, "done")
    return read_figures(job.folder)


def read_figures(run: Path) -> dict[str, Any]:
    (figures,) = json.loads((run / "eval.json").read_text(encoding="utf-8"))["problem_sets"].values()
    return figures


class JobDisplay(Display):
    """Reports a run's progress to the parent process as (job, share done, figures)."""

    def __init__(self, name: str, recipe: Recipe, report: Report, *, evaluation_only: bool = False):
        super().__init__(quiet=True)
        self.name, self.recipe, self.report = name, recipe, report
        self.training = 1.0 - (SHARE_OF_EVALUATION if recipe.problems.eval else 0.0)
        self.evaluated: int | None = 0 if evaluation_only else None

    def announce(self, plan: Any, folder: Path) -> None:
        self.report(self.name, 0.0, "started")

    def step_done(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        recipe = self.recipe
        share = state["step"] / max(recipe.warmup.steps + recipe.train.steps, 1)
        if recipe.train.max_tokens and recipe.train.steps:
            share = state["tokens"] / recipe.train.max_tokens
        if share >= 1:
            self.evaluated = 0
        self.report(self.name, self.training * min(share, 1.0), self.figures(metrics))

    def rollout_done(self, rollout: Rollout) -> None:
        if self.evaluated is None:
            return
        self.evaluated += 1
        if self.evaluated % 500 == 0:
            self.report(self.name, self.training, f"evaluating: {self.evaluated} dialogues")


@contextmanager
def worker_pool(console: Console, names: list[str], workers: int = 2) -> Iterator[Callable[..., Future[Any]]]:
    """Worker processes of one thread each, and a bar per name. Yields submit(function, *arguments), which adds a `Report` to them."""
    context = multiprocessing.get_context("spawn")
    # One thread a process: two processes of two threads on two cores would only get in each other's way.
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    try:
        queue = context.Queue()
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(queue,)) as pool, Bars(console, names, queue):
            try:
                yield functools.partial(pool.submit, _run_reporting)
            except BaseException:  # what the other processes do is of no more use: do not wait minutes for it
                for process in list(pool._processes.values()):
                    process.terminate()
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_reports: Any = None
"""In a worker process: the queue of its reports."""


def _begin_worker(queue: Any) -> None:
    """Ctrl-C goes to every process of a terminal; the parent alone answers it, and ends the others. If it is killed, they end as well."""
    global _reports
    _reports = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # at any moment: a run goes on from its last checkpoint


def _run_reporting(function: Callable[..., Any], *arguments: Any) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return function(*arguments, lambda *report: _reports.put(report))


class Bars:
    """One bar per job, fed from a queue by a thread; plain lines every 15 s where there is no terminal."""

    INTERVAL = 15.0

    def __init__(self, console: Console, names: list[str], queue: Any):
        self.console, self.queue = console, queue
        columns = (TextColumn("{task.description:24}"), BarColumn(20), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), TextColumn("{task.fields[figures]}"))
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.tasks = {name: self.progress.add_task(name, total=1.0, figures="", start=False) for name in names}
        self.last: dict[str, float] = {}

    def __enter__(self) -> Bars:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.progress.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)  # a process that was ended in the middle of a report leaves half of it in the queue
        self.progress.stop()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                name, share, figures = self.queue.get(timeout=0.5)
            except Empty:
                continue
            except (EOFError, OSError):
                return
            task = self.tasks[name]
            if share == 0:
                self.progress.start_task(task)
            self.progress.update(task, completed=share, figures=figures)
            now = time.monotonic()
            if not self.console.is_terminal and (share in (0.0, 1.0) or now - self.last.get(name, 0.0) >= self.INTERVAL):
                self.last[name] = now
                self.console.print(f"{name}: {share:.0%}  {figures}", highlight=False, soft_wrap=True)
