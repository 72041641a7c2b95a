"""What an arm's problem sets can show (`evaluation.power`), for each seed that says something: as its evaluation found it, else from its values per problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mulligan.evaluation.arms import Arm
from mulligan.evaluation.attempts import headline_budget
from mulligan.evaluation.comparison import ACCURACY, PASS, Measure, seed_pairs, shared_ks, shared_problems
from mulligan.evaluation.power import power_of
from mulligan.report.evidence import Evidence


def power(evidence: Evidence, arm: Arm, place: str, of: Literal["rise", "gain"]) -> list[Mapping[str, Any]]:
    """Of the rise from the fewest attempts evaluated to K, or of the gain over the seed's own pass@K."""
    accuracy = evidence.values(arm, ACCURACY, place)
    k, start = headline_budget(accuracy, arm.trained_attempts), min(accuracy, default=1)  # none: the seeds share no figure
    key, bottom = ("power", (ACCURACY, start)) if of == "rise" else ("gain_power", (PASS, k))
    found = []
    for seed in arm.seeds():
        said = evidence.table(seed, place, key) if all(rise in (None, [start, k]) for rise in evidence.table(seed, place, "rise")) else []
        found += said or _between(place, seed, k, seed, bottom)
    return found


def power_against(evidence: Evidence, arm: Arm, other: Arm, place: str) -> list[Mapping[str, Any]]:
    """Of accuracy@K - the other arm's pass@K, for each seed that both have; with the number of `problems` that both saw."""
    k = evidence.budget(arm, place)
    ours, theirs = arm.seeds(), other.seeds()
    return [power for i, j in seed_pairs(arm, other) for power in _between(place, ours[i], k, theirs[j], (PASS, k))]


def _between(place: str, arm: Arm, k: int, other: Arm, bottom: tuple[Measure, int]) -> list[Mapping[str, Any]]:
    sides = [(arm, ACCURACY, k), (other, *bottom)]
    if any(not one.has_values or place not in one.problem_sets or k not in shared_ks([(one, measure)], [place]) for one, measure, k in sides):
        return []
    problems = shared_problems([arm, other], place)
    a_P, b_P = (one.cells(place, measure[0][0], [k], problems)[0, :, 0] for one, measure, k in sides)
    found = power_of(a_P, b_P)
    return [found.to_json() | {"problems": len(problems)}] if found else []
