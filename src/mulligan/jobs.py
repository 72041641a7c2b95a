"""Runs in worker processes: each job is a recipe with overrides, trained from where it was and evaluated, with a bar of its own; what has
to come before what is said by tasks.

What `mulligan quickstart` and `mulligan reproduce` have in common.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mulligan.config import Recipe, load_recipe
from mulligan.display import Display
from mulligan.errors import ConfigError, RunError
from mulligan.evaluation.results import read_evaluation, settings_of, unlike_settings
from mulligan.evaluation.values import EVAL_JSON
from mulligan.runlog import RunFolder, is_trained
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
    evaluated: bool = True
    """Whether an evaluation follows the training."""

    def load(self, *further: str) -> Recipe:
        return load_recipe(self.recipe, (*self.overrides, *further))

    def load_training(self) -> Recipe:
        """The evaluation is a task of its own: the run itself has none."""
        return self.load("problems.eval=[]")

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def training(self) -> str:
        """The name of the task that trains it."""
        return f"training of {self.name}"


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker process is to do, and the name of the task that has to be done before."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: str | None = None


def find_recipes() -> Path:
    """The project's `recipes/`: in the working directory, or beside the source of an editable installation."""
    for folder in (Path("recipes"), Path(__file__).resolve().parents[2] / "recipes"):
        if (folder / "quickstart.toml").is_file():
            return folder
    raise RunError("recipes/quickstart.toml is not found: run this from the project's root")


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def train_job(job: Job, report: Report) -> None:
    """Train a job in this process, from where it was; its evaluation is another task's. What is trained keeps no checkpoints: only the model is of use.

    Raises:
        ConfigError: it was trained with other settings.
    """
    from mulligan.train import train

    recipe = job.load_training()
    if is_trained(job.folder):
        require_same_training(job)
    else:
        train(recipe, job.folder, resume=RunFolder.holds_run(job.folder), display=JobDisplay(job, recipe, report))
    shutil.rmtree(RunFolder(job.folder, recipe).checkpoints, ignore_errors=True)
    report(job.name, _share_of_training(job), "trained")


def require_same_training(job: Job) -> None:
    """Raises ConfigError if the run in the job's folder was trained with other settings; where the model lies that it began from may differ."""
    if RunFolder.holds_run(job.folder):
        RunFolder.open(job.folder).require_same(job.load_training(), but=("model.path",))


def require_same_evaluation(job: Job) -> None:
    """Raises ConfigError if the evaluation in the job's folder was played, graded or drawn otherwise than the job says. Those of earlier versions say
    nothing of it."""
    figures, recipe = read_evaluation(job.folder), job.load()
    differing = unlike_settings(figures.get("settings") or {}, settings_of(recipe))
    # The model's path may be another after a move; which model it is, the arm's start says.
    unlike = [f"{key}: {there!r} there, {now!r} now" for key, there, now in differing if key != "model.path"]
    if list(figures["problem_sets"]) != list(recipe.problems.eval):
        unlike.append(f"problems.eval: {list(figures['problem_sets'])} there, {list(recipe.problems.eval)} now")
    if unlike:
        raise ConfigError(f"{job.folder} was evaluated with other settings ({'; '.join(unlike[:3])}): remove {job.folder / EVAL_JSON} to evaluate again, or choose another --out")


def evaluate_job(job: Job, report: Report) -> None:
    """Evaluate the model that a job has trained (or, untrained, starts from), by the job's recipe, from where it was."""
    from mulligan.model import load_policy
    from mulligan.plan import make_plan
    from mulligan.runtime.local import make_player

    recipe = job.load()
    if not (job.folder / "eval.json").exists():
        report(job.name, 1 - SHARE_OF_EVALUATION, "evaluating")
        plan = make_plan(recipe)
        if is_trained(job.folder):
            recipe = job.load(f"model.path={job.model}")
        policy = load_policy(recipe.model, seed=recipe.seed, folder=job.folder / "initial_model")
        player = make_player(recipe, policy)
        dialogues = itertools.count(1)

        def on_done(_: Rollout) -> None:
            if (n := next(dialogues)) % 500 == 0:
                report(job.name, 1 - SHARE_OF_EVALUATION, f"evaluating: {n} dialogues")

        plan.evaluate(player, job.folder, model=recipe.model.path, fingerprint=policy.fingerprint(), on_done=on_done)
        player.grader.close()
    report(job.name, 1.0, "done")


def read_figures(run: Path) -> dict[str, Any]:
    (figures,) = json.loads((run / "eval.json").read_text(encoding="utf-8"))["problem_sets"].values()
    return figures


class JobDisplay(Display):
    """Reports a run's progress to the parent process as (job, share done, figures)."""

    def __init__(self, job: Job, recipe: Recipe, report: Report):
        super().__init__(quiet=True)
        self.job, self.recipe, self.report = job, recipe, report

    def announce(self, plan: Any, folder: Path) -> None:
        self.report(self.job.name, 0.0, "started")

    def step_done(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        recipe = self.recipe
        warmed_up, steps = min(state["step"], recipe.warmup.steps), state["step"]
        if recipe.train.max_tokens and recipe.train.steps:  # tokens end the training instead of steps
            steps = warmed_up + recipe.train.steps * state["tokens"] / recipe.train.max_tokens
        share = steps / max(recipe.warmup.steps + recipe.train.steps, 1)
        self.report(self.job.name, _share_of_training(self.job) * min(share, 1.0), self.figures(metrics))


def _share_of_training(job: Job) -> float:
    return 1 - SHARE_OF_EVALUATION if job.evaluated else 1.0


class OutOfTime(Exception):
    """The time that was given is used up; what was begun can be gone on with."""


def run_tasks(tasks: Sequence[Task], submit: Callable[..., Future[Any]], workers: int, *, until: float | None = None) -> None:
    """Do all tasks, the first of those that can begin whenever a worker is free. Raises what a task raises, at once.

    Args:
        submit: of `worker_pool`.
        until: a time of `time.monotonic`.

    Raises:
        OutOfTime: the time is up and something is left to do.
        RunError: a worker process was killed.
    """
    waiting, done = list(tasks), set[str]()
    doing: dict[Future[Any], Task] = {}
    while waiting or doing:
        ready = [task for task in waiting if task.after is None or task.after in done]
        for task in ready[: workers - len(doing)]:
            waiting.remove(task)
            with _killed_is_told([*doing.values(), task]):
                doing[submit(task.function, *task.arguments)] = task
        ended = wait(doing, timeout=None if until is None else max(until - time.monotonic(), 0.0), return_when=FIRST_COMPLETED).done
        for future in ended:
            with _killed_is_told(doing.values()):
                future.result()
            done.add(doing.pop(future).name)
        if until is not None and time.monotonic() >= until and (waiting or doing):
            raise OutOfTime


@contextmanager
def _killed_is_told(doing: Iterable[Task]) -> Iterator[None]:
    """The pool does not say which of its processes ended: any of those under way."""
    try:
        yield
    except BrokenProcessPool:
        names = " or ".join(task.name for task in doing)
        raise RunError(
            f"{names}: the process was killed, most likely for want of memory: free some (mulligan reproduce has --workers 1 for that), and the same command goes on from here"
        ) from None


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
            self.progress.start_task(task)
            self.progress.update(task, completed=share, figures=figures)
            now = time.monotonic()
            if not self.console.is_terminal and (share == 1.0 or now - self.last.get(name, -self.INTERVAL) >= self.INTERVAL):
                self.last[name] = now
                self.console.print(f"{name}: {share:.0%}  {figures}", highlight=False, soft_wrap=True)
