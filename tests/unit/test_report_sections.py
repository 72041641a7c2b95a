"""The parts of a report: what each shows of full, joined, small and old evaluations, and the page's data."""

import base64
import gzip
import json
import re

import numpy as np
import pytest
from arms_on_disk import full_evaluation, interval, solved_with, training, write_evaluation, write_run
from fake_dialogues import FakePlayer, problem

from mulligan.errors import ConfigError, RunError
from mulligan.evaluation import evaluate
from mulligan.evaluation.arms import read_arms
from mulligan.evaluation.attempts import RATES
from mulligan.evaluation.comparison import ACCURACY, GAIN, PASS
from mulligan.evaluation.power import detectable_difference
from mulligan.evaluation.results import write_evaluation as write_evaluated
from mulligan.evaluation.values import read_values
from mulligan.report.evidence import Evidence
from mulligan.report.experiment import experiment_table
from mulligan.report.html import write_report
from mulligan.report.power import power_against
from mulligan.report.sections import evaluation_sections
from mulligan.report.training import MOST_POINTS, stretches, training_sections, write_curves
from mulligan.runlog import RunFolder


def sections_of(*folders, baseline=None):
    evidence = Evidence(read_arms([str(f) for f in folders], need_evaluation=False), baseline)
    return {s.id: s for s in (*evaluation_sections(evidence), *training_sections(evidence))}


def curves(section, chart=0, panel=0):
    return {c.label: c for c in section.charts[chart].panels[panel].curves}


@pytest.fixture
def arms(tmp_path):
    """Three seeds of a multi-attempt arm and one single-turn run, each on two sets, with evaluations on the way."""
    for seed in range(3):
        write_run(tmp_path / f"multi{seed}", seed=seed, metrics=training(6 + seed, reward=0.5 + 0.1 * seed))
        full_evaluation(tmp_path / f"multi{seed}", seed=seed, sets=("one", "two"))
        for step in (2, 4):
            full_evaluation(tmp_path / f"multi{seed}" / f"eval_{step:06d}", seed=seed, sets=("one",), rates=(0.1 * step, 0.15 * step, 0.2 * step))
    write_run(tmp_path / "single", attempts="fixed(1)", metrics=training(9), command=["/usr/bin/mulligan", "train", "a b.toml"])
    full_evaluation(tmp_path / "single", seed=7, sets=("one", "two"), rates=(0.42, 0.43, 0.43, 0.44, 0.44))
    return [tmp_path / name for name in ("multi0", "multi1", "multi2", "single")]


def test_every_section_of_a_full_report(arms):
    found = sections_of(*arms)
    assert list(found) == ["accuracy", "gain", "difference", "controls", "tokens", "attempts", "power", "training", "progress", "runs"]
    assert not any(s.missing for s in found.values())
    names = [chart.name for s in found.values() for chart in s.charts]
    assert names == [
        "accuracy", "accuracy_by_set", "gain", "difference", "controls", "equal_tokens", "success", "repeats", "missing", "training_reward", "training", "accuracy_by_step",
    ]  # fmt: skip


def test_accuracy_has_both_means_where_the_sets_differ_in_size(tmp_path):
    write_run(tmp_path / "run")
    write_evaluation(tmp_path / "run", {"one": {"solved": {1: [1, 0, 1, 0], 2: [1, 1, 1, 0]}}, "two": {"solved": {1: [0, 0], 2: [1, 1]}}})
    first, _ = sections_of(tmp_path / "run")["accuracy"].charts
    assert [panel.title for panel in first.panels] == ["mean of sets", "all questions"]
    assert [panel.curves[0].points[1].mean for panel in first.panels] == [pytest.approx(1 / 4), pytest.approx(1 / 3)]


def test_accuracy_has_the_mean_the_sets_and_the_ceilings(arms):
    section = sections_of(*arms)["accuracy"]
    first, by_set = section.charts
    assert [panel.title for panel in first.panels] == ["mean of sets"]  # by question it is the same: both sets are of one size
    assert [panel.title for panel in by_set.panels] == ["one", "two"]
    assert first.panels[0].trained == 3
    shown = curves(section, 1)
    assert list(shown) == ["multi", "multi: pass@k", "single", "single: pass@k", "best possible", "best independent sampling"]
    assert shown["best possible"].points[3].mean == pytest.approx(0.8)
    assert shown["multi"].points[5].n == 200
    assert shown["multi"].colour == shown["multi: pass@k"].colour != shown["single"].colour


def test_what_further_attempts_bring_is_paired_and_stands_beside_the_headroom(tmp_path):
    """Two seeds of 100 problems with 40, 70 and 85 % within one to three attempts, where 100 % are possible with three."""
    solved = {k: np.arange(100) < share for k, share in ((1, 40), (2, 70), (3, 85))}
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": solved}}, more={"trained_attempts": 3, "ceilings": {"best possible": {"1": 0.4, "2": 0.7, "3": 1.0}}})
    section = sections_of(tmp_path / "m0", tmp_path / "m1")["accuracy"]
    (table,) = section.tables
    assert table.headers == ("problems", "arm", "k = 2", "k = 3")
    ((place, arm, second, third),) = table.rows
    assert (place, arm, second.split(" [")[0], third.split(" [")[0]) == ("s", "m", "+30.0", "+45.0")
    evidence = Evidence(read_arms([str(tmp_path / "m0"), str(tmp_path / "m1")]))
    assert 0.34 < evidence.rise(evidence.head, "s", 3).low < 0.37, "paired: 1.96 * sqrt(0.45 * 0.55 / 100), and not that of two proportions, which reaches 0.33"
    assert "m reaches 85.0 [" in section.text[1] and "%, 75.0 [" in section.text[1] and section.text[1].endswith("of the way there from its own first attempts.")


def test_a_best_possible_that_first_attempts_reach_leaves_no_headroom(tmp_path):
    write_run(tmp_path / "m")
    write_evaluation(tmp_path / "m", {"s": {"solved": {1: np.ones(50), 2: np.ones(50)}}}, more={"trained_attempts": 2, "ceilings": {"best possible": {"1": 1.0, "2": 1.0}}})
    assert "headroom" not in sections_of(tmp_path / "m")["accuracy"].text[1]


def test_headroom_is_that_of_the_means_and_ends_at_what_is_possible(tmp_path):
    """On the 20 problems of `few` a half of the way from 20 to 60 % is gone, on the 60 of `many` all of that from 50 to 100 %."""
    write_run(tmp_path / "m")
    of_20, of_60 = np.arange(20), np.arange(60)
    path = write_evaluation(tmp_path / "m", {"few": {"solved": {1: of_20 < 4, 3: of_20 < 8}}, "many": {"solved": {1: of_60 < 30, 3: of_60 < 60}}}) / "eval.json"
    table = json.loads(path.read_text())
    for name, best in (("few", 0.6), ("many", 1.0)):
        table["problem_sets"][name]["ceilings"] = {"best possible": {"1": best, "3": best}}
    path.write_text(json.dumps(table))
    evidence = Evidence(read_arms([str(tmp_path / "m")]))

    def headroom(place, k=3):
        return evidence.headroom(evidence.head, place, k)

    assert headroom("few").mean == pytest.approx(0.5)
    assert (headroom("many").mean, headroom("many").high) == (1.0, 1.0)
    assert headroom("many").low < 1
    assert headroom("mean of sets").mean == pytest.approx((0.2 + 0.5) / (0.4 + 0.5))
    assert headroom("all questions").mean == pytest.approx((20 * 0.2 + 60 * 0.5) / (20 * 0.4 + 60 * 0.5))
    assert headroom("few", 2) is None, "not evaluated"


@pytest.mark.parametrize("missing", ["ceilings", "values"])
def test_headroom_needs_ceilings_and_values(tmp_path, missing):
    write_run(tmp_path / "m")
    more = {} if missing == "ceilings" else {"ceilings": {"best possible": {"1": 0.6, "2": 1.0}}}
    folder = write_evaluation(tmp_path / "m", {"s": {"solved": {1: np.arange(50) < 10, 2: np.arange(50) < 40}}}, more=more)
    if missing == "values":
        (folder / "values.parquet").unlink()
    evidence = Evidence(read_arms([str(tmp_path / "m")]))
    assert evidence.headroom(evidence.head, "s", 2) is None
    assert "headroom" not in " ".join(sections_of(tmp_path / "m")["accuracy"].text)


def test_one_attempt_leaves_no_way_to_go(tmp_path):
    write_run(tmp_path / "m", attempts="fixed(1)")
    write_evaluation(tmp_path / "m", {"s": {"solved": {1: np.arange(50) < 10}}}, more={"ceilings": {"best possible": {"1": 0.6}}})
    section = sections_of(tmp_path / "m")["accuracy"]
    assert "the best possible is 60.0 %" in section.text[1] and "headroom" not in section.text[1] and not section.tables


def test_accuracy_stands_beside_a_fixed_list_of_answers(tmp_path):
    write_run(tmp_path / "run", attempts="uniform(1,3)")
    solved = {k: [1.0] * (4 * k) + [0.0] * (40 - 4 * k) for k in (1, 3)}
    write_evaluation(tmp_path / "run", {"s": {"solved": solved}}, more={"ceilings": {"best fixed list of answers": {"1": 0.2, "3": 0.45}}})
    section = sections_of(tmp_path / "run")["accuracy"]
    assert section.text[-1].startswith("The best fixed list of 3 answers, named in turn whatever the question, would solve 45.0 % (s); run solves 30.0 [")
    assert curves(section, 0)["best fixed list of answers"].points[3].mean == 0.45


@pytest.mark.parametrize(("attempts", "said"), [("uniform(1,3)", 3), ("fixed(1)", 5), ("fixed(4)", 5)])
def test_single_figures_are_given_for_one_number_of_attempts(tmp_path, attempts, said):
    """The trained one; the largest that was evaluated, if that is 1 or was not evaluated. It is the same in the headline, the headroom, the controls and an experiment's table."""
    write_run(tmp_path / "run", attempts=attempts)
    solved = {k: [1.0] * (4 * k) + [0.0] * (40 - 4 * k) for k in (1, 2, 3, 5)}
    more = {"ceilings": {"best possible": {str(k): 0.9 for k in solved}}, "controls": {"history_blind": {"accuracy": {str(k): interval(0.1 * k) for k in solved}, "difference": {}, "gain_kept": None}}}
    write_evaluation(tmp_path / "run", {"s": {"solved": solved, "solved:history_blind": solved}}, more=more)
    evidence = Evidence(read_arms([str(tmp_path / "run")]))
    assert evidence.budget(evidence.head, "s") == said
    sections = {s.id: s for s in evaluation_sections(evidence)}
    assert sections["accuracy"].text[-1].startswith(f"With {said} attempts the best possible is 90.0 % (s); run reaches {40 * said // 4:.1f} [")
    assert sections["controls"].tables[0].rows[0][3] == str(said)
    assert f"accuracy@{said}" in experiment_table(evidence, "run", []).headers


def test_gain_is_set_against_every_rival(arms):
    section = sections_of(*arms)["gain"]
    own, rivals = section.charts[0].panels
    assert [c.label for c in own.curves] == ["multi", "single"]
    assert [c.label for c in rivals.curves] == ["− pass@k of multi itself", "− pass@k of single", "− pass@k of the best possible sampler"]
    (table,) = section.tables
    assert ("one", "multi − single's") in [row[:2] for row in table.rows]
    alone = sections_of(arms[0])["gain"]  # one seed alone: the rivals of its own evaluation count as well
    assert [c.label for c in alone.charts[0].panels[1].curves] == ["− pass@k of multi0 itself", "− pass@k of the best possible sampler"]
    assert ("one", "multi0 − untrained's") in [row[:2] for row in alone.tables[0].rows]


def test_a_computed_sampler_looks_like_no_arm_and_no_rival_that_was_given(tmp_path):
    """The seventh number is black, with one marker: what is no model takes the next black one where an arm, or a rival, has it."""
    for n in range(7):
        write_run(tmp_path / f"arm{n}", attempts=f"fixed({n + 1})")
        full_evaluation(tmp_path / f"arm{n}", n=20, rates=(0.4, 0.6))

    def numbers(count):
        rivals = sections_of(*(tmp_path / f"arm{n}" for n in range(count)))["gain"].charts[0].panels[1].curves
        return {curve.label.removeprefix("− pass@k of "): curve.colour for curve in rivals}

    seven, two = numbers(7), numbers(2)
    assert (seven["arm6"], seven["the best possible sampler"] % 7) == (two["the best possible sampler"], 6) == (6, 6)
    assert all(len(set(found.values())) == len(found) for found in (seven, two))


def test_controls_and_false_wrong(arms):
    section = sections_of(*arms)["controls"]
    conditions = curves(section)
    assert list(conditions) == ["normal", "sees no earlier attempt", "not told that it was wrong"]
    rows = {row[:3]: row for row in section.tables[0].rows}
    assert rows["one", "multi", "sees no earlier attempt"][3] == "3"
    kept = float(rows["one", "multi", "sees no earlier attempt"][6].split(" ")[0])
    assert kept == pytest.approx(30, abs=10)
    assert rows["one", "single", "not told that it was wrong"][6] == "–"
    assert section.tables[1].rows[0][:5] == ("one", "multi", "5", "120 of 240", "50.0 [50.0, 50.0]")


def test_a_control_is_set_against_drawing_again_as_well(tmp_path):
    """Of 40 problems the dialogues solve 30, blind ones 14, and two samples 12."""
    quantities = {"solved": {1: np.arange(40) < 10, 2: np.arange(40) < 30}, "passed": {1: [0.25] * 40, 2: [0.3] * 40}, "solved:history_blind": {1: np.arange(40) < 10, 2: np.arange(40) < 14}}
    more = {"controls": {"history_blind": {"accuracy": {"2": interval(0.35)}, "difference": {"2": interval(-0.4)}}}}
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed, attempts="uniform(1,2)")
        write_evaluation(tmp_path / f"m{seed}", {"s": quantities}, more=more)
    section = sections_of(tmp_path / "m0", tmp_path / "m1")["controls"]
    (row,) = section.tables[0].rows
    assert dict(zip(section.tables[0].headers, row, strict=True))["− own pass@k, points"].startswith("+5.0 [")
    assert any("repeats itself" in text for text in section.text) and not any("random verdicts" in text for text in section.text)


def test_power_is_computed_where_an_evaluation_did_not_say_it(tmp_path):
    """As an evaluation finds it; and of the gain over the strongest rival."""
    for seed in range(2):
        played_seed(tmp_path / f"m{seed}", seed, learns=True)
        played_seed(tmp_path / f"one{seed}", seed, learns=False, attempts="fixed(1)", right=lambda g: g % 3 == 0)
    folders = [tmp_path / f"{name}{seed}" for name in ("m", "one") for seed in range(2)]
    found = {row[1:3]: row[3:] for row in sections_of(*folders)["power"].tables[0].rows}
    assert set(found) == {("m", "rise"), ("m", "gain"), ("m", "gain over one's")}
    for folder in folders:
        table = json.loads((folder / "eval.json").read_text())
        for key in ("power", "gain_power"):
            table["problem_sets"]["s"].pop(key, None)
        (folder / "eval.json").write_text(json.dumps(table))
    assert {row[1:3]: row[3:] for row in sections_of(*folders)["power"].tables[0].rows} == found
    (power,) = sections_of(tmp_path / "m1", tmp_path / "one1")["power"].tables[0].rows[-1:]
    passed = 1 - (5 / 8) * (4 / 7)  # three of the rival's eight samples are right
    differences = np.where(np.arange(40) < 16, 1.0, 0.0) - passed
    assert power[-1] == f"{100 * detectable_difference(float(np.std(differences, ddof=1)), 40):.1f}"


def test_power_is_of_the_problems_seeds_and_attempts_that_it_is_given_for(tmp_path):
    """The rival saw 50 of 200 problems, and has one seed of two; an evaluation's own figure for another K is not taken."""
    rng = np.random.default_rng(0)
    for seed in range(2):
        solved = solved_with(rng, 200, (0.3, 0.5, 0.7, 0.75, 0.8))
        write_run(tmp_path / f"m{seed}", seed=seed)
        other = {"rise": [1, 5], "power": {"deviation": 9.0, "problems_for": {"3": 1, "5": 1}, "detectable": 9.0}}
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": solved, "passed": {k: [0.3] * 200 for k in solved}}}, more=other)
    write_run(tmp_path / "one1", seed=1, attempts="fixed(1)")
    write_evaluation(tmp_path / "one1", {"s": {"solved": {1: [0, 1] * 25}, "passed": {3: np.linspace(0, 1, 50)}}})
    found = sections_of(tmp_path / "m0", tmp_path / "m1", tmp_path / "one1")["power"]
    differences = solved[3][:50] - np.linspace(0, 1, 50)  # of the second seed, as the rival
    rows = {row[-5]: row[-4:] for row in found.tables[0].rows if row[1] == "m"}
    assert list(rows) == ["rise", "gain", "gain over one1's (1 of 2 seeds)"]
    assert rows["gain over one1's (1 of 2 seeds)"][0] == "50" and rows["rise"][0] == "200"
    assert rows["gain over one1's (1 of 2 seeds)"][-1] == f"{100 * detectable_difference(float(np.std(differences, ddof=1)), 50):.1f}"
    assert float(rows["rise"][-1]) < 20
    assert "gain over" not in found.text[0], "the sentence is about 200 problems"


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


def played_seed(folder, seed, *, learns, attempts="uniform(1,2)", samples=8, right=lambda g: g % 4 == 0):
    """A run with a real evaluation of a scripted player on 40 problems. Samples: one of four is right, 2 tokens each. Dialogues of an arm that learns: with two attempts 12 + 4 * seed problems
    are solved, all at the second; of another none is. Told that it was wrong, a right answer (20 of 40 problems) stands in 10 + 2 * seed cases."""
    write_run(folder, seed=seed, attempts=attempts)

    def script(i, k, g):
        if player.calls[-1]["group_size"] > 1:
            return ["c"] if right(g) else ["w"]
        return ["w", "c"][:k] if learns and i < 12 + 4 * seed else ["w"] * k

    told = {"false_wrong": lambda i, k, g: (["c", "c"] if i < 10 + 2 * seed else ["c", "w"]) if i < 20 else ["w", "w"]}
    player = FakePlayer(script, conditions=told)
    result = evaluate(player, [problem(i) for i in range(40)], name="s", attempts=(1, 2), samples=samples, controls=("false_wrong",))
    write_evaluated(folder, [result], model=str(folder))
    return result


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


def test_a_rival_that_has_too_few_samples_is_said_to(tmp_path):
    """Two attempts cost 5 tokens: two samples of the rival cost 4 at most, and one of its seeds is never right."""
    played_seed(tmp_path / "m", 0, learns=True)
    for seed in range(2):
        played_seed(tmp_path / f"one{seed}", seed, learns=False, attempts="fixed(1)", samples=2, right=lambda g, seed=seed: seed == 0)
    _, others = sections_of(tmp_path / "m", tmp_path / "one0", tmp_path / "one1")["tokens"].tables
    assert [row[2:4] for row in others.rows] == [("1", "1"), ("2", "–")]
    assert "with more samples (eval.samples) there is a figure" in others.notes[0]


def test_seeds_and_arms_that_share_nothing_still_make_a_report(tmp_path):
    """No problem, no number of attempts in common: the page lacks the figure, and is there."""

    def evaluated(name, ids, ks, attempts="uniform(1,3)", seed=0):
        write_run(tmp_path / name, seed=seed, attempts=attempts)
        write_evaluation(tmp_path / name, {"s": {"solved": {k: np.arange(20.0) % 2 for k in ks}}}, ids={"s": ids})

    some, others = [f"a{i}" for i in range(20)], [f"b{i}" for i in range(20)]
    evaluated("multi", some, (1, 2, 3))
    evaluated("apart", others, (1, 2, 3), attempts="fixed(1)")
    evaluated("seed1", some, (1, 2), seed=1)
    evaluated("seed2", some, (3, 4), seed=2)
    for folders in (["multi", "apart"], [f"x={tmp_path / 'seed1'},{tmp_path / 'seed2'}"]):
        arms = read_arms([one if "=" in one else str(tmp_path / one) for one in folders])
        report = write_report(arms, tmp_path / "report.html", tmp_path / "report")
        assert all(panel.curves for section in report.evaluation for chart in section.charts for panel in chart.panels)
    assert report.headline.verdict == "The seeds of x have no figure in common"


def test_seeds_of_which_no_problem_was_graded_in_both_still_make_a_report(tmp_path):
    half = np.where(np.arange(20) < 10, 1.0, np.nan)
    counts = (*(quantity for pair in RATES.values() for quantity in pair), "solved", "attempts_used")
    for seed, graded in enumerate((half, half[::-1])):
        write_run(tmp_path / f"m{seed}", seed=seed)
        write_evaluation(tmp_path / f"m{seed}", {"s": {quantity: {1: graded, 3: graded} for quantity in counts}})
    evidence = Evidence(read_arms([str(tmp_path / "m0"), str(tmp_path / "m1")]))
    assert evidence.attempt_intervals and evidence.values(evidence.head, ACCURACY, "s") == {}
    assert evidence.overall_rate(evidence.head, "s", "repeat_rate") is None
    assert evidence.rise(evidence.head, "s", 3) is None
    sections = sections_of(tmp_path / "m0", tmp_path / "m1")
    assert sections["accuracy"].missing or not sections["accuracy"].charts


def test_a_problem_that_is_not_known_for_one_k_takes_no_part_there_alone(tmp_path):
    """As in a single seed's evaluation: where one of three samples could not be graded, pass@3 is not known, and pass@1 is."""
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        passed = {1: [0.5] * 20, 2: [0.75] * 10 + [None] * 10, 3: [1.0] * 5 + [None] * 15}
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": {k: [1, 0] * 10 for k in (1, 2, 3)}, "passed": passed}})
    evidence = Evidence(read_arms([str(tmp_path / "m0"), str(tmp_path / "m1")]))
    assert [k for k, v in evidence.values(evidence.head, ACCURACY, "s").items() if v.n == 20] == [1, 2, 3]
    assert {k: (v.mean, v.n) for k, v in evidence.values(evidence.head, PASS, "s").items()} == {1: (0.5, 20), 2: (0.75, 10), 3: (1.0, 5)}
    assert {k: (v.mean, v.n) for k, v in evidence.values(evidence.head, GAIN, "s").items()} == {1: (0.0, 20), 2: (-0.25, 10), 3: (pytest.approx(-0.4), 5)}


def test_a_seed_that_was_stopped_is_left_out_and_named(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"m{seed}", seed=seed, metrics=training(4))
    for seed in range(2):
        full_evaluation(tmp_path / f"m{seed}", seed=seed)
    folders = [str(tmp_path / f"m{seed}") for seed in range(3)]
    evidence = Evidence(read_arms(folders, need_evaluation=False), str(tmp_path / "m2"))
    assert evidence.head is evidence.baseline and len(evidence.head.members) == 2
    report = write_report(read_arms(folders, need_evaluation=False), tmp_path / "report.html", tmp_path / "report")
    assert "not evaluated" not in report.headline.verdict and "in common" not in report.headline.verdict
    (said,) = [text for text in page_data((tmp_path / "report.html").read_text(encoding="utf-8"))["warnings"] if "m2" in text]
    assert said.startswith(f"m: {tmp_path / 'm2'} was not evaluated, and takes no part in its figures but those of training: its training has not ended")
    assert len({row[-1] for s in sections_of(*folders).values() for t in s.tables if t.title == "Runs" for row in t.rows}) == 3, "its training is shown"


def test_power_against_a_rival_pairs_no_seeds_that_are_not_known(tmp_path):
    """Evaluations of models without a run have the evaluation's seed alone, which is the same for all of them."""
    for name in ("ha", "hb", "ra", "rb"):
        values = {"solved": {1: [0, 1] * 20, 2: [1, 1] * 20}, "passed": {1: [0.5] * 40, 2: np.linspace(0, 1, 40)}}
        write_evaluation(tmp_path / name, {"s": values})
    several = Evidence(read_arms([f"h={tmp_path / 'ha'},{tmp_path / 'hb'}", f"r={tmp_path / 'ra'},{tmp_path / 'rb'}"]))
    assert power_against(several, several.arms[0], several.arms[1], "s") == []
    single = Evidence(read_arms([f"h={tmp_path / 'ha'}", f"r={tmp_path / 'ra'}"]))
    assert len(power_against(single, single.arms[0], single.arms[1], "s")) == 1


def test_one_dialogue_counted_up_to_k_is_not_called_an_evaluation_of_its_own(tmp_path):
    played_seed(tmp_path / "m", 0, learns=True)
    assert sections_of(tmp_path / "m")["accuracy"].text[0] == "Each number of attempts k is its own evaluation, with that budget."
    table = json.loads((tmp_path / "m" / "eval.json").read_text())
    table["problem_sets"]["s"]["mode"] = "one_pass"
    (tmp_path / "m" / "eval.json").write_text(json.dumps(table))
    assert sections_of(tmp_path / "m")["accuracy"].text[0].startswith("One dialogue with the largest budget, counted up to each k")


def test_the_share_that_a_control_keeps_is_that_of_the_attempts_asked_for(tmp_path):
    """eval.json has it for its own K alone."""
    full_evaluation(tmp_path / "e", keeps=0.5)
    evidence = Evidence(read_arms([str(tmp_path / "e")]))
    assert evidence.kept(evidence.head, "one", "history_blind", 3).mean == 0.5
    two, five = (evidence.kept(evidence.head, "one", "history_blind", k).mean for k in (2, 5))
    assert len({two, five, 0.5}) == 3


def test_the_ends_of_the_temperatures_are_told_where_they_were_the_best(tmp_path):
    """Three temperatures: of the first seed the hottest is the best one for pass@3, of the second the middle one is as high as the coldest, of the third both ends are."""
    heats = ({"0.6": 0.1, "1.0": 0.2, "1.4": 0.3}, {"0.6": 0.3, "1.0": 0.3, "1.4": 0.2}, {"0.6": 0.3, "1.0": 0.2, "1.5": 0.3})
    for seed, at in enumerate(heats):
        write_run(tmp_path / f"m{seed}", seed=seed)
        full_evaluation(tmp_path / f"m{seed}", seed=seed)
        table = json.loads((tmp_path / f"m{seed}" / "eval.json").read_text())
        table["problem_sets"]["one"]["pass_temperatures"] = {heat: {"3": interval(mean), "5": interval(1 - mean)} for heat, mean in at.items()}
        (tmp_path / f"m{seed}" / "eval.json").write_text(json.dumps(table))
    folders = [tmp_path / f"m{seed}" for seed in range(3)]
    evidence = Evidence(read_arms([str(folder) for folder in folders]))
    assert evidence.best_temperatures(evidence.head, 3) == [(1.4, True), (1.0, False), (0.6, False)]
    text = sections_of(*folders)["gain"].text[-1]
    assert text.startswith("An end of the temperatures sampled was the best for pass@3") and text.endswith(f"{evidence.head.label} (1.4 in 1 of 3).")


def test_an_arm_of_the_same_models_is_no_rival(tmp_path):
    """The same model, told in other words: its samples are the head's own."""
    result = played_seed(tmp_path / "m", 0, learns=True)
    write_evaluated(tmp_path / "other", [result], model=str(tmp_path / "m"))
    played_seed(tmp_path / "one", 0, learns=False, attempts="fixed(1)")
    evidence = Evidence(read_arms([f"m={tmp_path / 'm'}", f"other={tmp_path / 'other'}", f"one={tmp_path / 'one'}"]))
    assert evidence.head.label == "m"
    assert set(evidence.rivals(evidence.head, "s")) == set(evidence.equal_tokens_of_rivals(evidence.head, "s")) == {"one"}


def test_a_set_that_one_seed_alone_was_evaluated_on_is_left_out(tmp_path):
    for name, sets in (("a0", ("one",)), ("a1", ("one", "two")), ("b", ("one", "two"))):
        full_evaluation(tmp_path / name, sets=sets)
    evidence = Evidence(read_arms([f"a={tmp_path / 'a0'},{tmp_path / 'a1'}", f"b={tmp_path / 'b'}"]))
    power = {s.id: s for s in evaluation_sections(evidence)}["power"].tables[0]
    assert {row[:2] for row in power.rows} == {("one", "a"), ("one", "b"), ("two", "b")}


def test_a_rival_that_the_evaluation_was_given_stays_where_an_arm_of_its_name_has_no_samples(tmp_path):
    gain = {"1": {"mean": 0.1, "low": 0.05, "high": 0.15, "n": 200}}
    quantities = {"solved": {1: [1, 0] * 100}}
    write_evaluation(tmp_path / "m", {"s": quantities}, model="m", more={"rivals": {"single": {"accuracy": {}, "pass_at_k": gain, "gain": gain}}})
    write_evaluation(tmp_path / "single", {"s": quantities}, model="s")
    evidence = Evidence(read_arms([f"m={tmp_path / 'm'}", f"single={tmp_path / 'single'}"]), "single")
    assert evidence.rivals(evidence.arms[0], "s")["single"][1].mean == 0.1


def test_an_old_evaluation_of_one_seed_takes_no_intervals_from_others(tmp_path):
    for seed in range(2):
        played_seed(tmp_path / f"m{seed}", seed, learns=True)
    full_evaluation(tmp_path / "old", sets=("s",))
    evidence = Evidence(read_arms([f"m={tmp_path / 'm0'},{tmp_path / 'm1'}", f"old={tmp_path / 'old'}"]))
    assert evidence.token_intervals and evidence.false_wrong_intervals
    old = Evidence(read_arms([f"m={tmp_path / 'm0'},{tmp_path / 'm1'}", f"old={tmp_path / 'old'},{full_evaluation(tmp_path / 'older', sets=('s',))}"]))
    assert not old.token_intervals and not old.false_wrong_intervals


def test_one_seed_at_equal_tokens_is_what_its_evaluation_says(tmp_path):
    result = played_seed(tmp_path / "m", 0, learns=True)
    kept = read_values(tmp_path / "m")["s"].quantities
    counted = {"samples:graded@1.0": 8, "samples:correct@1.0": 2, "samples:tokens_correct@1.0": 4, "samples:tokens_wrong@1.0": 12}
    assert {name: set(kept[name][1]) for name in counted} == {name: {value} for name, value in counted.items()}
    write_evaluated(tmp_path / "twin", [result], model="another that samples alike")
    evidence = Evidence(read_arms([f"m={tmp_path / 'm'}", f"twin={tmp_path / 'twin'}"]))
    again = evidence.equal_tokens_of_rivals(evidence.head, "s")["twin"]
    assert {k: (e.tokens, e.samples, e.passed, e.gain) for k, e in again.items()} == {k: (e.tokens, e.samples, e.passed, e.gain) for k, e in result.equal_tokens.items()}


def test_arms_of_several_seeds_on_other_sets_stand_beside_each_other(tmp_path):
    """With counts kept, a set that an arm was not evaluated on has no row of it."""
    counts = {quantity: {1: np.ones(20)} for pair in RATES.values() for quantity in pair}
    for arm, name, attempts in (("a", "one", "uniform(1,3)"), ("b", "two", "fixed(1)")):
        for seed in range(2):
            write_run(tmp_path / f"{arm}{seed}", seed=seed, attempts=attempts)
            write_evaluation(tmp_path / f"{arm}{seed}", {name: {"solved": {1: np.ones(20)}, "tokens": {1: np.ones(20)}, "attempts_used": {1: np.ones(20)}, **counts}})
    (table,) = sections_of(*(tmp_path / name for name in ("a0", "a1", "b0", "b1")))["attempts"].tables
    assert [row[:2] for row in table.rows] == [("one", "a"), ("two", "b")]


def test_seeds_that_share_no_problem_are_left_out(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        sets = {"s": {"solved": {1: [1, 0], 2: [1, 1]}}, "t": {"solved": {1: [0, 0], 2: [1, 1]}}}
        write_evaluation(tmp_path / f"m{seed}", sets, ids={"s": [f"x{seed}", f"y{seed}"], "t": ["x", "y"]})
    evidence = Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(2)]))
    assert evidence.places == ["t"]
    assert evidence.values(evidence.head, ACCURACY, "t")[2].mean == 1


def test_tokens_per_solved_are_those_of_the_evaluation(tmp_path):
    """On the problems graded with as many attempts; from eval.json where no values were kept."""
    quantities = {"solved": {1: [1, 0, None], 2: [1, 1, 0]}, "tokens": {1: [3, 3, 9], 2: [3, 6, 9]}}
    write_evaluation(tmp_path / "e", {"s": quantities}, more={"tokens_per_solved": {"1": 6.0, "2": 9.0}, "attempts_used": {"1": interval(1.0), "2": interval(1.5)}})
    evidence = Evidence(read_arms([str(tmp_path / "e")]))
    assert {k: v.mean for k, v in evidence.tokens_per_solved(evidence.head, "s").items()} == {1: 6.0, 2: 9.0}
    (tmp_path / "e" / "values.parquet").unlink()
    (table,) = sections_of(tmp_path / "e")["attempts"].tables
    assert table.rows[0][-1] == "9"


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


@pytest.mark.parametrize(
    ("sampled", "chosen", "said"),
    [
        ((), {}, "greedy, 20 samples, seed 0"),
        (("1.0",), {"1": ["1.0", "1.0"]}, "greedy, 20 samples at temperature 1.0, seed 0"),
        (("0.6", "1.0"), {"2": ["0.6", "0.6"], "10": ["0.6", "1.0"]}, "greedy, 20 samples at temperatures 0.6, 1.0 (pass@10 at 0.6 and 1.0), seed 0"),
    ],
)
def test_an_evaluation_says_at_which_temperatures_it_sampled(tmp_path, sampled, chosen, said):
    write_run(tmp_path / "r")
    write_evaluation(tmp_path / "r", {"s": {"solved": {1: [1, 0]}}}, more={"samples": 20, "pass_temperatures": {t: {} for t in sampled}, "chosen_temperatures": chosen})
    assert said in {t.title: t for t in sections_of(tmp_path / "r")["runs"].tables}["Evaluations"].rows[0][3]


def test_a_small_evaluation_says_what_to_run(tmp_path):
    write_evaluation(tmp_path / "e", {"s": {"solved": solved_with(np.random.default_rng(0), 30, (0.2, 0.6))}})
    found = sections_of(tmp_path / "e")
    assert set(found) == {"accuracy", "gain", "controls", "power", "runs"}
    assert "--samples" in found["gain"].missing
    assert "--controls" in found["controls"].missing


def test_an_old_evaluation_without_values_is_shown_and_not_paired(tmp_path):
    for name in ("a", "b"):
        full_evaluation(tmp_path / name, seed=1)
        (tmp_path / name / "values.parquet").unlink()
    found = sections_of(tmp_path / "a", tmp_path / "b")
    assert curves(found["accuracy"])["a"].points[1].mean == pytest.approx(0.4, abs=0.1)
    assert "values.parquet" in found["difference"].missing
    assert found["gain"].charts[0].panels[0].curves


def test_many_arms_hide_most_pass_curves_at_first(tmp_path):
    for i in range(5):
        write_run(tmp_path / f"arm{'abcde'[i]}", optimizer__lr=1e-5 * (i + 1), attempts="fixed(1)" if i == 4 else "uniform(1,3)")
        full_evaluation(tmp_path / f"arm{'abcde'[i]}", seed=i)
    shown = curves(sections_of(*sorted(tmp_path.iterdir()))["accuracy"])
    assert [label for label, c in shown.items() if c.hidden] == ["armc: pass@k", "armd: pass@k"], "shown: the head's, the baseline's, and of the others the strongest"


def test_a_report_says_which_joined_runs_were_not_trained_alike(tmp_path):
    """Also of its only arm."""
    for seed, attempts in enumerate(("uniform(1,3)", "uniform(1,5)")):
        write_run(tmp_path / f"m{seed}", seed=seed, attempts=attempts)
        full_evaluation(tmp_path / f"m{seed}", seed=seed)
    write_report(read_arms([f"mine={tmp_path / 'm0'},{tmp_path / 'm1'}"]), tmp_path / "r.html", tmp_path / "r_files")
    (said,) = [text for text in page_data((tmp_path / "r.html").read_text(encoding="utf-8"))["warnings"] if "trained alike" in text]
    assert said.startswith("mine joins runs that were not trained alike and are no seeds of one arm (attempts differs); as its trained budget")


def page_data(text):
    packed = re.search(r'id="page-data">([^<]*)<', text)
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def test_the_page_and_its_files(arms, tmp_path):
    headline = write_report(read_arms([str(a) for a in arms]), tmp_path / "r.html", tmp_path / "r_files", title="Trial").headline
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    data = page_data(text)
    assert data["headline"]["verdict"] == headline.verdict
    assert data["title"] == "Trial"
    assert [(arm["label"], arm["seeds"]) for arm in data["arms"]] == [("multi", 3), ("single", 1)]
    assert any("fewer than 5 seeds" in warning for warning in data["warnings"])
    assert any("a warning of the evaluation" in warning for warning in data["warnings"])
    assert len(text) < 400_000
    names = {chart["name"] for section in data["sections"] for chart in section["charts"]}
    assert {p.name for p in (tmp_path / "r_files").iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg", "csv")}


def test_text_from_a_run_is_never_markup(tmp_path):
    hostile = '</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e"\x00'
    write_run(tmp_path / "r", name=hostile, metrics=training(3), command=["mulligan", hostile])
    full_evaluation(tmp_path / "r", sets=(hostile,))
    write_report(read_arms([f"{hostile.replace('=', '')}={tmp_path / 'r'}"]), tmp_path / "r.html", tmp_path / "files")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "alert(1)" not in text.replace("&lt;script&gt;alert(1)&lt;/script&gt;", "")
    assert text.count("<script") == 2  # the data and the page's own
    assert page_data(text)["arms"][0]["label"] == hostile.replace("=", "")


def test_an_unknown_baseline_is_named(arms):
    with pytest.raises(ConfigError, match="--baseline nothing"):
        Evidence(read_arms([str(a) for a in arms]), "nothing")


def test_a_training_curve_of_some_seeds_says_of_how_many(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"m{seed}", seed=seed, metrics=training(5))
    runs = [tmp_path / f"m{seed}" for seed in range(3)]
    assert not sections_of(*runs)["training"].text
    (tmp_path / "m1" / "metrics.jsonl").unlink()
    assert sections_of(*runs)["training"].text == ("Drawn in part, for want of the other seeds' metrics: m (2 of 3 seeds).",)
