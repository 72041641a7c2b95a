"""`mulligan train`, `check`, `quickstart`, `reproduce`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.app import Overrides, RecipePath, app, quiet
from mulligan.config import Recipe, dump_recipe, load_recipe
from mulligan.errors import ConfigError


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="run folder; by default runs/NAME, with the recipe's name")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint of the run folder")] = False,
    baseline: Annotated[bool, typer.Option("--baseline", help="the single-turn arm: the same recipe with attempts=fixed(1)")] = False,
    both_arms: Annotated[bool, typer.Option("--both-arms", help="train both arms, into OUT/multi_attempt and OUT/single_turn")] = False,
) -> None:
    """Train a model by a recipe."""
    if baseline and both_arms:
        raise ConfigError("--baseline and --both-arms contradict each other: --both-arms trains the baseline too")
    settings = list(overrides or [])
    arms = _arms(recipe, settings, both_arms) if both_arms else {"": _single_turn(recipe, settings) if baseline else load_recipe(recipe, settings)}
    first = next(iter(arms.values()))
    _say_what_ends(first, settings)
    folder = out or Path("runs") / (f"{first.name}-single-turn" if baseline else first.name)

    from mulligan.runlog import RunFolder
    from mulligan.train import train as run_training

    quiet()
    for arm, settled in arms.items():
        place = folder / arm
        # With two arms, the second may not have begun when the first was interrupted.
        goes_on = resume and not (both_arms and not RunFolder.holds_run(place))
        print(f"trained: {run_training(settled, place, resume=goes_on)}")


def _say_what_ends(recipe: Recipe, settings: list[str]) -> None:
    """A run with train.max_tokens is not made shorter or longer by train.steps, which whoever sets it on the command line means to do."""
    keys = [text.partition("=")[0].strip() for text in settings]
    if recipe.train.max_tokens is not None and recipe.train.steps and "train.steps" in keys and "train.max_tokens" not in keys:
        print(
            f"warning: train.steps={recipe.train.steps} does not end this run, whose recipe has train.max_tokens = {recipe.train.max_tokens}: "
            "set train.max_tokens instead, or train.max_tokens=null as well",
            file=sys.stderr,
        )


def _single_turn(recipe: Path, settings: list[str]) -> Recipe:
    if any(text.partition("=")[0].strip() == "attempts" for text in settings):
        raise ConfigError("--baseline sets attempts=fixed(1): drop either the option or the override of attempts")
    return _with_one_attempt(recipe, settings)


def _with_one_attempt(recipe: Path, settings: list[str]) -> Recipe:
    """The single-turn arm, evaluated with the numbers of attempts of the other one: the two are there to be compared."""
    multi = load_recipe(recipe, settings)
    return load_recipe(recipe, [*settings, "attempts=fixed(1)", f'eval.attempts="{multi.eval_attempts}"'])


def _arms(recipe: Path, settings: list[str], both_arms: bool) -> dict[str, Recipe]:
    multi = load_recipe(recipe, settings)
    if multi.attempts.max_attempts == 1:
        raise ConfigError(f"--both-arms with attempts = {multi.attempts}: both arms would be the same; set attempts, e.g. attempts='uniform(1,5)'")
    return {"multi_attempt": multi, "single_turn": _with_one_attempt(recipe, settings)}


# ------------------------------------------------------------------------------------------------------------------ check


@app.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="stop after the recipe itself: read no problems and no model")] = False,
) -> None:
    """Validate a recipe without training: print it resolved, then its problems, parameters, tokens per step and memory."""
    settled = load_recipe(recipe, overrides or [])
    _say_what_ends(settled, overrides or [])
    print(to_toml(dump_recipe(settled)))
    if dry_run:
        return
    from mulligan.plan import make_plan

    plan = make_plan(settled)
    for source, aside in plan.set_aside.items():
        print(f"# set aside of {source}: {len(aside)}")
        for one in aside:
            print(f"#   {one.problem.id}: {one.reason}")
    for remark in plan.remarks:
        print(f"# {remark}")
    print(f"# problems to train on: {len(plan.problems):,}")
    print(f"# longest prompt: {plan.longest_prompt:,} tokens")
    print(f"# parameters: {plan.parameters:,}")
    print(f"# tokens per step: at most {plan.tokens_per_step:,}")
    print(f"# memory: about {plan.memory_bytes / 2**30:.1f} GiB")


def to_toml(table: dict[str, Any], name: str = "") -> str:
    """A nested dict of plain values as TOML; what is None is left out (TOML has no null)."""
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {_toml_value(value)}" for key, value in table.items() if value is not None and not isinstance(value, dict)]
    sections = [to_toml(value, f"{name}.{key}" if name else key) for key, value in table.items() if isinstance(value, dict)]
    return "\n".join(lines) + "".join(f"\n\n{section}" for section in sections)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, str):  # JSON's escapes are TOML's; DEL alone is not escaped by JSON
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


@app.command()
def quickstart(out: Annotated[Path, typer.Option(help="folder for the table, the plot and summary.json")] = Path("runs/quickstart")) -> None:
    """The effect in minutes: train tiny models from scratch, with and without several attempts, and compare them."""
    from mulligan.quickstart import run_quickstart

    quiet()
    run_quickstart(out)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="an experiment of recipes/experiments (readings, guess, ...), or a file like those")],
    out: Annotated[Path | None, typer.Option(help="folder of the runs and the results; by default runs/reproduce/TABLE")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="the first so many seeds of the experiment; by default all")] = None,
    arms: Annotated[str | None, typer.Option(help="these arms alone, with commas between; by default all")] = None,
    workers: Annotated[int, typer.Option(min=1, help="runs at once, one thread each")] = 2,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="stop after so long; the same command goes on from there")] = None,
    published: Annotated[Path | None, typer.Option("--from", help="evaluations.tar.xz of published results: what it holds is not done again")] = None,
    overrides: Overrides = None,
) -> None:
    """Run an experiment of docs/results anew, every arm with every seed, and write its tables and figures."""
    from mulligan.reproduce import reproduce as run

    quiet()
    folder = out or Path("runs/reproduce") / Path(table).stem
    run(table, folder, seeds=seeds, arms=arms.split(",") if arms else None, workers=workers, minutes=minutes, overrides=tuple(overrides or ()), published=published)
