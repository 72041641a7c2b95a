"""Scripted dialogues are cut as sampled ones are, and a user's dialogues are read with the line of every fault."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_sampler import FakeSampler

from mulligan.chat import Chat
from mulligan.config import AttemptBudget, GraderConfig, ProtocolConfig, RewardConfig
from mulligan.errors import DataError
from mulligan.grading import make_grader
from mulligan.model.tiny import tiny_tokenizer
from mulligan.protocol import Protocol
from mulligan.rollout import Player
from mulligan.sampling import Completion
from mulligan.tasks import demonstrator, load_problems
from mulligan.types import Outcome, Rollout, StopReason
from mulligan.warmup import ScriptedDialogue, read_dialogues, scripted

TOKENIZER = tiny_tokenizer()
CHAT = Chat(TOKENIZER)
GUESS = "builtin:guess?low=1&high=9&n=8"


def words(token_ids: Sequence[int]) -> str:
    return " ".join(TOKENIZER.convert_ids_to_tokens(token_ids))


def answer(text: str, *, rule: str = "answer", max_tokens: int = 50) -> Completion:
    return asyncio.run(ScriptedDialogue(CHAT, lambda: text).sample([1], max_tokens=max_tokens, stop=CHAT.stop(rule), end_ids=CHAT.end_ids))


# ------------------------------------------------------------------------------------------------------------ one attempt


@pytest.mark.parametrize(
    ("text", "options", "expected", "stop"),
    [
        ("3 + 2 = \\boxed{5}", {}, "3 + 2 = \\boxed{ 5 }", StopReason.ANSWER),
        ("\\boxed{5} 1 1", {}, "\\boxed{ 5 }", StopReason.ANSWER),  # what stands behind the answer is never taught
        ("3 + 2", {}, "3 + 2 <end>", StopReason.END_OF_TURN),
        ("\\boxed{5}", {"rule": "end_of_turn"}, "\\boxed{ 5 } <end>", StopReason.END_OF_TURN),
        ("1 2 3 4 5", {"max_tokens": 3}, "1 2 3", StopReason.ATTEMPT_LENGTH),
        ("\\boxed{5}", {"max_tokens": 3}, "\\boxed{ 5 }", StopReason.ANSWER),
        ("\\boxed{5}", {"max_tokens": 2}, "\\boxed{ 5", StopReason.ATTEMPT_LENGTH),
        ("", {}, "<end>", StopReason.END_OF_TURN),
    ],
)
def test_a_text_is_cut_like_a_sampled_one(text: str, options: dict[str, Any], expected: str, stop: StopReason):
    completion = answer(text, **options)
    assert words(completion.token_ids) == expected
    assert completion.stop is stop
    assert completion.logprobs == completion.full_logprobs == [0.0] * len(completion.token_ids)


def test_control_tokens_in_a_script_stay_text():
    assert answer("1 <end> 2").stop is StopReason.END_OF_TURN
    assert TOKENIZER.eos_token_id not in answer("1 <end> 2").token_ids[:-1]


# ---------------------------------------------------------------------------------------------------------- whole dialogues


def play(source: str = GUESS, *, seed: int = 0, step: int = 0, **protocol: Any) -> list[Rollout]:
    config = ProtocolConfig(**{"system": "", "question": "{n} {question}", "feedback": "{hint} {n}", "max_attempt_tokens": 8, "max_dialogue_tokens": 60} | protocol)
    player = Player(Protocol(config, AttemptBudget.parse("uniform(2,4)"), RewardConfig()), CHAT, make_grader(GraderConfig()), FakeSampler([]))
    problems = load_problems(source).problems
    groups = player.play(problems, seed=seed, step=step, stage="warmup", open_dialogue=scripted(CHAT, demonstrator(source)))
    return [r for g in groups for r in g.rollouts]


def test_the_warm_up_plays_the_protocol():
    rollouts = play()
    assert {len(r.attempts) for r in rollouts} > {2, 3}, "failures are answered, and the next attempt is another"
    for rollout in rollouts:
        assert words(rollout.transcript.token_ids[:6]) == f"<user> {rollout.budget} guess 1 9 <answer>"
        assert all(a.num_tokens == 3 and a.stop is StopReason.ANSWER for a in rollout.attempts)
        assert all(a.outcome is Outcome.WRONG and a.feedback and a.feedback.split()[0] in ("higher", "lower") for a in rollout.attempts[:-1])
        assert sum(rollout.transcript.sampled) == 3 * len(rollout.attempts)
        assert set(rollout.transcript.logprobs) == {0.0}


def test_scripts_are_keyed():
    texts = [[a.text for a in r.attempts] for r in play()]
    assert texts == [[a.text for a in r.attempts] for r in play()]
    assert texts != [[a.text for a in r.attempts] for r in play(step=1)]
    assert len({tuple(t) for t in texts}) > 4, "each dialogue draws by itself"
    assert any(len(set(t)) > 1 for t in texts), "and so does each attempt of it"


def test_a_script_draws_from_its_key_alone():
    problem = load_problems(GUESS).problems[0]
    opener = scripted(CHAT, lambda _, rng: f"\\boxed{{{rng.randint(1, 9)}}}")
    rng = random.Random(77)

    async def three() -> list[str]:
        dialogue = opener(problem, 77)
        drawn = [await dialogue.sample([1], max_tokens=9, stop=CHAT.stop("answer"), end_ids=CHAT.end_ids) for _ in range(3)]
        dialogue.close()
        return [words(c.token_ids) for c in drawn]

    assert asyncio.run(three()) == [f"\\boxed{{ {rng.randint(1, 9)} }}" for _ in range(3)]


# -------------------------------------------------------------------------------------------------------- a user's dialogues

USER = {"role": "user", "content": "3 guess 1 9"}
RIGHT = {"role": "assistant", "content": "\\boxed{5}"}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def as_line(*messages: dict[str, Any], **more: Any) -> str:
    return json.dumps({"messages": messages} | more, ensure_ascii=False)


def test_dialogues_of_a_file(tmp_path: Path):
    long = as_line(USER, {"role": "assistant", "content": "\\boxed{2}"}, {"role": "user", "content": "higher 2"}, RIGHT, note="extra keys are let be")
    first, second = read_dialogues(write(tmp_path / "d.jsonl", as_line(USER, RIGHT), "", long), CHAT)
    assert words(first.token_ids) == "<user> 3 guess 1 9 <answer> \\boxed{ 5 } <end>"
    assert first.sampled == [False] * 6 + [True] * 4
    assert words(second.token_ids) == "<user> 3 guess 1 9 <answer> \\boxed{ 2 } <end> <user> higher 2 <answer> \\boxed{ 5 } <end>"
    assert second.sampled == [False] * 6 + [True] * 4 + [False] * 4 + [True] * 4


def test_a_line_separator_inside_a_text_does_not_cut_the_line(tmp_path: Path):
    (transcript,) = read_dialogues(write(tmp_path / "d.jsonl", as_line(USER, {"role": "assistant", "content": "1\u2028\\boxed{5}\x85"})), CHAT)
    assert words(transcript.token_ids).endswith("<answer> 1 \\boxed{ 5 } <end>")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"messages": [', "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("17", "not a JSON object"),
        ('{"turns": []}', "not a JSON object"),
        ('{"messages": "hello"}', "not a JSON object"),
        ('{"messages": 3}', "not a JSON object"),
        (as_line({"role": "user"}), "not a JSON object"),
        (as_line({"content": "x"}), "not a JSON object"),
        (as_line(USER, {"role": "assistant", "content": None}), 'give it a "content" string'),
        (as_line(USER), "cannot be learned from"),
        (as_line(USER, RIGHT, USER), "cannot be learned from"),
        (as_line(RIGHT, USER), "cannot be learned from"),
        (as_line(USER, USER, RIGHT, RIGHT), "messages[1] has role 'user'"),
        (as_line(), "cannot be learned from"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, fault: str):
    path = write(tmp_path / "d.jsonl", as_line(USER, RIGHT), "", line, as_line(USER, RIGHT))
    with pytest.raises(DataError) as caught:
        read_dialogues(path, CHAT)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert fault in str(caught.value)


@pytest.mark.parametrize(("content", "fault"), [(None, "no such file"), (b"\n \n", "no dialogues in it"), (b"\xff\xfe{}", "cannot be read")])
def test_a_file_without_dialogues(tmp_path: Path, content: bytes | None, fault: str):
    path = tmp_path / "d.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"d\.jsonl: {fault}.*warmup\.data"):
        read_dialogues(path, CHAT)
