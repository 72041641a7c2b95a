"""Advantages: how much better than expected each sampled token was. Pure functions of attempts and rewards; torch-free.

What an estimator sees of a rollout is an `Episode`: the number of tokens sampled in each attempt and the rewards. No forced
token (prompt, feedback) is in it, so that inserting forced tokens cannot change an advantage.

Suffixes of names: `_G` rollout of a group, `_A` attempt, `_T` sampled token of one dialogue (its attempts joined end to end).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float

from mulligan.config import AdvantageConfig
from mulligan.errors import ConfigError
from mulligan.types import Group, Outcome, Rollout

STD_EPS = 1e-6
"""Added to a batch's standard deviation before dividing by it."""
GROUP_STD_EPS = 1e-4
"""The same for a group's (GRPO), the value that TRL uses."""


@dataclass(frozen=True, slots=True)
class AdvantageBatch:
    """Advantages of a batch of groups, flattened group by group.

    `advantages[i]` has shape `(rollouts[i].num_sampled,)`, float32. `returns[i]`, of the same shape, is what the critic should
    have said (gae only, else None). `metrics` is for the log; nothing reads it to decide.
    """

    advantages: list[np.ndarray]
    returns: list[np.ndarray] | None
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Episode:
    """All that an estimator may see of one trainable rollout."""

    group: int
    budget: int
    """Attempts allowed."""
    num_tokens_A: np.ndarray
    """Tokens sampled in each attempt."""
    rewards_A: np.ndarray
    """Reward of each attempt; a KL penalty, where one is in the reward, is already taken off."""
    rewards_T: np.ndarray
    """The same rewards token by token: an attempt's reward stands on its last token, each penalty on its own."""
    solved: bool
    cut: bool
    """A token limit stopped it while more was to come (truncated); otherwise its end is the task's own end (terminated)."""

    @property
    def reward(self) -> float:
        return float(self.rewards_A.sum())


# ----------------------------------------------------------------------------------------------- estimators on one dialogue


def discounted_returns(rewards_T: Float[np.ndarray, " T"], gamma: float) -> Float[np.ndarray, " T"]:
    """Return from each token on: `G_t = r_t + gamma G_{t+1}`.

    REINFORCE++ (Hu et al. 2025, arXiv 2501.03262) takes it, less the KL of the tokens to come, as the advantage
    before it is normalised over the batch.
    """
    return _backwards(rewards_T, gamma)


def gae(
    rewards_T: Float[np.ndarray, " T"], values_T: Float[np.ndarray, " T"], *, gamma: float, lam: float, bootstrap: float = 0.0
) -> Float[np.ndarray, " T"]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, equations 11 and 16).

    With `delta_t = r_t + gamma V_{t+1} - V_t`, the advantage is `A_t = delta_t + gamma lam A_{t+1}`, over the sampled tokens
    of the dialogue joined end to end. `values_T[t]` is the value of the state *before* token t; `bootstrap` is the value of
    the state after the last token: 0 where the task ended.

    **Forced tokens.** They are left out, and that is the same as keeping them with gamma = lam = 1 on every transition *into*
    a forced token (the transition into the next attempt's first token keeps gamma and lam, as between any two sampled tokens).
    Proof: for a forced token f with value V_f, `A_f + V_f = gamma V_next + gamma lam A_next`, free of V_f; one with another
    forced token after it passes that sum on unchanged (gamma = lam = 1); so does the last sampled token s of the attempt
    before: `A_s = r_s + V_f - V_s + A_f = r_s + gamma V_next - V_s + gamma lam A_next`. Neither the number of forced tokens
    nor what the critic says of them enters.
    """
    next_values_T = np.append(values_T[1:], bootstrap)[: len(values_T)]
    deltas_T = rewards_T + gamma * next_values_T - values_T
    return _backwards(deltas_T, gamma * lam)


def _backwards(terms_T: np.ndarray, decay: float) -> np.ndarray:
    """Solve `x_t = terms_t + decay x_{t+1}` from the end; `x` after the end is 0."""
    sums = accumulate(terms_T[::-1].tolist(), lambda later, term: term + decay * later)
    return np.array(list(sums), dtype=np.float64)[::-1]


# -------------------------------------------------------------------------------------------------- estimators on one group


def grpo(rewards_G: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
    """GRPO (Shao et al. 2024, arXiv 2402.03300, section 4.1.2): `A_i = (R_i - mean R) / (std R + 1e-4)`.

    `std` is the sample's (divided by G - 1), as in TRL's GRPOTrainer. A rollout alone in its group has advantage 0.
    """
    if len(rewards_G) < 2:
        return np.zeros_like(rewards_G)
    return dr_grpo(rewards_G) / (rewards_G.std(ddof=1) + GROUP_STD_EPS)


def dr_grpo(rewards_G: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
    """Dr. GRPO (Liu et al. 2025, arXiv 2503.20783, section 3.2): `A_i = R_i - mean R`, without the division that favours
    questions which are nearly always, or nearly never, solved."""
    return rewards_G - rewards_G.mean()


def rloo(rewards_G: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
    """Leave-one-out REINFORCE (Ahmadian et al. 2024, arXiv 2402.14740; Kool et al. 2019): `A_i = R_i - mean of the others`.

    A rollout alone in its group has no others and gets advantage 0.
    """
    if len(rewards_G) < 2:
        return np.zeros_like(rewards_G)
    others_G = (rewards_G.sum() - rewards_G) / (len(rewards_G) - 1)
    return rewards_G - others_G


GROUP_ESTIMATORS = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}


def pass_at_k_advantage(solved_G: Bool[np.ndarray, " G"], k: int) -> Float[np.ndarray, " G"]:
    """Advantages whose policy gradient is that of pass@k, without bias, from G > k rollouts (Walder and Karkhanis 2025, "Pass@K
    Policy Optimization", arXiv 2505.15201).

    Rollout i is worth the share of the sets of k that hold it and have a success: 1 if it is one itself, else
    `rho(G - 1, c_i, k - 1)`, with c_i successes among the others and `rho(n, c, k) = 1 - C(n - c, k) / C(n, k)`. Taken off is what the
    others alone are worth, `rho(G - 1, c_i, k)`, which does not depend on i's own draw. With k = 1 this is `rloo` on 0/1 rewards.
    """
    group = len(solved_G)
    if group <= k:
        raise ValueError(f"pass@{k} needs groups of more than {k} rollouts, got {group}")
    others_G = solved_G.sum() - solved_G
    worth_G = np.where(solved_G, 1.0, [_any_solved(group - 1, int(c), k - 1) for c in others_G])
    return worth_G - np.array([_any_solved(group - 1, int(c), k) for c in others_G])


def _any_solved(n: int, c: int, k: int) -> float:
    """Share of the sets of k out of n rollouts, c of them successes, that hold a success."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


# ----------------------------------------------------------------------------------------------------- estimator by attempt


class Scope(IntEnum):
    """Whose returns make the baseline V of attempt t under budget n; the first that has enough dialogues is taken."""

    GROUP = 0
    """Rollouts of the same group with budget n that reached attempt t: at least `min_count` of them (and never fewer than 2)."""
    BATCH = 1
    """Rollouts of the whole batch with budget n that reached attempt t: at least 2."""
    ATTEMPTS_LEFT = 2
    """Attempts of any budget with n - t attempts still to come: of at least 2 rollouts."""
    ALL = 3
    """Every attempt of every rollout: at least 2 rollouts."""
    NONE = 4
    """There is one rollout in all: V = 0, plain REINFORCE."""


class Baselines:
    """V(t): the mean return from attempt t on, a baseline without a critic, looked up by scope.

    A mean includes the rollout that it is the baseline of, which shrinks the advantages of m rollouts by (m - 1) / m and leaves
    their direction; alone it would be its own baseline and learn nothing, so every scope wants at least 2 dialogues.
    """

    def __init__(self, episodes: Sequence[Episode], returns_A: Sequence[np.ndarray], min_count: int):
        self.min_count = max(min_count, 2)
        self.num_episodes = len(episodes)
        found: dict[tuple[int, ...], list[float]] = defaultdict(list)
        for episode, returns in zip(episodes, returns_A, strict=True):
            for a, value in enumerate(returns.tolist()):
                for scope in (Scope.GROUP, Scope.BATCH, Scope.ATTEMPTS_LEFT, Scope.ALL):
                    found[self._key(scope, episode, a)].append(value)
        self.means = {key: float(np.mean(values)) for key, values in found.items()}
        self.counts = {key: len(values) for key, values in found.items()}

    @staticmethod
    def _key(scope: Scope, episode: Episode, a: int) -> tuple[int, ...]:
        match scope:
            case Scope.GROUP:
                return (scope, episode.group, episode.budget, a)
            case Scope.BATCH:
                return (scope, episode.budget, a)
            case Scope.ATTEMPTS_LEFT:
                return (scope, episode.budget - a)
            case _:
                return (scope,)

    def scope(self, episode: Episode, a: int) -> Scope:
        """The narrowest scope with enough dialogues at attempt `a` (from 0), which the episode must have reached."""
        if self.counts[self._key(Scope.GROUP, episode, a)] >= self.min_count:
            return Scope.GROUP
        for scope in (Scope.BATCH, Scope.ATTEMPTS_LEFT):
            if self.counts[self._key(scope, episode, a)] >= 2:
                return scope
        return Scope.ALL if self.num_episodes >= 2 else Scope.NONE

    def value(self, scope: Scope, episode: Episode, a: int) -> float:
        return 0.0 if scope is Scope.NONE else self.means[self._key(scope, episode, a)]


def attempt_advantages(
    episodes: Sequence[Episode], *, min_count: int, one_step: bool
) -> tuple[list[np.ndarray], list[list[tuple[Scope, float]]]]:
    """Credit per attempt with a baseline V(t) and no critic: one advantage per attempt of every episode.

    REINFORCE with a state-dependent baseline (Williams 1992; Sutton & Barto 2018, equation 13.11), where a state is an attempt:
    `A_t = G_t - V(t)`, with `G_t` the sum of rewards from attempt t on and V(t) its mean (see `Scope`).

    `one_step` puts V in the place of what is still to come (the TD error, Sutton & Barto 2018, section 13.5):
    `A_t = r_t + V(t+1) - V(t)`, and V = 0 after the last attempt: `1 - V(t)` on success, `V(t+1) - V(t)` on failure. The two
    ends of such a difference are taken over the same rollouts: where only the batch has enough of them at t+1, V(t) is the
    batch's too, since the difference between a batch's V(t+1) and a hard question's V(t) would reward its failures.

    Returns:
        The advantages, an array of shape (A,) per episode, and the baseline used for each (scope, V(t)).
    """
    returns_A = [e.rewards_A[::-1].cumsum()[::-1] for e in episodes]
    baselines = Baselines(episodes, returns_A, min_count)
    advantages, used = [], []
    for episode, returns in zip(episodes, returns_A, strict=True):
        scopes = [baselines.scope(episode, a) for a in range(len(returns))]
        targets_A = returns
        if one_step:
            next_values = [baselines.value(scopes[a], episode, a) for a in range(1, len(scopes))]
            targets_A = episode.rewards_A + np.array([*next_values, 0.0])
            scopes = [max(s, min(after, Scope.BATCH)) for s, after in zip(scopes, [*scopes[1:], Scope.GROUP], strict=True)]
        values = [baselines.value(scope, episode, a) for a, scope in enumerate(scopes)]
        advantages.append(targets_A - np.array(values))
        used.append(list(zip(scopes, values, strict=True)))
    return advantages, used


# --------------------------------------------------------------------------------------------------------------- normalising


def whiten(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Mean 0 and standard deviation 1 over the tokens of all arrays together: `(x - mean) / (std + 1e-6)`."""
    joined = np.concatenate([*arrays, np.zeros(0)])
    if not len(joined):
        return list(arrays)
    return [(x - joined.mean()) / (joined.std() + STD_EPS) for x in arrays]


def scale(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Divide by the standard deviation of all arrays together, without taking a mean off: advantages keep their signs.

    Where all are equal (a lone rollout) there is no spread to divide by, and they stay as they are.
    """
    joined = np.concatenate([*arrays, np.zeros(0)])
    std = float(joined.std()) if len(joined) else 0.0
    return [x / (std + STD_EPS) for x in arrays] if std > STD_EPS else list(arrays)


# ----------------------------------------------------------------------------------------------------------------- the batch


def compute_advantages(
    groups: Sequence[Group],
    config: AdvantageConfig,
    *,
    values: Sequence[np.ndarray] | None = None,
    kl_penalty: Sequence[np.ndarray] | None = None,
) -> AdvantageBatch:
    """Advantages of every sampled token of a batch, by the estimator that `config.name` names.

    Rollouts are flattened group by group. One that is not `trainable` gets advantage 0 everywhere (and its own values as
    returns) and enters no baseline, mean or standard deviation.

    Args:
        values: for gae; per rollout, shape (num_sampled,): the critic's value of the state before each sampled token.
        kl_penalty: per rollout, shape (num_sampled,): taken off the reward of each sampled token, its coefficient applied
            already. `gae` and `reinforce++` see it token by token, `attempt` summed over the attempt, the others over the dialogue.

    A rollout that a token limit cut short bootstraps (gae) with the value of the state before its last token, the nearest that
    there is to the value of the state after it. One that was solved, or used up its budget, ended: nothing follows, value 0.

    Raises:
        ConfigError: gae without values.
        ValueError: values or penalties whose shapes are not those of the rollouts.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    group_of = [p for p, group in enumerate(groups) for _ in group.rollouts]
    if config.name == "gae" and values is None:
        raise ConfigError("advantage.name = 'gae' needs a critic's values: configure [critic], or choose another advantage.name")
    _check_shapes(rollouts, values, "values")
    _check_shapes(rollouts, kl_penalty, "kl_penalty")
    live = [i for i, rollout in enumerate(rollouts) if rollout.trainable]
    episodes = [_episode(rollouts[i], group_of[i], None if kl_penalty is None else kl_penalty[i]) for i in live]

    returns, metrics = None, {}
    if config.name == "gae":
        assert values is not None
        found = _gae_batch(episodes, [np.asarray(values[i], dtype=np.float64) for i in live], config)
        returns = [np.array(v, dtype=np.float32) for v in values]
        for i, advantages_T in zip(live, found, strict=True):
            returns[i] = (advantages_T + values[i]).astype(np.float32)
    elif config.name == "reinforce++":
        found = [discounted_returns(e.rewards_T, config.gamma) for e in episodes]
    elif config.name == "attempt":
        found, metrics = _attempt_batch(episodes, config)
    else:
        found = _group_batch(episodes, config)
    if config.name in ("gae", "reinforce++") and config.normalize == "batch":
        found = whiten(found)

    advantages = [np.zeros(rollout.num_sampled, dtype=np.float32) for rollout in rollouts]
    for i, advantages_T in zip(live, found, strict=True):
        advantages[i] = advantages_T.astype(np.float32)
    return AdvantageBatch(advantages, returns, _summary(found, len(rollouts)) | metrics)


def _check_shapes(rollouts: Sequence[Rollout], arrays: Sequence[np.ndarray] | None, name: str) -> None:
    if arrays is None:
        return
    if len(arrays) != len(rollouts):
        raise ValueError(f"{name}: {len(arrays)} arrays for {len(rollouts)} rollouts; give one per rollout, in the order of the groups")
    for i, (rollout, array) in enumerate(zip(rollouts, arrays, strict=True)):
        if np.shape(array) != (rollout.num_sampled,):
            raise ValueError(f"{name}[{i}] has shape {np.shape(array)}; rollout {i} has {rollout.num_sampled} sampled tokens: give one number for each")


def _episode(rollout: Rollout, group: int, penalty_T: np.ndarray | None) -> Episode:
    num_tokens_A = np.array([a.num_tokens for a in rollout.attempts])
    ends_A = num_tokens_A.cumsum()
    rewards_A = np.array(rollout.rewards, dtype=np.float64)
    assert len(rewards_A) == len(num_tokens_A), "a trainable rollout has one reward per attempt"
    rewards_T = np.zeros(int(ends_A[-1]))
    if len(rewards_T):
        np.add.at(rewards_T, np.maximum(ends_A - 1, 0), rewards_A)
    if penalty_T is not None:
        rewards_T -= penalty_T
        rewards_A = rewards_A - [part.sum() for part in np.split(np.asarray(penalty_T, dtype=np.float64), ends_A[:-1])]
    # A cut attempt in which an answer stands is a complete one: only a later attempt could be missing.
    more = rollout.attempts[-1].outcome is Outcome.TRUNCATED or len(rollout.attempts) < rollout.budget
    return Episode(group, rollout.budget, num_tokens_A, rewards_A, rewards_T, rollout.solved, rollout.truncated and not rollout.solved and more)


def _gae_batch(episodes: Sequence[Episode], values: Sequence[np.ndarray], config: AdvantageConfig) -> list[np.ndarray]:
    found = []
    for episode, values_T in zip(episodes, values, strict=True):
        bootstrap = float(values_T[-1]) if episode.cut and len(values_T) else 0.0
        found.append(gae(episode.rewards_T, values_T, gamma=config.gamma, lam=config.lam, bootstrap=bootstrap))
    return found


def _group_batch(episodes: Sequence[Episode], config: AdvantageConfig) -> list[np.ndarray]:
    """The same advantage on every token of a dialogue, from the returns of its group."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, episode in enumerate(episodes):
        members[episode.group].append(i)
    found = [np.zeros(0)] * len(episodes)
    for indices in members.values():
        if config.name == "pass@k":
            solved_G = np.array([episodes[i].solved for i in indices])
            # Ungradable rollouts may leave a group too small to tell anything.
            advantages_G = pass_at_k_advantage(solved_G, config.k) if len(indices) > config.k else np.zeros(len(indices))
        else:
            advantages_G = GROUP_ESTIMATORS[config.name](np.array([episodes[i].reward for i in indices]))
        for i, advantage in zip(indices, advantages_G, strict=True):
            found[i] = np.full(len(episodes[i].rewards_T), advantage)
    return found


def _attempt_batch(episodes: Sequence[Episode], config: AdvantageConfig) -> tuple[list[np.ndarray], dict[str, float]]:
    advantages_A, used = attempt_advantages(episodes, min_count=config.min_count, one_step=config.one_step)
    if config.normalize == "batch":
        advantages_A = scale(advantages_A)
    found = [np.repeat(a, e.num_tokens_A) for a, e in zip(advantages_A, episodes, strict=True)]
    pairs = [(a, scope, value) for baselines in used for a, (scope, value) in enumerate(baselines, start=1)]
    metrics = {f"advantage/baseline_{s.name.lower()}": float(sum(scope is s for _, scope, _ in pairs)) for s in Scope}
    for index in sorted({a for a, _, _ in pairs}):
        at = [value for a, _, value in pairs if a == index]
        metrics |= {f"advantage/attempt_{index}/count": float(len(at)), f"advantage/attempt_{index}/baseline": float(np.mean(at))}
    return found, metrics


def _summary(found: Sequence[np.ndarray], num_rollouts: int) -> dict[str, float]:
    """Mean and deviation over the sampled tokens of trainable rollouts; the share of those that learn nothing; the share left out."""
    joined = np.concatenate([*found, np.zeros(0)])
    silent = sum(not np.any(np.abs(x) > 1e-8) for x in found)  # 1e-8: rounding of a mean of equal rewards is not a signal
    return {
        "advantage/mean": float(joined.mean()) if len(joined) else 0.0,
        "advantage/std": float(joined.std()) if len(joined) else 0.0,
        "advantage/zero_share": silent / max(len(found), 1),
        "advantage/untrainable_share": 1.0 - len(found) / max(num_rollouts, 1),
    }
