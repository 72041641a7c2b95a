"""Drawing tokens: one keyed uniform per row, searched in the cumulative distribution; log-probs from the same pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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


_BLOCK = 256
"""Tokens that are summed up before the search: a running sum over blocks, then one within the block that was hit."""


def draw(logits_RV: Tensor, uniforms_R: np.ndarray, params: SamplingParams) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row, in three passes over the logits: the largest, the exponentials, their sums by block.

    Returns ids (R,), log-probs (R,) under the distribution drawn from (0 when greedy: a point mass), and log-probs (R,) under
    the full softmax at temperature 1.
    """
    if params.temperature == 0:
        full_lse_R = torch.logsumexp(logits_RV, -1)
        highest_R, ids_R = logits_RV.max(-1)
        return ids_R, torch.zeros_like(highest_R), highest_R - full_lse_R
    scaled_RV = logits_RV if params.temperature == 1 else logits_RV / params.temperature
    top_R1 = scaled_RV.amax(-1, keepdim=True)
    # The most likely token weighs 1; what weighs nothing in float32 is never drawn.
    weights_RV = torch.sub(scaled_RV, top_R1).exp_()
    mass_R1 = weights_RV.sum(-1, keepdim=True)
    drawn_RV = weights_RV if params.top_p == 1 else _nucleus(weights_RV / mass_R1, params.top_p).mul_(mass_R1)
    blocks_RB = _block_sums(drawn_RV)
    ids_R = _search(drawn_RV, blocks_RB, torch.as_tensor(uniforms_R, device=logits_RV.device))
    chosen_R = scaled_RV.gather(-1, ids_R[:, None]) - top_R1
    logprobs_R = (chosen_R - torch.log(blocks_RB.sum(-1, keepdim=True)).float()).squeeze(-1)
    if params.temperature != 1:
        full_R = logits_RV.gather(-1, ids_R[:, None]).squeeze(-1) - torch.logsumexp(logits_RV, -1)
    else:
        full_R = logprobs_R if params.top_p == 1 else (chosen_R - torch.log(mass_R1)).squeeze(-1)
    return ids_R, logprobs_R, full_R


def _block_sums(weights_RV: Tensor) -> Tensor:
    """Sums of `_BLOCK` neighbours, (R, B) in float64; the last block may be smaller."""
    size = weights_RV.shape[1]
    whole = size - size % _BLOCK
    sums = weights_RV[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1)
    if whole < size:
        sums = torch.cat((sums, weights_RV[:, whole:].sum(-1, keepdim=True)), 1)
    return sums.double()


def _search(weights_RV: Tensor, blocks_RB: Tensor, uniforms_R: Tensor) -> Tensor:
    """The token at which the running sum of the weights passes the uniform's share of their total, (R,)."""
    block_R, rest_R = _first_above(blocks_RB, uniforms_R * blocks_RB.sum(-1))
    index_RW = block_R[:, None] * _BLOCK + torch.arange(_BLOCK, device=weights_RV.device)
    inside_RW = weights_RV.gather(-1, index_RW.clamp(max=weights_RV.shape[1] - 1)).double()
    inside_RW.masked_fill_(index_RW >= weights_RV.shape[1], 0.0)
    within_R, _ = _first_above(inside_RW, rest_R)
    return block_R * _BLOCK + within_R


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


def _nucleus(probs_RV: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of most likely tokens whose mass reaches top_p (Holtzman 2020); not renormalised."""
    ordered, index = probs_RV.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return probs_RV.masked_fill(torch.zeros_like(probs_RV, dtype=torch.bool).scatter(-1, index, before >= top_p), 0.0)
