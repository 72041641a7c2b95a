"""Advantage estimators: literal numbers, a slow reference for GAE, forced tokens inserted anywhere, every option shown to matter."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.config import AdvantageConfig
from mulligan.errors import ConfigError
from mulligan.learning.advantages import Scope, compute_advantages, discounted_returns, gae, pass_at_k_advantage, rloo
from mulligan.types import Attempt, Group, Problem, Rollout, StopReason, Transcript, Verdict, VerdictKind

NAMES = ["gae", "grpo", "dr_grpo", "rloo", "reinforce++", "attempt"]
VERDICTS = {"C": VerdictKind.CORRECT, "W": VerdictKind.WRONG, "N": VerdictKind.NO_ANSWER, "U": VerdictKind.UNGRADABLE}


def rollout(outcomes: str, *, budget=None, tokens=None, rewards=None, forced=None, last_stop=StopReason.ANSWER, error=None) -> Rollout:
    """A dialogue from a word of verdicts ("WWC"). `tokens[a]` are sampled in attempt a, after `forced[a]` forced ones.

    Default reward: +1 on a success, -0.5 on the last failure, as in the paper.
    """
    n = len(outcomes)
    tokens = tokens or [2] * n
    forced = forced or [1] * (n + 1)
    transcript, attempts = Transcript(), []
    for a, letter in enumerate(outcomes):
        transcript.append_forced([7] * forced[a])
        start, end = transcript.append_sampled([5] * tokens[a], [-0.5] * tokens[a])
        stop = last_stop if a == n - 1 else StopReason.ANSWER
        attempts.append(Attempt(a + 1, start, end, letter, stop, Verdict(VERDICTS[letter])))
    transcript.append_forced([7] * forced[n])
    if rewards is None:
        rewards = [0.0] * (n - 1) + [1.0 if outcomes.endswith("C") else -0.5] if n else []
    return Rollout(Problem("p", "q", "a"), transcript, tuple(attempts), n if budget is None else budget, tuple(rewards), 0, 0, error=error)


def group(*rollouts: Rollout) -> Group:
    return Group(Problem("p", "q", "a"), rollouts)


def estimate(groups, name, values=None, kl_penalty=None, **options):
    if name == "gae" and values is None:
        values = [np.linspace(-0.4, 0.7, r.num_sampled) for g in groups for r in g.rollouts]
    return compute_advantages(groups, AdvantageConfig(name=name, **options), values=values, kl_penalty=kl_penalty)


def tokens_of(groups, name, **options):
    return [a.tolist() for a in estimate(groups, name, **options).advantages]


def close(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- one dialogue: gae


def test_gae_literal():
    # deltas: 0 + .5*.4 - .2 = 0 | 1 + .5*.6 - .4 = .9 | -1 + 0 - .6 = -1.6; decay .25
    found = gae(np.array([0.0, 1.0, -1.0]), np.array([0.2, 0.4, 0.6]), gamma=0.5, lam=0.5)
    close([found], [[0.125, 0.5, -1.6]])


def test_gae_of_a_cut_dialogue_adds_the_bootstrap():
    found = gae(np.array([0.0, -1.0]), np.array([0.2, 0.6]), gamma=0.5, lam=1.0, bootstrap=0.6)
    close([found], [[0.5 * -1.3 + 0.1, -1.3]])  # delta_1 = -1 + .5 * .6 - .6


def test_gae_limits():
    """lambda 1: return minus value; lambda 0: one-step error (Schulman et al. 2015, equations 17 and 18)."""
    rewards, values = np.array([0.0, 0.5, 0.0, 1.0]), np.array([0.3, -0.2, 0.1, 0.6])
    close([gae(rewards, values, gamma=1.0, lam=1.0)], [[1.2, 1.7, 0.9, 0.4]])
    close([gae(rewards, values, gamma=1.0, lam=0.0)], [[-0.5, 0.8, 0.5, 0.4]])


def slow_gae(rewards, values, into_forced, gamma, lam, bootstrap):
    """A_t = sum over l of (product of gamma lam over the transitions between) delta_{t+l}, over ALL tokens, forced ones included.

    `into_forced[t]`: whether the transition out of token t leads into a forced token, where gamma = lam = 1.
    """
    n = len(rewards)
    gammas = [1.0 if forced else gamma for forced in into_forced]
    lams = [1.0 if forced else lam for forced in into_forced]
    result = []
    for t in range(n):
        total, weight = 0.0, 1.0
        for k in range(t, n):
            after = values[k + 1] if k + 1 < n else bootstrap
            total += weight * (rewards[k] + gammas[k] * after - values[k])
            weight *= gammas[k] * lams[k]
        result.append(total)
    return result


unit = st.floats(-2, 2, allow_nan=False)


@settings(deadline=None)
@given(st.data())
def test_gae_is_the_full_sequence_with_gamma_and_lambda_1_into_forced_tokens(data):
    lengths = data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4), label="sampled and forced per attempt")
    lengths[-1] = (lengths[-1][0], 0)  # what is forced after the last attempt belongs to no transition
    sampled = [flag for s, f in lengths for flag in [True] * s + [False] * f]
    draw = st.lists(unit, min_size=len(sampled), max_size=len(sampled))
    values = data.draw(draw)
    rewards = [r if flag else 0.0 for r, flag in zip(data.draw(draw), sampled, strict=True)]
    gamma, lam, bootstrap = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1)), data.draw(unit)
    slow = slow_gae(rewards, values, [not flag for flag in sampled[1:]] + [False], gamma, lam, bootstrap)
    keep = np.array(sampled)
    found = gae(np.array(rewards)[keep], np.array(values)[keep], gamma=gamma, lam=lam, bootstrap=bootstrap)
    np.testing.assert_allclose(found, np.array(slow)[keep], atol=1e-9)


def test_gae_rewards_stand_on_the_last_token_of_their_attempt():
    one = rollout("WC", tokens=[2, 3], rewards=[-0.25, 1.0])
    batch = estimate([group(one)], "gae", values=[np.zeros(5)], normalize="none", gamma=0.5, lam=1.0)
    close(batch.advantages, [[-0.125 + 0.0625, -0.25 + 0.125, 0.25, 0.5, 1.0]])
    assert batch.advantages[0].dtype == np.float32


def test_gae_returns_are_unwhitened_advantage_plus_value():
    one, values = rollout("WC", tokens=[1, 1]), [np.array([0.25, 0.5], dtype=np.float32)]
    batch = estimate([group(one)], "gae", values=values, gamma=1.0, lam=1.0)
    assert batch.returns is not None
    close(batch.returns, [[1.0, 1.0]])
    assert batch.returns[0].dtype == np.float32


CUT = StopReason.DIALOGUE_LENGTH


@pytest.mark.parametrize(
    ("one", "bootstraps"),
    [
        (rollout("WN", budget=4, last_stop=CUT), True),  # cut, attempts left
        (rollout("WN", budget=2, last_stop=CUT), True),  # cut in the middle of the last attempt
        (rollout("WW", budget=4, last_stop=CUT), True),  # an answer stands, but a further attempt had no room
        (rollout("WW", budget=2, last_stop=CUT), False),  # an answer stands and no attempt is left: the task's own end
        (rollout("WC", budget=4, last_stop=CUT), False),  # solved
        (rollout("WW", budget=2), False),  # budget used up
        (rollout("WN", budget=2, last_stop=StopReason.ATTEMPT_LENGTH), False),  # the attempt's cap is part of the task
    ],
)
def test_only_a_dialogue_that_a_limit_cut_short_bootstraps(one, bootstraps):
    values = [np.array([0.1, 0.2, 0.3, 0.8])]
    last = estimate([group(one)], "gae", values=values, normalize="none", gamma=0.5).advantages[0][-1]
    assert last == pytest.approx(one.reward - 0.8 + (0.5 * 0.8 if bootstraps else 0.0))


def test_gae_is_whitened_over_the_tokens_of_the_batch():
    groups = [group(rollout("C", tokens=[1])), group(rollout("W", tokens=[3]))]
    zeros = [np.zeros(1), np.zeros(3)]
    # raw 1, -.5, -.5, -.5 (gamma = lam = 1): mean -.125, std .649519
    close(estimate(groups, "gae", values=zeros, lam=1.0).advantages, [[1.732048], [-0.577349] * 3])


# --------------------------------------------------------------------------------------------------------- groups: literal


def test_grpo_literal():
    # rewards 1, -.5, -.5, 0: mean 0, sample std sqrt(1.5 / 3) = .707107
    groups = [group(rollout("C", tokens=[3]), rollout("W"), rollout("WW"), rollout("W", rewards=[0.0], tokens=[1]))]
    a, b = 1 / (math.sqrt(0.5) + 1e-4), -0.5 / (math.sqrt(0.5) + 1e-4)
    close(tokens_of(groups, "grpo"), [[a] * 3, [b] * 2, [b] * 4, [0.0]])


def test_dr_grpo_and_rloo_literal():
    groups = [group(rollout("C"), rollout("WW"), rollout("W", rewards=[0.25], tokens=[1])), group(rollout("C"), rollout("C"))]
    close(tokens_of(groups, "dr_grpo"), [[0.75] * 2, [-0.75] * 4, [0.0], [0.0] * 2, [0.0] * 2])
    close(tokens_of(groups, "rloo"), [[1.125] * 2, [-1.125] * 4, [0.0], [0.0] * 2, [0.0] * 2])


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_a_rollout_alone_in_its_group_has_nothing_to_compare_with(name):
    assert tokens_of([group(rollout("C"), rollout("U"))], name) == [[0.0, 0.0], [0.0, 0.0]]


def test_discounted_returns_literal():
    close([discounted_returns(np.array([1.0, 0.0, 2.0]), 0.5)], [[1.5, 1.0, 2.0]])


def test_reinforce_pp_literal():
    groups = [group(rollout("WC", tokens=[1, 1])), group(rollout("W", tokens=[1]))]
    close(tokens_of(groups, "reinforce++", gamma=0.5, normalize="none"), [[0.5, 1.0], [-0.5]])
    # mean 1/3, std sqrt((1/36 + 16/36 + 25/36) / 3) = .62361
    close(tokens_of(groups, "reinforce++", gamma=0.5), [[0.267261, 1.069043], [-1.336304]])


# -------------------------------------------------------------------------------------------------------- attempt: literal


FOUR = group(rollout("C", budget=2), rollout("WC"), rollout("WW"), rollout("WW"))
"""Returns from attempt 1: 1, 1, -.5, -.5 (V = .25); from attempt 2: 1, -.5, -.5 (V = 0)."""


def test_attempt_monte_carlo_literal():
    close(tokens_of([FOUR], "attempt", normalize="none", min_count=2), [[0.75] * 2, [0.75] * 2 + [1.0] * 2, *[[-0.75] * 2 + [-0.5] * 2] * 2])


def test_attempt_one_step_literal():
    """1 - V(t) on success; V(t+1) - V(t) on a failure with an attempt left; the reward - V(t) on the last."""
    found = tokens_of([FOUR], "attempt", normalize="none", min_count=2, one_step=True)
    close(found, [[0.75] * 2, [-0.25] * 2 + [1.0] * 2, *[[-0.25] * 2 + [-0.5] * 2] * 2])


def test_attempt_scaled_by_the_spread_over_attempts_not_tokens():
    raw = [0.75, 0.75, 1.0, -0.75, -0.5, -0.75, -0.5]  # one number per (rollout, attempt)
    longer = group(rollout("C", budget=2, tokens=[9]), *FOUR.rollouts[1:])
    found = tokens_of([longer], "attempt", min_count=2)
    close(found[:2], [[0.75 / (np.std(raw) + 1e-6)] * 9, [0.75 / (np.std(raw) + 1e-6)] * 2 + [1.0 / (np.std(raw) + 1e-6)] * 2])


def test_attempt_takes_the_batch_where_the_group_has_too_few():
    easy = group(rollout("C", budget=2), rollout("C", budget=2), rollout("C", budget=2), rollout("WC"))
    batch = estimate([FOUR, easy], "attempt", normalize="none", min_count=3)
    # easy, attempt 1: its own four, V = 1. Attempt 2: the lone survivor and the three of FOUR: V = (1 + 1 - .5 - .5) / 4 = .25
    close(batch.advantages[4:], [[0.0] * 2, [0.0] * 2, [0.0] * 2, [0.0] * 2 + [0.75] * 2])
    close(batch.advantages[1:2], [[0.75] * 2 + [1.0] * 2])  # FOUR keeps its own three at attempt 2
    assert batch.metrics["advantage/baseline_group"] == 11
    assert batch.metrics["advantage/baseline_batch"] == 1
    assert batch.metrics["advantage/attempt_2/count"] == 4
    assert batch.metrics["advantage/attempt_2/baseline"] == pytest.approx(0.0625)


def test_one_step_takes_both_ends_from_the_same_rollouts():
    hard = group(rollout("WWW"), rollout("WWW"), rollout("WWW"), rollout("C", budget=3))
    easy = group(*[rollout("WC", budget=3)] * 4)
    found = tokens_of([hard, easy], "attempt", normalize="none", min_count=4, one_step=True)
    # batch: V(1) = (3 * -.5 + 1 + 4) / 8 = .4375, V(2) = (3 * -.5 + 4) / 7 = .357143; V(3) = -.5
    # hard has 4 at attempt 1 (V = -.125) but 3 at attempt 2: its failures get the batch's difference, which is below zero
    close(found[0][:2], [0.357143 - 0.4375] * 2)
    close(found[3], [1 + 0.125] * 2)
    close(found[0][2:4], [-0.5 - 0.357143] * 2)
    close(found[4], [0.0] * 4)  # easy: 4 of its own at both attempts, V(1) = V(2) = 1


def test_attempt_compares_equal_budgets_only():
    groups = [group(rollout("C", budget=1), rollout("W", budget=1)), group(rollout("C", budget=2), rollout("WC", budget=2))]
    close(tokens_of(groups, "attempt", normalize="none", min_count=4)[:2], [[0.75] * 2, [-0.75] * 2])


def test_lone_survivor_falls_back_on_the_same_number_of_attempts_left():
    groups = [group(rollout("WC", budget=2), rollout("C", budget=2)), group(rollout("W"), rollout("W"), rollout("C"))]
    batch = estimate(groups, "attempt", normalize="none", min_count=4)
    # budget 2, attempt 2 was reached once; with no attempt left also: -.5, -.5, 1 of budget 1: V = (1 - .5 - .5 + 1) / 4 = .25
    close(batch.advantages[:1], [[0.0] * 2 + [0.75] * 2])
    assert batch.metrics["advantage/baseline_attempts_left"] == 1


def test_lone_survivor_without_an_equal_falls_back_on_everything():
    batch = estimate([group(rollout("WC", budget=5), rollout("C", budget=5), rollout("W", budget=9))], "attempt", normalize="none")
    # returns 1, 1 (attempts 1, 2) | 1 | -.5: mean .625
    close(batch.advantages, [[0.0] * 2 + [0.375] * 2, [0.0] * 2, [-1.125] * 2])
    assert batch.metrics["advantage/baseline_all"] == 2


@pytest.mark.parametrize("options", [{}, {"one_step": True}, {"min_count": 1}])
def test_one_rollout_in_all_learns_from_its_reward(options):
    batch = estimate([group(rollout("WC"))], "attempt", **options)
    # one step: 0 and 1 over their spread of .5; else 1 and 1, which have no spread to be divided by
    expected = [0.0, 0.0, 2.0, 2.0] if options.get("one_step") else [1.0] * 4
    np.testing.assert_allclose(batch.advantages[0], expected, atol=1e-5)
    assert batch.metrics["advantage/baseline_none"] == 2


def test_metrics_name_every_scope():
    assert {f"advantage/baseline_{s.name.lower()}" for s in Scope} <= estimate([FOUR], "attempt").metrics.keys()


# -------------------------------------------------------------------------------------------------------- all of them: forced


@st.composite
def batches(draw):
    """The same dialogues twice: with one forced token before each attempt, and with any number of them anywhere."""
    plain, padded = [], []
    for _ in range(draw(st.integers(1, 3))):
        pairs = []
        for _ in range(draw(st.integers(1, 4))):
            budget = draw(st.integers(1, 4))
            failures = draw(st.text("WN", min_size=0, max_size=budget))
            outcomes = failures if len(failures) == budget else failures + draw(st.sampled_from("CCWNU"))
            n = len(outcomes)
            options = {
                "budget": budget,
                "tokens": draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)),
                "rewards": draw(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), min_size=n, max_size=n)),
                "last_stop": draw(st.sampled_from([StopReason.ANSWER, StopReason.DIALOGUE_LENGTH])),
            }
            forced = draw(st.lists(st.integers(0, 6), min_size=n + 1, max_size=n + 1))
            pairs.append((rollout(outcomes, **options), rollout(outcomes, forced=forced, **options)))
        plain.append(group(*[a for a, _ in pairs]))
        padded.append(group(*[b for _, b in pairs]))
    return plain, padded


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_forced_tokens_change_no_advantage(name, data):
    """Advantages laid out over the transcript, read back at its sampled positions, are the same with other forced tokens."""
    plain, padded = data.draw(batches())
    options = {"normalize": data.draw(st.sampled_from(["none", "batch"])), "one_step": data.draw(st.booleans()), "gamma": data.draw(st.sampled_from([1.0, 0.9]))}
    first, second = estimate(plain, name, **options), estimate(padded, name, **options)
    for rollouts, found in ((plain, first), (padded, second)):
        for one, advantages in zip([r for g in rollouts for r in g.rollouts], found.advantages, strict=True):
            assert advantages.shape == (sum(one.transcript.sampled),)
            assert np.isfinite(advantages).all()
            assert advantages.dtype == np.float32
    for a, b in zip(first.advantages, second.advantages, strict=True):
        assert np.array_equal(a, b)
    assert first.metrics == second.metrics
    assert (first.returns is None) == (name != "gae")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_untrainable_rollouts_get_zero_and_change_nothing(name, data):
    groups, _ = data.draw(batches())
    live = [group(*[r for r in g.rollouts if r.trainable]) for g in groups]
    broken = [group(*g.rollouts, rollout("WU", rewards=[5.0, 5.0]), rollout("C", rewards=[9.0], error="sampler died"), rollout("")) for g in groups]
    expected, found = estimate(live, name), estimate(broken, name)
    flat = [r for g in broken for r in g.rollouts]
    kept = [a for r, a in zip(flat, found.advantages, strict=True) if r.trainable]
    assert all(not a.any() and len(a) == r.num_sampled for r, a in zip(flat, found.advantages, strict=True) if not r.trainable)
    assert len(kept) == len(expected.advantages)
    for a, b in zip(kept, expected.advantages, strict=True):
        assert np.array_equal(a, b)
    assert found.metrics["advantage/untrainable_share"] > 0
    assert found.metrics["advantage/mean"] == expected.metrics["advantage/mean"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_order_of_groups_and_rollouts_does_not_matter(name, data):
    groups, _ = data.draw(batches())
    back = [group(*g.rollouts[::-1]) for g in groups[::-1]]
    for a, b in zip(estimate(groups, name).advantages, estimate(back, name).advantages[::-1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_trainable_and_nothing_at_all(name):
    assert estimate([], name).advantages == []
    batch = estimate([group(rollout("U"), rollout(""))], name)
    assert [a.tolist() for a in batch.advantages] == [[0.0, 0.0], []]
    assert all(math.isfinite(v) for v in batch.metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_an_attempt_without_tokens_keeps_its_reward(name):
    """A limit can leave no room for a single token; the reward then stands on the token before."""
    groups = [group(rollout("WN", tokens=[2, 0], rewards=[0.0, -1.0], last_stop=CUT), rollout("C"))]
    found = tokens_of(groups, name, values=[np.zeros(2), np.zeros(2)], normalize="none", gamma=1.0, lam=1.0)
    assert [len(a) for a in found] == [2, 2]
    assert found[0][0] < 0 < found[1][0]


# -------------------------------------------------------------------------------------------------------------- kl in reward


def test_kl_penalty_by_token_attempt_and_dialogue():
    one, other = rollout("WC", tokens=[2, 1]), rollout("W", budget=2, tokens=[1])
    groups, kl = [group(one, other)], [np.array([0.1, 0.2, 0.4]), np.array([0.0])]
    close(tokens_of(groups, "reinforce++", kl_penalty=kl, normalize="none"), [[0.3, 0.4, 0.6], [-0.5]])
    close(tokens_of(groups, "gae", values=[np.zeros(3), np.zeros(1)], kl_penalty=kl, normalize="none", lam=1.0), [[0.3, 0.4, 0.6], [-0.5]])
    close(tokens_of(groups, "dr_grpo", kl_penalty=kl), [[0.4] * 3, [-0.4]])
    # returns: .3 and .6 | -.5; V(1) = -.1, V(2): no second dialogue at (2, 2) or with 0 left: all of them, (.3 + .6 - .5) / 3
    close(tokens_of(groups, "attempt", kl_penalty=kl, normalize="none", min_count=2), [[0.4, 0.4, 0.6 - 0.4 / 3], [-0.4]])


# ------------------------------------------------------------------------------------------------------------------- errors


def test_gae_without_values_names_the_fix():
    with pytest.raises(ConfigError, match=r"needs a critic's values"):
        compute_advantages([FOUR], AdvantageConfig(name="gae"))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"values: 1 arrays for 4 rollouts"):
        estimate([FOUR], "gae", values=[np.zeros(2)])
    with pytest.raises(ValueError, match=r"kl_penalty\[1\] has shape \(2,\); rollout 1 has 4 sampled tokens"):
        estimate([FOUR], "grpo", kl_penalty=[np.zeros(2)] * 4)


# ------------------------------------------------------------------------------------------------- every option does something


OPTIONS = [
    ("gae", "gamma", 0.9),
    ("gae", "lam", 0.5),
    ("gae", "normalize", "none"),
    ("reinforce++", "gamma", 0.9),
    ("reinforce++", "normalize", "none"),
    ("attempt", "normalize", "none"),
    ("attempt", "one_step", True),
    ("attempt", "min_count", 2),
    ("pass@k", "k", 2),
]
MIXED = [FOUR, group(rollout("C", budget=2), rollout("WC"), rollout("WC"), rollout("WW", rewards=[0.0, -1.0]))]


@pytest.mark.parametrize(("name", "option", "value"), OPTIONS)
def test_every_option_changes_something(name, option, value):
    default, changed = tokens_of(MIXED, name), tokens_of(MIXED, name, **{option: value})
    assert max(np.abs(np.array(a) - np.array(b)).max() for a, b in zip(default, changed, strict=True)) > 1e-2


def test_every_option_is_in_that_list():
    assert {option for _, option, _ in OPTIONS} | {"name"} == set(AdvantageConfig.model_fields)


def test_every_estimator_differs_from_every_other():
    found = {name: np.concatenate(tokens_of(MIXED, name)) for name in NAMES}
    for i, a in enumerate(NAMES):
        for b in NAMES[i + 1 :]:
            assert np.abs(found[a] - found[b]).max() > 1e-2, (a, b)


def test_the_inputs_are_left_alone():
    values, kl = [np.ones(r.num_sampled) for r in FOUR.rollouts], [np.ones(r.num_sampled) for r in FOUR.rollouts]
    estimate([FOUR], "gae", values=values, kl_penalty=kl)
    assert all((v == 1).all() for v in [*values, *kl])


# ----------------------------------------------------------------------------------------------------------------- pass@k


def test_pass_at_k_with_literal_numbers():
    # Four rollouts, one right, k = 2. The right one: 1, less the others' 0. A wrong one: of the 3 sets of 2 that hold it, 1 holds the
    # right one; the 3 sets of 2 among the other three: 2 do.
    found = pass_at_k_advantage(np.array([True, False, False, False]), 2)
    close([found], [[1.0, 1 / 3 - 2 / 3, 1 / 3 - 2 / 3, 1 / 3 - 2 / 3]])


def test_pass_at_1_is_leave_one_out_on_successes():
    solved = np.array([True, False, True, False, False])
    close([pass_at_k_advantage(solved, 1)], [rloo(solved.astype(float))])


@given(p=st.floats(0.05, 0.95), k=st.integers(1, 3), extra=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_pass_at_k_is_the_gradient_of_pass_at_k_on_a_coin(p, k, extra):
    """One logit, success with probability p: E[sum_i A_i dlog pi / dtheta] summed over every outcome of the group must be d pass@k / dtheta
    times group / k... that is, sum_i A_i counts every member of a set of k once."""
    group_size = k + extra
    expected = 0.0
    for outcome in itertools.product([True, False], repeat=group_size):
        solved = np.array(outcome)
        probability = p ** solved.sum() * (1 - p) ** (group_size - solved.sum())
        score = np.where(solved, 1 - p, -p)  # d log pi / d theta with p = sigmoid(theta)
        expected += probability * float((pass_at_k_advantage(solved, k) * score).mean())
    derivative = (1 - p) ** (k - 1) * p * (1 - p)  # d (1 - (1 - p)^k) / d theta, divided by k
    assert expected == pytest.approx(derivative, abs=1e-9)


def test_pass_at_k_in_a_batch_counts_dialogues_not_rewards_and_leaves_small_groups_out():
    groups = [group(rollout("WC"), rollout("WW"), rollout("WW"), rollout("C")), group(rollout("C"), rollout("W"), rollout("U"), rollout("U"))]
    found = estimate(groups, "pass@k", k=2).advantages
    close([found[0]], [np.full(4, 1 - (1 - 1 / 3))])
    close([found[3]], [np.full(2, 1 - (1 - 1 / 3))])
    assert all(not np.any(a) for a in found[4:])


def test_pass_at_k_wants_more_than_k_rollouts():
    with pytest.raises(ValueError, match="pass@4 needs groups of more than 4 rollouts, got 4"):
        pass_at_k_advantage(np.array([True, False, False, False]), 4)
