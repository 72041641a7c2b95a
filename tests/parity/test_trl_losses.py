"""Our losses, weights and group advantages against TRL's own code (`GRPOTrainer._compute_loss`), on the same tensors.

TRL's method runs on a trainer without a model: everything that it reads is set by hand, and the log-probs and entropies that it
would compute are the leaves of the test. Completions are multi-turn: their masks have zeros (feedback, padding) inside.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mulligan.learning.advantages import grpo
from mulligan.learning.losses import importance_weights, kl_T, loss_weights, policy_loss

pytest.importorskip("trl", reason="TRL is a development dependency: install mulligan[dev]")
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import nanstd

MASK = torch.tensor(
    [
        [1, 1, 1, 0, 0, 1, 1, 0, 0, 0],  # two attempts, padding
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # one token
        [1, 1, 1, 1, 0, 1, 1, 0, 1, 1],  # three attempts
        [0, 1, 1, 0, 1, 1, 1, 0, 0, 0],
    ]
)
LENGTHS = MASK.sum(1).tolist()
MAX_TOKENS = 16
COUNTS = {"total_tokens": sum(LENGTHS), "total_dialogues": len(LENGTHS), "max_tokens": MAX_TOKENS}
MEANS = {"grpo": "sequence", "bnpo": "token", "dapo": "token", "dr_grpo": "constant"}


class Accelerator:
    """One process: gathering and reducing change nothing."""

    num_processes = 1
    sync_gradients = True

    def reduce(self, tensor, reduction="sum"):
        return tensor

    def gather(self, tensor):
        return tensor


def trl_loss(leaves, inputs, *, loss_type, beta, low, high, use_importance=False, entropy_coef=0.0):
    """The loss by TRL's own `_compute_loss`."""
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__ |= {
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": beta,
        "loss_type": loss_type,
        "epsilon_low": low,
        "epsilon_high": high,
        "use_vllm": use_importance,
        "vllm_importance_sampling_correction": use_importance,
        "max_completion_length": MAX_TOKENS,
        "current_gradient_accumulation_steps": 1,
        "use_adaptive_entropy": False,
        "entropy_coef": entropy_coef,
        "_entropy_bonus_enabled": entropy_coef != 0.0,
        "_metrics": {"train": defaultdict(list)},
        "accelerator": Accelerator(),
        "model": SimpleNamespace(training=True),
        "args": SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        "_get_per_token_logps_and_entropies": lambda *args, **kwargs: (leaves["logprobs"], leaves["entropies"], None),
    }
    size = MASK.shape
    batch = {
        "prompt_ids": torch.zeros(size[0], 3, dtype=torch.long),
        "prompt_mask": torch.ones(size[0], 3, dtype=torch.long),
        "completion_ids": torch.zeros(size, dtype=torch.long),
        "completion_mask": torch.ones_like(MASK),
        "tool_mask": MASK,
        "num_items_in_batch": MASK.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, trainer.model, batch | inputs), trainer._metrics["train"]


@pytest.fixture
def tensors():
    """Padded (B, T) tensors; masked positions hold large rubbish, which must not matter."""
    torch.manual_seed(0)
    rubbish = torch.where(MASK.bool(), 0.0, 30.0)
    logprobs = -torch.rand(MASK.shape) * 3
    near = {name: logprobs + 0.3 * torch.randn(MASK.shape) + rubbish for name in ("old", "ref", "sampler")}
    return near | {"logprobs": logprobs + rubbish, "advantages": torch.randn(len(LENGTHS), 1).expand(MASK.shape), "entropies": torch.rand(MASK.shape) + rubbish}


def flat(padded: torch.Tensor) -> torch.Tensor:
    return padded[MASK.bool()]


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().requires_grad_()


def assert_same(ours, theirs, our_leaf, their_leaf):
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    (our_grad,), (their_grad,) = torch.autograd.grad(ours, our_leaf), torch.autograd.grad(theirs, their_leaf)
    torch.testing.assert_close(our_grad, flat(their_grad), atol=1e-6, rtol=1e-6)
    assert our_grad.abs().max() > 1e-3
    assert not their_grad[~MASK.bool()].any()


@pytest.mark.parametrize("per_token", [False, True], ids=["advantage-per-dialogue", "advantage-per-token"])
@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.1, 0.4)])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("loss_type", list(MEANS))
def test_policy_loss_kl_and_weights(tensors, loss_type, beta, clip, per_token):
    advantages = torch.randn(MASK.shape, generator=torch.Generator().manual_seed(1)) if per_token else tensors["advantages"]
    theirs_leaf = leaf(tensors["logprobs"])
    inputs = {"advantages": advantages if per_token else advantages[:, 0], "old_per_token_logps": tensors["old"], "ref_per_token_logps": tensors["ref"]}
    theirs, metrics = trl_loss({"logprobs": theirs_leaf, "entropies": tensors["entropies"]}, inputs, loss_type=loss_type, beta=beta, low=clip[0], high=clip[1])

    ours_leaf = leaf(flat(tensors["logprobs"]))
    terms, clipped = policy_loss(ours_leaf, flat(tensors["old"]), flat(advantages), clip_low=clip[0], clip_high=clip[1])
    terms = terms + beta * kl_T(ours_leaf, flat(tensors["ref"]), "k3")
    ours = (terms * loss_weights(LENGTHS, MEANS[loss_type], **COUNTS)).sum()

    assert_same(ours, theirs, ours_leaf, theirs_leaf)
    assert clipped.any()
    assert float(clipped.float().mean()) == pytest.approx(metrics["clip_ratio/region_mean"][0])
    if beta:
        assert float(kl_T(flat(tensors["logprobs"]), flat(tensors["ref"]), "k3").mean()) == pytest.approx(metrics["kl"][0], rel=1e-5)


@pytest.mark.parametrize("loss_type", list(MEANS))
def test_truncated_importance_weights(tensors, loss_type):
    cap = 1.2
    theirs_leaf = leaf(tensors["logprobs"])
    ratios = torch.exp((tensors["old"] - tensors["sampler"]) * MASK).clamp(max=cap)  # as TRL's mode "token_truncate" has it
    inputs = {"advantages": tensors["advantages"][:, 0], "old_per_token_logps": tensors["old"], "ref_per_token_logps": tensors["ref"], "importance_sampling_ratio": ratios}
    leaves = {"logprobs": theirs_leaf, "entropies": tensors["entropies"]}
    theirs, _ = trl_loss(leaves, inputs, loss_type=loss_type, beta=0.04, low=0.2, high=0.2, use_importance=True)

    ours_leaf = leaf(flat(tensors["logprobs"]))
    weights = importance_weights(flat(tensors["old"]), flat(tensors["sampler"]), cap)
    assert (weights == cap).any()
    assert (weights < 1).any()
    terms, _ = policy_loss(ours_leaf, flat(tensors["old"]), flat(tensors["advantages"]), clip_low=0.2, clip_high=0.2)
    terms = terms * weights + 0.04 * kl_T(ours_leaf, flat(tensors["ref"]), "k3")
    assert_same((terms * loss_weights(LENGTHS, MEANS[loss_type], **COUNTS)).sum(), theirs, ours_leaf, theirs_leaf)


def test_entropy_bonus_is_the_token_mean(tensors):
    theirs_leaf = leaf(tensors["entropies"])
    inputs = {"advantages": tensors["advantages"][:, 0], "old_per_token_logps": tensors["old"]}
    theirs, _ = trl_loss({"logprobs": tensors["logprobs"], "entropies": theirs_leaf}, inputs, loss_type="dapo", beta=0.0, low=0.2, high=0.2, entropy_coef=0.1)
    ours_leaf = leaf(flat(tensors["entropies"]))
    terms, _ = policy_loss(flat(tensors["logprobs"]), flat(tensors["old"]), flat(tensors["advantages"]), clip_low=0.2, clip_high=0.2)
    assert_same(((terms - 0.1 * ours_leaf) * loss_weights(LENGTHS, "token", **COUNTS)).sum(), theirs, ours_leaf, theirs_leaf)


@pytest.mark.parametrize("rewards", [[1.0, -0.5, -0.5, -1.0], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, -0.5, float("nan"), float("nan")]])
def test_group_advantages(rewards):
    """TRL's lines from rewards to advantages (scale_rewards "group"); an unscorable reward is NaN there and left out here."""
    grouped = torch.tensor([rewards])
    theirs = torch.nan_to_num((grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (nanstd(grouped, dim=1, keepdim=True) + 1e-4), nan=0.0)
    kept = ~np.isnan(rewards)
    ours = np.zeros(len(rewards))
    ours[kept] = grpo(np.array(rewards)[kept])
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-5)
