"""Decoder layers in fewer passes: which are replaced, which are not, and that results stay."""

from __future__ import annotations

import pytest
import torch
from small_models import CONFIGS, SIZE, Script, as_policy, build, play, random_ids
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, PreTrainedConfig, SmolLM3Config

from mulligan.model import PackedLinears, Policy
from mulligan.model import packed as packed_module
from mulligan.model.attention import ATTENTION
from mulligan.model.fused import FusedLayer
from mulligan.model.load import checkpoint_layers
from mulligan.model.packed import _int8_is_exact
from mulligan.sampling import SamplingParams
from mulligan.sampling.local import LocalSampler

FUSED = {"llama", "llama-one-kv-head", "qwen2", "qwen2-window", "qwen3", "mistral"}
IDS = [random_ids(12, 1), random_ids(9, 2)]


def _replaced(policy: Policy, precision: str = "exact") -> list[bool]:
    """For each decoder layer, whether it is replaced."""
    with torch.inference_mode(), PackedLinears(policy, precision).in_use():  # type: ignore[arg-type]
        return [isinstance(layer.__dict__.get("forward"), FusedLayer) for layer in _layers(policy)]


def _layers(policy: Policy) -> list[nn.Module]:
    return next(list(m) for m in policy.model.modules() if isinstance(m, nn.ModuleList))


def _policy(config: PreTrainedConfig) -> Policy:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
    return Policy(model=model, tokenizer=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CONFIGS)
def test_which_families(name: str):
    assert _replaced(as_policy(build(name))) == [name in FUSED] * 3


def test_biases_everywhere():
    policy = _policy(LlamaConfig(**SIZE, attention_bias=True, mlp_bias=True))
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape))
    plain = policy.packed_logits(IDS)
    assert _replaced(policy) == [True] * 3
    with torch.inference_mode(), PackedLinears(policy).in_use():
        torch.testing.assert_close(policy.packed_logits(IDS), plain, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "replaced"),
    [
        (GraniteConfig(**SIZE, residual_multiplier=0.5), [False] * 3),
        (GraniteConfig(**SIZE, attention_multiplier=0.5), [True] * 3),  # handed to attention, and so to ours
        (LlamaConfig(**SIZE, hidden_act="gelu"), [False] * 3),
        (SmolLM3Config(**SIZE, no_rope_layers=[1, 0, 1]), [True, False, True]),
    ],
)
def test_layers_with_the_same_parts_that_compute_something_else(config: PreTrainedConfig, replaced: list[bool]):
    policy = _policy(config)
    plain = policy.packed_logits(IDS)
    assert _replaced(policy) == replaced
    with torch.inference_mode(), PackedLinears(policy).in_use():
        torch.testing.assert_close(policy.packed_logits(IDS), plain, atol=2e-5, rtol=1e-5)


def test_weights_of_zero_hide_no_difference_for_long():
    """A layer that adds nothing yet looks like any other; it is looked at again when its weights have changed."""
    policy = _policy(GraniteConfig(**SIZE, residual_multiplier=0.5))
    outputs = [m for name, m in policy.model.named_modules() if name.endswith(("o_proj", "down_proj"))]
    with torch.no_grad():
        for linear in outputs:
            linear.weight.zero_()  # type: ignore[union-attr, operator]
    linears = PackedLinears(policy)
    for _ in range(2):
        plain = policy.packed_logits(IDS)
        with torch.inference_mode(), linears.in_use():
            torch.testing.assert_close(policy.packed_logits(IDS), plain, atol=2e-5, rtol=1e-5)
        with torch.no_grad():
            for linear in outputs:
                linear.weight.normal_()  # type: ignore[union-attr, operator]


def test_small_models_stay_as_they_are_and_compile_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_module, "SMALL", 1 << 16)
    monkeypatch.setattr(packed_module, "compiled", lambda: pytest.fail("compiled"))
    policy = as_policy(build("llama"))
    for precision in ["exact", *(["int8"] if _int8_is_exact() else [])]:
        assert _replaced(policy, precision) == [False] * 3


@pytest.mark.skipif(not _int8_is_exact(), reason="no exact 8-bit products on this processor")
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_eight_bits_through_the_same_layers(name: str, monkeypatch: pytest.MonkeyPatch):
    """The same rounding as layer by layer, but for inputs that lie between two steps."""
    policy = as_policy(build(name))
    with torch.inference_mode(), PackedLinears(policy, "int8").in_use():
        fused = torch.cat(policy.packed_logits(IDS)).log_softmax(-1)
    assert _replaced(policy, "int8") == [True] * 3
    monkeypatch.setattr(packed_module, "fused_layers", lambda *_: {})
    with torch.inference_mode(), PackedLinears(policy, "int8").in_use():
        apart = torch.cat(policy.packed_logits(IDS)).log_softmax(-1)
    kl = (apart.exp() * (apart - fused)).sum(-1)
    assert float(kl.mean()) < 1e-3


def test_checkpointed_layers_are_replaced_and_restored():
    policy = as_policy(build("llama"))
    checkpoint_layers(policy.model)
    before = [layer.__dict__["forward"] for layer in _layers(policy)]
    assert _replaced(policy) == [True] * 3
    assert [layer.__dict__["forward"] for layer in _layers(policy)] == before


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral"])
def test_dialogues_with_and_without_the_compiled_kernels(name: str, monkeypatch: pytest.MonkeyPatch):
    """The fallback draws the same tokens with the same log-probs."""
    policy = as_policy(build(name))

    def drawn() -> list:
        scripts = [Script(i, [random_ids(4 + 7 * i, i), random_ids(3, 50 + i)], 6 + i, SamplingParams()) for i in range(4)]
        return play(LocalSampler(policy), scripts)

    first = drawn()
    monkeypatch.setattr(packed_module, "compiled", lambda: None)
    for one, other in zip(first, drawn(), strict=True):
        assert one.token_ids == other.token_ids
        torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=2e-4, rtol=1e-4, equal_nan=True)
