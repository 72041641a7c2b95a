"""The command line: arguments to calls, errors to one line each.

Heavy imports stand inside the commands, so that `--help` and a faulty recipe answer at once.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mulligan import __version__
from mulligan.config import EvalConfig, Recipe, apply_overrides, default_attempts, dump_recipe, load_recipe, parse_controls, parse_recipe
from mulligan.errors import ConfigError, DataError, MulliganError, RunError

if TYPE_CHECKING:
    from mulligan.types import Verdict

app = typer.Typer(
    name="mulligan",
    help="Teach language models to learn from their failures: train, evaluate and look at several attempts per question.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# typer carries click within itself or beside itself, by version; this is the class of all its usage errors in either case.
UsageError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="recipe (TOML)")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="settings of the recipe to change, e.g. optimizer.lr=1e-5")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for anything that the user can mend, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.insert(0, os.getcwd())  # a recipe may name a function beside it: feedback = "my_task:hint"
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # type: ignore[assignment]
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="mulligan", standalone_mode=False)
        if status == INTERRUPTED:  # typer makes an exit status of the exception, or lets it pass, by version
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except ConfigError as error:
        return _fail(error.faults)
    except MulliganError as error:
        return _fail([str(error)])
    except UsageError as error:
        error.show()  # type: ignore[attr-defined]
        return 2
    except (KeyboardInterrupt, typer.Abort):
        goes_on = {"train": ": the same command with --resume goes on from the last checkpoint", "quickstart": ": the same command goes on where it was", "reproduce": ": the same command goes on where it was"}
        print(f"interrupted{goes_on.get(arguments[0] if arguments else '', '')}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough (mulligan ... | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(faults: Sequence[str]) -> int:
    for fault in dict.fromkeys(faults):
        print("error: " + " ".join(fault.split()), file=sys.stderr)
    return 2


def _quiet() -> None:
    """No bars of transformers' between ours: loading a model's shards is not what the user waits for."""
    from transformers.utils import logging

    logging.disable_progress_bar()


# ------------------------------------------------------------------------------------------------------------------ train


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
    folder = out or Path("runs") / (f"{first.name}-single-turn" if baseline else first.name)

    from mulligan.runlog import RunFolder
    from mulligan.train import train as run_training

    _quiet()
    for arm, settled in arms.items():
        place = folder / arm
        # With two arms, the second may not have begun when the first was interrupted.
        goes_on = resume and not (both_arms and not RunFolder.holds_run(place))
        print(f"trained: {run_training(settled, place, resume=goes_on)}")


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


# ------------------------------------------------------------------------------------------------------------------- eval


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="run folder, model folder, Hub id or .gguf file")],
    out: Annotated[Path, typer.Option(help="folder for eval.json, the problems' values and the dialogues")],
    overrides: Overrides = None,
    problems: Annotated[list[str] | None, typer.Option(help="source of problems; may be given several times; by default those of the run's recipe")] = None,
    attempts: Annotated[str | None, typer.Option(help="numbers of attempts to allow: 1-7, or 1,2,5; by default 1 to the largest budget of the recipe, and that plus 2")] = None,
    samples: Annotated[int, typer.Option(min=0, help="independent samples per problem and temperature for pass@k: four for each attempt give a fair estimate; 0: none")] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="of the dialogues; 0: greedy")] = 0.0,
    temperatures: Annotated[str, typer.Option(help="of the independent samples, with commas; each problem's is chosen on other problems. Every temperature costs --samples samples a problem")] = "0.6,0.8,1.0,1.2",
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="keep the most likely tokens up to this probability")] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="first N problems of each source; by default all")] = None,
    one_pass: Annotated[bool, typer.Option("--one-pass", help="one dialogue with the largest budget, counted up to each k: cheaper, another measure")] = False,
    controls: Annotated[str, typer.Option(help="all, or names with commas: history_blind, verdict_hidden, random_verdict, other_history, false_wrong. Each but the last costs about as much as the dialogues")] = "none",
    rival: Annotated[list[str] | None, typer.Option(metavar="LABEL=FOLDER", help="another evaluation on the same problems, whose pass@k to beat; may be given several times")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    recipe: Annotated[Path | None, typer.Option(help="take the protocol from this recipe (a run brings its own)")] = None,
) -> None:
    """Accuracy against the number of attempts allowed, beside pass@k of the same model and of rivals, with controls."""
    settled = _eval_recipe(model, recipe, problems, overrides or [])
    sources = list(problems or settled.problems.eval)
    if not sources:
        raise ConfigError(f"no problems to evaluate {model} on: give --problems SOURCE")
    if twice := [source for source, n in Counter(sources).items() if n > 1]:
        raise ConfigError(f"--problems {twice[0]} is given twice: drop one")
    config = _eval_config(samples, temperature, temperatures, controls)

    from rich.console import Console

    from mulligan.evaluation import control_faults, num_dialogues, parse_attempts, read_rivals, write_evaluation
    from mulligan.grading import make_grader
    from mulligan.model import load_policy
    from mulligan.plan import evaluate_set, load_checked, write_set_aside
    from mulligan.report.tables import evaluation_tables
    from mulligan.runtime.local import make_player

    _quiet()
    trained = _trained_attempts(model)
    budgets = parse_attempts(attempts or default_attempts(trained or settled.attempts.max_attempts))
    if faults := control_faults(config.controls, budgets):
        raise ConfigError(faults)
    rivals = read_rivals(rival or [])
    grader = make_grader(settled.grader)
    sets = [load_checked(source, limit, seed, grader) for source in sources]
    grader.close()
    for chosen in sets:  # a rival that does not fit shows before anything is played
        for one in rivals:
            one.on(chosen.source, [p.id for p in chosen.problems])
    player = make_player(settled, load_policy(settled.model, seed=settled.seed))
    console = Console(width=None if sys.stdout.isatty() else 140)
    evaluations = []
    try:
        for chosen in sets:
            total = num_dialogues(len(chosen), budgets, samples, one_pass, temperatures=len(set(config.temperatures)), controls=config.controls)
            with _progress(chosen.source, total) as on_done:
                done = evaluate_set(
                    player, chosen, config, budgets, seed=seed, top_p=top_p, one_pass=one_pass,
                    trained_attempts=trained, rivals=rivals, on_done=on_done,
                )  # fmt: skip
            evaluations.append(done)
            for table in evaluation_tables(done):
                console.print(table)
            write_evaluation(out, evaluations, model=model)
        write_set_aside(out, sets)
    finally:
        player.grader.close()
    print(f"written: {out / 'eval.json'}")


def _eval_config(samples: int, temperature: float, temperatures: str, controls: str) -> EvalConfig:
    """The options as an [eval] section. Raises ConfigError with every fault."""
    faults: list[str] = []
    heats, names = (1.0,), ()
    try:
        heats = tuple(float(part) for part in temperatures.split(","))
        if any(not 0 < heat < float("inf") for heat in heats):
            faults.append(f"--temperatures {temperatures}: greedy samples are all alike and say nothing of pass@k; give temperatures above 0")
    except ValueError:
        faults.append(f"--temperatures {temperatures}: write numbers with commas, e.g. 0.6,0.8,1.0,1.2")
    try:
        names = parse_controls(controls)
    except ValueError as error:
        faults += [f"--controls: {line}" for line in str(error).splitlines()]
    if faults:
        raise ConfigError(faults)
    return EvalConfig(samples=samples, temperature=temperature, temperatures=heats, controls=names)


def _eval_recipe(model: str, recipe: Path | None, problems: list[str] | None, overrides: list[str]) -> Recipe:
    """The recipe that evaluation plays by: the run's own, or that of --recipe, or the defaults; with the model put in."""
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
    named = table.get("model", {})
    # A revision is the named model's alone. A tokenizer stands beside a run's model; otherwise the recipe may have to name one.
    revision = named.get("revision") if named.get("path") == path else None
    tokenizer = named.get("tokenizer") if recipe else None
    table["model"] = {**named, "path": path, "tokenizer": tokenizer, "revision": revision}
    faults = apply_overrides(table, overrides)
    _lift_training_limits(table)
    return parse_recipe(table, "settings of the evaluation", faults)


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


# ------------------------------------------------------------------------------------------------------------------- view


@app.command()
def view(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run folder, evaluation folder, or .parquet file of dialogues")],
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("view.html"),
    steps: Annotated[str | None, typer.Option(help="which steps: 0-40,80,end (end: the evaluation after the last); by default all")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most N dialogues: whole problems, drawn by a hash of their ids; by default all")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="folder, Hub id or .gguf file; by default that of the run or of its model")] = None,
    max_megabytes: Annotated[float, typer.Option(min=1, help="refuse to write a larger page")] = 100,
) -> None:
    """Dialogues as one HTML page to look at: chat and verdicts, tokens with log-prob and advantage, one problem from step to step."""
    from mulligan.report.view import write_view

    done = write_view(run, out, steps=steps, limit=limit, tokenizer=tokenizer, max_megabytes=max_megabytes)
    if done["tokenizer"] is None:
        print("warning: no tokenizer found: the page shows tokens by their numbers; give --tokenizer MODEL", file=sys.stderr)
    print(f"written: {out} ({done['dialogues']:,} dialogues, {done['tokens']:,} tokens, {done['bytes'] / 1e6:.1f} MB)")


# ------------------------------------------------------------------------------------------------------------------ grade


@app.command()
def grade(
    gold: Annotated[str | None, typer.Option(help="the right answer")] = None,
    text: Annotated[str | None, typer.Option(help="the attempt, whole, with its answer in a box")] = None,
    answer: Annotated[str | None, typer.Option(help="the answer, cut out already, instead of --text")] = None,
    kind: Annotated[str, typer.Option(help="math, numeric, text, or module:function")] = "math",
    file: Annotated[Path | None, typer.Option(help='pairs to grade: JSONL with "gold" and either "text" or "answer" (and "kind") a line')] = None,
    deadline: Annotated[float, typer.Option(help="seconds per answer")] = 1.0,
    workers: Annotated[int | None, typer.Option(help="processes; by default as many as there are cores, up to 8")] = None,
) -> None:
    """Grade an attempt against a gold answer; prints the verdict as JSON, one line a pair, in order."""
    single = gold is not None and (text is None) != (answer is None)
    if (file is None) != single or (file is not None and not (gold is None and text is None and answer is None)):
        raise ConfigError("give either --gold and --text, or --file")
    if deadline <= 0:
        raise ConfigError(f"--deadline {deadline}: give the seconds that one answer may take, more than 0")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: give 1 or more")
    pairs = list(_read_pairs(file, kind)) if file is not None else [{"gold": gold, "text": text, "answer": answer, "kind": kind}]

    from mulligan.grading import Pair, grade_pairs

    for verdict in grade_pairs((Pair(**pair) for pair in pairs), workers=workers, deadline=deadline):
        print(json.dumps(_verdict_json(verdict), ensure_ascii=False).encode("utf-8", "replace").decode(), flush=True)


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {"verdict": verdict.kind.value, "reason": verdict.reason, "answer": verdict.answer, "ms": round(verdict.ms, 3)}


def _read_pairs(path: Path, kind: str) -> Iterator[dict[str, str]]:
    """Raises DataError naming the line, before anything is graded."""
    from mulligan.grading.entry_points import check_kind

    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a JSON string may hold other line separators
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: no pairs in it: write one JSON object a line, with 'gold' and 'text' (or 'answer')")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            pair = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON ({error})") from None
        if not isinstance(pair, dict) or not isinstance(pair.get("gold"), str):
            raise DataError(f"{where}: 'gold' must be there and be a string")
        given = [key for key in ("text", "answer") if isinstance(pair.get(key), str)]
        if len(given) != 1 or sum(pair.get(key) is not None for key in ("text", "answer")) != 1:
            raise DataError(f"{where}: 'text' must be there and be a string (or 'answer' in its place)")
        how = str(pair.get("kind", kind))
        try:
            if check_kind(how) in ("gym", "code") or (":" in how and given == ["answer"]):
                raise ConfigError(f"grader {how!r} cannot judge a pair like this: it needs more than a gold answer and {given[0]!r}")
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from None
        yield {"gold": pair["gold"], given[0]: pair[given[0]], "kind": how}


# ----------------------------------------------------------------------------------------------------- compare and report

Arms = Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders or evaluation folders; seeds of one recipe are joined, and LABEL=RUN,RUN joins what it names")]
Baseline = Annotated[str | None, typer.Option(metavar="RUN", help="the arm that the others are set against: one of the folders, or its label")]


@app.command()
def compare(
    runs: Arms,
    baseline: Baseline = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV instead of tables, one figure a row")] = False,
    out: Annotated[Path | None, typer.Option(help="folder for compare.json, compare.csv and compare.md as well")] = None,
) -> None:
    """Paired differences between arms at each number of attempts, with 95 % intervals; the first arm is the baseline unless named."""
    if as_json and as_csv:
        raise ConfigError("--json and --csv contradict each other: drop one")

    from rich.console import Console

    from mulligan.evaluation.arms import find_arm, read_arms
    from mulligan.evaluation.comparison import compare as compare_arms
    from mulligan.report.comparison import comparison_csv, comparison_tables, write_comparison

    arms = read_arms(runs)
    comparison = compare_arms(arms, find_arm(arms, baseline) if baseline else arms[0])
    if out is not None:
        write_comparison(comparison, out)
    if as_json:
        print(json.dumps(comparison.to_json(), indent=2, allow_nan=False))
    elif as_csv:
        print(comparison_csv(comparison), end="")
    else:
        console = Console(width=None if sys.stdout.isatty() else 140)
        for table in comparison_tables(comparison):
            console.print(table)


@app.command()
def report(
    runs: Arms,
    out: Annotated[Path, typer.Option(help="the page: one HTML file that loads nothing")] = Path("report.html"),
    files: Annotated[Path | None, typer.Option(help="folder for the figures as PNG, SVG and CSV; by default NAME_files beside the page")] = None,
    baseline: Baseline = None,
    title: Annotated[str | None, typer.Option(help="of the page; by default the arms' labels")] = None,
) -> None:
    """A page on runs and their evaluations: what was found and how sure it is, figures, controls, training, facts."""
    from mulligan.evaluation.arms import read_arms
    from mulligan.report.html import write_report

    folder = files or out.with_name(f"{out.stem}_files")
    headline = write_report(read_arms(runs, need_evaluation=False), out, folder, baseline=baseline, title=title)
    print(headline.verdict + ".", *headline.sentences, *(f"But: {text}" for text in headline.caveats[:1]))
    print(f"written: {out}; figures: {folder}")


# ----------------------------------------------------------------------------------------------------------------- others


@app.command()
def quickstart(out: Annotated[Path, typer.Option(help="folder for the table, the plot and summary.json")] = Path("runs/quickstart")) -> None:
    """The effect in minutes: train tiny models from scratch, with and without several attempts, and compare them."""
    from mulligan.quickstart import run_quickstart

    _quiet()
    run_quickstart(out)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="an experiment of recipes/experiments (readings, guess, ...), or a file like those")],
    out: Annotated[Path | None, typer.Option(help="folder of the runs and the results; by default runs/reproduce/TABLE")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="the first so many seeds of the experiment; by default all")] = None,
    arms: Annotated[str | None, typer.Option(help="these arms alone, with commas between; by default all")] = None,
    workers: Annotated[int, typer.Option(min=1, help="runs at once, one thread each")] = 2,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="stop after so long; the same command goes on from there")] = None,
    overrides: Overrides = None,
) -> None:
    """Run an experiment of docs/results anew, every arm with every seed, and write its tables and figures."""
    from mulligan.reproduce import reproduce as run

    _quiet()
    run(table, out or Path("runs/reproduce") / Path(table).stem, seeds=seeds, arms=arms.split(",") if arms else None, workers=workers, minutes=minutes, overrides=tuple(overrides or ()))


@app.command()
def version() -> None:
    """Print the versions of mulligan and of what it stands on."""
    from importlib.metadata import version as version_of
    from platform import python_version

    others = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "transformers"))
    print(f"mulligan {__version__} (python {python_version()}, {others})")


if __name__ == "__main__":
    sys.exit(main())
