"""The controls, played by hand: what an attempt is shown, what it is told, and where the dialogue ends."""

from __future__ import annotations

import random
from typing import Any

import pytest
from test_rollout import CHAT, Recorder, hidden, ids, make_player, words

from mulligan.conditions import CONTROLS, Condition, attempt_key
from mulligan.config import AttemptBudget, ProtocolConfig, RewardConfig
from mulligan.errors import ConfigError
from mulligan.learning.batch import TrainSequence
from mulligan.protocol import Protocol
from mulligan.types import Group, Outcome, Rollout

BOX = "\\boxed{{ {} }}"


def boxes(*numbers: int) -> list[str]:
    return [BOX.format(n) for n in numbers]


def played(scripts: list[list[str]], numbers: list[int], *, condition: str = "normal", donors: Any = (), budget: int = 3, **protocol: Any) -> list[Rollout]:
    """One dialogue for each hidden number; dialogues (or contexts) take the scripts in the order in which they are opened."""
    player = make_player(scripts, attempts=f"fixed({budget})", **protocol)
    groups = player.play([hidden(n, f"p{i}") for i, n in enumerate(numbers)], seed=0, step=1, condition=condition, donors=donors)
    assert all(d.closed for d in player.sampler.opened)  # type: ignore[attr-defined]
    return [g.rollouts[0] for g in groups]


def donors(*scripts: tuple[int, list[int]], budget: int = 3) -> list[Group]:
    """Normal dialogues: (hidden number, guesses)."""
    found = []
    for i, (number, guesses) in enumerate(scripts):
        player = make_player([boxes(*guesses)], attempts=f"fixed({budget})")
        found += player.play([hidden(number, f"donor{i}")], seed=0, step=1)
    return found


def contexts(rollout: Rollout) -> list[str]:
    transcript = rollout.transcript
    ends = [*transcript.context_starts[1:], len(transcript)]
    return [words(transcript.token_ids[a:b]) for a, b in zip(transcript.context_starts, ends, strict=True)]


def prompt(n: int) -> str:
    return words(CHAT.prompt_ids([{"role": "user", "content": f"{n} guess 1 9"}]))


@pytest.mark.parametrize("options", [{"condition": "history_blind"}, {"history": "none"}])
def test_a_blind_attempt_reads_the_question_and_the_attempts_left_and_nothing_else(options: Any) -> None:
    (rollout,) = played([boxes(2), boxes(8), boxes(5)], [5], **options)
    assert contexts(rollout) == [f"{prompt(n)} {box}" for n, box in zip((3, 2, 1), boxes(2, 8, 5), strict=True)]
    assert [a.outcome for a in rollout.attempts] == [Outcome.WRONG, Outcome.WRONG, Outcome.CORRECT]
    assert rollout.rewards == (0.0, 0.0, 1.0)
    assert [words(rollout.transcript.token_ids[a.start : a.end]) for a in rollout.attempts] == boxes(2, 8, 5)


@pytest.mark.parametrize("control", ["history_blind", "verdict_hidden", "random_verdict", "other_history", "false_wrong"])
def test_no_control_shows_a_history_to_a_policy_that_is_shown_none(control: str) -> None:
    """Each control takes something away: nobody who was trained blind is given a history, of others or of itself."""
    lenders = donors((9, [1, 4, 7]))  # all wrong, so that random verdicts say wrong as well
    (rollout,) = played([boxes(2), boxes(8), boxes(4)], [5], condition=control, donors=lenders, history="none")
    assert contexts(rollout) == [f"{prompt(n)} {box}" for n, box in zip((3, 2, 1), boxes(2, 8, 4), strict=True)]


def test_blind_attempts_draw_with_keys_of_their_own() -> None:
    player = make_player([boxes(2), boxes(3), boxes(4)])
    player.play([hidden(5)], seed=0, step=1, condition="history_blind")
    assert len({d.key for d in player.sampler.opened}) == 3  # type: ignore[attr-defined]


def test_a_blind_attempt_has_the_whole_dialogue_cap_for_itself() -> None:
    length = len(ids(f"{prompt(3)} {BOX.format(2)}"))
    (blind,) = played([boxes(2), boxes(8), boxes(5)], [5], condition="history_blind", max_dialogue_tokens=length + 1)
    assert blind.solved_at == 3 and not blind.cut
    (seeing,) = played([boxes(2, 8, 5)], [5], max_dialogue_tokens=length + 1)
    assert seeing.cut and len(seeing.attempts) == 1


def test_each_context_is_trained_by_itself() -> None:
    (rollout,) = played([boxes(2), boxes(8), boxes(5)], [5], condition="history_blind")
    parts = TrainSequence.contexts_of(rollout.transcript)
    assert [words(s.token_ids) for s in parts] == contexts(rollout)
    assert [[words([s.token_ids[i]]) for i in s.actions] for s in parts] == [box.split() for box in boxes(2, 8, 5)]
    (whole,) = played([boxes(2, 8, 5)], [5])
    (one,) = TrainSequence.contexts_of(whole.transcript)
    assert one.token_ids == whole.transcript.token_ids and one.num_actions == sum(whole.transcript.sampled)


def test_a_hidden_verdict_leaves_the_attempts_and_takes_the_feedback() -> None:
    (rollout,) = played([boxes(2, 8, 5)], [5], condition="verdict_hidden", hidden_feedback="attempts left {n}")
    assert [a.feedback for a in rollout.attempts] == ["attempts left 2", "attempts left 1", None]
    assert "higher" not in words(rollout.transcript.token_ids) and "lower" not in words(rollout.transcript.token_ids)
    assert rollout.solved_at == 3
    (normal,) = played([boxes(2, 8, 5)], [5])
    assert [a.feedback for a in normal.attempts] == ["higher 2", "lower 1", None]


@pytest.mark.parametrize(
    ("feedback", "text"),
    [("verdict and attempts left", "Please give another answer. You have 1 attempt left."), ("verdict", "Please give another answer."), ("{hint} {n}", "Please give another answer. You have 1 attempt left.")],
)
def test_the_hidden_feedback_counts_where_the_feedback_counts(feedback: str, text: str) -> None:
    protocol = Protocol(ProtocolConfig(feedback=feedback), AttemptBudget.parse("fixed(3)"), RewardConfig())
    assert protocol.hidden_feedback(1) == text


def test_an_unknown_field_of_the_hidden_feedback_is_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"protocol.hidden_feedback: unknown field \{hint\}"):
        Protocol(ProtocolConfig(hidden_feedback="{hint}"), AttemptBudget.parse("fixed(3)"), RewardConfig())


def test_a_random_verdict_ends_a_dialogue_whose_answer_is_wrong_and_the_last_answer_counts() -> None:
    lucky = donors((4, [4]))  # right at once: everybody is told so
    (wrong, right) = played([boxes(2), boxes(6)], [5, 6], condition="random_verdict", donors=lucky)
    assert len(wrong.attempts) == len(right.attempts) == 1
    assert wrong.attempts[0].outcome is Outcome.WRONG and wrong.attempts[0].told is Outcome.CORRECT and not wrong.solved
    assert right.attempts[0].told is None and right.solved
    assert wrong.rewards == (0.0,) and right.rewards == (1.0,)


def test_a_random_verdict_says_of_a_right_answer_what_another_problem_was_told() -> None:
    unlucky = donors((9, [1, 2, 3]))  # always "higher"
    (rollout,) = played([boxes(5, 4, 5)], [5], condition="random_verdict", donors=unlucky)
    assert [a.outcome for a in rollout.attempts] == [Outcome.CORRECT, Outcome.WRONG, Outcome.CORRECT]
    assert [a.told for a in rollout.attempts] == [Outcome.WRONG, None, Outcome.WRONG]
    assert [a.feedback for a in rollout.attempts] == ["higher 2", "higher 1", None]  # the truth of the second was higher as well
    assert rollout.rewards == (0.0, 0.0, 0.0) and rollout.solved


def test_random_verdicts_come_from_attempts_of_the_same_number() -> None:
    protocol = Protocol(ProtocolConfig(feedback="{hint}"), AttemptBudget.parse("fixed(3)"), RewardConfig())
    condition = Condition("random_verdict", protocol, donors((9, [1, 9]), (1, [5, 1])))
    (rollout,) = played([boxes(3, 7, 5)], [5])
    first = [condition.told(hidden(5), rollout.attempts[0], key) for key in range(50)]
    assert {a.verdict.fields["hint"] for a in first} == {"higher", "lower"} and {a.outcome for a in first} == {Outcome.WRONG}
    assert {condition.told(hidden(5), rollout.attempts[1], key).outcome for key in range(50)} == {Outcome.CORRECT}
    assert {a.verdict.answer for a in first} == {"3"}  # its own answer, with another's verdict


def test_a_donor_is_never_the_problem_itself() -> None:
    protocol = Protocol(ProtocolConfig(feedback="{hint}"), AttemptBudget.parse("fixed(3)"), RewardConfig())
    own, other = donors((9, [1, 2, 3]), (1, [9, 8, 7]))
    condition = Condition("other_history", protocol, [own, other])
    assert {condition.foreign(own.problem, 2, key)[0].problem.id for key in range(50)} == {other.problem.id}


def test_another_problems_history_stands_where_the_own_would() -> None:
    (rollout,) = played([boxes(2), boxes(8), boxes(5)], [5], condition="other_history", donors=donors((9, [1, 4, 7])))
    shown = donors((9, [1, 4, 7]))[0].rollouts[0]
    foreign = [words(shown.transcript.token_ids[shown.attempts[0].start : shown.attempts[t].start]) for t in range(3)]
    assert contexts(rollout) == [f"{prompt(3)} {box}" if t == 0 else f"{prompt(3)} {foreign[t]} {box}" for t, box in enumerate(boxes(2, 8, 5))]
    assert "higher 2" in foreign[1] and "higher 1" in foreign[2]
    assert rollout.solved_at == 3


def test_a_foreign_history_counts_down_from_the_own_budget() -> None:
    (rollout,) = played([boxes(2), boxes(5)], [5], condition="other_history", donors=donors((9, [1, 4, 7]), budget=3), budget=2)
    assert "higher 1" in contexts(rollout)[1] and "higher 2" not in contexts(rollout)[1]


def test_a_foreign_history_shows_no_right_answer_and_is_as_long_as_there_is() -> None:
    (rollout,) = played([boxes(2), boxes(8), boxes(5)], [5], condition="other_history", donors=donors((9, [1, 9])))
    for context in contexts(rollout)[1:]:
        assert BOX.format(1) in context and BOX.format(9) not in context


def test_a_right_answer_that_is_called_wrong_is_kept_or_given_up() -> None:
    (kept, given_up) = played([boxes(5, 5, 5), boxes(6, 4, 6)], [5, 6], condition="false_wrong", donors=donors((9, [1, 2, 3])))
    assert [a.outcome for a in kept.attempts] == [Outcome.CORRECT] * 3
    assert [a.told for a in kept.attempts] == [Outcome.WRONG] * 3
    assert [a.outcome for a in given_up.attempts] == [Outcome.CORRECT, Outcome.WRONG, Outcome.CORRECT]
    assert [a.feedback for a in kept.attempts] == ["higher 2", "higher 1", None]  # a hint that was given to somebody who was wrong


def test_where_nobody_was_wrong_and_the_feedback_needs_a_hint_the_right_answer_stays_right() -> None:
    (rollout,) = played([boxes(5, 5, 5)], [5], condition="false_wrong", donors=donors((9, [9])))
    assert rollout.solved_at == 1 and rollout.attempts[0].told is None


@pytest.mark.parametrize("control", ["random_verdict", "other_history", "false_wrong"])
def test_a_control_that_borrows_needs_somebody_to_borrow_from(control: str) -> None:
    with pytest.raises(ConfigError, match=f"control '{control}' borrows from other dialogues"):
        played([boxes(2)], [5], condition=control)


def test_an_unknown_control_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"control 'blind' is not known; use history_blind, verdict_hidden"):
        played([boxes(2)], [5], condition="blind")


@pytest.mark.parametrize("control", CONTROLS)
def test_a_broken_grader_ends_the_dialogue_under_every_control(control: str) -> None:
    def broken(text: str) -> None:
        raise RuntimeError("down")

    player = make_player([boxes(5, 5, 5)], grader=Recorder(broken))
    ((group),) = player.play([hidden(5)], seed=0, step=1, condition=control, donors=donors((9, [1, 2, 3])))
    assert [a.outcome for a in group.rollouts[0].attempts] == [Outcome.UNGRADABLE]


def test_draws_depend_on_key_number_and_purpose() -> None:
    keys = {attempt_key(k, i, purpose) for k in (1, 2) for i in (1, 2) for purpose in ("context", "foreign")}
    assert len(keys) == 8
    assert attempt_key(1, 1, "context") == attempt_key(1, 1, "context")
    assert random.Random(attempt_key(1, 1, "context")).random() != random.Random(attempt_key(1, 2, "context")).random()
