"""The table of an experiment: one row per arm, its figures those of the values on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from arms_on_disk import full_evaluation, write_run

from mulligan.evaluation.arms import read_arms
from mulligan.report.evidence import Evidence
from mulligan.report.experiment import experiment_markdown, experiment_table
from mulligan.report.headline import make_headline
from mulligan.report.sections import evaluation_sections
from mulligan.report.tables import NOTHING


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """Two seeds of a multi-attempt arm trained with up to three attempts, and two of a single-turn arm that does not rise."""
    for seed in range(2):
        write_run(tmp_path / f"multi{seed}", seed=seed)
        full_evaluation(tmp_path / f"multi{seed}", seed=seed, rates=(0.3, 0.6, 0.8))
        write_run(tmp_path / f"single{seed}", attempts="fixed(1)", seed=seed)
        full_evaluation(tmp_path / f"single{seed}", seed=7 + seed, rates=(0.42, 0.42, 0.42))
    return Evidence(read_arms([f"{arm}={tmp_path / arm}0,{tmp_path / arm}1" for arm in ("multi", "single")]), "single")


def values(folder: Path, quantity: str, k: int) -> np.ndarray:
    table = pq.read_table(folder / "values.parquet").to_pylist()
    return np.array([row["value"] for row in table if row["quantity"] == quantity and row["k"] == k])


def number(cell: str) -> float:
    return float(re.match(r"[-+]?[\d.]+", cell)[0])  # type: ignore[index]


def test_the_figures_are_those_of_the_values(evidence: Evidence, tmp_path: Path) -> None:
    table = experiment_table(evidence, "multi", ["single"])
    assert table.headers == ("arm", "seeds", "accuracy@1", "accuracy@3", "own pass@3", "gain over it", "gain over single's pass@3", "repeats", "gain kept, history-blind")
    multi = dict(zip(table.headers, table.rows[0], strict=True))
    folders = [tmp_path / "multi0", tmp_path / "multi1"]

    def mean(quantity: str, k: int) -> float:
        return 100 * float(np.mean([values(folder, quantity, k) for folder in folders]))

    assert (multi["arm"], multi["seeds"], multi["repeats"]) == ("multi", "2", "10.0")
    assert number(multi["accuracy@1"]) == pytest.approx(mean("solved", 1), abs=0.051)
    assert number(multi["accuracy@3"]) == pytest.approx(mean("solved", 3), abs=0.051)
    assert number(multi["gain over it"]) == pytest.approx(mean("solved", 3) - mean("passed", 3), abs=0.051)
    rival = 100 * float(np.mean([values(tmp_path / f"single{seed}", "passed", 3) for seed in range(2)]))
    assert number(multi["gain over single's pass@3"]) == pytest.approx(mean("solved", 3) - rival, abs=0.051)
    kept = (mean("solved:history_blind", 3) - mean("solved:history_blind", 1)) / (mean("solved", 3) - mean("solved", 1))
    assert number(multi["gain kept, history-blind"]) == pytest.approx(100 * kept, abs=0.051)


def test_over_several_sets_the_repeats_are_the_mean_of_the_sets(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"multi{seed}", seed=seed)
        path = full_evaluation(tmp_path / f"multi{seed}", seed=seed, sets=("one", "two")) / "eval.json"
        figures = json.loads(path.read_text())
        figures["problem_sets"]["two"]["repeat_rate"]["overall"]["mean"] = 0.3 + 0.2 * seed
        path.write_text(json.dumps(figures))
    table = experiment_table(Evidence(read_arms([f"multi={tmp_path}/multi0,{tmp_path}/multi1"])), "multi", [])
    (row,) = table.rows
    assert row[table.headers.index("repeats")] == "25.0"  # (10 + (30 + 50) / 2) / 2


def test_an_arm_that_does_not_rise_has_no_gain_to_keep(evidence: Evidence) -> None:
    table = experiment_table(evidence, "multi", ["single", "not run yet"])
    single = dict(zip(table.headers, table.rows[1], strict=True))
    assert single["gain kept, history-blind"] == NOTHING
    assert "gain over single's pass@3" in table.headers
    assert not any("not run yet" in header for header in table.headers), "of what no row has a figure there is no column"


def test_the_page_says_where_it_comes_from_what_was_found_and_every_table(evidence: Evidence) -> None:
    headline, sections = make_headline(evidence), evaluation_sections(evidence)
    text = experiment_markdown("small: a test", "About it.", {"seeds": "0, 1"}, headline, experiment_table(evidence, "multi", ["single"]), sections, "small")
    assert text.startswith(f"# small: a test\n\nAbout it.\n\n**{headline.verdict}.**")
    assert "| seeds | 0, 1 |" in text and "**All arms**" in text
    for section in sections:
        assert f"## {section.title}" in text
        assert all(f"(small/{chart.name}.png)" in text for chart in section.charts)
        assert all(f"**{table.title}**" in text for table in section.tables)
