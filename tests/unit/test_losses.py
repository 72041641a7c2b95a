"""Losses: literal numbers for values and gradients, properties of the KL estimators, and weights that do not see the cut."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.learning.losses import importance_weights, kl_T, loss_weights, policy_loss, value_loss

INF = math.inf


def logs(*ratios: float) -> torch.Tensor:
    return torch.tensor(ratios).log()


def grad_of(terms: torch.Tensor, leaf: torch.Tensor) -> list[float]:
    return torch.autograd.grad(terms.sum(), leaf)[0].tolist()


# -------------------------------------------------------------------------------------------------------------- policy loss


def test_policy_loss_literal():
    """Ratios .5, .9, 1, 1.1, 1.5 under a gain and under a loss; clip 0.2 below and 0.3 above."""
    ratios = [0.5, 0.9, 1.0, 1.1, 1.5]
    logprobs = logs(*ratios, *ratios).requires_grad_()
    advantages = torch.tensor([2.0] * 5 + [-2.0] * 5)
    loss, clipped = policy_loss(logprobs, torch.zeros(10), advantages, clip_low=0.2, clip_high=0.3)
    torch.testing.assert_close(loss, -torch.tensor([1.0, 1.8, 2.0, 2.2, 2.6, -1.6, -1.8, -2.0, -2.2, -3.0]))
    assert clipped.tolist() == [False, False, False, False, True, True, False, False, False, False]
    # d loss / d logprob = - ratio * advantage where not clipped, else 0
    assert grad_of(loss, logprobs) == pytest.approx([-1.0, -1.8, -2.0, -2.2, 0.0, 0.0, 1.8, 2.0, 2.2, 3.0])


def test_each_clip_bound_acts_on_its_own_side():
    logprobs, old, advantages = logs(0.7, 1.3), torch.zeros(2), torch.tensor([-1.0, 1.0])
    losses = {(low, high): policy_loss(logprobs, old, advantages, clip_low=low, clip_high=high)[0].tolist() for low in (0.2, 0.4) for high in (0.2, 0.4)}
    assert losses[0.2, 0.2] == pytest.approx([0.8, -1.2])
    assert losses[0.4, 0.2] == pytest.approx([0.7, -1.2])
    assert losses[0.2, 0.4] == pytest.approx([0.8, -1.3])


def test_policy_gradient_on_policy_is_reinforce():
    logprobs = torch.tensor([-0.1, -2.0, -5.0], requires_grad=True)
    loss, clipped = policy_loss(logprobs, logprobs.detach(), torch.tensor([1.0, -3.0, 0.0]), clip_low=0.0, clip_high=0.0)
    assert not clipped.any()
    assert loss.tolist() == [-1.0, 3.0, 0.0]


# ----------------------------------------------------------------------------------------------------------------------- kl


@pytest.mark.parametrize(
    ("estimator", "values", "grads"),
    [
        ("k1", [math.log(2), 0.0, -math.log(2)], [1.0, 1.0, 1.0]),
        ("k2", [math.log(2) ** 2 / 2, 0.0, math.log(2) ** 2 / 2], [math.log(2), 0.0, -math.log(2)]),
        ("k3", [0.5 - 1 + math.log(2), 0.0, 2 - 1 - math.log(2)], [0.5, 0.0, -1.0]),
    ],
)
def test_kl_literal(estimator, values, grads):
    logprobs = logs(0.5, 0.25, 0.125).requires_grad_()
    terms = kl_T(logprobs, logs(0.25, 0.25, 0.25), estimator)
    assert terms.tolist() == pytest.approx(values, abs=1e-6)
    assert grad_of(terms, logprobs) == pytest.approx(grads, abs=1e-6)


def test_k3_keeps_its_small_values():
    """exp(-d) - 1 + d cancels: at d = 1e-3 the plain form is off by a tenth in float32, and can be negative."""
    assert kl_T(torch.tensor([1e-3]), torch.tensor([0.0]), "k3").item() == pytest.approx(5e-7, rel=2e-2)


def test_what_each_estimator_and_its_gradient_expect():
    """Exact expectations over four tokens: k1 and k3 are unbiased; the gradients are those that the docstring says."""
    torch.manual_seed(0)
    logits = torch.randn(4, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(4, dtype=torch.float64).log_softmax(0)
    policy = logits.log_softmax(0)
    drawn = policy.exp().detach()
    forward = (policy.exp() * (policy - reference)).sum()
    backward = (reference.exp() * (reference - policy)).sum()
    expected = {k: (drawn * kl_T(policy, reference, k)).sum() for k in ("k1", "k2", "k3")}
    torch.testing.assert_close(expected["k1"], forward)
    torch.testing.assert_close(expected["k3"], forward)
    assert abs(expected["k2"] - forward) > 1e-2
    grads = {k: torch.autograd.grad(v, logits, retain_graph=True)[0] for k, v in expected.items()}
    torch.testing.assert_close(grads["k1"], torch.zeros_like(logits))
    torch.testing.assert_close(grads["k2"], torch.autograd.grad(forward, logits, retain_graph=True)[0])
    torch.testing.assert_close(grads["k3"], torch.autograd.grad(backward, logits)[0])


# -------------------------------------------------------------------------------------------------------------------- value


def test_value_loss_literal():
    values = torch.tensor([1.0, 1.0, 0.1, 1.0], requires_grad=True)
    old, returns = torch.tensor([0.0, 0.0, 0.0, 2.0]), torch.tensor([0.0, 2.0, 1.0, 1.0])
    plain = value_loss(values, old, returns, 0.0)
    assert plain.tolist() == pytest.approx([0.5, 0.5, 0.405, 0.0])
    clipped = value_loss(values, old, returns, 0.2)
    # clipped predictions .2, .2, .1, 1.8: errors max(1, .04), max(1, 3.24), .81, max(0, .64)
    assert clipped.tolist() == pytest.approx([0.5, 1.62, 0.405, 0.32])
    assert grad_of(plain, values) == pytest.approx([1.0, -1.0, -0.9, 0.0])
    assert grad_of(clipped, values) == pytest.approx([1.0, 0.0, -0.9, 0.0])


# ------------------------------------------------------------------------------------------------------- importance weights


def test_importance_weights_literal():
    old = logs(0.5, 0.5, 0.5, 0.1).requires_grad_()
    weights = importance_weights(old, logs(0.5, 0.25, 0.1, 0.4), 2.5)
    assert weights.tolist() == pytest.approx([1.0, 2.0, 2.5, 0.25])
    assert not weights.requires_grad
    assert importance_weights(old, logs(0.5, 0.25, 0.1, 0.4), 0.0).tolist() == [1.0] * 4


# ------------------------------------------------------------------------------------------------------------------ weights


def test_loss_weights_literal():
    common = {"total_tokens": 8, "total_dialogues": 4, "max_tokens": 10}
    assert loss_weights([1, 3], "token", **common).tolist() == [0.125] * 4
    assert loss_weights([1, 3], "sequence", **common).tolist() == pytest.approx([1 / 4, 1 / 12, 1 / 12, 1 / 12])
    assert loss_weights([1, 3], "constant", **common).tolist() == pytest.approx([1 / 40] * 4)
    assert loss_weights([], "sequence", **common).shape == (0,)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.lists(st.integers(0, 12), max_size=4), st.sampled_from(["token", "sequence", "constant"]))
def test_loss_does_not_depend_on_how_the_batch_is_cut(lengths, cuts, mode):
    """The loss of the whole step, in one pass or in any micro-batches, equals the mean that the mode's name says."""
    terms = torch.randn(sum(lengths), generator=torch.Generator().manual_seed(len(lengths)))
    totals = {"total_tokens": sum(lengths), "total_dialogues": len(lengths), "max_tokens": 9}
    bounds = sorted({0, len(lengths), *[min(c, len(lengths)) for c in cuts]})
    loss, start = 0.0, 0
    for low, high in itertools.pairwise(bounds):
        weights = loss_weights(lengths[low:high], mode, **totals)
        loss += float((terms[start : start + len(weights)] * weights).sum())
        start += len(weights)
    assert start == sum(lengths)
    parts = terms.split(lengths)
    expected = {
        "token": terms.sum() / max(sum(lengths), 1),
        "sequence": sum((p.mean() if len(p) else torch.tensor(0.0)) for p in parts) / len(parts),
        "constant": terms.sum() / (len(parts) * 9),
    }[mode]
    assert loss == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("mode", "change", "message"),
    [
        ("token", {"total_tokens": 3}, r"4 tokens in 2 dialogues is more than the step's 3 tokens"),
        ("sequence", {"total_dialogues": 1}, r"pass the totals of the whole step"),
        ("constant", {"max_tokens": 0}, r"max_tokens = 0 cannot stand for a length"),
    ],
)
def test_loss_weights_refuse(mode, change, message):
    with pytest.raises(ValueError, match=message):
        loss_weights([1, 3], mode, **{"total_tokens": 4, "total_dialogues": 2, "max_tokens": 10} | change)
