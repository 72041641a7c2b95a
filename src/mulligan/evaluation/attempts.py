"""What happens attempt by attempt within dialogues: success given that the attempt was reached, repeats, missing and cut answers.

Every rate counts attempts, and its interval resamples problems (attempts of one dialogue are not independent).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from mulligan.config import MOST_ATTEMPTS
from mulligan.errors import ConfigError
from mulligan.evaluation.intervals import Interval, bootstrap_ratio
from mulligan.evaluation.values import Values
from mulligan.types import Attempt, Outcome, Rollout


def parse_attempts(text: str) -> tuple[int, ...]:
    """Numbers of attempts to evaluate with: `1-7`, `1,2,5`, `3`, or `1-3,5`; sorted, without repetition.

    Raises:
        ConfigError: not a number, a range that runs backwards, or a number outside 1..1000.
    """
    forms = "write a range '1-7', a list '1,2,5' or one number '3'"
    found: set[int] = set()
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        if not match:
            raise ConfigError(f"attempts: {text!r} is not a list of numbers of attempts; {forms}")
        low = int(match[1])
        high = low if match[2] is None else int(match[2])
        if high < low:
            raise ConfigError(f"attempts: {text!r}: the range {low}-{high} runs backwards; write '{high}-{low}'")
        if low < 1:
            raise ConfigError(f"attempts: {text!r}: a budget of 0 attempts allows no answer; start at 1")
        if high > MOST_ATTEMPTS:
            raise ConfigError(f"attempts: {text!r}: at most {MOST_ATTEMPTS} attempts can be evaluated; lower {high}")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def headline_budget(budgets: Collection[int], trained: int | None) -> int:
    """K, the budget for which single figures are given: the largest of training if it was evaluated and is not 1, else the largest that was. With more
    attempts than it was trained for a model may do something else altogether."""
    return trained if trained in budgets and trained is not None and trained != 1 else max(budgets, default=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` out of `total` attempts; `interval` is None when there were no such attempts."""

    count: int
    total: int
    interval: Interval | None

    def to_json(self, count: str = "count", total: str = "total") -> dict[str, float | int | None]:
        empty = {"mean": None, "low": None, "high": None, "n": 0}
        return {count: self.count, total: self.total, **(self.interval.to_json() if self.interval else empty)}


RATES = {
    "conditional_success": ("attempts:correct", "attempts:graded"),
    "repeat_rate": ("attempts:repeated", "attempts:answered_again"),
    "no_answer": ("attempts:missing", "attempts:made"),
    "truncated": ("attempts:cut", "attempts:made"),
}
"""Of each rate (by its name in eval.json) what is counted, and out of what: quantities of values.parquet, by number of the attempt instead of
by budget."""

REPEATED, ANSWERED_AGAIN = "again:repeated", "again:answered"
"""The same for all later answers of a dialogue with budget k: quantities of values.parquet by budget."""


@dataclass(frozen=True, slots=True)
class AttemptFigures:
    """Rates by attempt number (from 1) and over all attempts, out of one dialogue per problem.

    `conditional_success[t]`: correct at attempt t, out of dialogues that reached it (with a graded attempt).
    `repeats[t]`: attempt t gave an answer already known to be wrong in its dialogue, out of the answers given at attempt t >= 2.
    `no_answer[t]`, `truncated[t]`: ended without an answer by itself, or by a token cap; out of all attempts t.
    `counts[quantity][t]`: the problems' own numbers behind them, `_P`.
    """

    conditional_success: Mapping[int, Rate]
    repeats: Mapping[int, Rate]
    no_answer: Mapping[int, Rate]
    truncated: Mapping[int, Rate]
    repeats_overall: Rate
    no_answer_overall: Rate
    truncated_overall: Rate
    counts: Mapping[str, Mapping[int, Values]] = field(repr=False)


def attempt_figures(rollouts: Sequence[Rollout], budget: int) -> AttemptFigures:
    """Rates over dialogues (one per problem) with `budget` attempts; of those with a larger budget the first so many attempts count."""
    counts = attempt_counts(rollouts, budget)

    def by_attempt(name: str, first: int = 1) -> dict[int, Rate]:
        hits, totals = (counts[quantity] for quantity in RATES[name])
        return {t: rate_of(hits[t], totals[t]) for t in range(first, budget + 1)}

    def overall(name: str) -> Rate:
        hits_P, totals_P = (np.sum([*counts[quantity].values()], axis=0) for quantity in RATES[name])
        return rate_of(hits_P, totals_P)

    return AttemptFigures(
        conditional_success=by_attempt("conditional_success"),
        repeats=by_attempt("repeat_rate", first=2),
        no_answer=by_attempt("no_answer"),
        truncated=by_attempt("truncated"),
        repeats_overall=overall("repeat_rate"),
        no_answer_overall=overall("no_answer"),
        truncated_overall=overall("truncated"),
        counts=counts,
    )


def attempt_counts(rollouts: Sequence[Rollout], budget: int) -> dict[str, dict[int, Values]]:
    """quantity of `RATES` -> number t of the attempt, up to `budget` -> for each problem 1 if its dialogue has such an attempt t, else 0, `_P`."""
    quantities = dict.fromkeys(quantity for pair in RATES.values() for quantity in pair)
    counts = {quantity: {t: np.zeros(len(rollouts)) for t in range(1, budget + 1)} for quantity in quantities}
    for p, rollout in enumerate(rollouts):
        for attempt, again in zip(rollout.attempts[:budget], repeats_of(rollout.attempts[:budget]), strict=True):
            answered_again = _answered_again(attempt)
            is_one = {
                "attempts:made": True,
                "attempts:graded": attempt.outcome is not Outcome.UNGRADABLE,
                "attempts:correct": attempt.outcome is Outcome.CORRECT,
                "attempts:answered_again": answered_again,
                "attempts:repeated": answered_again and again,
                "attempts:missing": attempt.outcome is Outcome.NO_ANSWER,
                "attempts:cut": attempt.outcome is Outcome.TRUNCATED,
            }
            for quantity, counted in is_one.items():
                counts[quantity][attempt.index][p] = counted
    return counts


def repeat_counts(rollouts: Mapping[int, Sequence[Rollout]]) -> dict[str, dict[int, Values]]:
    """`REPEATED` and `ANSWERED_AGAIN` -> budget k -> `_P`: of each problem's dialogue with that budget the answers after the first, and how many of
    them repeat an earlier wrong one. Of a dialogue with a larger budget the first k attempts count."""
    counts = {quantity: {k: np.zeros(len(dialogues)) for k, dialogues in rollouts.items()} for quantity in (REPEATED, ANSWERED_AGAIN)}
    for k, dialogues in rollouts.items():
        for p, rollout in enumerate(dialogues):
            for attempt, again in zip(rollout.attempts[:k], repeats_of(rollout.attempts[:k]), strict=True):
                if _answered_again(attempt):
                    counts[ANSWERED_AGAIN][k][p] += 1
                    counts[REPEATED][k][p] += again
    return counts


def _answered_again(attempt: Attempt) -> bool:
    return attempt.index > 1 and attempt.outcome in (Outcome.CORRECT, Outcome.WRONG) and attempt.verdict.answer is not None


def repeats_of(attempts: Sequence[Attempt]) -> list[bool]:
    """For each attempt of a dialogue: whether its answer equals, once normalised, an earlier wrong answer of the dialogue."""
    wrong: set[str] = set()
    flags = []
    for attempt in attempts:
        answer = None if attempt.verdict.answer is None else normalise_answer(attempt.verdict.answer)
        flags.append(answer in wrong)
        if answer is not None and attempt.outcome is Outcome.WRONG:
            wrong.add(answer)
    return flags


def normalise_answer(text: str) -> str:
    """The answer's identity for counting repeats: dollar signs, a closing full stop, LaTeX spacing and white space do not count, but that white space
    which stands between two words or numbers: `1 23` is not `12 3`.

    Purely textual on purpose: 1/2 and 0.5 count as different attempts, so the repeat rate is a lower bound.
    """
    bare = re.sub(r"\\[,;:! ]|\\left(?![a-z])|\\right(?![a-z])|\$", "", text)
    bare = re.sub(r"(?<=\w)\s+(?=\w)", " ", bare)
    bare = re.sub(r"(?<!\w)\s+|\s+(?!\w)", "", bare)
    return bare.removesuffix(".") or text.strip()


def rate_of(hits_P: ArrayLike, totals_P: ArrayLike) -> Rate:
    count, total = int(np.sum(hits_P)), int(np.sum(totals_P))
    interval = bootstrap_ratio(np.asarray(hits_P), np.asarray(totals_P)) if total else None
    return Rate(count, total, interval)
