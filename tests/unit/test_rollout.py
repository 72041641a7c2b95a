"""Dialogues played by hand: every transcript is written out in words, with a sampler that replays given tokens."""

from __future__ import annotations

import asyncio
import signal
import sys
import types
from collections.abc import Sequence
from typing import Any

import pytest
from fake_sampler import FakeSampler

from mulligan.chat import Chat
from mulligan.config import AttemptBudget, GraderConfig, ProtocolConfig, RewardConfig
from mulligan.errors import ConfigError, ContextOverflow, GraderError, RunError
from mulligan.grading import make_grader
from mulligan.model.tiny import tiny_tokenizer
from mulligan.protocol import Protocol
from mulligan.rollout import Player, require_unbroken
from mulligan.sampling import SamplingParams
from mulligan.tasks.builtin import guess
from mulligan.types import Group, Outcome, Problem, Rollout, StopReason, Verdict, VerdictKind

TOKENIZER = tiny_tokenizer()
CHAT = Chat(TOKENIZER)


def ids(words: str) -> list[int]:
    """Token ids of words with a space between any two of them."""
    found = [TOKENIZER.convert_tokens_to_ids(word) for word in words.split()]
    assert TOKENIZER.unk_token_id not in found, words
    return found


def words(token_ids: Sequence[int]) -> str:
    return " ".join(TOKENIZER.convert_ids_to_tokens(token_ids))


def hidden(number: int, name: str = "p") -> Problem:
    """Guess a number of 1 to 9."""
    return Problem(name, "guess 1 9", str(number), guess.GRADER, "test", {"low": 1, "high": 9})


class Recorder:
    """The task's own grader, and what it was shown. `broken(text)` may raise."""

    def __init__(self, broken: Any = None):
        self.inner = make_grader(GraderConfig())
        self.broken = broken
        self.seen: list[tuple[str, str]] = []

    async def grade(self, problem: Problem, text: str) -> Verdict:
        self.seen.append((problem.id, text))
        if self.broken:
            self.broken(text)
        return await self.inner.grade(problem, text)

    def close(self) -> None:
        self.inner.close()


def make_player(scripts: list[list[str]], *, attempts: str = "fixed(3)", grader: Any = None, context: int = 1000, turns: Sequence[int] = (), **protocol: Any) -> Player:
    config = ProtocolConfig(**{"system": "", "question": "{n} {question}", "feedback": "{hint} {n}", "max_attempt_tokens": 8, "max_dialogue_tokens": 100} | protocol)
    sampler = FakeSampler([[ids(text) for text in script] for script in scripts], context_length=context, turns=list(turns))
    return Player(Protocol(config, AttemptBudget.parse(attempts), RewardConfig()), CHAT, grader or Recorder(), sampler)


def play_one(player: Player, problem: Problem | None = None, **options: Any) -> Rollout:
    ((group),) = player.play([problem or hidden(5)], seed=0, step=4, **options)
    (rollout,) = group.rollouts
    return rollout


def check(rollout: Rollout, parts: list[tuple[str, str]], outcomes: list[Outcome]) -> None:
    """`parts`: the whole dialogue as (F forced or S sampled, words); every sampled part is one attempt."""
    transcript = rollout.transcript
    assert words(transcript.token_ids) == " ".join(text for _, text in parts)
    assert transcript.sampled == [kind == "S" for kind, text in parts for _ in text.split()]
    spans, position = [], 0
    for kind, text in parts:
        if kind == "S":
            spans.append((position, position + len(text.split())))
        position += len(text.split())
    assert [(a.start, a.end) for a in rollout.attempts] == spans
    assert [a.index for a in rollout.attempts] == list(range(1, len(spans) + 1))
    assert [a.outcome for a in rollout.attempts] == outcomes
    within = [i + 1 for kind, text in parts for i in (range(len(text.split())) if kind == "S" else [-1] * len(text.split()))]
    assert transcript.logprobs == [-0.5 * i for i in within]
    assert transcript.full_logprobs == [-0.25 * i for i in within]


# --------------------------------------------------------------------------------------------------------------- transcripts


def test_solved_at_once():
    player = make_player([["\\boxed{ 5 } <end>"]])
    rollout = play_one(player)
    # The stop is at the token that closes the answer: <end> is never drawn.
    check(rollout, [("F", "<user> 3 guess 1 9 <answer>"), ("S", "\\boxed{ 5 }")], [Outcome.CORRECT])
    (attempt,) = rollout.attempts
    assert (attempt.text, attempt.stop, attempt.feedback, attempt.verdict.answer) == ("\\boxed{5}", StopReason.ANSWER, None, "5")
    assert (rollout.rewards, rollout.budget, rollout.step, rollout.index, rollout.policy_version) == ((1.0,), 3, 4, 0, 7)
    assert rollout.solved_at == 1
    assert rollout.trainable
    assert not rollout.truncated


def test_wrong_then_right():
    player = make_player([["\\boxed{ 2 }", "6 - 1 = \\boxed{ 5 }"]])
    rollout = play_one(player)
    check(
        rollout,
        [("F", "<user> 3 guess 1 9 <answer>"), ("S", "\\boxed{ 2 }"), ("F", "<end> <user> higher 2 <answer>"), ("S", "6 - 1 = \\boxed{ 5 }")],
        [Outcome.WRONG, Outcome.CORRECT],
    )
    assert [a.feedback for a in rollout.attempts] == ["higher 2", None]
    assert rollout.rewards == (0.0, 1.0)
    assert rollout.solved_at == 2
    # The sampler reads the prompt first and then only what is new.
    (dialogue,) = player.sampler.opened
    assert [words(new) for new, _ in dialogue.requests] == ["<user> 3 guess 1 9 <answer>", "<end> <user> higher 2 <answer>"]
    assert dialogue.closed == 1


def test_the_budget_used_up():
    rollout = play_one(make_player([["\\boxed{ 2 }", "\\boxed{ 9 }", "\\boxed{ 5 }"]], attempts="fixed(2)"))
    check(
        rollout,
        [("F", "<user> 2 guess 1 9 <answer>"), ("S", "\\boxed{ 2 }"), ("F", "<end> <user> higher 1 <answer>"), ("S", "\\boxed{ 9 }")],
        [Outcome.WRONG, Outcome.WRONG],
    )
    assert rollout.rewards == (0.0, -0.5)
    assert rollout.attempts[-1].feedback is None
    assert not rollout.truncated, "a stated budget that is used up is an end, not a cut"


def test_no_answer_closes_its_own_turn():
    """A turn that the policy closed itself is not closed again: one <end>, drawn, before the feedback."""
    rollout = play_one(make_player([["5 <end>", "\\boxed{ 5 }"]]))
    check(
        rollout,
        [("F", "<user> 3 guess 1 9 <answer>"), ("S", "5 <end>"), ("F", "<user> invalid 2 <answer>"), ("S", "\\boxed{ 5 }")],
        [Outcome.NO_ANSWER, Outcome.CORRECT],
    )
    assert rollout.attempts[0].stop is StopReason.END_OF_TURN
    assert rollout.attempts[0].text == "5"


def test_stop_at_the_end_of_turn():
    rollout = play_one(make_player([["\\boxed{ 7 } 1 <end>", "\\boxed{ 5 } <end>"]], stop="end_of_turn"))
    check(
        rollout,
        [("F", "<user> 3 guess 1 9 <answer>"), ("S", "\\boxed{ 7 } 1 <end>"), ("F", "<user> lower 2 <answer>"), ("S", "\\boxed{ 5 } <end>")],
        [Outcome.WRONG, Outcome.CORRECT],
    )


def test_an_attempt_cut_by_its_own_cap():
    rollout = play_one(make_player([["1 2 3 4 5 6 7 8", "\\boxed{ 5 }"]], max_attempt_tokens=4))
    check(
        rollout,
        [("F", "<user> 3 guess 1 9 <answer>"), ("S", "1 2 3 4"), ("F", "<end> <user> invalid 2 <answer>"), ("S", "\\boxed{ 5 }")],
        [Outcome.TRUNCATED, Outcome.CORRECT],
    )
    assert rollout.attempts[0].stop is StopReason.ATTEMPT_LENGTH
    assert not rollout.truncated, "the dialogue went on"


@pytest.mark.parametrize("limits", [{"max_dialogue_tokens": 16}, {"context": 16}])
def test_an_attempt_cut_by_the_dialogues_cap(limits: dict[str, int]):
    """6 prompt + 3 attempt + 5 feedback leave 2 of 16 tokens: no further attempt, whatever the budget."""
    player = make_player([["\\boxed{ 2 }", "\\boxed{ 5 }"]], **limits)
    rollout = play_one(player)
    check(
        rollout,
        [("F", "<user> 3 guess 1 9 <answer>"), ("S", "\\boxed{ 2 }"), ("F", "<end> <user> higher 2 <answer>"), ("S", "\\boxed{ 5")],
        [Outcome.WRONG, Outcome.TRUNCATED],
    )
    assert rollout.attempts[1].stop is StopReason.DIALOGUE_LENGTH
    assert rollout.truncated
    assert not rollout.cut
    assert rollout.rewards == (0.0, -0.5)
    assert player.sampler.opened[0].requests[1][1] == 2


def test_both_caps_at_once_are_the_dialogues():
    rollout = play_one(make_player([["1 2 3 4 5"]], max_attempt_tokens=4, max_dialogue_tokens=10))
    assert rollout.attempts[0].stop is StopReason.DIALOGUE_LENGTH
    assert len(rollout.transcript) == 10


def test_an_answer_on_the_last_token_stands():
    rollout = play_one(make_player([["\\boxed{ 5 }"]], max_dialogue_tokens=9))
    assert rollout.attempts[0].stop is StopReason.ANSWER
    assert rollout.solved
    assert len(rollout.transcript) == 9


@pytest.mark.parametrize("limit", [9, 14])
def test_feedback_that_does_not_fit(limit: int):
    """6 prompt + 3 attempt + 5 feedback = 14: with 14 there is no room for an answer behind it."""
    rollout = play_one(make_player([["\\boxed{ 2 }", "\\boxed{ 5 }"]], max_dialogue_tokens=limit))
    check(rollout, [("F", "<user> 3 guess 1 9 <answer>"), ("S", "\\boxed{ 2 }")], [Outcome.WRONG])
    assert rollout.cut
    assert rollout.truncated
    assert rollout.attempts[0].feedback is None, "it was never shown"
    assert rollout.rewards == (-0.5,)


def test_feedback_that_just_fits():
    rollout = play_one(make_player([["\\boxed{ 2 }", "\\boxed{ 5 }"]], max_dialogue_tokens=15))
    assert not rollout.cut
    assert [a.num_tokens for a in rollout.attempts] == [3, 1]


# -------------------------------------------------------------------------------------------------------------- what may break


def broken_on(mark: str, error: Exception) -> Any:
    def grade(text: str) -> None:
        if mark in text:
            raise error

    return grade


def test_a_broken_grader_is_no_zero_reward():
    grader = Recorder(broken_on("2", ZeroDivisionError("by 0")))
    player = make_player([["\\boxed{ 2 }"], ["\\boxed{ 5 }"]], grader=grader)
    groups = player.play([hidden(5, "a"), hidden(5, "b")], seed=0, step=0)
    first, second = (g.rollouts[0] for g in groups)
    check(first, [("F", "<user> 3 guess 1 9 <answer>"), ("S", "\\boxed{ 2 }")], [Outcome.UNGRADABLE])
    assert first.attempts[0].verdict.reason == "ZeroDivisionError: by 0"
    assert not first.trainable
    assert first.rewards == (0.0,)
    assert first.error is None
    assert second.solved
    assert second.trainable


def test_an_ungradable_verdict_ends_the_dialogue():
    class Late(Recorder):
        async def grade(self, problem: Problem, text: str) -> Verdict:
            return Verdict(VerdictKind.UNGRADABLE, reason="late") if "4" in text else await super().grade(problem, text)

    rollout = play_one(make_player([["\\boxed{ 2 }", "\\boxed{ 4 }", "\\boxed{ 5 }"]], grader=Late()))
    assert [a.outcome for a in rollout.attempts] == [Outcome.WRONG, Outcome.UNGRADABLE]
    assert rollout.rewards == (0.0, 0.0)
    assert not rollout.trainable


def test_a_graders_own_error_is_raised():
    with pytest.raises(GraderError, match="no grader here"):
        play_one(make_player([["\\boxed{ 2 }"]], grader=Recorder(broken_on("2", GraderError("no grader here")))))


@pytest.fixture
def shaky_feedback(monkeypatch: pytest.MonkeyPatch) -> str:
    """A feedback function that raises for the problem `bad`."""

    def say(problem: Problem, attempts: Sequence[Any], left: int) -> str:
        if problem.id.startswith("bad"):
            raise KeyError("no hint")
        return f"wrong {left}"

    module = types.ModuleType("shaky_feedback")
    module.say = say  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shaky_feedback", module)
    return "shaky_feedback:say"


def test_a_feedback_function_that_raises(shaky_feedback: str):
    player = make_player([["\\boxed{ 2 }", "\\boxed{ 5 }"]], feedback=shaky_feedback)
    bad, good = (g.rollouts[0] for g in player.play([hidden(5, "bad"), hidden(5, "good")], seed=0, step=0))
    assert bad.error == "feedback: KeyError: 'no hint'"
    assert not bad.trainable
    assert [a.outcome for a in bad.attempts] == [Outcome.WRONG]
    check(
        good,
        [("F", "<user> 3 guess 1 9 <answer>"), ("S", "\\boxed{ 2 }"), ("F", "<end> <user> wrong 2 <answer>"), ("S", "\\boxed{ 5 }")],
        [Outcome.WRONG, Outcome.CORRECT],
    )
    assert good.error is None
    assert all(d.closed for d in player.sampler.opened)


def test_nothing_but_broken_dialogues_is_an_error(shaky_feedback: str):
    player = make_player([["\\boxed{ 2 }"]], feedback=shaky_feedback)
    broken = player.play([hidden(5, "bad 1"), hidden(5, "bad 2")], seed=0, step=4)
    with pytest.raises(RunError, match=r"every dialogue of step 4 broke, the first with: feedback: KeyError: 'no hint'; mend protocol\.feedback"):
        require_unbroken(broken, 4)
    whole = make_player([["\\boxed{ 5 }"]]).play([hidden(5, "good")], seed=0, step=4)
    require_unbroken([*broken, *whole], 4)
    require_unbroken([], 4)


def test_a_fault_of_the_recipe_is_raised_as_it_is():
    """Not as a group of exceptions, though three dialogues meet it; and every dialogue is closed."""
    player = make_player([["\\boxed{ 2 }"]], feedback="{nonsense} {n}")
    with pytest.raises(ConfigError, match=r"unknown field \{nonsense\}"):
        player.play([hidden(5, "a"), hidden(5, "b"), hidden(5, "c")], seed=0, step=0)
    assert player.sampler.opened
    assert all(d.closed for d in player.sampler.opened)


def test_a_fault_of_the_sampler_is_raised_as_it_is():
    class Full(FakeSampler):
        def open(self, *, key: int, params: SamplingParams) -> Any:
            raise MemoryError("out of memory")

    player = make_player([["\\boxed{ 2 }"]])
    player.sampler = Full([])
    with pytest.raises(MemoryError, match="out of memory"):
        play_one(player)


@pytest.mark.parametrize(("limits", "fits"), [({"context": 6}, False), ({"max_attempt_tokens": 2, "max_dialogue_tokens": 6}, False), ({"context": 7}, True)])
def test_a_prompt_too_long(limits: dict[str, int], fits: bool):
    player = make_player([["1"]], **limits)
    if fits:
        assert len(play_one(player).transcript) == 7
        return
    with pytest.raises(ContextOverflow, match=r"problem long \(test\): its prompt has 6 tokens and a dialogue may have 6: raise protocol.max_dialogue_tokens"):
        play_one(player, hidden(5, "long"))


# ------------------------------------------------------------------------------------------------------- what the grader sees


def test_the_grader_sees_only_the_attempts_own_text():
    """Neither the question nor the feedback nor earlier attempts, with an answer in each of them."""
    problem = Problem("p", "guess \\boxed{ 5 }", "5", guess.GRADER, "test", {"low": 1, "high": 9})
    grader = Recorder()
    player = make_player([["\\boxed{ 2 }", "1 <end>", "6 <end>"]], grader=grader, feedback="wrong \\boxed{5} {n}")
    rollout = play_one(player, problem)
    assert grader.seen == [("p", "\\boxed{2}"), ("p", "1"), ("p", "6")]
    assert [a.outcome for a in rollout.attempts] == [Outcome.WRONG, Outcome.NO_ANSWER, Outcome.NO_ANSWER]


# --------------------------------------------------------------------------------------------------------------- keys, budgets

WRONG = ["\\boxed{ 2 }"] * 9


def keys_of(player: Player, problems: Sequence[Problem], **options: Any) -> list[int]:
    player.sampler.opened.clear()
    player.play(problems, **{"seed": 0, "step": 0} | options)
    return [d.key for d in player.sampler.opened]


def test_keys_are_a_function_of_what_is_played():
    player = make_player([WRONG])
    problems = [hidden(5, "a"), hidden(6, "b")]
    base = keys_of(player, problems, group_size=3)
    assert len(set(base)) == 6
    assert all(0 <= key < 2**64 for key in base)
    assert keys_of(player, problems, group_size=3) == base
    assert keys_of(player, problems[::-1], group_size=3) == base[3:] + base[:3], "what else is played changes nothing"
    for other in ({"step": 1}, {"seed": 1}, {"stage": "eval"}, {"stage": "warmup"}):
        assert set(keys_of(player, problems, group_size=3, **other)).isdisjoint(base), other


def test_a_problem_twice_in_a_step_is_not_played_twice_alike():
    player = make_player([WRONG], attempts="uniform(1,9)")
    problem = hidden(5)
    keys = keys_of(player, [problem] * 30)
    assert len(set(keys)) == 30
    budgets = [g.rollouts[0].budget for g in player.play([problem] * 30, seed=0, step=0)]
    assert len(set(budgets)) > 3


@pytest.mark.parametrize("per", ["group", "rollout"])
def test_budgets(per: str):
    player = make_player([WRONG], attempts="uniform(1,4)", budget_per=per)
    problems = [hidden(5, f"p{i}") for i in range(12)]
    groups = player.play(problems, seed=0, step=0, group_size=6)
    budgets = [[r.budget for r in g.rollouts] for g in groups]
    assert {n for group in budgets for n in group} == {1, 2, 3, 4}
    shared = [len(set(group)) == 1 for group in budgets]
    assert all(shared) if per == "group" else not any(shared)
    for rollout in (r for g in groups for r in g.rollouts):
        assert words(rollout.transcript.token_ids[:2]) == f"<user> {rollout.budget}"
        assert len(rollout.attempts) == rollout.budget


def test_a_given_budget_and_given_sampling():
    player = make_player([WRONG])
    params = SamplingParams(temperature=0.0, top_p=0.5)
    rollout = play_one(player, budget=1, params=params)
    assert rollout.budget == len(rollout.attempts) == 1
    assert player.sampler.params == [params]


# ----------------------------------------------------------------------------------------------------------------------- order


def test_groups_come_back_in_order_however_dialogues_end():
    """Dialogues end in the opposite order of their beginning; `on_done` sees each as it ends."""
    problems = [hidden(5, name) for name in "abc"]
    player = make_player([["\\boxed{ 5 }"]], turns=[12, 10, 8, 6, 4, 2])
    ended: list[tuple[str, int]] = []
    groups = player.play(problems, seed=0, step=0, group_size=2, on_done=lambda r: ended.append((r.problem.id, r.index)))
    assert all(isinstance(g, Group) for g in groups)
    assert [(g.problem.id, [(r.problem.id, r.index) for r in g.rollouts]) for g in groups] == [(n, [(n, 0), (n, 1)]) for n in "abc"]
    assert ended == [(name, index) for name in "cba" for index in (1, 0)]


def test_nothing_to_play():
    assert make_player([WRONG]).play([], seed=0, step=0) == []


def test_dialogues_run_side_by_side():
    """All of them are open before the first one ends."""
    player = make_player([["\\boxed{ 5 }"]], turns=[3] * 5)
    open_at_end: list[int] = []
    player.play([hidden(5, f"p{i}") for i in range(5)], seed=0, step=0, on_done=lambda _: open_at_end.append(len(player.sampler.opened)))
    assert open_at_end == [5] * 5


def test_an_interrupt_closes_every_dialogue():
    """Ctrl-C while the grader of one dialogue is at work, and the others wait."""

    class Interrupted(Recorder):
        async def grade(self, problem: Problem, text: str) -> Verdict:
            if problem.id == "p2":
                signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(10)
            raise AssertionError("not reached")

    player = make_player([["\\boxed{ 5 }"]], grader=Interrupted())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            player.play([hidden(5, f"p{i}") for i in range(3)], seed=0, step=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [d.closed for d in player.sampler.opened] == [1, 1, 1]


def test_an_attempt_ends_by_the_mark_that_the_grader_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    player = make_player([["\\boxed{ 5 } <end>"]])
    player.answer_format = "####"
    asked, stop = [], player.chat.stop
    monkeypatch.setattr(player.chat, "stop", lambda *arguments: asked.append(arguments) or stop("answer"))
    play_one(player)
    assert asked == [("answer", "####")]
