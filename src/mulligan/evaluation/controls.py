"""Controls: the same dialogues with one thing changed, to see what the failed attempts brought. What each of them changes is said in
`mulligan.conditions`, under which `mulligan.rollout` plays them; here are the figures that they give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mulligan.config import CONTROLS
from mulligan.evaluation.attempts import Rate, rate_of
from mulligan.evaluation.compare import share_kept
from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.values import Curves, Values, differences_of, means_of
from mulligan.types import Attempt, Group, Outcome, Rollout

FALSE_WRONG = "false_wrong"
COMPARED = tuple(name for name in CONTROLS if name != FALSE_WRONG)
"""Controls whose accuracy stands beside that of the normal dialogues."""


def budgets_played(name: str, budgets: Sequence[int], one_pass: bool, headline: int) -> tuple[int, ...]:
    """The budgets with which a control is played, one dialogue a problem for each (`budgets` in rising order; `headline`: the one that single figures are
    given for).

    With random verdicts a dialogue cannot be counted up to attempt k: whether it went on says nothing of its answers.
    """
    if one_pass and name != "random_verdict":
        return (budgets[-1],)
    return (headline,) if name == FALSE_WRONG else tuple(budgets)


def control_faults(controls: Sequence[str], attempts: Sequence[int]) -> list[str]:
    """What is wrong with the controls that are asked for; empty if nothing."""
    faults = [f"control {name!r} is not known; use {', '.join(CONTROLS)}" for name in controls if name not in CONTROLS]
    if controls and max(attempts, default=2) < 2:
        faults.append("controls change what a second attempt sees: evaluate with 2 attempts or more, or without controls")
    return faults


@dataclass(frozen=True, slots=True, eq=False)
class ControlFigures:
    """One control beside the normal dialogues. `difference` is control - normal, paired over problems; `gain_kept` the share of the
    normal `rise` that is left, None where that is not clear of zero, or K alone was evaluated."""

    accuracy: Mapping[int, Interval]
    difference: Mapping[int, Interval]
    gain_kept: Interval | None
    tokens_per_problem: Mapping[int, Interval]
    curves: Curves = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "accuracy": {str(k): interval.to_json() for k, interval in self.accuracy.items()},
            "difference": {str(k): interval.to_json() for k, interval in self.difference.items()},
            "gain_kept": self.gain_kept.to_json() if self.gain_kept else None,
            "tokens_per_problem": {str(k): interval.to_json() for k, interval in self.tokens_per_problem.items()},
        }


FALSE_WRONG_COUNTS = {"kept": ("false_wrong:kept", "false_wrong:told"), "returned": ("false_wrong:returned", "false_wrong:told")}
"""Of each rate (by its name in eval.json) what is counted, and out of what: quantities of values.parquet."""


@dataclass(frozen=True, slots=True, eq=False)
class FalseWrong:
    """Of the right answers that were told to be wrong: how many stand at the very next attempt, and at any later one.

    `counts[quantity]`: the problems' own numbers behind them, `_P`.
    """

    kept: Rate
    returned: Rate
    counts: Mapping[str, Values] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {"kept": self.kept.to_json(), "returned": self.returned.to_json()}


def control_figures(control: Curves, normal: Curves, rise: tuple[int, int] | None) -> ControlFigures:
    """`rise`: the two numbers of attempts, the fewest and K, between which the gain is counted; None: it is not."""
    return ControlFigures(
        accuracy=means_of(control.solved),
        difference=differences_of(control.solved, normal.solved),
        gain_kept=gain_kept(control.solved, normal.solved, rise) if rise else None,
        tokens_per_problem=means_of(control.tokens, bounds=None),
        curves=control,
    )


def gain_kept(control: Mapping[int, Values], normal: Mapping[int, Values], rise: tuple[int, int]) -> Interval | None:
    """(control_K - control_1) / (normal_K - normal_1), with a bootstrap over problems of the whole ratio.

    None where the normal rise is not clear of zero: there is nothing to keep a share of, and the ratio is unbounded. Resamples without
    a rise (they are rare then) are left out. Where no problem rises under the control, or every problem does exactly as without it, no
    resample differs; what so many problems cannot have shown (see `intervals`) is then taken as a share of the normal rise.
    """
    first, last = rise
    cells_P4 = np.stack([normal[first], normal[last], control[first], control[last]], axis=1)
    cells_P4 = cells_P4[~np.isnan(cells_P4).any(axis=1)]
    return share_kept([cells_P4[None]]) if len(cells_P4) else None


def curves_of(groups: Mapping[int, Sequence[Group]], budgets: Sequence[int]) -> Curves:
    """Solved, tokens and attempts for each budget, out of one dialogue per problem for each budget, or of the largest counted up to attempt k.

    All NaN for a dialogue that could not be graded: it ended there, and would have cost more.
    """
    rollouts = {k: [g.rollouts[0] for g in groups.get(k, groups[max(groups)])] for k in budgets}
    solved = {k: np.array([solved_within(r, k) for r in rollouts[k]]) for k in budgets}
    return Curves(
        solved,
        {k: _where_graded([sum(a.num_tokens for a in r.attempts if a.index <= k) for r in rollouts[k]], solved[k]) for k in budgets},
        {k: _where_graded([min(len(r.attempts), k) for r in rollouts[k]], solved[k]) for k in budgets},
    )


def _where_graded(counts: Sequence[int], solved_P: Values) -> Values:
    return np.where(np.isnan(solved_P), np.nan, np.array(counts, dtype=np.float64))


def solved_within(rollout: Rollout, k: int) -> float:
    """1 if solved by attempt k (the last attempt, where the dialogue was played with budget k), else 0; NaN if the grader failed at one
    of the first k attempts."""
    if any(a.outcome is Outcome.UNGRADABLE and a.index <= k for a in rollout.attempts):
        return float("nan")
    return float(rollout.solved_at is not None and rollout.solved_at <= k)


def false_wrong(rollouts: Sequence[Rollout], budget: int) -> FalseWrong:
    """From dialogues (one per problem) that go on after a right answer, of those with a larger budget the first `budget` attempts; those that gave
    none, could not go on, or hold an ungradable attempt take no part."""
    later = [_after_first_right(r.attempts[:budget]) for r in rollouts]
    counts = {
        "false_wrong:told": np.array([float(bool(rights)) for rights in later]),
        "false_wrong:kept": np.array([float(rights[0]) if rights else 0.0 for rights in later]),
        "false_wrong:returned": np.array([float(any(rights)) for rights in later]),
    }
    return FalseWrong(**{name: rate_of(counts[hits], counts[total]) for name, (hits, total) in FALSE_WRONG_COUNTS.items()}, counts=counts)


def _after_first_right(attempts: Sequence[Attempt]) -> list[bool]:
    """Whether each attempt after the first right one is right."""
    outcomes = [a.outcome for a in attempts]
    if Outcome.UNGRADABLE in outcomes or Outcome.CORRECT not in outcomes:
        return []
    return [outcome is Outcome.CORRECT for outcome in outcomes[outcomes.index(Outcome.CORRECT) + 1 :]]
