"""The learner beside the sampler, and what an update may touch: drift, importance weights, bad gradients, critic, reference, resuming."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from learner_batches import assert_same_gradients, batch, gradients, on_policy, recipe, sampled, some_values
from small_models import as_policy, build, reference_logits
from torch.nn.functional import cross_entropy

from mulligan import checkpoint
from mulligan.learning.batch import TrainSequence
from mulligan.learning.experience import make_experience
from mulligan.learning.learner import Learner
from mulligan.learning.optimizer import make_optimizer
from mulligan.sampling import SamplingParams
from mulligan.types import Attempt, Group, Problem, Rollout, StopReason, Transcript, Verdict, VerdictKind

# ------------------------------------------------------------------------------------------------- sampler and learner agree


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.5])
def test_drift_right_after_sampling(temperature):
    policy = as_policy(build("qwen3"))
    learner = Learner(policy, recipe(sampling={"temperature": temperature}))
    transcripts = sampled(policy, SamplingParams(temperature))
    sequences = on_policy(transcripts)
    for s, ours in zip(sequences, learner.logprobs(sequences), strict=True):
        np.testing.assert_allclose(ours, s.columns["sampler_logprobs"], atol=1e-4)
    metrics = learner.update(sequences, step=0, lr_scale=1.0)
    assert 0 < metrics["drift_mean"] <= metrics["drift_max"] < 1e-4
    assert metrics["clip_fraction"] == 0
    assert abs(metrics["approx_kl"]) < 1e-6
    stale = learner.update(sequences, step=1, lr_scale=1.0)  # the weights have moved on: the metric must say so
    assert stale["drift_mean"] > 1e-3


def test_metrics_are_means_over_tokens():
    policy = as_policy(build("llama"))
    sequences = batch(policy)
    learner = Learner(policy, recipe(loss={"kl": 0.3}, train={"micro_batch_tokens": 60}))
    differences = np.concatenate([s.columns["old_logprobs"] - new for s, new in zip(sequences, learner.logprobs(sequences), strict=True)])
    to_reference = np.concatenate([s.columns["ref_logprobs"] - new for s, new in zip(sequences, learner.logprobs(sequences), strict=True)])
    metrics = learner.update(sequences, step=0, lr_scale=1.0)
    assert metrics["approx_kl"] == pytest.approx((np.exp(-differences) - 1 + differences).mean(), rel=1e-3)
    assert metrics["kl"] == pytest.approx((np.exp(to_reference) - 1 - to_reference).mean(), rel=1e-3)
    entropies = [torch.distributions.Categorical(logits=reference_logits(build("llama"), s.token_ids)[s.actions - 1]).entropy() for s in sequences]
    assert metrics["entropy"] == pytest.approx(float(torch.cat(entropies).mean()), rel=1e-4)


def test_importance_weights():
    """With a cap they scale each token's policy gradient by min(old / sampler, cap); without, the column plays no role."""
    model = build("llama")
    sequences = batch(as_policy(model))
    off, on = (Learner(as_policy(model), recipe(loss={"importance_cap": cap})) for cap in (0.0, 1.1))
    weighted, plain = gradients(on, sequences), gradients(off, sequences)
    for s in sequences:
        s.columns["advantages"] *= np.minimum(np.exp(s.columns["old_logprobs"] - s.columns["sampler_logprobs"]), 1.1)
    assert_same_gradients(weighted, gradients(off, sequences))
    with pytest.raises(AssertionError):
        assert_same_gradients(weighted, plain)


def groups_of(transcripts: list[Transcript]) -> list[Group]:
    """Groups of two dialogues around finished transcripts; wrong attempts, the last one right in every other dialogue."""
    groups = []
    for first in range(0, len(transcripts) - 1, 2):
        problem, rollouts = Problem(f"p{first}", "?", "7"), []
        for index in (0, 1):
            transcript = transcripts[first + index]
            edges = np.flatnonzero(np.diff([0, *transcript.sampled, 0])).reshape(-1, 2)
            kinds = [VerdictKind.WRONG] * (len(edges) - 1) + [VerdictKind.CORRECT if index else VerdictKind.WRONG]
            attempts = tuple(Attempt(t, int(a), int(b), "", StopReason.ANSWER, Verdict(k, "7")) for t, ((a, b), k) in enumerate(zip(edges, kinds, strict=True), 1))
            rewards = (0.0,) * (len(edges) - 1) + (1.0 if index else -0.5,)
            rollouts.append(Rollout(problem, transcript, attempts, 3, rewards, 0, index))
        groups.append(Group(problem, tuple(rollouts)))
    return groups


@pytest.mark.parametrize(("top_p", "cap"), [(1.0, 0.0), (0.6, 0.0), (1.0, 2.0)])
def test_experience_recomputes_old_logprobs_where_the_sampler_drew_otherwise(top_p, cap):
    policy = as_policy(build("llama"))
    config = recipe(sampling={"temperature": 0.8, "top_p": top_p}, loss={"importance_cap": cap, "kl": 0.1})
    learner = Learner(policy, config)
    transcripts = sampled(policy, SamplingParams(0.8, top_p), count=6)
    experience = make_experience(groups_of(transcripts), learner, config)
    assert len(experience.sequences) == 6
    for s, transcript in zip(experience.sequences, transcripts, strict=True):
        drawn = np.asarray(transcript.logprobs, dtype=np.float32)[s.actions]
        np.testing.assert_array_equal(s.columns["sampler_logprobs"], drawn)
        np.testing.assert_allclose(s.columns["ref_logprobs"], learner.logprobs([s])[0], atol=1e-5)
        np.testing.assert_allclose(s.columns["old_logprobs"], learner.logprobs([s])[0], atol=1e-4)
        assert (np.abs(s.columns["old_logprobs"] - drawn).max() > 1e-2) == (top_p < 1)
        assert np.array_equal(s.columns["old_logprobs"], drawn) == (top_p == 1 and cap == 0)
    assert experience.metrics["kl_to_reference"] == pytest.approx(0, abs=1e-4)


# ------------------------------------------------------------------------------------------------------------- the update


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    parts = {"policy": learner.policy.model} | ({"critic": learner.critic} if learner.critic is not None else {})
    return {f"{part}.{name}": p.detach().clone() for part, module in parts.items() for name, p in module.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Which parts have weights that differ in any bit."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite(value, caplog):
    policy = as_policy(build("llama"))
    learner = Learner(policy, recipe(advantage={"name": "gae"}, train={"micro_batch_tokens": 60}))
    sequences = batch(policy)
    good = learner.update(sequences, step=0, lr_scale=1.0)
    before, state = weights_of(learner), learner.optimizers["policy"].state_dict()["parts"][0]["state"][0]["step"].item()
    right, sequences[2].columns["advantages"][1] = sequences[2].columns["advantages"][1], value
    with caplog.at_level(logging.WARNING):
        bad = learner.update(sequences, step=7, lr_scale=1.0)
    assert changed(before, weights_of(learner)) == set()
    assert learner.optimizers["policy"].state_dict()["parts"][0]["state"][0]["step"].item() == state
    assert (good["skipped_updates"], bad["skipped_updates"]) == (0, 1)
    assert "step 7: the gradient is not finite: no update" in caplog.text
    sequences[2].columns["advantages"][1] = right
    assert learner.update(sequences, step=8, lr_scale=1.0)["skipped_updates"] == 1
    assert changed(before, weights_of(learner)) == {"policy", "critic"}
    assert all(torch.isfinite(w).all() for w in weights_of(learner).values())


def test_an_update_on_nothing():
    """No dialogue is trainable, or none carries gradient: nothing changes, nothing breaks."""
    policy = as_policy(build("llama"))
    learner = Learner(policy, recipe(optimizer={"lr": 1e-2, "weight_decay": 0.1}))
    before, sequences = weights_of(learner), on_policy(sampled(policy), advantage=0.0)
    for given in ([], sequences):
        metrics = learner.update(given, step=0, lr_scale=1.0)
        assert changed(before, weights_of(learner)) == set()
        assert metrics["sequences_without_gradient"] == len(given)
        assert all(np.isfinite(v) for v in metrics.values())


def test_minibatches_epochs_rate_and_clipping():
    model = build("llama")
    for minibatches, epochs in ((1, 1), (3, 2)):
        policy = as_policy(model)
        learner = Learner(policy, recipe(train={"minibatches": minibatches, "epochs": epochs}))
        assert learner.update(batch(policy), step=0, lr_scale=1.0)["optimizer_steps"] == minibatches * epochs == policy.version
    learner = Learner(as_policy(model), recipe())
    before = weights_of(learner)
    learner.update(batch(learner.policy), step=0, lr_scale=0.0)
    assert changed(before, weights_of(learner)) == set()

    learner = Learner(as_policy(model), recipe(optimizer={"lr": 1e-2, "grad_clip": 1e-3}))
    norms = []
    learner.optimizers["policy"].step = lambda: norms.append(float(torch.stack([p.grad.norm() for p in learner.policy.model.parameters()]).norm()))  # type: ignore[method-assign]
    metrics = learner.update(batch(learner.policy), step=0, lr_scale=1.0)
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert metrics["grad_norm"] > 0.01  # as it was before it was clipped


def test_the_reference_is_frozen():
    policy = as_policy(build("qwen2"))
    learner = Learner(policy, recipe(loss={"kl": 0.1}))
    sequences = batch(policy)
    before = learner.logprobs(sequences, reference=True)
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(learner.logprobs(sequences)))
    for step in range(2):
        learner.update(sequences, step=step, lr_scale=1.0)
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(learner.logprobs(sequences, reference=True)))
    assert np.abs(np.concatenate(before) - np.concatenate(learner.logprobs(sequences))).max() > 1e-2
    assert not any(p.requires_grad for p in learner.reference.model.parameters())
    assert Learner(policy, recipe()).reference is None
    assert Learner(policy, recipe(loss={"kl": 0.1}), reference=False).reference is None


@pytest.mark.parametrize("kind", ["head", "separate"])
def test_critic_warmup(kind):
    """For the first steps only the critic learns; its values start at zero and move towards the returns."""
    policy = as_policy(build("llama"))
    learner = Learner(policy, recipe(advantage={"name": "gae"}, critic={"kind": kind, "warmup_steps": 3}))
    sequences = batch(policy)
    for s in sequences:
        s.columns["returns"][:], s.columns["old_values"][:] = 1.0, 1.0
    assert [len(v) for v in learner.values(sequences)] == [s.num_actions for s in sequences]
    assert not np.concatenate(learner.values(sequences)).any()
    start = weights_of(learner)
    for step in range(3):
        learner.update(sequences, step=step, lr_scale=1.0)
        assert changed(start, weights_of(learner)) == {"critic"}
    assert np.concatenate(learner.values(sequences)).mean() > 0.02
    learner.update(sequences, step=3, lr_scale=1.0)
    assert changed(start, weights_of(learner)) == {"critic", "policy"}


def test_values_stand_before_their_action():
    """The value of an action is read where its logits are: it must not see the action."""
    policy = as_policy(build("llama"))
    sequences = batch(policy)
    for kind in ("head", "separate"):
        learner = some_values(Learner(policy, recipe(advantage={"name": "gae"}, critic={"kind": kind})))
        s = sequences[4]
        other_ids = list(s.token_ids)
        other_ids[s.actions[2]] = (other_ids[s.actions[2]] + 1) % 61
        one, other = learner.values([s, TrainSequence(other_ids, s.actions, s.columns)])
        np.testing.assert_allclose(one[:3], other[:3], atol=1e-5)
        assert abs(one[3] - other[3]) > 1e-3


RESUMED = [
    ("qwen2", "adamw", {}),  # tied embeddings
    ("qwen2", "muon", {"loss": {"kl": 0.1}}),
    ("gpt2", "muon", {"advantage": {"name": "gae"}, "critic": {"kind": "separate"}}),
    ("gemma", "adamw", {"advantage": {"name": "gae"}, "critic": {"kind": "head"}, "loss": {"kl": 0.1}}),
]


@pytest.mark.parametrize(("name", "optimizer", "sections"), RESUMED, ids=lambda value: value if isinstance(value, str) else "+".join(value))
def test_resuming_continues_to_the_bit(name, optimizer, sections, tmp_path):
    """Two updates = one, a checkpoint on the disk, a new process's learner (here with other weights to begin with), and one."""
    config = recipe(optimizer={"name": optimizer, "lr": 1e-2, "muon_lr": 1e-2, "weight_decay": 0.01}, **sections)
    policy = as_policy(build(name))
    sequences = batch(policy)
    straight = Learner(policy, config)
    straight.update(sequences, step=0, lr_scale=0.5)
    path = checkpoint.save(tmp_path, 1, {"learner": straight.state_dict()}, keep=1)
    after_one = weights_of(straight)
    metrics = straight.update(sequences, step=1, lr_scale=1.0)

    resumed = Learner(as_policy(build(name, seed=9)), config)
    resumed.load_state_dict(checkpoint.load(path)["learner"])
    assert resumed.policy.version == 1
    assert changed(after_one, weights_of(resumed)) == set()
    assert resumed.update(sequences, step=1, lr_scale=1.0) == metrics
    assert changed(weights_of(straight), weights_of(resumed)) == set()
    assert changed(after_one, weights_of(resumed)) == ({"policy", "critic"} if straight.critic is not None else {"policy"})
    if straight.reference is not None:
        for one, other in zip(straight.logprobs(sequences, reference=True), resumed.logprobs(sequences, reference=True), strict=True):
            np.testing.assert_array_equal(one, other)


def test_imitation():
    """The warm-up's gradient is that of the cross-entropy per action token; feedback and prompt are not learned."""
    model = build("llama", "sdpa")
    policy = as_policy(model)
    sequences = [TrainSequence.of(t) for t in sampled(policy)]
    learner = Learner(policy, recipe(train={"micro_batch_tokens": 60}))
    optimizer = make_optimizer(policy.model.named_parameters(), recipe(warmup={"optimizer": {"lr": 1e-2}}).warmup.optimizer)
    found = {}
    step, optimizer.step = optimizer.step, lambda: found.update({n: p.grad.clone() for n, p in policy.model.named_parameters()})  # type: ignore[method-assign]
    first = learner.imitate(sequences, optimizer, step=0, lr_scale=1.0)
    logits = torch.cat([model(torch.tensor([list(s.token_ids)])).logits[0][s.actions - 1] for s in sequences])
    loss = cross_entropy(logits, torch.tensor([s.token_ids[i] for s in sequences for i in s.actions]))
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert first["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert_same_gradients({n: p.grad / norm.clamp(min=1) for n, p in model.named_parameters()}, found)  # clipped to 1
    optimizer.step = step  # type: ignore[method-assign]
    losses = [learner.imitate(sequences, optimizer, step=i, lr_scale=1.0)["loss"] for i in range(20)]
    assert losses[-1] < 0.5 * first["loss"]
