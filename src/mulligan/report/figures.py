"""Figures as PNG and SVG, by matplotlib: `accuracy_figure` for panels side by side, `write_chart` for any chart of a report.

Colours are Okabe and Ito's (2008), told apart with every common colour vision; each curve also has its own marker, so that the
figure survives grey printing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Formatter, MaxNLocator, MultipleLocator
from PIL import Image

from mulligan.errors import RunError
from mulligan.report.chart import Chart, Curve, Panel
from mulligan.transcripts import written_whole

__all__ = ["MARKERS", "OKABE_ITO", "Curve", "Panel", "accuracy_figure", "write_chart"]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#6f6f6f"
DASHES = ((0, (5, 2)), (0, (1.2, 1.6)), (0, (7, 2, 1.5, 2)), (0, (3, 2, 1.2, 2, 1.2, 2)))
MOST_COLUMNS = 3
MOST_CHARACTERS, MOST_IN_TITLE = 56, 46
MANY_XS = 24
"""More places on the x axis than this are steps, not numbers of attempts: round ticks instead of one at each."""


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
    with matplotlib.rc_context(_style()):
        _save(_draw(panels, title, footnote, ylabel), Path(path_png), Path(path_svg))


def write_chart(chart: Chart, folder: Path) -> None:
    """NAME.png, NAME.svg and NAME.csv (one row a point) in the folder, which is made if need be.

    Raises:
        RunError: a file cannot be written.
        ValueError: a chart without panels, or a curve without points.
    """
    if not chart.panels or any(not curve.points for panel in chart.panels for curve in panel.curves):
        raise ValueError(f"chart {chart.name}: it needs at least one panel, and every curve at least one point")
    with matplotlib.rc_context(_style()):
        figure = _draw(chart.panels, chart.title, chart.caption, None, chart.colours())
        _save(figure, folder / f"{chart.name}.png", folder / f"{chart.name}.svg")
    with written_whole(folder / f"{chart.name}.csv", "the figure's data") as temporary:
        temporary.write_text(chart.to_csv(), encoding="utf-8", errors="replace")


FONT = "DejaVu Sans"
"""Comes with matplotlib, and has Latin, Greek, Cyrillic, Arabic and Hebrew."""
FURTHER_FONTS = ("Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Devanagari", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS")
"""Tried, where they are installed, for what FONT lacks."""


def _style() -> dict[Any, Any]:
    return {"font.size": 10, "font.family": _fonts()[0], "svg.hashsalt": "mulligan", "svg.fonttype": "path", "text.parse_math": False}


@lru_cache(maxsize=1)
def _fonts() -> tuple[list[str], frozenset[int]]:
    """The fonts to draw with, and the characters that one of them has."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    names = [FONT, *(name for name in FURTHER_FONTS if name in installed)]
    return names, frozenset().union(*(font_manager.get_font(font_manager.findfont(name)).get_charmap() for name in names))


def _save(figure: Figure, png: Path, svg: Path) -> None:
    for path, kind in ((png, "png"), (svg, "svg")):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "svg":
                figure.savefig(path, format=kind, metadata={"Date": None})
            else:
                _save_png(figure, path)
        except OSError as error:
            raise RunError(f"{path}: the figure cannot be written ({error.strerror or error}); choose another folder") from None


def _save_png(figure: Figure, path: Path) -> None:
    """In 256 colours, which a chart does not fill: a third of the size."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=160)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, format="png", optimize=True)


def _draw(panels: Sequence[Panel], title: str, footnote: str, ylabel: str | None, colours: Mapping[str, int] | None = None) -> Figure:
    """`ylabel`: one for all, None: each panel its own; `colours`: label -> number, None: in each panel by order of appearance."""
    columns = min(len(panels), MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    legend_rows = max(len(panel.curves) for panel in panels)
    height = rows * (4.3 + 0.2 * legend_rows) + 0.3 * bool(title) + 0.17 * _lines(footnote, columns)
    figure = Figure(figsize=(5.2 * columns + 0.3, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.07, wspace=0.03)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    same = len({(panel.unit, panel.bounds) for panel in panels}) == 1 and panels[0].bounds is not None
    axes = list(figure.subplots(rows, columns, sharey=same, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, colours if colours is not None else Chart("", "", [panel]).colours())
        if ylabel is None:
            axis.set_ylabel(panel.ylabel)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    if ylabel is not None:
        axes[0].set_ylabel(ylabel)
    if title:
        figure.suptitle(_shown(title), fontsize=13, fontweight="bold", x=0.01, ha="left")
    if footnote:
        figure.supxlabel(_wrapped(footnote, columns), fontsize=8.5, color="#444444", x=0.01, ha="left")
    return figure


def _draw_panel(axis: Any, panel: Panel, colours: Mapping[str, int]) -> None:
    bounds = 0
    for curve in panel.curves:
        if curve.kind == "bound":
            xs = sorted(curve.points)
            axis.plot(xs, [curve.points[x].mean for x in xs], color=GREY, lw=1.5, ls=DASHES[bounds % len(DASHES)], label=_shown(curve.label), zorder=1)
            bounds += 1
        else:
            _draw_measured(axis, curve, colours[curve.of or curve.label], panel.unit)
    axis.set_title(_shown(panel.title, MOST_IN_TITLE), fontsize=11, loc="left", pad=6 if panel.trained is None else 16)  # above "beyond training"
    axis.set_xlabel(panel.xlabel)
    _scale(axis, panel)
    axis.tick_params(labelleft=True)
    axis.grid(axis="y", color="#e4e4e4", lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    # as given: left to itself the legend would list lines before error bars, the bounds first
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: [_shown(curve.label) for curve in panel.curves].index(labels[i]))
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


def _scale(axis: Any, panel: Panel) -> None:
    ticks = sorted({x for curve in panel.curves for x in curve.points})
    axis.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // 12)]) if len(ticks) <= MANY_XS else MaxNLocator(10, integer=True))
    axis.margins(x=0.05)
    if panel.unit == "number":
        axis.yaxis.set_major_locator(MaxNLocator(6))
    else:
        axis.yaxis.set_major_formatter(_Hundredths(panel.unit))
    if panel.bounds is not None:
        low, high = panel.bounds
        axis.set_ylim(low - 0.02 * (high - low), high + 0.03 * (high - low))
        axis.yaxis.set_major_locator(MultipleLocator((high - low) / 5))
    if panel.unit == "points":
        axis.axhline(0, color=GREY, lw=1.0, zorder=1)
    if panel.trained is not None and ticks[0] <= panel.trained < ticks[-1]:
        axis.axvline(panel.trained + 0.5, color=GREY, lw=0.8, ls=(0, (3, 3)), zorder=0)
        axis.annotate("beyond training", (panel.trained + 0.5, 1), (3, 1), xycoords=("data", "axes fraction"), textcoords="offset points", va="bottom", annotation_clip=False, fontsize=8, color="#555555")


class _Hundredths(Formatter):
    """Fractions as percent (`7.5 %`) or points (`+7.5`), with as few decimals as write every tick exactly (four at most)."""

    def __init__(self, unit: str):
        self.sign, self.after, self.digits = ("+", "", 0) if unit == "points" else ("", " %", 0)

    def format_ticks(self, values: list[float]) -> list[str]:
        self.digits = next((d for d in range(4) if all(abs(round(100 * value, d) - 100 * value) < 1e-6 for value in values)), 4)
        return [self(value) for value in values]

    def __call__(self, x: float, pos: int | None = None) -> str:
        text = f"{100 * x:{self.sign if abs(x) > 1e-9 else ''}.{self.digits}f}"
        return f"{'0' if abs(x) < 1e-9 else text}{self.after}"


def _draw_measured(axis: Any, curve: Curve, index: int, unit: str) -> None:
    """A curve with its interval: a band where it can be seen, and bars with caps at the points."""
    ks = sorted(curve.points)
    means = [curve.points[k].mean for k in ks]
    lows, highs = [curve.points[k].low for k in ks], [curve.points[k].high for k in ks]
    colour, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[(index + index // len(OKABE_ITO)) % len(MARKERS)]
    solid = curve.kind != "pass"
    axis.fill_between(ks, lows, highs, color=colour, alpha=(0.08 if unit == "points" else 0.15) if solid else 0.07, lw=0, zorder=2)
    if curve.kind == "line":
        style = ("-", (0, (6, 2)), (0, (1.5, 1.5)))[index % 3]
        axis.plot(ks, means, color=colour, lw=1.6, ls=style, label=_shown(curve.label), zorder=4)
        return
    # a mean may lie outside a percentile interval by a rounding error; matplotlib refuses negative bars
    below = [max(0.0, m - low) for m, low in zip(means, lows, strict=True)]
    above = [max(0.0, high - m) for m, high in zip(means, highs, strict=True)]
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
        label=_shown(curve.label),
        zorder=4 if solid else 3,
    )


def _shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """Text for a figure: what no font shows is escaped, of what is too long the middle is left out (sources differ in their ends), and a label
    may not hide from the legend by a leading underscore."""
    begin = most // 3
    drawn = _drawable(text if len(text) <= most else f"{text[:begin]}…{text[begin + 1 - most:]}")
    return " " + drawn if drawn.startswith("_") else drawn


def _drawable(text: str) -> str:
    known = _fonts()[1]
    return "".join(c if c.isprintable() and ord(c) in known else f"\\u{ord(c):04x}" for c in text)


def _wrapped(text: str, panels: int) -> str:
    text = "\n".join(map(_drawable, text.split("\n")))
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width=80 * panels))


def _lines(text: str, panels: int) -> int:
    return _wrapped(text, panels).count("\n") + 1 if text else 0
