"""The protocol, by properties: draws follow the weights and nothing else; rewards add up; templates lose no text."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mulligan.config import AttemptBudget, ProtocolConfig, RewardConfig
from mulligan.errors import ConfigError
from mulligan.protocol import Protocol, draw_key, fill
from mulligan.types import Outcome

FAILURES = (Outcome.WRONG, Outcome.NO_ANSWER, Outcome.TRUNCATED)
ended = st.tuples(st.lists(st.sampled_from(FAILURES), max_size=6), st.sampled_from(tuple(Outcome))).map(lambda t: [*t[0], t[1]])
weights = st.lists(st.integers(0, 5), min_size=1, max_size=7).filter(any)


def make(attempts: str = "uniform(1,5)", reward: RewardConfig | None = None, **protocol) -> Protocol:
    return Protocol(ProtocolConfig(**protocol), AttemptBudget.parse(attempts), reward or RewardConfig())


@pytest.mark.parametrize("written", ["uniform(1,5)", "weights(1,0,2,1)", "fixed(3)", "weights(0,1)"])
def test_budget_frequencies_follow_the_weights(written):
    budget, draws = AttemptBudget.parse(written), 4000
    protocol = make(written, budget_per="rollout")
    drawn = [protocol.draw_budget(7, i % 20, f"p{i // 20 % 10}", i // 200) for i in range(draws)]
    for n, p in enumerate(budget.weights, start=1):
        spread = 4.5 * math.sqrt(p * (1 - p) / draws)  # 4.5 standard deviations: the keys are fixed, so this never flickers
        assert abs(drawn.count(n) / draws - p) <= spread, n


@given(weights, st.integers(0, 2**32), st.integers(0, 10**6), st.text(max_size=8), st.integers(0, 64))
def test_a_budget_is_possible_and_keyed(relative, seed, step, problem_id, index):
    written = f"weights({','.join(map(str, relative))})"
    drawn = make(written, budget_per="rollout").draw_budget(seed, step, problem_id, index)
    assert relative[drawn - 1] > 0
    assert drawn == make(written, budget_per="rollout").draw_budget(seed, step, problem_id, index)


@given(st.randoms(use_true_random=False))
def test_draws_do_not_depend_on_order(rng: random.Random):
    protocol = make(budget_per="rollout")
    keys = [(0, step, problem_id, index) for step in range(3) for problem_id in "abc" for index in range(4)]
    expected = {key: (protocol.draw_budget(*key), draw_key(*key)) for key in keys}
    rng.shuffle(keys)
    assert {key: (protocol.draw_budget(*key), draw_key(*key)) for key in keys} == expected


def test_budgets_of_neighbouring_keys_are_independent():
    """The drawn budgets of step s and s + 1, and of rollout i and i + 1, are uncorrelated (|r| < 4.5 / sqrt(n))."""
    protocol = make(budget_per="rollout")
    for a, b in (((0, 0), (1, 0)), ((0, 0), (0, 1))):
        x, y = ([protocol.draw_budget(0, 2 * k + step, "p", index) for k in range(2000)] for step, index in (a, b))
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        covariance = sum((u - mean_x) * (v - mean_y) for u, v in zip(x, y, strict=True)) / len(x)
        assert abs(covariance) / 2.0 < 4.5 / math.sqrt(len(x))  # variance of uniform(1,5) is 2


@given(ended, st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_rewards_sum_to_the_dialogues_reward(outcomes, discount, cost):
    rewards = make(reward=RewardConfig(discount=discount, no_answer_cost=cost)).rewards(outcomes)
    assert len(rewards) == len(outcomes)
    if Outcome.UNGRADABLE in outcomes:
        assert rewards == (0.0,) * len(outcomes)
        return
    answerless = sum(o in (Outcome.NO_ANSWER, Outcome.TRUNCATED) for o in outcomes)
    unsolved = -1.0 if answerless == len(outcomes) else -0.5
    base = discount ** (len(outcomes) - 1) if outcomes[-1] is Outcome.CORRECT else unsolved
    assert math.isclose(sum(rewards), base - cost * answerless, abs_tol=1e-9)


@given(ended, st.integers(1, 7))
def test_a_dialogue_always_ends_within_its_budget(outcomes, n):
    protocol = make()
    played: list[Outcome] = []
    for outcome in outcomes * 7:
        if protocol.finished(played, n):
            break
        played.append(outcome)
    assert protocol.finished(played, n) and 1 <= len(played) <= n


@given(st.text())
def test_text_in_braces_survives_escaping(text):
    assert fill(text.replace("{", "{{").replace("}", "}}"), {}, "t") == text


@given(st.text())
def test_filled_text_is_not_searched_again(text):
    assert fill("<{q}>", {"q": text}, "t") == f"<{text}>"


@given(st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True))
def test_unknown_names_never_pass_as_text(name):
    assume(name not in ("n", "s"))
    with pytest.raises(ConfigError, match="unknown field"):
        make(system=f"Hi {{{name}}}")
