"""Dialogues written by hand, and a player that returns scripted ones, for tests of evaluation and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mulligan.sampling import SamplingParams
from mulligan.types import Attempt, Group, Problem, Rollout, StopReason, Transcript, Verdict, VerdictKind

CODES = {
    "c": (VerdictKind.CORRECT, StopReason.ANSWER),
    "w": (VerdictKind.WRONG, StopReason.ANSWER),
    "n": (VerdictKind.NO_ANSWER, StopReason.END_OF_TURN),
    "t": (VerdictKind.NO_ANSWER, StopReason.ATTEMPT_LENGTH),
    "u": (VerdictKind.UNGRADABLE, StopReason.ANSWER),
}


def problem(i: int) -> Problem:
    return Problem(id=f"p{i}", question=f"question {i}", answer="7", source="fake:set")


def rollout(p: Problem, script: Sequence[str], *, budget: int | None = None, step: int = 0, index: int = 0, error: str | None = None) -> Rollout:
    """One dialogue. An entry such as `c`, `w:12` or `t`: outcome, and the answer given (default 7 if correct, else w<i>).

    The prompt has 4 tokens, attempt t has t + 1 tokens, feedback 3.
    """
    transcript, attempts = Transcript(), []
    transcript.append_forced([1, 2, 3, 4])
    for t, entry in enumerate(script, 1):
        code, _, answer = entry.partition(":")
        kind, stop = CODES[code]
        start, end = transcript.append_sampled(list(range(10, 11 + t)), [-0.5] * (t + 1), [-0.25] * (t + 1))
        has_answer = kind in (VerdictKind.CORRECT, VerdictKind.WRONG)
        given = (answer or ("7" if code == "c" else f"w{t}")) if has_answer else None
        last = t == len(script)
        if not last:
            transcript.append_forced([5, 6, 5])
        attempts.append(
            Attempt(t, start, end, f"text {t}", stop, Verdict(kind, given, reason="late" if code == "u" else None, ms=1.5), None if last else "wrong")
        )
    rewards = tuple(1.0 if e.startswith("c") else 0.0 for e in script)
    return Rollout(p, transcript, tuple(attempts), budget or max(1, len(script)), rewards, step, index, policy_version=3, error=error)


Script = Callable[[int, int, int], Sequence[str]]


class FakePlayer:
    """`script(i, k, g)` gives the outcomes of rollout g of problem i under budget k (already ended where it should end); `conditions` the
    scripts of controls, where they differ. What the call asked for is in `calls[-1]` while the script runs."""

    def __init__(self, script: Script, errors: Sequence[int] = (), conditions: Mapping[str, Script] | None = None):
        self.script, self.errors, self.conditions = script, errors, conditions or {}
        self.calls: list[dict] = []

    @property
    def temperature(self) -> float:
        """Of the call that is being answered."""
        return self.calls[-1]["params"].temperature

    def play(
        self,
        problems,
        *,
        seed,
        step,
        group_size=1,
        budget=None,
        params: SamplingParams,
        stage="train",
        on_done=None,
        condition="normal",
        donors=(),
    ):
        call = {"seed": seed, "step": step, "group_size": group_size, "budget": budget, "params": params, "stage": stage}
        self.calls.append(call | {"condition": condition, "donors": tuple(donors)})
        script = self.conditions.get(condition, self.script)
        groups = []
        for i, p in enumerate(problems):
            made = [
                rollout(p, script(i, budget, g), budget=budget, step=step, index=g, error="too long" if i in self.errors else None)
                for g in range(group_size)
            ]
            for r in made:
                if on_done:
                    on_done(r)
            groups.append(Group(p, tuple(made)))
        return groups
