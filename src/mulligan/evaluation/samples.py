"""pass@k of independent samples, at the temperature that does best on other problems.

Suffixes: `_P` problem, `_T` temperature.

**Cross-fitting.** The best of several temperatures, chosen and measured on the same problems, looks better than it is. Problems are
therefore cut into two folds by a hash of their id. For each k, the problems of one fold are taken at the temperature with the highest
pass@k over the *other* fold, so that no problem has a say in its own temperature and every problem still gives a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.passk import pass_at_k
from mulligan.evaluation.values import Values, mean_of, means_of
from mulligan.types import Group

Counts = NDArray[np.int64]

ENOUGH = 4
"""Samples per k that pass@k should be estimated from: with fewer, its estimate for a single problem is little more than a coin."""


TALLIED = ("samples:graded", "samples:correct", "samples:tokens_correct", "samples:tokens_wrong")
"""Quantities of values.parquet that hold a tally, in the order of its fields; `@T` follows."""


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """The samples of one temperature, by problem: how many were graded, how many of these were correct, and tokens (sums)."""

    graded_P: Counts
    correct_P: Counts
    tokens_correct_P: Values
    tokens_wrong_P: Values

    def quantities(self) -> dict[str, Values]:
        """As they stand in values.parquet."""
        return dict(zip(TALLIED, (self.graded_P.astype(np.float64), self.correct_P.astype(np.float64), self.tokens_correct_P, self.tokens_wrong_P), strict=True))

    @classmethod
    def read(cls, graded_P: Values, correct_P: Values, tokens_correct_P: Values, tokens_wrong_P: Values) -> Tally:
        """From the values of `TALLIED`."""
        return cls(graded_P.astype(np.int64), correct_P.astype(np.int64), tokens_correct_P, tokens_wrong_P)


@dataclass(frozen=True, slots=True, eq=False)
class SampleFigures:
    """pass@k at the chosen temperature and at each; `chosen[k]` is the temperature of fold 0 and of fold 1.

    `passed[k]` and `passed_at[temperature][k]` are the problems' own estimates, NaN where too few samples could be graded.
    """

    pass_at_k: Mapping[int, Interval]
    by_temperature: Mapping[float, Mapping[int, Interval]]
    chosen: Mapping[int, tuple[float, float]]
    tokens_per_sample: Interval | None
    """At the temperature chosen for k = 1."""
    folds_P: Counts = field(repr=False)
    passed: Mapping[int, Values] = field(repr=False)
    passed_at: Mapping[float, Mapping[int, Values]] = field(repr=False)
    tallies: Mapping[float, Tally] = field(repr=False)


def fold_of(problem_id: str) -> int:
    """0 or 1: a hash of the id alone, so that a problem's fold is the same in every set, run and version of Python."""
    return blake2b(problem_id.encode("utf-8", "surrogatepass"), digest_size=1, person=b"fold").digest()[0] & 1


def by_nearness(temperatures: Iterable[float]) -> tuple[float, ...]:
    """Each temperature once, those nearest 1 first: the order in which ties are decided."""
    return tuple(sorted(set(temperatures), key=lambda t: (abs(t - 1.0), t)))


def key_of(temperature: float) -> str:
    """How a temperature is written as a key: `1.0`, `0.75`."""
    return repr(float(temperature))


def tally(groups: Sequence[Group]) -> Tally:
    """Count one temperature's samples. A sample whose dialogue broke is wrong; an ungradable one is not counted at all."""
    graded = [[r for r in g.rollouts if not r.ungradable] for g in groups]
    return Tally(
        np.array([len(rollouts) for rollouts in graded], dtype=np.int64),
        np.array([sum(r.solved for r in rollouts) for rollouts in graded], dtype=np.int64),
        np.array([sum(r.num_sampled for r in rollouts if r.solved) for rollouts in graded], dtype=np.float64),
        np.array([sum(r.num_sampled for r in rollouts if not r.solved) for rollouts in graded], dtype=np.float64),
    )


def estimates(counts: Tally, largest: int) -> dict[int, Values]:
    """k -> `_P` estimates of pass@k, k = 1 to `largest`; a problem with fewer than k graded samples has none."""
    passed = {}
    for k in range(1, largest + 1):
        enough_P = counts.graded_P >= k
        values_P = np.full(len(enough_P), np.nan)
        values_P[enough_P] = pass_at_k(counts.graded_P[enough_P], counts.correct_P[enough_P], k)
        passed[k] = values_P
    return passed


def choose(values: Mapping[float, Values], folds_P: Counts) -> tuple[float, float]:
    """The temperature for fold 0 and for fold 1: of each, the one with the highest mean over the other fold.

    Temperatures are compared on problems that have a value at every one of them. Ties, and a fold whose other fold has no such
    problem, go to the temperature nearest 1.
    """
    heats = by_nearness(values)
    table_TP = np.stack([values[t] for t in heats])
    known_P = ~np.isnan(table_TP).any(axis=0)

    def best_without(fold: int) -> float:
        others_P = known_P & (folds_P != fold)
        # rounded: what differs in the last bit only is a tie
        return heats[int(np.argmax(table_TP[:, others_P].mean(axis=1).round(12)))] if others_P.any() else heats[0]

    return best_without(0), best_without(1)


def sample_figures(drawn: Mapping[float, Sequence[Group]], largest: int) -> SampleFigures:
    """Figures from independent single-attempt samples: temperature -> one group per problem, all in the same order.

    `largest`: pass@k is given for k = 1 to this, which must not exceed the number of samples.
    """
    groups = next(iter(drawn.values()))
    folds_P = np.array([fold_of(g.problem.id) for g in groups], dtype=np.int64)
    tallies = {t: tally(g) for t, g in drawn.items()}
    passed_at = {t: estimates(counts, largest) for t, counts in tallies.items()}
    chosen = {k: choose({t: by_k[k] for t, by_k in passed_at.items()}, folds_P) for k in range(1, largest + 1)}
    passed = {k: _taken({t: by_k[k] for t, by_k in passed_at.items()}, chosen[k], folds_P) for k in chosen}
    lengths = {t: np.array([np.mean([r.num_sampled for r in one.rollouts]) for one in g], dtype=np.float64) for t, g in drawn.items()}
    return SampleFigures(
        pass_at_k=means_of(passed),
        by_temperature={t: means_of(by_k) for t, by_k in passed_at.items()},
        chosen=chosen,
        tokens_per_sample=mean_of(_taken(lengths, chosen[1], folds_P), bounds=None),
        folds_P=folds_P,
        passed=passed,
        passed_at=passed_at,
        tallies=tallies,
    )


def _taken(values: Mapping[float, Values], heats: tuple[float, float], folds_P: Counts) -> Values:
    """Each problem's value at its fold's temperature."""
    return np.where(folds_P == 0, values[heats[0]], values[heats[1]])
