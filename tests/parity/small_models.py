"""Very small models of well-known families with random weights, as transformers builds them, and dialogues played on them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from mulligan.model import Policy
from mulligan.model.attention import ATTENTION
from mulligan.sampling import Completion, SamplingParams, StopChecker
from mulligan.sampling.local import LocalSampler
from mulligan.types import Transcript

VOCABULARY = 61
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

# Windows (4 to 6 tokens) are far shorter than the dialogues (30 and more), and soft caps bite on weights as large as `build` makes them.
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZE),
    "llama-one-kv-head": lambda: LlamaConfig(**SIZE | {"num_key_value_heads": 1}),
    "qwen2": lambda: Qwen2Config(**SIZE, tie_word_embeddings=True),
    "qwen2-window": lambda: Qwen2Config(**SIZE, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "qwen3": lambda: Qwen3Config(**SIZE, head_dim=16),
    "gemma": lambda: GemmaConfig(**SIZE | {"num_key_value_heads": 1}, head_dim=16),
    "gemma2": lambda: Gemma2Config(
        **SIZE, head_dim=16, query_pre_attn_scalar=12, sliding_window=5, attn_logit_softcapping=4.0, final_logit_softcapping=25.0
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **SIZE, head_dim=16, query_pre_attn_scalar=12, sliding_window=6, layer_types=["sliding_attention", "sliding_attention", "full_attention"]
    ),
    "mistral": lambda: MistralConfig(**SIZE, sliding_window=4, head_dim=8),
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=256, bos_token_id=None, eos_token_id=None),
}
WINDOWED = ("qwen2-window", "gemma2", "gemma3", "mistral")


def build(name: str, attention: str = "eager", seed: int = 0) -> PreTrainedModel:
    """A model of transformers' own. Weights are large, so that distributions are far from uniform and an argmax has no ties;
    norms and biases are random too, since those that start at 0 or 1 would hide a mistake."""
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim >= 2:
                weight.copy_(noise * 1.6 * weight.shape[-1] ** -0.5)
            else:
                weight.add_(0.2 * noise)
    return model


def as_policy(model: PreTrainedModel, autocast: torch.dtype | None = None) -> Policy:
    """A policy with a copy of the model's weights."""
    config = copy.deepcopy(model.config)
    ours = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
    ours.load_state_dict(model.state_dict())
    return Policy(model=ours, tokenizer=None, autocast=autocast)  # type: ignore[arg-type]


@torch.no_grad()
def reference_logits(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """(T, V) of one unpadded full pass by transformers."""
    return model(torch.tensor([list(ids)])).logits[0].float()


def logprobs_of(logits_TV: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Log-prob of every token but the first, (T - 1,), given the tokens before it."""
    return logits_TV[:-1].log_softmax(-1).gather(-1, torch.tensor(list(ids))[1:, None]).squeeze(-1)


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


# ------------------------------------------------------------------------------------------------------------- dialogues


@dataclass
class Script:
    """One dialogue: what is forced before each attempt (prompt, feedback, ...), and how attempts are drawn."""

    key: int
    forced: Sequence[Sequence[int]]
    max_tokens: int = 6
    params: SamplingParams = field(default_factory=SamplingParams)
    end_ids: frozenset[int] = frozenset()
    stop: Callable[[], StopChecker] | None = None
    completions: list[Completion] = field(default_factory=list)
    """Filled by `play`."""


Pause = Callable[[Script, int], Awaitable[None]]
"""What happens after attempt t (from 1) of a dialogue, where a grader would stand."""


async def converse(sampler: LocalSampler, script: Script, pause: Pause | None = None) -> Transcript:
    transcript = Transcript()
    dialogue = sampler.open(key=script.key, params=script.params)
    try:
        for t, ids in enumerate(script.forced, 1):
            transcript.append_forced(ids)
            stop = script.stop() if script.stop else None
            completion = await dialogue.sample(ids, max_tokens=script.max_tokens, stop=stop, end_ids=script.end_ids)
            transcript.append_sampled(completion.token_ids, completion.logprobs, completion.full_logprobs)
            script.completions.append(completion)
            if pause is not None:
                await pause(script, t)
    finally:
        dialogue.close()
    return transcript


async def converse_all(sampler: LocalSampler, scripts: Sequence[Script], pause: Pause | None = None) -> list[Transcript]:
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(converse(sampler, script, pause)) for script in scripts]
    return [task.result() for task in running]


def play(sampler: LocalSampler, scripts: Sequence[Script], pause: Pause | None = None) -> list[Transcript]:
    """Play all dialogues at once; transcripts in the order of `scripts`. A sampler that hangs fails after a minute."""
    return asyncio.run(converse_all(sampler, scripts, pause))
