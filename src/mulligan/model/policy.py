"""The policy: a Hugging Face decoder behind a flat forward pass that yields logits only where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mulligan.model.attention import Layout, PackedLayout


@dataclass(slots=True)
class Policy:
    """A model, its tokenizer, and the version of its weights (raised by every update; a sampler's cache belongs to one)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    version: int = 0
    source: str = ""
    autocast: torch.dtype | None = None
    """Compute in this precision while the weights stay float32, in the sampler and the learner alike."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context_length(self) -> int:
        """Longest dialogue that the model's positions allow, in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def logits(self, ids_T: Tensor, layout: Layout, position_ids: Tensor, index: Tensor) -> Tensor:
        """One flat pass. ids_T (T,), position_ids (1, T), index (N,): positions of the pass whose logits are wanted. Returns (N, V) in float32."""
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            out = self.model(input_ids=ids_T.unsqueeze(0), position_ids=position_ids, use_cache=False, logits_to_keep=index, layout=layout)
        return out.logits[0].float()

    def logits_and_hidden(self, ids_T: Tensor, layout: Layout, position_ids: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """As `logits`, and the last hidden states at the same positions, (N, hidden): what a value head reads."""
        head = self.model.get_output_embeddings()
        seen: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))  # type: ignore[union-attr]
        try:
            logits = self.logits(ids_T, layout, position_ids, index)
        finally:
            handle.remove()
        return logits, seen[0][0].float()

    def packed_logits(self, sequences: list[list[int]]) -> list[Tensor]:
        """Logits (len, V) at every position of each sequence, in one packed pass. For probes and tests."""
        layout = PackedLayout([len(s) for s in sequences], self.device)
        ids_T = torch.tensor([t for s in sequences for t in s], device=self.device)
        logits = self.logits(ids_T, layout, layout.position_ids, torch.arange(len(ids_T), device=self.device))
        return list(logits.split([len(s) for s in sequences]))


class Critic(nn.Module):
    """A separate critic: a decoder's body and a scalar head (the paper trains one as large as the policy)."""

    def __init__(self, body: PreTrainedModel, hidden_size: int):
        super().__init__()
        self.body = body
        self.head = value_head(hidden_size, next(body.parameters()))

    def forward(self, ids_T: Tensor, layout: Layout, position_ids: Tensor, index: Tensor) -> Tensor:
        """Values (N,) at the positions `index` of one flat pass."""
        out = self.body(input_ids=ids_T.unsqueeze(0), position_ids=position_ids, use_cache=False, layout=layout)
        hidden = out.last_hidden_state[0, index].float()
        with torch.autocast(hidden.device.type, enabled=False):  # bfloat16 has three digits: too few for values
            return self.head(hidden).squeeze(-1)


def value_head(hidden_size: int, like: Tensor) -> nn.Linear:
    """A linear head that starts at zero, so that the first values are 0 rather than noise."""
    head = nn.Linear(hidden_size, 1, device=like.device, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
