"""The learner's arithmetic: packed = one by one, gradients that do not depend on the cut, the loss written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from learner_batches import MAX_TOKENS, actions_of, assert_same_gradients, batch, gradients, on_policy, recipe, sampled, some_values
from small_models import as_policy, build, logprobs_of, reference_logits

from mulligan.config import Recipe
from mulligan.learning.batch import TrainSequence, pack
from mulligan.learning.learner import Learner
from mulligan.model.load import checkpoint_layers
from mulligan.sampling import SamplingParams

# --------------------------------------------------------------------------------------------------------- packed = padded


@pytest.mark.parametrize("micro_batch_tokens", [MAX_TOKENS, 70, 4096])
@pytest.mark.parametrize(("name", "attention"), [("llama", "sdpa"), ("qwen3", "sdpa"), ("gemma2", "eager"), ("gemma3", "sdpa"), ("mistral", "sdpa"), ("gpt2", "sdpa")])
def test_packed_is_one_by_one(name, attention, micro_batch_tokens):
    """Log-probs, and the gradient of a weighted sum of them, against unpadded passes of transformers."""
    model = build(name, attention)
    policy = as_policy(model)
    learner = Learner(policy, recipe(train={"micro_batch_tokens": micro_batch_tokens}))
    transcripts = sampled(policy)
    weights = [np.random.default_rng(i).normal(size=len(actions_of(t))).astype(np.float32) for i, t in enumerate(transcripts)]
    sequences = [TrainSequence.of(t, weight=w) for t, w in zip(transcripts, weights, strict=True)]

    for transcript, ours in zip(transcripts, learner.logprobs(sequences), strict=True):
        expected = logprobs_of(reference_logits(model, transcript.token_ids), transcript.token_ids)[actions_of(transcript) - 1]
        np.testing.assert_allclose(ours, expected, atol=1e-4)

    batches = list(pack(sequences, micro_batch_tokens))
    assert (len(batches) == 1) == (micro_batch_tokens == 4096)
    assert sorted(i for b in batches for i in b.members) == list(range(len(sequences)))
    for b in batches:
        logits = policy.logits(b.ids_T, b.layout, b.layout.position_ids, b.index_N)
        (logits.log_softmax(-1).gather(-1, b.targets_N[:, None]).squeeze(-1) * b.columns["weight"]).sum().backward()
    for transcript, weight in zip(transcripts, weights, strict=True):
        ids = torch.tensor(transcript.token_ids)
        logits = model(ids[None]).logits[0]
        chosen = logits[:-1].log_softmax(-1).gather(-1, ids[1:, None]).squeeze(-1)[actions_of(transcript) - 1]
        (chosen * torch.from_numpy(weight)).sum().backward()
    theirs, ours = ({n: p.grad for n, p in module.named_parameters()} for module in (model, policy.model))
    assert_same_gradients(theirs, ours)


def test_packing_orders_by_length_and_reads_no_further_than_the_last_action():
    sequences = [TrainSequence([1] * 20, np.array([5, 9])), TrainSequence([2] * 6, np.array([3])), TrainSequence([3] * 9, np.array([], dtype=int)), TrainSequence([4] * 8, np.array([1, 7]))]
    assert [s.length for s in sequences] == [10, 4, 0, 8]
    first, second = pack(sequences, 12)
    assert (first.members, first.counts, first.ids_T.tolist()) == ((1, 3), (1, 2), [2] * 4 + [4] * 8)
    assert first.index_N.tolist() == [2, 4, 10]
    assert second.members == (0,)
    found: list = [None] * 4
    first.scatter(torch.tensor([0.5, 1.5, 2.5]), found)
    assert [f if f is None else f.tolist() for f in found] == [None, [0.5], None, [1.5, 2.5]]


# ------------------------------------------------------------------------------------- gradients do not depend on the cut

TERMS = {
    "policy": {},
    "kl-k3": {"loss": {"kl": 0.3}},
    "kl-k2": {"loss": {"kl": 0.3, "kl_estimator": "k2"}},
    "entropy": {"loss": {"entropy": 0.2}},
    "importance": {"loss": {"importance_cap": 1.1}},
    "head": {"advantage": {"name": "gae"}, "critic": {"kind": "head"}},
    "separate": {"advantage": {"name": "gae"}, "critic": {"kind": "separate"}},
}


def with_terms(terms: str, mean: str, micro_batch_tokens: int, **more: Any) -> Recipe:
    sections = dict(TERMS[terms]) | more
    return recipe(**sections | {"loss": sections.get("loss", {}) | {"mean": mean}, "train": {"micro_batch_tokens": micro_batch_tokens}})


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
@pytest.mark.parametrize("terms", TERMS)
def test_gradients_do_not_depend_on_micro_batches(terms, mean):
    model = build("qwen3")
    sequences = batch(as_policy(model))
    found = [gradients(some_values(Learner(as_policy(model), with_terms(terms, mean, tokens))), sequences) for tokens in (4096, 100, MAX_TOKENS)]
    assert_same_gradients(found[0], found[1])
    assert_same_gradients(found[0], found[2])
    assert any(name.startswith("critic.") for name in found[0]) == (terms in ("head", "separate"))


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradient_of_the_loss_written_out(mean, temperature):
    """PPO clip, importance weights, k3 and entropy, dialogue by dialogue on transformers' own model."""
    model = build("llama", "sdpa")
    policy = as_policy(model)
    sequences = batch(policy, params=SamplingParams(temperature))
    config = recipe(
        loss={"mean": mean, "kl": 0.3, "entropy": 0.1, "importance_cap": 1.1, "clip_low": 0.1, "clip_high": 0.2},
        train={"micro_batch_tokens": 60}, sampling={"temperature": temperature},
    )  # fmt: skip
    ours = gradients(Learner(policy, config), sequences)

    total = sum(s.num_actions for s in sequences)
    for s in sequences:
        ids, c = torch.tensor(s.token_ids), {name: torch.from_numpy(x) for name, x in s.columns.items()}
        logprobs_TV = (model(ids[None]).logits[0][s.actions - 1] / temperature).log_softmax(-1)
        new = logprobs_TV.gather(-1, ids[s.actions][:, None]).squeeze(-1)
        ratio = (new - c["old_logprobs"]).exp()
        surrogate = torch.minimum(ratio * c["advantages"], ratio.clamp(0.9, 1.2) * c["advantages"])
        terms = -surrogate * (c["old_logprobs"] - c["sampler_logprobs"]).exp().clamp(max=1.1)
        terms = terms + 0.3 * ((c["ref_logprobs"] - new).exp() - 1 - (c["ref_logprobs"] - new)) + 0.1 * (logprobs_TV.exp() * logprobs_TV).sum(-1)
        weight = {"token": 1 / total, "sequence": 1 / (s.num_actions * len(sequences)), "constant": 1 / (MAX_TOKENS * len(sequences))}[mean]
        (terms.sum() * weight).backward()
    assert_same_gradients({f"policy.{n}": p.grad for n, p in model.named_parameters()}, ours)


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
def test_skipping_dialogues_without_advantage_changes_nothing(mean, monkeypatch):
    model = build("llama")
    sequences = batch(as_policy(model))
    for i in (0, 3, 4):
        sequences[i].columns["advantages"][:] = 0
    learner = Learner(as_policy(model), with_terms("policy", mean, 100))
    assert [learner._has_gradient(s) for s in sequences] == [False, True, True, False, False, True, True]
    skipped = gradients(learner, sequences)
    assert all(Learner(as_policy(model), with_terms(t, mean, 100))._has_gradient(sequences[0]) for t in ("kl-k3", "entropy", "head", "separate"))
    monkeypatch.setattr(Learner, "_has_gradient", lambda *_: True)
    assert_same_gradients(skipped, gradients(Learner(as_policy(model), with_terms("policy", mean, 100)), sequences), tolerance=1e-6)


@pytest.mark.parametrize("terms", ["policy", "head", "separate"])
def test_gradient_checkpointing(terms):
    """The same gradients, and each layer really runs twice: once more in the backward pass."""
    model = build("gemma3")
    sequences = batch(as_policy(model))
    plain = gradients(some_values(Learner(as_policy(model), with_terms(terms, "token", 4096))), sequences)
    policy = as_policy(model)
    checkpoint_layers(policy.model)
    learner = some_values(Learner(policy, with_terms(terms, "token", 4096)))
    calls: list[str] = []
    modules = {"policy": policy.model} | ({"critic": learner.critic.body} if terms == "separate" else {})
    for part, module in modules.items():
        for name, layer in module.named_modules():
            if name.endswith("mlp"):
                layer.register_forward_hook(lambda *_, who=f"{part}.{name}": calls.append(who))
    assert_same_gradients(plain, gradients(learner, sequences), tolerance=1e-6)
    assert len(calls) == 2 * 3 * len(modules)
    assert all(calls.count(name) == 2 for name in calls)
    calls.clear()
    learner.logprobs(sequences)
    assert len(calls) == 3


def test_bfloat16():
    """Weights and gradients stay float32; the gradient points where the exact one points."""
    model = build("llama")
    sequences = batch(as_policy(model))
    exact = gradients(Learner(as_policy(model), recipe()), sequences)
    for terms in ("policy", "entropy", "head", "separate"):
        learner = some_values(Learner(as_policy(model, autocast=torch.bfloat16), with_terms(terms, "token", 4096)))
        if learner.critic is not None:
            assert learner._values(next(iter(pack(sequences, 4096)))).dtype == torch.float32
        rough = gradients(learner, sequences)
        assert all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in rough.values())
        if terms == "policy":
            one, other = (torch.cat([g.flatten() for g in grads.values()]) for grads in (exact, rough))
            assert not torch.equal(one, other)
            assert float(torch.cosine_similarity(one, other, dim=0)) > 0.95
    policy = as_policy(model, autocast=torch.bfloat16)
    metrics = Learner(policy, recipe()).update(on_policy(sampled(policy)), step=0, lr_scale=1.0)
    assert 0 < metrics["drift_mean"] < 0.05
