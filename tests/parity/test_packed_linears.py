"""The sampler's packed linear layers: the same numbers in full precision, nearly the same in 8 bits, and never older than the weights."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from small_models import CONFIGS, Script, as_policy, build, play, random_ids
from torch import nn

from mulligan.errors import ModelError
from mulligan.model import PackedLinears, Policy, check_int8
from mulligan.model.ops import mix, mixed_group
from mulligan.model.packed import _int8_is_exact
from mulligan.sampling import SamplingParams
from mulligan.sampling.local import LocalSampler

IDS = [random_ids(12, 1), random_ids(9, 2)]
needs_int8 = pytest.mark.skipif(not _int8_is_exact(), reason="no exact 8-bit products on this processor")


@pytest.mark.parametrize("name", CONFIGS)
def test_exact_is_the_same_model(name: str):
    policy = as_policy(build(name))
    plain = policy.packed_logits(IDS)
    with torch.inference_mode(), PackedLinears(policy).in_use():
        packed = policy.packed_logits(IDS)
    for one, other in zip(plain, packed, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("precision", "packed"), [("exact", False), pytest.param("int8", True, marks=needs_int8)])
def test_small_layers_stay_as_they_are_in_full_precision(precision: str, packed: bool, monkeypatch: pytest.MonkeyPatch):
    policy = as_policy(build("llama"))
    linears = [m for m in policy.model.modules() if isinstance(m, nn.Linear)]
    monkeypatch.setattr("mulligan.model.packed.SMALL", 1 + max(m.weight.numel() for m in linears))
    with PackedLinears(policy, precision).in_use():  # type: ignore[arg-type]
        assert all(("forward" in m.__dict__) is packed for m in linears)


def test_layers_have_their_own_forward_again_afterwards():
    policy = as_policy(build("llama"))
    with pytest.raises(RuntimeError, match="in the middle"), PackedLinears(policy).in_use():
        assert any("forward" in m.__dict__ for m in policy.model.modules() if isinstance(m, nn.Linear))
        raise RuntimeError("in the middle")
    assert not any("forward" in m.__dict__ for m in policy.model.modules())


@pytest.mark.parametrize("precision", ["exact", pytest.param("int8", marks=needs_int8)])
def test_copies_follow_the_weights(precision: str):
    """Whoever changes them, in place, with or without a new version of the policy."""
    policy = as_policy(build("llama"))
    linears = PackedLinears(policy, precision)  # type: ignore[arg-type]

    def logits() -> torch.Tensor:
        with torch.inference_mode(), linears.in_use():
            return policy.packed_logits(IDS)[0]

    before = logits()
    assert torch.equal(before, logits())
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(2.0)
    torch.testing.assert_close(logits(), 2 * before, atol=1e-3, rtol=1e-3)


@needs_int8
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "mistral"])
def test_int8_is_near(name: str):
    """The distributions that are drawn from differ little; they do differ."""
    policy = as_policy(build(name))
    plain = torch.cat(policy.packed_logits(IDS)).log_softmax(-1)
    with torch.inference_mode(), PackedLinears(policy, "int8").in_use():
        rounded = torch.cat(policy.packed_logits(IDS)).log_softmax(-1)
    kl = (plain.exp() * (plain - rounded)).sum(-1)
    assert 0 < float(kl.detach().mean()) < 0.02


@needs_int8
@torch.inference_mode()
def test_int8_is_near_on_a_real_model(smollm2_policy: Policy):
    """Real models have outliers among their activations; rounded beside them as they are, the KL is 0.07."""
    ids = [smollm2_policy.tokenizer(text)["input_ids"] for text in ("The capital of France is Paris, and that of Italy is Rome.", "12 + 95 = 107. 47 + 38 = 85.")]
    plain = torch.cat(smollm2_policy.packed_logits(ids)).log_softmax(-1)
    with PackedLinears(smollm2_policy, "int8").in_use():
        rounded = torch.cat(smollm2_policy.packed_logits(ids)).log_softmax(-1)
    assert 0 < float((plain.exp() * (plain - rounded)).sum(-1).mean()) < 0.015


@needs_int8
def test_int8_layer_by_hand():
    """A row's result is that of its own rounded values: exact whole numbers times two scales, whatever else is in the batch."""
    policy = as_policy(build("llama"))
    linear = next(m for m in policy.model.modules() if isinstance(m, nn.Linear))
    x = torch.randn(5, linear.in_features, generator=torch.Generator().manual_seed(3)) * torch.tensor([[1e-3], [1.0], [50.0], [0.0], [2.0]])
    with torch.inference_mode(), PackedLinears(policy, "int8").in_use():
        together = linear(x)
        alone = torch.cat([linear(row[None].clone()) for row in x])
    x, weight = mix(x), mix(linear.weight.detach()) / mixed_group(linear.in_features)
    scale_w, scale_x = weight.abs().amax(1) / 127, (x.abs().amax(1) / 127).clamp(min=1e-12)
    whole = torch.floor(x / scale_x[:, None] + 0.5) @ (weight / scale_w[:, None]).round().T
    torch.testing.assert_close(together, whole * scale_x[:, None] * scale_w, atol=1e-5, rtol=1e-4)
    assert torch.equal(together, alone)


@needs_int8
def test_int8_sampler_reports_the_probabilities_that_it_drew_from():
    """Log-probs are those of the rounded model, read whole; not those of the exact one."""
    policy = as_policy(build("llama"))
    transcript = play(LocalSampler(policy, precision="int8"), [Script(3, [random_ids(6, 1), random_ids(3, 2)], 8, SamplingParams())])[0]
    at = np.flatnonzero(transcript.sampled)
    ids = torch.tensor(transcript.token_ids)

    def read() -> np.ndarray:
        return policy.packed_logits([transcript.token_ids])[0].log_softmax(-1)[at - 1, ids[at]].numpy()

    drawn = np.asarray(transcript.logprobs)[at]
    with torch.inference_mode(), PackedLinears(policy, "int8").in_use():
        rounded = read()
    with torch.inference_mode():
        exact = read()
    assert np.abs(drawn - rounded).mean() < 0.3 * np.abs(drawn - exact).mean()


def test_where_int8_cannot_be_had():
    with pytest.raises(ModelError, match=r"on the processor alone, and this model is on cuda: set sampling.rollout_precision = 'exact'"):
        check_int8(torch.device("cuda"), None)
    with pytest.raises(ModelError, match=r"this model computes in bfloat16: set .* or model\.dtype = 'float32'"):
        LocalSampler(as_policy(build("llama"), autocast=torch.bfloat16), precision="int8")


def test_a_sampler_that_broke_leaves_the_model_as_it_was():
    policy = as_policy(build("llama"))
    sampler = LocalSampler(policy)

    async def cancelled() -> None:
        dialogue = sampler.open(key=1, params=SamplingParams())
        task = asyncio.ensure_future(dialogue.sample(random_ids(5, 1), max_tokens=200, stop=None, end_ids=frozenset()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert not any("forward" in m.__dict__ for m in policy.model.modules())
