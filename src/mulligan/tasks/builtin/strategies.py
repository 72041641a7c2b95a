"""Strategies whose accuracy is known exactly: the labels of the built-in tasks' ceilings, and the best independent sampling."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate

BEST = "best possible"
INDEPENDENT = "best independent sampling"
LIST = "best fixed list of answers"
"""The k commonest gold answers, one an attempt, whatever the question."""
BLIND = "best sampling blind to the question"
"""k independent draws from one distribution over answers for all questions."""

Ceilings = dict[str, dict[int, float]]
"""label -> number of attempts -> accuracy in [0, 1]."""


def shows(shown: Collection[str] | None, *fields: str) -> bool:
    """Whether the feedback shows all of these fields of the verdict; None: it may show any."""
    return shown is None or set(fields) <= set(shown)


def best_shares(weights: Sequence[float], k: int) -> list[float]:
    """The distribution q over hidden things of which k independent draws are likeliest to hold the right one.

    Maximises sum_i p_i (1 - (1 - q_i)^k) over the simplex, with the weights p positive and falling. With a multiplier the active things
    satisfy 1 - q_i = m p_i^(-1/(k-1)), and sum_i q_i = 1 fixes m; those too rare to be worth a share get q_i = 0.
    """
    if k == 1:
        return [1.0] + [0.0] * (len(weights) - 1)
    cost = [weight ** (-1 / (k - 1)) for weight in weights]  # rising, since the weights fall
    sums = list(accumulate(cost))
    active = max(m for m in range(1, len(cost) + 1) if (m - 1) * cost[m - 1] < sums[m - 1])
    scale = (active - 1) / sums[active - 1]
    return [1 - scale * c for c in cost[:active]] + [0.0] * (len(cost) - active)


def drawn_within(weights: Sequence[float], shares: Sequence[float], k: int) -> float:
    """The chance that k independent draws by `shares` hold a thing drawn by `weights`."""
    return sum(weight * (1 - (1 - share) ** k) for weight, share in zip(weights, shares, strict=True))


def drawn_of(size: int, k: int) -> float:
    """The chance that k uniform draws hold one of `size` equally likely things."""
    return 1 - (1 - 1 / size) ** k
