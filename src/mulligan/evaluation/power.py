"""How many problems a difference needs, before or after a run: the paired z-test's usual approximation.

The mean of n paired differences with standard deviation s has the standard error s / sqrt(n). A difference d is seen (its 95 % interval
leaves 0 out) with probability `power` if d = (z_{1 - level/2} + z_power) s / sqrt(n), hence n = ((z_{1 - level/2} + z_power) s / d)^2 (Cohen 1988,
"Statistical Power Analysis for the Behavioral Sciences", ch. 2). With 80 % power at the 5 % level the sum of the two quantiles is 2.80.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from mulligan.evaluation.values import Values

POINTS = (3, 5)
"""Differences, in percentage points, for which an evaluation says how many problems they need."""
ASSUMED_DEVIATION = 0.5
"""Where nothing was measured: every fourth problem ends otherwise under the other model, budget or condition."""


def problems_needed(deviation: float, difference: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """Problems that a paired difference needs to be seen.

    Args:
        deviation: standard deviation over problems of the paired difference, in [0, 1]. Before a run: the square root of the share of
            problems that are expected to end differently (0.5 for a quarter of them). Two models on different problems: sqrt(p (1 - p) + q (1 - q)).
        difference: to be seen, as a fraction (0.05 for five points).
        power: the chance of seeing it; `level`: of the two-sided test.

    Raises:
        ValueError: a difference of 0, a negative deviation, or a power or level outside (0, 1).
    """
    if not difference:
        raise ValueError("difference = 0: no number of problems shows that there is none")
    return max(2, math.ceil((_quantiles(power, level) * _checked(deviation) / difference) ** 2 - 1e-9))


def detectable_difference(deviation: float, problems: int, *, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest paired difference (a fraction) that so many problems show; arguments as `problems_needed`.

    Raises:
        ValueError: no problems, a negative deviation, or a power or level outside (0, 1).
    """
    if problems < 1:
        raise ValueError(f"problems = {problems}: at least 1 is needed")
    return _quantiles(power, level) * _checked(deviation) / math.sqrt(problems)


@dataclass(frozen=True, slots=True)
class Power:
    """What a problem set can show of a difference whose standard deviation over problems is `deviation`: `problems_for[points]` problems
    for so many points, `detectable` the smallest difference (a fraction) that this set shows; 80 % power, 5 % level."""

    deviation: float
    problems_for: Mapping[int, int]
    detectable: float

    def to_json(self) -> dict[str, Any]:
        return {"deviation": self.deviation, "problems_for": {str(p): n for p, n in self.problems_for.items()}, "detectable": self.detectable}


_NO_SPREAD = 1e-9
"""Differences that are equal but for rounding do not vary."""


def power_of(a_P: Values, b_P: Values) -> Power | None:
    """From the differences a - b that were measured; None where they do not vary (nothing says how much they would elsewhere)."""
    differences_P = (a_P - b_P)[~np.isnan(a_P - b_P)]
    deviation = float(np.std(differences_P, ddof=1)) if len(differences_P) > 1 else 0.0
    if deviation < _NO_SPREAD:
        return None
    return Power(deviation, {p: problems_needed(deviation, p / 100) for p in POINTS}, detectable_difference(deviation, len(differences_P)))


def assumed_power(problems: int) -> Power:
    """Where nothing was measured, or nothing varied: with `ASSUMED_DEVIATION`."""
    return Power(ASSUMED_DEVIATION, {p: problems_needed(ASSUMED_DEVIATION, p / 100) for p in POINTS}, detectable_difference(ASSUMED_DEVIATION, problems))


def _quantiles(power: float, level: float) -> float:
    if not (0 < power < 1 and 0 < level < 1):
        raise ValueError(f"power = {power}, level = {level}: both must lie between 0 and 1")
    return NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)


def _checked(deviation: float) -> float:
    if deviation < 0 or not math.isfinite(deviation):
        raise ValueError(f"deviation = {deviation}: give the standard deviation of the paired differences, 0 or more")
    return deviation
