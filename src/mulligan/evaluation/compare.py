"""Differences between arms, over seeds x problems and over several problem sets. Pure: arrays in, intervals out.

An *arm* is a method: one or several seeds (trained models), each evaluated on the same problems. `Sets` holds an arm's values,
one array `_SPC` per problem set: seed, problem, column. A column is whatever belongs together: the numbers of attempts, or a
control beside the normal condition.

The bootstrap resamples what another sceptic would draw anew: in each resample, the seeds of every arm (one draw for all sets, since the same
models play them all; one for both arms where their seeds belong together, else each arm its own) and, within each set, the problems (one draw
for all arms, which is what pairs them). With one seed an arm this is the paired bootstrap over problems. It is the pigeonhole bootstrap of A. B. Owen (2007,
"The pigeonhole bootstrap", Annals of Applied Statistics 1(2)): where seeds differ little it is too wide (it counts the noise of a single
dialogue up to three times), and where they differ much, and are few, too narrow. Where seeds are drawn together, with nothing else to make up for that, what they deviate from their mean is
scaled by sqrt(S / (S - 1)), as in the rescaled bootstrap of J. N. K. Rao and C. F. J. Wu (1988, JASA 83(401)), so that S seeds show all of the
variance between seeds. And few seeds show badly how much seeds differ: where Student's interval, of the variance that seeds and problems each
bring (`student_half_widths`), is wider than the resamples' interval, that is stretched to its width. docs/intervals.md says how often such intervals hold the truth.

Suffixes: `_S` seed, `_P` problem, `_C` column, `_R` resample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mulligan.evaluation.intervals import Interval, alike, enough_resamples, less, reach, share_unseen, stretched

Floats = NDArray[np.float64]
Sets = Sequence[Floats]
Weighting = Literal["sets", "questions"]
"""Over several problem sets: the mean of the sets' means, or every question alike."""

MIN_SEEDS = 5
"""Below this, seeds say little of what another would give: intervals hold the truth less often than they should, and arms are not paired by seeds."""

_CHUNK = 2_000_000  # problem counts made at once: 16 MB, whatever the number of problems

_KEPT = 40_000_000  # problem counts kept of one draw: 40 MB; of more than 20,000 problems they are drawn anew for every figure


def differences(
    a: Sets, b: Sets, *, weighting: Weighting = "questions", bounds: tuple[float, float] | None = (-1.0, 1.0), joint_seeds: bool = False, seed: int = 0
) -> list[Interval]:
    """Mean of a - b for each column, with 95 % intervals; `n` counts the problems of all sets.

    Args:
        a, b: each set's array `_SPC`; the numbers of seeds may differ, problems and columns must not.
        bounds: ends of the scale of a difference, for samples that hardly vary (see `intervals`); None: no scale.
        joint_seeds: seed i of a and seed i of b belong together (they share a warm-up, say), and are drawn together.

    Raises:
        ValueError: no sets, no problems, shapes that disagree, a value that is not finite; with `joint_seeds`, different numbers of seeds.
    """
    a, b = _checked(a, b)
    if joint_seeds and len(a[0]) != len(b[0]):
        raise ValueError(f"{len(a[0])} seeds against {len(b[0])}: seeds that are drawn together must be as many")
    means_C = _over_sets([x.mean((0, 1)) - y.mean((0, 1)) for x, y in zip(a, b, strict=True)], a, weighting)
    drawn_RC = _over_sets([x - y for x, y in zip(*_resampled([a, b], seed, joint_seeds=joint_seeds), strict=True)], a, weighting)
    if joint_seeds and bounds is not None:  # what is scaled may leave the scale
        drawn_RC = np.clip(drawn_RC, *bounds)
    alike_C = _alike([x.mean(0) - y.mean(0) for x, y in zip(a, b, strict=True)])
    half_C = student_half_widths([x - y for x, y in zip(a, b, strict=True)], weighting=weighting) if joint_seeds else student_half_widths(a, b, weighting=weighting)
    return _intervals(means_C, drawn_RC, alike_C, half_C, a, weighting, bounds)


def means(a: Sets, *, weighting: Weighting = "questions", bounds: tuple[float, float] | None = (0.0, 1.0), seed: int = 0) -> list[Interval]:
    """An arm's mean for each column, with 95 % intervals; arguments as `differences`."""
    (a,) = _checked(a)
    means_C = _over_sets([x.mean((0, 1)) for x in a], a, weighting)
    drawn_RC = _over_sets(_resampled([a], seed)[0], a, weighting)
    return _intervals(means_C, drawn_RC, _alike([x.mean(0) for x in a]), student_half_widths(a, weighting=weighting), a, weighting, bounds)


def seed_means(a: Sets, *, weighting: Weighting = "questions") -> Floats:
    """Each seed's own mean for each column, over the sets: `_SC`."""
    (a,) = _checked(a)
    return _over_sets([x.mean(1) for x in a], a, weighting)


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
    # To first order a ratio varies as what each seed and problem brings above or below its share of it.
    with np.errstate(invalid="ignore"):
        linear = [(x - ratio_C * y) / np.maximum(y.mean((0, 1)), 1e-300) for x, y, ratio_C in zip(tops, bottoms, per_set, strict=True)]
    half_C = student_half_widths(linear, weighting=weighting)
    found: list[Interval | None] = []
    for c in range(columns):
        known_R = drawn_RC[~np.isnan(drawn_RC[:, c]), c]
        if not np.isfinite(mean_C[c]) or not len(known_R):
            found.append(None)
            continue
        behind = [(y[:, :, c] > 0).any(axis=0) for y in bottoms]  # problems that have something to divide by
        n = int(sum(b.sum() for b in behind))
        effective = 1 / sum(w**2 / b.sum() for w, b in zip(_set_weights(tops, weighting), behind, strict=True))
        # Between two infinities there is nothing to interpolate.
        low, high = np.quantile(known_R, [0.025, 0.975], method="linear" if np.isfinite(known_R).all() else "inverted_cdf")
        same = all(alike(x[:, some, c].sum(0) / y[:, some, c].sum(0)) for x, y, some in zip(tops, bottoms, behind, strict=True))
        drawn = reach(Interval(float(mean_C[c]), float(low), float(high), n), bounds, float(same), problems=effective)
        found.append(stretched(drawn, float(half_C[c]), bounds or (0.0, np.inf)))
    return found


def _divided(tops: Floats, bottoms: Floats) -> Floats:
    """0 / 0 is NaN, anything else / 0 infinite."""
    return np.divide(tops, bottoms, out=np.where(tops > 0, np.inf, np.nan), where=bottoms > 0)


def share_kept(a: Sets, *, weighting: Weighting = "questions", seed: int = 0) -> Interval | None:
    """What share of the rise from one attempt to K is left under a control: (c_K - c_1) / (n_K - n_1).

    Args:
        a: columns n_1, n_K (the normal condition), c_1, c_K (the control), on the same problems. Where hardly a problem rises under the control, or
            nearly all do exactly as without it, what so many problems cannot have shown (see `intervals`) is taken as a share of the rise.

    Returns:
        None where the normal condition does not clearly rise (its 95 % interval reaches 0): there is nothing to keep, and the
        ratio has no meaning.
    """
    (a,) = _checked(a)
    drawn_RC = _over_sets(_resampled([a], seed)[0], a, weighting)
    rises_R = drawn_RC[:, 1] - drawn_RC[:, 0]
    mean_C = _over_sets([x.mean((0, 1)) for x in a], a, weighting)
    problems, rise = sum(x.shape[1] for x in a), float(mean_C[1] - mean_C[0])
    (half,) = student_half_widths([x[:, :, 1:2] - x[:, :, :1] for x in a], weighting=weighting)
    low, high = np.quantile(rises_R, [0.025, 0.975]).tolist()
    if stretched(Interval(rise, low, high, problems), half, (-1.0, 1.0)).low <= 0:
        return None
    some_R = rises_R > 0
    low, high = np.quantile((drawn_RC[some_R, 3] - drawn_RC[some_R, 2]) / rises_R[some_R], [0.025, 0.975]).tolist()
    share = float((mean_C[3] - mean_C[2]) / rise)
    # Where nearly all do alike, none rising or all as without the control: one problem more or less makes 1 / (problems * rise) of the share. What
    # is seen to vary less is what so many problems cannot have shown.
    rises, kept = ([(x[:, :, i + 1] - x[:, :, i]).mean(0)[:, None] for x in a] for i in (0, 2))
    same = any(_alike(part)[0] for part in (kept, [c - r for c, r in zip(kept, rises, strict=True)]))
    unseen = share_unseen(problems)
    below, above = (unseen / rise if same and less(seen, 1 / (problems * rise)) else seen for seen in (share - low, high - share))
    (half,) = student_half_widths([(x[:, :, 3:] - x[:, :, 2:3] - share * (x[:, :, 1:2] - x[:, :, :1])) / rise for x in a], weighting=weighting)
    return stretched(Interval(share, share - below, share + above, problems), half, None)


def student_half_widths(*arms: Sets, weighting: Weighting = "questions") -> Floats:
    """Half the width of Student's 95 % interval of an arm's mean, or of the difference of two, for each column; 0 where no arm has several seeds.

    The variance is that of seeds and problems in a crossed layout: what the seeds' means vary by, each arm's, plus what the problems' means vary by,
    less the noise of single dialogues, which is in both; its degrees of freedom by F. E. Satterthwaite (1946, Biometrics Bulletin 2(6)).
    """
    sets = arms[0]
    weights = _set_weights(sets, weighting)
    by_seed, noise = [], []
    for arm in arms:
        if (seeds := len(arm[0])) > 1:
            by_seed.append((_over_sets([x.mean(1) for x in arm], arm, weighting).var(0, ddof=1) / seeds, seeds - 1))
            own = [x - x.mean(0) - x.mean(1, keepdims=True) + x.mean((0, 1)) for x in arm]
            each = [w**2 * (x**2).sum((0, 1)) / (seeds - 1) / max(x.shape[1] - 1, 1) / x[:, :, 0].size for w, x in zip(weights, own, strict=True)]
            noise.append((np.sum(each, axis=0), (seeds - 1) * sum(max(x.shape[1] - 1, 1) for x in arm)))
    if not by_seed:
        return np.zeros(sets[0].shape[2])
    problems = [x.mean(0) - arms[1][i].mean(0) if len(arms) > 1 else x.mean(0) for i, x in enumerate(sets)]
    by_problem = (np.sum([w**2 * x.var(0, ddof=min(1, len(x) - 1)) / len(x) for w, x in zip(weights, problems, strict=True)], axis=0), sum(len(x) - 1 for x in problems))
    of_seeds_C, of_problems_C, of_noise_C = sum(v for v, _ in by_seed), by_problem[0], sum(v for v, _ in noise)
    variance_C = np.maximum(of_seeds_C + of_problems_C - of_noise_C, np.maximum(of_seeds_C, of_problems_C))
    spread_C = sum(v**2 / max(freedom, 1) for v, freedom in (*by_seed, by_problem, *noise))
    freedom_C = np.divide(variance_C**2, spread_C, out=np.full_like(variance_C, np.inf), where=spread_C > 0)
    return np.where(spread_C > 0, stdtrit(np.minimum(freedom_C, 1e6), 0.975) * np.sqrt(variance_C), 0.0)


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


def _resampled(arms: Sequence[Sets], seed: int, *, joint_seeds: bool = False) -> list[list[Floats]]:
    """For each arm and set, the mean of each column in every resample, `_RC`."""
    resamples = enough_resamples(sum(x.shape[1] for x in arms[0]))
    weights = [_seed_weights(len(arm[0]), resamples, (seed, 1, 0 if joint_seeds else i), whole=joint_seeds) for i, arm in enumerate(arms)]
    found: list[list[Floats]] = [[] for _ in arms]
    for which in range(len(arms[0])):
        by_seed = _means_by_seed([arm[which] for arm in arms], resamples, (seed, 0, which))
        for means_RSC, weight_RS, results in zip(by_seed, weights, found, strict=True):
            results.append(np.einsum("rs,rsc->rc", weight_RS, means_RSC))
    return found


@lru_cache(maxsize=16)
def _seed_weights(seeds: int, resamples: int, key: tuple[int, ...], *, whole: bool = False) -> Floats:
    """How often each seed was drawn, as shares; `whole`: scaled to the whole variance between seeds (see the module's text), so that some may be below 0.
    Equal keys draw alike."""
    share_RS = np.random.default_rng(key).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    weight_RS = 1 / seeds + np.sqrt(seeds / (seeds - 1)) * (share_RS - 1 / seeds) if whole and seeds > 1 else share_RS
    weight_RS.flags.writeable = False
    return weight_RS


def _means_by_seed(arrays: Sequence[Floats], resamples: int, key: tuple[int, ...]) -> list[Floats]:
    """Each array's mean over one joint draw of problems a resample, `_RSC`: how often each problem came, times the values."""
    n = arrays[0].shape[1]
    flat = [x.transpose(1, 0, 2).reshape(n, -1) for x in arrays]
    parts: list[list[Floats]] = [[] for _ in arrays]
    for chunk_RP in _kept_counts(n, resamples, key) if n * resamples <= _KEPT else _counts(n, resamples, key):
        count_RP = chunk_RP / n
        for x, results in zip(flat, parts, strict=True):
            results.append(count_RP @ x)
    return [np.concatenate(p).reshape(resamples, len(x), x.shape[2]) for p, x in zip(parts, arrays, strict=True)]


@lru_cache(maxsize=16)
def _kept_counts(n: int, resamples: int, key: tuple[int, ...]) -> tuple[NDArray[np.uint8], ...]:
    """Every figure of a set draws its problems alike, and drawing them takes most of its time."""
    return tuple(_counts(n, resamples, key))


def _counts(n: int, resamples: int, key: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """How often each of n problems came in each resample, `_RP`, in chunks of resamples. Equal keys draw alike."""
    rng, step = np.random.default_rng(key), max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn_RP = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        count_RP = np.bincount(drawn_RP.ravel(), minlength=rows * n).reshape(rows, n).astype(np.uint8)  # one problem comes a handful of times
        count_RP.flags.writeable = False
        yield count_RP


def _set_weights(sets: Sets, weighting: Weighting) -> Floats:
    sizes = np.array([x.shape[1] for x in sets], dtype=np.float64)
    return np.full(len(sizes), 1 / len(sizes)) if weighting == "sets" else sizes / sizes.sum()


def _over_sets(values: Sequence[Floats], sets: Sets, weighting: Weighting) -> Floats:
    return np.tensordot(_set_weights(sets, weighting), np.stack(values), axes=1)


def _alike(sets_PC: Sequence[Floats]) -> list[bool]:
    """For each column whether most problems of every set share one value, as means over seeds."""
    return [all(alike(x[:, c]) for x in sets_PC) for c in range(sets_PC[0].shape[1])]


def _intervals(
    means_C: Floats, drawn_RC: Floats, alike_C: Sequence[bool], half_C: Floats, sets: Sets, weighting: Weighting, bounds: tuple[float, float] | None
) -> list[Interval]:
    n = sum(x.shape[1] for x in sets)
    low_C, high_C = np.quantile(drawn_RC, [0.025, 0.975], axis=0)
    # Of as many problems as would give an unstratified mean the variance that this weighted one has.
    effective = 1 / sum(w**2 / x.shape[1] for w, x in zip(_set_weights(sets, weighting), sets, strict=True))
    columns = zip(means_C.tolist(), low_C.tolist(), high_C.tolist(), alike_C, half_C.tolist(), strict=True)
    return [stretched(reach(Interval(mean, low, high, n), bounds, float(same), problems=effective), half, bounds) for mean, low, high, same, half in columns]
