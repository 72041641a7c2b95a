"""Decoder layers in fewer passes: which are replaced, which are not, and that results stay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_models import CONFIGS, SIZE, Script, as_policy, build, play, random_ids
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, PreTrainedConfig, SmolLM3Config

from mulligan.model import PackedLayout, PackedLinears, Policy, TrainableLayers
from mulligan.model import attention as attention_module
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


def test_small_linear_layers_stay_as_they_are_inside(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_module, "SMALL", 1 << 16)
    policy = as_policy(build("llama"))
    plain = policy.packed_logits(IDS)
    with torch.inference_mode(), PackedLinears(policy).in_use():
        torch.testing.assert_close(policy.packed_logits(IDS), plain, atol=2e-5, rtol=1e-5)
        assert not any("forward" in m.__dict__ for m in policy.model.modules() if isinstance(m, nn.Linear))
    assert _replaced(policy) == [True] * 3


def _gradients(policy: Policy) -> dict[str, torch.Tensor]:
    """Of a weighted sum of all logits of two sequences that begin alike."""
    layout = PackedLayout([12, 9], places=[np.arange(12), np.r_[0:5, 12:16]])
    logits = policy.logits(torch.tensor(random_ids(16, 3)), layout, layout.position_ids, torch.arange(16))
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))).sum().backward()
    found = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("with_kernels", [True, False])
@pytest.mark.parametrize("small", [0, 1 << 16])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_through_the_learners_layers(name: str, small: int, with_kernels: bool, monkeypatch: pytest.MonkeyPatch):
    """Beside the layers' own forward and padded attention, in float64."""
    policy = as_policy(build(name))
    expected = _gradients(Policy(model=copy.deepcopy(policy.model).double(), tokenizer=None))  # type: ignore[arg-type]
    monkeypatch.setattr(packed_module, "SMALL", small)
    if not with_kernels:
        monkeypatch.setattr(packed_module, "compiled", lambda: None)
        monkeypatch.setattr(attention_module, "compiled", lambda: None)
    layers = TrainableLayers(policy)
    for _ in range(2):
        with layers.in_use():
            assert [isinstance(layer.__dict__.get("forward"), FusedLayer) for layer in _layers(policy)] == [name in FUSED] * 3
            found = _gradients(policy)
        assert found.keys() == expected.keys()
        for weight, gradient in found.items():
            torch.testing.assert_close(gradient.double(), expected[weight], atol=2e-5 * float(expected[weight].abs().max()), rtol=1e-4, msg=weight)


def test_frozen_weights_get_no_gradient():
    policy = as_policy(build("llama"))
    expected = _gradients(policy)
    for name, weight in policy.model.named_parameters():
        weight.requires_grad_("layers.1" in name and "mlp" in name)
    with TrainableLayers(policy).in_use():
        found = _gradients(policy)
    assert len(found) == 3
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("padding", [None, 7])
def test_embeddings_add_to_the_rows_of_the_gradient_that_is_there(padding: int | None):
    """In a second pass; a row for padding is not trained."""
    policy = as_policy(build("llama"))
    embedding = policy.model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    embedding.padding_idx = padding
    ids, other = torch.tensor([[3, 7, 3, 60]]), torch.tensor([[7, 5, 3, 3, 7]])

    def gradient() -> torch.Tensor:
        for part in (ids, other):
            (embedding(part) * torch.randn(*part.shape, 32, generator=torch.Generator().manual_seed(len(part[0])))).sum().backward()
            places.append(embedding.weight.grad.data_ptr())  # type: ignore[union-attr]
        found, embedding.weight.grad = embedding.weight.grad, None
        return found  # type: ignore[return-value]

    places: list[int] = []
    expected = gradient()
    with TrainableLayers(policy).in_use():
        assert "forward" in embedding.__dict__
        places.clear()
        torch.testing.assert_close(gradient(), expected)
        assert places[0] == places[1]
    assert bool(expected[7].any()) == (padding is None)


@pytest.mark.skipif(not _int8_is_exact(), reason="no exact 8-bit products on this processor")
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_eight_bits_through_the_same_layers(name: str, monkeypatch: pytest.MonkeyPatch):
    """The same rounding as layer by layer, but for inputs that lie between two steps."""
    policy = as_policy(build(name))
    with torch.inference_mode(), PackedLinears(policy, "int8").in_use():
        fused = torch.cat(policy.packed_logits(IDS)).log_softmax(-1)
    assert _replaced(policy, "int8") == [True] * 3
    monkeypatch.setattr(packed_module.FusedLayers, "of", lambda *_: {})
    with torch.inference_mode(), PackedLinears(policy, "int8").in_use():
        apart = torch.cat(policy.packed_logits(IDS)).log_softmax(-1)
    kl = (apart.exp() * (apart - fused)).sum(-1)
    assert float(kl.mean()) < 1e-3


def test_checkpointed_layers_stay_checkpointed_for_the_learner(monkeypatch: pytest.MonkeyPatch):
    """The same gradients to the bit, and every layer's forward is called twice."""
    policy, calls = as_policy(build("llama")), []
    with TrainableLayers(policy).in_use():
        expected = _gradients(policy)
    checkpoint_layers(policy.model)
    call = FusedLayer.__call__
    monkeypatch.setattr(FusedLayer, "__call__", lambda self, *args, **more: (calls.append(self.index), call(self, *args, **more))[1])
    layers = TrainableLayers(policy)
    with layers.in_use():
        calls.clear()  # of the recognition
        found = _gradients(policy)
    assert sorted(calls) == [0, 0, 1, 1, 2, 2]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


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
