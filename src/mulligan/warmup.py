"""Supervised warm-up: dialogues whose attempts are written by a script instead of sampled by the policy.

The dialogues of a built-in task go through the same `Player` as every rollout: same prompt, same stop, same grader, same
feedback. So the warm-up teaches exactly the format that reinforcement learning will meet, and its loss mask is the transcript's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mulligan.chat import Chat
from mulligan.errors import DataError
from mulligan.rollout import OpenDialogue
from mulligan.sampling import Completion, StopChecker
from mulligan.types import Problem, StopReason, Transcript

Demonstrate = Callable[[Problem, random.Random], str]


class ScriptedDialogue:
    """Answers with texts from a script. Cut by stop rule and cap just as sampled tokens are; closes its turn where nothing cut it."""

    def __init__(self, chat: Chat, write: Callable[[], str]):
        self._chat = chat
        self._write = write

    async def sample(self, new_ids: Sequence[int], *, max_tokens: int, stop: StopChecker | None, end_ids: frozenset[int]) -> Completion:
        ids: list[int] = []
        reason = StopReason.ATTEMPT_LENGTH
        for token in [*self._chat.encode_text(self._write()), *self._chat.close_turn_ids[:1]][:max_tokens]:
            ids.append(token)
            if token in end_ids:
                reason = StopReason.END_OF_TURN
                break
            if stop is not None and stop.push(token):
                reason = StopReason.ANSWER
                break
        zeros = [0.0] * len(ids)
        return Completion(ids, zeros, zeros, reason)

    def close(self) -> None:
        return None


def scripted(chat: Chat, demonstrate: Demonstrate) -> OpenDialogue:
    """Opens dialogues whose every attempt is `demonstrate(problem, rng)`; the draws are keyed like a sampler's."""

    def open_dialogue(problem: Problem, key: int) -> ScriptedDialogue:
        rng = random.Random(key)
        return ScriptedDialogue(chat, lambda: demonstrate(problem, rng))

    return open_dialogue


def read_dialogues(path: str | Path, chat: Chat) -> list[Transcript]:
    """Dialogues of the user's own, as `read_messages` has them; assistant turns are trained.

    Raises:
        DataError: as `read_messages`, for a dialogue that the template cannot write, and where there is none.
    """
    transcripts = []
    for number, messages in read_messages(path):
        try:
            transcripts.append(chat.encode_dialogue(messages))
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
    if not transcripts:
        raise DataError(f"{path}: no dialogues in it (warmup.data)")
    return transcripts


def read_messages(path: str | Path) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """The number of a line and its turns: JSONL with {"messages": [{"role", "content"}, ...]} a line.

    Raises:
        DataError: missing or unreadable file, or broken line (with its number).
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a JSON string may hold other line separators
    except FileNotFoundError:
        raise DataError(f"{path}: no such file (warmup.data)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}) (warmup.data)") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            messages = [{"role": m["role"], "content": m["content"]} for m in json.loads(line)["messages"]]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise DataError(f'{path}, line {number}: not a JSON object with "messages" of {{"role", "content"}}') from None
        yield number, messages
