"""From groups of rollouts to what the learner trains on: per-token advantages, old log-probs, reference log-probs, value targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from mulligan.config import Recipe
from mulligan.learning.advantages import compute_advantages
from mulligan.learning.batch import TrainSequence
from mulligan.learning.learner import Learner
from mulligan.learning.losses import kl_T
from mulligan.types import Group


@dataclass(frozen=True, slots=True)
class Experience:
    """`sequences` holds the contexts of the trainable rollouts (one each, unless attempts are blind to their history); `advantages` one array per rollout of the groups, flattened, for the record."""

    sequences: list[TrainSequence]
    advantages: list[np.ndarray]
    metrics: dict[str, float]


def make_experience(groups: Sequence[Group], learner: Learner, recipe: Recipe) -> Experience:
    """Value every sampled token of every rollout.

    Old log-probs are the sampler's own where nothing but the temperature shaped the distribution (sampler and learner are the
    same weights; the drift is logged); with top-p, or with importance weights, the learner recomputes them.
    """
    rollouts = [r for g in groups for r in g.rollouts]
    parts = [TrainSequence.contexts_of(r.transcript) for r in rollouts]
    plain = list(chain(*parts))

    def per_rollout(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What is known per context, joined per rollout."""
        left = iter(arrays)
        return [np.concatenate([next(left) for _ in contexts]) for contexts in parts]

    sampler = [np.asarray(r.transcript.logprobs, dtype=np.float32)[np.asarray(r.transcript.sampled, dtype=bool)] for r in rollouts]
    recompute = recipe.sampling.top_p < 1 or recipe.importance_cap > 0
    columns: dict[str, list[np.ndarray]] = {"sampler_logprobs": sampler, "old_logprobs": per_rollout(learner.logprobs(plain)) if recompute else sampler}

    kl_penalty = None
    metrics: dict[str, float] = _importance_metrics(columns, recipe.importance_cap) if recipe.importance_cap else {}
    if learner.reference is not None:
        columns["ref_logprobs"] = per_rollout(learner.logprobs(plain, reference=True))
        differences = [old - ref for old, ref in zip(columns["old_logprobs"], columns["ref_logprobs"], strict=True)]
        metrics["kl_to_reference"] = float(np.concatenate([*differences, np.zeros(0)]).mean()) if differences else 0.0
        if recipe.loss.kl_in_reward:
            pairs = zip(columns["old_logprobs"], columns["ref_logprobs"], strict=True)
            kl_penalty = [recipe.loss.kl * kl_T(torch.from_numpy(old), torch.from_numpy(ref), recipe.loss.kl_estimator).numpy() for old, ref in pairs]
    values = per_rollout(learner.values(plain)) if learner.critic is not None else None

    batch = compute_advantages(groups, recipe.advantage, values=values, kl_penalty=kl_penalty)
    columns["advantages"] = batch.advantages
    if values is not None and batch.returns is not None:
        columns["old_values"], columns["returns"] = values, batch.returns
    sequences = []
    for i, (rollout, contexts) in enumerate(zip(rollouts, parts, strict=True)):
        cuts = np.cumsum([s.num_actions for s in contexts])[:-1]
        split = {name: np.split(arrays[i], cuts) for name, arrays in columns.items()}
        own = [TrainSequence(s.token_ids, s.actions, {name: pieces[c] for name, pieces in split.items()}) for c, s in enumerate(contexts)]
        sequences += [s for s in own if rollout.trainable and s.num_actions]
    return Experience(sequences, batch.advantages, metrics | batch.metrics)


def _importance_metrics(columns: dict[str, list[np.ndarray]], cap: float) -> dict[str, float]:
    """How far the sampler's policy is from the learner's: mean weight (1 if they agree) and share truncated, over all actions."""
    log_ratios = np.concatenate([*(old - drawn for old, drawn in zip(columns["old_logprobs"], columns["sampler_logprobs"], strict=True)), np.zeros(0)])
    if not len(log_ratios):
        return {}
    weights = np.exp(log_ratios)
    return {
        "importance/mean": float(np.minimum(weights, cap).mean()),
        "importance/truncated_share": float((weights > cap).mean()),
        "importance/drift_mean": float(np.abs(log_ratios).mean()),
        "importance/kl": float(-log_ratios.mean()),
    }
