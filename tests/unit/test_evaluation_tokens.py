"""Accuracy at equal tokens: the rival's curves against every order of the samples, and the comparison by hand."""

import itertools

import numpy as np
import pytest
from fake_dialogues import FakePlayer, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.evaluation import Interval, evaluate
from mulligan.evaluation.samples import Tally, fold_of
from mulligan.evaluation.tokens import equal_tokens_of_seeds, spend, stopping_curves


def tally_of(samples: list[list[tuple[bool, int]]]) -> Tally:
    """One list of (right, tokens) a problem."""

    def count(value):
        return np.array([value(p) for p in samples])

    return Tally(
        count(len), count(lambda p: sum(c for c, _ in p)), count(lambda p: float(sum(t for c, t in p if c))), count(lambda p: float(sum(t for c, t in p if not c)))
    )


def by_every_order(samples: list[tuple[bool, int]], m: int) -> tuple[float, float]:
    """Mean pass and cost, over all orders, of drawing up to m samples and stopping at the first right one."""
    passed, cost = [], []
    for order in itertools.permutations(samples):
        drawn = list(order[:m])
        first = next((i for i, (right, _) in enumerate(drawn) if right), None)
        passed.append(first is not None)
        cost.append(sum(t for _, t in (drawn if first is None else drawn[: first + 1])))
    return float(np.mean(passed)), float(np.mean(cost))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_curves_equal_the_mean_over_every_order(samples):
    passed_Pm, costs_Pm = stopping_curves(tally_of([samples]), len(samples))
    for m in range(len(samples) + 1):
        assert (passed_Pm[0, m], costs_Pm[0, m]) == pytest.approx(by_every_order(samples, m))


def test_curves_by_hand():
    # two samples, the right one of 3 tokens and the wrong one of 5: right first (3), or wrong first (5 + 3)
    passed_Pm, costs_Pm = stopping_curves(tally_of([[(True, 3), (False, 5)], [(False, 4), (False, 6)]]), 2)
    assert passed_Pm.tolist() == [[0, 0.5, 1], [0, 0, 0]]
    assert costs_Pm.tolist() == [[0, 4, 5.5], [0, 5, 10]]


def test_spending_a_sum():
    costs, passed = np.array([0.0, 4.0, 6.0]), np.array([0.0, 0.5, 0.75])
    for tokens, expected in ((0, (0, 0, True)), (2, (0.5, 0.25, True)), (4, (1, 0.5, True)), (5, (1.5, 0.625, True)), (6, (2, 0.75, True)), (7, (2, 0.75, False))):
        assert tuple(float(x) for x in spend(costs, passed, np.float64(tokens))) == expected
    # all is solved for 4 tokens: more cannot be spent, and need not be
    assert tuple(float(x) for x in spend(np.array([0.0, 4.0, 4.0]), np.array([0.0, 1.0, 1.0]), np.float64(9))) == (1, 1, True)
    several = spend(np.stack([costs, 2 * costs]), np.stack([passed, passed]), np.array([5.0, 4.0]))
    assert several[0].tolist() == [1.5, 0.5]


def evaluation(script, samples, n, *, problems=20, attempts=(1, 2), temperatures=(1.0,)):
    player = FakePlayer(lambda i, k, g: samples(i, g, player.temperature) if len(player.calls) > len(attempts) else script(i, k))
    return evaluate(player, [problem(i) for i in range(problems)], name="x", attempts=attempts, samples=n, temperatures=temperatures)


def test_the_comparison_by_hand():
    """Attempt t of a scripted dialogue has t + 1 tokens, and so has a sample: 2 tokens.

    Half the problems are right at the second attempt, the others never: 2 tokens with one attempt, 2 + 3 = 5 with two. Of 4 samples of
    every problem one is right. The rival's costs are 2, 2 + 2 x 3/4 = 3.5, 3.5 + 2 x 2/4 = 4.5 and 4.5 + 2/4 = 5 for 1 to 4 samples.
    """
    result = evaluation(lambda i, k: ["w", "c"][:k] if i % 2 else ["w"] * k, lambda i, g, t: ["c"] if g == 0 else ["w"], 4)
    one, two = result.equal_tokens[1], result.equal_tokens[2]
    assert (one.tokens, one.samples, one.passed.mean, one.gain.mean) == pytest.approx((2, 1, 0.25, -0.25))
    assert (two.tokens, two.samples, two.passed.mean, two.gain.mean) == pytest.approx((5, 4, 1.0, -0.5))
    assert result.to_json()["equal_tokens"]["2"].keys() == {"tokens", "samples", "pass", "gain"}
    # at equal attempts the same dialogues stand level with their rival
    assert result.gain[2].mean == pytest.approx(0.5 - 0.5)


def test_between_two_whole_numbers():
    """With 8 samples, one of them right, the costs are 2, 3.75, 5.25: the 5 tokens of two attempts buy 2 + 5/6 samples."""
    result = evaluation(lambda i, k: ["w", "c"][:k], lambda i, g, t: ["c"] if g == 0 else ["w"], 8)
    assert result.equal_tokens[2].samples == pytest.approx(2 + 1.25 / 1.5)
    assert result.equal_tokens[2].passed.mean == pytest.approx((2 + 1.25 / 1.5) / 8)


def test_more_than_all_samples_cost_is_left_out_and_said():
    result = evaluation(lambda i, k: ["w"] * k, lambda i, g, t: ["w"], 2)
    assert sorted(result.equal_tokens) == [1]
    assert any("no comparison at equal tokens for k = 2: the dialogues spend more than 2 samples do" in w for w in result.warnings)


def test_the_temperature_is_chosen_on_other_problems():
    folds = [fold_of(f"p{i}") for i in range(20)]
    result = evaluation(lambda i, k: ["w"] * k, lambda i, g, t: ["c"] if (t == 0.6) == bool(folds[i]) else ["w"], 4, temperatures=(0.6, 1.2))
    assert [equal.passed.mean for equal in result.equal_tokens.values()] == [0.0, 0.0]
    alike = evaluation(lambda i, k: ["w"] * k, lambda i, g, t: ["c"] if t == 0.6 else ["w"], 4, temperatures=(0.6, 1.2))
    assert [equal.passed.mean for equal in alike.equal_tokens.values()] == [1.0, 1.0]


def test_ungradable_problems_take_no_part():
    def script(i, k):
        return ["u"] if i == 0 else ["c"]

    def samples(i, g, t):
        return ["u"] if i == 1 or (i == 2 and g == 0) else ["c"] if g == 1 else ["w"]

    result = evaluation(script, samples, 4, problems=10)
    assert result.equal_tokens[1].passed.n == 8  # without 0 and 1; problem 2 has 3 samples, of which one is right
    assert result.equal_tokens[1].passed.mean == pytest.approx((7 / 4 + 1 / 3) / 8)


def test_intervals_cover_the_truth():
    """Samples are right with probability 0.3 and have 2 tokens; a dialogue solves half the problems at its second attempt, for 5 tokens.

    The rival's cost of m samples is 2 (1 - 0.7^m) / 0.3: the 5 tokens lie between m = 3 (4.38) and 4 (5.0660).
    """
    costs = [2 * (1 - 0.7**m) / 0.3 for m in range(5)]
    share = (5 - costs[3]) / (costs[4] - costs[3])
    truth = 0.5 - ((1 - share) * (1 - 0.7**3) + share * (1 - 0.7**4))
    covered, trials = 0, 150
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        result = evaluation(
            lambda i, k: ["w", "c"][:k] if k == 2 and rng.random() < 0.5 else ["w"] * k,  # noqa: B023
            lambda i, g, t: ["c"] if rng.random() < 0.3 else ["w"],  # noqa: B023
            16,
            problems=50,
        )
        covered += result.equal_tokens[2].gain.low <= truth <= result.equal_tokens[2].gain.high
    assert 0.88 <= covered / trials <= 0.99


# ------------------------------------------------------------------------------------------------------------ several seeds

FOLDS = np.array([0, 1] * 10)


def right_in(c: int, n: int = 8) -> dict[float, Tally]:
    """Twenty problems, each with c right ones of n samples of 2 tokens, at one temperature."""
    return {1.0: tally_of([[(i < c, 2) for i in range(n)]] * 20)}


def dialogues(solved: list[float], tokens: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """For each seed the share of problems solved with the one budget, and the tokens of every problem; `_SKP`."""
    solved_SKP = np.stack([[(np.arange(20) < 20 * share).astype(float)] for share in solved])
    return solved_SKP, np.stack([np.full((1, 20), t) for t in tokens])


def test_each_seed_is_compared_with_itself_and_spends_as_much_as_itself():
    """2 tokens buy the first seed's sampler 1 sample, of which 1/8 is right; the second is right at once and needs no more."""
    (equal,) = equal_tokens_of_seeds(*dialogues([0.5, 1.0], [2.0, 6.0]), [right_in(1), right_in(8)], FOLDS, paired=True)
    assert equal is not None
    assert (equal.tokens, equal.samples) == pytest.approx((4, 1)), "what is solved at once takes one sample, however many were drawn"
    assert equal.passed.mean == pytest.approx((1 / 8 + 1) / 2)
    assert equal.gain.mean == pytest.approx((3 / 8 + 0) / 2)
    # two seeds so different say nothing of a third: by Student's interval, which resamples of these two (1/8 to 1) would be narrower than
    assert (equal.passed.low, equal.passed.high, equal.gain.low, equal.gain.high) == (0, 1, -1, 1)


def test_seeds_that_differ_at_equal_tokens_have_students_interval():
    """Four seeds that solve 0.4, 0.5, 0.5 and 0.6 of every problem, for tokens that buy each one sample, of which 1/8 is right."""
    seeds = [np.full((1, 20), share) for share in (0.4, 0.5, 0.5, 0.6)]
    (equal,) = equal_tokens_of_seeds(np.stack(seeds), np.full((4, 1, 20), 2.0), [right_in(1)] * 4, FOLDS, paired=True)
    assert equal is not None
    assert (equal.gain.mean, equal.gain.width) == pytest.approx((3 / 8, 2 * 3.18245 * np.std([0.4, 0.5, 0.5, 0.6], ddof=1) / 2), rel=1e-5)


def test_every_seed_of_a_rival_may_spend_what_the_arm_does_on_average():
    """2 and 6 tokens: each of the rival's seeds may spend 4, of which one is right in one of eight samples: costs 2, 3.75, 5.25."""
    (equal,) = equal_tokens_of_seeds(*dialogues([0.5, 1.0], [2.0, 6.0]), [right_in(1), right_in(8), right_in(8)], FOLDS, paired=False)
    assert equal is not None
    m = 2 + 0.25 / 1.5
    assert equal.samples == pytest.approx((m + 1 + 1) / 3)
    assert equal.passed.mean == pytest.approx((m / 8 + 1 + 1) / 3)
    assert equal.gain.mean == pytest.approx(0.75 - (m / 8 + 2) / 3)
    assert (equal.passed.low, equal.passed.high) == (0, 1), "Student's interval of three seeds of which one is so far from the others"


def test_one_seed_of_several_is_what_an_evaluation_finds():
    result = evaluation(lambda i, k: ["w", "c"][:k] if i % 2 else ["w"] * k, lambda i, g, t: ["c"] if g == 0 else ["w"], 4)
    sampled = result.sampled
    assert sampled is not None
    solved_SKP, tokens_SKP = (np.stack([*curve.values()])[None] for curve in (result.solved, result.curves.tokens))
    for paired in (True, False):
        found = equal_tokens_of_seeds(solved_SKP, tokens_SKP, [sampled.tallies], sampled.folds_P, paired=paired)
        assert [(e.tokens, e.samples, e.gain.mean) for e in found if e] == [(e.tokens, e.samples, e.gain.mean) for e in result.equal_tokens.values()]


def test_a_seed_that_spends_more_than_its_samples_cost_leaves_no_figure():
    assert equal_tokens_of_seeds(*dialogues([1.0, 1.0], [2.0, 90.0]), [right_in(1), right_in(0)], FOLDS, paired=True) == [None]
    assert equal_tokens_of_seeds(*dialogues([1.0, 1.0], [2.0, 90.0]), [right_in(0), right_in(1)], FOLDS, paired=True) != [None], "eight samples solve it, for less"


def test_each_seed_is_sampled_at_its_own_temperatures():
    """The first seed's good temperature is not taken away because the second was not sampled at it."""
    first = {1.0: right_in(0)[1.0], 0.6: right_in(8)[1.0]}
    (equal,) = equal_tokens_of_seeds(*dialogues([0.5, 0.5], [2.0, 2.0]), [first, right_in(0)], FOLDS, paired=True)
    assert equal is not None
    assert equal.passed.mean == pytest.approx((1 + 0) / 2)


def simulated(trial: int, *, seeds: int, copies: int = 1, problems: int = 60) -> Interval:
    """Gain with 2 tokens, which buy one sample: each seed solves a problem with a chance of its own, 0.6 +- 0.2, each sample with half of it. `copies` of each seed."""
    rng = np.random.default_rng(trial)
    skill = np.clip(rng.normal(0.6, 0.2, size=seeds), 0, 1)
    solved_SKP = (rng.random((seeds, 1, problems)) < skill[:, None, None]).astype(float)
    rights = [rng.binomial(8, one / 2, size=problems) for one in skill]
    tallies = [{1.0: Tally(np.full(problems, 8), r, 2.0 * r, 2.0 * (8 - r))} for r in rights] * copies
    (equal,) = equal_tokens_of_seeds(np.tile(solved_SKP, (copies, 1, 1)), np.full((seeds * copies, 1, problems), 2.0), tallies, np.arange(problems) % 2, paired=True)
    assert equal is not None
    return equal.gain


def test_the_interval_of_several_seeds_covers_the_truth():
    """Ten seeds, whose gains have a standard deviation of 0.1: their mean alone varies within +- 0.06, and problems come on top. No wider than twice that."""
    found = [simulated(trial, seeds=10) for trial in range(40)]
    assert np.mean([one.low <= 0.3 <= one.high for one in found]) >= 0.9
    assert 0.13 < np.mean([one.width for one in found]) < 0.22


def test_problems_are_resampled_as_well_as_seeds():
    """Of seeds that are alike only the problems are left to vary: as wide as one of them, which has no seeds to resample."""
    alike, one = (np.mean([simulated(trial, seeds=1, copies=copies).width for trial in range(6)]) for copies in (4, 1))
    assert alike == pytest.approx(one, rel=0.1)
    assert one > 0.15
