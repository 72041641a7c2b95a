"""The protocol, by literal texts and numbers."""

from __future__ import annotations

import itertools

import pytest

from mulligan.config import AttemptBudget, ProtocolConfig, RewardConfig
from mulligan.errors import ConfigError
from mulligan.protocol import FEEDBACK_MODES, Protocol, draw_key, fill
from mulligan.types import Attempt, Outcome, Problem, StopReason, Verdict, VerdictKind

PROBLEM = Problem(id="p1", question="What is {n} in $\\frac{1}{2}$?", answer="1")
C, W, N, T, U = Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER, Outcome.TRUNCATED, Outcome.UNGRADABLE


def make(attempts: str = "uniform(1,5)", reward: RewardConfig | None = None, **protocol) -> Protocol:
    return Protocol(ProtocolConfig(**protocol), AttemptBudget.parse(attempts), reward or RewardConfig())


def failed(kind: VerdictKind = VerdictKind.WRONG, *, index: int = 1, stop: StopReason = StopReason.ANSWER, **verdict) -> Attempt:
    return Attempt(index=index, start=0, end=1, text="", stop=stop, verdict=Verdict(kind, **verdict))


CUT = failed(VerdictKind.NO_ANSWER, stop=StopReason.ATTEMPT_LENGTH)

# ------------------------------------------------------------------------------------------------------------------ templates


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{n} left", "3 left"),
        ("\\boxed{}", "\\boxed{}"),
        ("\\boxed{{n}}", "\\boxed{n}"),
        ("{{{n}}}", "{3}"),
        ("x^{2} { n } {", "x^{2} { n } {"),
        ("{\\boxed{}}", "{\\boxed{}}"),
        ("{{}}", "{}"),
        ("{q}", "{n} \\boxed{}"),
    ],
)
def test_fill(template, filled):
    assert fill(template, {"n": "3", "q": "{n} \\boxed{}"}, "t") == filled


def test_every_unknown_field_is_named_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        make(system="{a} {n}", question="{question} {b}", budget_text="{question}", feedback="verdict and attempt left")
    a, b, question, mode = caught.value.faults
    assert a == "protocol.system: unknown field {a}; known fields: {n}, {s} (for plain braces write {{a}})"
    assert "protocol.question: unknown field {b}" in b and "{n}, {question}, {s}" in b
    assert "protocol.budget_text: unknown field {question}" in question
    assert "did you mean 'verdict and attempts left'?" in mode


def test_the_fields_that_only_a_verdict_brings():
    own = make(feedback="{n}{s} {question} {attempt} {answer} {outcome} {reason}")
    assert own.feedback_fields == set()
    assert own.feedback(PROBLEM, [failed(answer="7")], 2).startswith("2s What is")
    hinted = make(feedback="{hint} {n}")
    assert hinted.feedback_fields == {"hint"}
    hinted.check_feedback_fields({"hint": "higher"})
    with pytest.raises(ConfigError, match=r"unknown field \{hint\}"):
        hinted.check_feedback_fields({"bulls": "1"})
    assert make(feedback="verdict").feedback_fields == set()


def test_a_question_template_without_the_question_is_refused():
    with pytest.raises(ConfigError, match="never shows the question"):
        make(question="Solve it.")


def test_a_stated_budget_contradicts_state_budget_false():
    with pytest.raises(ConfigError, match="state_budget is false"):
        make(system="You have {n}.", state_budget=False)


# --------------------------------------------------------------------------------------------------------------------- prompt


def test_prompt_states_the_budget_in_the_system_turn():
    assert make().prompt(PROBLEM, 3) == [
        {
            "role": "system",
            "content": "Please reason step by step, and put your final answer within \\boxed{}. You have 3 attempts to answer the question.",
        },
        {"role": "user", "content": PROBLEM.question},
    ]
    assert make().prompt(PROBLEM, 1)[0]["content"].endswith(" You have 1 attempt to answer the question.")


def test_prompt_without_system_states_the_budget_after_the_question():
    turns = make(system="", budget_text=" ({n} attempt{s})", question="Q: {question}").prompt(PROBLEM, 2)
    assert turns == [{"role": "user", "content": f"Q: {PROBLEM.question} (2 attempts)"}]


def test_prompt_keeps_the_budget_to_itself():
    assert make(state_budget=False).prompt(PROBLEM, 4) == make(state_budget=False).prompt(PROBLEM, 1)
    assert "attempt" not in make(state_budget=False).prompt(PROBLEM, 4)[0]["content"]


@pytest.mark.parametrize("templates", [{"system": "Tries: {n}."}, {"system": "", "question": "{n} {question}"}, {"question": "{n} {question}"}])
def test_nothing_is_appended_where_a_template_states_the_budget(templates):
    text = "".join(turn["content"] for turn in make(**templates).prompt(PROBLEM, 5))
    assert text.count("5") == 1 and "You have" not in text


def test_prompt_needs_an_attempt():
    with pytest.raises(ValueError, match="n = 0"):
        make().prompt(PROBLEM, 0)


# ------------------------------------------------------------------------------------------------------------------- feedback


def test_feedback_none_is_the_same_whatever_happened():
    protocol = make(feedback="none")
    texts = {protocol.feedback(PROBLEM, [a], left) for a in (failed(), failed(VerdictKind.NO_ANSWER), CUT) for left in (1, 2)}
    assert texts == {"Please give another answer."}


def test_feedback_verdict_tells_outcomes_apart_and_hides_the_count():
    protocol = make(feedback="verdict")
    texts = [protocol.feedback(PROBLEM, [a], 2) for a in (failed(), failed(VerdictKind.NO_ANSWER), CUT)]
    assert texts == [
        "That answer is wrong. Please try again.",
        "No answer was found in your attempt. Try again, and end with an answer.",
        "Your attempt was cut off at the length limit before an answer stood there. Try again, more briefly.",
    ]
    assert texts == [protocol.feedback(PROBLEM, [a], 1) for a in (failed(), failed(VerdictKind.NO_ANSWER), CUT)]


def test_feedback_default_counts():
    protocol = make()
    assert protocol.feedback(PROBLEM, [failed()], 2) == "That answer is wrong. Please try again. You have 2 attempts left."
    assert protocol.feedback(PROBLEM, [failed()], 1) == "That answer is wrong. Please try again. You have 1 attempt left."


def test_every_mode_says_something_else():
    assert len({make(feedback=mode).feedback(PROBLEM, [failed()], 2) for mode in FEEDBACK_MODES}) == 3


def test_feedback_template():
    protocol = make(feedback="#{attempt}: {answer} is {outcome} ({reason}), {hint}. {n} attempt{s} left. \\boxed{}")
    attempt = failed(index=2, answer="7", reason="off by one", fields={"hint": "higher", "n": "not the count"})
    assert protocol.feedback(PROBLEM, [failed(), attempt], 1) == "#2: 7 is wrong (off by one), higher. 1 attempt left. \\boxed{}"


def test_feedback_template_with_an_unknown_field_names_those_at_hand():
    with pytest.raises(ConfigError, match=r"unknown field \{hnit\}; known fields: \{answer\}, \{attempt\}, \{hint\}, \{n\}"):
        make(feedback="{hnit}").feedback(PROBLEM, [failed(fields={"hint": "higher"})], 1)


def test_a_hint_template_is_honest_where_there_was_no_answer_to_hint_at():
    protocol = make(feedback="Too {hint}. {n} left.")
    assert protocol.feedback(PROBLEM, [failed(fields={"hint": "low"})], 2) == "Too low. 2 left."
    assert protocol.feedback(PROBLEM, [CUT], 2) == make().feedback(PROBLEM, [CUT], 2)
    assert make(feedback="{outcome}, {n} left").feedback(PROBLEM, [CUT], 2) == "truncated, 2 left"


def say_bulls(problem, attempts, attempts_left):
    return f"{problem.id}: {len(attempts)} tried, {attempts_left} left"


def say_number(problem, attempts, attempts_left):
    return 7


NOT_A_FUNCTION = 3


def test_feedback_entry_point():
    protocol = make(feedback=f"{__name__}:say_bulls")
    assert protocol.feedback(PROBLEM, [failed(), failed(index=2)], 3) == "p1: 2 tried, 3 left"
    with pytest.raises(ConfigError, match="returned int: it must return a str"):
        make(feedback=f"{__name__}:say_number").feedback(PROBLEM, [failed()], 1)


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        ("no_such_module_here:f", "module 'no_such_module_here' cannot be imported"),
        (f"{__name__}:missing", "has no 'missing'"),
        (f"{__name__}:NOT_A_FUNCTION", "is a int, not a function"),
        (f"{__name__}:make", r"cannot be called with three arguments \(.*\); name a function\(problem, attempts, attempts_left\) -> str"),
        ("Verdict", "did you mean 'verdict'"),
        ("verdict and attempt left", "did you mean 'verdict and attempts left'"),
        ("loud", "is not known; use 'none'"),
        ("", "is not known"),
    ],
)
def test_feedback_that_cannot_be_resolved(feedback, message):
    with pytest.raises(ConfigError, match=message):
        make(feedback=feedback)


# ------------------------------------------------------------------------------------------------------------ end and rewards


def test_finished():
    protocol = make()
    assert [protocol.finished(o, 2) for o in ([], [W], [C], [U], [W, N], [W, C])] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("outcomes", "rewards"),
    [
        ([], ()),
        ([C], (1.0,)),
        ([W, C], (0.0, 1.0)),
        ([N, C], (0.0, 1.0)),
        ([W], (-0.5,)),
        ([W, N], (0.0, -0.5)),
        ([N, W], (0.0, -0.5)),
        ([N], (-1.0,)),
        ([T, N], (0.0, -1.0)),
        ([W, U], (0.0, 0.0)),
    ],
)
def test_rewards_of_the_paper(outcomes, rewards):
    assert make().rewards(outcomes) == rewards


def test_discount_changes_only_the_success_reward():
    protocol = make(reward=RewardConfig(discount=0.5))
    assert [sum(protocol.rewards([W] * k + [C])) for k in range(4)] == [1.0, 0.5, 0.25, 0.125]
    assert protocol.rewards([W, W, W]) == (0.0, 0.0, -0.5)


def test_no_answer_cost_falls_on_each_attempt_without_an_answer():
    protocol = make(reward=RewardConfig(no_answer_cost=0.25))
    assert protocol.rewards([N, W, T, C]) == (-0.25, 0.0, -0.25, 1.0)
    assert protocol.rewards([W, N]) == (0.0, -0.75)
    assert protocol.rewards([N, T]) == (-0.25, -1.25)
    assert protocol.rewards([N, U]) == (0.0, 0.0)


def test_the_three_rewards_come_from_the_recipe():
    protocol = make(reward=RewardConfig(correct=2, wrong=-3, no_answer=-4))
    assert [protocol.rewards([o]) for o in (C, W, N, T)] == [(2.0,), (-3.0,), (-4.0,), (-4.0,)]


# ---------------------------------------------------------------------------------------------------------------------- draws


def test_draws_are_pinned():
    """A change of the hash would silently change every run that is replayed from its seed."""
    protocol = make(budget_per="rollout")
    assert [protocol.draw_budget(0, 0, "p", i) for i in range(10)] == [4, 2, 1, 2, 3, 5, 5, 5, 1, 4]
    assert draw_key(0, 0, "p", 0) == 11915630618192205366


def test_draw_key_separates_its_arguments():
    keys = {draw_key(*key) for key in itertools.product(range(3), range(3), ("a", "b", "a, 1"), range(3))}
    assert len(keys) == 81 and all(0 <= key < 2**64 for key in keys)


def test_a_group_shares_its_budget_and_a_rollout_does_not():
    group, rollout = make(budget_per="group"), make(budget_per="rollout")
    for step in range(20):
        assert len({group.draw_budget(1, step, "p", i) for i in range(32)}) == 1
    assert len({rollout.draw_budget(1, 0, "p", i) for i in range(32)}) == 5
