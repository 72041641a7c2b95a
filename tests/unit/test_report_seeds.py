"""A report of several seeds and arms that share little: what is joined, what is left out, and what is said of it."""

import json

import numpy as np
import pytest
from arms_on_disk import full_evaluation, interval, training, write_evaluation, write_run
from report_parts import page_data, played_seed, sections_of

from mulligan.evaluation.arms import read_arms
from mulligan.evaluation.attempts import RATES
from mulligan.evaluation.comparison import ACCURACY, GAIN, PASS
from mulligan.evaluation.results import write_evaluation as write_evaluated
from mulligan.evaluation.values import read_values
from mulligan.report.evidence import Evidence
from mulligan.report.html import write_report
from mulligan.report.power import power_against
from mulligan.report.sections import evaluation_sections


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
