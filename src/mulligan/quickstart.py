"""`mulligan quickstart`: multi-attempt reinforcement learning in minutes, on two cores, with its controls.

Two small tasks, both from scratch. `readings` (trying again): a warm-up, then two arms from the same weights, with up to five
attempts and with one, the same hyper-parameters and the same number of sampled tokens. `guess` (learning from feedback): a
warm-up, then an arm that is told "higher" or "lower" and a control that is told only "wrong".

    core 1   readings warm-up ...... readings, multi-attempt ...... readings, single-turn ..
    core 2   guess, full feedback ...... guess, verdict only ......... evaluations ........
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from mulligan.errors import RunError
from mulligan.evaluation.values import ProblemValues, read_values
from mulligan.jobs import Job, Task, evaluate_job, find_recipes, read_figures, run_tasks, slug, train_job, worker_pool
from mulligan.report.figures import Curve, Panel, accuracy_figure
from mulligan.report.summary import paired_differences, quickstart_sentences
from mulligan.report.tables import comparison_table, intervals
from mulligan.tasks.builtin import guess, readings

READINGS, GUESS = "readings", "guess"
WORKERS = 2
ATTEMPTS = range(1, 6)


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

    def job(name: str, recipe: str, *settings: str, evaluated: bool = True) -> Job:
        return Job(name, folder / recipe, (*common, *settings), runs / slug(name), evaluated)

    warm = job("readings warm-up", "quickstart.toml", "train.steps=0")
    from_warm = (f"model.path={warm.model}", "warmup.steps=0")
    multi = job("readings, multi-attempt", "quickstart.toml", *from_warm)
    single = job("readings, single-turn", "quickstart.toml", *from_warm, "attempts=fixed(1)")
    guess_warm = job("guess warm-up", "quickstart-guess.toml", "train.steps=0", evaluated=False)
    from_guess = (f"model.path={guess_warm.model}", "warmup.steps=0")
    hints = job("guess, full feedback", "quickstart-guess.toml", *from_guess)
    verdict = job("guess, verdict only", "quickstart-guess.toml", *from_guess, "protocol.feedback=wrong {n}")

    jobs = [warm, multi, single, guess_warm, hints, verdict]
    for one in jobs:  # a faulty setting shows before anything runs
        one.load()
    # Evaluations are short: coming last, they let both cores end together.
    tasks = [
        *(Task(one.training, train_job, (one,)) for one in (warm, guess_warm)),
        *(Task(one.training, train_job, (one,), after=start.training) for one, start in ((hints, guess_warm), (verdict, guess_warm), (multi, warm), (single, warm))),
        *(Task(one.name, evaluate_job, (one,), after=one.training) for one in (hints, verdict, multi, warm, single)),
    ]
    with worker_pool(Console(stderr=True), [j.name for j in jobs], WORKERS) as submit:
        run_tasks(tasks, submit, WORKERS)
    figures = {one.name: read_figures(one.folder) for one in jobs if one.evaluated}
    summary = {
        READINGS: {"multi_attempt": figures[multi.name], "single_turn": figures[single.name], "warm_up": figures[warm.name]},
        GUESS: {"feedback": figures[hints.name], "verdict_only": figures[verdict.name]},
        "paired": {
            READINGS: paired_differences(_values(multi_attempt=multi, single_turn=single, warm_up=warm), "multi_attempt"),
            GUESS: paired_differences(_values(feedback=hints, verdict_only=verdict), "feedback"),
        },
        "seed": seed,
        "resumed": resumed,
        "seconds": round(time.monotonic() - began, 1),
    }
    write_results(out, summary, Console())
    return summary


def _values(**jobs: Job) -> dict[str, ProblemValues]:
    """Each job's values per problem, of its one problem set."""
    return {name: next(iter(read_values(one.folder).values())) for name, one in jobs.items()}


def _show_again(out: Path, seed: int) -> dict[str, Any]:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    if summary["seed"] != seed:
        raise RunError(f"{out} already holds a quickstart of seed {summary['seed']}: remove it, or choose another --out")
    console = Console()
    write_results(out, summary, console)
    console.print(f"{out} was finished before and is shown again: to run it anew, remove the folder or choose another --out", highlight=False, markup=False, soft_wrap=True)
    return summary


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
        console.print(sentence, highlight=False, markup=False)
    span = "since it went on" if summary["resumed"] else "in all"
    console.print(f"\n{summary['seconds']:.0f} s {span}. Plot: {png}  Figures: {out / 'summary.json'}", highlight=False, markup=False, soft_wrap=True)


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
