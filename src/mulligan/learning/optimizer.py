"""The optimizer: AdamW, or Muon for the matrices of hidden layers with AdamW for everything else, behind one object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from mulligan.config import OptimizerConfig

_NOT_HIDDEN = re.compile(r"(^|\.)([^.]*embed[^.]*|wte|wpe|(lm_|value_|v_)?head|score|classifier)(\.|$)")
"""Names of embeddings and output heads in Hugging Face decoders, and of value heads."""


class CombinedOptimizer:
    """Several optimizers stepped as one. `param_groups` are those of all parts; each holds its peak rate as `initial_lr`."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = list(parts)
        for group in self.param_groups:
            group.setdefault("initial_lr", group["lr"])

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def scale_lr(self, factor: float) -> None:
        """Set every group's rate to `factor` times its peak (see `schedule.learning_rate`)."""
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave.

        Raises:
            ValueError: the state has other parts or other parameter groups (another optimizer, or another model).
        """
        if len(state["parts"]) != len(self.parts):
            raise ValueError(f"the saved optimizer has {len(state['parts'])} parts, this one {len(self.parts)}: resume with the same optimizer.name")
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a weight matrix between hidden layers: 2-D, and neither an embedding nor an output or value head."""
    return parameter.ndim == 2 and not _NOT_HIDDEN.search(name)


def make_optimizer(named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> CombinedOptimizer:
    """Build the optimizer that the recipe names, over the parameters that require a gradient.

    * `adamw` (Loshchilov & Hutter 2019, arXiv 1711.05101): rate `config.lr`; weight decay on everything but 1-D parameters.
    * `muon` (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): hidden matrices with torch's Muon at rate
      `config.muon_lr` (Nesterov momentum 0.95, five Newton-Schulz steps, the update scaled by sqrt(max(1, rows / columns)));
      the others with AdamW as above.
    """
    hidden: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            (hidden if config.name == "muon" and is_hidden_matrix(name, parameter) else others).append(parameter)
    parts: list[torch.optim.Optimizer] = []
    if hidden:
        parts.append(torch.optim.Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay, momentum=0.95, nesterov=True, adjust_lr_fn="original"))
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups or not hidden:
        one_pass = all(p.device.type in ("cpu", "cuda") for p in others)  # where torch has a fused step: on the processor it is several times as fast
        parts.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=one_pass or None))
    return CombinedOptimizer(parts)
