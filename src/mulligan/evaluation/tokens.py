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

**Intervals** resample problems, and the seeds where there are several, and do all of this anew, the choice of m and of the temperatures included.

Suffixes: `_S` seed, `_P` problem, `_K` budget, `_T` temperature, `_m` number of samples (from 0), `_R` resample, `_F` fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """k -> the comparison of one model's dialogues with its own samples; see `equal_tokens_of_seeds`."""
    solved_KP, tokens_KP = np.stack([*dialogues.solved.values()]), np.stack([*dialogues.tokens.values()])
    found = equal_tokens_of_seeds(solved_KP[None], tokens_KP[None], [sampled.tallies], sampled.folds_P, paired=True)
    return {k: equal for k, equal in zip(dialogues.solved, found, strict=True) if equal}


def equal_tokens_of_seeds(
    solved_SKP: Floats, tokens_SKP: Floats, tallies: Sequence[Mapping[float, Tally]], folds_P: NDArray[np.int64], *, paired: bool
) -> list[EqualTokens | None]:
    """The comparison for each k, over seeds x problems; None where the dialogues spend more than all the samples drawn.

    Problems take part if all their dialogues could be graded and, for every seed and temperature, at least half as many samples as that seed's
    best graded problem has; of a seed as many samples count as its problem with the fewest has.

    Args:
        solved_SKP, tokens_SKP: of the dialogues of each seed; NaN where one could not be graded.
        tallies: of the samples of each seed of the rival, by temperature.
        folds_P: each problem's fold.
        paired: the samples are those of the same models: each seed is compared with itself, spends as much as itself, and is drawn with itself.
            Else every seed of the rival may spend what the arm's seeds do on average.
    """
    kept_P = np.logical_and.reduce(np.isfinite(solved_SKP).reshape(-1, solved_SKP.shape[-1]))
    for by_temperature in tallies:
        graded_TP = np.stack([counts.graded_P for counts in by_temperature.values()])
        kept_P = kept_P & (graded_TP >= max(1, graded_TP.max(initial=0) / 2)).all(axis=0)
    ks = solved_SKP.shape[1]
    if not kept_P.any():
        return [None] * ks
    samplers = [_Sampler.of(by_temperature, kept_P, folds_P[kept_P]) for by_temperature in tallies]
    contest = _Contest(solved_SKP[..., kept_P], tokens_SKP[..., kept_P], samplers)
    seeds = [len(solved_SKP)] if paired else [len(solved_SKP), len(samplers)]
    found = bootstrap_statistics(contest.statistics, int(kept_P.sum()), bounds=[(0.0, 1.0), (-1.0, 1.0), None] * ks, crossed=seeds)
    means_K = contest.tokens_SKP.mean(axis=(0, 2)).tolist()
    results: list[EqualTokens | None] = []
    for i, tokens in enumerate(means_K):
        passed, gain, samples = found[3 * i : 3 * i + 3]
        results.append(EqualTokens(tokens, samples.mean, passed, gain) if passed and gain and samples else None)
    return results


@dataclass(frozen=True, slots=True, eq=False)
class _Sampler:
    """What the samples of one model pass and cost, problem by problem; temperatures in the order that decides ties."""

    passed_TPm: Floats
    costs_TPm: Floats
    folds_P: NDArray[np.int64]

    @classmethod
    def of(cls, tallies: Mapping[float, Tally], kept_P: NDArray[np.bool_], folds_P: NDArray[np.int64]) -> _Sampler:
        most = min(int(counts.graded_P[kept_P].min()) for counts in tallies.values())
        curves = [stopping_curves(_rows(tallies[t], kept_P), most) for t in by_nearness(tallies)]
        return cls(np.stack([p for p, _ in curves]), np.stack([c for _, c in curves]), folds_P)

    def spending(self, weights_RP: Floats, tokens_FRK: Floats) -> tuple[Floats, Floats]:
        """passed_RK and samples_RK with these tokens (sums over each fold's problems). NaN where the samples are too few to spend as much."""
        halves = [weights_RP * (self.folds_P == fold) for fold in (0, 1)]
        counts_FR = [half.sum(axis=1) for half in halves]
        passed_FTRm = [half @ self.passed_TPm for half in halves]
        costs_FTRm = [half @ self.costs_TPm for half in halves]
        total_R = weights_RP.sum(axis=1)
        rows_R = np.arange(len(weights_RP))
        passed, samples = [], []
        for k in range(tokens_FRK.shape[-1]):
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
            passed.append(np.where(reached_R, passed_R, np.nan))
            samples.append(np.where(reached_R, samples_R, np.nan))
        return np.stack(passed, axis=1), np.stack(samples, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Contest:
    """The dialogues of an arm's seeds against the samples of a rival's."""

    solved_SKP: Floats
    tokens_SKP: Floats
    samplers: Sequence[_Sampler]

    def statistics(self, weights_RP: Floats, weights_RS: Floats, of_rivals_RS: Floats | None = None) -> Floats:
        """For each resample and k: pass, gain, samples. Without the rival's seeds the samplers are the same models."""
        of_arm_RS = weights_RS / weights_RS.sum(axis=1, keepdims=True)
        folds_P = self.samplers[0].folds_P
        solved_SRK = weights_RP @ self.solved_SKP.transpose(0, 2, 1) / weights_RP.sum(axis=1)[:, None]
        tokens_SFRK = np.stack([(weights_RP * (folds_P == fold)) @ self.tokens_SKP.transpose(0, 2, 1) for fold in (0, 1)], axis=1)
        if of_rivals_RS is None:
            spent, share_RS = [*tokens_SFRK], of_arm_RS
        else:
            spent = [np.einsum("rs,sfrk->frk", of_arm_RS, tokens_SFRK)] * len(self.samplers)
            share_RS = of_rivals_RS / of_rivals_RS.sum(axis=1, keepdims=True)
        passed_SRK, samples_SRK = (np.stack(x) for x in zip(*(s.spending(weights_RP, t) for s, t in zip(self.samplers, spent, strict=True)), strict=True))
        solved_RK = np.einsum("rs,srk->rk", of_arm_RS, solved_SRK)
        passed_RK, samples_RK = _drawn(share_RS, passed_SRK), _drawn(share_RS, samples_SRK)
        return np.stack([passed_RK, solved_RK - passed_RK, samples_RK], axis=2).reshape(len(weights_RP), -1)


def _drawn(share_RS: Floats, values_SRK: Floats) -> Floats:
    """The mean over the seeds that were drawn: a seed that was not has no say, though its value be NaN."""
    return np.where(share_RS.T[:, :, None] > 0, share_RS.T[:, :, None] * values_SRK, 0.0).sum(axis=0)


def spend(costs_m: Floats, passed_m: Floats, tokens: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """How many samples cost `tokens`, what they pass, and whether so much can be spent (or need not be, since all is solved).

    The curves' last axis is m = 0, 1, ...; axes before it (and those of `tokens`) are gone through alike. Where the tokens are
    more than all samples cost, the value is that of all samples, and their number the first that costs as much.
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
    enough = (costs_m < costs_m[..., -1:] * (1 - 1e-12)).sum(axis=-1)  # where all is solved, further samples are not drawn
    return np.minimum(lower[..., 0] + share, enough), passed, reached


def _rows(counts: Tally, kept_P: NDArray[np.bool_]) -> Tally:
    return Tally(counts.graded_P[kept_P], counts.correct_P[kept_P], counts.tokens_correct_P[kept_P], counts.tokens_wrong_P[kept_P])


def left_out(found: Mapping[int, EqualTokens], dialogues: Curves) -> list[int]:
    """The numbers of attempts for which there is no comparison."""
    return [k for k in dialogues.solved if k not in found]
