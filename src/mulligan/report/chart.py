"""What a figure shows, apart from how it is drawn: the page draws it, matplotlib draws it (`figures`), a table and a CSV file list it.

Colours are given by number, so that an arm keeps its colour through a whole report; each number has its own marker as well.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mulligan.evaluation import Interval
from mulligan.report.tables import NOTHING, TextTable, number, percent, points

Unit = Literal["percent", "points", "number"]
"""percent: of fractions in [0, 1]; points: of differences of fractions; number: as it is."""

TABLE_ROWS = 40
"""A table beside a curve of many steps shows at most about so many of them; the CSV file has all."""


@dataclass(frozen=True, slots=True)
class Curve:
    """x -> value. `arm`: measured (solid, filled markers); `pass`: pass@k from independent samples (thin, dotted, hollow
    markers); `bound`: a value known exactly (dashed grey, no interval); `line`: many steps, without markers.

    `of` names the curve whose colour this one takes; `colour` sets it by number; `hidden`: the page shows it only when asked to.
    """

    label: str
    points: Mapping[int, Interval]
    kind: Literal["arm", "pass", "bound", "line"] = "arm"
    of: str | None = None
    colour: int | None = None
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over one pair of axes. `bounds`: ends of the y axis, None: those of the data; `trained`: the largest x of training."""

    title: str
    curves: Sequence[Curve]
    xlabel: str = "attempts allowed, k"
    ylabel: str = "solved"
    unit: Unit = "percent"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    trained: int | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: panels side by side, one legend. `name` is that of its files."""

    name: str
    title: str
    panels: Sequence[Panel]
    caption: str = ""

    def colours(self) -> dict[str, int]:
        """Label -> number of its colour and marker: as given, else in order of appearance; bounds have none."""
        found: dict[str, int] = {}
        curves = [c for panel in self.panels for c in panel.curves if c.kind != "bound"]
        for curve in curves:
            if curve.colour is not None:
                found[curve.of or curve.label] = curve.colour
        free = (i for i in range(len(found) + len(curves) + 1) if i not in found.values())
        for curve in [*(c for c in curves if c.of is None), *curves]:
            if (curve.of or curve.label) not in found:
                found[curve.of or curve.label] = next(free)
        return found

    def to_json(self) -> dict[str, Any]:
        colours = self.colours()
        bounds = list(dict.fromkeys(c.label for panel in self.panels for c in panel.curves if c.kind == "bound"))

        def shown(curve: Curve) -> dict[str, Any]:
            style = bounds.index(curve.label) if curve.kind == "bound" else colours[curve.of or curve.label]
            places = [[x, *_rounded(curve.points[x], 6 if curve.kind == "line" else 15)] for x in sorted(curve.points)]
            return {"label": curve.label, "kind": curve.kind, "style": style, "hidden": curve.hidden, "points": places}

        panels = [
            {
                **{key: getattr(panel, key) for key in ("title", "xlabel", "ylabel", "unit", "trained")},
                "bounds": list(panel.bounds) if panel.bounds else None,
                "curves": [shown(curve) for curve in panel.curves],
            }
            for panel in self.panels
        ]
        return {"name": self.name, "title": self.title, "caption": self.caption, "panels": panels}

    def to_csv(self) -> str:
        """One row a point: panel, curve, kind, x, mean, low, high, n."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("panel", "curve", "kind", "x", "mean", "low", "high", "n"))
        for panel in self.panels:
            for curve in panel.curves:
                for x in sorted(curve.points):
                    value = curve.points[x]
                    writer.writerow((panel.title, curve.label, curve.kind, f"{x:g}", repr(value.mean), repr(value.low), repr(value.high), value.n))
        return out.getvalue()

    def tables(self) -> Iterator[TextTable]:
        """One table a panel: a row for each x, a column for each curve."""
        for panel in self.panels:
            xs = sorted({x for curve in panel.curves for x in curve.points})
            step = -(-len(xs) // TABLE_ROWS)
            kept = [x for i, x in enumerate(xs) if i % step == 0 or i == len(xs) - 1]
            rows = tuple((f"{x:g}", *(_cell(curve.points.get(x), panel.unit) for curve in panel.curves)) for x in kept)
            notes = (f"{len(kept)} of {len(xs)} steps; {self.name}.csv has all.",) if len(kept) < len(xs) else ()
            yield TextTable(f"{panel.title}: {panel.ylabel}", (panel.xlabel, *(c.label for c in panel.curves)), rows, notes, labels=1)


def _rounded(value: Interval, digits: int) -> list[float]:
    return [float(f"{x:.{digits}g}") for x in (value.mean, value.low, value.high)]


def _cell(value: Interval | None, unit: Unit) -> str:
    if value is None:
        return NOTHING
    shown = {"percent": percent, "points": points, "number": number}[unit](value)
    return shown.partition(" [")[0] if value.low == value.mean == value.high else shown  # known exactly, or a single run's metric
