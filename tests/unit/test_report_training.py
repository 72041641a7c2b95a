"""A report's curves of training, and what it says of the runs."""

import numpy as np
import pytest
from arms_on_disk import training, write_run
from report_parts import curves, sections_of, three_arms

from mulligan.errors import RunError
from mulligan.evaluation.values import read_values
from mulligan.report.training import MOST_POINTS, stretches, write_curves
from mulligan.runlog import RunFolder


@pytest.fixture
def arms(tmp_path):
    return three_arms(tmp_path)


def test_training_is_a_mean_over_seeds_with_its_range(arms):
    found = sections_of(*arms)
    multi = curves(found["training"])["multi"].points
    assert sorted(multi) == [1, 2, 3, 4, 5, 6]  # as far as every seed went; the warm-up is no training step
    assert (multi[6].mean, multi[6].low, multi[6].high) == pytest.approx((np.mean([0.5, 0.6 * 6 / 7, 0.7 * 6 / 8]), 0.5, 0.525), abs=1e-5)
    titles = [p.title for p in found["training"].charts[1].panels]
    assert titles == ["Solved in training", "Solved at the first attempt", "Attempts used", "Length", "Missing or cut answers", "Entropy", "KL of an update", "Time per step"]
    missing = next(p for p in found["training"].charts[1].panels if p.title == "Missing or cut answers")
    assert missing.curves[0].points[1].mean == pytest.approx(0.15)
    progress = found["progress"].charts[0].panels
    assert [p.title for p in progress] == ["one, 1 attempt", "one, 3 attempts"]
    points = progress[1].curves[0].points
    assert sorted(points) == [2, 4]
    solved = [read_values(folder / "eval_000002")["one"].quantities["solved"][3].mean() for folder in arms[:3]]
    assert points[2].mean == pytest.approx(np.mean(solved))
    assert points[2].low < min(solved) and points[2].high > max(solved), "over seeds x problems, not the range of the seeds"
    assert found["progress"].charts[0].caption == "Bars: 95 % intervals over seeds x problems."


def test_long_training_is_shown_in_stretches(tmp_path):
    write_run(tmp_path / "r", metrics=training(1000, reward=1.0))
    section = sections_of(tmp_path / "r")["training"]
    points = curves(section)["r"].points
    assert len(points) <= MOST_POINTS
    assert points[16].mean == pytest.approx(np.mean([(s + 1) / 1000 for s in range(16)]))
    assert list(points)[-2:] == [992, 1000], "the last stretch is what is left"
    assert "Means over 16 steps each" in section.charts[0].caption


def test_published_curves_stand_in_for_metrics_until_a_run_goes_on(tmp_path):
    """As means over stretches of one length, that of the longest run; drawn alone or together, with metrics or without, they are the same."""
    long, short = (write_run(tmp_path / name, metrics=training(steps, reward=1.0)) for name, steps in (("long", 350), ("short", 100)))
    write_curves([long, short])
    (tmp_path / "short" / "metrics.jsonl").rename(tmp_path / "aside")
    drawn = curves(sections_of(tmp_path / "short")["training"])["short"].points
    assert (len(drawn), drawn[4].mean, drawn[100].mean) == (25, pytest.approx(0.025), pytest.approx(0.985))
    assert "Means over 4 steps each" in sections_of(tmp_path / "short")["training"].charts[0].caption
    (tmp_path / "aside").rename(tmp_path / "short" / "metrics.jsonl")
    assert curves(sections_of(tmp_path / "short")["training"])["short"].points == drawn
    short.log_metrics(102, training(101)[-1])
    short.close()
    assert len(curves(sections_of(tmp_path / "short")["training"])["short"].points) == 51, "gone on: its metrics, two steps a point"
    short.truncate_after(102, 100)
    assert not short.curves() and len(curves(sections_of(tmp_path / "short")["training"])["short"].points) == 100
    (tmp_path / "long" / "curves.jsonl").write_text('{"train_step": 3')
    with pytest.raises(RunError, match=r"curves.jsonl cannot be read"):
        sections_of(tmp_path / "long")


def test_published_curves_and_metrics_are_joined_over_the_same_steps(tmp_path):
    """A seed from an archive, in stretches of four steps, and one that has its metrics, of 10 and 9 steps."""
    for seed, steps in ((0, 10), (1, 9)):
        write_run(tmp_path / f"m{seed}", seed=seed, metrics=training(steps, reward=float(steps)))
    first = RunFolder.open(tmp_path / "m0")
    lines = [line for line in first.metrics() if line["stage"] == "train"]
    first.write_curves({"stage": "train", "train_step": t[-1]["train_step"], "steps": len(t), "reward": sum(x["reward"] for x in t) / len(t)} for t in (lines[:4], lines[4:8], lines[8:]))
    (tmp_path / "m0" / "metrics.jsonl").unlink()
    write_run(tmp_path / "archived", attempts="fixed(1)")
    sections = sections_of(tmp_path / "m0", tmp_path / "archived")
    assert sections["training"].text[-1] == "Not drawn, for want of metrics: archived."
    assert sections["runs"].tables[0].rows[1][2:5] == ("–",) * 3, "how long it was trained is not known"
    joined = curves(sections_of(tmp_path / "m0", tmp_path / "m1")["training"])["m"].points
    assert {step: (point.low, point.high) for step, point in joined.items()} == {4: (2.5, 2.5), 8: (6.5, 6.5)}
    merged = stretches({first: [*first.curves()[:1], {"stage": "train", "train_step": 5, "steps": 2, "reward": 5.5}, {"stage": "train", "train_step": 8, "steps": 1, "reward": 9.0}], RunFolder.open(tmp_path / "m1"): [{"stage": "train", "train_step": 799, "reward": 0.0}]})
    assert [(line["steps"], line["reward"]) for line in merged[first]] == [(6, 3.5), (1, 9.0)], "each with the weight of its steps"


def test_runs_say_how_to_repeat_them(arms):
    tables = {t.title: t for t in sections_of(*arms)["runs"].tables}
    assert [row[:3] for row in tables["Runs"].rows] == [("multi", "0", "6"), ("multi", "1", "7"), ("multi", "2", "8"), ("single", "0", "9")]
    assert tables["Commands (of each arm's first seed)"].rows[1] == ("single", "mulligan train 'a b.toml'")
    assert tables["Settings that differ between the arms"].rows == (("attempts", "uniform(1,3)", "fixed(1)"),)
    assert "greedy, 20 samples, seed 0" in tables["Evaluations"].rows[0][3]
    assert len(tables["Machines and versions"].rows) == 1


def test_a_training_curve_of_some_seeds_says_of_how_many(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"m{seed}", seed=seed, metrics=training(5))
    runs = [tmp_path / f"m{seed}" for seed in range(3)]
    assert not sections_of(*runs)["training"].text
    (tmp_path / "m1" / "metrics.jsonl").unlink()
    assert sections_of(*runs)["training"].text == ("Drawn in part, for want of the other seeds' metrics: m (2 of 3 seeds).",)
