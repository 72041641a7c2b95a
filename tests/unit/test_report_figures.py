"""The figure: both files, the right things in them, and readable for everyone."""

import re
import struct
import warnings

import pytest

from mulligan.errors import RunError
from mulligan.evaluation import Interval
from mulligan.report.figures import OKABE_ITO, Curve, Panel, _draw, _fonts, _shown, accuracy_figure


def measured(*means, half=0.05):
    return {k: Interval(m, m - half, m + half, 100) for k, m in enumerate(means, 1)}


def exact(*means):
    return {k: Interval.exact(m) for k, m in enumerate(means, 1)}


PANELS = [
    Panel(
        "readings",
        [
            Curve("multi-attempt", measured(0.4, 0.7, 0.9)),
            Curve("single-turn", measured(0.4, 0.45, 0.46)),
            Curve("pass@k", measured(0.4, 0.5, 0.6), "pass", of="multi-attempt"),
            Curve("best possible", exact(0.4, 0.7, 1.0), "bound"),
        ],
    ),
    Panel("guess", [Curve("costs $5 and $6", measured(0.1, 0.3))]),
]


CAVEAT = (
    "Bands: 95 % intervals (bootstrap over problems), one training seed. On readings a model that cannot see its own earlier attempts gets most of the gain "
    "(a retry schedule); guess needs the feedback itself. Training sharpens a model and lowers its pass@k."
)


def test_both_files_are_written(tmp_path):
    png, svg = tmp_path / "new" / "a.png", tmp_path / "other" / "a.svg"
    accuracy_figure(PANELS, png, svg, title="Title", footnote="one seed")
    data = png.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert width > height > 500
    assert data[25] == 3, "with a palette, for a third of the size"
    text = svg.read_text()
    assert text.count("<svg") == 1
    assert all(colour.lower() in text for colour in OKABE_ITO[:2])
    assert not re.search(r"<(script|image)|href=\"http", text)


def test_the_same_figures_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        accuracy_figure(PANELS, tmp_path / f"{name}.png", tmp_path / f"{name}.svg")
    assert all((tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes() for kind in ("svg", "png"))


def test_axes_legend_and_intervals():
    figure = _draw(PANELS, "Title", "A caveat.", "solved")
    left, right = figure.axes
    figure.canvas.draw()
    assert [t.get_text() for t in left.get_xticklabels()] == ["1", "2", "3"]
    assert "40 %" in [t.get_text() for t in left.get_yticklabels()]
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["multi-attempt", "single-turn", "pass@k", "best possible"]
    assert right.get_title(loc="left") == "guess"
    bars = left.containers[0]
    segments = bars[2][0].get_segments()
    assert [tuple(s[:, 1]) for s in segments] == [pytest.approx((m - 0.05, m + 0.05)) for m in (0.4, 0.7, 0.9)]
    assert figure.get_supxlabel() == "A caveat."
    assert figure.get_suptitle() == "Title"


@pytest.mark.parametrize(
    ("unit", "means", "shown"),
    [("percent", (0.0, 0.015, 0.03), {"0 %", "0.5 %", "1.0 %"}), ("percent", (0.0, 0.06), {"0 %", "2 %", "6 %"}), ("points", (-0.02, 0.03), {"\N{MINUS SIGN}2", "0", "+3"})],
)
def test_no_two_ticks_read_alike(unit, means, shown):
    figure = _draw([Panel("", [Curve("a", {k: Interval.exact(m) for k, m in enumerate(means, 1)})], unit=unit, bounds=None)], "", "", "")
    figure.canvas.draw()
    texts = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert len(set(texts)) == len(texts) > 3
    assert shown <= {text.replace("-", "\N{MINUS SIGN}") for text in texts}


def test_kinds_can_be_told_apart():
    left = _draw(PANELS, "", "", "solved").axes[0]
    multi, single, passed = (container[0] for container in left.containers)
    assert multi.get_color() == passed.get_color() == OKABE_ITO[0]
    assert single.get_color() == OKABE_ITO[1]
    assert multi.get_linestyle() == "-"
    assert passed.get_linestyle() != "-"
    assert passed.get_markerfacecolor() == "white"
    assert multi.get_marker() != single.get_marker()
    bound = next(line for line in left.lines if line.get_label() == "best possible")
    assert bound.get_linestyle() != "-"
    assert bound.get_marker() == "None"
    assert bound.get_color() not in OKABE_ITO


def test_nothing_runs_over_the_edge():
    source = "builtin:guess?split=test&style=words&low=11&high=17&ranges=3&step=40&MORE=WWWW"
    long = Panel(source, [Curve(f"arm {i}", measured(0.1 * i, 0.1 * i)) for i in range(1, 9)])
    for panels in ([long], [long, long], [long] * 3):
        figure = _draw(panels, "A title", CAVEAT, "solved")
        figure.draw_without_rendering()
        assert all(axis.get_window_extent().height > 2.5 * figure.dpi for axis in figure.axes)  # the text leaves the plot its room
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= -0.01
        assert box.y0 >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01


def test_long_titles_still_differ_where_their_sources_do():
    panels = [Panel(f"builtin:guess?split=test&style=words&low={low}&high={low + 6}&ranges=3&step=40", [Curve("arm", measured(0.1))]) for low in (1, 11)]
    one, other = (axis.get_title(loc="left") for axis in _draw(panels, "", "", "solved").axes)
    assert one.startswith("builtin:guess?") and one.endswith("low=1&high=7&ranges=3&step=40")
    assert one != other


def test_what_no_font_has_is_escaped(tmp_path, monkeypatch):
    monkeypatch.setattr("mulligan.report.figures.FURTHER_FONTS", ())
    _fonts.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # matplotlib warns of a glyph that is missing
            accuracy_figure([Panel("\u57fa\u7ebf", [Curve("\u57fa", measured(0.1, 0.2)), Curve("\u7ebf \u2192 é", measured(0.1, 0.2))])], tmp_path / "a.png", tmp_path / "a.svg", footnote="\u57fa")
        assert [_shown(label) for label in ("\u57fa", "\u7ebf \u2192 é")] == ["\\u57fa", "\\u7ebf \u2192 é"]
    finally:
        _fonts.cache_clear()


def test_four_known_values_are_told_apart():
    figure = _draw([Panel("x", [Curve(f"known {i}", exact(0.1 * i, 0.2 * i), "bound") for i in range(4)])], "", "", "solved")
    assert len({str(line._unscaled_dash_pattern) for line in figure.axes[0].get_lines()}) == 4


def test_many_budgets_thin_out_the_ticks():
    figure = _draw([Panel("long", [Curve("arm", measured(*[0.01 * i for i in range(1, 41)], half=0.0))])], "", "", "solved")
    assert len(figure.axes[0].get_xticks()) <= 12


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(ValueError, match="at least one panel"):
        accuracy_figure([], tmp_path / "a.png", tmp_path / "a.svg")
    with pytest.raises(ValueError, match="at least one point"):
        accuracy_figure([Panel("x", [Curve("empty", {})])], tmp_path / "a.png", tmp_path / "a.svg")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        accuracy_figure(PANELS, tmp_path / "file" / "a.png", tmp_path / "a.svg")
