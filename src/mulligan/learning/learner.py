"""The learner: tensors in, better weights out. It knows no algorithm; `experience.py` says what every token is worth.

One optimiser step has one global denominator: gradients do not depend on how its dialogues are cut into micro-batches.
"""

from __future__ import annotations

import copy
import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mulligan.config import Recipe
from mulligan.learning.batch import MicroBatch, TrainSequence, pack
from mulligan.learning.logits import ActionLogprobs, action_logprobs, backward_by_chunk
from mulligan.learning.losses import importance_weights, kl_T, loss_weights, policy_loss, value_loss
from mulligan.learning.optimizer import CombinedOptimizer, make_optimizer
from mulligan.model import PackedLinears, Policy, TrainableLayers, make_critic, value_head

log = logging.getLogger(__name__)


class Learner:
    """Policy, optional critic, optional frozen reference, and their optimisers.

    Args:
        policy: trained in place; its `version` rises with every update.
        recipe: sections `advantage` (only: is a critic needed), `critic`, `loss`, `optimizer`, `train` and the sampling temperature.
        reference: keep a frozen copy of the policy as it is now, for the KL (default: if the recipe has a KL).
    """

    def __init__(self, policy: Policy, recipe: Recipe, *, reference: bool | None = None):
        self.policy, self.recipe = policy, recipe
        self.temperature = recipe.sampling.temperature
        self._layers = TrainableLayers(policy)
        self.reference = self._frozen_copy() if (recipe.loss.kl > 0 if reference is None else reference) else None
        self._reference_linears = None if self.reference is None else PackedLinears(self.reference)  # frozen: packed once
        self.optimizers = {"policy": make_optimizer(policy.model.named_parameters(), recipe.optimizer)}
        self.critic: nn.Module | None = None
        if recipe.advantage.name == "gae":
            separate = recipe.critic.kind == "separate"
            self.critic = make_critic(policy) if separate else value_head(policy.model.config.get_text_config().hidden_size, next(policy.model.parameters()))
            critic_optimizer = recipe.optimizer.model_copy(update={"lr": recipe.critic.lr or recipe.optimizer.lr, "name": "adamw"})
            self.optimizers["critic"] = make_optimizer(self.critic.named_parameters(), critic_optimizer)
        self.skipped_updates = 0

    def _frozen_copy(self) -> Policy:
        model = copy.deepcopy(self.policy.model).requires_grad_(False)
        return Policy(model=model, tokenizer=self.policy.tokenizer, autocast=self.policy.autocast)

    # ------------------------------------------------------------------------------------------------ what is known

    @torch.no_grad()
    def logprobs(self, sequences: Sequence[TrainSequence], *, reference: bool = False) -> list[np.ndarray]:
        """Log-probs of every action at the sampling temperature, per sequence (num_actions,), under the policy or the reference."""
        model = self.reference if reference else self.policy
        assert model is not None, "a reference was asked for and none is kept"
        with self._reference_linears.in_use() if reference and self._reference_linears else self._layers.in_use():
            return self._per_action(sequences, lambda batch: self._logprobs(model, batch))

    @torch.no_grad()
    def values(self, sequences: Sequence[TrainSequence]) -> list[np.ndarray]:
        """The critic's value of the state before every action, per sequence (num_actions,)."""
        return self._per_action(sequences, self._values)

    def _per_action(self, sequences: Sequence[TrainSequence], function: Any) -> list[np.ndarray]:
        found: list[np.ndarray | None] = [np.zeros(0, dtype=np.float32)] * len(sequences)
        for batch in pack(sequences, self.recipe.train.micro_batch_tokens, self.policy.device):
            batch.scatter(function(batch), found)
        return found  # type: ignore[return-value]

    def _logprobs(self, model: Policy, batch: MicroBatch) -> Tensor:
        """Log-probs (N,) of a micro-batch's actions at the sampling temperature."""
        logprobs_N = torch.empty(len(batch.targets_N), device=batch.targets_N.device)
        hidden_UH = model.hidden(batch.ids_T, batch.layout, batch.layout.position_ids, batch.index_U)
        for part in action_logprobs(model, batch, hidden_UH, self.temperature):
            logprobs_N[part.actions] = part.logprobs
        return logprobs_N

    def _values(self, batch: MicroBatch) -> Tensor:
        assert self.critic is not None, "values were asked for and there is no critic"
        if self.recipe.critic.kind == "separate":
            with torch.autocast(self.policy.device.type, dtype=self.policy.autocast, enabled=self.policy.autocast is not None):
                return self.critic(batch.ids_T, batch.layout, batch.layout.position_ids, batch.index_N)
        hidden_UH = self.policy.hidden(batch.ids_T, batch.layout, batch.layout.position_ids, batch.index_U)
        return self._values_from(hidden_UH, batch)

    def _values_from(self, hidden_UH: Tensor, batch: MicroBatch) -> Tensor:
        assert self.critic is not None
        return self.critic(hidden_UH.float()).squeeze(-1)[batch.row_N]

    # ---------------------------------------------------------------------------------------------------- updating

    def update(self, sequences: Sequence[TrainSequence], *, step: int, lr_scale: float) -> dict[str, float]:
        """All optimiser steps on one batch of rollouts: `train.epochs` passes in `train.minibatches` pieces each.

        `sequences` carry the columns advantages, old_logprobs, sampler_logprobs and, where used, ref_logprobs, returns, old_values.
        Returns metrics (means over the batch's actions), which nothing reads to decide.
        """
        train = self.recipe.train
        totals: dict[str, float] = defaultdict(float)
        for epoch in range(train.epochs):
            order = np.random.default_rng([self.recipe.seed, step, epoch]).permutation(len(sequences))
            for number, part in enumerate(np.array_split(order, min(train.minibatches, max(len(order), 1)))):
                first = epoch == 0 and number == 0
                self._optimizer_step([sequences[i] for i in part], step=step, lr_scale=lr_scale, totals=totals, measure_drift=first)
        return self._metrics(totals)

    def _optimizer_step(self, sequences: list[TrainSequence], *, step: int, lr_scale: float, totals: dict[str, float], measure_drift: bool) -> None:
        num_tokens = sum(s.num_actions for s in sequences)
        needed = [s for s in sequences if self._has_gradient(s)]
        totals["sequences_without_gradient"] += len(sequences) - len(needed)
        with self._layers.in_use():
            for batch in pack(needed, self.recipe.train.micro_batch_tokens, self.policy.device):
                weights_N = loss_weights(
                    batch.counts,
                    self.recipe.loss.mean,
                    total_tokens=num_tokens,
                    total_dialogues=len(sequences),
                    max_tokens=self.recipe.protocol.max_dialogue_tokens,
                ).to(self.policy.device)
                self._backward(batch, weights_N, totals, measure_drift)
        self._step_optimizers(step, lr_scale, totals)

    def _has_gradient(self, sequence: TrainSequence) -> bool:
        """Whether any term pulls on this dialogue: one without advantage needs no pass unless KL, entropy or a critic asks for it."""
        loss = self.recipe.loss
        always = self.critic is not None or loss.entropy > 0 or (loss.kl > 0 and not loss.kl_in_reward)
        return always or bool(np.any(sequence.columns["advantages"]))

    def _backward(self, batch: MicroBatch, weights_N: Tensor, totals: dict[str, float], measure_drift: bool) -> None:
        """Add the gradients of one micro-batch: the policy's loss chunk by chunk of the output layer, the critic's beside it."""
        hidden_UH = self.policy.hidden(batch.ids_T, batch.layout, batch.layout.position_ids, batch.index_U)

        def loss(part: ActionLogprobs) -> Tensor:
            terms = self._policy_terms(part, batch, totals, measure_drift)
            value = (terms * weights_N[part.actions]).sum()
            totals["loss"] += float(value.detach())
            return value

        def value_of(values_N: Tensor) -> Tensor:
            value_N = value_loss(values_N, batch.columns["old_values"], batch.columns["returns"], self.recipe.loss.value_clip)
            value = self.recipe.loss.value * (value_N * weights_N).sum()
            totals["value_loss"] += float(value_N.detach().sum())
            totals["loss"] += float(value.detach())
            return value

        of_hidden = None
        if self.critic is not None and self.recipe.critic.kind == "head":
            of_hidden = lambda hidden_UH: value_of(self._values_from(hidden_UH, batch))  # noqa: E731
        elif self.critic is not None:
            value_of(self._values(batch)).backward()
        backward_by_chunk(self.policy, batch, hidden_UH, self.temperature, loss, of_hidden)

    def _policy_terms(self, part: ActionLogprobs, batch: MicroBatch, totals: dict[str, float], measure_drift: bool) -> Tensor:
        """One term per action of a chunk: clipped surrogate, KL, entropy."""
        config, columns = self.recipe.loss, {name: column[part.actions] for name, column in batch.columns.items()}
        old_N, sampler_N = columns["old_logprobs"], columns["sampler_logprobs"]
        terms_N, clipped_N = policy_loss(part.logprobs, old_N, columns["advantages"], clip_low=config.clip_low, clip_high=config.clip_high)
        terms_N = terms_N * importance_weights(old_N, sampler_N, self.recipe.importance_cap)
        if config.kl > 0 and not config.kl_in_reward:
            kl_N = kl_T(part.logprobs, columns["ref_logprobs"], config.kl_estimator)
            terms_N = terms_N + config.kl * kl_N
            totals["kl"] += float(kl_N.detach().sum())
        if config.entropy > 0:
            terms_N = terms_N - config.entropy * part.entropy
        self._measure(totals, part.logprobs.detach(), old_N, sampler_N, clipped_N, part.entropy.detach(), measure_drift)
        return terms_N

    def _measure(self, totals: dict[str, float], new_N: Tensor, old_N: Tensor, sampler_N: Tensor, clipped_N: Tensor, entropy_N: Tensor, drift: bool) -> None:
        log_ratio_N = new_N - old_N
        totals["actions"] += len(new_N)
        totals["entropy"] += float(entropy_N.sum())
        totals["clip_fraction"] += float(clipped_N.float().sum())
        totals["approx_kl"] += float((torch.expm1(log_ratio_N) - log_ratio_N).sum())
        if drift:  # the weights are still the sampler's: any difference is numerics
            difference_N = (new_N - sampler_N).abs()
            totals["drift_actions"] += len(new_N)
            totals["drift"] += float(difference_N.sum())
            totals["drift_max"] = max(totals["drift_max"], float(difference_N.max()))

    def _step_optimizers(self, step: int, lr_scale: float, totals: dict[str, float]) -> None:
        """Clip and step, or, on a gradient that is not finite, do nothing, say so and count it."""
        config = self.recipe.optimizer
        parameters = {"policy": [p for p in self.policy.model.parameters() if p.grad is not None]}
        if self.critic is not None:
            parameters["critic"] = [p for p in self.critic.parameters() if p.grad is not None]
        norms = {name: float(nn.utils.clip_grad_norm_(group, config.grad_clip or math.inf)) if group else 0.0 for name, group in parameters.items()}
        totals["optimizer_steps"] += 1
        if not all(math.isfinite(norm) for norm in norms.values()):
            self._skip(step)
        else:
            for name, optimizer in self.optimizers.items():
                if name == "policy" and self.critic is not None and step < self.recipe.critic.warmup_steps:
                    continue
                optimizer.scale_lr(lr_scale)
                optimizer.step()
            totals["grad_norm"] += norms["policy"]
            totals["critic_grad_norm"] += norms.get("critic", 0.0)
        self.policy.model.zero_grad(set_to_none=True)
        if self.critic is not None:
            self.critic.zero_grad(set_to_none=True)
        self.policy.version += 1

    def _metrics(self, totals: dict[str, float]) -> dict[str, float]:
        actions, steps = max(totals["actions"], 1.0), max(totals["optimizer_steps"], 1.0)
        metrics = {name: totals[name] / actions for name in ("entropy", "clip_fraction", "approx_kl")}
        metrics["loss"] = totals["loss"] / steps
        metrics["grad_norm"] = totals["grad_norm"] / steps
        metrics["drift_mean"] = totals["drift"] / max(totals["drift_actions"], 1.0)
        metrics["drift_max"] = totals["drift_max"]
        metrics["optimizer_steps"] = totals["optimizer_steps"]
        metrics["sequences_without_gradient"] = totals["sequences_without_gradient"]
        metrics["skipped_updates"] = float(self.skipped_updates)
        if self.recipe.loss.kl > 0 and not self.recipe.loss.kl_in_reward:
            metrics["kl"] = totals["kl"] / actions
        if self.critic is not None:
            metrics["value_loss"] = totals["value_loss"] / actions
            metrics["critic_grad_norm"] = totals["critic_grad_norm"] / steps
        return metrics

    def imitate(self, sequences: Sequence[TrainSequence], optimizer: CombinedOptimizer, *, step: int, lr_scale: float) -> dict[str, float]:
        """One supervised step: cross-entropy of the actions, mean over all tokens of the batch (the warm-up)."""
        num_tokens = sum(s.num_actions for s in sequences)
        total = 0.0
        with self._layers.in_use():
            for batch in pack(sequences, self.recipe.train.micro_batch_tokens, self.policy.device):
                losses: list[Tensor] = []

                def loss(part: ActionLogprobs, losses: list[Tensor] = losses) -> Tensor:
                    losses.append(-part.logprobs.sum() / num_tokens)
                    return losses[-1]

                hidden_UH = self.policy.hidden(batch.ids_T, batch.layout, batch.layout.position_ids, batch.index_U)
                backward_by_chunk(self.policy, batch, hidden_UH, 1.0, loss)
                total += float(sum(x.detach() for x in losses))
        norm = float(nn.utils.clip_grad_norm_(self.policy.model.parameters(), self.recipe.warmup.optimizer.grad_clip or math.inf))
        if math.isfinite(norm):
            optimizer.scale_lr(lr_scale)
            optimizer.step()
        else:
            self._skip(step)
        self.policy.model.zero_grad(set_to_none=True)
        self.policy.version += 1
        return {"loss": total, "grad_norm": norm, "tokens": float(num_tokens)}

    def _skip(self, step: int) -> None:
        self.skipped_updates += 1
        log.warning("step %d: the gradient is not finite: no update (%d skipped so far); lower optimizer.lr", step, self.skipped_updates)

    # ------------------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: weights, critic, optimisers, counters. The reference is the model as reinforcement learning
        found it; it is kept too, since nothing else holds it."""
        state: dict[str, Any] = {
            "model": self.policy.model.state_dict(),
            "version": self.policy.version,
            "skipped_updates": self.skipped_updates,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        if self.critic is not None:
            state["critic"] = self.critic.state_dict()
        if self.reference is not None:
            state["reference"] = self.reference.model.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.model.load_state_dict(state["model"])
        self.policy.version = state["version"]
        self.skipped_updates = state["skipped_updates"]
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
        if self.reference is not None:
            self.reference.model.load_state_dict(state["reference"])
