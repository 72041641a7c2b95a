"""Paired differences over seeds, problems and sets: literal numbers, a slow reference, coverage on simulated arms."""

import numpy as np
import pytest

from mulligan.evaluation import paired_difference
from mulligan.evaluation.compare import differences, means, ratios, share_kept, student_half_widths
from mulligan.evaluation.intervals import Interval, bootstrap_ratio, share_unseen, stretched
from mulligan.report.tables import number


def cells(*rows):
    """`_SPC` with one column."""
    return np.array(rows, dtype=float)[:, :, None]


def slow_resamples(arms, rng, resamples=4000, weighting="questions", joint_seeds=False):
    """Differences of two arms by drawing seeds and problems one by one, with loops and indices."""
    found = []
    sizes = [x.shape[1] for x in arms[0]]
    weights = [1 / len(sizes)] * len(sizes) if weighting == "sets" else [n / sum(sizes) for n in sizes]
    for _ in range(resamples):
        seeds = [rng.integers(0, len(arm[0]), len(arm[0])) for arm in arms]
        seeds = [seeds[0]] * 2 if joint_seeds else seeds
        total = 0.0
        for i, (n, weight) in enumerate(zip(sizes, weights, strict=True)):
            problems = rng.integers(0, n, n)
            a, b = (arm[i][drawn][:, problems, 0].mean() for arm, drawn in zip(arms, seeds, strict=True))
            if joint_seeds:  # S seeds drawn of S show (S - 1)/S of the variance between them
                whole, (every_a, every_b) = len(seeds[0]) / (len(seeds[0]) - 1), (arm[i][:, problems, 0].mean() for arm in arms)
                a, b = every_a + whole**0.5 * (a - every_a), every_b + whole**0.5 * (b - every_b)
            total += weight * (a - b)
        found.append(total)
    return np.array(found)


def ends(drawn, mean, half):
    """The resamples' interval, where it is narrower than Student's stretched to that."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = stretched(Interval(mean, low, high, 1), half, None)
    return found.low, found.high


def test_the_mean_is_exact_and_the_difference_is_paired():
    a, b = cells([1, 1, 1, 0]), cells([1, 0, 1, 0])
    (found,) = differences([a], [b], bounds=None)
    assert found.mean == pytest.approx(0.25)
    assert found.n == 4
    # problems resampled jointly: no resample can give less than 0, however the 0s and 1s of each arm lie
    assert found.low == 0.0
    # two arms that agree everywhere have no difference, although each alone varies
    (same,) = differences([a], [a])
    unseen = share_unseen(4)
    assert (same.mean, same.low, same.high) == pytest.approx((0.0, -unseen, unseen))


def test_one_seed_an_arm_is_the_paired_bootstrap():
    rng = np.random.default_rng(0)
    a, b = rng.random(300) < 0.6, rng.random(300) < 0.5
    (found,) = differences([cells(a)], [cells(b)])
    reference = paired_difference(a.astype(float), b.astype(float))
    assert found.mean == pytest.approx(reference.mean)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.008)


@pytest.mark.parametrize("weighting", ["sets", "questions"])
def test_against_direct_resampling(weighting):
    rng = np.random.default_rng(1)
    difficulty = [rng.random(40), rng.random(150)]

    def arm(seeds, skill):
        drawn = skill + 0.08 * rng.standard_normal(seeds)
        return [np.array([(rng.random(len(d)) < np.clip(d + s, 0, 1)).astype(float) for s in drawn])[:, :, None] for d in difficulty]

    a, b = arm(5, 0.1), arm(3, 0.0)
    (found,) = differences(a, b, weighting=weighting)
    slow = slow_resamples([a, b], np.random.default_rng(2), weighting=weighting)
    per_set = [x.mean() - y.mean() for x, y in zip(a, b, strict=True)]
    assert found.mean == pytest.approx(np.mean(per_set) if weighting == "sets" else (40 * per_set[0] + 150 * per_set[1]) / 190)
    assert (found.low, found.high) == pytest.approx(ends(slow, found.mean, student_half_widths(a, b, weighting=weighting)[0]), abs=0.012)
    assert found.n == 190


def test_seeds_are_one_draw_for_all_sets():
    """An arm of two seeds, one always right and one always wrong: over two sets its mean must still be able to be 0 and 1."""
    a = [np.array([np.ones(30), np.zeros(30)])[:, :, None]] * 2
    (found,) = means(a, weighting="sets")
    # with seeds drawn apart for each set, 0 and 1 would come once in 16 each instead of once in 4
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.0, 1.0))
    zero = [np.zeros((1, 30, 1))] * 2
    drawn = slow_resamples([a, zero], np.random.default_rng(0), weighting="sets")
    assert np.mean(drawn == 1.0) == pytest.approx(0.25, abs=0.03)


def test_draws_that_are_kept_are_those_that_are_drawn_anew(monkeypatch):
    """Whatever was drawn before, of as many problems or of others, and whether or not it is kept."""
    rng = np.random.default_rng(3)
    a, b = ([rng.random((3, n, 2)) for n in (20, 20, 35)] for _ in range(2))

    def found():
        return [means(a), means(a, seed=1), differences(a, b), differences(a, b, joint_seeds=True), differences(a, b, seed=1), ratios(a, b)]

    kept = found()
    assert found() == kept
    monkeypatch.setattr("mulligan.evaluation.compare._KEPT", 0)
    assert found() == kept
    assert means(a) != means(a, seed=1)


def test_columns_are_drawn_together_and_bounds_matter():
    values = np.stack([np.zeros((1, 20)), np.ones((1, 20)), np.full((1, 20), 12.0)], axis=2)
    zero, one, tokens = means([values])
    u = share_unseen(20)
    assert (zero.low, zero.high) == pytest.approx((0, u))
    assert (one.low, one.high) == pytest.approx((1 - u, 1))
    assert (means([values], bounds=None)[2].low, tokens.mean) == pytest.approx((12.0, 12.0))


def test_one_cell_of_many_does_not_show_more_than_none():
    """Where next to nothing varies, the bootstrap ends at zero on the side where nothing was seen: it claims what n problems cannot show."""
    before = np.zeros((3, 150, 1))
    after = before.copy()
    after[0, 7] = -1.0
    u = share_unseen(150)
    (none,), (one,) = differences([before], [before.copy()]), differences([after], [before])
    assert (none.low, none.high) == pytest.approx((-u, u))
    assert one.mean == pytest.approx(-1 / 450)
    assert one.high == pytest.approx(one.mean + u * (1 - one.mean)) and one.high > 0.02
    assert -0.02 < one.low < -0.01, "on the side where something was seen, the bootstrap"
    after[:, :40] = -1.0  # enough to see: the bootstrap alone
    assert differences([after], [before])[0].high == differences([after], [before], bounds=None)[0].high < 0


def test_a_rise_that_two_problems_of_fifteen_do_not_make_is_seen_to_vary():
    """Nearly all rise, two do not: the far end of the scale, that all would fall, is no reason to reach for it."""
    rise = np.ones((5, 15, 1))
    rise[:, :2] = 0.0
    (found,) = differences([rise], [np.zeros_like(rise)])
    assert found.low == differences([rise], [np.zeros_like(rise)], bounds=None)[0].low > 0.6
    one = cells([0.4] + [1.0] * 14)  # more than 1 of 15 makes, less than one that falls to -1
    assert differences([one], [np.zeros_like(one)])[0].low == differences([one], [np.zeros_like(one)], bounds=None)[0].low > 0.8


def test_what_is_kept_of_a_rise_of_half_the_problems_when_none_rises():
    half = np.array([[[0.0, float(i < 10), 0.0, 0.0] for i in range(20)]])
    found = share_kept([half])
    assert found.mean == 0.0
    assert (found.low, found.high) == pytest.approx((-share_unseen(20) / 0.5, share_unseen(20) / 0.5))


def test_values_that_all_differ_a_little_show_how_little():
    """Sixteen problems with pass@k between 24 and 28 %: seen on every one of them, not unseen."""
    close = cells([0.24 + 0.0025 * i for i in range(16)])
    assert means([close])[0].width < 0.02
    same = cells([0.24] * 9 + [0.24 + 0.0025 * i for i in range(7)])
    assert means([same])[0].high == pytest.approx(same.mean() + share_unseen(16) * (1 - same.mean())), "most of them are one value"


def test_arms_that_do_the_same_have_an_interval_though_their_values_vary():
    same = np.tile(np.arange(40.0)[None, :, None] % 2, (5, 1, 1))
    (found,) = differences([same], [same.copy()])
    assert (found.low, found.high) == pytest.approx((-share_unseen(40), share_unseen(40)))


def test_sets_without_variation_weigh_by_what_they_can_show():
    """0 of 10 and 0 of 1,000: every question alike, the bound is that of 1,010; set by set, mostly that of the ten."""
    a = [np.zeros((1, 10, 1)), np.zeros((1, 1000, 1))]
    assert means(a)[0].high == pytest.approx(share_unseen(1010))
    assert {type(end) for end in (means(a)[0].low, means(a)[0].high)} == {float}, "a table writes them as they are"
    assert means(a, weighting="sets")[0].high == pytest.approx(share_unseen(1 / (0.25 / 10 + 0.25 / 1000)))


def shared_seeds(rng, seeds=6, problems=120, own=0.02):
    """Two arms whose seed i begins from the same warm-up, good or bad: what it is worth is in both."""
    warm_up_S, difficulty_P = np.linspace(-0.3, 0.3, seeds), rng.random(problems)
    skills = [warm_up_S + own * rng.standard_normal(seeds) + better for better in (0.1, 0.0)]
    return [(rng.random((seeds, problems)) < np.clip(0.2 + 0.6 * difficulty_P + skill[:, None], 0, 1)).astype(float)[:, :, None] for skill in skills]


def test_seeds_that_belong_together_are_drawn_together():
    rng = np.random.default_rng(8)
    a, b = shared_seeds(rng)
    (joint,), (apart,) = differences([a], [b], joint_seeds=True), differences([a], [b])
    for found, together in ((joint, True), (apart, False)):
        direct = slow_resamples([[a], [b]], rng, joint_seeds=together)
        half = student_half_widths([a - b])[0] if together else student_half_widths([a], [b])[0]
        assert (found.low, found.high) == pytest.approx(ends(direct, found.mean, half), abs=0.02)
    assert joint.mean == apart.mean
    assert joint.width < 0.6 * apart.width
    assert differences([a[:1]], [b[:1]], joint_seeds=True) == differences([a[:1]], [b[:1]])  # one seed has no deviation
    assert joint.low > -0.02 > -0.1 > apart.low
    all_or_none = np.concatenate([np.ones((3, 40, 1)), np.zeros((1, 40, 1))])
    assert differences([all_or_none], [np.zeros((4, 40, 1))], joint_seeds=True)[0].high == 1.0  # not beyond the scale
    with pytest.raises(ValueError, match="drawn together must be as many"):
        differences([a], [b[:5]], joint_seeds=True)


T_QUANTILES = {1: 12.7062, 2: 4.30265, 3: 3.18245, 29: 2.04523}
"""Degrees of freedom -> the 97.5 % quantile of Student's distribution, from a table."""


def test_where_only_seeds_differ_the_interval_is_students():
    """Whether they are drawn with another arm's or not; as a mean, a difference, a ratio to ones, and a share of a rise."""
    seeds = np.array([0.2, 0.3, 0.4, 0.6])
    a = np.tile(seeds[:, None, None], (1, 30, 1))
    width = 2 * T_QUANTILES[3] * seeds.std(ddof=1) / 2
    nothing = np.zeros_like(a)
    found = [*means([a]), *ratios([a], [nothing + 1]), *(differences([a], [nothing], joint_seeds=together)[0] for together in (True, False))]
    for one in found:
        assert (one.mean, one.width) == pytest.approx((seeds.mean(), width), rel=1e-5)
        assert one.low < one.mean < one.high
    kept = share_kept([np.concatenate([nothing, nothing + 1, nothing, a], axis=2)])
    assert kept is not None
    assert kept.width == pytest.approx(width, rel=1e-5)
    # two seeds say nearly nothing; an interval ends where the scale does
    assert means([a[:2]])[0].width == pytest.approx(min(0.25 + T_QUANTILES[1] * 0.05, 1.0) - 0.0)


def test_where_only_problems_differ_the_interval_is_that_of_one_seed():
    rng = np.random.default_rng(3)
    values = rng.random(30)
    one, several = values[None, :, None], np.tile(values[None, :, None], (4, 1, 1))
    assert student_half_widths([several])[0] == pytest.approx(T_QUANTILES[29] * values.std(ddof=1) / 30**0.5)
    assert student_half_widths([one])[0] == 0  # of what another seed would give one says nothing
    (alone,), (found,) = means([one]), means([several])
    assert found.width == pytest.approx(max(alone.width, 2 * T_QUANTILES[29] * values.std(ddof=1) / 30**0.5), rel=0.02)


def test_an_interval_that_reaches_for_what_was_not_seen_is_not_the_narrower_for_seeds_that_differ():
    """Half a success among three seeds of sixteen problems, stretched to Student's interval, is no longer hardly anything, and says no more than none."""
    one = np.zeros((3, 16, 1))
    one[0, 0] = 0.5
    (found,), (none,) = means([one]), means([np.zeros_like(one)])
    assert found.high > none.high > 0.19


def test_the_noise_of_dialogues_is_counted_once():
    """Seeds and problems alike, every outcome a coin's: the means of seeds and of problems both hold all of the noise."""
    rng = np.random.default_rng(5)
    coins = (rng.random((400, 6, 50, 1)) < 0.5).astype(float)
    half = np.median([student_half_widths([x])[0] for x in coins])
    assert 0.85 < half / (1.96 * 0.5 / 300**0.5) < 1.35  # at least the seeds' own or the problems' own, of which the larger stands


def test_arms_of_different_numbers_of_seeds():
    rng = np.random.default_rng(4)
    common = rng.random(120)
    a = np.array([(rng.random(120) < np.clip(common + 0.2, 0, 1)).astype(float) for _ in range(3)])
    b = np.array([(rng.random(120) < common).astype(float) for _ in range(6)])
    (found,) = differences([a[:, :, None]], [b[:, :, None]])
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert 0 < found.low < found.mean < found.high


def test_what_cannot_be_paired_is_named():
    a = np.zeros((2, 5, 1))
    with pytest.raises(ValueError, match="same problems"):
        differences([a], [np.zeros((2, 6, 1))])
    with pytest.raises(ValueError, match="none empty"):
        differences([], [])
    with pytest.raises(ValueError, match="finite"):
        means([np.full((1, 3, 1), np.nan)])
    with pytest.raises(ValueError, match="same seeds"):
        means([a, np.zeros((3, 5, 1))])


def test_ratios_of_one_seed_are_the_bootstrap_of_a_ratio():
    rng = np.random.default_rng(5)
    bottoms = rng.integers(0, 4, 300).astype(float)
    tops = np.minimum(rng.integers(0, 3, 300), bottoms)
    (found,) = ratios([tops[None, :, None]], [bottoms[None, :, None]])
    expected = bootstrap_ratio(tops, bottoms)
    assert (found.mean, found.n) == (pytest.approx(expected.mean), expected.n)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.006), pytest.approx(expected.high, abs=0.006))


def test_ratios_against_direct_resampling():
    """Three seeds that differ, two sets of different sizes: seeds and problems drawn anew, one draw of seeds for both sets."""
    rng = np.random.default_rng(6)
    bottoms = [rng.integers(1, 5, (3, n, 1)).astype(float) for n in (40, 90)]
    tops = [rng.binomial(b.astype(int), np.array([0.2, 0.4, 0.6])[:, None, None]).astype(float) for b in bottoms]
    (found,) = ratios(tops, bottoms, weighting="sets")
    drawn = []
    for _ in range(4000):
        seeds = rng.integers(0, 3, 3)
        parts = []
        for x, y in zip(tops, bottoms, strict=True):
            problems = rng.integers(0, x.shape[1], x.shape[1])
            parts.append(x[seeds][:, problems].sum() / y[seeds][:, problems].sum())
        drawn.append(np.mean(parts))
    assert found.mean == pytest.approx(np.mean([x.sum() / y.sum() for x, y in zip(tops, bottoms, strict=True)]))
    linear = [(x - x.sum() / y.sum() * y) / y.mean() for x, y in zip(tops, bottoms, strict=True)]
    assert (found.low, found.high) == pytest.approx([min(max(end, 0), 1) for end in ends(drawn, found.mean, student_half_widths(linear, weighting="sets")[0])], abs=0.03)
    assert found.n == 130


def test_a_ratio_without_variation_or_without_anything_to_divide_by():
    bottoms = np.zeros((2, 50, 3))
    bottoms[0, :20, :2] = bottoms[1, :30, :2] = 1
    tops = np.zeros((2, 50, 3))
    tops[:, :, 1] = bottoms[:, :, 1]
    none, every, nothing = ratios([tops], [bottoms])
    assert (none.mean, none.low, none.n) == (0, 0, 30)
    assert none.high == pytest.approx(share_unseen(30))
    assert (every.mean, every.high) == (1, 1)
    assert every.low == pytest.approx(1 - share_unseen(30))
    assert nothing is None


def test_a_ratio_over_sets_without_variation_weighs_by_what_they_can_show():
    """As a mean of as many problems: ten of one set are half of what is said."""
    tops, ones = [np.zeros((1, n, 1)) for n in (10, 400)], [np.ones((1, n, 1)) for n in (10, 400)]
    for weighting in ("sets", "questions"):
        assert ratios(tops, ones, weighting=weighting) == means(tops, weighting=weighting)


def test_the_upper_bound_of_a_ratio_may_be_infinite():
    """Ten tokens a problem, and one of a hundred solved: more than a third of the resamples hold no solved one."""
    tops, bottoms = np.full((1, 100, 1), 10.0), np.zeros((1, 100, 1))
    bottoms[0, 0] = 1
    (found,) = ratios([tops], [bottoms], bounds=None)
    assert (found.mean, found.high) == (1000, np.inf)
    assert 200 <= found.low <= 500
    assert number(found).endswith(", ∞]")


def test_share_kept():
    rng = np.random.default_rng(5)
    draws = rng.random(400)
    one, many, blind = draws < 0.3, draws < 0.7, draws < 0.5
    kept = share_kept([np.stack([one, many, one, blind], axis=1)[None].astype(float)])
    assert kept is not None
    assert kept.mean == pytest.approx((blind.mean() - one.mean()) / (many.mean() - one.mean()))
    assert 0.35 < kept.low < kept.mean < kept.high < 0.65
    assert share_kept([np.stack([one, one, one, many], axis=1)[None].astype(float)]) is None  # no rise: no share of it


def test_a_share_that_nothing_varies_in_is_not_certain():
    one, many = np.zeros(15), np.ones(15)
    none = share_kept([np.stack([one, many, one, one], axis=1)[None].repeat(2, 0)])
    every = share_kept([np.stack([one, many, one, many], axis=1)[None].repeat(2, 0)])
    assert none is not None and every is not None
    z2 = 1.959964**2
    assert (none.mean, none.high) == (0.0, pytest.approx(z2 / (15 + z2), abs=1e-6))
    assert (every.mean, every.low) == (1.0, pytest.approx(1 - z2 / (15 + z2), abs=1e-6))


def test_coverage():
    """How often the interval holds the true difference, over simulated experiments: with problems alone; with eight seeds that hardly differ,
    where it may be too wide; with eight and with three that differ by 10 points, where it may not be too narrow."""
    rng = np.random.default_rng(6)
    held = {}
    runs = 150
    for seeds, deviation in ((1, 0.0), (8, 0.0), (8, 0.1), (3, 0.1)):
        found = []
        for i in range(runs):
            difficulty = rng.random(100)
            skills = (0.05 + deviation * rng.standard_normal(seeds), deviation * rng.standard_normal(seeds))
            a, b = ((rng.random((seeds, 100)) < np.clip(0.15 + 0.6 * difficulty + skill[:, None], 0, 1)).astype(float) for skill in skills)
            found += differences([a[:, :, None]], [b[:, :, None]], seed=i)
        held[seeds, deviation] = np.mean([one.low <= 0.05 <= one.high for one in found])
    assert 0.90 <= held[1, 0.0] < 1.0
    assert held[8, 0.0] >= 0.95
    assert 0.88 <= held[8, 0.1] <= 0.99
    assert held[3, 0.1] >= 0.92
