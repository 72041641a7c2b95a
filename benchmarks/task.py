"""The task of the training suites: sums whose answers are judged by a seeded coin, so that every contender does the same work."""

from __future__ import annotations

import random
from collections import Counter

from mulligan.types import Problem, Verdict, VerdictKind

SYSTEM = "Put your final answer within \\boxed{}."
FEEDBACK = "That answer is wrong. Please try again. You have {n} attempt{s} left."
WRONG_REWARD, DISCOUNT = -0.5, 0.9
"""A success at attempt t is worth DISCOUNT^(t-1): groups in which all succeed still have something to learn from."""


def problems(step: int, count: int) -> list[Problem]:
    """The sums of one step. Two digits each: prompts of equal length."""
    rng = random.Random(f"problems {step}")
    return [Problem(id=f"{step}-{i}", question=f"What is {rng.randint(10, 99)} + {rng.randint(10, 99)}?", answer="0") for i in range(count)]


def messages(problem: Problem) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": problem.question}]


class Coin:
    """The k-th attempt at a problem is right with probability `right`: a function of the problem and k.

    When the dialogues go in step, as they do where every attempt has the same length, the number of right answers among the
    first, second, ... attempts at a problem is the same whichever dialogue asks first.
    """

    def __init__(self, right: float):
        self.right = right
        self._asked: Counter[str] = Counter()

    def toss(self, problem: Problem) -> bool:
        self._asked[problem.id] += 1
        return random.Random(f"{problem.id} {self._asked[problem.id]}").random() < self.right


class CoinGrader:
    """The coin behind mulligan's `Grader` interface."""

    def __init__(self) -> None:
        self.coin = Coin(0.0)

    async def grade(self, problem: Problem, text: str) -> Verdict:
        return Verdict(VerdictKind.CORRECT if self.coin.toss(problem) else VerdictKind.WRONG, answer="0")

    def close(self) -> None:
        pass
