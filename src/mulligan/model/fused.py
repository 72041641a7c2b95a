"""Decoder layers of the Llama family in fewer passes over memory, for sampler and learner on the processor.

Between its matrix products a layer reads and writes every activation some thirty times, and some sixty times more for its gradients.
Here norms, rotary embeddings and the activation with its product take one pass each (`ops.py`), and residual sums change what is there.
Which layers have this form is not taken from their name: a layer is replaced if it has these parts and no others, and if its own forward gives the same on
random input; whatever it hands to attention (scale, window, cap) is noted there and handed on.

Legend: T tokens of the pass, H query heads, K key/value heads, D head size, W hidden size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from mulligan.model.attention import Layout, PackedLayout
from mulligan.model.kernels import Kernels
from mulligan.model.ops import rms_norm, rms_norm_beside, rotate, swiglu

logger = logging.getLogger(__name__)

Product = Callable[[Tensor], Tensor]
"""What computes in place of a linear layer, (..., K) -> (..., N); its result is a new tensor, and may be changed."""

Attend = tuple[float, int | None, float | None]
"""Scale, window and cap, as the layer's own forward gives them to its attention."""

_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION, _HEAD_NORMS, _MLP = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_norm", "k_norm"}, {"gate_proj", "up_proj", "down_proj"}


class FusedLayer:
    """Stands in for the forward of one decoder layer that `FusedLayers` has recognised."""

    def __init__(self, layer: nn.Module, products: Mapping[nn.Linear, Product], attend: Attend, kernels: Kernels | None):
        attention: Any = layer.self_attn
        mlp: Any = layer.mlp
        self.kernels, self.attend = kernels, attend
        self.query, self.key, self.value, self.out = (products[getattr(attention, f"{name}_proj")] for name in "qkvo")
        self.gate, self.up, self.down = (products[getattr(mlp, f"{name}_proj")] for name in ("gate", "up", "down"))
        self.norm, self.mlp_norm = layer.input_layernorm, layer.post_attention_layernorm
        self.head_norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
        self.head_size: int = attention.head_dim
        self.index: int = attention.layer_idx

    def __call__(self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], layout: Layout, **_: Any) -> Tensor:
        """hidden_states (1, T, W), cosines and sines (1, T, D) -> (1, T, W)."""
        cos_TD, sin_TD = (x[0] for x in position_embeddings)
        x, hidden = self._normed_beside(self.norm, hidden_states[0])
        query, key, value = (product(x).unflatten(-1, (-1, self.head_size)) for product in (self.query, self.key, self.value))
        if self.head_norms is not None:
            query, key = (rms_norm(self.kernels, x, norm.weight, norm.variance_epsilon) for x, norm in zip((query, key), self.head_norms, strict=True))
        query, key = rotate(self.kernels, query, cos_TD, sin_TD), rotate(self.kernels, key, cos_TD, sin_TD)
        attended = layout.attend(self.index, query, key, value, *self.attend)
        hidden = self.out(attended.flatten(1)).add_(hidden)
        x, hidden = self._normed_beside(self.mlp_norm, hidden)
        return self.down(swiglu(self.kernels, self.gate(x), self.up(x))).add_(hidden).unsqueeze(0)

    def _normed_beside(self, norm: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return rms_norm_beside(self.kernels, x, norm.weight, norm.variance_epsilon)


class FusedLayers:
    """The decoder layers of a model that have the form, each with its replacement; remembers what it has recognised."""

    def __init__(self) -> None:
        self._recognised: dict[nn.Module, Attend | None] = {}

    def of(self, model: nn.Module, products: Mapping[nn.Linear, Product], kernels: Kernels | None) -> dict[nn.Module, FusedLayer]:
        """`products` is what computes in place of a linear layer; decoder layers whose linear layers are not all among them stay as they are."""
        found: dict[nn.Module, FusedLayer] = {}
        for layer in model.modules():
            if _has_the_parts(layer, products):
                attend = self._attend(layer, kernels)
                if attend is not None:
                    found[layer] = FusedLayer(layer, products, attend, kernels)
        return found

    def _attend(self, layer: nn.Module, kernels: Kernels | None) -> Attend | None:
        """A layer with weights of nothing but zeros (an output layer before its training) may hide a difference: it is looked at anew each time."""
        if layer in self._recognised:
            return self._recognised[layer]
        attend = _attend_if_same(layer, kernels)
        if all(bool(weight.any()) for weight in layer.parameters()):
            self._recognised[layer] = attend
        return attend


def _has_the_parts(layer: nn.Module, products: Mapping[nn.Linear, Product]) -> bool:
    parts = dict(layer.named_children())
    if parts.keys() != _PARTS:
        return False
    attention, mlp = dict(parts["self_attn"].named_children()), dict(parts["mlp"].named_children())
    activation = mlp.pop("act_fn", None)
    if attention.keys() - _HEAD_NORMS != _ATTENTION or mlp.keys() != _MLP or type(activation) not in (SiLUActivation, nn.SiLU):
        return False
    norms = [parts["input_layernorm"], parts["post_attention_layernorm"], *(attention[name] for name in _HEAD_NORMS & attention.keys())]
    linears = [attention[name] for name in _ATTENTION] + [*mlp.values()]
    known_norms = all(isinstance(getattr(norm, "variance_epsilon", None), float) for norm in norms)
    return known_norms and isinstance(getattr(parts["self_attn"], "head_dim", None), int) and all(linear in products for linear in linears)


@torch.no_grad()
def _attend_if_same(layer: nn.Module, kernels: Kernels | None) -> Attend | None:
    """Scale, window and cap of the layer's attention, if a `FusedLayer` gives what the layer's own forward does; else None."""
    attention: Any = layer.self_attn
    width, size = attention.q_proj.in_features, attention.head_dim
    generator = torch.Generator().manual_seed(0)
    hidden, cos, sin = (torch.randn(1, 7, n, generator=generator) for n in (width, size, size))
    # Angles far from those of these positions, and positions far out: scales that depend on either would show.
    given: dict[str, Any] = {"position_embeddings": (cos, sin), "position_ids": torch.arange(7).unsqueeze(0) * 10_000}
    own, ours = _Noted(7), _Noted(7)
    try:
        expected = layer(hidden, attention_mask=None, past_key_values=None, use_cache=False, layout=own, **given)
        attend = own.attends[0]
        linears: dict[nn.Linear, Product] = {linear: linear.forward for linear in layer.modules() if isinstance(linear, nn.Linear)}
        found = FusedLayer(layer, linears, attend, kernels)(hidden, layout=ours, **given)
    except Exception as error:  # a layer of another kind, whatever it stumbled upon
        logger.debug("%s keeps its own forward: %s", type(layer).__name__, error)
        return None
    pairs = zip([expected, *own.tensors], [found, *ours.tensors], strict=True)
    return attend if all(isinstance(a, Tensor) and a.shape == b.shape and _near(a, b) for a, b in pairs) else None


def _near(expected: Tensor, found: Tensor) -> bool:
    return float((expected - found).abs().max()) <= 1e-4 * float(expected.abs().max())


class _Noted(PackedLayout):
    """One sequence of `length` tokens; notes what its attention is asked for."""

    def __init__(self, length: int):
        super().__init__([length])
        self.attends: list[Attend] = []
        self.tensors: list[Tensor] = []

    def attend(self, layer: int, query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        self.attends.append((scale, window, softcap))
        self.tensors += [query_THD, key_TKD, value_TKD]
        return super().attend(layer, query_THD, key_TKD, value_TKD, scale, window, softcap)
