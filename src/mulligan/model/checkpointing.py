"""Gradient checkpointing of a decoder's layers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mulligan.errors import ModelError


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep no activations inside the decoder's layers: compute them again in the backward pass.

    transformers' own switch works in training mode only, and with that comes dropout.

    Raises:
        ModelError: the architecture has no layers that can be checkpointed.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"{type(model).__name__} has no layers that can be checkpointed: set model.gradient_checkpointing = false")
    for layer in layers:
        layer.forward = functools.partial(_recomputed, layer.forward)  # a partial of a bound method: survives a deep copy of the model


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def recomputed_like(layer: nn.Module, forward: Any) -> Any:
    """`forward` in place of the layer's own: computed again in the backward pass if that is."""
    own = layer.__dict__.get("forward")
    return functools.partial(_recomputed, forward) if isinstance(own, functools.partial) and own.func is _recomputed else forward
