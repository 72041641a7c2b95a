"""The words of the project: frozen, slotted, torch-free.

One dialogue of multi-attempt reinforcement learning, as it is stored::

    token_ids  =  P P P P | A A A A | F F F F | A A A      P prompt (forced), A sampled by the policy, F feedback (forced)
    sampled    =  0 0 0 0 | 1 1 1 1 | 0 0 0 0 | 1 1 1      the loss mask: it comes from how tokens were appended, from nothing else
    logprobs   =  0 0 0 0 | l l l l | 0 0 0 0 | l l l      under the distribution that each token was drawn from
    attempts   =            [4, 8)             [12, 15)    spans of sampled tokens, the stop token included

Suffixes of names: `_P` problem, `_G` rollout of a group, `_A` attempt, `_T` token, `_V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Message = dict[str, str]
"""One turn of a dialogue, as every chat template takes it: `{"role": ..., "content": ...}`."""


class StopReason(StrEnum):
    """Why the sampler stopped an attempt."""

    ANSWER = "answer"
    """The token that closes the answer was drawn (stop rule `answer`)."""
    END_OF_TURN = "end_of_turn"
    """The policy drew an end-of-turn token."""
    ATTEMPT_LENGTH = "attempt_length"
    """The attempt's own token cap was reached."""
    DIALOGUE_LENGTH = "dialogue_length"
    """The dialogue's token cap, or the model's context, was reached: no further attempt is possible."""


class VerdictKind(StrEnum):
    """What a grader says of one attempt's text. It knows nothing of tokens or stops."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """No answer in the expected format was found."""
    UNGRADABLE = "ungradable"
    """The *grader* failed (deadline, crash, unreadable gold). Carries no reward and no gradient; counted."""


class Outcome(StrEnum):
    """What became of one attempt: the verdict joined with the reason why sampling stopped."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    TRUNCATED = "truncated"
    """Cut by a token cap before an answer stood there; not a wrong answer in disguise."""
    UNGRADABLE = "ungradable"


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its gold answer.

    `id` is a content hash (stable across files and runs). `grader` is `math`, `numeric`, `text`, `gym`, `code`, or an entry point
    `module:function` called as `function(problem, text) -> Verdict`. `meta` holds what a task's own grader or feedback needs
    (JSON-able), e.g. reasoning-gym's whole entry, or the `tolerance` (absolute) and `relative_tolerance` that a number may differ by.
    """

    id: str
    question: str
    answer: str
    grader: str = "math"
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A grader's word on one attempt. `answer` is the extracted answer, `ms` the grading time (queue time excluded).
    `fields` may say more than right or wrong ("hint": "higher"), for feedback templates."""

    kind: VerdictKind
    answer: str | None = None
    reason: str | None = None
    ms: float = 0.0
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        return self.kind is VerdictKind.CORRECT


def outcome_of(verdict: Verdict, stop: StopReason) -> Outcome:
    """Join verdict and stop reason: a cut without an answer is TRUNCATED; an answer that stands is judged, cut or not."""
    if verdict.kind is VerdictKind.NO_ANSWER and stop in (StopReason.ATTEMPT_LENGTH, StopReason.DIALOGUE_LENGTH):
        return Outcome.TRUNCATED
    return _OUTCOMES[verdict.kind]


_OUTCOMES = {kind: Outcome(kind.value) for kind in VerdictKind}
"""Looked up: a dialogue asks for its attempts' outcomes a dozen times each."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. `index` counts from 1; `start:end` is its span of sampled tokens in the transcript."""

    index: int
    start: int
    end: int
    text: str
    stop: StopReason
    verdict: Verdict
    feedback: str | None = None
    """The text that the policy was shown after this attempt; None after the last."""
    told: Outcome | None = None
    """What the policy was told instead of the outcome, where a control of the evaluation made it something else."""

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.verdict, self.stop)

    @property
    def num_tokens(self) -> int:
        return self.end - self.start


class Transcript:
    """The tokens of a dialogue, exactly as sampled or forced. Grows only by `append_forced` and `append_sampled`."""

    __slots__ = ("context_starts", "full_logprobs", "logprobs", "sampled", "token_ids")

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.sampled: list[bool] = []
        self.logprobs: list[float] = []
        """Of the distribution drawn from (temperature and top-p applied); 0 for forced tokens."""
        self.full_logprobs: list[float] = []
        """Of the model's full softmax at temperature 1; equal to `logprobs` where nothing reshaped it."""
        self.context_starts: list[int] = [0]
        """Where the policy began anew, without sight of what comes before: [0] for a dialogue, one per attempt where attempts are
        blind to their history. Tokens of one context are trained, and attend, together."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def begin_context(self) -> None:
        """What is appended from here on is read without anything before it."""
        if self.token_ids:
            self.context_starts.append(len(self.token_ids))

    def append_forced(self, ids: Sequence[int]) -> None:
        """Append tokens that the policy did not choose (prompt, feedback)."""
        self.token_ids.extend(ids)
        self.sampled.extend([False] * len(ids))
        self.logprobs.extend([0.0] * len(ids))
        self.full_logprobs.extend([0.0] * len(ids))

    def append_sampled(self, ids: Sequence[int], logprobs: Sequence[float], full_logprobs: Sequence[float] | None = None) -> tuple[int, int]:
        """Append the tokens of one attempt as they were drawn; returns their span `(start, end)`."""
        full = logprobs if full_logprobs is None else full_logprobs
        if not len(ids) == len(logprobs) == len(full):
            raise ValueError(f"{len(ids)} ids with {len(logprobs)} log-probs and {len(full)} full log-probs: lengths must agree")
        start = len(self.token_ids)
        self.token_ids.extend(ids)
        self.sampled.extend([True] * len(ids))
        self.logprobs.extend(logprobs)
        self.full_logprobs.extend(full)
        return start, len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One finished dialogue. `rewards` has one entry per attempt and sums to the dialogue's reward."""

    problem: Problem
    transcript: Transcript
    attempts: tuple[Attempt, ...]
    budget: int
    """Attempts allowed (stated in the prompt, if the recipe says so)."""
    rewards: tuple[float, ...]
    step: int
    index: int
    """Which rollout of its group."""
    policy_version: int = 0
    cut: bool = False
    """The feedback after the last attempt did not fit the dialogue's token cap, though attempts were left."""
    error: str | None = None
    """Set when the dialogue broke (a feedback function that raised): data, not a crash; carries no gradient."""

    @property
    def reward(self) -> float:
        return sum(self.rewards)

    @property
    def solved(self) -> bool:
        return bool(self.attempts) and self.attempts[-1].outcome is Outcome.CORRECT

    @property
    def solved_at(self) -> int | None:
        """The attempt that was correct, counted from 1; None if none was."""
        return self.attempts[-1].index if self.solved else None

    @property
    def ungradable(self) -> bool:
        return any(a.outcome is Outcome.UNGRADABLE for a in self.attempts)

    @property
    def trainable(self) -> bool:
        """Whether this rollout may carry gradient: graded throughout, unbroken and not empty."""
        return self.error is None and not self.ungradable and bool(self.attempts)

    @property
    def truncated(self) -> bool:
        """Ended by a token limit rather than by an answer or by using up the stated budget (these bootstrap differently)."""
        return self.cut or (bool(self.attempts) and self.attempts[-1].stop is StopReason.DIALOGUE_LENGTH)

    @property
    def num_sampled(self) -> int:
        return sum(a.num_tokens for a in self.attempts)


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one problem in one step: same question, same stated budget unless budgets are drawn per rollout."""

    problem: Problem
    rollouts: tuple[Rollout, ...]

    @property
    def num_sampled(self) -> int:
        return sum(r.num_sampled for r in self.rollouts)
