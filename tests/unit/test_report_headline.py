"""What a report says first: each verdict from figures that deserve it, and the caveats that belong to it."""


import numpy as np
import pytest
from arms_on_disk import full_evaluation, solved_with, training, write_evaluation, write_run
from report_parts import controlled

from mulligan.evaluation import Interval
from mulligan.evaluation.arms import read_arms
from mulligan.report.evidence import Evidence
from mulligan.report.headline import Findings, _list_caveats, _sentences, _verdict, find, make_headline


def iv(mean, half=0.04, n=200):
    return Interval(mean, mean - half, mean + half, n)


def findings(**changes):
    base = {
        "label": "multi", "place": "one", "start": 1, "most": 7, "k": 5, "first": iv(0.4), "last": iv(0.7), "rise": iv(0.3), "passed": iv(0.5), "gain": iv(0.2),
        "rivals": {"single": iv(0.1), "untrained": iv(0.12)}, "strongest": "single", "unsampled": (), "again": (), "unnamed": (), "given": (), "sampled_to": 5, "sampled": True, "named": False, "blind": iv(-0.2), "kept": iv(0.3),
        "played": ("history_blind", "other_history", "verdict_hidden"), "others": iv(-0.2), "counted": iv(0.3), "counted_gain": iv(-0.1), "untold": iv(0.3), "listed": None,
    }  # fmt: skip
    return Findings(**(base | changes))


@pytest.mark.parametrize(
    ("changes", "verdict", "tone"),
    [
        ({}, "The model learns from its failures", "yes"),
        ({"unsampled": ("weak",)}, "not every other model was sampled", "partly"),
        ({"rise": iv(0.02)}, "No gain from further attempts is shown", "no"),
        ({"rise": iv(-0.1)}, "Further attempts make it worse", "no"),
        ({"gain": iv(0.03)}, "not clearly more than by drawing again", "no"),
        ({"gain": iv(-0.2)}, "less than drawing again would", "no"),
        ({"gain": None}, "whether from its failures is not known", "open"),
        ({"rivals": {"single": iv(0.1), "untrained": iv(0.01)}}, "not clearly more than every rival does", "partly"),
        ({"rivals": {"single": iv(0.1), "untrained": iv(-0.1)}}, "but a rival solves more by drawing again", "partly"),
        ({"blind": None}, "The model gains more than by drawing again", "partly"),
        ({"blind": iv(-0.01)}, "not clearly by reading its failures", "partly"),
        ({"kept": iv(0.9)}, "mostly by a retry schedule", "partly"),
        ({"kept": iv(0.53)}, "not clearly by reading its failures", "partly"),
        ({"kept": None}, "what share of the rise is left then is not known", "partly"),
        ({"kept": iv(0.3, 0.25)}, "not clearly by reading its failures", "partly"),
        ({"kept": iv(0.3, 0.15)}, "The model learns from its failures", "yes"),
        ({"others": iv(-0.03), "counted": iv(0.95, 0.3), "counted_gain": iv(0.05)}, "with another problem's it does as well", "partly"),
        ({"counted": iv(0.7), "counted_gain": iv(0.1)}, "mostly by counting its failures", "partly"),
        ({"counted": iv(0.7), "counted_gain": None}, "mostly by counting its failures", "partly"),
        ({"counted": iv(0.7), "counted_gain": iv(0.01)}, "The model learns from its failures", "yes"),  # counting brings no more than drawing again does
        ({"counted": iv(0.7), "counted_gain": iv(0.06)}, "The model learns from its failures", "yes"),  # and here less than half of what is gained over that
        ({"counted": iv(0.52), "counted_gain": None}, "mostly by counting its failures", "partly"),
        ({"counted": iv(0.48), "counted_gain": None}, "The model learns from its failures", "yes"),
        ({"counted": None, "untold": iv(0.9)}, "The model learns from its failures", "yes"),
        ({"rivals": {}}, "no other model was compared", "partly"),
        ({"listed": iv(0.03)}, "is not clearly better than a fixed list of answers", "partly"),
        ({"listed": iv(-0.1), "rivals": {}, "unsampled": ("weak",)}, "is not clearly better than a fixed list of answers", "partly"),
        ({"listed": iv(0.05)}, "The model learns from its failures", "yes"),
        ({"rivals": {"the best possible sampler": iv(0.1)}}, "no other model was compared", "partly"),
        ({"rivals": {"the best sampler blind to the question": iv(0.1)}}, "no other model was compared", "partly"),
        ({"rivals": {"the best possible sampler": iv(0.01)}}, "not clearly more than every rival does", "partly"),
        ({"k": 1, "most": 1}, "1 attempt only", "open"),
        ({"start": 5, "most": 5}, "Evaluated with 5 attempts only", "open"),
        ({"start": 5}, "not evaluated with fewer than 5", "open"),
        ({"rise": None, "first": iv(0.66)}, "No gain from further attempts is shown", "no"),
    ],
)
def test_verdicts(changes, verdict, tone):
    said, how = _verdict(findings(**changes))
    assert verdict in said
    assert how == tone


def test_sentences_carry_the_figures_and_say_nulls_plainly():
    change, drawn, rival = _sentences(findings(rivals={"warm-up": iv(0.15), "single": iv(0.18)}, strongest="warm-up"))
    assert change == "With 5 attempts instead of 1, multi solves 70.0 % of the questions instead of 40.0 %: +30.0 points [+26.0, +34.0]."
    assert drawn == "Drawing 5 independent answers from the same model solves 50.0 %: the failed attempts bring +20.0 points [+16.0, +24.0]."
    assert rival == "Against 5 independent answers of the strongest rival, warm-up, the difference is +15.0 points [+11.0, +19.0]."
    change, drawn, rival = _sentences(findings(rise=iv(0.01), gain=iv(-0.01), rivals={"single": iv(0.02)}))
    assert rival.endswith("single, the difference is +2.0 points [-2.0, +6.0], which is not clearly different from 0.")
    assert len(_sentences(findings(rivals={}, strongest=None))) == 2
    assert "+1.0 points [-3.0, +5.0], which is not clearly different from 0." in change
    assert "brings nothing that is clearly more, -1.0 points [-5.0, +3.0]" in drawn
    assert "solves 50.0 %, more than the dialogues do: -20.0 points" in _sentences(findings(gain=iv(-0.2)))[1]


def test_what_every_control_keeps_is_a_caveat(tmp_path):
    headline = make_headline(controlled(tmp_path, history_blind=0.0, other_history=0.8, verdict_hidden=0.6))
    assert headline.verdict == "The model gains more than by drawing again, but mostly by counting its failures, not by reading them"
    text = "\n".join(headline.caveats)
    assert "Shown the failed attempts of another problem it keeps 80.0 % [7" in text and "(+35.0 points [" in text
    assert "Asked again without a verdict it keeps 60.0 % [5" in text
    assert "cannot see its earlier attempts" not in text and "other_history" not in text


@pytest.mark.parametrize("fewest", [1, 2])
def test_a_retry_schedule_is_seen_whatever_the_fewest_attempts(tmp_path, fewest):
    evidence = controlled(tmp_path, fewest=fewest, history_blind=0.8)
    headline = make_headline(evidence)
    assert evidence.fewest == ("1" if fewest == 1 else "the fewest")
    assert "mostly by a retry schedule" in headline.verdict
    assert headline.caveats[0].startswith("A model that cannot see its earlier attempts keeps 80.0 % [7")


def test_problems_that_are_trained_on_are_a_caveat(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        warnings = [f"one: {3 + 4 * seed} of 100 problems are trained on as well: not held out", "one: another warning"]
        write_evaluation(tmp_path / f"m{seed}", {"one": {"solved": {1: np.arange(100) < 40, 3: np.arange(100) < 70}}}, more={"warnings": warnings, "trained_attempts": 3})
    solved = {"one": {"solved": {1: np.arange(100) < 40, 3: np.arange(100) < 70}}}
    write_run(tmp_path / "old", protocol__feedback="verdict")
    write_evaluation(tmp_path / "old", solved)  # of an earlier version, which did not look
    write_run(tmp_path / "other", problems__train="builtin:codes")
    write_evaluation(tmp_path / "other", solved)

    def caveats(*names):
        said = make_headline(Evidence(read_arms([str(tmp_path / name) for name in names]))).caveats
        assert not any("another warning" in text for text in said)
        return [text for text in said if "trained on" in text]

    assert caveats("m0") == ["one: 3 of 100 problems are trained on as well: not held out."]
    assert caveats("m0", "m1") == caveats("old", "m0", "m1") == ["one: 3 to 7 of 100 problems are trained on as well: not held out."]
    assert caveats("other", "m0", "m1") == caveats("old") == []


def test_a_control_that_was_not_played_is_a_caveat(tmp_path):
    text = "\n".join(make_headline(controlled(tmp_path, history_blind=0.0)).caveats)
    assert "Not shown another problem's failures (other_history)" in text
    assert "Asked again" not in text


def test_a_control_of_which_no_share_is_known_was_played_all_the_same(tmp_path):
    """Evaluated from two attempts on there is no rise from one."""
    solved = {2: np.arange(200) % 4 == 0, 3: np.arange(200) % 4 != 3}
    quantities = {"solved": solved, "passed": {3: [0.3] * 200}} | {f"solved:{control}": {k: solved[2] for k in solved} for control in ("history_blind", "other_history")}
    write_run(tmp_path / "m")
    more = {"controls": {control: {"accuracy": {}, "difference": {"3": {"mean": -0.5, "low": -0.6, "high": -0.4, "n": 200}}} for control in ("history_blind", "other_history")}}
    write_evaluation(tmp_path / "m", {"one": quantities}, more=more)
    assert "other_history" not in "\n".join(make_headline(Evidence(read_arms([str(tmp_path / "m")]))).caveats)


@pytest.mark.parametrize(("listed", "how"), [(0.6, ""), (0.74, "not clearly above"), (0.9, "clearly below")])
def test_a_fixed_list_of_answers_that_does_as_well_is_the_first_caveat(tmp_path, listed, how):
    """75 % [71, 79] with three attempts, over two sets."""
    known = {"best fixed list of answers": {"1": 0.25, "3": listed}, "best sampling blind to the question": {"1": 0.25, "3": listed - 0.1}}
    evidence = controlled(tmp_path, more={"ceilings": known}, history_blind=0.0)
    headline = make_headline(evidence)
    said = f"It is {how} the best fixed list of 3 answers for each set, fitted to these problems and named in turn, which would solve {100 * listed:.1f} % ({100 * (0.75 - listed):+.1f} points ["
    assert headline.caveats[0].startswith(said) is bool(how)
    assert ("fixed list" in "\n".join(headline.caveats)) is bool(how)
    rival = evidence.rivals(evidence.head, "mean of sets")["the best sampler blind to the question"][3]
    assert rival.mean == pytest.approx(0.75 - (listed - 0.1))
    assert "of the strongest rival, the best sampler blind to the question, the difference is" in headline.sentences[2]
    verdicts = {0.6: "no other model was compared", 0.74: "is not clearly better than a fixed list of answers", 0.9: "a rival solves more by drawing again"}
    assert verdicts[listed] in headline.verdict


@pytest.mark.parametrize(("place", "lists"), [("mean of sets", "answers for each set,"), ("a.jsonl + gym:b", "answers for each part of the mixture,"), ("a.jsonl", "answers, fitted")])
def test_a_list_says_of_what_it_is(place, lists):
    (caveat,) = _list_caveats(findings(place=place, listed=iv(0.01)))
    assert f"the best fixed list of 5 {lists}" in caveat


def test_the_fewest_attempts_evaluated_need_not_be_one(tmp_path):
    write_evaluation(tmp_path / "e", {"s": {"solved": {2: [0, 1] * 100, 5: [1, 1] * 100}}})
    headline = make_headline(Evidence(read_arms([str(tmp_path / "e")])))
    assert headline.sentences[0] == "With 5 attempts instead of 2, e solves 100.0 % of the questions instead of 50.0 %: +50.0 points [+43.0, +57.0]."
    assert [tile.label for tile in headline.tiles] == ["2 attempts", "5 attempts"]
    write_evaluation(tmp_path / "f", {"s": {"solved": {5: [1, 0] * 100}}})
    headline = make_headline(Evidence(read_arms([str(tmp_path / "f")])))
    assert (headline.verdict, headline.sentences) == ("Evaluated with 5 attempts only", ("With 5 attempts f solves 50.0 %.",))
    assert headline.caveats == ("One training seed: the intervals say nothing of what another run would give.",)
    assert [tile.label for tile in headline.tiles] == ["5 attempts"]


@pytest.fixture
def two_arms(tmp_path):
    write_run(tmp_path / "multi", metrics=training(20))
    full_evaluation(tmp_path / "multi", n=60)
    write_run(tmp_path / "single", attempts="fixed(1)")
    full_evaluation(tmp_path / "single", seed=0, n=60, rates=(0.42, 0.43, 0.43, 0.44, 0.44))
    return [str(tmp_path / "single"), str(tmp_path / "multi")]


def test_the_head_arm_is_the_multi_attempt_one_at_its_trained_budget(two_arms):
    evidence = Evidence(read_arms(two_arms))
    assert (evidence.head.label, evidence.baseline.label) == ("multi", "single")
    found = find(evidence)
    assert found.k == 3
    assert found.rise.mean == pytest.approx(found.last.mean - found.first.mean)
    assert set(found.rivals) == {"single", "untrained", "the best possible sampler"}
    assert found.kept.mean == 0.3
    turned = Evidence(read_arms(two_arms), baseline="multi")
    assert (turned.head.label, turned.baseline.label) == ("single", "multi")


def test_caveats_name_what_speaks_against_it(two_arms):
    text = "\n".join(make_headline(Evidence(read_arms(two_arms))).caveats)
    assert "Only 60 problems: the interval of the rise is" in text
    assert "One training seed" in text
    assert "keeps" not in text  # 30 % of the rise: not the first thing to say
    alone = make_headline(Evidence(read_arms(two_arms[1:])))
    assert "60 problems of one, one training seed" in alone.basis


def test_of_several_sets_the_headline_is_of_the_shared_one_and_says_which(tmp_path):
    rng = np.random.default_rng(0)
    write_run(tmp_path / "multi")
    write_evaluation(tmp_path / "multi", {name: {"solved": solved_with(rng, 200, (0.2, 0.4, 0.6))} for name in ("own", "shared")})
    write_run(tmp_path / "single", attempts="fixed(1)")
    write_evaluation(tmp_path / "single", {"shared": {"solved": solved_with(rng, 200, (0.2, 0.2, 0.2))}})
    evidence = Evidence(read_arms([str(tmp_path / "multi"), str(tmp_path / "single")]))
    assert evidence.main == "shared"
    assert "(shared)" in make_headline(evidence).sentences[0]


def test_a_retry_schedule_is_the_first_caveat(tmp_path):
    full_evaluation(tmp_path / "e", n=200, keeps=0.9)
    (first, *_) = make_headline(Evidence(read_arms([str(tmp_path / "e")]))).caveats
    assert first.startswith("A model that cannot see its earlier attempts keeps 90.0 % [80, 100] of the rise")


def test_of_more_attempts_than_were_trained_it_does_not_say_that_there_are_none(tmp_path):
    write_evaluation(tmp_path / "e", {"s": {"solved": {3: [0, 1] * 50, 5: [1, 1] * 50}}}, more={"trained_attempts": 3})
    headline = make_headline(Evidence(read_arms([str(tmp_path / "e")])))
    assert headline.verdict == "What further attempts bring is not known: it was not evaluated with fewer than 3"
    assert headline.sentences == ("With 3 attempts e solves 50.0 %.",)


def test_a_single_problem_is_one(tmp_path):
    write_evaluation(tmp_path / "e", {"s": {"solved": {1: [0], 3: [1]}}})
    assert "over 1 problem of s, one training seed" in make_headline(Evidence(read_arms([str(tmp_path / "e")]))).basis


def test_what_was_not_measured_is_said(tmp_path):
    write_evaluation(tmp_path / "e", {"s": {"solved": solved_with(np.random.default_rng(0), 200, (0.2, 0.6))}})
    headline = make_headline(Evidence(read_arms([str(tmp_path / "e")])))
    assert headline.tone == "open"
    text = "\n".join(headline.caveats)
    assert "No independent samples" in text
    assert "No history-blind control" in text
    assert "No rival model" in text
    assert [tile.label for tile in headline.tiles] == ["1 attempt", "2 attempts"]


def test_without_values_the_intervals_decide(tmp_path):
    write_evaluation(tmp_path / "e", {"s": {"solved": {1: [0, 1] * 50, 2: [0, 1] * 49 + [1, 1]}}})
    (tmp_path / "e" / "values.parquet").unlink()
    headline = make_headline(Evidence(read_arms([str(tmp_path / "e")])))
    assert headline.verdict == "No gain from further attempts is shown"
    assert "the intervals overlap" in headline.sentences[0]


def test_a_run_that_was_not_evaluated(tmp_path):
    write_run(tmp_path / "r", metrics=training(20, reward=0.8))
    headline = make_headline(Evidence(read_arms([str(tmp_path / "r")], need_evaluation=False)))
    assert headline.verdict == "r was not evaluated"
    assert "+0.06 over the first 2 of 20 steps and +0.78 over the last 2" in headline.sentences[1]
    assert headline.caveats[0] == f"Its training has not ended; if it was stopped, mulligan train RECIPE --out {tmp_path / 'r'} --resume goes on with it."


def test_few_seeds_are_told_one_by_one(tmp_path):
    """Two seeds that gain 25 and 35 points over their own samples, and 10 and 20 over those of a rival; of the rival's one seed alone, over nothing."""
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        solved = {1: [1] * 10 + [0] * 30, 3: [1] * (20 + 4 * seed) + [0] * (20 - 4 * seed)}
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": solved, "passed": {1: [0.25] * 40, 3: [0.25] * 40}}})
        write_run(tmp_path / f"one{seed}", seed=seed, attempts="fixed(1)")
        write_evaluation(tmp_path / f"one{seed}", {"s": {"solved": solved, "passed": {1: [0.4] * 40, 3: [0.4] * 40}}})

    def told(*names):
        caveats = make_headline(Evidence(read_arms([str(tmp_path / name) for name in names]))).caveats
        return next(text for text in caveats if "training seeds" in text)

    own = "2 training seeds say little of what another would give. Seed by seed it gains +25.0 and +35.0 points over their own samples"
    assert told("m0", "m1", "one0", "one1") == f"{own}; +10.0 and +20.0 points over those of one."
    assert told("m0", "m1", "one0") == f"{own}."
    write_evaluation(tmp_path / "m1", {"s": {"solved": {1: [1] * 10 + [0] * 30, 3: [1] * 20 + [0] * 20}, "passed": {1: [0.25] * 40, 3: [0.25] * 40}}})
    assert told("m0", "m1").endswith("Seed by seed it gains +25.0 and +25.0 points over their own samples.")


def test_seeds_are_told_on_the_problems_that_they_share(tmp_path):
    """As the sentence above them. The second seed saw twenty problems more, and solved them; a scale's end is an interval's."""
    for seed, n in enumerate((40, 60)):
        write_run(tmp_path / f"m{seed}", seed=seed)
        solved = [1] * (10 + 20 * seed) + [0] * (30 - 20 * seed) + [1] * (n - 40)
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": {1: [0] * n, 3: solved}, "passed": {1: [0.0] * n, 3: [0.0] * n}}})
    headline = make_headline(Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(2)])))
    assert headline.sentences[1].endswith("brings nothing that is clearly more, +50.0 points [-100.0, +100.0].")
    assert any("it gains +25.0 and +75.0 points over their own samples." in text for text in headline.caveats)


def test_why_there_is_no_gain_is_said(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"m{seed}", seed=seed)
        sampled = {"passed": {1: [0.25] * 40, 3: [0.25] * 40}} if seed else {}
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": {1: [1, 0, 0, 0] * 10, 3: [1, 0] * 20}, **sampled}})

    def told(*names):
        return next(text for text in make_headline(Evidence(read_arms([str(tmp_path / name) for name in names]))).caveats if "drawing again" in text)

    assert told("m0").startswith("No independent samples were drawn, so")
    assert told("m0", "m1").startswith("Independent samples were not drawn of every seed and set, so")


def test_over_seeds_and_sets(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"m{seed}", seed=seed)
        full_evaluation(tmp_path / f"m{seed}", seed=seed, sets=("one", "two"))
    evidence = Evidence(read_arms([str(tmp_path / f"m{seed}") for seed in range(3)]))
    headline = make_headline(evidence)
    assert headline.basis == "In brackets: 95 % intervals over 3 seeds × 400 problems of 2 sets. Against untrained on one and untrained on two, whose samples each seed's evaluation was given, from the lowest to the highest bound of the seeds."
    assert "(mean of sets)" in headline.sentences[0]
    assert any("3 training seeds say little of what another would give" in text for text in headline.caveats)
    found = find(evidence)
    assert found.kept.mean == pytest.approx(0.3, abs=0.1)  # computed from the values, not from one seed's eval.json
    assert found.kept.width > 0
