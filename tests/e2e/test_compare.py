"""`mulligan compare` and `mulligan report` from the command line: what they print and write, and what they say to bad input."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arms_on_disk import full_evaluation, training, write_evaluation, write_run

from mulligan.cli import main


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in a folder with a single-turn run and two seeds of a multi-attempt arm; gives status, output, errors."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        write_run(Path(f"multi{seed}"), seed=seed, metrics=training(4))
        full_evaluation(Path(f"multi{seed}"), seed=seed)
    write_run(Path("single"), attempts="fixed(1)")
    full_evaluation(Path("single"), seed=5, rates=(0.42, 0.43, 0.43, 0.44, 0.44))

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(arguments)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


def test_compare_prints_tables_with_its_warnings(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, errors = run("compare", "single", "multi0", "multi1")
    assert (status, errors) == (0, "")
    assert "multi (2 seeds)" in out
    assert "Accuracy (points): difference to single" in out
    assert "Gain (accuracy - the arm's own pass@k, points): difference to single" in out
    assert "Tokens sampled per problem: difference to single" in out
    assert "Warning: fewer than 5 seeds: single (1), multi (2)" in " ".join(out.split())


def test_compare_as_csv_json_and_files_agree(run: Callable[..., tuple[int, str, str]]) -> None:
    _, text, _ = run("compare", "multi0", "multi1", "single", "--baseline", "single", "--csv")
    rows = [r for r in csv.DictReader(io.StringIO(text)) if r["baseline"] and r["quantity"] == "accuracy"]
    assert {(r["arm"], r["baseline"]) for r in rows} == {("multi", "single")}
    status, text, _ = run("compare", "multi0", "multi1", "single", "--baseline", "single", "--json", "--out", "c")
    table = json.loads(text)
    assert status == 0
    assert table == json.loads(Path("c/compare.json").read_text())
    (row,) = [r for r in table["rows"] if r["baseline"] and r["quantity"] == "accuracy"]
    assert [row["by_k"][r["k"]]["mean"] for r in rows] == [float(r["mean"]) for r in rows]
    values = [np.mean([a["problem_sets"]["one"]["accuracy"]["5"]["mean"] for a in (json.loads(Path(f"{n}/eval.json").read_text()) for n in names)]) for names in (("multi0", "multi1"), ("single",))]
    assert row["by_k"]["5"]["mean"] == pytest.approx(values[0] - values[1])
    assert row["by_k"]["5"]["low"] > 0


def test_report_writes_page_and_figures_and_says_what_it_found(run: Callable[..., tuple[int, str, str]]) -> None:
    for seed in (2, 3, 4):
        write_run(Path(f"multi{seed}"), seed=seed, metrics=training(4))
        full_evaluation(Path(f"multi{seed}"), seed=seed)
    status, out, errors = run("report", *(f"multi{seed}" for seed in range(5)), "single", "--out", "pages/all.html")
    assert (status, errors) == (0, "")
    assert out.startswith("The model learns from its failures")
    assert "But: " in out
    assert Path("pages/all.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert Path("pages/all_files/accuracy.png").exists()
    assert Path("pages/all_files/training.csv").exists()
    assert run("report", "multi0", "--out", "one.html", "--files", "elsewhere", "--title", "Mine")[0] == 0
    assert Path("elsewhere/gain.svg").exists()
    assert "<title>Mine: mulligan report</title>" in Path("one.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "none", "single"), "none holds neither a run nor an evaluation: name a folder that mulligan train or mulligan eval wrote"),
        (("compare", "single"), "single is the only arm (1 seed of one recipe): give a second one to compare it with"),
        (("compare", "multi0", "multi1"), "multi is the only arm (2 seeds of one recipe): give a second one to compare it with"),
        (("compare", "single", "single"), "single is given twice: drop one"),
        (("compare", "single", "multi0", "--baseline", "x"), "--baseline x: not one of the arms (single, multi0): give one of these labels, or one of the folders given"),
        (("compare", "single", "multi0", "--json", "--csv"), "--json and --csv contradict each other: drop one"),
        (("report", "none"), "none holds neither a run nor an evaluation: name a folder that mulligan train or mulligan eval wrote"),
        (("report", "single", "--baseline", "x"), "--baseline x: not one of the arms (single): give one of these labels, or one of the folders given"),
        (("report", "single", "--out", "single/recipe.json/x.html"), "single/recipe.json"),
    ],
)
def test_bad_input_is_one_line(run: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], message: str) -> None:
    status, _, errors = run(*arguments)
    assert status == 2
    assert errors.count("\n") == 1, errors
    assert errors.startswith(f"error: {message}") or message in errors
    assert not Path("report.html").exists()


def test_broken_files_are_named(run: Callable[..., tuple[int, str, str]]) -> None:
    Path("single/values.parquet").write_bytes(b"no")
    status, _, errors = run("compare", "single", "multi0")
    assert (status, errors.count("\n")) == (2, 1)
    assert "single/values.parquet" in errors
    Path("single/values.parquet").unlink()
    status, _, errors = run("compare", "single", "multi0")
    assert status == 2
    assert "single has no values.parquet" in errors
    Path("multi0/eval.json").write_text("{")
    assert "multi0/eval.json: not readable as JSON" in run("report", "multi0")[2]
    write_evaluation(Path("other"), {"else": {"solved": {1: [1, 0]}}})
    assert "no problem set was evaluated in all arms" in run("compare", "multi1", "other")[2]
