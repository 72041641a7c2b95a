"""Optimizer (which parameter goes where, what one step does, state) and learning-rate schedule: literal numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mulligan.config import OptimizerConfig
from mulligan.learning.optimizer import is_hidden_matrix, make_optimizer
from mulligan.learning.schedule import learning_rate


class Decoder(nn.Module):
    """The parameter names and shapes of a Hugging Face decoder with a value head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(5, 4), "layers": nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 4)]), "norm": nn.LayerNorm(4)})
        self.lm_head = nn.Linear(4, 5, bias=False)
        self.value_head = nn.Linear(4, 1)

    def forward(self, ids):
        hidden = self.model["embed_tokens"](ids)
        for layer in self.model["layers"]:
            hidden = torch.tanh(layer(hidden))
        hidden = self.model["norm"](hidden)
        return self.lm_head(hidden).square().mean() + self.value_head(hidden).square().mean()


def backward(model: nn.Module) -> None:
    model(torch.tensor([0, 1, 2, 3, 4])).backward()


@pytest.mark.parametrize(
    ("name", "shape", "hidden"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (4, 4), True),
        ("transformer.h.3.mlp.c_fc.weight", (4, 16), True),
        ("model.layers.0.mlp.experts.0.gate_proj.weight", (4, 4), True),
        ("model.layers.0.self_attn.q_proj.bias", (4,), False),
        ("model.layers.0.input_layernorm.weight", (4,), False),
        ("model.layers.0.conv.weight", (4, 1, 3), False),
        ("model.embed_tokens.weight", (9, 4), False),
        ("gpt_neox.embed_in.weight", (9, 4), False),
        ("transformer.wte.weight", (9, 4), False),
        ("transformer.wpe.weight", (9, 4), False),
        ("lm_head.weight", (9, 4), False),
        ("value_head.weight", (1, 4), False),
        ("critic.value_head.0.weight", (4, 4), False),
        ("v_head.summary.weight", (1, 4), False),
        ("score.weight", (1, 4), False),
        ("model.layers.0.headwise_gate.weight", (4, 4), True),
    ],
)
def test_which_parameters_are_hidden_matrices(name, shape, hidden):
    assert is_hidden_matrix(name, nn.Parameter(torch.zeros(shape))) is hidden


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    model = Decoder()
    optimizer = make_optimizer(model.named_parameters(), OptimizerConfig(name="muon", lr=1e-3, muon_lr=2e-2, weight_decay=0.1))
    names = {id(p): n for n, p in model.named_parameters()}
    muon, decayed, plain = [({names[id(p)] for p in g["params"]}, g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert [type(part) for part in optimizer.parts] == [torch.optim.Muon, torch.optim.AdamW]
    assert muon == ({"model.layers.0.weight", "model.layers.1.weight"}, 2e-2, 0.1)
    assert decayed == ({"model.embed_tokens.weight", "lm_head.weight", "value_head.weight"}, 1e-3, 0.1)
    assert plain == ({"model.layers.0.bias", "model.layers.1.bias", "model.norm.weight", "model.norm.bias", "value_head.bias"}, 1e-3, 0.0)


def test_adamw_takes_everything_and_decays_no_vector():
    model = Decoder()
    model.lm_head.requires_grad_(False)
    optimizer = make_optimizer(model.named_parameters(), OptimizerConfig(name="adamw", lr=3e-4, weight_decay=0.2, betas=(0.8, 0.9), eps=1e-6))
    assert [type(part) for part in optimizer.parts] == [torch.optim.AdamW]
    matrices, vectors = optimizer.param_groups
    assert {p.ndim for p in matrices["params"]} == {2}
    assert matrices["weight_decay"] == 0.2
    assert len(matrices["params"]) == 4
    assert {p.ndim for p in vectors["params"]} == {1}
    assert vectors["weight_decay"] == 0.0
    assert len(vectors["params"]) == 5
    assert matrices["betas"] == (0.8, 0.9)
    assert matrices["eps"] == 1e-6
    assert matrices["lr"] == 3e-4


def test_adamw_first_step_is_the_sign_of_the_gradient():
    weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    optimizer = make_optimizer([("w", weight)], OptimizerConfig(lr=0.1, weight_decay=0.5))
    weight.grad = torch.tensor([[3.0, -0.01]])
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.tensor([[1.0 * (1 - 0.05) - 0.1, 2.0 * (1 - 0.05) + 0.1]]))


@pytest.mark.parametrize("shape", [(6, 6), (24, 6), (6, 24)])
def test_muon_step_is_orthogonal_and_scaled_by_shape(shape):
    """One step moves by lr * sqrt(max(1, rows / columns)) along a near-orthogonal matrix: singular values in Newton-Schulz' band."""
    torch.manual_seed(1)
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = make_optimizer([("layers.0.weight", weight)], OptimizerConfig(name="muon", muon_lr=0.1))
    weight.grad = torch.randn(shape) * 1e-4
    optimizer.step()
    singular = torch.linalg.svdvals(-weight.data) / (0.1 * math.sqrt(max(1.0, shape[0] / shape[1])))
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    left, _, right = torch.linalg.svd(weight.grad, full_matrices=False)
    assert nn.functional.cosine_similarity(-weight.data.flatten(), (left @ right).flatten(), dim=0) > 0.95


def reference_muon(weight, grads, lr, decay):
    """Jordan's published algorithm in float64: momentum buffer, Nesterov, quintic Newton-Schulz."""
    buffer = torch.zeros_like(weight)
    for grad in grads:
        buffer = 0.95 * buffer + 0.05 * grad
        x = 0.05 * grad + 0.95 * buffer
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        x = x.T if tall else x
        weight = weight * (1 - lr * decay) - lr * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5 * x
    return weight


def test_muon_matches_the_published_algorithm():
    torch.manual_seed(2)
    start, grads = torch.randn(8, 4), [torch.randn(8, 4) for _ in range(4)]
    weight = nn.Parameter(start.clone())
    optimizer = make_optimizer([("layers.0.weight", weight)], OptimizerConfig(name="muon", muon_lr=0.05, weight_decay=0.1))
    for grad in grads:
        weight.grad = grad
        optimizer.step()
    # torch runs Newton-Schulz in bfloat16: 0.003 apart here. Plain momentum would be 0.04 apart, momentum 0.9 0.02, no decay 0.05.
    expected = reference_muon(start.double(), [g.double() for g in grads], 0.05, 0.1)
    torch.testing.assert_close(weight.data.double(), expected, atol=5e-3, rtol=0.0)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_dict_continues_the_same_run(name, tmp_path):
    config = OptimizerConfig(name=name, lr=1e-2, muon_lr=2e-2, weight_decay=0.01)
    model, other = Decoder(), Decoder()
    optimizer, resumed = make_optimizer(model.named_parameters(), config), make_optimizer(other.named_parameters(), config)
    for _ in range(2):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for net, opt in ((model, optimizer), (other, resumed)):
        opt.zero_grad()
        backward(net)
        opt.scale_lr(0.5)
        opt.step()
    for (parameter_name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), parameter_name
    assert [g["lr"] for g in resumed.param_groups] == [0.5 * g["initial_lr"] for g in optimizer.param_groups]


def test_state_of_another_optimizer_is_refused():
    model = Decoder()
    muon = make_optimizer(model.named_parameters(), OptimizerConfig(name="muon"))
    with pytest.raises(ValueError, match=r"resume with the same optimizer\.name"):
        muon.load_state_dict(make_optimizer(model.named_parameters(), OptimizerConfig(name="adamw")).state_dict())


def test_zero_grad_and_scale_lr():
    model = Decoder()
    optimizer = make_optimizer(model.named_parameters(), OptimizerConfig(name="muon", lr=1e-3, muon_lr=2e-2))
    backward(model)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    optimizer.scale_lr(0.1)
    optimizer.scale_lr(0.25)  # of the peak, not of the last
    assert [g["lr"] for g in optimizer.param_groups] == [5e-3, 2.5e-4, 2.5e-4]


# ------------------------------------------------------------------------------------------------------------------- schedule


def rates(total: int, **config) -> list[float]:
    return [round(learning_rate(step / total, OptimizerConfig(**config), total), 6) for step in range(total)]


def test_constant_after_warmup_in_steps():
    assert rates(8, warmup=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_warmup_as_a_share_of_the_run():
    assert rates(8, warmup=0.25) == [0.5, 1, 1, 1, 1, 1, 1, 1]
    assert rates(8, warmup=0) == [1] * 8
    assert rates(4, warmup=0.03) == [1] * 4


def test_linear_decay_over_the_whole_run_and_to_a_share():
    assert rates(4, warmup=0, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert rates(4, warmup=0, schedule="linear", final=0.2) == [1, 0.8, 0.6, 0.4]
    assert learning_rate(1.0, OptimizerConfig(warmup=0, schedule="linear", final=0.2), 4) == pytest.approx(0.2)


def test_decay_over_the_last_share():
    assert rates(10, warmup=2, schedule="linear", decay=0.4) == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert rates(4, warmup=0, schedule="linear", decay=0.0) == [1, 1, 1, 1]


def test_full_decay_starts_where_the_warmup_ends():
    assert rates(6, warmup=2, schedule="linear", decay=1.0) == [0.5, 1, 1, 0.75, 0.5, 0.25]


def test_cosine_to_a_tenth():
    at = [learning_rate(p, OptimizerConfig(warmup=0, schedule="cosine", final=0.1), 100) for p in (0.0, 0.25, 0.5, 1.0)]
    assert at == pytest.approx([1.0, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55, 0.1])


def test_the_end_and_beyond():
    config = OptimizerConfig(warmup=0, schedule="cosine", final=0.1)
    assert learning_rate(1.3, config, 10) == pytest.approx(0.1)  # a token-measured run may overshoot
    assert learning_rate(0.9, OptimizerConfig(warmup=50), 10) == pytest.approx(10 / 50)  # a warm-up longer than the run
    assert learning_rate(1.0, OptimizerConfig(warmup=10, schedule="linear"), 10) == 1.0  # no room left for a decay
