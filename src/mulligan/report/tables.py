"""Tables of evaluations, for the terminal (rich) and for documents (Markdown), from one plain form.

They take an `Evaluation` or the same figures read back from eval.json. Figures are shown in percent, with 95 % intervals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mulligan.evaluation import Evaluation, Interval
from mulligan.evaluation.power import assumed_power
from mulligan.tasks.builtin.strategies import BLIND, INDEPENDENT
from mulligan.visible import visible

Figures = Evaluation | Mapping[str, Any]
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table as text: `rows[i][j]` stands under `headers[j]`; the first `labels` columns are left-aligned. `notes` go below."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 0

    def to_rich(self, *, stacked: bool = False, label_width: int | None = None) -> Table:
        """`stacked`: intervals stand below their value instead of beside it, as `41.0…49.3`, and labels are folded at `label_width`, for narrow terminals."""
        table = Table(box=box.SIMPLE_HEAD, title=escape(visible(self.title)), title_justify="left", pad_edge=False, collapse_padding=True)
        for j, header in enumerate(self.headers):
            # a figure that is cut in two is another figure
            label = j < self.labels
            table.add_column(escape(visible(header)), justify="left" if label else "right", overflow="fold", no_wrap=not label, max_width=label_width if label else None)
        for row in self.rows:
            table.add_row(*(escape(visible(_stacked(cell) if stacked and j >= self.labels else cell)) for j, cell in enumerate(row)))
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Printed by a rich console as wide as the terminal allows: intervals beside their values, else below them, else some columns at a time; the notes
        follow as plain text."""
        unbounded = options.update(width=10_000)

        def fits(table: Table) -> bool:
            return console.measure(table, options=unbounded).maximum <= options.max_width

        tables = [self.to_rich()]
        if not fits(tables[0]):
            for columns in range(len(self.headers) - 1, 0, -1):
                tables = [part.to_rich(stacked=True, label_width=max(options.max_width // 3, 12)) for part in self._parts(columns)]
                if all(map(fits, tables)):
                    break
        yield from tables
        for note in self.notes:
            yield Text(visible(note), style="yellow" if note.startswith("Warning") else "dim")

    def _parts(self, columns: int) -> list[TextTable]:
        """The same table in several, of at most so many columns beside those of the labels (without labels: beside the first)."""
        kept = max(self.labels, 1)

        def part(row: tuple[str, ...], start: int) -> tuple[str, ...]:
            return (*row[:kept], *row[start : start + columns])

        return [
            replace(self, title=self.title if start == kept else "", headers=part(self.headers, start), rows=tuple(part(row, start) for row in self.rows))
            for start in range(kept, len(self.headers), columns)
        ]

    def to_markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(_in_markdown(cell).replace("|", "\\|") for cell in cells) + " |"

        rule = "|" + "|".join("---" if j < self.labels else "---:" for j in range(len(self.headers))) + "|"
        lines = [f"**{_in_markdown(self.title)}**", "", line(self.headers), rule, *map(line, self.rows)]
        return "\n".join([*lines, *(f"\n{_in_markdown(note)}" for note in self.notes)]) + "\n"


def evaluation_tables(evaluation: Figures) -> list[TextTable]:
    """All tables of an evaluation: the figures by number of attempts, then those of what was asked for beside them."""
    rest = (equal_tokens_table(evaluation), controls_table(evaluation), references_table(evaluation))
    return [evaluation_table(evaluation), attempts_table(evaluation), *(table for table in rest if table is not None)]


def evaluation_table(evaluation: Figures) -> TextTable:
    """One row per number of attempts k: accuracy, pass@k, gain and tokens with k allowed, and the later answers that repeat an earlier wrong one."""
    table = as_figures(evaluation)
    accuracy, passed, gain = (intervals(table.get(key)) for key in ("accuracy", "pass_at_k", "gain"))
    repeats, tokens = intervals((table.get("repeat_rate") or {}).get("by_budget")), intervals(table.get("tokens_per_problem"))
    rows = [
        (str(k), percent(accuracy.get(k)), percent(passed.get(k)), points(gain.get(k)), percent(repeats.get(k)), tenths(tokens.get(k)))
        for k in sorted({*accuracy, *passed})
    ]  # fmt: skip
    return TextTable(_title(table), ("k", "accuracy", "pass@k", "gain", "repeats", "tokens"), tuple(rows), _notes(table))


def attempts_table(evaluation: Figures) -> TextTable:
    """One row per attempt t of the dialogues with the budget that single figures are given for (in evaluations of earlier versions, the largest): what
    became of it."""
    table = as_figures(evaluation)
    by_attempt = [table.get("conditional_success") or {}, *((table.get(key) or {}).get("by_attempt") or {} for key in ("repeat_rate", "no_answer", "truncated"))]
    rates = [intervals(rate) for rate in by_attempt]
    rows = tuple((t, *(percent(rate.get(int(t))) for rate in rates)) for t in by_attempt[0])
    budget, one_pass = table.get("attempts_budget"), table.get("mode") == "one_pass"
    whose = "the dialogues with the largest budget" if budget is None else f"the first {attempts_text(budget)} of each dialogue" if one_pass else f"the dialogues with {attempts_text(budget)}"
    note = (
        f"In percent, with 95 % intervals, out of {whose}. success: once attempt t was reached. repeats: of an earlier wrong answer. "
        "missing: no answer. cut: by a token cap."
    )
    return TextTable("attempt by attempt", ("t", "success", "repeats", "missing", "cut"), rows, (note,))


def equal_tokens_table(evaluation: Figures) -> TextTable | None:
    """Dialogues against independent sampling that stops at its first success and spends as much; None where nothing was sampled."""
    table = as_figures(evaluation)
    accuracy = intervals(table.get("accuracy"))
    rows = []
    for k, equal in (table.get("equal_tokens") or {}).items():
        cells = (percent(accuracy.get(int(k))), percent(Interval.from_json(equal["pass"])), points(Interval.from_json(equal["gain"])))
        rows.append((k, f"{equal['tokens']:,.1f}", f"{equal['samples']:.2f}", *cells))
    note = (
        "tokens: sampled per problem by dialogues with k attempts allowed. samples: as many may be drawn, up to the first correct one, for the same tokens on "
        "average. gain: accuracy - pass, paired. The temperature is chosen on other problems."
    )
    return TextTable("at equal tokens", ("k", "tokens", "samples", "accuracy", "pass", "gain"), tuple(rows), (note,)) if rows else None


def controls_table(evaluation: Figures) -> TextTable | None:
    """One row per control, one column per k: its accuracy, less that of the normal dialogues; None without controls."""
    table = as_figures(evaluation)
    controls, wrong = table.get("controls") or {}, table.get("false_wrong") or {}
    columns = sorted({int(k) for control in controls.values() for k in control["difference"]})
    rows = [(name.replace("_", " "), *(points(intervals(c["difference"]).get(k)) for k in columns), _kept(c.get("gain_kept"))) for name, c in controls.items()]
    notes = []
    if rows:
        first, last = table.get("rise") or ("1", "the most")
        notes.append(
            f"Accuracy under the control - accuracy, in points, paired. gain kept: what is left, in percent, of the rise from {first} to {last} attempts; "
            f"{NOTHING} where that rise is not clear of zero."
        )
    if wrong:
        kept, back = wrong["kept"], wrong["returned"]
        within = f" within {attempts_text(table['attempts_budget'])}" if "attempts_budget" in table else ""
        notes.append(
            f'Told "wrong" after a right answer ({kept["total"]} of them{within}): {_share(kept)} stand at the next attempt, {_share(back)} at some later one.'
        )
    return TextTable("controls", ("", *(f"k = {k}" for k in columns), "gain kept"), tuple(rows), tuple(notes), labels=1) if rows or wrong else None


def references_table(evaluation: Figures) -> TextTable | None:
    """Accuracy beside the rivals' pass@k and what is known exactly; None where there is neither."""
    table = as_figures(evaluation)
    rivals, ceilings = table.get("rivals") or {}, table.get("ceilings") or {}
    if not rivals and not ceilings:
        return None
    accuracy = intervals(table.get("accuracy"))
    columns = sorted(accuracy)
    rows = [("accuracy", *(percent(accuracy[k]) for k in columns))]
    for label, rival in rivals.items():
        passed, gain = intervals(rival["pass_at_k"]), intervals(rival["gain"])
        rows.append((f"{label}: pass@k", *(percent(passed.get(k)) for k in columns)))
        rows.append(("gain over it (points)", *(points(gain.get(k)) for k in columns)))
    for label, exact in ceilings.items():
        rows.append((label, *(f"{100 * exact[str(k)]:.1f}" if str(k) in exact else NOTHING for k in columns)))
        if label in (INDEPENDENT, BLIND):  # rivals as well
            rows.append(("gain over it (points)", *(points(accuracy[k].above(exact[str(k)])) if str(k) in exact else NOTHING for k in columns)))
    notes = ("In percent; rows without an interval are known exactly, for these problems. gain over it: accuracy - the rival's pass@k, paired, or - the exact value.",)
    return TextTable("beside", ("", *(f"k = {k}" for k in columns)), tuple(rows), notes, labels=1)


def comparison_table(
    arms: Mapping[str, Figures],
    *,
    title: str,
    quantity: str = "accuracy",
    bounds: Mapping[str, Mapping[int, float]] | None = None,
    with_pass: bool = False,
) -> TextTable:
    """One row per arm, one column per k.

    Args:
        arms: label -> evaluation on the same problems.
        quantity: which of the evaluation's maps over k to show (`accuracy`, `pass_at_k`, `gain`, `tokens_per_problem`).
        bounds: label -> k -> exactly known value (in [0, 1]), shown as further rows.
        with_pass: add a row of pass@k under each arm that has it.
    """
    lines: list[tuple[str, dict[int, Interval], str]] = []
    for label, evaluation in arms.items():
        table = as_figures(evaluation)
        lines.append((label, intervals(table.get(quantity)), quantity))
        if with_pass and table.get("pass_at_k"):
            lines.append((f"{label}: pass@k", intervals(table["pass_at_k"]), "pass_at_k"))
    columns = sorted({k for _, found, _ in lines for k in found})
    rows = [(label, *(_cell(found.get(k), kind) for k in columns)) for label, found, kind in lines]
    for label, exact in (bounds or {}).items():
        rows.append((label, *(f"{100 * exact[k]:.1f}" if k in exact else NOTHING for k in columns)))
    unit = "tokens" if quantity == "tokens_per_problem" else "points" if quantity == "gain" else "%"
    name = quantity.replace("_at_k", "@k").replace("_", " ")
    notes = (f"{name} ({unit}) with k attempts allowed, with 95 % intervals.",)
    return TextTable(title, ("", *(f"k = {k}" for k in columns)), tuple(rows), notes, labels=1)


def as_figures(evaluation: Figures) -> Mapping[str, Any]:
    """The JSON form of an evaluation, whichever form it came in."""
    return evaluation.to_json() if isinstance(evaluation, Evaluation) else evaluation


def intervals(table: Mapping[str, Any] | None) -> dict[int, Interval]:
    """A map from k to interval, out of its JSON form; entries without a value are left out."""
    return {int(k): Interval.from_json(v) for k, v in (table or {}).items() if v and v["mean"] is not None}


def per_solved(table: Mapping[str, Any] | None) -> dict[int, Interval]:
    """Tokens for each solved problem, by k, out of their JSON form; earlier evaluations hold them without an interval, which is NaN then."""
    known = {int(k): value for k, value in (table or {}).items() if value is not None}
    return {k: Interval(value, math.nan, math.nan, 0) if isinstance(value, float) else Interval.from_json(value) for k, value in known.items()}


def percent(interval: Interval | None) -> str:
    """`45.2 [41.0, 49.3]`, in percent."""
    if interval is None:
        return NOTHING
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval | None) -> str:
    """`+6.9 [+2.1, +11.4]`, in percentage points."""
    if interval is None:
        return NOTHING
    return f"{_signed(interval.mean)} [{_signed(interval.low)}, {_signed(interval.high)}]"


def share(value: Interval) -> str:
    """The mean alone: `41.9 %`."""
    return f"{100 * value.mean:.1f} %"


def points_of(value: Interval) -> str:
    """`+6.9 points [+2.1, +11.4]`."""
    return points(value).replace(" [", " points [")


def number(interval: Interval | None) -> str:
    """`1,234 [1,200, 1,270]`; small values with three digits."""
    if interval is None:
        return NOTHING
    return plain(interval.mean) if without_width(interval) else f"{plain(interval.mean)} [{plain(interval.low)}, {plain(interval.high)}]"


def tenths(interval: Interval | None) -> str:
    """`1,234.5 [1,200.0, 1,270.2]`, for what is counted."""
    if interval is None:
        return NOTHING
    # What tenths would round to nothing keeps its digits: an end of an interval near 0 says on which side of it the interval lies.
    mean, low, high = (plain(value) if abs(value) < 0.05 else f"{value:,.1f}" for value in (interval.mean, interval.low, interval.high))
    return mean if without_width(interval) else f"{mean} [{low}, {high}]"


def without_width(interval: Interval) -> bool:
    """What is counted on a single problem says nothing of others: it stands alone, without an interval that would look certain."""
    return interval.n == 1 and interval.low == interval.high


def plain(value: float) -> str:
    """A number without needless digits: `1,234`, `12.3`, `0.0123`; what rounding left of nothing is `0`."""
    if math.isinf(value):
        return "∞"
    if abs(value) < 1e-9:
        return "0"
    if 100 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def attempts_text(count: int) -> str:
    """`1 attempt`, `3 attempts`."""
    return f"{count} attempt{'s' * (count != 1)}"


def _in_markdown(text: str) -> str:
    """One line of Markdown that shows the text: a name like `<untrained>` would be taken for a tag, and not be seen."""
    return visible(text.replace("\n", " ")).replace("\\", "\\\\").replace("<", "\\<")


def _stacked(cell: str) -> str:
    return re.sub(r" \[(.*), (.*)\]$", r"\n\1…\2", cell)


def _signed(fraction: float) -> str:
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _cell(interval: Interval | None, quantity: str) -> str:
    if interval is not None and quantity == "tokens_per_problem":
        return f"{interval.mean:,.0f} [{interval.low:,.0f}, {interval.high:,.0f}]"
    return points(interval) if quantity == "gain" else percent(interval)


def _title(table: Mapping[str, Any]) -> str:
    count = table.get("problems")
    return str(table.get("name", "")) + (f" ({count:,} problems)" if count is not None else "")


def _kept(gain_kept: Mapping[str, Any] | None) -> str:
    return NOTHING if not gain_kept else percent(Interval.from_json(gain_kept))


def _share(rate: Mapping[str, Any]) -> str:
    return "none" if rate["mean"] is None else f"{percent(Interval.from_json(rate))} %"


def _notes(table: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        "In percent, with 95 % intervals (bootstrap over problems). gain: accuracy - pass@k in points, paired. repeats: later answers that repeat an earlier "
        "wrong one, within k attempts. tokens: sampled per problem."
    ]
    if table.get("mode") == "one_pass":
        notes.append("One pass: one dialogue with the largest budget, counted up to attempt k; the model was not told k.")
    trained = table.get("trained_attempts")
    if trained and (beyond := [k for k in table.get("accuracy") or {} if int(k) > trained]):
        notes.append(f"Trained with up to {trained} attempts: k = {', '.join(beyond)} is beyond training.")
    if table.get("pass_at_k"):
        notes.append(f"pass@k from {table.get('samples')} samples a problem at {_temperatures(table)}; dialogues at {table.get('temperature')}.")
    if known := per_solved(table.get("tokens_per_solved")):
        each = {k: plain(value.mean) if math.isnan(value.low) else number(value) for k, value in known.items()}
        notes.append(f"Tokens per solved problem: {', '.join(f'{text} (k = {k})' for k, text in each.items())}.")
    first, last = table.get("rise") or (1, max(map(int, table.get("accuracy") or {}), default=1))
    if power := table.get("power"):
        notes.append(
            f"Power: by the spread between {first} and {last} attempts here, this set shows paired differences from {100 * power['detectable']:.1f} points on "
            f"(80 % power, 5 % level); it takes {_needed(power)}."
        )
    elif "power" in table and table.get("rise") and (graded := (table["accuracy"].get(str(last)) or {}).get("n", 0)) > 2:
        power = assumed_power(graded).to_json()
        notes.append(
            f"Power: between {first} and {last} attempts the problems do not differ here, which does not say how much other differences would vary. If a quarter of them ended otherwise, "
            f"this set would show paired differences from {100 * power['detectable']:.1f} points on (80 % power, 5 % level); it takes {_needed(power)}."
        )
    if gain := table.get("gain_power"):
        notes.append(f"Power of the gain: by the spread between accuracy and pass@{last} here, this set shows gains from {100 * gain['detectable']:.1f} points on; it takes {_needed(gain)}.")
    if table.get("set_aside"):
        one = table["set_aside"] == 1
        notes.append(f"{table['set_aside']} problem{' was' if one else 's were'} set aside: {'its' if one else 'their'} gold answer did not pass its own grader.")
    return (*notes, *(f"Warning: {text}" for text in table.get("warnings") or ()))


def _needed(power: Mapping[str, Any]) -> str:
    return " and ".join(f"{n:,} for {points} points" for points, n in power["problems_for"].items())


def _temperatures(table: Mapping[str, Any]) -> str:
    sampled = list(table.get("pass_temperatures") or {}) or [str(table.get("sample_temperature"))]
    if len(sampled) == 1:
        return f"temperature {sampled[0]}"
    k, chosen = max(table["chosen_temperatures"].items(), key=lambda item: int(item[0]))
    return f"each of temperatures {', '.join(sampled)}, taken at the best on the other half of the problems (for k = {k}: {' and '.join(chosen)})"
