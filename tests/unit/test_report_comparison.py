"""Comparisons as tables, CSV and JSON."""

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from mulligan.evaluation import Interval
from mulligan.evaluation.comparison import Comparison, PairPower, Row
from mulligan.evaluation.power import Power, problems_needed
from mulligan.report.comparison import comparison_csv, comparison_note, comparison_tables, write_comparison


def curve(*means, half=0.05, n=200):
    return {k: Interval(m, m - half, m + half, n) for k, m in enumerate(means, 1)}


COMPARISON = Comparison(
    "single",
    {"single": 1, "multi": 3},
    (
        Row("accuracy", "single", None, "one", curve(0.4, 0.42)),
        Row("accuracy", "multi", None, "one", curve(0.41, 0.6)),
        Row("accuracy", "multi", "single", "one", curve(0.01, 0.18)),
        Row("accuracy", "multi", "single", "mean of sets", curve(0.02)),
        Row("tokens", "multi", "single", "one", {1: Interval(12.5, -3.0, 1234.0, 200)}),
    ),
    ("one: few",),
)


def test_tables_show_values_differences_and_what_is_missing():
    own, accuracy, tokens = comparison_tables(COMPARISON)
    assert own.rows[1] == ("multi (3 seeds)", "one (200)", "41.0 [36.0, 46.0]", "60.0 [55.0, 65.0]")
    assert accuracy.title == "Accuracy (points): difference to single"
    assert accuracy.rows[0] == ("multi", "one (200)", "+1.0 [-4.0, +6.0]", "+18.0 [+13.0, +23.0]")
    assert accuracy.rows[1][3] == "–"
    assert tokens.rows[0][2] == "+12.5 [-3, +1,234]"
    assert tokens.notes[-1] == "Warning: one: few"
    assert "seeds resampled per arm" in tokens.notes[0]
    assert "within each set" in tokens.notes[0]


def test_each_arms_pass_at_k_and_gain_stand_before_the_differences_and_power_below():
    rows = [*COMPARISON.rows[:2], Row("pass@k", "multi", None, "one", curve(0.4, 0.5)), Row("gain", "multi", None, "one", curve(0.01, 0.1)), *COMPARISON.rows[2:]]
    power = tuple(PairPower(arm, "one", 2, 200, Power(s, {3: problems_needed(s, 0.03), 5: problems_needed(s, 0.05)}, 0.1)) for arm, s in (("multi", 0.5), ("blind", 0.25)))
    found = comparison_tables(replace(COMPARISON, rows=tuple(rows), power=power))
    assert [table.title.split(" (")[0] for table in found] == ["Accuracy", "pass@k", "Gain", "Accuracy", "Tokens sampled per problem: difference to single"]
    assert found[1].rows[0][2] == "40.0 [35.0, 45.0]"
    assert found[2].rows[0][3] == "+10.0 [+5.0, +15.0]"
    assert found[-1].notes[1] == "Power on one (200), k = 2: 3 points take 546 to 2,181 problems, 5 points take 197 to 785 problems (difference to single, one seed; 80 % power)."


def test_tokens_of_a_single_problem_stand_without_an_interval():
    rows = (*COMPARISON.rows[:-1], Row("tokens", "multi", "single", "one", {1: Interval(-0.475, -0.475, -0.475, 1), 2: Interval(2.0, 2.0, 2.0, 30)}))
    assert comparison_tables(replace(COMPARISON, rows=rows))[-1].rows[0][2:] == ("-0.475", "+2 [+2, +2]")


@pytest.mark.parametrize(
    ("arms", "by_seed", "said"),
    [
        ({"single": 1, "multi": 1}, (), "(bootstrap: problems resampled jointly,"),
        ({"single": 5, "multi": 5}, ("multi",), "(bootstrap: seeds resampled jointly with the baseline's, which are the same; problems jointly,"),
        ({"single": 5, "multi": 5, "blind": 3}, ("multi",), "(bootstrap: seeds resampled of multi jointly with the baseline's, of the others per arm; problems jointly,"),
    ],
)
def test_the_note_says_whose_seeds_are_drawn_together(arms, by_seed, said):
    assert said in comparison_note(replace(COMPARISON, arms=arms, by_seed=by_seed))


def test_they_print_on_a_narrow_terminal():
    console = Console(record=True, width=80, file=io.StringIO())
    for table in comparison_tables(COMPARISON):
        console.print(table)
    assert max(len(line.rstrip()) for line in console.export_text().splitlines()) <= 80


def test_csv_and_json_hold_every_figure(tmp_path):
    rows = list(csv.DictReader(io.StringIO(comparison_csv(COMPARISON))))
    assert len(rows) == 2 + 2 + 2 + 1 + 1
    assert rows[5] == {"quantity": "accuracy", "arm": "multi", "baseline": "single", "problems": "one", "k": "2", "mean": "0.18", "low": "0.13", "high": "0.22999999999999998", "n": "200"}
    write_comparison(COMPARISON, tmp_path / "new")
    table = json.loads((tmp_path / "new" / "compare.json").read_text())
    assert table["rows"][2]["by_k"]["2"]["mean"] == pytest.approx(0.18)
    assert table["arms"] == {"single": 1, "multi": 3}
    assert "| multi | one (200) | +1.0 [-4.0, +6.0] |" in (tmp_path / "new" / "compare.md").read_text()
    assert (tmp_path / "new" / "compare.csv").read_text() == comparison_csv(COMPARISON)
