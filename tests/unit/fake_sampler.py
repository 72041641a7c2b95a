"""A sampler that replays written attempts, token by token, under the stop rules of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from mulligan.sampling import Completion, SamplingParams, StopChecker
from mulligan.types import StopReason


@dataclass
class FakeDialogue:
    """Answers with `attempts` in turn. `turns` passes of the event loop go by before each answer, so that dialogues overtake each other."""

    sampler: FakeSampler
    key: int
    attempts: list[list[int]]
    turns: int = 0
    requests: list[tuple[list[int], int]] = field(default_factory=list)
    """What was asked for: (new ids, max_tokens)."""
    closed: int = 0

    async def sample(self, new_ids: Sequence[int], *, max_tokens: int, stop: StopChecker | None, end_ids: frozenset[int]) -> Completion:
        assert not self.closed
        self.requests.append((list(new_ids), max_tokens))
        for _ in range(self.turns):
            await asyncio.sleep(0)
        ids, reason = [], None
        for token in self.attempts[len(self.requests) - 1]:
            ids.append(token)
            if token in end_ids:
                reason = StopReason.END_OF_TURN
            elif stop is not None and stop.push(token):
                reason = StopReason.ANSWER
            elif len(ids) == max_tokens:
                reason = StopReason.ATTEMPT_LENGTH
            if reason is not None:
                count = range(1, len(ids) + 1)
                return Completion(ids, [-0.5 * i for i in count], [-0.25 * i for i in count], reason, self.sampler.policy_version)
        raise AssertionError(f"the script {self.attempts[len(self.requests) - 1]} does not end the attempt: nothing stops it before its own end")

    def close(self) -> None:
        self.closed += 1


@dataclass
class FakeSampler:
    """Opens a dialogue per script, in the order in which they are opened; the last script serves all further ones."""

    scripts: list[list[list[int]]]
    context_length: int = 1000
    policy_version: int = 7
    turns: list[int] = field(default_factory=list)
    opened: list[FakeDialogue] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)

    def open(self, *, key: int, params: SamplingParams) -> FakeDialogue:
        number = len(self.opened)
        script = self.scripts[min(number, len(self.scripts) - 1)]
        dialogue = FakeDialogue(self, key, script, self.turns[number] if number < len(self.turns) else 0)
        self.opened.append(dialogue)
        self.params.append(params)
        return dialogue
