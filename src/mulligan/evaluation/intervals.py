"""Confidence intervals over problems: the percentile bootstrap, with a rule for samples that show no variation. (Over seeds as well: `compare`.)

Suffixes: `_P` problem, `_S` seed, `_R` resample, `_C` column.

**Samples that vary little.** When every value is the same (0 of n solved, n of n, no difference anywhere) the bootstrap
interval has no width, which claims certainty that n problems cannot give; and when one of n problems differs a little, the interval ends at
zero on the side where nothing was seen. There the question is what share u of problems may behave otherwise although none of n did; Wilson's
score interval for 0 of n answers u = z^2 / (n + z^2). A deviating problem can at most take a value at the end of the scale. So where most
problems share one value (`alike`), an interval [low, high] around v reaches down to v - u (v - lowest) at least if v - low is less than one of n
problems solved or not makes it, 1 / n (or at the scale's end, if that is nearer: (v - lowest) / n), and likewise up (`reach`). For 0 of n and n of n this *is* Wilson's interval
(E. B. Wilson, 1927).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

_CHUNK = 4_000_000  # draws made at once: 32 MB, whatever the number of problems
LEAST, MOST, _DRAWS = 2_000, 50_000, 5_000_000
"""Resamples, and how many draws they may take together."""


def enough_resamples(draws: int) -> int:
    """How many resamples of so many draws each: few problems get `MOST`, of which an interval's ends have a Monte Carlo error of 0.3 % of its width (standard
    deviation, normal case), more of them as many as `_DRAWS` allow, and at least `LEAST`, of which it is 1.5 %."""
    return min(max(_DRAWS // draws, LEAST), MOST)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence bounds, of which the upper may be infinite (null in JSON, which has no infinity); `n` problems went into it."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        return {"mean": self.mean, "low": self.low, "high": None if self.high == math.inf else self.high, "n": self.n}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Interval:
        return cls(float(table["mean"]), float(table["low"]), math.inf if table["high"] is None else float(table["high"]), int(table["n"]))

    @classmethod
    def exact(cls, value: float) -> Interval:
        """A value known by computation (a bound): no width, no problems."""
        return cls(value, value, value, 0)

    def above(self, value: float) -> Interval:
        """How far above a value that is known exactly."""
        return Interval(self.mean - value, self.low - value, self.high - value, self.n)

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high

    @property
    def width(self) -> float:
        return self.high - self.low


def bootstrap_mean(
    values_P: ArrayLike, *, level: float = 0.95, resamples: int | None = None, seed: int = 0, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> Interval:
    """Mean of one value per problem, with the percentile bootstrap interval over problems (Efron, 1979).

    Args:
        values_P: one finite value per problem, in the unit of the result.
        bounds: the scale's ends, used only where values hardly vary (see the module's text); None: no scale (tokens), in which
            case equal values give an interval without width.
        seed: the same values and seed give the same interval.

    Raises:
        ValueError: no values, a value that is not finite, or a level outside (0, 1).
    """
    values_P = _checked(values_P, 1)
    n = len(values_P)
    return bootstrap_ratio(values_P, np.ones(n), level=level, resamples=resamples, seed=seed, bounds=bounds)


def paired_difference(a_P: ArrayLike, b_P: ArrayLike, *, level: float = 0.95, resamples: int | None = None, seed: int = 0) -> Interval:
    """Mean of a - b over problems that both saw, in the same order; values in [0, 1], so differences in [-1, 1].

    Resampling problems (not the two arms apart) keeps what is common to both arms, a problem's difficulty, out of the interval.
    """
    a_P, b_P = _checked(a_P, 1), _checked(b_P, 1)
    if len(a_P) != len(b_P):
        raise ValueError(f"{len(a_P)} values against {len(b_P)}: a paired difference needs both arms on the same problems")
    return bootstrap_mean(a_P - b_P, level=level, resamples=resamples, seed=seed, bounds=(-1.0, 1.0))


def bootstrap_ratio(
    numerator_P: ArrayLike,
    denominator_P: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int | None = None,
    seed: int = 0,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Interval:
    """sum(numerator) / sum(denominator) with a bootstrap interval over problems.

    For rates over attempts: a problem brings several attempts or none, and attempts of one dialogue are not independent, so
    whole problems are resampled. Problems with denominator 0 take no part; `n` counts the others.

    Raises:
        ValueError: no problem with a positive denominator, shapes that disagree, values that are not finite.
    """
    top_P, bottom_P = _checked(numerator_P, 1), _checked(denominator_P, 1)
    if len(top_P) != len(bottom_P) or (bottom_P < 0).any():
        raise ValueError("a ratio needs as many numerators as denominators, and no negative denominator")
    top_P, bottom_P = top_P[bottom_P > 0], bottom_P[bottom_P > 0]
    n = len(top_P)
    if n == 0:
        raise ValueError("an interval needs at least one problem")
    mean = float(top_P.sum() / bottom_P.sum())
    # Drawing n problems with replacement is drawing how often each distinct value comes: the same distribution, and for 0/1
    # outcomes two counts a resample instead of n indices.
    distinct, counts = np.unique(np.stack([top_P, bottom_P], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    parts = []
    for size in _chunks(enough_resamples(len(counts)) if resamples is None else resamples, len(counts)):
        sums_R2 = rng.multinomial(n, counts / n, size=size) @ distinct
        parts.append(sums_R2[:, 0] / sums_R2[:, 1])
    return _percentiles(mean, np.concatenate(parts), level, n, bounds, float(alike(top_P / bottom_P)))


def bootstrap_statistics(
    statistics: Callable[..., Floats],
    n: int,
    *,
    bounds: Sequence[tuple[float, float] | None],
    crossed: Sequence[int] = (),
    level: float = 0.95,
    resamples: int = LEAST,
    seed: int = 0,
) -> list[Interval | None]:
    """Any figures computed from n problems, with intervals that resample problems and compute all of it anew.

    Args:
        statistics: from `weights_RP`, how often each problem was drawn (R rows, each summing to n), to values `_RC`: one column a figure.
            It is called with one row of ones for the estimate itself. NaN: the figure does not exist for these problems.
        crossed: numbers of further things that a resample draws anew, independently of the problems (the seeds of each arm). For each of them
            `statistics` is given how often each was drawn as one more argument, `weights_RS`, rows summing to S.
        bounds: of each figure, used as in `bootstrap_mean` where resamples hardly differ.

    Returns:
        One interval per figure; None where the estimate does not exist, or for more than 5 % of the resamples.
    """
    drawn = (n, *crossed)
    estimate_C = statistics(*(np.ones((1, one)) for one in drawn))[0]
    rng = np.random.default_rng(seed)
    parts = [statistics(*(rng.multinomial(one, np.full(one, 1 / one), size=size).astype(np.float64) for one in drawn)) for size in _chunks(resamples, n)]
    half_C = _student_half_widths(statistics, n, crossed, resamples, np.random.default_rng([seed, 1])) if max(crossed, default=1) > 1 else np.zeros_like(estimate_C)
    found: list[Interval | None] = []
    for value, drawn_R, scale, half in zip(estimate_C.tolist(), np.concatenate(parts).T, bounds, half_C.tolist(), strict=True):
        known_R = drawn_R[np.isfinite(drawn_R)]
        if not np.isfinite(value) or len(known_R) < 0.95 * len(drawn_R):
            found.append(None)
        else:
            # Whether most problems share a value is not known here: only what is next to no variation counts.
            found.append(_percentiles(value, known_R, level, n, scale, 0.1, half))
    return found


def _student_half_widths(statistics: Callable[..., Floats], n: int, crossed: Sequence[int], resamples: int, rng: np.random.Generator) -> Floats:
    """As `compare.student_half_widths`, of figures that are no means: what the seeds bring by the jackknife, what the problems bring by resampling them alone.
    The noise of single dialogues is in both, and counted twice."""
    everything = [np.ones((1, one)) for one in crossed]
    parts = [statistics(rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64), *(np.repeat(one, size, 0) for one in everything)) for size in _chunks(resamples, n)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a figure that exists in one resample or none: NaN, as it should
        terms = [(np.nanvar(np.concatenate(parts), axis=0, ddof=1), max(n - 1, 1))]
    for i, seeds in enumerate(crossed):
        if seeds > 1:
            without = (1 - np.eye(seeds)) * seeds / (seeds - 1)
            left = [without if i == j else np.repeat(one, seeds, 0) for j, one in enumerate(everything)]
            terms.append(((seeds - 1) ** 2 / seeds * statistics(np.ones((seeds, n)), *left).var(axis=0, ddof=1), seeds - 1))
    variance_C, spread_C = sum(v for v, _ in terms), sum(v**2 / freedom for v, freedom in terms)
    # NaN, where a figure does not exist without one of the seeds, stretches nothing.
    return np.where(spread_C > 0, stdtrit(np.divide(variance_C**2, spread_C, out=np.full_like(variance_C, 1.0), where=spread_C > 0), 0.975) * np.sqrt(variance_C), 0.0)


def _checked(values: ArrayLike, dimensions: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"expected {dimensions} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError("an interval needs at least one problem")
    if not np.isfinite(array).all():
        raise ValueError("an interval needs finite values: leave problems without a value out first")
    return array


def _chunks(resamples: int, n: int) -> list[int]:
    if resamples < 1:
        raise ValueError(f"resamples = {resamples}: at least 1 is needed")
    step = max(1, _CHUNK // n)
    return [min(step, resamples - start) for start in range(0, resamples, step)]


def _percentiles(
    mean: float, means_R: Floats, level: float, n: int, bounds: tuple[float, float] | None, deviating: float, half: float = 0.0
) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must lie between 0 and 1")
    low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2])
    return stretched(reach(Interval(mean, float(low), float(high), n), bounds, deviating, level=level), half, bounds)


def alike(values_P: Floats) -> bool:
    """Whether more than half of the values are one value."""
    _, counts = np.unique(np.round(values_P, 9), return_counts=True)
    return bool(2 * counts.max() > len(values_P))


def reach(found: Interval, bounds: tuple[float, float] | None, deviating: float = 1.0, *, problems: float | None = None, level: float = 0.95) -> Interval:
    """The interval, as wide at least as so many problems allow where hardly any of them deviated (see the module's text).

    Args:
        bounds: ends of the scale; None: there is no scale, and nothing to reach for.
        deviating: what so many problems, solved or not, make of the estimate is hardly any variation; 0: what is seen is enough.
        problems: of as many problems of one set as the estimate is worth; by default `found.n`.
    """
    if bounds is None:
        return found
    n, sides = float(problems or found.n), list[float]()
    unseen = share_unseen(n, level)
    for end, bound in ((bounds[0], found.low), (bounds[1], found.high)):
        room, seen = abs(end - found.mean), abs(bound - found.mean)
        little = less(seen, deviating * min(room, 1.0) / n)
        sides.append(max(seen, unseen * room) if little else seen)
    return Interval(found.mean, found.mean - sides[0], found.mean + sides[1], found.n)


def stretched(found: Interval, half: float, bounds: tuple[float, float] | None) -> Interval:
    """The interval with both sides longer by one factor, to twice this half width, where it is narrower than that; within the scale."""
    if not 0 < found.width < 2 * half * (1 - 1e-9):
        return found
    factor = 2 * half / found.width
    low, high = found.mean - factor * (found.mean - found.low), found.mean + factor * (found.high - found.mean)
    return Interval(found.mean, low if bounds is None else max(low, bounds[0]), high if bounds is None else min(high, bounds[1]), found.n)


def less(a: float, b: float) -> bool:
    """a < b by more than rounding: both may count the same problems."""
    return a < b * (1 - 1e-9)


def share_unseen(n: float, level: float = 0.95) -> float:
    """The share of problems that may behave otherwise although none of n did: Wilson's bound for 0 of n."""
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    return z2 / (n + z2)
