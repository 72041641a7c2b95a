"""What dialogues have in common at their beginning is packed once, and nothing but the work is less: same log-probs, same gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learner_batches import assert_same_gradients, gradients, recipe, some_values
from small_models import CONFIGS, as_policy, build, random_ids

from mulligan.learning import logits
from mulligan.learning.batch import TrainSequence, pack
from mulligan.learning.learner import Learner

PROMPT, FAILED, FEEDBACK = random_ids(6, 1), random_ids(5, 2), random_ids(3, 3)


def family() -> list[TrainSequence]:
    """A prompt with four answers, three of which begin with the same failed attempt; two of those are equal throughout; and a stranger."""
    long = [PROMPT + FAILED + FEEDBACK + answer for answer in (random_ids(4, 4), random_ids(4, 4), random_ids(7, 5))]
    first = range(len(PROMPT), len(PROMPT) + len(FAILED))
    second = len(PROMPT) + len(FAILED) + len(FEEDBACK)
    found = [(ids, [*first, *range(second, len(ids))]) for ids in long]
    found.append((PROMPT + random_ids(9, 6), list(range(len(PROMPT), len(PROMPT) + 9))))
    found.append((random_ids(5, 7) + random_ids(6, 8), list(range(5, 11))))
    rng = np.random.default_rng(0)
    names = ("advantages", "old_logprobs", "sampler_logprobs", "ref_logprobs", "returns", "old_values")
    return [TrainSequence(ids, np.array(at), {n: rng.normal(size=len(at)).astype(np.float32) for n in names}) for ids, at in found]


def beginnings(sequences: list[TrainSequence]) -> int:
    """Different beginnings of these dialogues: what a tree of them has nodes."""
    return len({tuple(s.token_ids[:n]) for s in sequences for n in range(1, s.length + 1)})


def test_the_common_beginning_is_packed_once():
    sequences = family()
    (batch,) = pack(sequences, 4096)
    assert len(batch.ids_T) == beginnings(sequences) < sum(s.length for s in sequences) - 30
    assert len(batch.index_N) == sum(s.num_actions for s in sequences) > len(batch.index_U)
    for member, ids, positions in zip(batch.members, *([x.split(list(batch.counts)) for x in (batch.targets_N, batch.index_N)]), strict=True):
        s = sequences[member]
        assert ids.tolist() == [s.token_ids[a] for a in s.actions]
        assert batch.layout.position_ids[0, positions].tolist() == (s.actions - 1).tolist()
        assert batch.ids_T[positions].tolist() == [s.token_ids[a - 1] for a in s.actions]


def test_a_micro_batch_counts_the_tokens_that_are_read():
    sequences = family()
    batches = list(pack(sequences, 25))
    assert [len(b.ids_T) for b in batches] == [beginnings([sequences[i] for i in b.members]) for b in batches]
    assert max(len(b.ids_T) for b in batches) <= 25 < sum(sequences[i].length for i in batches[-1].members)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("critic", [None, "head", "separate"])
def test_gradients_are_those_of_dialogues_read_alone(name: str, critic: str | None):
    """Packed with shared beginnings, against one dialogue per pass."""
    loss = {"kl": 0.2, "entropy": 0.1, "importance_cap": 1.5, "clip_low": 3.0, "clip_high": 30.0}
    sections = {"loss": loss} | ({"advantage": {"name": "gae"}, "critic": {"kind": critic}} if critic else {})
    found = []
    for tokens in (4096, 48):
        learner = some_values(Learner(as_policy(build(name)), recipe(train={"micro_batch_tokens": 4096}, sampling={"temperature": 0.8}, **sections)))
        if tokens == 4096:
            found.append(gradients(learner, family()))
            continue
        total: dict[str, torch.Tensor] = {}
        everything, n = family(), sum(s.num_actions for s in family())
        for sequence in everything:  # alone: the step's denominator is put back by hand
            for key, grad in gradients(learner, [sequence]).items():
                total[key] = total.get(key, torch.zeros_like(grad)) + grad * (sequence.num_actions / n)
        found.append(total)
    assert_same_gradients(*found)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("positions", [1, 3, 1000])
def test_gradients_do_not_depend_on_the_chunks_of_the_output_layer(name: str, positions: int, monkeypatch: pytest.MonkeyPatch):
    def once() -> dict[str, torch.Tensor]:
        return gradients(Learner(as_policy(build(name)), recipe(loss={"entropy": 0.1})), family())

    whole = once()
    monkeypatch.setattr(logits, "CHUNK_ELEMENTS", positions * as_policy(build(name)).vocabulary)
    assert_same_gradients(whole, once(), 1e-6)


def test_closed_form_gradient_against_autograd():
    """Of log-probs and entropies, repeated positions and a temperature included; an impossible token carries nothing."""
    values = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[1, 3] = -torch.inf
    rows, targets = torch.tensor([0, 0, 1, 3, 3]), torch.tensor([2, 5, 1, 8, 8])
    weights, pulls = torch.randn(5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    grads = []
    for ours in (True, False):
        z = values.clone().requires_grad_()
        if ours:
            logprobs, entropy = logits._LogprobsAndEntropy.apply(None, z, rows, targets, 0.7)
        else:
            log_p = (z / 0.7).log_softmax(-1)
            finite = log_p.masked_fill(log_p == -torch.inf, 0.0)
            logprobs, entropy = log_p[rows, targets], -(log_p.exp() * finite).sum(-1)
        ((logprobs * weights).sum() + (entropy * pulls).sum()).backward()
        grads.append(torch.cat([z.grad.flatten(), logprobs.detach(), entropy.detach()]))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-6)
