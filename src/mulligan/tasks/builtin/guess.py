"""`builtin:guess`: a hidden number, and after each wrong guess the hint whether it is higher or lower.

With the hint, bisection solves 1, 3, 7, 15 of 15 numbers within 1 to 4 attempts; with the verdict alone nothing beats
leaving out what was tried (k of 15).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any, Literal

from mulligan.errors import ConfigError
from mulligan.tasks.builtin.answers import INVALID, boxed_answer, check_count, judged, no_answer, whole_number
from mulligan.tasks.builtin.strategies import BEST, INDEPENDENT, Ceilings, drawn_of, shows
from mulligan.tasks.problems import make_problem
from mulligan.types import Problem, Verdict

GRADER = "mulligan.tasks.builtin.guess:grade"


def generate(
    *,
    n: int | None = None,
    split: Literal["train", "test"] = "train",
    seed: int = 0,
    low: int = 1,
    high: int = 15,
    ranges: int = 1,
    step: int = 20,
    style: Literal["tokens", "words"] = "tokens",
    source: str = "builtin:guess",
) -> list[Problem]:
    """Hidden numbers from `low` to `high`: on the test split each once, in order (the first n, if given); on the train split
    n random draws (20,000 unless given). The question is the same throughout; with several `ranges` (the first from `low` to `high`, each of
    the others `step` above the one before) it says which, and must be read."""
    check_count(n)
    if not 0 <= low < high:
        raise ConfigError(f"low={low}, high={high}: low must be at least 0 and below high")
    if ranges < 1 or (ranges > 1 and step <= high - low):
        raise ConfigError(f"ranges={ranges}, step={step}: at least one range is needed, and a step above high - low = {high - low}, so that no two overlap")
    rng = random.Random(f"guess/{split}/{seed}")
    numbers = [(number + i * step, low + i * step) for i in range(ranges) for number in range(low, high + 1)]
    hidden = numbers[:n] if split == "test" else rng.choices(numbers, k=n or 20_000)
    problems = []
    for index, (number, first) in enumerate(hidden):
        last = first + high - low
        question = f"guess {first} {last}" if style == "tokens" else f"I am thinking of a whole number from {first} to {last}. Which number is it?"
        # The draw's number keeps apart, in ids and in sampling keys, two draws of one hidden number.
        meta: dict[str, Any] = {"low": first, "high": last} | ({"draw": index} if split == "train" else {})
        problems.append(make_problem(question, str(number), GRADER, source, meta))
    return problems


def grade(problem: Problem, text: str) -> Verdict:
    """Field `hint`: `higher` or `lower` as the hidden number is, `invalid` for no number or one out of range."""
    answer = boxed_answer(text)
    if answer is None:
        return no_answer()
    guess, hidden = whole_number(answer), int(problem.answer)
    if guess is None or not problem.meta["low"] <= guess <= problem.meta["high"]:
        return judged(False, answer, INVALID)
    if guess == hidden:
        return judged(True, answer)
    return judged(False, answer, {"hint": "higher" if hidden > guess else "lower"})


def demonstrate(problem: Problem, rng: random.Random) -> str:
    """A guess drawn uniformly from the whole range, whatever was learned before."""
    return f"\\boxed{{{rng.randint(problem.meta['low'], problem.meta['high'])}}}"


def oracle_accuracy(k: int, low: int = 1, high: int = 15, feedback: Literal["hint", "verdict"] = "hint") -> float:
    """The best accuracy with k attempts over all hidden numbers: by bisection with the hint, by exclusion with the verdict alone."""
    if k < 1:
        raise ConfigError(f"k={k} must be at least 1")
    size = high - low + 1
    return min(2**k - 1 if feedback == "hint" else k, size) / size


def fitting_accuracy(k: int, low: int = 1, high: int = 15) -> float:
    """What guessing at random among the numbers that fit every hint so far solves with k attempts, on average over all hidden numbers.

    A guess of the m-th of n numbers solves one and leaves m - 1 or n - m, so that S(n, k) = 1 + 2/n * sum over m < n of S(m, k - 1) are solved.
    """
    size = high - low + 1
    solved = [0.0] * (size + 1)  # within no attempt, by how many numbers still fit
    for _ in range(k):
        solved = [0.0, *(1 + 2 / n * sum(solved[:n]) for n in range(1, size + 1))]
    return solved[size] / size


def ceilings(problems: Sequence[Problem], attempts: Sequence[int], shown: Collection[str] | None = frozenset()) -> Ceilings:
    """Known where every number from low to high is hidden once (the test split), in one range or in several of one size. The best possible is bisection where the feedback shows
    `hint`, else exclusion; the other of the two stands beside it under its own name. Beside bisection stands guessing at random among the
    numbers that fit every hint so far: consistent, but no planning."""
    low, high = problems[0].meta["low"], problems[0].meta["high"]
    hidden = sorted((p.meta["low"], p.meta["high"], int(p.answer)) for p in problems)
    each = [(first, first + high - low, first + i) for first in sorted({p.meta["low"] for p in problems}) for i in range(high - low + 1)]
    if hidden != each:
        return {}
    bisection = {k: oracle_accuracy(k, low, high, "hint") for k in attempts}
    exclusion = {k: oracle_accuracy(k, low, high, "verdict") for k in attempts}
    independent = {k: drawn_of(high - low + 1, k) for k in attempts}
    if not shows(shown, "hint"):
        return {BEST: exclusion, INDEPENDENT: independent, "bisection, with the hint": bisection}
    fitting = {k: fitting_accuracy(k, low, high) for k in attempts}
    return {BEST: bisection, INDEPENDENT: independent, "random among the numbers that fit": fitting, "exclusion, with the verdict alone": exclusion}
