"""A report's first lines: which rivals count, which of them is the strongest, and what is said where one is as good or not known."""

import json

import numpy as np
import pytest
from arms_on_disk import full_evaluation, solved_with, write_evaluation, write_run
from report_parts import controlled

from mulligan.evaluation.arms import read_arms
from mulligan.report.evidence import Evidence
from mulligan.report.headline import find, make_headline
from mulligan.report.rivals import same_models, same_samples


def test_a_rival_that_is_better_is_told_apart_from_one_that_is_level(tmp_path):
    """75 % [71, 79] with three attempts."""
    samplers = {"best fixed list of answers": {"3": 0.5}, "best sampling blind to the question": {"3": 0.76}, "best independent sampling": {"3": 0.9}}
    told = [text for text in make_headline(controlled(tmp_path, more={"ceilings": samplers}, history_blind=0.0)).caveats if "(pass@3)" in text]
    assert told == [
        "It is clearly below 3 independent samples (pass@3) of the best possible sampler.",
        "It is not clearly above 3 independent samples (pass@3) of the best sampler blind to the question.",
    ]


@pytest.mark.parametrize("known", [False, True])
def test_temperatures_whose_end_was_the_best_are_a_caveat_unless_the_best_sampler_is_known(tmp_path, known):
    heats = {"0.6": {"3": {"mean": 0.2}}, "1.0": {"3": {"mean": 0.3}}}
    ceilings = {"ceilings": {"best independent sampling": {"1": 0.25, "3": 0.4}}} if known else {}
    text = "\n".join(make_headline(controlled(tmp_path, more={"pass_temperatures": heats} | ceilings, history_blind=0.0)).caveats)
    assert ("pass@3 was highest at an end of the temperatures sampled: m (2 of 2 evaluations)." in text) is not known


def test_a_computed_sampler_does_not_hide_the_temperatures_of_the_strongest_model(tmp_path):
    """Models were drawn from at temperatures; the best sampler blind to the question, here a stronger rival than any, was not."""
    heats = {"pass_temperatures": {"0.6": {"3": {"mean": 0.3}}, "1.0": {"3": {"mean": 0.4}}}, "ceilings": {"best sampling blind to the question": {"3": 0.5}}}
    for name, attempts, passed in (("m", "uniform(1,3)", 0.3), ("weak", "fixed(1)", 0.2), ("rival", "fixed(2)", 0.4)):
        write_run(tmp_path / name, attempts=attempts)
        solved = {1: np.arange(200) % 4 == 0, 3: np.arange(200) % 4 != 3}
        write_evaluation(tmp_path / name, {"s": {"solved": solved, "passed": {3: [passed] * 200}}}, model=name, more=heats)
    headline = make_headline(Evidence(read_arms([str(tmp_path / name) for name in ("m", "weak", "rival")])))
    assert "of the strongest rival, the best sampler blind to the question" in headline.sentences[2]
    assert any("sampled: m (1 of 1 evaluations), rival (1 of 1 evaluations)." in caveat for caveat in headline.caveats)


def test_the_same_model_once_more_is_no_other_model(tmp_path):
    """Evaluated again, with other samples and under another name of its folder: the verdict must not take it for a rival that training did not sharpen."""
    quantities = {"solved": {1: [1, 0] * 100, 3: [1] * 200}, "passed": {1: [0.4] * 200, 3: [0.5] * 200}, "solved:history_blind": {1: [1, 0] * 100, 3: [1, 0] * 100}}
    write_run(tmp_path / "m")
    (tmp_path / "m" / "model").mkdir()
    more = {"controls": {"history_blind": {"accuracy": {}, "difference": {}}}}
    write_evaluation(tmp_path / "m" / "eval", {"s": quantities}, model=str(tmp_path / "m"), more=more)
    write_evaluation(tmp_path / "again", {"s": {**quantities, "passed": {1: [0.4] * 200, 3: [0.45] * 200}}}, model=str(tmp_path / "x" / ".." / "m" / "model"), more=more)
    (tmp_path / "x").mkdir()
    arms = [f"m={tmp_path / 'm' / 'eval'}", f"again={tmp_path / 'again'}"]
    evidence = Evidence(read_arms(arms), "again")
    assert same_models(*evidence.arms) and not same_samples(*evidence.arms)
    found = find(evidence)
    assert (set(found.rivals), found.again, found.models) == ({"again"}, ("again",), [])
    caveats = make_headline(evidence).caveats
    assert any("No rival model" in text for text in caveats) and "again is the same model once more: no other model." in caveats


@pytest.mark.parametrize(
    ("model", "again", "unnamed", "models"),
    [("x/../m/model", True, False, False), ("single", False, False, True), (None, False, True, True)],
)
@pytest.mark.parametrize("sets", [("s",), ("s", "t")])
def test_a_rival_given_to_the_evaluation_counts_as_another_model_unless_it_is_this_one(tmp_path, monkeypatch, model, again, unnamed, models, sets):
    """Under any name of its folder. Evaluations of earlier versions do not say which model a rival is: that is told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    write_run(tmp_path / "m")
    (tmp_path / "m" / "model").mkdir()
    quantities = {"solved": {1: [1, 0] * 100, 3: [1] * 200}, "passed": {1: [0.4] * 200, 3: [0.5] * 200}, "solved:history_blind": {1: [1, 0] * 100, 3: [1, 0] * 100}}
    easy = {"3": {"mean": 0.3, "low": 0.2, "high": 0.4, "n": 200}}
    given = {"accuracy": {}, "pass_at_k": easy, "gain": easy, **({"model": model} if model else {})}
    blind = {"accuracy": easy, "difference": {"3": {"mean": -0.5, "low": -0.6, "high": -0.4, "n": 200}}, "gain_kept": {"mean": 0.0, "low": 0.0, "high": 0.1, "n": 200}}
    write_evaluation(tmp_path / "m" / "eval", dict.fromkeys(sets, quantities), model="m", more={"rise": [1, 3], "controls": {"history_blind": blind}, "rivals": {"untrained": given}})
    evidence = Evidence(read_arms(["m"]))
    found, headline = find(evidence), make_headline(evidence)
    labels = tuple(f"untrained on {name}" for name in sets) if len(sets) > 1 else ("untrained",)
    assert (found.given, found.again, found.unnamed, found.models) == (labels, again * labels, unnamed * labels, list(models * labels))
    assert headline.tone == ("yes" if models else "partly") and ("no other model was compared" in headline.verdict) is not models
    caveats = "\n".join(headline.caveats)
    assert ("No rival model" in caveats) is not models
    assert ("once more: no other model" in caveats, "the evaluation does not say" in caveats) == (again, unnamed)


def test_the_strongest_rival_was_drawn_from_where_the_figures_are_taken(tmp_path):
    """Not on one set alone, whose difference would stand beside a mean of sets."""
    quantities = {"solved": {1: [0, 1] * 100, 3: [1] * 200}, "passed": {1: [0.4] * 200, 3: [0.5] * 200}}
    hard = {"3": {"mean": 0.01, "low": -0.02, "high": 0.04, "n": 200}}
    write_evaluation(tmp_path / "m", {"a": quantities, "b": quantities}, model="m", more={"rivals": {"given": {"accuracy": {}, "pass_at_k": hard, "gain": hard}}})
    write_evaluation(tmp_path / "single", {"a": quantities, "b": quantities}, model="s")
    stronger = {**quantities, "passed": {1: [0.4] * 200, 3: [0.7] * 200}}
    write_evaluation(tmp_path / "pass", {"a": stronger, "b": stronger}, model="p")
    found = find(Evidence(read_arms([f"{name}={tmp_path / name}" for name in ("m", "single", "pass")]), "single"))
    assert found.place == "mean of sets"
    assert (found.strongest, set(found.rivals)) == ("pass", {"single", "pass", "given on a", "given on b"})


def test_bounds_of_rivals_given_to_the_evaluations_are_told_from_intervals(tmp_path):
    """Of several seeds there is the hull of theirs."""
    gains = {"3": {"mean": 0.1, "low": 0.02, "high": 0.2, "n": 200}}
    quantities = {"solved": {1: [0, 1] * 100, 3: [1] * 200}, "passed": {1: [0.4] * 200, 3: [0.5] * 200}}
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        write_evaluation(tmp_path / f"m{seed}", {"s": quantities}, model=f"m{seed}", more={"rivals": {"given": {"gain": gains}}})
    folders = [str(tmp_path / f"m{seed}") for seed in range(2)]
    assert make_headline(Evidence(read_arms(folders))).basis.endswith("200 problems of s. Against given, whose samples each seed's evaluation was given, from the lowest to the highest bound of the seeds.")
    assert make_headline(Evidence(read_arms(folders[:1]))).basis.endswith("200 problems of s, one training seed.")


def test_samples_that_do_not_reach_the_budget_are_not_called_none(tmp_path):
    write_evaluation(tmp_path / "e", {"s": {"solved": {1: [0, 1] * 100, 5: [1, 1] * 100}, "passed": {1: [0.5] * 200, 3: [0.6] * 200}}})
    caveats = "\n".join(make_headline(Evidence(read_arms([str(tmp_path / "e")]))).caveats)
    assert "Independent samples reach pass@3 only, so that" in caveats
    assert "No independent samples" not in caveats


def test_the_best_possible_sampler_is_no_rival_model(tmp_path):
    for seed in range(5):
        write_run(tmp_path / f"m{seed}", seed=seed)
        full_evaluation(tmp_path / f"m{seed}", seed=seed, rates=(0.4, 0.8, 0.9, 0.9, 0.9))
        drop_rivals(tmp_path / f"m{seed}")
    evidence = Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(5)]))
    assert list(evidence.rivals(evidence.head, "one")) == ["the best possible sampler"]
    headline = make_headline(evidence)
    assert headline.tone == "partly"
    assert any(text.startswith("No rival model") for text in headline.caveats)


def drop_rivals(folder):
    table = json.loads((folder / "eval.json").read_text())
    for figures in table["problem_sets"].values():
        figures["rivals"] = {}
    (folder / "eval.json").write_text(json.dumps(table))


def test_rivals_of_the_evaluations_stay_with_several_seeds(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        full_evaluation(tmp_path / f"m{seed}", seed=seed)
    evidence = Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(2)]))
    found = evidence.rivals(evidence.head, "one")["untrained"]
    assert found[3].mean == pytest.approx(0.12)
    assert (found[3].low, found[3].high) == pytest.approx((0.08, 0.16))
    drop_rivals(tmp_path / "m1")
    evidence = Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(2)]))
    assert "untrained" not in evidence.rivals(evidence.head, "one"), "a rival of one seed is none of the arm"


def test_a_rival_without_samples_is_named_and_holds_the_verdict_back(tmp_path):
    rng = np.random.default_rng(0)
    write_run(tmp_path / "multi")
    full_evaluation(tmp_path / "multi", rates=(0.4, 0.8, 0.9, 0.9, 0.9), keeps=0.0)
    write_run(tmp_path / "strong", attempts="fixed(1)")
    write_evaluation(tmp_path / "strong", {"one": {"solved": solved_with(rng, 200, (0.9, 0.9, 0.9))}})
    headline = make_headline(Evidence(read_arms([str(tmp_path / "multi"), str(tmp_path / "strong")])))
    assert headline.verdict.endswith("not every other model was sampled") and headline.tone == "partly"
    assert any(text.startswith("Of strong pass@3 is not known") for text in headline.caveats)


def test_the_ceilings_are_those_of_the_head_arms_feedback(tmp_path):
    """With the verdict alone less is possible; the arm that comes first must not lend its bound to the one that is told more."""
    for name, best in (("told-wrong", 0.33), ("told-more", 1.0)):
        write_run(tmp_path / name, protocol__feedback=f"{name} {{n}}")
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [0, 1] * 50, 3: [1, 1] * 50}}}, more={"ceilings": {"best possible": {"1": 0.1, "3": best}}})
    arms = [str(tmp_path / "told-wrong"), str(tmp_path / "told-more")]
    evidence = Evidence(read_arms(arms), baseline="told-wrong")
    assert evidence.head.label == "told-more"
    assert evidence.ceilings("s")["best possible"][3].mean == 1.0
    assert Evidence(read_arms(arms), baseline="told-more").ceilings("s")["best possible"][3].mean == 0.33


def test_rivals_whose_seeds_are_not_known_are_told_for_no_seed(tmp_path):
    """Evaluations without a run hold the evaluation's seed, 0 for all."""
    for name, solved in {"h0": 20, "h1": 30}.items():
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [0] * 40, 3: [1] * solved + [0] * (40 - solved)}, "passed": {1: [0.1] * 40, 3: [0.2] * 40}}})
    for name in ("r0", "r1"):
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [0] * 40, 3: [0] * 40}, "passed": {1: [0.1] * 40, 3: [0.3] * 40}}})
    evidence = Evidence(read_arms([f"h={tmp_path / 'h0'},{tmp_path / 'h1'}", f"r={tmp_path / 'r0'},{tmp_path / 'r1'}"]))
    assert evidence.by_seed(evidence.head, "r", "s", 3) == []
    assert evidence.by_seed(evidence.head, None, "s", 3) == [pytest.approx(0.3), pytest.approx(0.55)]
