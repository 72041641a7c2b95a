"""Accuracy at equal tokens: dialogues against independent sampling that may spend as much.

Equal attempts are not equal cost: attempts of a dialogue may be longer or shorter than samples, and both stop at a success. The
rival here draws independent samples until one is correct, at most m of them, and is told when one is (as the dialogue is).

**Its pass and its cost**, for a problem of whose n samples c are correct: with a_j = C(n - c, j) / C(n, j), the chance that the first j
of a random order are all wrong, it passes with probability 1 - a_m = pass@m. It draws a sample j + 1 with probability a_j, and
that sample's expected length is (sum of the lengths of the c correct ones + (n - c - j) x mean length of the wrong ones) / (n - j). Both
are averages over all orders of the samples, hence unbiased for the true expectations (as pass@k is).

**Equal cost.** With t the mean number of tokens that dialogues with budget k sample, m is the number at which the rival's mean cost over
problems is t. Between two whole numbers both cost and pass are interpolated, which is what a rival gets that takes the lower cap for
a share of the problems, at random, and the higher one for the rest; below 1 it leaves a share unanswered. Where it solves everything
for less, it passes with probability 1.

**Its temperature** is chosen as in `samples`, per k: for each fold the one that passes most, at equal cost, on the other fold.

**Intervals** resample problems and do all of this anew, the choice of m and of the temperatures included.

Suffixes: `_P` problem, `_K` budget, `_T` temperature, `_m` number of samples (from 0), `_R` resample, `_F` fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulligan.evaluation.intervals import Floats, Interval, bootstrap_statistics
from mulligan.evaluation.samples import SampleFigures, Tally, by_nearness
from mulligan.evaluation.values import Curves


@dataclass(frozen=True, slots=True)
class EqualTokens:
    """`tokens`: mean per problem of the dialogues. `samples`: how many the rival may draw for them. `passed`: its chance of
    success. `gain`: accuracy of the dialogues - `passed`, over the same problems."""

    tokens: float
    samples: float
    passed: Interval
    gain: Interval

    def to_json(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "samples": self.samples, "pass": self.passed.to_json(), "gain": self.gain.to_json()}


def stopping_curves(counts: Tally, most: int) -> tuple[Floats, Floats]:
    """pass_Pm and cost_Pm, m = 0 to `most`, of sampling that stops at its first success. Every problem needs `most` graded samples."""
    n_P, wrong_P = counts.graded_P.astype(np.float64), (counts.graded_P - counts.correct_P).astype(np.float64)
    length_wrong_P = counts.tokens_wrong_P / np.maximum(wrong_P, 1)
    alive_P, passed, costs = np.ones(len(n_P)), [np.zeros(len(n_P))], [np.zeros(len(n_P))]
    for j in range(most):
        left_P = np.maximum(wrong_P - j, 0)
        costs.append(costs[-1] + alive_P * (counts.tokens_correct_P + left_P * length_wrong_P) / (n_P - j))
        alive_P = alive_P * left_P / (n_P - j)
        passed.append(1 - alive_P)
    return np.stack(passed, axis=1), np.stack(costs, axis=1)


def equal_tokens(dialogues: Curves, sampled: SampleFigures) -> dict[int, EqualTokens]:
    """k -> the comparison; a k at which the dialogues spend more than all the samples drawn is left out.

    Problems take part if all their dialogues could be graded and at least half of their samples at every temperature; the samples
    that count are as many as the problem with the fewest has.
    """
    ks = tuple(dialogues.solved)
    graded_TP = np.stack([counts.graded_P for counts in sampled.tallies.values()])
    solved_KP, tokens_KP = np.stack([dialogues.solved[k] for k in ks]), np.stack([dialogues.tokens[k] for k in ks])
    kept_P = np.logical_and.reduce([*~np.isnan(solved_KP), *(graded_TP >= max(1, graded_TP.max(initial=0) / 2))])
    if not kept_P.any():
        return {}
    most = int(graded_TP[:, kept_P].min())
    curves = [stopping_curves(_rows(sampled.tallies[t], kept_P), most) for t in by_nearness(sampled.tallies)]
    contest = _Contest(
        solved_KP[:, kept_P], tokens_KP[:, kept_P], np.stack([p for p, _ in curves]), np.stack([c for _, c in curves]), sampled.folds_P[kept_P]
    )
    found = bootstrap_statistics(contest.statistics, int(kept_P.sum()), bounds=[(0.0, 1.0), (-1.0, 1.0), None] * len(ks))
    means_K = contest.tokens_KP.mean(axis=1)
    results = {}
    for i, k in enumerate(ks):
        passed, gain, samples = found[3 * i : 3 * i + 3]
        if passed is not None and gain is not None and samples is not None:
            results[k] = EqualTokens(float(means_K[i]), samples.mean, passed, gain)
    return results


@dataclass(frozen=True, slots=True, eq=False)
class _Contest:
    """The problems' values; temperatures in the order that decides ties."""

    solved_KP: Floats
    tokens_KP: Floats
    passed_TPm: Floats
    costs_TPm: Floats
    folds_P: NDArray[np.int64]

    def statistics(self, weights_RP: Floats) -> Floats:
        """For each resample and k: pass, gain, samples. NaN where the samples are too few to spend as much."""
        halves = [weights_RP * (self.folds_P == fold) for fold in (0, 1)]
        counts_FR = [half.sum(axis=1) for half in halves]
        tokens_FRK = [half @ self.tokens_KP.T for half in halves]
        passed_FTRm = [half @ self.passed_TPm for half in halves]
        costs_FTRm = [half @ self.costs_TPm for half in halves]
        total_R = weights_RP.sum(axis=1)
        solved_RK = weights_RP @ self.solved_KP.T / total_R[:, None]
        rows_R = np.arange(len(weights_RP))
        columns = []
        for k in range(len(self.solved_KP)):
            passed_Rm, costs_Rm = 0.0, 0.0
            for fold in (0, 1):
                other = 1 - fold
                # a fold without problems decides nothing: all its scores are 0, and the first temperature is taken
                size_R = np.maximum(counts_FR[other], 1)
                scores_TR = spend(
                    costs_FTRm[other] / size_R[:, None], passed_FTRm[other] / size_R[:, None], tokens_FRK[other][:, k] / size_R
                )[1]
                best_R = scores_TR.round(12).argmax(axis=0)
                passed_Rm = passed_Rm + passed_FTRm[fold][best_R, rows_R]
                costs_Rm = costs_Rm + costs_FTRm[fold][best_R, rows_R]
            tokens_R = (tokens_FRK[0][:, k] + tokens_FRK[1][:, k]) / total_R
            samples_R, passed_R, reached_R = spend(costs_Rm / total_R[:, None], passed_Rm / total_R[:, None], tokens_R)
            passed_R = np.where(reached_R, passed_R, np.nan)
            columns += [passed_R, solved_RK[:, k] - passed_R, np.where(reached_R, samples_R, np.nan)]
        return np.stack(columns, axis=1)


def spend(costs_m: Floats, passed_m: Floats, tokens: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """How many samples cost `tokens`, what they pass, and whether so much can be spent (or need not be, since all is solved).

    The curves' last axis is m = 0, 1, ...; axes before it (and those of `tokens`) are gone through alike. Where the tokens are
    more than all samples cost, the value is that of all samples.
    """
    most = costs_m.shape[-1] - 1
    tokens = np.broadcast_to(tokens, costs_m.shape[:-1])
    lower = np.minimum((costs_m <= tokens[..., None]).sum(axis=-1) - 1, most - 1)[..., None]

    def at(curve_m: Floats, m: NDArray[np.int64]) -> Floats:
        return np.take_along_axis(curve_m, m, axis=-1)[..., 0]

    below, above = at(costs_m, lower), at(costs_m, lower + 1)
    share = np.minimum((tokens - below) / np.where(above > below, above - below, 1.0), 1.0)
    share = np.where(above > below, share, 1.0)
    passed = (1 - share) * at(passed_m, lower) + share * at(passed_m, lower + 1)
    reached = (tokens <= costs_m[..., -1] * (1 + 1e-9)) | (passed_m[..., -1] >= 1 - 1e-12)
    return lower[..., 0] + share, passed, reached


def _rows(counts: Tally, kept_P: NDArray[np.bool_]) -> Tally:
    return Tally(counts.graded_P[kept_P], counts.correct_P[kept_P], counts.tokens_correct_P[kept_P], counts.tokens_wrong_P[kept_P])


def left_out(found: Mapping[int, EqualTokens], dialogues: Curves) -> list[int]:
    """The numbers of attempts for which there is no comparison."""
    return [k for k in dialogues.solved if k not in found]
