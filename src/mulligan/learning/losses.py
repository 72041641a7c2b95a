"""Losses: pure functions on flat tensors of action tokens, without padding; each returns one term per token.

The reduction stands apart: `(terms_T * loss_weights(...)).sum()`, added up over all micro-batches and ranks of an optimiser
step, is the loss. Its denominators are the whole step's, so gradients do not depend on how the batch was cut.

Suffixes of names: `_T` action token (sampled by the policy; of all dialogues of a micro-batch, end to end), `_V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def policy_loss(
    logprobs_T: Float[Tensor, " T"],
    old_logprobs_T: Float[Tensor, " T"],
    advantages_T: Float[Tensor, " T"],
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Tensor, " T"], Bool[Tensor, " T"]]:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7), negated to be minimised.

    With `rho = exp(logprob - old_logprob)`: `-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)`. A `clip_high` above
    `clip_low` is DAPO's clip-higher (Yu et al. 2025, arXiv 2503.14476, equation 10).

    Returns:
        The terms, and which tokens are clipped: those whose policy gradient is zero because of it.
    """
    ratios_T = torch.exp(logprobs_T - old_logprobs_T)
    bounded_T = ratios_T.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_T = -torch.minimum(ratios_T * advantages_T, bounded_T * advantages_T)
    too_low_T = (ratios_T < 1.0 - clip_low) & (advantages_T < 0)
    too_high_T = (ratios_T > 1.0 + clip_high) & (advantages_T > 0)
    return loss_T, too_low_T | too_high_T


def kl_T(
    logprobs_T: Float[Tensor, " T"], ref_logprobs_T: Float[Tensor, " T"], estimator: Literal["k1", "k2", "k3"]
) -> Float[Tensor, " T"]:
    """KL(policy || reference) estimated at tokens drawn from the policy (Schulman 2020, "Approximating KL Divergence").

    With `d = logprob - ref_logprob`: k1 = d (unbiased, may be negative); k2 = d^2 / 2 (biased, low variance);
    k3 = exp(-d) - 1 + d (unbiased, never negative).

    An estimator of the KL is not one of its gradient. As a **loss** term on on-policy tokens:

    * k1's gradient is the score `grad logprob`, whose mean is zero: it adds noise and pulls nowhere. Use k1 in the reward,
      where the score function multiplies it.
    * k2's gradient `d grad logprob` has the gradient of KL(policy || reference) as its mean.
    * k3's gradient `(1 - exp(-d)) grad logprob` has that of KL(reference || policy): the other direction, equal near d = 0.
      It is what GRPO uses (Shao et al. 2024, equation 4).
    """
    log_ratio_T = logprobs_T - ref_logprobs_T
    match estimator:
        case "k1":
            return log_ratio_T
        case "k2":
            return 0.5 * log_ratio_T.square()
        case "k3":
            return torch.expm1(-log_ratio_T) + log_ratio_T
    assert_never(estimator)


def value_loss(
    values_T: Float[Tensor, " T"], old_values_T: Float[Tensor, " T"], returns_T: Float[Tensor, " T"], clip: float
) -> Float[Tensor, " T"]:
    """Half the squared error of the critic, the larger of the plain and the clipped one (the value loss of OpenAI's `ppo2`).

    `max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2`; `clip = 0` turns the clipping off.
    """
    errors_T = (values_T - returns_T).square()
    if clip:
        near_T = old_values_T + (values_T - old_values_T).clamp(-clip, clip)
        errors_T = torch.maximum(errors_T, (near_T - returns_T).square())
    return 0.5 * errors_T


def importance_weights(
    old_logprobs_T: Float[Tensor, " T"], sampler_logprobs_T: Float[Tensor, " T"], cap: float
) -> Float[Tensor, " T"]:
    """Truncated importance weights between the learner's policy and the sampler's: `min(exp(old - sampler), cap)`, no gradient.

    Sampler and learner may disagree on a token's probability (other kernels, other precision, older weights); multiplying the
    policy loss by the weight corrects for it, truncation bounds its variance (Ionides 2008; per token as in Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training"). `cap = 0` turns it off: all weights are 1.
    """
    if not cap:
        return torch.ones_like(old_logprobs_T)
    return torch.exp(old_logprobs_T - sampler_logprobs_T).clamp(max=cap).detach()


def loss_weights(
    rollout_lengths: Sequence[int],
    mode: Literal["token", "sequence", "constant"],
    *,
    total_tokens: int,
    total_dialogues: int,
    max_tokens: int,
) -> Float[Tensor, " T"]:
    """Weight of every token of a micro-batch, such that `(terms_T * weights_T).sum()` over the whole step is the loss.

    * `token`: mean over all tokens, `1 / total_tokens` (DAPO, Yu et al. 2025, equation 12).
    * `sequence`: mean over the tokens of a dialogue, then over dialogues, `1 / (length * total_dialogues)` (GRPO, Shao et al.
      2024, equation 3).
    * `constant`: `1 / (max_tokens * total_dialogues)`, which favours no length (Dr. GRPO, Liu et al. 2025, section 3.2).

    Args:
        rollout_lengths: action tokens of each dialogue of this micro-batch, in the order in which they lie in it.
        total_tokens, total_dialogues: of the whole optimiser step, over all micro-batches and ranks; a dialogue that may not
            carry gradient is counted in neither.
        max_tokens: the constant that stands for a dialogue's length in mode `constant`.

    Raises:
        ValueError: the micro-batch is larger than the step that it is part of, or `max_tokens` is not positive.
    """
    lengths = torch.tensor(list(rollout_lengths), dtype=torch.long)
    if int(lengths.sum()) > total_tokens or len(lengths) > total_dialogues:
        raise ValueError(
            f"a micro-batch of {int(lengths.sum())} tokens in {len(lengths)} dialogues is more than the step's {total_tokens} tokens "
            f"in {total_dialogues} dialogues: pass the totals of the whole step"
        )
    match mode:
        case "token":
            per_dialogue = torch.full((len(lengths),), 1.0 / max(total_tokens, 1))
        case "sequence":
            per_dialogue = 1.0 / (lengths.clamp(min=1) * max(total_dialogues, 1)).float()
        case "constant":
            if max_tokens <= 0:
                raise ValueError(f"max_tokens = {max_tokens} cannot stand for a length: use the dialogue's token cap")
            per_dialogue = torch.full((len(lengths),), 1.0 / (max(total_dialogues, 1) * max_tokens))
        case _:
            assert_never(mode)
    return per_dialogue.repeat_interleave(lengths)
