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


def draw(logits_RV: Tensor, uniforms_R: np.ndarray, params: SamplingParams) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row.

    Returns ids (R,), log-probs (R,) under the distribution drawn from (0 when greedy: a point mass), and log-probs (R,) under
    the full softmax at temperature 1.
    """
    full_lse_R = torch.logsumexp(logits_RV, -1)
    if params.temperature == 0:
        ids_R = logits_RV.argmax(-1)
        full_R = _pick(logits_RV, ids_R) - full_lse_R
        return ids_R, torch.zeros_like(full_R), full_R
    scaled_RV = logits_RV if params.temperature == 1 else logits_RV / params.temperature
    lse_R = full_lse_R if params.temperature == 1 else torch.logsumexp(scaled_RV, -1)
    probs_RV = torch.exp(scaled_RV - lse_R[:, None])
    if params.top_p < 1:
        probs_RV = _nucleus(probs_RV, params.top_p)
    # float64: over 100,000 tokens a float32 running sum is off by more than the rarest tokens' probability.
    cumulative_RV = probs_RV.cumsum(-1, dtype=torch.float64)
    mass_R = cumulative_RV[:, -1]
    threshold_R = torch.as_tensor(uniforms_R, device=logits_RV.device) * mass_R
    ids_R = torch.searchsorted(cumulative_RV, threshold_R[:, None], right=True).squeeze(-1).clamp(max=logits_RV.shape[1] - 1)
    full_R = _pick(logits_RV, ids_R) - full_lse_R
    if params.top_p < 1:
        return ids_R, torch.log(_pick(probs_RV, ids_R) / mass_R.float()), full_R
    return ids_R, (full_R if params.temperature == 1 else _pick(scaled_RV, ids_R) - lse_R), full_R


def _pick(values_RV: Tensor, ids_R: Tensor) -> Tensor:
    return values_RV.gather(-1, ids_R[:, None]).squeeze(-1)


def _nucleus(probs_RV: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of most likely tokens whose mass reaches top_p (Holtzman 2020); not renormalised."""
    ordered, index = probs_RV.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return probs_RV.masked_fill(torch.zeros_like(probs_RV, dtype=torch.bool).scatter(-1, index, before >= top_p), 0.0)
