"""A report's figures attempt by attempt: of which budget they are, and when they have intervals."""

import json

import numpy as np
import pytest
from arms_on_disk import write_evaluation, write_run
from fake_dialogues import FakePlayer, problem
from report_parts import curves, played_seed, sections_of, three_arms

from mulligan.evaluation import evaluate
from mulligan.evaluation.arms import read_arms
from mulligan.evaluation.attempts import RATES
from mulligan.evaluation.results import write_evaluation as write_evaluated
from mulligan.report.evidence import Evidence
from mulligan.report.experiment import experiment_table
from mulligan.report.sections import evaluation_sections


@pytest.fixture
def arms(tmp_path):
    return three_arms(tmp_path)


def test_attempts_tokens_and_power(arms):
    found = sections_of(*arms)
    table = found["attempts"].tables[0]
    assert dict(zip(table.headers, table.rows[0], strict=True))["attempts used"] == "2.5 [2.5, 2.5]"
    assert "lowest and the highest" in table.notes[0]
    assert [c.name for c in found["attempts"].charts] == ["success", "repeats", "missing"]  # nothing was cut: no figure of it
    assert found["tokens"].tables[0].rows[1][:5] == ("one", "multi", "2", "20", "5")
    assert found["power"].text[0].startswith("one: 200 problems and one seed can show a rise of 9.9 points or more (3 points take 2,181 problems, 5 points 785) and a gain of 5.0 points or more (3 points take 546 problems, 5 points 197) and a gain over single's (1 of 3 seeds) of ")


def played_beyond(folder, seed=0, *, attempts="uniform(1,2)", evaluated=(1, 2, 4), trained=2, one_pass=False):
    """A run with an evaluation that ends beyond its training: with four attempts every answer after the first repeats it, with two none does."""
    write_run(folder, seed=seed, attempts=attempts)
    told = {"false_wrong": lambda i, k, g: ["c", "c"] if k == 2 else ["c", "w", "w", "w"]}
    player = FakePlayer(lambda i, k, g: ["w:1", "c" if i < 20 else "w:2"][:k] if k <= 2 else ["w:1"] * k, conditions=told)
    write_evaluated(folder, [evaluate(player, [problem(i) for i in range(40)], name="s", attempts=evaluated, trained_attempts=trained, one_pass=one_pass, controls=("false_wrong",))], model=str(folder))
    return folder


def without_its_budget(folder):
    """As an earlier version left it."""
    table = json.loads((folder / "eval.json").read_text())
    del table["problem_sets"]["s"]["attempts_budget"]
    (folder / "eval.json").write_text(json.dumps(table))
    return folder


def over_all_attempts(section):
    return {row[1]: dict(zip(section.tables[0].headers, row, strict=True)) for row in section.tables[0].rows}


def test_attempts_are_those_of_the_trained_budget(tmp_path):
    found = sections_of(played_beyond(tmp_path / "m"))
    section = found["attempts"]
    assert section.text[0] == "Figures and first table: from the dialogues with 2 attempts. Attempts of one dialogue are not independent: intervals resample whole problems."
    row = over_all_attempts(section)["m"]
    assert (row["k"], row["attempts used"], row["repeats, %"][:4], row["tokens per problem"][:4]) == ("2", "2 [2, 2]", "0.0 ", "5.0 ")
    assert list(curves(section)["m"].points) == [1, 2]
    within = section.tables[1]
    assert within.headers[2:] == ("k = 2", "k = 4") and within.rows[0][3].startswith("100.0 ["), "what it does beyond training stays to be seen"
    assert found["controls"].tables[0].rows[0][:4] == ("s", "m", "2", "40 of 40")


def test_attempts_of_an_earlier_evaluation_are_those_of_its_largest_budget(tmp_path):
    """It gave rates by attempt of four attempts, though two were trained."""
    played_beyond(tmp_path / "m", evaluated=(1, 2, 4), trained=None)  # without a trained budget the largest counts, as it did
    section = sections_of(without_its_budget(tmp_path / "m"))["attempts"]
    assert section.text[0].startswith("Figures and first table: from the dialogues with 4 attempts. With 4 attempts, more than training gave (2): within the trained budget the figures may differ. Attempts")
    row = over_all_attempts(section)["m"]
    assert (row["k"], row["attempts used"], row["repeats, %"][:7]) == ("4", "4 [4, 4]", "100.0 [")
    assert sections_of(tmp_path / "m")["controls"].tables[0].rows[0][:4] == ("s", "m", "4", "0 of 40")


def test_arms_whose_attempts_are_of_different_budgets_say_so(tmp_path):
    """The single-turn arm has but the largest budget beside 1."""
    played_beyond(tmp_path / "m")
    played_beyond(tmp_path / "one", attempts="fixed(1)", trained=1)
    section = sections_of(tmp_path / "m", tmp_path / "one")["attempts"]
    assert section.text[0].startswith("Figures and first table: from the dialogues with k attempts, k as in that table. one: with 4 attempts, more than training gave (1). Attempts")
    assert {label: row["k"] for label, row in over_all_attempts(section).items()} == {"m": "2", "one": "4"}


def test_seeds_whose_attempts_are_of_different_budgets_have_no_rates_in_common(tmp_path):
    played_beyond(tmp_path / "m0")
    without_its_budget(played_beyond(tmp_path / "m1", seed=1, trained=None))
    other = [played_beyond(tmp_path / f"other{seed}", seed, attempts="fixed(2)") for seed in range(2)]
    folders = [tmp_path / "m0", tmp_path / "m1", *other]
    found = sections_of(*folders)
    assert "Where the seeds of an arm have different k they have no rates in common (–)." in found["attempts"].text[0]
    rows = over_all_attempts(found["attempts"])
    assert list(rows["m"].values())[2:] == ["2 or 4", *["–"] * 6]
    assert rows["other"]["k"] == "2" and rows["other"]["repeats, %"].startswith("0.0 [")
    assert list(curves(found["attempts"])) == ["other"]
    told = found["controls"].tables[0]
    assert [row[1:] for row in told.rows if row[1] == "m"] == [("m", "2 or 4", *["–"] * 4)]
    assert len(told.notes) == 1, "the other arm's figures are intervals all the same"


def test_attempts_of_one_pass_are_the_first_of_a_longer_dialogue(tmp_path):
    section = sections_of(played_beyond(tmp_path / "m", one_pass=True))["attempts"]
    assert section.text[0].startswith("Figures and first table: from the first 2 attempts of each dialogue. Attempts")
    assert (over_all_attempts(section)["m"]["k"], over_all_attempts(section)["m"]["attempts used"]) == ("2", "2 [2, 2]")


def test_repeats_in_the_table_of_all_arms_say_of_how_many_attempts_they_are(tmp_path):
    folder = without_its_budget(played_beyond(tmp_path / "m", trained=None))
    shown = experiment_table(Evidence(read_arms([str(folder)])), "m", [])
    assert shown.notes[0].endswith("one, within 2 attempts.") and shown.rows[0][shown.headers.index("repeats")].startswith("0.0 [")
    table = json.loads((folder / "eval.json").read_text())
    del table["problem_sets"]["s"]["repeat_rate"]["by_budget"]  # earlier still
    (folder / "eval.json").write_text(json.dumps(table))
    shown = experiment_table(Evidence(read_arms([str(folder)])), "m", [])
    assert shown.notes[0].endswith("one, in the dialogues with 4 attempts.") and shown.rows[0][shown.headers.index("repeats")].startswith("100.0")


def test_brackets_that_are_no_intervals_say_so(arms):
    """Of one run they are intervals over problems; of several seeds the range of those, except in one column."""
    several, one = sections_of(*arms), sections_of(arms[-1])
    assert several["attempts"].text[0].endswith("bars are the lowest and the highest seed.")
    assert several["tokens"].text[0].endswith("Bars are the lowest and the highest seed.")
    columns = {"tokens": "Accuracy", "attempts": "Tokens"}
    for name, column in columns.items():
        (note,) = several[name].tables[0].notes
        assert note.startswith(f"{column}: 95 % interval")
        assert "no confidence interval" in note
        assert not one[name].tables[0].notes
    assert one["attempts"].text[0].endswith("intervals resample whole problems.")
    assert "seed" not in one["tokens"].text[0]


def test_rates_of_several_seeds_have_intervals_where_their_counts_were_kept(tmp_path):
    """Three seeds of 100 problems: at attempt 2 each of 50 answers again, and repeats itself in 5, 10 and 15 cases."""
    for seed in range(3):
        answered, repeated = np.zeros(100), np.zeros(100)
        answered[:50] = 1
        repeated[: 5 * (seed + 1)] = 1
        counts = {quantity: {1: np.ones(100), 2: answered} for pair in RATES.values() for quantity in pair}
        counts |= {"attempts:correct": {1: np.ones(100) - answered, 2: np.zeros(100)}, "attempts:repeated": {1: np.zeros(100), 2: repeated}}
        counts |= {"attempts:answered_again": {1: np.zeros(100), 2: answered}, "attempts:missing": {1: np.zeros(100), 2: np.zeros(100)}}
        write_run(tmp_path / f"m{seed}", seed=seed)
        solved = {1: np.ones(100) - answered, 2: np.ones(100) - answered}
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": solved, "tokens": {1: np.full(100, 4.0), 2: np.full(100, 6.0)}, "attempts_used": {1: np.ones(100), 2: 1 + answered}, **counts}})
    evidence = Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(3)]))
    (arm,) = evidence.arms
    assert evidence.attempt_intervals
    repeats = evidence.rates(arm, "s", "repeat_rate")
    assert list(repeats) == [2]  # nobody can repeat anything at the first attempt
    assert repeats[2].mean == evidence.overall_rate(arm, "s", "repeat_rate").mean == pytest.approx(0.2)
    assert 0.01 < repeats[2].low < 0.1 and 0.3 < repeats[2].high < 0.45  # wider than the range of the seeds, 0.1 to 0.3
    assert evidence.rates(arm, "s", "conditional_success")[1].mean == 0.5
    assert evidence.attempts_used(arm, "s")[2].mean == 1.5
    assert evidence.tokens_per_solved(arm, "s")[2].mean == pytest.approx(12)
    section = {s.id: s for s in evaluation_sections(evidence)}["attempts"]
    assert section.text[0].endswith("intervals resample seeds and whole problems.")
    (table,) = section.tables
    assert not table.notes
    assert table.rows[0][4].startswith("20.0 [")
    assert table.rows[0][8].startswith("12 [")
    shown = experiment_table(evidence, arm.label, [])
    assert shown.rows[0][shown.headers.index("repeats")].startswith("20.0 [")


def test_repeats_within_the_trained_attempts_have_intervals_over_seeds(tmp_path):
    """Of the 40 problems of each of three seeds those that are never solved, 28, 24 and 20, give the same wrong answer twice."""
    for seed in range(3):
        write_run(tmp_path / f"m{seed}", seed=seed, attempts="uniform(1,2)")
        player = FakePlayer(lambda i, k, g, solved=12 + 4 * seed: (["w:1", "c"] if i < solved else ["w:1", "w:1"])[:k])
        write_evaluated(tmp_path / f"m{seed}", [evaluate(player, [problem(i) for i in range(40)], name="s", attempts=(1, 2))], model="m")
    evidence = Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(3)]))
    (found,) = evidence.repeats_within(evidence.head, "s").values()
    assert found.mean == pytest.approx(72 / 120) and found.low < 0.5 and found.high > 0.7
    table = next(s for s in evaluation_sections(evidence) if s.id == "attempts").tables[1]
    assert table.headers == ("problems", "arm", "k = 2") and table.rows[0][2].startswith("60.0 [")
    shown = experiment_table(evidence, "m", [])
    assert shown.rows[0][shown.headers.index("repeats")].startswith("60.0 [")
    assert "within 2 attempts." in shown.notes[0]
    write_run(tmp_path / "elsewhere", protocol__feedback="verdict")
    write_evaluated(tmp_path / "elsewhere", [evaluate(FakePlayer(lambda i, k, g: ["c"]), [problem(i) for i in range(5)], name="other", attempts=(1, 2))], model="e")
    beside = experiment_table(Evidence(read_arms([str(tmp_path / name) for name in ("m0", "m1", "m2", "elsewhere")])), "m", [])
    assert "within 2 attempts." in beside.notes[0] and [row[beside.headers.index("repeats")][:4] for row in beside.rows] == ["60.0", "–"]
    one = Evidence(read_arms([str(tmp_path / "m1")]))
    assert one.repeats_within(one.head, "s")[2].mean == pytest.approx(24 / 40)


def test_seeds_at_equal_tokens_and_their_false_wrong_have_intervals(tmp_path):
    for seed in range(3):
        played_seed(tmp_path / f"m{seed}", seed, learns=True)
        played_seed(tmp_path / f"one{seed}", seed, learns=False, attempts="fixed(1)")
    found = sections_of(*(tmp_path / name for name in ("m0", "m1", "m2", "one0", "one1")))
    own, others = found["tokens"].tables
    assert not own.notes and "seed" not in found["tokens"].text[0]
    # two attempts cost 5 tokens, which buy 8 samples' worth 2 + 2 * 6/8 + 2 * 6*5/(8*7) = 4.57 for three, and 0.71 more for a fourth
    samples, passed = 3 + (5 - 4.5714) / 0.7143, [1 - 6 / 8 * 5 / 7 * 4 / 6, 1 - 6 / 8 * 5 / 7 * 4 / 6 * 3 / 5]
    passes = passed[0] + (samples - 3) * (passed[1] - passed[0])
    row = next(r for r in own.rows if r[1:3] == ("m", "2"))
    assert (row[3], row[4]) == ("5", f"{samples:.3g}")
    assert row[6].startswith(f"{100 * passes:.1f} [")
    gain = 100 * (0.4 - passes)
    assert row[7].startswith(f"{gain:.1f} [")
    low, high = (float(x) for x in row[7].split("[")[1].strip("]").split(", "))
    assert low < gain - 10 and high > gain + 10, "wider than the seeds, which lie 10 points apart"
    assert others.title == "m at equal tokens, against the samples of others"
    assert others.rows[1][:3] == ("s", "one", "2")
    assert others.rows[1][3:5] == row[4:5] + row[6:7]  # its samples are the same
    (kept,) = {r[3:5] for r in found["controls"].tables[-1].rows if r[1] == "m"}
    assert kept[0] == "36 of 60"
    assert kept[1].startswith("60.0 [")
    low, high = (float(x) for x in kept[1].split("[")[1].strip("]").split(", "))
    assert low < 50 and high > 70
    assert len(found["controls"].tables[-1].notes) == 1, "none of the range of the seeds"
