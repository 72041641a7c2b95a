"""Arms compared: on which problems, over which sets, and what a comparison is warned of."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arms_on_disk import arm_data, multi_and_single, solved_with, write_evaluation, write_run

from mulligan.errors import ConfigError
from mulligan.evaluation.arms import read_arms
from mulligan.evaluation.comparison import ACCURACY, MEAN_OF_SETS, PASS, aligned, compare, comparison_warnings, shared_ks, shared_seeds
from mulligan.evaluation.power import power_of


@pytest.fixture
def runs(tmp_path):
    return multi_and_single(tmp_path)


def test_problems_are_matched_by_id_and_repeats_in_their_order(tmp_path):
    write_evaluation(tmp_path / "a", {"s": {"solved": {1: [1, 0, 1, 0]}}}, ids={"s": ["x", "y", "x", "z"]})
    write_evaluation(tmp_path / "b", {"s": {"solved": {1: [0, 1, 1, 1]}}}, ids={"s": ["w", "x", "x", "y"]})
    arms = read_arms([str(tmp_path / "a"), str(tmp_path / "b")])
    a, b = aligned([(arm, ACCURACY) for arm in arms], ["s"], [1])
    assert a[0][0, :, 0].tolist() == [1, 0, 1]  # x, y, x again
    assert b[0][0, :, 0].tolist() == [1, 1, 1]
    assert any("saw different problems (a 4, b 4; 3 in common)" in text for text in comparison_warnings(arms))


def test_what_could_not_be_graded_takes_no_part(tmp_path):
    write_evaluation(tmp_path / "a", {"s": {"solved": {1: [1, 0, None, 1], 2: [1, 0, 1, 1]}}})
    write_evaluation(tmp_path / "b", {"s": {"solved": {1: [0, 0, 1, 0], 2: [1, None, 1, 1]}}})
    arms = read_arms([str(tmp_path / "a"), str(tmp_path / "b")])
    (row,) = [r for r in compare(arms, arms[0]).rows if r.baseline]
    assert row.by_k[1].n == row.by_k[2].n == 2  # the same problems at every k
    assert row.by_k[1].mean == pytest.approx(-1.0)


def test_comparison_over_sets_and_quantities(tmp_path):
    rng = np.random.default_rng(0)
    big, small = 400, 30
    base = {"big": {"solved": solved_with(rng, big, (0.4, 0.4))}, "small": {"solved": solved_with(rng, small, (0.2, 0.2))}}
    arm = {"big": {"solved": {k: v.copy() for k, v in base["big"]["solved"].items()}}, "small": {"solved": {1: base["small"]["solved"][1], 2: np.ones(small)}}}
    for name, data in (("base", base), ("arm", arm)):
        for set_name, n in (("big", big), ("small", small)):
            data[set_name]["passed"] = {1: np.full(n, 0.25), 2: np.full(n, 0.5)}
            data[set_name]["tokens"] = {1: np.full(n, 7.0), 2: np.full(n, 9.0 if name == "arm" else 8.0)}
        write_evaluation(tmp_path / name, data)
    arms = read_arms([str(tmp_path / "base"), str(tmp_path / "arm")])
    found = {(r.quantity, r.arm, r.problems): r.by_k for r in compare(arms, arms[0]).rows if r.baseline}
    lift = 1 - base["small"]["solved"][2].mean()
    assert found["accuracy", "arm", "small"][2].mean == pytest.approx(lift)
    assert found["accuracy", "arm", MEAN_OF_SETS][2].mean == pytest.approx(lift / 2)
    assert found["accuracy", "arm", "all questions"][2].mean == pytest.approx(lift * small / (big + small))
    assert found["accuracy", "arm", MEAN_OF_SETS][2].low > 0
    assert found["gain", "arm", "small"][2].mean == pytest.approx(lift)  # both have the same pass@k
    assert found["accuracy - baseline's pass@k", "arm", "small"][2].mean == pytest.approx(0.5)
    assert found["tokens", "arm", "all questions"][2].mean == pytest.approx(1.0)
    own = {(r.arm, r.problems): r.by_k for r in compare(arms, arms[0]).rows if not r.baseline and r.quantity == "accuracy"}
    assert own["arm", "small"][2].mean == 1.0
    assert own["arm", "small"][2].low < 1.0  # 30 of 30 is not certainty


def test_seeds_widen_the_interval(tmp_path):
    """The same 300 problems: one seed says it is sure; three seeds that disagree say that it is not."""
    rng = np.random.default_rng(1)
    draws = rng.random(300)
    for seed, rate in enumerate((0.7, 0.5, 0.45)):
        write_run(tmp_path / f"m{seed}", seed=seed)
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": {1: (draws < rate).astype(float)}}})
    write_evaluation(tmp_path / "base", {"s": {"solved": {1: (draws < 0.4).astype(float)}}})
    one = read_arms([str(tmp_path / "base"), str(tmp_path / "m0")])
    three = read_arms([str(tmp_path / "base"), *(str(tmp_path / f"m{i}") for i in range(3))])
    narrow, wide = (next(r for r in compare(arms, arms[0]).rows if r.baseline).by_k[1] for arms in (one, three))
    assert len(three[1].members) == 3
    assert wide.mean == pytest.approx((0.7 + 0.5 + 0.45) / 3 - 0.4, abs=0.05)
    assert wide.width > 1.5 * narrow.width


def test_arms_of_the_same_seeds_are_paired_by_them(tmp_path):
    """Seed s solves s tenths of the problems in both arms, and the arm one in twenty more: five seeds in any order are drawn together, fewer are not."""
    for name, attempts, more in (("base", "fixed(1)", 0), ("arm", "uniform(1,3)", 5)):
        for seed in range(1, 7):
            write_run(tmp_path / f"{name}-{seed}", seed=seed, attempts=attempts)
            write_evaluation(tmp_path / f"{name}-{seed}", {"one": {"solved": {1: np.arange(100) < 10 * seed + more}}})

    def arms(ours, theirs):
        return read_arms([*(str(tmp_path / f"base-{s}") for s in theirs), *(str(tmp_path / f"arm-{s}") for s in ours)])[::-1]

    def difference(ours, theirs):
        arm, base = arms(ours, theirs)
        return next(r for r in compare([base, arm], base).rows if r.baseline).by_k[1]

    same, shuffled, others, few = difference([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]), difference([1, 2, 3, 4, 5], [5, 3, 1, 2, 4]), difference([1, 2, 3, 4, 5], [2, 3, 4, 5, 6]), difference([1, 2, 3, 4], [1, 2, 3, 4])
    assert shuffled == same
    assert same.mean == pytest.approx(0.05)
    assert same.low > 0
    for apart in (others, few):
        assert apart.low < -0.1
        assert apart.width > 2 * same.width
    assert shared_seeds(*arms([1, 2, 3, 4, 5], [5, 3, 1, 2, 4])) == [2, 3, 1, 4, 0]
    assert shared_seeds(*arms([1, 2, 3, 4], [1, 2, 3, 4])) is None
    for seeds, paired in (([1, 2, 3, 4, 5], ("arm",)), ([1, 2, 3, 4], ())):
        arm, base = arms(seeds, seeds)
        assert compare([base, arm], base).by_seed == paired


def test_a_label_that_joins_runs_trained_otherwise_is_warned_of(runs):
    """By what they differ in, the budget first; seeds of one recipe differ in nothing of it, whatever they are called or log."""
    write_run(runs / "longer", seed=2, attempts="uniform(1,5)", advantage__name="grpo")
    write_evaluation(runs / "longer", arm_data(2))
    write_run(runs / "faster", seed=3, optimizer__lr=1e-3)
    write_evaluation(runs / "faster", arm_data(3))
    write_run(runs / "logged", seed=4, log__checkpoint_every=7, name="another name")
    write_evaluation(runs / "logged", arm_data(4))
    write_evaluation(runs / "moved", arm_data(5), model="gone", more={"trained_attempts": 7})

    def said(*names):
        arms = read_arms([f"mine={','.join(str(runs / name) for name in names)}", f"base={runs / 'single'}"])
        found = [text for text in compare(arms, arms[1]).warnings if "trained alike" in text]
        assert len(found) < 2
        return "".join(found)

    first = runs / "multi-seed0"
    assert said("multi-seed0", "multi-seed1", "logged") == ""
    unlike = "mine joins runs that were not trained alike and are no seeds of one arm"
    assert said("multi-seed0", "longer") == f"{unlike} (attempts, advantage.name differ); as its trained budget counts that of {first}, 3"
    assert said("multi-seed0", "faster") == f"{unlike} (optimizer.lr differs)"
    assert said("multi-seed0", "moved") == f"{unlike} (attempts differs); as its trained budget counts that of {first}, 3"  # a budget is known without the run


def test_warnings(runs):
    write_run(runs / "told", seed=0, protocol__feedback="verdict")
    write_evaluation(runs / "told", arm_data(3, n=40, sets=("one", "two")), more={"temperature": 0.7})
    arms = read_arms([str(runs / name) for name in ("multi-seed0", "told")])
    text = "\n".join(comparison_warnings(arms))
    assert "two is left out: multi-seed0 was not evaluated on it" in text
    assert "protocol.feedback: 'verdict and attempts left' and 'verdict'" in text
    assert "temperature: 0.0 and 0.7" in text
    assert "one: the arms saw different problems (multi-seed0 120, told 40; 40 in common)" in text
    assert "one: 40 problems are few" in text
    assert "fewer than 5 seeds: multi-seed0 (1), told (1)" in text


def test_three_arms_are_compared_on_what_all_three_saw(tmp_path):
    """Two of them share 120 problems: a third, which saw 40, brings every row down to these."""
    for name, n in (("a", 120), ("b", 120), ("c", 40)):
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [1] * 40 + [0] * (n - 40), 2: [1] * n}, "passed": {1: [0.5] * n, 2: [0.5] * n}}})
    arms = read_arms([str(tmp_path / name) for name in "abc"])
    rows = compare(arms, arms[0]).rows
    assert {row.by_k[1].n for row in rows} == {40}
    assert {row.by_k[1].mean for row in rows if row.baseline is None and row.quantity == "accuracy"} == {1.0}


def test_arms_are_compared_on_what_could_be_graded_in_all_of_them(tmp_path):
    """The grader failed on the hard problems of b alone: in a's column they would stand as unsolved beside a column without them."""
    easy = [0.0] * 60 + [1.0] * 90
    gaps = {"b": [np.nan] * 60 + [1.0] * 90, "c": [0.0] * 60 + [1.0] * 80 + [np.nan] * 10}
    for name in "abc":
        solved, passed = gaps.get(name, easy), [0.5] * 149 + [0.5 if name == "a" else np.nan]
        write_evaluation(tmp_path / name, {"s": {"solved": {1: easy, 2: solved}, "passed": {1: passed, 2: passed}, "tokens": {1: easy, 2: solved}}})
    arms = read_arms([str(tmp_path / name) for name in "abc"])
    found = compare(arms, arms[0])
    assert {(row.quantity, row.by_k[2].n) for row in found.rows} >= {("accuracy", 80), ("tokens", 80), ("gain", 80), ("accuracy - baseline's pass@k", 80)}
    assert {row.by_k[1].n for row in found.rows} == {80}
    assert {row.by_k[2].mean for row in found.rows if row.baseline is None and row.quantity == "accuracy"} == {1.0}
    assert "s: 70 of 150 problems are left out: not graded in every dialogue of b, c" in found.warnings
    assert "s: 1 of 150 problems are left out of pass@k and gain: too few graded samples of b, c" in found.warnings


def test_an_arm_of_which_nothing_was_graded_takes_no_problem_from_the_others(tmp_path):
    for name in "abc":
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [1, 0, 1]}}})
    values = pq.read_table(tmp_path / "c" / "values.parquet")
    pq.write_table(values.set_column(4, "value", pa.nulls(3, pa.float64())), tmp_path / "c" / "values.parquet")
    arms = read_arms([str(tmp_path / name) for name in "abc"])
    found = compare(arms, arms[0])
    assert [(row.arm, row.by_k[1].n) for row in found.rows] == [("a", 3), ("b", 3), ("b", 3)]
    assert "s: all problems of c are left out: not graded in every dialogue" in found.warnings


def test_seeds_that_saw_different_problems_are_warned_of(tmp_path):
    for seed, ids in enumerate((["x", "y", "z"], ["w", "x", "y"])):
        write_run(tmp_path / f"m{seed}", seed=seed)
        write_evaluation(tmp_path / f"m{seed}", {"s": {"solved": {1: [1, 0, 1]}}}, ids={"s": ids})
    write_evaluation(tmp_path / "base", {"s": {"solved": {1: [0, 0, 1, 1]}}}, ids={"s": ["w", "x", "y", "z"]})
    arms = read_arms([str(tmp_path / name) for name in ("m0", "m1", "base")])
    assert any("s: the seeds of m were evaluated on different problems (3, 3; 2 in all of them)" in text for text in comparison_warnings(arms))
    write_run(tmp_path / "m2", seed=2)
    write_evaluation(tmp_path / "m2", {"s": {"solved": {1: [1]}}}, ids={"s": ["q"]})
    arms = read_arms([str(tmp_path / name) for name in ("m0", "m1", "m2", "base")])
    text = "\n".join(comparison_warnings(arms))
    assert "(3, 3, 1; 0 in all of them)" in text
    assert "s is left out: no problem of it was seen by all arms" in text


def test_arms_that_were_evaluated_by_other_settings_are_warned_of(tmp_path):
    """What `mulligan eval RUN protocol.feedback=...` changed stands in eval.json, not in the run's recipe."""
    write_run(tmp_path / "run")
    settings = {"protocol": {"feedback": "verdict", "system": "s"}, "grader": {"format": "boxed"}}
    write_evaluation(tmp_path / "run" / "eval", arm_data(0), model=str(tmp_path / "run"), settings=settings)
    other = {**settings, "protocol": {"feedback": "no: {n}", "system": "s"}}
    write_evaluation(tmp_path / "other", arm_data(0), model=str(tmp_path / "run"), settings=other)
    text = "\n".join(comparison_warnings(read_arms([f"a={tmp_path / 'run' / 'eval'}", f"b={tmp_path / 'other'}"])))
    assert "a and b were not played alike (protocol.feedback: 'verdict' and 'no: {n}')" in text


def test_seeds_that_were_evaluated_by_different_settings_are_warned_of(tmp_path):
    for seed, feedback in enumerate(("verdict", "no: {n}")):
        write_run(tmp_path / f"m-{seed}", seed=seed)
        write_evaluation(tmp_path / f"m-{seed}", arm_data(seed), settings={"protocol": {"feedback": feedback}})
    text = "\n".join(comparison_warnings(read_arms([str(tmp_path / "m-0"), str(tmp_path / "m-1")])))
    assert "the seeds of m were not evaluated alike (protocol" in text


def test_a_set_of_which_nothing_was_graded_in_all_arms_leaves_its_figure_out(tmp_path):
    for name, tokens in (("a", [5, 6, None, None]), ("b", [None, None, 7, 8])):
        write_evaluation(tmp_path / name, {"one": {"solved": {1: [1, 0, 1, 0]}, "tokens": {1: tokens}}})
    arms = read_arms([f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}"])
    rows = compare(arms, arms[0]).rows
    assert ("accuracy", "one") in {(r.quantity, r.problems) for r in rows if r.baseline}
    assert not any(r.quantity == "tokens" and r.baseline for r in rows)


def test_arms_whose_samples_were_drawn_otherwise_are_warned_of(tmp_path):
    for name, samples, temperatures in (("a", 20, ("0.6", "1.0")), ("b", 28, ("1.0",)), ("c", 0, ())):
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [1, 0]}}}, more={"samples": samples, "pass_temperatures": {t: {} for t in temperatures}})
    a, b, c = read_arms([str(tmp_path / name) for name in "abc"])
    (found,) = [text for text in comparison_warnings([a, b]) if "played alike" in text]
    assert "samples: 20 and 28; temperatures of the samples: ['0.6', '1.0'] and ['1.0']" in found
    assert not any("played alike" in text for text in comparison_warnings([a, c]))  # without samples nothing of them is compared


def test_five_alike_seeds_on_many_problems_warn_of_nothing(tmp_path):
    for arm, attempts in (("a", "uniform(1,3)"), ("b", "fixed(1)")):
        for seed in range(5):
            write_run(tmp_path / f"{arm}{seed}", seed=seed, attempts=attempts)
            write_evaluation(tmp_path / f"{arm}{seed}", arm_data(seed))
    arms = read_arms([str(p) for p in sorted(tmp_path.iterdir())])
    assert [len(arm.members) for arm in arms] == [5, 5]
    assert comparison_warnings(arms) == []


def test_what_the_evaluations_warned_of_is_said_of_their_arms(tmp_path):
    for seed in range(3):
        said = [f"one: {3 + 4 * seed} of 150 problems are trained on as well: not held out", f"one: {2 * seed + 2} dialogues broke and count as unsolved", "one: draw more samples"]
        write_run(tmp_path / f"m{seed}", seed=seed)
        write_evaluation(tmp_path / f"m{seed}", {"one": {"solved": {1: [1, 0] * 75}}, "left": {"solved": {1: [1]}}}, more={"warnings": said})
    write_evaluation(tmp_path / "base", {"one": {"solved": {1: [1, 0] * 75}}}, more={"warnings": ["one: draw more samples", "one: 150 problems are few for small differences: 5 points take 785 (x)"]})
    arms = read_arms([str(tmp_path / name) for name in ("base", "m0", "m1", "m2")])
    assert list(compare(arms, arms[0]).warnings[-4:]) == [
        "base, m: one: draw more samples",
        "base: one: 150 problems are few for small differences: 5 points take 785 (x)",
        "m: one: 3 to 11 of 150 problems are trained on as well: not held out",
        "m: one: 2 to 6 dialogues broke and count as unsolved",
    ]


def test_an_arm_shows_its_own_pass_at_k_and_gain_and_the_pair_its_power(tmp_path):
    solved = {"a": [1] * 60 + [0] * 140, "b": [1] * 50 + [0] * 50 + [1] * 50 + [0] * 50}
    for name, values in solved.items():
        sampled = {"passed": {1: [0.25] * 200}} if name == "a" else {}
        write_evaluation(tmp_path / name, {"s": {"solved": {1: values, 2: values}, **sampled}}, more={"warnings": ["s: 200 problems are few for small differences: 5 points take 9 (x)"]})
    a, b = read_arms([str(tmp_path / name) for name in "ab"])
    found = compare([a, b], a)
    own = {(row.quantity, row.arm): row.by_k[1].mean for row in found.rows if row.baseline is None}
    assert own == pytest.approx({("accuracy", "a"): 0.3, ("accuracy", "b"): 0.5, ("pass@k", "a"): 0.25, ("gain", "a"): 0.05})
    (power,) = found.power
    assert (power.arm, power.problems, power.k, power.n) == ("b", "s", 2, 200)
    assert power.power == power_of(np.array(solved["b"], float), np.array(solved["a"], float))
    assert not any("few for small" in text for text in found.warnings)  # the power says it of this comparison


def test_numbers_of_attempts_that_not_all_were_evaluated_with_are_named(tmp_path):
    for name, ks in (("a", (1, 2, 3, 5)), ("b", (1, 3)), ("c", (1, 2, 3, 5))):
        write_evaluation(tmp_path / name, {"one": {"solved": {k: [1, 0] * 75 for k in ks}}}, more={"trained_attempts": 5 if name == "a" else 3})
    a, b, c = read_arms([str(tmp_path / name) for name in "abc"])
    (text,) = [text for text in compare([a, b, c], a).warnings if "attempts" in text]
    assert text == "one: not evaluated, and so not compared, was b with k = 2, 5 (a was trained with 5): give all the same --attempts"
    assert not any("--attempts" in text for text in compare([a, c], a).warnings)


def test_one_arm_is_no_comparison(runs):
    arms = read_arms([str(runs / "multi-seed0"), str(runs / "multi-seed1")])
    with pytest.raises(ConfigError, match=r"multi is the only arm \(2 seeds of one recipe\)"):
        compare(arms, arms[0])
    write_evaluation(runs / "else", {"other": {"solved": {1: [1, 0]}}})
    both = read_arms([str(runs / "single"), str(runs / "else")])
    with pytest.raises(ConfigError, match="no problem set was evaluated in all arms"):
        compare(both, both[0])
    write_evaluation(runs / "others", {"one": {"solved": {1: [1, 0]}}}, ids={"one": ["x", "y"]})
    both = read_arms([str(runs / "single"), str(runs / "others")])
    with pytest.raises(ConfigError, match="one: the arms share no problem of it"):
        compare(both, both[0])


def test_a_single_problem_is_counted_as_one(tmp_path):
    for name in "ab":
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [1]}}})
    arms = read_arms([str(tmp_path / name) for name in "ab"])
    assert "s: 1 problem is few, and only large differences can be seen on it; use 100 or more" in comparison_warnings(arms)


def test_quantities_that_an_arm_lacks_are_left_out(runs):
    data = arm_data(4)
    del data["one"]["passed"], data["one"]["tokens"]
    del data["one"]["solved"][3]
    write_evaluation(runs / "bare", data)
    arms = read_arms([str(runs / "multi-seed0"), str(runs / "bare")])
    assert shared_ks([(arms[0], ACCURACY), (arms[1], ACCURACY)], ["one"]) == [1, 2]
    assert shared_ks([(arms[0], ACCURACY), (arms[1], PASS)], ["one"]) == []
    assert {r.quantity for r in compare(arms, arms[0]).rows if r.baseline} == {"accuracy", "accuracy - baseline's pass@k"}
