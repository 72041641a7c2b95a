"""Play dialogues: protocol x chat x sampler x grader. One dialogue reads top to bottom in `Player._play`.

There is one rollout path for training, evaluation, its controls and the supervised warm-up; they differ in who answers
(`open_dialogue`) and in what an attempt gets to see of the earlier ones (`condition`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from mulligan.chat import Chat
from mulligan.conditions import Condition, attempt_key
from mulligan.errors import ContextOverflow, MulliganError, RunError
from mulligan.grading import Grader
from mulligan.protocol import Protocol, draw_key
from mulligan.sampling import Dialogue, Sampler, SamplingParams
from mulligan.types import Attempt, Group, Problem, Rollout, StopReason, Transcript, Verdict, VerdictKind

OpenDialogue = Callable[[Problem, int], Dialogue]
"""Opens the dialogue of a problem for a 64-bit key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """One dialogue to be played: which rollout of which problem, with which budget and key."""

    problem: Problem
    index: int
    budget: int
    key: int


def require_unbroken(groups: Sequence[Group], step: int) -> None:
    """Raises RunError if every dialogue broke: that is the feedback function's fault, not a dialogue's."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if rollouts and all(rollout.error for rollout in rollouts):
        raise RunError(f"every dialogue of step {step} broke, the first with: {rollouts[0].error}; mend protocol.feedback")


class Player:
    """Plays problems with one sampler under one protocol."""

    def __init__(self, protocol: Protocol, chat: Chat, grader: Grader, sampler: Sampler, answer_format: str = "boxed"):
        self.protocol = protocol
        self.answer_format = answer_format
        self.chat = chat
        self.grader = grader
        self.sampler = sampler

    @property
    def dialogue_limit(self) -> int:
        """Tokens that a dialogue may have: the recipe's cap or the model's context, whichever is less."""
        return min(self.protocol.config.max_dialogue_tokens, self.sampler.context_length)

    def play(
        self,
        problems: Sequence[Problem],
        *,
        seed: int,
        step: int,
        group_size: int = 1,
        budget: int | None = None,
        params: SamplingParams | None = None,
        stage: str = "train",
        on_done: Callable[[Rollout], None] | None = None,
        open_dialogue: OpenDialogue | None = None,
        condition: str = "normal",
        donors: Sequence[Group] = (),
    ) -> list[Group]:
        """Play `group_size` dialogues of each problem; groups come back in the order of `problems`.

        `budget` None draws it from the recipe's distribution. Every draw is keyed by (seed, stage, step, problem, rollout), and the
        same under every `condition` (see `conditions`; `donors` are the dialogues that some of them borrow from).

        Raises:
            ConfigError: an unknown condition, or one that needs donors without any.
            ContextOverflow: a prompt leaves no room for an answer.

        A dialogue that breaks comes back with `error` set; that all of them broke is for the caller to refuse (`require_unbroken`), who knows what all are.
        """
        params = params or SamplingParams()
        opener = open_dialogue or (lambda problem, key: self.sampler.open(key=key, params=params))
        slots = self._slots(problems, f"{stage}:{seed}", step, group_size, budget)
        rollouts = asyncio.run(self._play_all(slots, opener, step, Condition(condition, self.protocol, donors), on_done))
        return [Group(p, tuple(rollouts[i * group_size : (i + 1) * group_size])) for i, p in enumerate(problems)]

    def _slots(self, problems: Sequence[Problem], seed: str, step: int, group_size: int, budget: int | None) -> list[Slot]:
        seen: Counter[str] = Counter()
        slots = []
        for problem in problems:
            # A problem that occurs twice in a step must not be played twice with the same draws.
            salt = f"{seed}:{seen[problem.id]}"
            seen[problem.id] += 1
            for index in range(group_size):
                drawn = budget or self.protocol.draw_budget(salt, step, problem.id, index)
                slots.append(Slot(problem, index, drawn, draw_key(salt, step, problem.id, index)))
        return slots

    async def _play_all(
        self, slots: list[Slot], opener: OpenDialogue, step: int, condition: Condition, on_done: Callable[[Rollout], None] | None
    ) -> list[Rollout]:
        async def one(slot: Slot) -> Rollout:
            rollout = await self._play(slot, opener, step, condition)
            if on_done is not None:
                on_done(rollout)
            return rollout

        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(one(slot)) for slot in slots]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in running]

    def prompt_ids(self, problem: Problem, budget: int) -> list[int]:
        """The prompt's token ids. Raises ContextOverflow where they leave no room for an answer."""
        ids = self.chat.prompt_ids(self.protocol.prompt(problem, budget))
        if len(ids) >= self.dialogue_limit:
            raise ContextOverflow(
                f"problem {problem.id} ({problem.source}): its prompt has {len(ids)} tokens and a dialogue may have {self.dialogue_limit}: "
                "raise protocol.max_dialogue_tokens (up to the model's context), or leave the problem out"
            )
        return ids

    async def _play(self, slot: Slot, opener: OpenDialogue, step: int, condition: Condition) -> Rollout:
        """One dialogue, from the prompt to the last verdict."""
        problem, budget = slot.problem, slot.budget
        transcript, attempts, told = Transcript(), [], []
        cut, error = False, None
        new_ids = self.prompt_ids(problem, budget)
        dialogue = opener(problem, slot.key)
        try:
            while True:
                transcript.append_forced(new_ids)
                attempt = await self._attempt(dialogue, new_ids, problem, transcript, len(attempts) + 1)
                attempts.append(attempt)
                told.append(condition.told(problem, attempt, attempt_key(slot.key, attempt.index, condition.name)))
                if told[-1].outcome is not attempt.outcome:
                    attempts[-1] = attempt = dataclasses.replace(attempt, told=told[-1].outcome)
                if self.protocol.finished([a.outcome for a in told], budget) or attempt.stop is StopReason.DIALOGUE_LENGTH:
                    break
                try:
                    text, new_ids = self._next(slot, condition, told, turn_closed=attempt.stop is StopReason.END_OF_TURN)
                except MulliganError:
                    raise  # the recipe's to mend: a template's field
                except Exception as failure:  # a user's feedback function: a broken dialogue is data, not a crash
                    error = f"feedback: {type(failure).__name__}: {failure}"
                    break
                read = 0 if condition.fresh_contexts else self._length(transcript)
                if read + len(new_ids) >= self.dialogue_limit:
                    cut = True
                    break
                if condition.fresh_contexts:
                    dialogue.close()
                    dialogue = opener(problem, attempt_key(slot.key, len(attempts), "context"))
                    transcript.begin_context()
                attempts[-1] = dataclasses.replace(attempt, feedback=text)
        finally:
            dialogue.close()
        # Where an attempt was told something else than the truth, no reward was earned; controls are not trained on.
        lied = any(a.told is not None for a in attempts)
        return Rollout(
            problem=problem,
            transcript=transcript,
            attempts=tuple(attempts),
            budget=budget,
            rewards=(0.0,) * len(attempts) if lied else self.protocol.rewards([a.outcome for a in attempts]),
            step=step,
            index=slot.index,
            policy_version=self.sampler.policy_version,
            cut=cut,
            error=error,
        )

    def _next(self, slot: Slot, condition: Condition, told: Sequence[Attempt], *, turn_closed: bool) -> tuple[str | None, list[int]]:
        """What the next attempt is shown: the feedback's text (None where there is none), and the tokens to append."""
        left, role = slot.budget - len(told), self.protocol.config.feedback_role
        if not condition.fresh_contexts:
            text = condition.feedback(slot.problem, told, left)
            return text, self.chat.bridge_ids(text, role, turn_closed=turn_closed)
        if condition.shows_nothing:
            return None, self.prompt_ids(slot.problem, left)
        ids = self.prompt_ids(slot.problem, slot.budget)
        lender, failed = condition.foreign(slot.problem, len(told), attempt_key(slot.key, len(told), "foreign"))
        for attempt in lender.attempts[:failed]:
            ids += lender.transcript.token_ids[attempt.start : attempt.end]
            text = self.protocol.feedback(lender.problem, lender.attempts[: attempt.index], slot.budget - attempt.index)
            ids += self.chat.bridge_ids(text, role, turn_closed=attempt.stop is StopReason.END_OF_TURN)
        return None, ids

    @staticmethod
    def _length(transcript: Transcript) -> int:
        """Tokens of the context that is being read."""
        return len(transcript) - transcript.context_starts[-1]

    async def _attempt(self, dialogue: Dialogue, new_ids: list[int], problem: Problem, transcript: Transcript, index: int) -> Attempt:
        """Draw one attempt and grade it: only its own sampled tokens are ever shown to the grader."""
        config = self.protocol.config
        room = self.dialogue_limit - self._length(transcript)
        completion = await dialogue.sample(
            new_ids, max_tokens=min(config.max_attempt_tokens, room), stop=self.chat.stop(config.stop, self.answer_format), end_ids=self.chat.end_ids
        )
        start, end = transcript.append_sampled(completion.token_ids, completion.logprobs, completion.full_logprobs)
        stop = completion.stop
        if stop is StopReason.ATTEMPT_LENGTH and room <= config.max_attempt_tokens:
            stop = StopReason.DIALOGUE_LENGTH
        text = self.chat.decode(completion.token_ids)
        return Attempt(index=index, start=start, end=end, text=text, stop=stop, verdict=await self._grade(problem, text))

    async def _grade(self, problem: Problem, text: str) -> Verdict:
        """A grader that breaks is never a zero reward: the attempt is ungradable, with the reason."""
        try:
            return await self.grader.grade(problem, text)
        except MulliganError:
            raise
        except Exception as failure:
            return Verdict(VerdictKind.UNGRADABLE, reason=f"{type(failure).__name__}: {failure}")
