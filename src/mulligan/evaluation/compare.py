"""Differences between arms, over seeds x problems and over several problem sets. Pure: arrays in, intervals out.

An *arm* is a method: one or several seeds (trained models), each evaluated on the same problems. `Sets` holds an arm's values,
one array `_SPC` per problem set: seed, problem, column. A column is whatever belongs together: the numbers of attempts, or a
control beside the normal condition.

The bootstrap resamples what another sceptic would draw anew: in each resample, the seeds of every arm (each arm its own, one
draw for all sets, since the same models play them all) and, within each set, the problems (one draw for all arms, which is
what pairs them). With one seed an arm this is the paired bootstrap over problems. It is the pigeonhole bootstrap of A. B. Owen (2007,
"The pigeonhole bootstrap", Annals of Applied Statistics 1(2)): where seeds differ little it is too wide (it counts the noise of a single
dialogue up to three times), and where they differ much, and are few, too narrow.

Suffixes: `_S` seed, `_P` problem, `_C` column, `_R` resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mulligan.evaluation.intervals import Interval, share_unseen

Floats = NDArray[np.float64]
Sets = Sequence[Floats]
Weighting = Literal["sets", "questions"]
"""Over several problem sets: the mean of the sets' means, or every question alike."""

RESAMPLES = 2000
MIN_SEEDS = 5
"""Below this, an interval over seeds is too narrow: S seeds show only (S - 1)/S of the variance between seeds, and few values badly."""

_CHUNK = 2_000_000  # problem counts made at once: 16 MB, whatever the number of problems


def differences(a: Sets, b: Sets, *, weighting: Weighting = "questions", bounds: tuple[float, float] | None = (-1.0, 1.0), seed: int = 0) -> list[Interval]:
    """Mean of a - b for each column, with 95 % intervals; `n` counts the problems of all sets.

    Args:
        a, b: each set's array `_SPC`; the numbers of seeds may differ, problems and columns must not.
        bounds: ends of the scale of a difference, for samples without variation (see `intervals`); None: no scale.

    Raises:
        ValueError: no sets, no problems, shapes that disagree, a value that is not finite.
    """
    a, b = _checked(a, b)
    means_C = _over_sets([x.mean((0, 1)) - y.mean((0, 1)) for x, y in zip(a, b, strict=True)], a, weighting)
    drawn_RC = _over_sets([x - y for x, y in zip(*_resampled([a, b], seed), strict=True)], a, weighting)
    flat_C = np.all([np.ptp(x, (0, 1)) + np.ptp(y, (0, 1)) == 0 for x, y in zip(a, b, strict=True)], axis=0)
    if len(a[0]) == len(b[0]) == 1:  # one seed each: the values may vary and their differences not
        flat_C |= np.all([np.ptp(x - y, (0, 1)) == 0 for x, y in zip(a, b, strict=True)], axis=0)
    return _intervals(means_C, drawn_RC, flat_C, a, weighting, bounds)


def means(a: Sets, *, weighting: Weighting = "questions", bounds: tuple[float, float] | None = (0.0, 1.0), seed: int = 0) -> list[Interval]:
    """An arm's mean for each column, with 95 % intervals; arguments as `differences`."""
    (a,) = _checked(a)
    means_C = _over_sets([x.mean((0, 1)) for x in a], a, weighting)
    drawn_RC = _over_sets(_resampled([a], seed)[0], a, weighting)
    return _intervals(means_C, drawn_RC, np.all([np.ptp(x, (0, 1)) == 0 for x in a], axis=0), a, weighting, bounds)


def ratios(tops: Sets, bottoms: Sets, *, weighting: Weighting = "questions", bounds: tuple[float, float] | None = (0.0, 1.0), seed: int = 0) -> list[Interval | None]:
    """Sum of the tops over sum of the bottoms for each column, over all seeds and problems of a set, then over the sets; arguments as `differences`.

    For rates whose parts a problem brings several of or none (attempts, tokens). None where some set has nothing to divide by. A resample of 0 / 0
    takes no part, one of something / 0 is infinite (tokens, and nothing solved for them), and so may be the upper bound.
    """
    tops, bottoms = _checked(tops, bottoms)
    per_set = [_divided(x.mean((0, 1)), y.mean((0, 1))) for x, y in zip(tops, bottoms, strict=True)]
    pairs = [np.concatenate([x, y], axis=2) for x, y in zip(tops, bottoms, strict=True)]
    columns = tops[0].shape[2]
    drawn_RC = _over_sets([_divided(x[:, :columns], x[:, columns:]) for x in _resampled([pairs], seed)[0]], tops, weighting)
    mean_C = _over_sets(per_set, tops, weighting)
    found: list[Interval | None] = []
    for c in range(columns):
        known_R = drawn_RC[~np.isnan(drawn_RC[:, c]), c]
        if not np.isfinite(mean_C[c]) or not len(known_R):
            found.append(None)
            continue
        behind = [(y[:, :, c] > 0).any(axis=0) for y in bottoms]  # problems that have something to divide by
        n = int(sum(b.sum() for b in behind))
        effective = 1 / sum(w**2 / b.sum() for w, b in zip(_set_weights(tops, weighting), behind, strict=True))
        flat = all(np.array_equal(x[:, :, c], ratio[c] * y[:, :, c]) for x, y, ratio in zip(tops, bottoms, per_set, strict=True))
        # Between two infinities there is nothing to interpolate.
        low, high = np.quantile(known_R, [0.025, 0.975], method="linear" if np.isfinite(known_R).all() else "inverted_cdf")
        found.append(_without_variation(float(mean_C[c]), n, effective, bounds) if flat else Interval(float(mean_C[c]), float(low), float(high), n))
    return found


def _divided(tops: Floats, bottoms: Floats) -> Floats:
    """0 / 0 is NaN, anything else / 0 infinite."""
    return np.divide(tops, bottoms, out=np.where(tops > 0, np.inf, np.nan), where=bottoms > 0)


def share_kept(a: Sets, *, weighting: Weighting = "questions", seed: int = 0) -> Interval | None:
    """What share of the rise from one attempt to K is left under a control: (c_K - c_1) / (n_K - n_1).

    Args:
        a: columns n_1, n_K (the normal condition), c_1, c_K (the control), on the same problems. Where no problem rises under the control, or
            every one does exactly as without it, what so many problems cannot have shown (see `intervals`) is taken as a share of the rise.

    Returns:
        None where the normal condition does not clearly rise (its 95 % interval reaches 0): there is nothing to keep, and the
        ratio has no meaning.
    """
    (a,) = _checked(a)
    drawn_RC = _over_sets(_resampled([a], seed)[0], a, weighting)
    rises_R = drawn_RC[:, 1] - drawn_RC[:, 0]
    if np.quantile(rises_R, 0.025) <= 0:
        return None
    mean_C = _over_sets([x.mean((0, 1)) for x in a], a, weighting)
    problems, rise = sum(x.shape[1] for x in a), float(mean_C[1] - mean_C[0])
    controlled = [x[:, :, 3] - x[:, :, 2] for x in a]
    for share, same in ((0.0, controlled), (1.0, [c - (x[:, :, 1] - x[:, :, 0]) for c, x in zip(controlled, a, strict=True)])):
        if not any(part.any() for part in same):  # no resample differs: what so many problems cannot have shown, as a share of the rise
            unseen = share_unseen(problems) / rise
            return Interval(share, share - unseen, share + unseen, problems)
    some_R = rises_R > 0
    shares_R = (drawn_RC[some_R, 3] - drawn_RC[some_R, 2]) / rises_R[some_R]
    low, high = np.quantile(shares_R, [0.025, 0.975])
    return Interval(float((mean_C[3] - mean_C[2]) / rise), float(low), float(high), problems)


def paired_seeds(a_SP: ArrayLike, b_SP: ArrayLike, *, bounds: tuple[float, float] | None = (-1.0, 1.0), seed: int = 0) -> Interval:
    """Mean of a - b over seeds x problems on one problem set: seeds resampled per arm, problems jointly.

    The two-level twin of `bootstrap_seeds`; the arms may have different numbers of seeds.

    Raises:
        ValueError: as `differences`.
    """
    a_SP, b_SP = np.asarray(a_SP, dtype=np.float64), np.asarray(b_SP, dtype=np.float64)
    if a_SP.ndim != 2 or b_SP.ndim != 2:
        raise ValueError(f"expected seeds x problems, got shapes {a_SP.shape} and {b_SP.shape}")
    return differences([a_SP[:, :, None]], [b_SP[:, :, None]], bounds=bounds, seed=seed)[0]


def _checked(*arms: Sets) -> list[list[Floats]]:
    arrays = [[np.asarray(x, dtype=np.float64) for x in arm] for arm in arms]
    for arm in arrays:
        if not arm or any(x.ndim != 3 or x.size == 0 for x in arm):
            raise ValueError("an interval needs problem sets, each seeds x problems x columns and none empty")
        if len({len(x) for x in arm}) > 1:
            raise ValueError("every problem set needs the same seeds: they are the same models")
        if not all(np.isfinite(x).all() for x in arm):
            raise ValueError("an interval needs finite values: leave problems without a value out first")
    if len({tuple(x.shape[1:] for x in arm) for arm in arrays}) > 1:
        raise ValueError("a paired difference needs all arms on the same problems and columns")
    return arrays


def _resampled(arms: Sequence[Sets], seed: int) -> list[list[Floats]]:
    """For each arm and set, the mean of each column in every resample, `_RC`."""
    weights = [_seed_weights(len(arm[0]), np.random.default_rng([seed, 1, i])) for i, arm in enumerate(arms)]
    found: list[list[Floats]] = [[] for _ in arms]
    for which in range(len(arms[0])):
        by_seed = _means_by_seed([arm[which] for arm in arms], np.random.default_rng([seed, 0, which]))
        for means_RSC, weight_RS, results in zip(by_seed, weights, found, strict=True):
            results.append(np.einsum("rs,rsc->rc", weight_RS, means_RSC))
    return found


def _seed_weights(seeds: int, rng: np.random.Generator) -> Floats:
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds


def _means_by_seed(arrays: Sequence[Floats], rng: np.random.Generator) -> list[Floats]:
    """Each array's mean over one joint draw of problems a resample, `_RSC`: how often each problem came, times the values."""
    n = arrays[0].shape[1]
    flat = [x.transpose(1, 0, 2).reshape(n, -1) for x in arrays]
    parts: list[list[Floats]] = [[] for _ in arrays]
    step = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn_RP = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        count_RP = np.bincount(drawn_RP.ravel(), minlength=rows * n).reshape(rows, n) / n
        for x, results in zip(flat, parts, strict=True):
            results.append(count_RP @ x)
    return [np.concatenate(p).reshape(RESAMPLES, len(x), x.shape[2]) for p, x in zip(parts, arrays, strict=True)]


def _set_weights(sets: Sets, weighting: Weighting) -> Floats:
    sizes = np.array([x.shape[1] for x in sets], dtype=np.float64)
    return np.full(len(sizes), 1 / len(sizes)) if weighting == "sets" else sizes / sizes.sum()


def _over_sets(values: Sequence[Floats], sets: Sets, weighting: Weighting) -> Floats:
    return np.tensordot(_set_weights(sets, weighting), np.stack(values), axes=1)


def _intervals(
    means_C: Floats, drawn_RC: Floats, flat_C: NDArray[np.bool_], sets: Sets, weighting: Weighting, bounds: tuple[float, float] | None
) -> list[Interval]:
    n = sum(x.shape[1] for x in sets)
    low_C, high_C = np.quantile(drawn_RC, [0.025, 0.975], axis=0)
    # Of as many problems as would give an unstratified mean the variance that this weighted one has.
    effective = 1 / sum(w**2 / x.shape[1] for w, x in zip(_set_weights(sets, weighting), sets, strict=True))
    return [
        _without_variation(float(means_C[c]), n, effective, bounds) if flat_C[c] else Interval(float(means_C[c]), float(low_C[c]), float(high_C[c]), n)
        for c in range(len(means_C))
    ]


def _without_variation(value: float, n: int, effective: float, bounds: tuple[float, float] | None) -> Interval:
    if bounds is None:
        return Interval(value, value, value, n)
    unseen = share_unseen(effective)
    return Interval(value, value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value), n)
