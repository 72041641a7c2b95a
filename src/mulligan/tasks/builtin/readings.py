"""`builtin:readings`: an expression whose reading is hidden, so that the right answer may take several tries.

Four digits 1 to 9 and three operators of `+ - *`, every operation modulo 10. Each question hides one of four readings; only
expressions whose four readings give four different values are used (12,072 of them, of which 1,500 are held out). Whoever
tries the next likely reading after each failure solves 40, 70, 90, 100 % within 1 to 4 attempts; the best independent
sampling 40, 53, 65, 73 %.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mulligan.errors import ConfigError
from mulligan.tasks.builtin.answers import boxed_answer, by_hash, check_count, judged, no_answer, whole_number
from mulligan.tasks.builtin.strategies import BEST, INDEPENDENT, Ceilings, best_shares, drawn_within
from mulligan.tasks.builtin.vocabulary import spaced
from mulligan.tasks.problems import make_problem
from mulligan.types import Problem, Verdict

READINGS = ("standard", "left", "right", "sums")
"""Standard precedence; left to right; right to left; sums before products (left to right within a level)."""
WEIGHTS = (0.4, 0.3, 0.2, 0.1)
"""How often each reading is the hidden one."""
HELD_OUT = 1500
GRADER = "mulligan.tasks.builtin.readings:grade"

Values = Literal["mod10", "natural"]


# ------------------------------------------------------------------------------------------------------------- arithmetic


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: the operator's place in the expression (0 to 2), its operands and value, and what remains after it."""

    place: int
    left: Any
    operator: str
    right: Any
    value: Any
    numbers: tuple[Any, ...]
    operators: tuple[str, ...]


def order(reading: str, operators: Sequence[str]) -> list[int]:
    """The places of the operators in the order in which a reading applies them."""
    places = list(range(len(operators)))
    if reading == "left":
        return places
    if reading == "right":
        return places[::-1]
    products_last = reading == "sums"
    return sorted(places, key=lambda place: (operators[place] == "*") == products_last)


def steps(numbers: Sequence[Any], operators: Sequence[str], reading: str, modulus: int | None = 10) -> Iterator[Step]:
    """Work an expression out under a reading, one operation at a time; numbers may be arrays."""
    rest, names, places = list(numbers), list(operators), list(range(len(operators)))
    for place in order(reading, operators):
        i = places.index(place)
        left, right, operator = rest[i], rest[i + 1], names[i]
        value = left * right if operator == "*" else left + right if operator == "+" else left - right
        if modulus is not None:
            value = value % modulus
        rest[i : i + 2] = [value]
        del names[i], places[i]
        yield Step(place, left, operator, right, value, tuple(rest), tuple(names))


def evaluate(expression: str, reading: str, modulus: int | None = 10) -> int:
    """The value of an expression such as `3+4*2-6` under a reading."""
    return [step.value for step in steps(*parse(expression), reading, modulus)][-1]


def parse(expression: str) -> tuple[list[int], str]:
    """`3+4*2-6` as its digits and its operators."""
    return [int(digit) for digit in expression[::2]], expression[1::2]


@functools.lru_cache(maxsize=2)
def expressions(values: Values = "mod10") -> dict[str, tuple[int, ...]]:
    """Every expression whose four readings differ, with its four values in the order of READINGS.

    With natural numbers, expressions in which any reading meets a negative number are left out.
    """
    modulus = 10 if values == "mod10" else None
    digits = np.indices((9, 9, 9, 9)).reshape(4, -1) + 1
    found: dict[str, tuple[int, ...]] = {}
    for operators in itertools.product("+-*", repeat=3):
        natural = np.ones(digits.shape[1], dtype=bool)
        results = []
        for reading in READINGS:
            worked = list(steps(tuple(digits), operators, reading, modulus))
            natural &= np.all([step.value >= 0 for step in worked], axis=0)
            results.append(worked[-1].value)
        differ = np.all([a != b for a, b in itertools.combinations(results, 2)], axis=0)
        chosen = np.flatnonzero(differ & natural)
        o1, o2, o3 = operators
        for (a, b, c, d), four in zip(digits[:, chosen].T.tolist(), np.stack(results, axis=1)[chosen].tolist(), strict=True):
            found[f"{a}{o1}{b}{o2}{c}{o3}{d}"] = tuple(four)
    return found


@functools.lru_cache(maxsize=2)
def split_expressions(values: Values = "mod10") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and held-out expressions; the cut is fixed, whatever the seed."""
    shuffled = by_hash(expressions(values), f"readings/{values}")
    return tuple(shuffled[HELD_OUT:]), tuple(shuffled[:HELD_OUT])


# --------------------------------------------------------------------------------------------------------------- problems


def generate(
    *,
    n: int | None = None,
    split: Literal["train", "test"] = "train",
    seed: int = 0,
    values: Values = "mod10",
    style: Literal["tokens", "words"] = "tokens",
    source: str = "builtin:readings",
) -> list[Problem]:
    """Problems with hidden readings.

    Args:
        n: train: draws (60,000 unless given) that cycle over the shuffled training expressions, each with a fresh reading;
            test: the first n held-out expressions (all 1,500 unless given).
        split: train or test. On the test split the readings hold exact quotas (40, 30, 20, 10 %), so that the ceilings of
            `oracle_accuracy` are exact, not expected, values.
        seed: of the draws (train) or of which expression gets which reading (test).
        values: mod10, or natural numbers.
        style: tokens (the bare expression, for tiny models) or words (for language models).
        source: what to write into `Problem.source`.
    """
    check_count(n)
    rng = random.Random(f"readings/{split}/{seed}")
    train, test = split_expressions(values)
    table = expressions(values)
    if split == "test":
        count = min(n or len(test), len(test))
        drawn = list(zip(test[:count], quotas(count, rng), strict=True))
    else:
        drawn = list(_draws(train, n or 60_000, rng))
    problems = []
    for index, (expression, reading) in enumerate(drawn):
        # The draw's number keeps apart, in ids and in sampling keys, two draws of one expression.
        meta: dict[str, Any] = {"expression": expression, "reading": READINGS[reading]}
        if split == "train":
            meta["draw"] = index
        if values != "mod10":
            meta["values"] = values
        problems.append(make_problem(_question(expression, values, style), str(table[expression][reading]), GRADER, source, meta))
    return problems


def quotas(count: int, rng: random.Random) -> list[int]:
    """`count` readings in the exact proportions WEIGHTS (largest remainders), shuffled."""
    shares = [count * weight for weight in WEIGHTS]
    counts = [int(share + 1e-9) for share in shares]
    for reading in sorted(range(len(WEIGHTS)), key=lambda i: counts[i] - shares[i])[: count - sum(counts)]:
        counts[reading] += 1
    readings = [reading for reading, times in enumerate(counts) for _ in range(times)]
    rng.shuffle(readings)
    return readings


def _draws(train: Sequence[str], n: int, rng: random.Random) -> Iterator[tuple[str, int]]:
    readings = iter(rng.choices(range(len(WEIGHTS)), WEIGHTS, k=n))
    while True:
        for expression in rng.sample(train, len(train)):
            reading = next(readings, None)
            if reading is None:
                return
            yield expression, reading


def _question(expression: str, values: Values, style: str) -> str:
    if style == "tokens":
        return expression
    modulo = "Every operation is taken modulo 10, so the value is a single digit. " if values == "mod10" else ""
    return (
        "An expression is read by a hidden rule, one of four: standard precedence, strictly left to right, strictly right to left, "
        f"or sums and differences before products. {modulo}What is the value of {expression} under the hidden rule?"
    )


def grade(problem: Problem, text: str) -> Verdict:
    r"""Compare the whole number in the last `\boxed{}` with the gold value."""
    answer = boxed_answer(text)
    if answer is None:
        return no_answer({})
    return judged(whole_number(answer) == int(problem.answer), answer)


def demonstrate(problem: Problem, rng: random.Random, *, working: Literal["results", "rewrite"] = "results") -> str:
    r"""One attempt under a reading drawn at random, all four alike: a short working, then the box.

    Each step starts with the marker of the operator that it reduces (`@2`: the second of the expression). Then `results` (the
    default, 8 tokens) writes the value of the operation, `@2 8 @1 1 @3 \boxed{6}`, and `rewrite` (14 tokens) what remains of the
    expression, `@2 3+8-5 @1 1-5 @3 \boxed{6}`; the last value stands in the box.
    """
    modulus = 10 if problem.meta.get("values", "mod10") == "mod10" else None
    *first, last = steps(*parse(problem.meta["expression"]), rng.choice(READINGS), modulus)
    parts = []
    for step in first:
        rest = itertools.chain(*itertools.zip_longest(map(spaced, step.numbers), step.operators, fillvalue=""))
        parts.append(f"@{step.place + 1} {spaced(step.value) if working == 'results' else ''.join(rest)}")
    return f"{' '.join(parts)} @{last.place + 1} \\boxed{{{spaced(last.value)}}}"


# --------------------------------------------------------------------------------------------------------------- ceilings


def oracle_accuracy(k: int) -> float:
    """Accuracy with k attempts of whoever works without slips and tries the next likely reading after each failure."""
    if k < 1:
        raise ConfigError(f"k={k} must be at least 1")
    return round(sum(WEIGHTS[:k]), 12)


def best_independent(k: int) -> float:
    """The best accuracy that k independent samples from one distribution over the readings can have (see `strategies.best_shares`)."""
    if k < 1:
        raise ConfigError(f"k={k} must be at least 1")
    return drawn_within(WEIGHTS, best_shares(WEIGHTS, k), k)


def ceilings(problems: Sequence[Problem], attempts: Sequence[int], shown: Collection[str] | None = frozenset()) -> Ceilings:
    """The two strategies of `oracle_accuracy` and `best_independent` on exactly these problems, by how often each reading is the hidden one.

    A verdict says only that a reading is wrong, so nothing depends on `shown`. Trying the readings by likelihood needs the number of the
    attempt alone: a policy that is blind to its history can reach the best possible here.
    """
    counts = Counter(problem.meta["reading"] for problem in problems)
    weights = [counts[reading] / len(problems) for reading in READINGS]
    return {
        BEST: {k: round(sum(weights[:k]), 12) for k in attempts},
        INDEPENDENT: {k: round(drawn_within(weights, best_shares(WEIGHTS, k), k), 12) for k in attempts},
    }
