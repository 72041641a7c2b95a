"""Charts as data: colours that stay with an arm, CSV, tables; and as files that matplotlib draws."""

import csv
import io
import struct

import pytest

from mulligan.evaluation import Interval
from mulligan.report.chart import TABLE_ROWS, Chart, Curve, Panel
from mulligan.report.figures import MARKERS, OKABE_ITO, _draw, write_chart


def measured(*means, half=0.05):
    return {k: Interval(m, m - half, m + half, 100) for k, m in enumerate(means, 1)}


def test_an_arm_keeps_its_colour_over_panels_and_its_pass_curve_takes_it():
    first = Panel("a", [Curve("x", measured(0.1)), Curve("y", measured(0.2)), Curve("bound", measured(0.3), "bound")])
    second = Panel("b", [Curve("y: pass@k", measured(0.2), "pass", of="y"), Curve("z", measured(0.4))])
    chart = Chart("c", "C", [second, first])
    colours = chart.colours()
    assert colours["y"] != colours["x"] != colours["z"] != colours["y"]
    assert "bound" not in colours
    assert "y: pass@k" not in colours
    drawn = {c["label"]: c["style"] for p in chart.to_json()["panels"] for c in p["curves"]}
    assert drawn["y: pass@k"] == drawn["y"]
    given = Chart("c", "C", [Panel("a", [Curve("free", measured(0.1)), Curve("set", measured(0.2), colour=0)])])
    assert given.colours() == {"set": 0, "free": 1}


def test_csv_and_json_hold_every_point():
    chart = Chart("c", "C", [Panel("a, b", [Curve('says "x"', measured(0.1, 0.25)), Curve("late", {10: Interval(0.5, 0.4, 0.6, 7)})])])
    rows = list(csv.DictReader(io.StringIO(chart.to_csv())))
    assert [(r["panel"], r["curve"], r["x"], float(r["mean"])) for r in rows] == [("a, b", 'says "x"', "1", 0.1), ("a, b", 'says "x"', "2", 0.25), ("a, b", "late", "10", 0.5)]
    assert rows[2]["n"] == "7"
    assert chart.to_json()["panels"][0]["curves"][0]["points"] == [[1, 0.1, 0.05, 0.15], [2, 0.25, 0.2, 0.3]]


def test_tables_follow_the_unit_and_thin_long_curves_out():
    panels = [
        Panel("p", [Curve("x", measured(0.25)), Curve("b", {1: Interval.exact(0.4), 2: Interval.exact(0.7)}, "bound")]),
        Panel("d", [Curve("x", measured(0.25))], unit="points", bounds=None),
        Panel("n", [Curve("x", {step: Interval(0.5, 0.5, 0.5, 0) for step in range(1, 1001)}, "line")], "training step", "reward", "number", None),
    ]
    share, difference, steps = Chart("c", "C", panels).tables()
    assert share.rows == (("1", "25.0 [20.0, 30.0]", "40.0"), ("2", "–", "70.0"))
    assert difference.rows == (("1", "+25.0 [+20.0, +30.0]"),)
    assert steps.headers == ("training step", "x")
    assert len(steps.rows) <= TABLE_ROWS + 1
    assert steps.rows[-1] == ("1000", "0.5")
    assert steps.notes == (f"{len(steps.rows)} of 1000 steps; c.csv has all.",)


def test_every_kind_of_panel_is_written(tmp_path):
    panels = [
        Panel("accuracy", [Curve("_hidden?", measured(0.2, 0.4, 0.6)), Curve("b", measured(0.5, 0.5, 0.5), "bound")], trained=2),
        Panel("gain", [Curve("_hidden?", measured(-0.1, 0.0, 0.1))], unit="points", bounds=None),
        Panel("reward", [Curve("_hidden?", {s: Interval(s / 90, s / 90, s / 80, 0) for s in range(1, 80)}, "line")], "training step", "reward", "number", None),
        Panel("one point", [Curve("x", {5: Interval(3.0, 2.0, 4.0, 9)})], unit="number", bounds=None),
    ]
    chart = Chart("all", "Bidi \u202e and $math$", panels, "A caption.")
    write_chart(chart, tmp_path / "new")
    data = (tmp_path / "new" / "all.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert width > 2000  # three panels side by side
    assert height > 1200  # and a second row
    assert (tmp_path / "new" / "all.svg").read_text().count("<svg") == 1
    assert (tmp_path / "new" / "all.csv").read_text() == chart.to_csv()
    figure = _draw(panels, chart.title, "", None, chart.colours())
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_legend().get_texts()] == [" _hidden?", "b"]
    assert "beyond training" in [t.get_text() for t in first.texts]
    assert [axis.get_ylabel() for axis in figure.axes[:3]] == ["solved", "solved", "reward"]
    assert any(label.get_text() == "+10" for label in figure.axes[1].get_yticklabels())
    assert "\u202e" not in figure.get_suptitle()
    assert len([axis for axis in figure.axes if axis.get_visible()]) == 4


def test_more_arms_than_colours_differ_by_marker():
    curves = [Curve(f"arm {i}", measured(0.05 * i)) for i in range(len(OKABE_ITO) + 2)]
    axis = _draw([Panel("many", curves)], "", "", "solved").axes[0]
    looks = [(c[0].get_color(), c[0].get_marker()) for c in axis.containers]
    assert len(set(looks)) == len(curves)
    assert looks[0] == (OKABE_ITO[0], MARKERS[0])


def test_an_empty_curve_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="every curve at least one point"):
        write_chart(Chart("c", "C", [Panel("x", [Curve("empty", {})])]), tmp_path)
