"""`mulligan quickstart`: multi-attempt reinforcement learning in minutes, on two cores, with its controls.

Two small tasks, both from scratch. `readings` (trying again): a warm-up, then two arms from the same weights, with up to five
attempts and with one, the same hyper-parameters and the same number of sampled tokens. `guess` (learning from feedback): a
warm-up, then an arm that is told "higher" or "lower" and a control that is told only "wrong".

    core 1   readings warm-up ......... readings, multi-attempt ....... warm-up's evaluation
    core 2   guess, both arms ......... readings, single-turn .........
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
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
from mulligan.report.figures import Curve, Panel, accuracy_figure
from mulligan.report.summary import quickstart_sentences
from mulligan.report.tables import comparison_table, intervals
from mulligan.tasks.builtin import guess, readings
from mulligan.types import Rollout

READINGS, GUESS = "readings", "guess"
ATTEMPTS = range(1, 6)
SHARE_OF_EVALUATION = 0.15
"""How much of a job's bar its evaluation is."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the quickstart: a recipe's overrides, and how its evaluation is called in the summary."""

    name: str
    recipe: str
    overrides: tuple[str, ...]


def run_quickstart(out: Path, *, recipes: Path | None = None, seed: int = 0, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Train and evaluate all arms, write table, plot and summary.json to `out`; returns the summary.

    One that was interrupted goes on where it was; one that is finished is shown again.

    Args:
        recipes: folder of quickstart.toml and quickstart-guess.toml; by default the project's.
        overrides: further settings for every run (for tests).

    Raises:
        RunError: `out` holds a finished quickstart of another seed, or the recipes are not found.
        ConfigError: `out` holds an unfinished quickstart with other settings.
    """
    began = time.monotonic()
    if (out / "summary.json").exists():
        return _show_again(out, seed)
    folder = recipes or find_recipes()
    runs = out / "runs"
    resumed = runs.exists()
    common = (f"seed={seed}", *overrides)
    warm = Job("readings warm-up", "quickstart.toml", (*common, "train.steps=0"))
    from_warm = (*common, f"model.path={runs / slug(warm.name) / 'model'}", "warmup.steps=0")
    multi = Job("readings, multi-attempt", "quickstart.toml", from_warm)
    single = Job("readings, single-turn", "quickstart.toml", (*from_warm, "attempts=fixed(1)"))
    guess_warm = Job("guess warm-up", "quickstart-guess.toml", (*common, "train.steps=0", "problems.eval=[]"))
    from_guess = (*common, f"model.path={runs / slug(guess_warm.name) / 'model'}", "warmup.steps=0")
    hints = Job("guess, full feedback", "quickstart-guess.toml", from_guess)
    verdict = Job("guess, verdict only", "quickstart-guess.toml", (*from_guess, "protocol.feedback=wrong {n}"))

    jobs = [warm, multi, single, guess_warm, hints, verdict]
    for job in jobs:  # a faulty setting shows before anything runs
        load_recipe(folder / job.recipe, job.overrides)
    console = Console(stderr=True)
    with _pool(console, [*(j.name for j in jobs), "warm-up, evaluation"]) as submit:
        warming = submit(train_job, folder, [Job(warm.name, warm.recipe, (*warm.overrides, "problems.eval=[]"))], runs)
        guessing = submit(train_job, folder, [guess_warm, hints, verdict], runs)
        warming.result()
        arms = [submit(train_job, folder, [multi], runs), submit(train_job, folder, [single], runs)]
        evaluating = submit(evaluate_job, folder, warm, runs)
        figures = guessing.result() | arms[0].result() | arms[1].result() | {warm.name: evaluating.result()}
    summary = {
        READINGS: {"multi_attempt": figures[multi.name], "single_turn": figures[single.name], "warm_up": figures[warm.name]},
        GUESS: {"feedback": figures[hints.name], "verdict_only": figures[verdict.name]},
        "seed": seed,
        "resumed": resumed,
        "seconds": round(time.monotonic() - began, 1),
    }
    write_results(out, summary, Console())
    return summary


def _show_again(out: Path, seed: int) -> dict[str, Any]:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    if summary["seed"] != seed:
        raise RunError(f"{out} already holds a quickstart of seed {summary['seed']}: remove it, or choose another --out")
    console = Console()
    write_results(out, summary, console)
    console.print(f"{out} was finished before and is shown again: to run it anew, remove the folder or choose another --out", highlight=False, soft_wrap=True)
    return summary


def find_recipes() -> Path:
    """The project's `recipes/`: in the working directory, or beside the source of an editable installation."""
    for folder in (Path("recipes"), Path(__file__).resolve().parents[2] / "recipes"):
        if (folder / "quickstart.toml").is_file():
            return folder
    raise RunError("recipes/quickstart.toml is not found: run this from the project's root")


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


# ----------------------------------------------------------------------------------------------------------- the processes


def train_job(folder: Path, jobs: list[Job], runs: Path, report: Callable[[str, float, str], None]) -> dict[str, Any]:
    """Train jobs one after the other in this process, each from where it was; returns the figures of those that are evaluated, by name."""
    from mulligan.runlog import RunFolder
    from mulligan.train import train

    figures = {}
    for job in jobs:
        recipe = load_recipe(folder / job.recipe, job.overrides)
        path = runs / slug(job.name)
        if not _finished(path, recipe):
            train(recipe, path, resume=RunFolder.holds_run(path), display=JobDisplay(job.name, recipe, report))
        if recipe.problems.eval:
            figures[job.name] = _figures(path)
        report(job.name, 1.0, "done")
    return figures


def _finished(run: Path, recipe: Recipe) -> bool:
    """Whether a run left what comes last: its evaluation, or, where there is none, its model (whose card is written after it)."""
    return (run / "eval.json" if recipe.problems.eval else run / "model" / "README.md").exists()


def evaluate_job(folder: Path, job: Job, runs: Path, report: Callable[[str, float, str], None]) -> dict[str, Any]:
    """Evaluate the model that a job has trained, by the job's recipe."""
    from mulligan.model import load_policy
    from mulligan.plan import make_plan
    from mulligan.runtime.local import make_player

    recipe = load_recipe(folder / job.recipe, job.overrides)
    path = runs / slug(job.name)
    if _finished(path, recipe):
        return _figures(path)
    plan = make_plan(recipe)
    recipe = load_recipe(folder / job.recipe, (*job.overrides, f"model.path={path / 'model'}"))
    player = make_player(recipe, load_policy(recipe.model, seed=recipe.seed))
    display = JobDisplay("warm-up, evaluation", recipe, report, evaluation_only=True)
    plan.evaluate(player, path, model=str(path / "model"), on_done=display.rollout_done)
    player.grader.close()
    report("warm-up, evaluation", 1.0, "done")
    return _figures(path)


def _figures(run: Path) -> dict[str, Any]:
    (figures,) = json.loads((run / "eval.json").read_text(encoding="utf-8"))["problem_sets"].values()
    return figures


class JobDisplay(Display):
    """Reports a run's progress to the parent process as (job, share done, figures)."""

    def __init__(self, name: str, recipe: Recipe, report: Callable[[str, float, str], None], *, evaluation_only: bool = False):
        super().__init__(quiet=True)
        self.name, self.recipe, self.report = name, recipe, report
        self.training = 0.0 if evaluation_only else 1.0 - (SHARE_OF_EVALUATION if recipe.problems.eval else 0.0)
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
def _pool(console: Console, names: list[str]) -> Iterator[Callable[..., Future[Any]]]:
    """Two worker processes of one thread each, and a bar per job. Yields submit(function, *arguments)."""
    context = multiprocessing.get_context("spawn")
    # One thread a process: two processes of two threads on two cores would only get in each other's way.
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    try:
        with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context, initializer=_leave_interrupts) as pool:
            queue = manager.Queue()
            with Bars(console, names, queue):
                try:
                    yield functools.partial(pool.submit, _run_reporting, queue)
                except BaseException:  # what the other process does is of no more use: do not wait minutes for it
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


def _leave_interrupts() -> None:
    """Ctrl-C goes to every process of a terminal; the parent alone answers it, and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_reporting(queue: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return function(*arguments, lambda *report: queue.put(report))


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
        import threading

        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.progress.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
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


# --------------------------------------------------------------------------------------------------------------- the results


def write_results(out: Path, summary: dict[str, Any], console: Console) -> None:
    """summary.json, the table (terminal and table.md), the plot (PNG and SVG), and what it shows in two sentences."""
    arms, others = summary[READINGS], summary[GUESS]
    tables = [
        comparison_table({"multi-attempt": arms["multi_attempt"], "single-turn": arms["single_turn"], "warm-up": arms["warm_up"]}, title="readings: accuracy by attempts allowed, and pass@k", with_pass=True),
        comparison_table({"full feedback": others["feedback"], "verdict only": others["verdict_only"]}, title="guess: accuracy by attempts allowed, and pass@k", with_pass=True),
    ]  # fmt: skip
    for table in tables:
        console.print(table)
    sentences = quickstart_sentences(summary)
    (out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    (out / "table.md").write_text("\n\n".join([*(t.to_markdown() for t in tables), *sentences]) + "\n", encoding="utf-8")
    png = out / "quickstart.png"
    accuracy_figure(
        [_readings_panel(arms), _guess_panel(others)],
        png,
        out / "quickstart.svg",
        title="What a second chance brings",
        footnote="Bars: 95 % intervals over held-out problems, one seed. On readings a retry schedule that looks at no earlier attempt can gain most of this; guess needs the feedback.",
    )
    console.print()
    for sentence in sentences:
        console.print(sentence, highlight=False)
    span = "since it went on" if summary["resumed"] else "in all"
    console.print(f"\n{summary['seconds']:.0f} s {span}. Plot: {png}  Figures: {out / 'summary.json'}", highlight=False, soft_wrap=True)


def _readings_panel(arms: dict[str, Any]) -> Panel:
    curves = [
        Curve("multi-attempt", intervals(arms["multi_attempt"]["accuracy"]), "arm"),
        Curve("single-turn, asked again", intervals(arms["single_turn"]["accuracy"]), "arm"),
        Curve("warm-up, asked again", intervals(arms["warm_up"]["accuracy"]), "arm"),
        Curve("multi-attempt, pass@k", intervals(arms["multi_attempt"]["pass_at_k"]), "pass", of="multi-attempt"),
        Curve("single-turn, pass@k", intervals(arms["single_turn"]["pass_at_k"]), "pass", of="single-turn, asked again"),
        Curve("warm-up, pass@k", intervals(arms["warm_up"]["pass_at_k"]), "pass", of="warm-up, asked again"),
        _bound("best possible", readings.oracle_accuracy),
        _bound("best independent sampling", readings.best_independent),
    ]
    return Panel("readings: trying again", tuple(curves))


def _guess_panel(arms: dict[str, Any]) -> Panel:
    curves = [
        Curve("told higher or lower", intervals(arms["feedback"]["accuracy"]), "arm"),
        Curve("told wrong", intervals(arms["verdict_only"]["accuracy"]), "arm"),
        _bound("bisection", lambda k: guess.oracle_accuracy(k, feedback="hint")),
        _bound("exclusion", lambda k: guess.oracle_accuracy(k, feedback="verdict")),
    ]
    return Panel("guess 1 to 15: learning from feedback", tuple(curves))


def _bound(label: str, accuracy: Callable[[int], float]) -> Curve:
    from mulligan.evaluation import Interval

    return Curve(label, {k: Interval.exact(accuracy(k)) for k in ATTEMPTS}, "bound")
