"""A comparison of arms as tables and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from mulligan.evaluation import Interval
from mulligan.evaluation.comparison import MEAN_OF_SETS, Comparison, PairPower, Row
from mulligan.evaluation.power import POINTS
from mulligan.report.tables import NOTHING, TextTable, percent, plain, points, without_width
from mulligan.transcripts import written_whole

_OWN = {
    "accuracy": "Accuracy (%) with k attempts allowed",
    "pass@k": "pass@k (%): solved by k independent samples",
    "gain": "Gain (accuracy - own pass@k, points)",
}
_TITLES = {
    "gain": "Gain (accuracy - the arm's own pass@k, points)",
    "accuracy - baseline's pass@k": "Accuracy - the baseline's pass@k (points)",
    "accuracy": "Accuracy (points)",
    "tokens": "Tokens sampled per problem",
}


def comparison_tables(comparison: Comparison) -> list[TextTable]:
    """The arms' own accuracies, pass@k and gains, then one table of differences for each quantity that there is."""
    own = [row for row in comparison.rows if row.baseline is None]
    tables = [_table(title, rows, seeds=comparison.arms) for quantity, title in _OWN.items() if (rows := [row for row in own if row.quantity == quantity])]
    for quantity in dict.fromkeys(row.quantity for row in comparison.rows if row.baseline is not None):
        rows = [row for row in comparison.rows if row.quantity == quantity and row.baseline is not None]
        tables.append(_table(f"{_TITLES[quantity]}: difference to {comparison.baseline}" if "baseline" not in quantity else f"{_TITLES[quantity]}, {comparison.baseline}", rows))
    last = tables[-1]
    notes = (comparison_note(comparison), *power_notes(comparison), *(f"Warning: {text}" for text in comparison.warnings))
    return [*tables[:-1], TextTable(last.title, last.headers, last.rows, notes, last.labels)]


def comparison_note(comparison: Comparison) -> str:
    """How the intervals were made."""
    apart = [label for label in comparison.arms if label != comparison.baseline and label not in comparison.by_seed]
    if all(n == 1 for n in comparison.arms.values()):
        seeds = "problems resampled jointly"
    elif not comparison.by_seed:
        seeds = "seeds resampled per arm, problems jointly"
    else:
        whose = f" of {', '.join(comparison.by_seed)} jointly with the baseline's, of the others per arm" if apart else " jointly with the baseline's, which are the same"
        seeds = f"seeds resampled{whose}; problems jointly"
    several = any(row.problems == MEAN_OF_SETS for row in comparison.rows)
    within = ", within each set; mean of sets: every set counts alike; all questions: every question does" if several else ""
    return f"With 95 % intervals, paired over the problems that all arms saw and that were graded in all (bootstrap: {seeds}{within}). An interval that includes 0 shows no difference."


def power_notes(comparison: Comparison) -> list[str]:
    """For each problem set how many problems a difference to the baseline takes; of several arms the fewest and the most."""
    by_set: dict[str, list[PairPower]] = {}
    for one in comparison.power:
        by_set.setdefault(one.problems, []).append(one)
    found = []
    for name, pairs in by_set.items():
        needed = [f"{points} points take {_span([pair.power.problems_for[points] for pair in pairs])} problems" for points in POINTS]
        found.append(f"Power on {name} ({pairs[0].n:,}), k = {pairs[0].k}: {', '.join(needed)} (difference to {comparison.baseline}, one seed; 80 % power).")
    return found


def _span(numbers: list[int]) -> str:
    return " to ".join(f"{n:,}" for n in sorted({min(numbers), max(numbers)}))


def comparison_csv(comparison: Comparison) -> str:
    """One row a figure: quantity, arm, baseline, problems, k, mean, low, high, n."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("quantity", "arm", "baseline", "problems", "k", "mean", "low", "high", "n"))
    for row in comparison.rows:
        for k, value in sorted(row.by_k.items()):
            writer.writerow((row.quantity, row.arm, row.baseline or "", row.problems, k, repr(value.mean), repr(value.low), repr(value.high), value.n))
    return out.getvalue()


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """compare.json, compare.csv and compare.md in the folder, which is made if need be.

    Raises:
        RunError: it cannot be written.
    """
    texts = {
        "compare.json": json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n",
        "compare.csv": comparison_csv(comparison),
        "compare.md": "\n\n".join(table.to_markdown() for table in comparison_tables(comparison)),
    }
    for name, text in texts.items():
        with written_whole(folder / name, "the comparison") as temporary:
            temporary.write_text(text, encoding="utf-8")


def _table(title: str, rows: list[Row], seeds: Mapping[str, int] | None = None) -> TextTable:
    ks = sorted({k for row in rows for k in row.by_k})
    shown = {"tokens": _signed_number} | ({"accuracy": percent, "pass@k": percent} if seeds else {})
    body = tuple(
        (
            f"{row.arm} ({_count(seeds[row.arm], 'seed')})" if seeds else row.arm,
            f"{row.problems} ({next(iter(row.by_k.values())).n:,})",
            *(shown.get(row.quantity, points)(row.by_k[k]) if k in row.by_k else NOTHING for k in ks),
        )
        for row in rows
    )
    return TextTable(title, ("arm", "problems", *(f"k = {k}" for k in ks)), body, labels=2)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _signed_number(value: Interval) -> str:
    mean, low, high = (("+" if x > 0 else "") + plain(x) for x in (value.mean, value.low, value.high))
    return mean if without_width(value) else f"{mean} [{low}, {high}]"
