"""Log-probs and entropies of actions from the output layer, a chunk of positions at a time.

The logits of a whole batch would be the largest tensor of an update by far (tokens x vocabulary). They are made for action tokens
alone and live for one chunk only: its part of the loss is carried back to the hidden states before the next chunk is made.

Legend: U positions whose logits are asked for, C those of one chunk, N actions (several may be predicted at one position, where
dialogues share their beginning and part there), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mulligan.learning.batch import MicroBatch
from mulligan.model import Policy
from mulligan.model.kernels import Kernels, compiled
from mulligan.model.ops import softmax_sums, softmax_sums_backward

CHUNK_ELEMENTS = 1 << 23
"""Most logits at a time on the processor: 32 MB in float32, which its cache may hold."""


@dataclass(frozen=True, slots=True)
class ActionLogprobs:
    """What the output layer says of some actions of a micro-batch."""

    actions: Tensor
    """Which of the micro-batch's actions these are, (n,)."""
    logprobs: Tensor
    """(n,), under the tempered softmax."""
    entropy: Tensor
    """(n,), of the distribution that each was drawn from, in nats."""


def most_logits(device: torch.device) -> int:
    """Most logits at a time: where there is no cache to hold them, eight times as many."""
    return CHUNK_ELEMENTS if device.type == "cpu" else 8 * CHUNK_ELEMENTS


def _chunks(batch: MicroBatch, vocabulary: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the positions U, and the actions (n,) predicted there."""
    size = max(most_logits(batch.ids_T.device) // vocabulary, 1)
    order_N = torch.argsort(batch.row_N, stable=True)
    sorted_N = batch.row_N[order_N]
    for start in range(0, len(batch.index_U), size):
        low, high = torch.searchsorted(sorted_N, torch.tensor([start, start + size], device=sorted_N.device)).tolist()
        yield slice(start, start + size), order_N[low:high]


def action_logprobs(policy: Policy, batch: MicroBatch, hidden_UH: Tensor, temperature: float) -> Iterator[ActionLogprobs]:
    """Chunk by chunk, from the last hidden states at `batch.index_U`. Keep no chunk longer than its turn."""
    for part, actions in _chunks(batch, policy.vocabulary):
        logits_CV = policy.head(hidden_UH[part])
        rows = batch.row_N[actions] - part.start
        logprobs, entropy_C = _LogprobsAndEntropy.apply(_kernels(logits_CV), logits_CV, rows, batch.targets_N[actions], temperature)  # type: ignore[misc]
        yield ActionLogprobs(actions, logprobs, entropy_C[rows])


def _kernels(logits_CV: Tensor) -> Kernels | None:
    return compiled() if logits_CV.device.type == "cpu" and logits_CV.dtype == torch.float32 and logits_CV.is_contiguous() else None


def backward_by_chunk(
    policy: Policy,
    batch: MicroBatch,
    hidden_UH: Tensor,
    temperature: float,
    loss: Callable[[ActionLogprobs], Tensor],
    hidden_loss: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Gradients of the sum of `loss` over the chunks, and of `hidden_loss` (a value head's), through the model that made `hidden_UH`."""
    leaf_UH = hidden_UH.detach().requires_grad_()
    if hidden_loss is not None:
        hidden_loss(leaf_UH).backward()
    for part in action_logprobs(policy, batch, leaf_UH, temperature):
        loss(part).backward()
    assert leaf_UH.grad is not None
    hidden_UH.backward(leaf_UH.grad)


class _LogprobsAndEntropy(torch.autograd.Function):
    """Both from one softmax, with the gradient in closed form: autograd's own would pass over the logits several times as often."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels | None, logits_CV: Tensor, rows_N: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        lse_C, entropy_C = softmax_sums(kernels, logits_CV, temperature)
        ctx.save_for_backward(logits_CV, rows_N, targets_N, lse_C, entropy_C)
        ctx.kernels, ctx.temperature = kernels, temperature
        return logits_CV[rows_N, targets_N] * (1 / temperature) - lse_C[rows_N], entropy_C

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits_CV, rows_N, targets_N, lse_C, entropy_C = ctx.saved_tensors
        logprob_grad_N, entropy_grad_C = grads
        pull_C = torch.zeros_like(lse_C).index_add_(0, rows_N, logprob_grad_N)
        grad_CV = softmax_sums_backward(ctx.kernels, logits_CV, lse_C, entropy_C, -pull_C, entropy_grad_C, ctx.temperature)
        grad_CV.index_put_((rows_N, targets_N), logprob_grad_N * (1 / ctx.temperature), accumulate=True)
        return None, grad_CV, None, None, None
