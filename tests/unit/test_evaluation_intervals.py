"""Intervals against Wilson's formula, known coverage and known variances; pass@k against enumeration."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.evaluation import Interval, bootstrap_mean, bootstrap_ratio, bootstrap_statistics, paired_difference, pass_at_k
from mulligan.evaluation.intervals import enough_resamples, less, share_unseen, stretched


def wilson(c: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    p, d = c / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return (p + z * z / (2 * n)) / d - half, (p + z * z / (2 * n)) / d + half


@pytest.mark.parametrize("n", [1, 5, 30, 500])
@pytest.mark.parametrize("value", [0, 1])
def test_no_variation_gives_wilsons_interval(n, value):
    interval = bootstrap_mean([value] * n)
    low, high = wilson(value * n, n)
    assert interval.mean == value
    assert interval.n == n
    assert interval.low == pytest.approx(max(low, 0), abs=1e-12)
    assert interval.high == pytest.approx(min(high, 1), abs=1e-12)


def test_no_variation_literal_numbers():
    assert bootstrap_mean(np.zeros(40)).high == pytest.approx(0.0876216, abs=1e-7)
    assert bootstrap_mean(np.zeros(40), level=0.90).high == pytest.approx(0.0633533, abs=1e-6)
    same = paired_difference(np.ones(40), np.ones(40))
    assert (same.mean, same.low, same.high) == pytest.approx((0, -0.0876216, 0.0876216), abs=1e-7)
    half = bootstrap_mean([0.5] * 40)
    assert (half.low, half.high) == pytest.approx((0.5 - 0.0438108, 0.5 + 0.0438108), abs=1e-7)
    tokens = bootstrap_mean([17.0] * 40, bounds=None)
    assert tokens == Interval(17.0, 17.0, 17.0, 40)


def test_width_agrees_with_the_normal_approximation():
    values = np.array([1.0] * 120 + [0.0] * 280)
    interval = bootstrap_mean(values, resamples=20_000)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert interval.mean == pytest.approx(0.3)
    assert interval.low == pytest.approx(0.3 - half, abs=0.004)
    assert interval.high == pytest.approx(0.3 + half, abs=0.004)
    narrow = bootstrap_mean(values, level=0.5, resamples=20_000)
    assert narrow.width == pytest.approx(interval.width * 0.6745 / 1.96, rel=0.12)


def test_coverage_on_a_simulated_binomial():
    rng = np.random.default_rng(11)
    began, covered, trials = time.perf_counter(), 0, 600
    for trial in range(trials):
        interval = bootstrap_mean(rng.random(120) < 0.4, resamples=600, seed=trial)
        covered += interval.low <= 0.4 <= interval.high
    assert 0.925 <= covered / trials <= 0.975
    assert time.perf_counter() - began < 20


def test_same_seed_same_interval_other_seed_another():
    values = np.random.default_rng(0).random(60)
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values[::-1], seed=4).low == pytest.approx(bootstrap_mean(values, seed=4).low, abs=1e-12)


def test_resamples_in_chunks_give_the_same_interval(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("mulligan.evaluation.intervals._CHUNK", 50 * 7)
    assert bootstrap_mean(values) == whole


def test_pairing_takes_the_problems_difficulty_out():
    rng = np.random.default_rng(2)
    difficulty = rng.random(300)
    b = (difficulty < 0.5).astype(float)
    a = (difficulty < 0.56).astype(float)  # solves all that b solves, and some more
    paired = paired_difference(a, b)
    assert paired.mean == pytest.approx(a.mean() - b.mean())
    assert paired.low > 0
    assert paired.width < 0.6 * (bootstrap_mean(a).width + bootstrap_mean(b).width) / 2
    with pytest.raises(ValueError, match="same problems"):
        paired_difference(a, b[:-1])


def test_few_problems_are_resampled_more_often():
    """The ends of an interval over 16 problems hardly move with the seed of the draws."""
    assert [enough_resamples(n) for n in (1, 16, 100, 500, 1_000, 10_000)] == [50_000, 50_000, 50_000, 10_000, 5_000, 2_000]
    values = np.linspace(0, 1, 16) ** 2
    lows = [bootstrap_mean(values, seed=seed).low for seed in range(8)]
    coarse = [bootstrap_mean(values, seed=seed, resamples=2_000).low for seed in range(8)]
    assert np.std(lows) < 0.4 * np.std(coarse)


def test_an_interval_is_stretched_in_its_own_shape():
    found = Interval(0.4, 0.3, 0.7, 20)
    assert stretched(found, 0.2, (0.0, 1.0)) == found  # as wide as that already
    wide = stretched(found, 0.3, (0.0, 1.0))
    assert (wide.mean, wide.low, wide.high, wide.n) == (0.4, pytest.approx(0.25), pytest.approx(0.85), 20)
    assert stretched(found, 1.0, (0.0, 1.0)) == Interval(0.4, 0.0, 1.0, 20)
    assert stretched(found, 1.0, None).high == pytest.approx(1.9)
    for still in (Interval(0.0, 0.0, 0.0, 20), Interval(3.0, 1.0, math.inf, 20)):
        assert stretched(still, 5.0, None) == still


def test_rounding_decides_nothing():
    assert less(0.1, 0.2) and not less(0.2, 0.2) and not less(0.3, 0.1 + 0.2) and not less(0.3 - 1e-12, 0.3)


def test_ratio_resamples_problems_not_attempts():
    # 50 problems with 10 attempts each, all alike within a problem: 500 attempts, but only 50 independent facts
    hits, totals = np.array([10, 0] * 25), np.array([10] * 50)
    clustered = bootstrap_ratio(hits, totals, resamples=8000)
    naive = bootstrap_mean([1.0, 0.0] * 250, resamples=8000)
    assert clustered.mean == naive.mean == 0.5
    assert clustered.width == pytest.approx(naive.width * math.sqrt(10), rel=0.1)
    skipping = bootstrap_ratio([1, 0, 2, 0], [2, 0, 2, 0])
    assert (skipping.mean, skipping.n) == (0.75, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([]), "at least one problem"),
        (lambda: bootstrap_mean([0.0, math.nan]), "finite"),
        (lambda: bootstrap_mean([[0.0, 1.0]]), "dimension"),
        (lambda: bootstrap_mean([0.0, 1.0], level=1.5), "level"),
        (lambda: bootstrap_mean([0.0, 0.0], level=0), "level"),
        (lambda: bootstrap_mean([0.0, 1.0], resamples=0), "resamples"),
        (lambda: bootstrap_ratio([1.0], [0.0]), "at least one problem"),
        (lambda: bootstrap_ratio([1.0], [-1.0]), "negative"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_intervals_lie_on_the_scale_and_around_the_mean(values):
    interval = bootstrap_mean(values, resamples=200)
    assert -1e-9 <= interval.low <= interval.high <= 1 + 1e-9
    assert interval.mean == pytest.approx(np.mean(values))
    assert Interval.from_json(interval.to_json()) == interval


def test_overlap():
    assert Interval(0.2, 0.1, 0.3, 9).overlaps(Interval(0.4, 0.3, 0.5, 9))
    assert not Interval(0.2, 0.1, 0.29, 9).overlaps(Interval(0.4, 0.3, 0.5, 9))


# ---------------------------------------------------------------------------------------------------------------- pass@k


def by_enumeration(n: int, c: int, k: int) -> float:
    picks = list(itertools.combinations([True] * c + [False] * (n - c), k))
    return sum(any(pick) for pick in picks) / len(picks)


def test_pass_at_k_equals_enumeration():
    for n in range(1, 8):
        for k in range(1, n + 1):
            found = pass_at_k([n] * (n + 1), range(n + 1), k)
            assert found == pytest.approx([by_enumeration(n, c, k) for c in range(n + 1)], abs=1e-12)


def test_pass_at_k_literal_numbers():
    assert pass_at_k(5, 2, 1)[0] == pytest.approx(0.4)
    assert pass_at_k(5, 2, 3)[0] == pytest.approx(0.9)
    assert pass_at_k([10, 4], [3, 0], 2) == pytest.approx([1 - 21 / 45, 0.0])
    assert pass_at_k(100_000, 1, 50_000)[0] == pytest.approx(0.5)  # binomials of this size overflow any float
    assert len(pass_at_k(np.zeros(0, dtype=int), np.zeros(0, dtype=int), 3)) == 0


def test_pass_at_k_is_unbiased():
    n, p, k = 12, 0.3, 4
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert float(np.dot(weights, pass_at_k(n, range(n + 1), k))) == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_pass_at_k_rejects_what_cannot_be_estimated():
    with pytest.raises(ValueError, match="pass@5 needs at least 5 samples per problem, got 4"):
        pass_at_k([8, 4], [1, 1], 5)
    with pytest.raises(ValueError, match="k must be at least 1"):
        pass_at_k(4, 1, 0)
    with pytest.raises(ValueError, match="between 0 and the number of samples"):
        pass_at_k(4, 5, 1)


@given(st.integers(1, 60), st.data())
@settings(max_examples=100, deadline=None)
def test_pass_at_k_rises_with_k_and_with_c(n, data):
    c = data.draw(st.integers(0, n))
    curve = [pass_at_k(n, c, k)[0] for k in range(1, n + 1)]
    assert all(0 <= v <= 1 for v in curve)
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(curve))
    assert curve[0] == pytest.approx(c / n)
    if c < n:
        assert pass_at_k(n, c + 1, 1)[0] > curve[0]


# -------------------------------------------------------------------------------------------------- figures of any kind


def test_a_mean_as_a_statistic_has_the_interval_of_the_mean():
    values = np.random.default_rng(5).random(80)
    found = bootstrap_statistics(lambda w: np.stack([w @ values / w.sum(axis=1), w @ (1 - values) / 80], axis=1), 80, bounds=[(0, 1), (0, 1)], resamples=8000)
    plain = bootstrap_mean(values, resamples=8000)
    assert (found[0].mean, found[0].n) == (pytest.approx(plain.mean), 80)
    assert (found[0].low, found[0].high) == pytest.approx((plain.low, plain.high), abs=0.004)
    assert found[1].low == pytest.approx(1 - found[0].high)


def test_statistics_without_variation_follow_the_same_rule():
    found = bootstrap_statistics(lambda w: np.zeros((len(w), 2)), 40, bounds=[(0.0, 1.0), None])
    assert (found[0].mean, found[0].low, found[0].high) == pytest.approx((0, 0, 0.0876216), abs=1e-7)
    assert found[1] == Interval(0.0, 0.0, 0.0, 40)


def test_statistics_that_do_not_exist():
    values = np.zeros(30)
    values[0] = 1.0

    def statistics(w):
        there = w @ values > 0  # in 64 % of the resamples
        return np.stack([np.where(there, 1.0, np.nan), np.full(len(w), np.nan), np.where(w[:, 1] < 4, w[:, 1], np.nan)], axis=1)

    found = bootstrap_statistics(statistics, 30, bounds=[None] * 3)
    assert found[:2] == [None, None]
    assert found[2] is not None, "fewer than 5 % of the resamples draw a problem four times"
    assert found[2].high == 3


def test_a_single_success_leaves_room_above():
    """1 of 150: on the far side at least what 0 of 150 would leave, and no more on the near one, where the scale ends."""
    found = bootstrap_mean([1.0] + [0.0] * 149)
    assert found.low == 0.0 and found.high >= 2 / 150
    third = bootstrap_mean([1 / 3] + [0.0] * 149, bounds=(-1.0, 1.0))
    assert third.low == pytest.approx(third.mean - share_unseen(150) * (third.mean + 1))
    assert bootstrap_mean([1 / 3] + [0.0] * 149, bounds=None).low == 0.0
