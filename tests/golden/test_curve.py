"""Golden curves: five training steps of tiny models on the CPU must go as they went when curve.json was written.

A refactoring must reproduce them. A change that means to change the numbers writes them anew, and says why in its commit:

    MULLIGAN_REGENERATE_GOLDEN=1 pytest tests/golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mulligan.config import parse_recipe
from mulligan.display import Display
from mulligan.train import train

CURVES = Path(__file__).with_name("curve.json")
REGENERATE = bool(os.environ.get("MULLIGAN_REGENERATE_GOLDEN"))

TABLE: dict[str, Any] = {
    "attempts": "uniform(1,4)",
    "model": {"path": "tiny:", "tiny": {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}},
    "problems": {"train": "builtin:guess?low=1&high=8&n=100"},
    "protocol": {"system": "", "question": "{n} {question}", "feedback": "{hint} {n}", "max_attempt_tokens": 5, "max_dialogue_tokens": 50},
    "optimizer": {"lr": 3e-3, "warmup": 2, "schedule": "linear"},
    "warmup": {"steps": 8, "batch_size": 32, "optimizer": {"lr": 1e-2, "warmup": 0}},
    "train": {"steps": 5, "problems_per_step": 16, "group_size": 4, "minibatches": 2, "micro_batch_tokens": 600, "threads": 1},
    "log": {"checkpoint_every": 1000, "rollouts": False},
}
ARMS: dict[str, dict[str, Any]] = {
    "attempt": {"advantage": {"name": "attempt"}, "loss": {"entropy": 0.01}},
    "gae": {"advantage": {"name": "gae"}, "critic": {"kind": "separate", "lr": 3e-3}, "loss": {"kl": 0.05}},
    "rloo": {"advantage": {"name": "rloo"}, "loss": {"mean": "sequence"}, "sampling": {"top_p": 0.9, "temperature": 1.2}},
}
TOLERANCES = {"loss": 1e-3, "entropy": 1e-3, "grad_norm": 5e-3, "reward": 1e-9, "tokens_sampled": 0.0, "value_loss": 1e-3}
"""Relative. Rewards and tokens are counted, not computed: they agree wholly, or a draw has changed."""
FLOOR = 5e-5
"""Absolute, for losses near 0 (on policy, with whitened advantages, the clipped loss nearly cancels)."""


def curve(arm: str, folder: Path, **more: Any) -> list[dict[str, float]]:
    threads = torch.get_num_threads()
    try:
        run = train(parse_recipe(TABLE | ARMS[arm] | more), folder, display=Display(quiet=True))
    finally:
        torch.set_num_threads(threads)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: round(line[key], 9) for key in TOLERANCES if key in line} for line in lines]


def differences(found: list[dict[str, float]], expected: list[dict[str, float]]) -> list[str]:
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    return [
        f"step {step}, {key}: {line[key]} instead of {golden[key]}"
        for step, (line, golden) in enumerate(zip(found, expected, strict=True))
        for key in line
        if line[key] != pytest.approx(golden[key], rel=TOLERANCES[key], abs=FLOOR)
    ]


@pytest.mark.parametrize("arm", ARMS)
def test_the_curve_is_as_it_was(arm: str, tmp_path: Path):
    found = curve(arm, tmp_path / "r")
    curves = json.loads(CURVES.read_text()) if CURVES.exists() else {}
    if REGENERATE:
        CURVES.write_text(json.dumps(curves | {arm: found}, indent=1) + "\n")
    else:
        assert differences(found, curves[arm]) == []


@pytest.mark.skipif(REGENERATE, reason="the golden curves are being written anew")
@pytest.mark.parametrize("change", [{"optimizer": {**TABLE["optimizer"], "lr": 3.06e-3}}, {"loss": {"entropy": 0.012}}, {"seed": 1}])
def test_small_changes_are_noticed(change: dict[str, Any], tmp_path: Path):
    """The comparison is not blind: two percent of the learning rate are seen."""
    assert differences(curve("attempt", tmp_path / "r", **change), json.loads(CURVES.read_text())["attempt"])
