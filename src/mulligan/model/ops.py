"""What lies between the matrix products of a decoder layer: compiled where `kernels.py` has it, in plain torch elsewhere, with gradients.

Legend: T tokens of a pass, H query heads, K key/value heads, D and E sizes of keys and values, C positions whose logits are there, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mulligan.model.kernels import SUMMED, Kernels, Places


def rms_norm(kernels: Kernels | None, x: Tensor, weight_N: Tensor, eps: float) -> Tensor:
    """x (..., N) over the root of its mean square, times weight_N: (..., N)."""
    return rms_norm_beside(kernels, x, weight_N, eps)[0]


def rms_norm_beside(kernels: Kernels | None, x: Tensor, weight_N: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The same, and x itself for whatever else reads it: the gradients of both meet in one pass."""
    if kernels is None:
        return weight_N * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)), x
    if not _is_trained(x, weight_N):
        return kernels.rms_norm(x, weight_N, eps), x
    return _RMSNorm.apply(kernels, x, weight_N, eps)  # type: ignore[return-value]


def quantize(kernels: Kernels | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., N), mixed, in 8 bits: bytes (..., N) around 128, and a scale for each row of N, (..., 1). The same with and without kernels."""
    if kernels is not None:
        return kernels.quantize(x, mixed_group(x.shape[-1]))
    x = mix(x)
    scale = x.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(127.0)
    # + 0.5, then cut: rounds to the nearest in the same pass that converts.
    return torch.div(x, scale).add_(128.5).to(torch.uint8), scale


def mix(x: Tensor) -> Tensor:
    """The Hadamard transform, times the root of `mixed_group`(N), of groups of the numbers of x (..., N) that lie N / group apart.

    A product stays what it is when both sides are mixed, over the size of a group. What is rounded to 8 bits does not: one large number
    among the inputs of a layer, which decides how coarsely all the others are rounded, is spread over its group (Ashkboos et al. 2024,
    QuaRot, arXiv 2404.00456).
    """
    group = mixed_group(x.shape[-1])
    parts = x.unflatten(-1, (group, -1))
    for step in (1 << i for i in range(group.bit_length() - 1)):  # sums of two each, as in kernels.cpp: the same to the bit
        first, second = parts.unflatten(-2, (-1, 2, step)).unbind(-3)
        parts = torch.stack((first + second, first - second), -3).flatten(-4, -2)
    return parts.flatten(-2)


def mixed_group(width: int) -> int:
    """The largest power of two that divides `width`, at most 64: what is spread over more gets little flatter."""
    return min(width & -width, 64)


def rotate(kernels: Kernels | None, x_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Rotary embedding of heads whose halves are paired, (T, H, D); x_THD may be changed where no gradient is wanted."""
    if kernels is None:
        first, second = x_THD.chunk(2, -1)
        return x_THD * cos_TD[:, None] + torch.cat((-second, first), -1) * sin_TD[:, None]
    return _Rotate.apply(kernels, x_THD, cos_TD, sin_TD) if _is_trained(x_THD) else kernels.rotate(x_THD, cos_TD, sin_TD)  # type: ignore[return-value]


def swiglu(kernels: Kernels | None, gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv 2002.05202); gate may be changed where no gradient is wanted."""
    if _is_trained(gate, up):
        return F.silu(gate) * up if kernels is None else _SwiGLU.apply(kernels, gate, up)  # type: ignore[return-value]
    return F.silu(gate, inplace=True).mul_(up) if kernels is None else kernels.swiglu(gate, up, in_place=True)


def softmax_sums(kernels: Kernels | None, logits_CV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Of the softmax at `temperature`: the logarithm of the sum of the exponentials, and the entropy in nats, (C,) each; without gradients of
    its own (`softmax_sums_backward`). A logit of -inf (a token that cannot be drawn) adds nothing."""
    if kernels is not None:
        return kernels.softmax_sums(logits_CV, temperature)
    scaled_CV = logits_CV if temperature == 1 else logits_CV * (1 / temperature)
    top_C1 = scaled_CV.amax(-1, keepdim=True)
    below_CV = scaled_CV - top_C1
    weights_CV = below_CV.exp()
    mass_C = weights_CV.sum(-1)
    weighted_C = torch.linalg.vecdot(weights_CV, below_CV)
    if not bool(torch.isfinite(weighted_C).all()):  # 0 times -inf is not 0
        weighted_C = torch.linalg.vecdot(weights_CV, below_CV.masked_fill_(below_CV == -torch.inf, 0.0))
    return top_C1.squeeze(-1) + mass_C.log(), mass_C.log() - weighted_C / mass_C


def softmax_sums_backward(
    kernels: Kernels | None, logits_CV: Tensor, lse_C: Tensor, entropy_C: Tensor, lse_pull_C: Tensor, entropy_pull_C: Tensor, temperature: float
) -> Tensor:
    """Gradient of `(lse_pull_C * lse_C + entropy_pull_C * entropy_C).sum()` towards the logits, (C, V)."""
    if kernels is not None:
        return kernels.softmax_sums_backward(logits_CV, lse_C, entropy_C, lse_pull_C, entropy_pull_C, temperature)
    logprobs_CV = (logits_CV if temperature == 1 else logits_CV * (1 / temperature)) - lse_C[:, None]
    probs_CV = logprobs_CV.exp()
    if not bool(entropy_pull_C.any()):
        return probs_CV.mul_(lse_pull_C[:, None] / temperature)
    # dH/dz = -p (log p + H)
    pull_CV = logprobs_CV.add_(entropy_C[:, None]).mul_(-entropy_pull_C[:, None]).add_(lse_pull_C[:, None]).mul_(probs_CV).div_(temperature)
    return pull_CV.masked_fill_(probs_CV == 0, 0.0)


def softmax_blocks(kernels: Kernels | None, logits_RV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The highest logit of each row, (R, 1), and the weights exp((logit - highest) / temperature) summed by `SUMMED` neighbours, (R, B) in
    float64; the last block may be smaller."""
    if kernels is not None:
        return kernels.softmax_blocks(logits_RV, temperature)
    highest_R1, size = logits_RV.amax(-1, keepdim=True), logits_RV.shape[1]
    weights_RV = softmax_weights(logits_RV, highest_R1, temperature)
    whole = size - size % SUMMED
    sums_RB = weights_RV[:, :whole].unflatten(1, (-1, SUMMED)).sum(-1)
    if whole < size:
        sums_RB = torch.cat((sums_RB, weights_RV[:, whole:].sum(-1, keepdim=True)), 1)
    return highest_R1, sums_RB.double()


def softmax_weights(logits_RN: Tensor, highest_R1: Tensor, temperature: float) -> Tensor:
    """Weights in the softmax at `temperature`, of which the most likely token has 1: (R, N)."""
    weights_RN = logits_RN - highest_R1
    return (weights_RN if temperature == 1 else weights_RN.mul_(1 / temperature)).exp_()


def attend_packed(kernels: Kernels, query_THD: Tensor, key_TKD: Tensor, value_TKE: Tensor, places: Places, scale: float) -> Tensor:
    """Attention of whole sequences, each token to its own past: (T, H, E)."""
    return _AttendPacked.apply(kernels, query_THD, key_TKD, value_TKE, places, scale)  # type: ignore[return-value]


def _is_trained(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, x: Tensor, weight_N: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight_N)
        ctx.kernels, ctx.eps = kernels, eps
        ctx.set_materialize_grads(False)
        return kernels.rms_norm(x, weight_N, eps), x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad, beside), (x, weight_N) = grads, ctx.saved_tensors
        if grad is None:
            return None, beside, None, None
        to_x, to_weight = ctx.kernels.rms_norm_backward(grad, x, weight_N, ctx.eps, beside, weight=ctx.needs_input_grad[2])
        return None, to_x, to_weight, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, x_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        ctx.save_for_backward(cos_TD, sin_TD)
        ctx.kernels = kernels
        return kernels.rotate(x_THD.clone(memory_format=torch.contiguous_format), cos_TD, sin_TD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, ctx.kernels.rotate_backward(grads[0], *ctx.saved_tensors), None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kernels = kernels
        return kernels.swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.kernels.swiglu_backward(grads[0], *ctx.saved_tensors)


class _AttendPacked(torch.autograd.Function):
    """Keeps no weights: they are computed again from what their sums were (Dao et al. 2022, FlashAttention, arXiv 2205.14135)."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, query_THD: Tensor, key_TKD: Tensor, value_TKE: Tensor, places: Places, scale: float) -> Tensor:
        out_THE, lse_TH = kernels.attend_packed(query_THD, key_TKD, value_TKE, places, scale)
        ctx.save_for_backward(query_THD, key_TKD, value_TKE, out_THE, lse_TH)
        ctx.kernels, ctx.places, ctx.scale = kernels, places, scale
        return out_THE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.kernels.attend_packed_backward(grads[0], *ctx.saved_tensors, ctx.places, ctx.scale), None, None
