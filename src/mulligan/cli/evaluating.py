"""`mulligan eval`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.app import Overrides, app, quiet
from mulligan.config import MOST_SEED, Recipe, apply_overrides, default_attempts, dump_recipe, load_recipe, parse_controls, parse_recipe
from mulligan.errors import ConfigError, RunError

_TEMPERATURES = [0.6, 0.8, 1.0, 1.2]


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="run folder, model folder, Hub id or .gguf file")],
    out: Annotated[Path, typer.Option(help="folder for eval.json, the problems' values and the dialogues")],
    overrides: Overrides = None,
    problems: Annotated[list[str] | None, typer.Option(help="source of problems; may be given several times; by default those of the run's recipe")] = None,
    attempts: Annotated[str | None, typer.Option(help="numbers of attempts to allow: 1-7, or 1,2,5; by default the recipe's, or else 1 to its largest budget and that plus 2")] = None,
    samples: Annotated[int | None, typer.Option(min=0, help="independent samples per problem and temperature for pass@k: four for each attempt give a fair estimate; 0: none")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="of the dialogues; 0: greedy")] = None,
    temperatures: Annotated[str | None, typer.Option(help="of the independent samples, with commas; each problem's is chosen on other problems. Every temperature costs --samples samples a problem")] = None,
    top_p: Annotated[float, typer.Option(help="keep the most likely tokens up to this probability")] = 1.0,
    limit: Annotated[int | None, typer.Option(min=0, help="first N problems of each source; by default all")] = None,
    one_pass: Annotated[bool, typer.Option("--one-pass", help="one dialogue with the largest budget, counted up to each k: cheaper, another measure")] = False,
    controls: Annotated[str | None, typer.Option(help="all, or names with commas: history_blind, verdict_hidden, random_verdict, other_history, false_wrong. Each but the last costs about as much as the dialogues")] = None,
    rival: Annotated[list[str] | None, typer.Option(metavar="LABEL=FOLDER", help="another evaluation on the same problems, whose pass@k to beat; may be given several times")] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="of what is drawn: samples, dialogues above temperature 0, controls, and the problems of sources that draw them")] = 0,
    recipe: Annotated[Path | None, typer.Option(help="take the protocol from this recipe (a run brings its own)")] = None,
) -> None:
    """Accuracy against the number of attempts allowed, beside pass@k of the same model and of rivals, with controls.

    What neither an option nor a setting (eval.samples=28) says is taken from the recipe, a run's own or --recipe; but all problems are played, and samples drawn at several temperatures.
    """
    if not 0 < top_p <= 1:
        raise ConfigError(f"--top-p {top_p:g}: give a probability above 0, and 1 for the whole distribution")
    options = _eval_settings(attempts=attempts, samples=samples, temperature=temperature, temperatures=temperatures, limit=limit, controls=controls)
    settled = _eval_recipe(model, recipe, problems, overrides or [], options)
    config = settled.eval
    sources = list(problems or settled.problems.eval)
    if not sources:
        raise ConfigError(_no_problems(model, settled))
    if twice := [source for source, n in Counter(sources).items() if n > 1]:
        raise ConfigError(f"--problems {twice[0]} is given twice: drop one")

    from rich.console import Console

    from mulligan.evaluation import (
        KeptPlays,
        control_faults,
        num_dialogues,
        parse_attempts,
        read_rivals,
        settings_of,
        write_evaluation,
    )
    from mulligan.evaluation.arms import require_own_place
    from mulligan.evaluation.samples import ENOUGH
    from mulligan.grading import make_grader
    from mulligan.model import load_policy
    from mulligan.plan import check_play, evaluate_set, load_checked, write_set_aside
    from mulligan.report.tables import evaluation_tables
    from mulligan.runtime.local import make_player
    from mulligan.seen import seen_by_model

    quiet()
    trained = _trained_attempts(model)
    budgets = parse_attempts(config.attempts or default_attempts(trained or settled.attempts.max_attempts))
    if faults := control_faults(config.controls, budgets):
        raise ConfigError(faults)
    rivals = read_rivals(rival or [])
    require_own_place(out, _evaluated(model, settled), settings_of(settled))
    _make_folder(out)
    grader = make_grader(settled.grader)
    sets = [load_checked(source, config.limit or None, seed, grader) for source in sources]
    doubts = check_play(settled, sets, grader)
    grader.close()
    for chosen in sets:  # a rival that does not fit shows before anything is played
        for one in rivals:
            one.on(chosen.source, [p.id for p in chosen.problems])
    seen = seen_by_model(settled.model.path)
    for doubt in (*doubts, *seen.doubts):
        print(doubt)
    policy = load_policy(settled.model, seed=settled.seed)
    player = make_player(settled, policy)
    kept = KeptPlays(player, out, model=policy.fingerprint(), recipe=settled)
    console = Console(width=None if sys.stdout.isatty() else 140)
    evaluations = []
    try:
        for chosen in sets:
            total = num_dialogues(len(chosen), budgets, config.samples, one_pass, temperatures=len(set(config.temperatures)), controls=config.controls)
            with _progress(chosen.source, total) as on_done:
                done = evaluate_set(
                    player, chosen, config, budgets, seed=seed, top_p=top_p, one_pass=one_pass,
                    trained_attempts=trained, seen=seen, rivals=rivals, settings=settings_of(settled), kept=kept, on_done=on_done,
                )  # fmt: skip
            evaluations.append(done)
        # Once it is whole: what is read as the model's evaluation must not lack a set. And before it is shown, to a reader that may be gone.
        write_evaluation(out, evaluations, model=_evaluated(model, settled), settings=settings_of(settled))
        write_set_aside(out, sets)
        for table in (table for done in evaluations for table in evaluation_tables(done)):
            console.print(table)
        kept.forget()
    finally:
        player.grader.close()
    if kept.taken:
        print(f"{kept.taken} dialogues were there already, played by this model before the evaluation was stopped")
    if not config.samples:
        print(f"No independent samples were drawn, so that nothing is said of drawing again: --samples {ENOUGH * max(budgets)} gives pass@k and the gain over it.")
    if not config.controls and max(budgets) > 1:
        print("No controls were played, so that it is not known whether it reads its failures: --controls all shows what is left without them.")
    print(f"written: {out / 'eval.json'}")


def _eval_settings(**options: Any) -> dict[str, Any]:
    """The options that were given, as settings of [eval]. Raises ConfigError with every fault."""
    found, faults = {name: value for name, value in options.items() if value is not None}, list[str]()
    if (text := found.get("temperatures")) is not None:
        try:
            found["temperatures"] = [float(part) for part in text.split(",")]
            if any(not 0 < heat < float("inf") for heat in found["temperatures"]):
                faults.append(f"--temperatures {text}: greedy samples are all alike and say nothing of pass@k; give temperatures above 0")
        except ValueError:
            faults.append(f"--temperatures {text}: write numbers with commas, e.g. 0.6,0.8,1.0,1.2")
    if (text := found.get("controls")) is not None:
        try:
            found["controls"] = list(parse_controls(text))
        except ValueError as error:
            faults += [f"--controls: {line}" for line in str(error).splitlines()]
    if faults:
        raise ConfigError(faults)
    return found


def _eval_recipe(model: str, recipe: Path | None, problems: list[str] | None, overrides: list[str], options: Mapping[str, Any]) -> Recipe:
    """The recipe that evaluation plays by: the run's own, or that of --recipe, or the defaults; with the model put in, and `options` into [eval]."""
    from mulligan.runlog import RunFolder

    if RunFolder.holds_run(model):
        run = RunFolder.open(model)
        if recipe is not None:
            raise ConfigError(f"{model} is a run and brings its own recipe: drop --recipe, or change single settings (KEY=VALUE)")
        if not (run.model / "config.json").exists():
            raise RunError(f"{model} has no model yet: end its training first (mulligan train RECIPE --out {model} --resume)")
        table, path = dump_recipe(run.recipe), str(run.model)
    else:
        table = dump_recipe(load_recipe(recipe)) if recipe else {"name": "eval", "problems": {"train": (problems or [""])[0]}}
        path = model
        if recipe is None and RunFolder.of_model(model):
            print(f"warning: {model} alone does not bring its run's recipe, and is asked by the default protocol: for the run's, evaluate {Path(model).parent}", file=sys.stderr)
    named = table.get("model", {})
    # A revision is the named model's alone. A tokenizer stands beside a run's model; otherwise the recipe may have to name one.
    revision = named.get("revision") if named.get("path") == path else None
    tokenizer = named.get("tokenizer") if recipe else None
    table["model"] = {**named, "path": path, "tokenizer": tokenizer, "revision": revision}
    # A recipe's limit and its one temperature spare a training run time; figures for the record are not taken so.
    if seeds := [text for text in overrides if text.partition("=")[0].strip() == "seed"]:
        raise ConfigError(f"{seeds[0]}: an evaluation has a seed of its own: --seed {seeds[0].partition('=')[2].strip()}")
    own = table.get("eval", {})
    table["eval"] = {**own, "limit": 0, "temperatures": own["temperatures"] if len(own.get("temperatures", ())) > 1 else _TEMPERATURES}
    faults = apply_overrides(table, overrides)
    if isinstance(table["eval"], dict):  # an override may have made it something else, which is a fault to be told
        table["eval"] |= options
    _lift_training_limits(table)
    return parse_recipe(table, "settings of the evaluation", faults)


def _no_problems(model: str, settled: Recipe) -> str:
    from mulligan.runlog import RunFolder

    if RunFolder.holds_run(model) or settled.name != "eval":
        return f"no problems to evaluate {model} on: give --problems SOURCE"
    return f"no problems to evaluate {model} on: it holds no run, whose problems would be taken; name a folder that mulligan train made, or give --problems SOURCE"


def _make_folder(out: Path) -> None:
    """Make the folder of the results before hours are spent on them. Raises RunError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("not writable")
    except OSError as error:
        raise RunError(f"--out {out}: no folder that can be written to ({error.strerror or error}); name another") from None


def _evaluated(model: str, settled: Recipe) -> str:
    """What eval.json calls the model: as it was named, unless model.path=... put another in its place."""
    from mulligan.runlog import RunFolder

    own = str(RunFolder.open(model).model) if RunFolder.holds_run(model) else model
    return model if settled.model.path == own else settled.model.path


def _trained_attempts(model: str) -> int | None:
    """The largest budget that a run was trained with; None for any other model."""
    from mulligan.runlog import RunFolder

    return RunFolder.open(model).recipe.attempts.max_attempts if RunFolder.holds_run(model) else None


def _lift_training_limits(table: dict[str, Any]) -> None:
    """Evaluation learns nothing: a long dialogue need not fit a training pass."""
    longest = table.get("protocol", {}).get("max_dialogue_tokens")
    if isinstance(longest, int):
        train_table = table.setdefault("train", {})
        train_table["micro_batch_tokens"] = max(longest, train_table.get("micro_batch_tokens", 0))


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[object], None]]:
    """A bar on the terminal; yields what is to be called after each dialogue."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(escape(name), total=total)
        yield lambda _: progress.advance(task)
