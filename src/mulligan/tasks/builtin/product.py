"""`builtin:product`: products of two-digit numbers.

With the verdict alone, no gain of several attempts over resampling is expected (the honest null); the field `hint` names the
first wrong digit, for recipes that show it.
"""

from __future__ import annotations

import functools
import random
from typing import Any, Literal

from mulligan.tasks.builtin.answers import INVALID, boxed_answer, by_hash, check_count, judged, no_answer, whole_number
from mulligan.tasks.builtin.vocabulary import spaced
from mulligan.tasks.problems import make_problem
from mulligan.types import Problem, Verdict

GRADER = "mulligan.tasks.builtin.product:grade"
HELD_OUT = 500
"""Of the 4,095 unordered pairs of factors 10 to 99: `a*b` and `b*a` are on the same side of the split."""


@functools.lru_cache(maxsize=1)
def split_pairs() -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Training and held-out pairs; the cut is fixed, whatever the seed."""
    shuffled = by_hash((f"{a}*{b}" for a in range(10, 100) for b in range(a, 100)), "product")
    pairs = [(int(text[:2]), int(text[3:])) for text in shuffled]
    return tuple(pairs[HELD_OUT:]), tuple(pairs[:HELD_OUT])


def generate(
    *,
    n: int | None = None,
    split: Literal["train", "test"] = "train",
    seed: int = 0,
    style: Literal["tokens", "words"] = "tokens",
    source: str = "builtin:product",
) -> list[Problem]:
    """Products `a * b`, the factors in random order: the held-out pairs once each (test; the first n, if given), or n draws from
    the training pairs (train; 20,000 unless given)."""
    check_count(n)
    rng = random.Random(f"product/{split}/{seed}")
    train, test = split_pairs()
    pairs = list(test[:n]) if split == "test" else rng.choices(train, k=n or 20_000)
    problems = []
    for index, pair in enumerate(pairs):
        a, b = pair if rng.random() < 0.5 else pair[::-1]
        meta: dict[str, Any] = {"a": a, "b": b} | ({"draw": index} if split == "train" else {})
        question = f"{spaced(a)} * {spaced(b)}" if style == "tokens" else f"What is {a} * {b}?"
        problems.append(make_problem(question, str(a * b), GRADER, source, meta))
    return problems


def grade(problem: Problem, text: str) -> Verdict:
    """Field `hint`: `digit 3` (the first wrong one, from the left), `length` if the number of digits is wrong, else `invalid`."""
    answer = boxed_answer(text)
    if answer is None:
        return no_answer()
    number = whole_number(answer.replace(",", ""))
    if number is None or number < 0:
        return judged(False, answer, INVALID)
    given, gold = str(number), problem.answer
    if given == gold:
        return judged(True, given)
    if len(given) != len(gold):
        return judged(False, given, {"hint": "length"})
    place = next(i for i, (x, y) in enumerate(zip(given, gold, strict=True), start=1) if x != y)
    return judged(False, given, {"hint": f"digit {place}"})


def demonstrate(problem: Problem, rng: random.Random) -> str:
    """The two partial products and their sum; in half of the attempts one digit of a partial product is off.

    `4 7 * 1 5`: `4 7 * 5 = 2 3 5 + 4 7 * 1 0 = 4 7 0 \\boxed{7 0 5}`.
    """
    a, b = problem.meta["a"], problem.meta["b"]
    factors = (b % 10, b - b % 10)
    partial = [a * factor for factor in factors]
    if rng.random() < 0.5:
        which = rng.randrange(2)
        digits = list(str(partial[which]))
        place = rng.randrange(len(digits))
        digits[place] = rng.choice([d for d in "0123456789" if d != digits[place] and (place > 0 or d != "0" or len(digits) == 1)])
        partial[which] = int("".join(digits))
    working = " + ".join(f"{spaced(a)} * {spaced(f)} = {spaced(p)}" for f, p in zip(factors, partial, strict=True))
    return f"{working} \\boxed{{{spaced(sum(partial))}}}"
