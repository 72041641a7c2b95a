"""The parts of a report: what each shows of full, small and old evaluations, and the page's data."""

import json

import numpy as np
import pytest
from arms_on_disk import full_evaluation, interval, solved_with, training, write_evaluation, write_run
from report_parts import curves, page_data, played_seed, sections_of, three_arms

from mulligan.errors import ConfigError
from mulligan.evaluation.arms import read_arms
from mulligan.evaluation.power import detectable_difference
from mulligan.report.evidence import Evidence
from mulligan.report.experiment import experiment_table
from mulligan.report.html import write_report
from mulligan.report.sections import evaluation_sections


@pytest.fixture
def arms(tmp_path):
    return three_arms(tmp_path)


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
