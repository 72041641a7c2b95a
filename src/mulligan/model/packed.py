"""Linear layers on the processor: packed for oneDNN for the sampler, rounded to 8 bits for it, or through oneDNN for the learner.

A sampler reads the same weights thousands of times between two updates. Their layout for training is not the one in which the
processor multiplies fastest; packing them once per update costs one pass over them. The model's modules get another `forward` for
the length of a pass and have their own again after it.

Legend: R rows (tokens of a pass), K inputs, N outputs of a layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mulligan.errors import ModelError
from mulligan.model.checkpointing import recomputed_like
from mulligan.model.fused import FusedLayers, Product
from mulligan.model.kernels import Kernels, compiled
from mulligan.model.ops import mix, mixed_group, quantize
from mulligan.model.policy import Policy

Precision = Literal["exact", "int8"]

SMALL = 1 << 16
"""Weights below which a float32 layer stays as it is: calling oneDNN costs more than it brings (tiny models sampled 5 to 15 % slower)."""
_ROWS_HINT = 128
"""Rows that the packed layout is chosen for; measured to be as fast from 16 to 2,000 rows as a layout of their own."""


class PackedLinears:
    """Packed copies of a policy's linear layers, renewed when its weights have changed.

    `exact` is float32 on the processor through oneDNN's packed layout (the same sums in another order; elsewhere, and in other
    precisions, the layers stay as they are). `int8` rounds the weights per output and the inputs per token to 8 bits, after a
    Hadamard transform of both (`ops.mix`): the products are whole numbers, so that a token's result does not depend on what else
    is in the batch.

    Raises:
        ModelError: 8 bits on a device or in a precision that has no such products.
    """

    def __init__(self, policy: Policy, precision: Precision = "exact"):
        self.policy, self.precision = policy, precision
        self._made_of: tuple[object, ...] = ()
        self._forwards: list[tuple[nn.Module, Callable[..., Tensor]]] = []
        self._kernels: Kernels | None = None
        self._recognised = FusedLayers()
        if precision == "int8":
            check_int8(policy.device, policy.autocast)

    @contextmanager
    def in_use(self) -> Iterator[Kernels | None]:
        """The policy's linear layers compute through their packed copies until the block ends, and decoder layers of a known form in
        fewer passes (`fused.py`); without gradients. Gives the compiled kernels, for attention."""
        self._renew()
        with _forwards(self._forwards):
            yield self._kernels

    def _renew(self) -> None:
        linears = _plain_linears(self.policy.model, self.policy.autocast)
        made_of = (self.policy.version, *((m.weight.data_ptr(), m.weight._version) for m in linears))
        if made_of == self._made_of:
            return
        self._forwards = []  # first, so that two copies never stand side by side
        self._kernels = compiled() if linears else None
        inputs = _QuantizedInput(self._kernels)
        with torch.no_grad():
            packed: dict[nn.Linear, Product] = {m: self._packed(m, inputs) for m in linears if self.precision == "int8" or m.weight.numel() >= SMALL}
            fused = self._recognised.of(self.policy.model, {m: packed.get(m, m.forward) for m in linears}, self._kernels)
        self._forwards = [*packed.items(), *fused.items()]
        self._made_of = made_of

    def _packed(self, linear: nn.Linear, inputs: _QuantizedInput) -> Product:
        return _Int8Linear(linear, inputs) if self.precision == "int8" else _exact_linear(linear)


class TrainableLayers:
    """A policy's layers for the learner on the processor: linear layers multiply through oneDNN, forward and backward (for processors for
    which torch's default library was not made a sixth faster, without a copy), embeddings are trained row by row, and decoder layers of a
    known form take fewer passes. Elsewhere, and in other precisions, nothing changes."""

    def __init__(self, policy: Policy):
        self.policy = policy
        self._recognised = FusedLayers()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Until the block ends."""
        model = self.policy.model
        linears = _plain_linears(model, self.policy.autocast)
        products: dict[nn.Linear, Product] = {m: functools.partial(_trainable, m) for m in linears if m.weight.numel() >= SMALL}
        fused = self._recognised.of(model, {m: products.get(m, m.forward) for m in linears}, compiled()) if linears else {}
        lookups = {m: functools.partial(_trainable_lookup, m) for m in (_plain_embeddings(model) if linears else ())}
        with _forwards([*products.items(), *lookups.items(), *((layer, recomputed_like(layer, forward)) for layer, forward in fused.items())]):
            yield


def _trainable(linear: nn.Linear, x: Tensor) -> Tensor:
    return _Product.apply(x, linear.weight) if linear.bias is None else _Product.apply(x, linear.weight) + linear.bias  # type: ignore[operator, return-value]


class _Product(torch.autograd.Function):
    """x (..., K) times the transpose of weight (N, K), a parameter. Its gradient is added to in place where there is one already (the
    passes of an optimiser step after the first): a copy of the output layer's for every chunk of logits would be most of what is written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_NK: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_NK)
        ctx.parameter = weight_NK
        return torch.ops.mkldnn._linear_pointwise(x, weight_NK, None, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight_NK = ctx.saved_tensors
        grad = grads[0].contiguous()
        to_x = torch.ops.mkldnn._linear_pointwise(grad, weight_NK.t(), None, "none", [], "") if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_x, None
        grad_NR, x_RK, gathered = grad.flatten(0, -2).t(), x.flatten(0, -2), ctx.parameter.grad
        if ctx.parameter.is_leaf and gathered is not None:
            gathered.addmm_(grad_NR, x_RK)
            return to_x, None
        return to_x, grad_NR @ x_RK


def _trainable_lookup(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return _LookUp.apply(ids, embedding.weight, embedding.padding_idx)  # type: ignore[return-value]


class _LookUp(torch.autograd.Function):
    """Rows `ids` of a parameter (V, H). Their gradients are added to the rows of one that is there already: torch's own makes one of all rows
    for every pass, which are as many as the vocabulary has tokens, to add it to that."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight_VH: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.parameter, ctx.padding = weight_VH, padding
        return F.embedding(ids, weight_VH)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (ids,), (grad,), padding = ctx.saved_tensors, grads, ctx.padding
        if not ctx.needs_input_grad[1]:
            return None, None, None
        gathered = ctx.parameter.grad
        if not ctx.parameter.is_leaf or gathered is None:
            return None, torch.ops.aten.embedding_dense_backward(grad, ids, len(ctx.parameter), -1 if padding is None else padding, False), None
        ids_T, grad_TH = ids.flatten(), grad.flatten(0, -2)
        if padding is not None:  # whose row is not trained
            ids_T, grad_TH = ids_T[trained := ids_T != padding], grad_TH[trained]
        gathered.index_add_(0, ids_T, grad_TH)
        return None, None, None


@contextmanager
def _forwards(replacements: Sequence[tuple[nn.Module, Callable[..., Tensor]]]) -> Iterator[None]:
    before = [module.__dict__.get("forward") for module, _ in replacements]
    for module, forward in replacements:
        module.__dict__["forward"] = forward  # in the instance: shadows the class's, and costs no more than this
    try:
        yield
    finally:
        for (module, _), forward in zip(replacements, before, strict=True):
            if forward is None:
                del module.__dict__["forward"]
            else:  # a layer that is checkpointed
                module.__dict__["forward"] = forward


def _plain_linears(module: nn.Module, autocast: torch.dtype | None) -> list[nn.Linear]:
    """The float32 layers on the processor whose forward is torch's own; none where oneDNN is not there or another precision computes."""
    if autocast is not None or not _has_packing():
        return []
    linears = [m for m in module.modules() if type(m) is nn.Linear and "forward" not in m.__dict__]
    return [m for m in linears if m.weight.dtype == torch.float32 and m.weight.device.type == "cpu"]


def _plain_embeddings(module: nn.Module) -> list[nn.Embedding]:
    """Those in float32 whose forward is torch's own and whose gradient is the plain one."""
    found = [m for m in module.modules() if type(m) is nn.Embedding and "forward" not in m.__dict__ and m.weight.dtype == torch.float32]
    return [m for m in found if m.max_norm is None and not m.scale_grad_by_freq and not m.sparse]


def _exact_linear(linear: nn.Linear) -> Product:
    packed, bias = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS_HINT), linear.bias
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


class _QuantizedInput:
    """The last input in 8 bits: layers that read the same tensor (queries, keys and values; gate and up) share the rounding."""

    ZERO = 128

    def __init__(self, kernels: Kernels | None = None) -> None:
        self._kernels = kernels
        self._of: Tensor | None = None
        self._found: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (..., K), mixed -> unsigned bytes (..., K) around 128, and the scale of each token (..., 1)."""
        if x is not self._of or self._found is None:
            self._of, self._found = x, quantize(self._kernels, x)
        return self._found


class _Int8Linear:
    def __init__(self, linear: nn.Linear, inputs: _QuantizedInput):
        # Mixed like its inputs: the product is the same, and less is lost in rounding (ops.mix).
        weight_NK = mix(linear.weight.detach()) / mixed_group(linear.in_features)
        self.scale_N = weight_NK.abs().amax(1).clamp_(min=1e-12).div_(127.0)
        self.zeros_N = torch.zeros(len(weight_NK), dtype=torch.int32)
        self.packed = torch.ops.onednn.qlinear_prepack((weight_NK / self.scale_N[:, None]).round_().to(torch.int8), None)
        self.bias, self.inputs = linear.bias, inputs

    def __call__(self, x: Tensor) -> Tensor:
        x_u8, scale = self.inputs(x)
        out = torch.ops.onednn.qlinear_pointwise(
            x_u8, 1.0, _QuantizedInput.ZERO, self.packed, self.scale_N, self.zeros_N, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out.mul_(scale)
        return out if self.bias is None else out.add_(self.bias)


def check_int8(device: torch.device, autocast: torch.dtype | None) -> None:
    """Raise ModelError, in one sentence, where 8-bit rollouts cannot be had."""
    fix = "set sampling.rollout_precision = 'exact'"
    if device.type != "cpu":
        raise ModelError(f"8-bit rollouts run on the processor alone, and this model is on {device.type}: {fix}")
    if autocast is not None:
        raise ModelError(f"8-bit rollouts stand beside float32, and this model computes in {str(autocast).removeprefix('torch.')}: {fix}, or model.dtype = 'float32'")
    if not _int8_is_exact():
        raise ModelError(f"this processor, or this build of torch, has no exact 8-bit products (AVX-512 VNNI or better with oneDNN): {fix}")


@functools.cache
def _has_packing() -> bool:
    try:
        weight = torch.eye(4)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        return torch.equal(torch.ops.mkldnn._linear_pointwise(weight, packed, None, "none", [], ""), weight)
    except (AttributeError, RuntimeError, NotImplementedError):  # a build without oneDNN
        return False


@functools.cache
def _int8_is_exact() -> bool:
    """Whether the largest 8-bit products add up exactly: older processors saturate in between."""
    try:
        linear = nn.Linear(64, 32, bias=False)
        with torch.no_grad():
            # Mixed, both become 64 equal numbers: every product is as large as one can be.
            linear.weight.zero_()[:, 0] = 64.0
            x = torch.zeros(3, 64)
            x[:, 0] = 1.0
            return torch.allclose(_Int8Linear(linear, _QuantizedInput())(x), F.linear(x, linear.weight))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
