"""`mulligan view`, `compare`, `report`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from mulligan.cli.app import app
from mulligan.errors import ConfigError
from mulligan.visible import visible


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
    _require_file(out, "view.html")

    from mulligan.report.view import write_view

    done = write_view(run, out, steps=steps, limit=limit, tokenizer=tokenizer, max_megabytes=max_megabytes)
    if done["tokenizer"] is None:
        print("warning: no tokenizer found: the page shows tokens by their numbers; give --tokenizer MODEL", file=sys.stderr)
    print(f"written: {out} ({done['dialogues']:,} dialogues, {done['tokens']:,} tokens, {done['bytes'] / 1e6:.1f} MB)")


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
    _require_file(out, "report.html")

    from mulligan.evaluation.arms import read_arms
    from mulligan.report.html import write_report

    folder = files or out.with_name(f"{out.stem}_files")
    headline = write_report(read_arms(runs, need_evaluation=False), out, folder, baseline=baseline, title=title).headline
    print(visible(" ".join([f"{headline.verdict}.", *headline.sentences, *(f"But: {text}" for text in headline.caveats[:1])])))
    print(f"written: {out}; figures: {folder}")


def _require_file(out: Path, example: str) -> None:
    if not out.name or out.is_dir():
        raise ConfigError(f"--out {out} is a folder: name the file to write, say {out / example}")
