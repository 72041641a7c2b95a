"""What happens attempt by attempt within dialogues: success given that the attempt was reached, repeats, missing and cut answers.

Every rate counts attempts, and its interval resamples problems (attempts of one dialogue are not independent).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mulligan.config import MOST_ATTEMPTS
from mulligan.errors import ConfigError
from mulligan.evaluation.intervals import Interval, bootstrap_ratio
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


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` out of `total` attempts; `interval` is None when there were no such attempts."""

    count: int
    total: int
    interval: Interval | None

    def to_json(self, count: str = "count", total: str = "total") -> dict[str, float | int | None]:
        empty = {"mean": None, "low": None, "high": None, "n": 0}
        return {count: self.count, total: self.total, **(self.interval.to_json() if self.interval else empty)}


@dataclass(frozen=True, slots=True)
class AttemptFigures:
    """Rates by attempt number (from 1) and over all attempts, out of one dialogue per problem.

    `conditional_success[t]`: correct at attempt t, out of dialogues that reached it (with a graded attempt).
    `repeats[t]`: attempt t gave an answer already known to be wrong in its dialogue, out of the answers given at attempt t >= 2.
    `no_answer[t]`, `truncated[t]`: ended without an answer by itself, or by a token cap; out of all attempts t.
    """

    conditional_success: Mapping[int, Rate]
    repeats: Mapping[int, Rate]
    no_answer: Mapping[int, Rate]
    truncated: Mapping[int, Rate]
    repeats_overall: Rate
    no_answer_overall: Rate
    truncated_overall: Rate


def attempt_figures(rollouts: Sequence[Rollout], largest: int) -> AttemptFigures:
    """Rates over dialogues (one per problem) that allowed up to `largest` attempts."""
    numbers = range(1, largest + 1)
    repeated = [repeats_of(r.attempts) for r in rollouts]
    by_problem = [list(zip(r.attempts, flags, strict=True)) for r, flags in zip(rollouts, repeated, strict=True)]

    def rate(hit: Callable[[Attempt, bool], bool], among: Callable[[Attempt], bool], t: int | None) -> Rate:
        chosen = [[(a, again) for a, again in pairs if (t is None or a.index == t) and among(a)] for pairs in by_problem]
        return rate_of([sum(hit(a, again) for a, again in pairs) for pairs in chosen], [len(pairs) for pairs in chosen])

    def graded(a: Attempt) -> bool:
        return a.outcome is not Outcome.UNGRADABLE

    def second_answer(a: Attempt) -> bool:
        return a.index > 1 and a.outcome in (Outcome.CORRECT, Outcome.WRONG) and a.verdict.answer is not None

    def every(_: Attempt) -> bool:
        return True

    def is_outcome(wanted: Outcome) -> Callable[[Attempt, bool], bool]:
        return lambda a, _: a.outcome is wanted

    return AttemptFigures(
        conditional_success={t: rate(is_outcome(Outcome.CORRECT), graded, t) for t in numbers},
        repeats={t: rate(lambda _, again: again, second_answer, t) for t in numbers if t > 1},
        no_answer={t: rate(is_outcome(Outcome.NO_ANSWER), every, t) for t in numbers},
        truncated={t: rate(is_outcome(Outcome.TRUNCATED), every, t) for t in numbers},
        repeats_overall=rate(lambda _, again: again, second_answer, None),
        no_answer_overall=rate(is_outcome(Outcome.NO_ANSWER), every, None),
        truncated_overall=rate(is_outcome(Outcome.TRUNCATED), every, None),
    )


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
    """The answer's identity for counting repeats: white space, dollar signs, a closing full stop and LaTeX spacing do not count.

    Purely textual on purpose: 1/2 and 0.5 count as different attempts, so the repeat rate is a lower bound.
    """
    bare = re.sub(r"\\[,;:! ]|\\left(?![a-z])|\\right(?![a-z])|[\s$]", "", text)
    return bare.removesuffix(".") or text.strip()


def rate_of(hits_P: Sequence[int], totals_P: Sequence[int]) -> Rate:
    count, total = sum(hits_P), sum(totals_P)
    interval = bootstrap_ratio(np.asarray(hits_P), np.asarray(totals_P)) if total else None
    return Rate(count, total, interval)
