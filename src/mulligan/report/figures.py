"""Figures: accuracy against the number of attempts, one panel a task, as PNG and SVG.

Colours are Okabe and Ito's (2008), told apart with every common colour vision; each curve also has its own marker, so that the
figure survives grey printing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator

from mulligan.errors import RunError
from mulligan.evaluation import Interval

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#6f6f6f"
DASHES = ((0, (5, 2)), (0, (1.2, 1.6)), (0, (7, 2, 1.5, 2)))


@dataclass(frozen=True, slots=True)
class Curve:
    """k -> value in [0, 1]. `arm`: accuracy with k attempts (solid, filled markers); `pass`: pass@k from independent samples
    (thin, dotted, hollow markers); `bound`: a value known exactly (dashed grey, no interval).

    `of` names the arm whose colour a `pass` curve takes.
    """

    label: str
    points: Mapping[int, Interval]
    kind: Literal["arm", "pass", "bound"] = "arm"
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    curves: Sequence[Curve]


def accuracy_figure(
    panels: Sequence[Panel], path_png: str | Path, path_svg: str | Path, *, title: str = "", footnote: str = "", ylabel: str = "solved"
) -> None:
    """Draw the panels side by side and save both files, creating their folders. Bands and bars are the 95 % intervals.

    Raises:
        RunError: a file cannot be written.
        ValueError: no panels, or a curve without points.
    """
    if not panels or any(not curve.points for panel in panels for curve in panel.curves):
        raise ValueError("a figure needs at least one panel, and every curve at least one point")
    style: dict[Any, Any] = {"font.size": 10, "svg.hashsalt": "mulligan", "svg.fonttype": "path", "text.parse_math": False}
    with matplotlib.rc_context(style):
        figure = _draw(panels, title, footnote, ylabel)
        for path, kind in ((Path(path_png), "png"), (Path(path_svg), "svg")):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
            except OSError as error:
                raise RunError(f"{path}: the figure cannot be written ({error.strerror or error}); choose another folder") from None


def _draw(panels: Sequence[Panel], title: str, footnote: str, ylabel: str) -> Figure:
    legend_rows = max(len(panel.curves) for panel in panels)
    height = 4.3 + 0.2 * legend_rows + 0.3 * bool(title) + 0.17 * _lines(footnote, len(panels))
    figure = Figure(figsize=(5.2 * len(panels) + 0.3, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.07, wspace=0.03)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel)
    axes[0].set_ylabel(ylabel)
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    if footnote:
        figure.supxlabel(_wrapped(footnote, len(panels)), fontsize=8.5, color="#444444", x=0.01, ha="left")
    return figure


def _draw_panel(axis: Any, panel: Panel) -> None:
    arms = [curve.label for curve in panel.curves if curve.kind == "arm"]
    colours: dict[str, int] = {label: i for i, label in enumerate(arms)}
    for curve in panel.curves:
        if curve.kind != "bound":
            colours.setdefault(curve.of or curve.label, len(colours))
    bounds = 0
    ticks = sorted({k for curve in panel.curves for k in curve.points})
    for curve in panel.curves:
        if curve.kind == "bound":
            axis.plot(
                sorted(curve.points),
                [curve.points[k].mean for k in sorted(curve.points)],
                color=GREY,
                lw=1.5,
                ls=DASHES[bounds % 3],
                label=curve.label,
                zorder=1,
            )
            bounds += 1
        else:
            _draw_measured(axis, curve, colours[curve.of or curve.label])
    axis.set_title(panel.title, fontsize=11, loc="left")
    axis.set_xlabel("attempts allowed, k")
    axis.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // 12)]))
    axis.set_xlim(ticks[0] - 0.25, ticks[-1] + 0.25)
    axis.set_ylim(-0.02, 1.03)
    axis.yaxis.set_major_locator(MultipleLocator(0.2))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
    axis.tick_params(labelleft=True)
    axis.grid(axis="y", color="#e4e4e4", lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    # as given: left to itself the legend would list lines before error bars, the bounds first
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: [curve.label for curve in panel.curves].index(labels[i]))
    axis.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        frameon=False,
        fontsize=9,
        handlelength=3.0,
        labelspacing=0.35,
    )


def _draw_measured(axis: Any, curve: Curve, index: int) -> None:
    """A curve with its interval: a band where it can be seen, and bars with caps at the points."""
    ks = sorted(curve.points)
    means = [curve.points[k].mean for k in ks]
    lows, highs = [curve.points[k].low for k in ks], [curve.points[k].high for k in ks]
    colour, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[index % len(MARKERS)]
    # a mean may lie outside a percentile interval by a rounding error; matplotlib refuses negative bars
    below = [max(0.0, m - low) for m, low in zip(means, lows, strict=True)]
    above = [max(0.0, high - m) for m, high in zip(means, highs, strict=True)]
    solid = curve.kind == "arm"
    axis.fill_between(ks, lows, highs, color=colour, alpha=0.15 if solid else 0.07, lw=0, zorder=2)
    axis.errorbar(
        ks,
        means,
        yerr=[below, above],
        color=colour,
        marker=marker,
        markersize=6 if solid else 5,
        markerfacecolor=colour if solid else "white",
        lw=2.2 if solid else 1.2,
        ls="-" if solid else (0, (1.5, 1.5)),
        elinewidth=1.0,
        capsize=2.5,
        label=curve.label,
        zorder=4 if solid else 3,
    )


def _wrapped(text: str, panels: int) -> str:
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width=80 * panels))


def _lines(text: str, panels: int) -> int:
    return _wrapped(text, panels).count("\n") + 1 if text else 0
