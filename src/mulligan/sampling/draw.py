"""Drawing tokens: one keyed uniform per row, searched in the cumulative distribution; log-probs from the same pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mulligan.errors import ModelError
from mulligan.model.kernels import SUMMED, Kernels
from mulligan.model.ops import softmax_blocks, softmax_weights
from mulligan.sampling import SamplingParams

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def keyed_uniforms(keys_R: np.ndarray, positions_R: np.ndarray) -> np.ndarray:
    """Uniforms in [0, 1), shape (R,): a function of each row's 64-bit key and position alone (SplitMix64, Steele 2014), so that a
    draw does not depend on what else is in the batch, and a run can be replayed."""
    with np.errstate(over="ignore"):
        z = keys_R.astype(np.uint64) + (positions_R.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(logits_RV: Tensor, uniforms_R: np.ndarray, params: SamplingParams, kernels: Kernels | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row: a running sum over blocks of weights, which the uniform is searched in, then one within the block that was hit.

    Returns ids (R,), log-probs (R,) under the distribution drawn from (0 when greedy: a point mass), and log-probs (R,) under
    the full softmax at temperature 1.

    Raises:
        ModelError: a row has a logit that is NaN or +inf, or none that is possible.
    """
    if params.temperature == 0:
        highest_R, ids_R = logits_RV.max(-1)
        return ids_R, torch.zeros_like(highest_R), -_log_mass(softmax_blocks(kernels, logits_RV, 1.0)[1])
    drawn_RV = logits_RV if params.top_p == 1 else _nucleus(logits_RV, params.temperature, params.top_p)
    highest_R1, blocks_RB = softmax_blocks(kernels, drawn_RV, params.temperature)
    log_mass_R = _log_mass(blocks_RB)
    ids_R = _search(drawn_RV, highest_R1, blocks_RB, params.temperature, torch.as_tensor(uniforms_R, device=logits_RV.device))
    below_R = (logits_RV.gather(-1, ids_R[:, None]) - highest_R1).squeeze(-1)
    logprobs_R = below_R / params.temperature - log_mass_R
    full_R = logprobs_R if params.temperature == params.top_p == 1 else below_R - _log_mass(softmax_blocks(kernels, logits_RV, 1.0)[1])
    return ids_R, logprobs_R, full_R


def _log_mass(blocks_RB: Tensor) -> Tensor:
    mass_R = blocks_RB.sum(-1)
    # The likeliest token weighs 1, so that only a sum with a logit that is no number in it is not finite. Nothing can be drawn then: without
    # this the search would look beyond the vocabulary, and a greedy answer would be any token.
    if not mass_R.isfinite().all():
        raise ModelError("the model's logits are not finite: its weights are damaged or overflow model.dtype; go back to an earlier checkpoint, with a lower optimizer.lr or model.dtype=float32")
    return torch.log(mass_R).float()


def _search(logits_RV: Tensor, highest_R1: Tensor, blocks_RB: Tensor, temperature: float, uniforms_R: Tensor) -> Tensor:
    """The token at which the running sum of the weights passes the uniform's share of their total, (R,)."""
    block_R, rest_R = _first_above(blocks_RB, uniforms_R * blocks_RB.sum(-1))
    index_RW = block_R[:, None] * SUMMED + torch.arange(SUMMED, device=logits_RV.device)
    inside_RW = logits_RV.gather(-1, index_RW.clamp(max=logits_RV.shape[1] - 1)).masked_fill_(index_RW >= logits_RV.shape[1], -torch.inf)
    within_R, _ = _first_above(softmax_weights(inside_RW, highest_R1, temperature).double(), rest_R)
    return block_R * SUMMED + within_R


def _first_above(weights_RN: Tensor, threshold_R: Tensor) -> tuple[Tensor, Tensor]:
    """The first index whose running sum is above the threshold, and the threshold less what came before it.

    Sums in another order may differ in their last digits: a threshold that reaches the total is brought just below it, so that
    what is found always has weight.
    """
    cumulative_RN = weights_RN.cumsum(-1)
    total_R = cumulative_RN[:, -1]
    threshold_R = torch.minimum(threshold_R, torch.nextafter(total_R, torch.zeros_like(total_R)))
    index_R = torch.searchsorted(cumulative_RN, threshold_R[:, None], right=True).squeeze(-1)
    before_R = cumulative_RN.gather(-1, index_R[:, None]).squeeze(-1) - weights_RN.gather(-1, index_R[:, None]).squeeze(-1)
    return index_R, (threshold_R - before_R).clamp(min=0.0)


def _nucleus(logits_RV: Tensor, temperature: float, top_p: float) -> Tensor:
    """All but the smallest set of most likely tokens whose mass at `temperature` reaches top_p (Holtzman 2020) become impossible."""
    ordered, index = (logits_RV / temperature).softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return logits_RV.masked_fill(torch.zeros_like(logits_RV, dtype=torch.bool).scatter(-1, index, before >= top_p), -torch.inf)
