"""What the policy gets to see of its own failed attempts: the dialogue as it is, or one of the controls' versions of it.

Each control takes one thing away that learning from failure needs, and leaves the rest (the question, the number of attempts, an end
at the first right answer). What is gained all the same was not learned from that thing.

- `normal`: the earlier attempts, and after each the feedback of the recipe. With `protocol.history = "none"` this *is* history_blind, and every
  control leaves it so: no verdict and no history can be taken from a policy that is shown none (false and random verdicts still end dialogues).
- `history_blind`: every attempt sees the question and the number of attempts left, and none of the earlier attempts. A retry schedule
  ("with three left, try the second reading") gains without learning from anything.
- `verdict_hidden`: the earlier attempts, but instead of the feedback a plain request for another one.
- `random_verdict`: the feedback, and the end, follow the verdict that an attempt of the same number got on another problem. The last
  answer counts: nobody can tell the dialogue where to end.
- `other_history`: the earlier attempts, and the verdicts on them, are those of another problem's dialogue.
- `false_wrong`: a right answer is told to be wrong, and the dialogue goes on to the end of its budget: does the policy give it up?

Pure: every draw is a function of a key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from random import Random

from mulligan.config import CONTROLS
from mulligan.errors import ConfigError
from mulligan.protocol import Protocol, draw_key
from mulligan.types import Attempt, Group, Outcome, Problem, Rollout, Verdict, VerdictKind

CONDITIONS = ("normal", *CONTROLS)
NEED_DONORS = ("random_verdict", "other_history", "false_wrong")


class Condition:
    """The view of one dialogue. `donors`: dialogues of the normal condition, on these or other problems, that lend verdicts or a history.

    Raises:
        ConfigError: an unknown name, or a control that borrows without anything to borrow from.
    """

    def __init__(self, name: str, protocol: Protocol, donors: Sequence[Group] = ()):
        if name not in CONDITIONS:
            raise ConfigError(f"control {name!r} is not known; use {', '.join(CONTROLS)}")
        self.donors = [r for group in donors for r in group.rollouts if r.trainable]
        if name in NEED_DONORS and not self.donors:
            raise ConfigError(f"control {name!r} borrows from other dialogues, and there are none: evaluate the normal condition first")
        blind = protocol.config.history == "none"
        self.name = "history_blind" if blind and name == "normal" else name
        self.shows_nothing = blind or name == "history_blind"
        """Whether an attempt sees the question and the number of attempts left, and no more."""
        self.protocol = protocol

    @property
    def fresh_contexts(self) -> bool:
        """Whether every attempt after the first begins a context of its own."""
        return self.shows_nothing or self.name == "other_history"

    def told(self, problem: Problem, attempt: Attempt, key: int) -> Attempt:
        """The attempt as the policy is told of it: its own text, and the verdict that feedback and end go by."""
        if attempt.outcome is Outcome.UNGRADABLE:
            return attempt
        if self.name == "random_verdict":
            return self._borrowed(problem, attempt, key)
        if self.name == "false_wrong" and attempt.outcome is Outcome.CORRECT:
            return self._denied(problem, attempt, key)
        return attempt

    def feedback(self, problem: Problem, told: Sequence[Attempt], attempts_left: int) -> str:
        if self.name == "verdict_hidden":
            return self.protocol.hidden_feedback(attempts_left)
        return self.protocol.feedback(problem, told, attempts_left)

    def foreign(self, problem: Problem, count: int, key: int) -> tuple[Rollout, int]:
        """A dialogue on another problem, and how many of its first attempts, all failed, to show: `count`, or fewer where nobody failed
        so often."""
        others = self._others(problem)
        most = min(count, max(map(_failures, others)))
        return Random(key).choice([r for r in others if _failures(r) >= most]), most

    def _others(self, problem: Problem) -> list[Rollout]:
        """Donors on other problems; all of them where there is but one problem."""
        return [r for r in self.donors if r.problem.id != problem.id] or self.donors

    def _borrowed(self, problem: Problem, last: Attempt, key: int) -> Attempt:
        """The attempt with the verdict that another problem's attempt of this number got (of any number, where none got so far)."""
        others = self._others(problem)
        same = [r.attempts[last.index - 1] for r in others if len(r.attempts) >= last.index]
        lender = Random(key).choice(same or [a for r in others for a in r.attempts])
        return dataclasses.replace(last, stop=lender.stop, verdict=dataclasses.replace(lender.verdict, answer=last.verdict.answer))

    def _denied(self, problem: Problem, last: Attempt, key: int) -> Attempt:
        """A right attempt as a wrong one. What else a wrong verdict says (a hint) is borrowed from a wrong attempt on another problem;
        where the feedback needs that and nobody was wrong, the attempt stays right."""
        wrong = [a for r in self.donors if r.problem.id != problem.id for a in r.attempts if a.outcome is Outcome.WRONG]
        if not wrong and self.protocol.feedback_fields:
            return last
        fields = Random(key).choice(wrong).verdict.fields if wrong else {}
        return dataclasses.replace(last, verdict=Verdict(VerdictKind.WRONG, last.verdict.answer, fields=fields))


def attempt_key(key: int, index: int, purpose: str) -> int:
    """A key of its own for attempt `index` of the dialogue with `key`: a new context's tokens, or a draw among donors."""
    return draw_key(f"{purpose}:{key}", 0, "", index)


def _failures(rollout: Rollout) -> int:
    """Failed attempts, which are a dialogue's first ones: it ends at its first success."""
    return sum(a.outcome not in (Outcome.CORRECT, Outcome.UNGRADABLE) for a in rollout.attempts)
