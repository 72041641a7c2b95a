"""Samplers: token ids in, token ids and log-probs out. A sampler knows no task, no text and no reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mulligan.types import StopReason


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn. `temperature` 0 is greedy; `top_p` 1 keeps the whole distribution."""

    temperature: float = 1.0
    top_p: float = 1.0


class StopChecker(Protocol):
    """Decides, token by token, whether an attempt has just closed its answer. One object per attempt."""

    def push(self, token_id: int) -> bool:
        """Take the token just drawn; True if the attempt ends on it."""
        ...


@dataclass(frozen=True, slots=True)
class Completion:
    """One attempt as drawn. `logprobs` are under the distribution drawn from, `full_logprobs` under the model's full softmax
    at temperature 1. The stop token, where there is one, is the last of `token_ids`."""

    token_ids: list[int]
    logprobs: list[float]
    full_logprobs: list[float]
    stop: StopReason
    policy_version: int = 0


class Dialogue(Protocol):
    """One open dialogue; its keys and values stay cached between attempts, so that only new tokens are read."""

    async def sample(self, new_ids: Sequence[int], *, max_tokens: int, stop: StopChecker | None, end_ids: frozenset[int]) -> Completion:
        """Append `new_ids` (prompt or feedback) to the dialogue and draw one attempt of at most `max_tokens`.

        Stops on a token of `end_ids` (END_OF_TURN), when `stop` says so (ANSWER), or after `max_tokens` (ATTEMPT_LENGTH).
        """
        ...

    def close(self) -> None:
        """Give the dialogue's cache back. Calling it twice is harmless."""
        ...


class Sampler(Protocol):
    """Opens dialogues. `context_length` is the longest dialogue in tokens, `policy_version` the version of its weights."""

    @property
    def context_length(self) -> int: ...

    @property
    def policy_version(self) -> int: ...

    def open(self, *, key: int, params: SamplingParams) -> Dialogue:
        """Open a dialogue whose every draw is a function of the 64-bit `key`, the position and the logits alone."""
        ...
