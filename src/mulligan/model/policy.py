"""The policy: a Hugging Face decoder behind a flat forward pass that yields logits only where they are asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

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
    context_length: int = field(init=False)
    """Longest dialogue that the model's positions allow, in tokens. Read once: a Hugging Face configuration is slow to ask."""

    def __post_init__(self) -> None:
        self.context_length = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def fingerprint(self) -> str:
        """32 hex digits of SHA-256 (which processors have in hardware: a third of the time) over everything of the model that its dialogues depend on, wherever it lies: weights, configuration, precision, kind of
        device, end tokens, tokenizer and chat template."""
        found = sha256()
        config = {key: value for key, value in self.model.config.to_dict().items() if key not in ("_name_or_path", "transformers_version")}
        ends = self.model.generation_config.eos_token_id if self.model.generation_config is not None else None
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else sorted(self.tokenizer.get_vocab().items())
        words = [config, str(self.autocast), self.device.type, ends, self.tokenizer.chat_template, self.tokenizer.special_tokens_map, vocabulary]
        found.update(json.dumps(words, sort_keys=True, default=repr).encode("utf-8", "surrogatepass"))
        for name, tensor in self.model.state_dict().items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        return found.hexdigest()[:32]

    def logits(self, ids_T: Tensor, layout: Layout, position_ids: Tensor, index: Tensor) -> Tensor:
        """One flat pass. ids_T (T,), position_ids (1, T), index (N,): positions of the pass whose logits are wanted. Returns (N, V) in float32."""
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            out = self.model(input_ids=ids_T.unsqueeze(0), position_ids=position_ids, use_cache=False, logits_to_keep=index, layout=layout)
        return out.logits[0].float()

    @property
    def vocabulary(self) -> int:
        return int(self.model.get_output_embeddings().weight.shape[0])  # type: ignore[union-attr, operator]

    def hidden(self, ids_T: Tensor, layout: Layout, position_ids: Tensor, index: Tensor) -> Tensor:
        """One flat pass without the output layer: the last hidden states at the positions `index`, (N, hidden), in the precision of the pass."""
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            out = self.model.base_model(input_ids=ids_T.unsqueeze(0), position_ids=position_ids, use_cache=False, layout=layout)
        return out.last_hidden_state[0, index]

    def head(self, hidden_NH: Tensor) -> Tensor:
        """Logits (N, V) in float32 from last hidden states: what the model does after its layers (output layer, caps, scales).

        The model's own forward does it, with its layers stood in for by their result: architectures differ in what they add here.
        """
        body = self.model.base_model
        found = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_NH.unsqueeze(0))  # type: ignore[arg-type]
        body.__dict__["forward"] = lambda *args, **kwargs: found
        try:
            with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
                out = self.model(inputs_embeds=hidden_NH.unsqueeze(0), use_cache=False)
        finally:
            del body.__dict__["forward"]
        return out.logits[0].float()

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
