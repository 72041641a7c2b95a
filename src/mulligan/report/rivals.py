"""Which rivals are other models, and which are the same ones once more: evaluated otherwise, they say nothing of what training did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mulligan.evaluation.arms import Arm, arm_fingerprint, model_of


def same_models(a: Arm, b: Arm) -> bool:
    """Whether two arms are evaluations of the same models: told in other words, say, or sampled at other temperatures."""
    if a is b:
        return True
    models = [m.model for m in a.members]
    if not all(models) or models != [m.model for m in b.members]:
        return False
    return not any(one.run and other.run and arm_fingerprint(one.run) != arm_fingerprint(other.run) for one, other in zip(a.members, b.members, strict=True))


def same_samples(a: Arm, b: Arm) -> bool:
    """Whether two arms are evaluations of the same models that drew the same samples: no rivals of each other."""
    if a is b:
        return True
    if not same_models(a, b) or not (a.has_values and b.has_values):
        return False
    shared = [name for name in a.problem_sets if name in b.problem_sets and a.problems(name) == b.problems(name) and a.ks(name, "passed") == b.ks(name, "passed") != []]
    return bool(shared) and all(
        np.array_equal(*(arm.cells(name, "passed", a.ks(name, "passed"), a.problems(name)) for arm in (a, b)), equal_nan=True) for name in shared
    )


def given_rivals(arm: Arm, problem_set: str) -> dict[str, list[Mapping[str, Any]]]:
    """label -> figures, of each seed, of the rivals that the evaluations of all its seeds were given."""
    tables = [m.problem_sets[problem_set].get("rivals") or {} for m in arm.members]
    return {label: [table[label] for table in tables] for label in tables[0] if all(label in table for table in tables)}


def is_own_model(arm: Arm, problem_set: str, label: str) -> bool | None:
    """Whether a rival that the arm's evaluations were given is a model of the arm, of whichever seed. None: not known; evaluations of earlier versions do
    not say which model a rival is."""
    own = {m.model for m in arm.members}
    rivals = {model_of(figures) for figures in given_rivals(arm, problem_set).get(label, [])}
    if (own & rivals) - {""}:
        return True
    return None if "" in own | rivals else False
