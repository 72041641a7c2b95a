"""Recipes, training batches and gradients for the tests of the learner."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from small_models import Script, play, random_ids

from mulligan.config import Recipe, parse_recipe
from mulligan.learning.batch import TrainSequence
from mulligan.learning.learner import Learner
from mulligan.sampling import SamplingParams
from mulligan.sampling.local import LocalSampler
from mulligan.types import Transcript

MAX_TOKENS = 48


def recipe(**sections: Any) -> Recipe:
    """Small caps, so that a micro-batch may be as small as one dialogue; a critic only where a test asks for `gae`."""
    base: dict[str, Any] = {
        "model": {"path": "tiny:"},
        "problems": {"train": "builtin:guess"},
        "protocol": {"max_attempt_tokens": 12, "max_dialogue_tokens": MAX_TOKENS},
        "optimizer": {"lr": 1e-2, "grad_clip": 0.0},
        "train": {"micro_batch_tokens": 4096},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values if isinstance(values, dict) else values
    return parse_recipe(base)


def sampled(policy, params: SamplingParams | None = None, count: int = 7) -> list[Transcript]:
    """Dialogues of one to three attempts, 8 to 41 tokens, sampled from the policy."""
    scripts = [
        Script(k, [random_ids(4 + k, k), *(random_ids(2 + k % 2, 10 * k + t) for t in range(k % 3))], 4 + k % 6, params or SamplingParams()) for k in range(count)
    ]
    return play(LocalSampler(policy), scripts)


def actions_of(transcript: Transcript) -> np.ndarray:
    return np.flatnonzero(transcript.sampled)


def batch(policy, seed: int = 0, params: SamplingParams | None = None) -> list[TrainSequence]:
    """Dialogues with every column that the learner knows. Old log-probs lie apart from the policy's, so that ratios are not 1."""
    rng = np.random.default_rng(seed)
    sequences = []
    for transcript in sampled(policy, params):
        sampler = np.asarray(transcript.logprobs, dtype=np.float32)[actions_of(transcript)]
        noise = rng.normal(size=(5, len(sampler))).astype(np.float32)
        columns = {"sampler_logprobs": sampler, "old_logprobs": sampler + 0.15 * noise[0], "ref_logprobs": sampler + 0.3 * noise[1]}
        columns |= {"advantages": noise[2], "returns": noise[3], "old_values": 0.3 * noise[4]}
        sequences.append(TrainSequence.of(transcript, **columns))
    return sequences


def on_policy(transcripts: list[Transcript], advantage: float = 1.0) -> list[TrainSequence]:
    """What `make_experience` makes of samples without temperature tricks: old log-probs are the sampler's."""
    sequences = []
    for i, transcript in enumerate(transcripts):
        drawn = np.asarray(transcript.logprobs, dtype=np.float32)[actions_of(transcript)]
        sequences.append(TrainSequence.of(transcript, sampler_logprobs=drawn, old_logprobs=drawn, advantages=np.full_like(drawn, advantage * (1 if i % 2 else -1))))
    return sequences


def some_values(learner: Learner) -> Learner:
    """A critic that is not zero everywhere, so that its body gets gradients too."""
    if learner.critic is not None:
        with torch.no_grad():
            for name, p in learner.critic.named_parameters():
                if name in ("weight", "bias") or name.startswith("head."):
                    p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)) * 0.2)
    return learner


def gradients(learner: Learner, sequences: list[TrainSequence]) -> dict[str, torch.Tensor]:
    """The gradient of one optimiser step, without the step."""
    found: dict[str, torch.Tensor] = {}

    def take(step: int, lr_scale: float, totals: dict[str, float]) -> None:
        modules = {"policy": learner.policy.model} | ({"critic": learner.critic} if learner.critic is not None else {})
        for part, module in modules.items():
            found.update({f"{part}.{name}": p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
            module.zero_grad(set_to_none=True)

    learner._step_optimizers = take  # type: ignore[method-assign]
    learner._optimizer_step(sequences, step=0, lr_scale=1.0, totals=defaultdict(float), measure_drift=False)
    assert found
    return found


def assert_same_gradients(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    """Equal names; differences small against the whole gradient."""
    assert one.keys() == other.keys()
    scale = max(float(g.abs().max()) for g in one.values())
    assert scale > 1e-3
    for name in one:
        assert float((one[name] - other[name]).abs().max()) < tolerance * max(scale, 1.0), name
