"""Runs of seconds: a tiny model on `builtin:guess` with four numbers, and what two runs that should be equal are compared by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mulligan.config import Recipe, parse_recipe
from mulligan.display import Display
from mulligan.types import Rollout

TABLE: dict[str, Any] = {
    "name": "tiny",
    "attempts": "uniform(1,3)",
    "model": {"path": "tiny:", "tiny": {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}},
    "problems": {"train": "builtin:guess?low=1&high=4&n=50", "eval": ["builtin:guess?low=1&high=4&split=test"]},
    "protocol": {"system": "", "question": "{n} {question}", "feedback": "{hint} {n}", "max_attempt_tokens": 5, "max_dialogue_tokens": 40},
    "optimizer": {"lr": 3e-3, "warmup": 2},
    "warmup": {"steps": 4, "batch_size": 16, "optimizer": {"lr": 1e-2, "warmup": 0}},
    "train": {"steps": 4, "problems_per_step": 8, "group_size": 2, "micro_batch_tokens": 512, "threads": 1},
    "log": {"checkpoint_every": 3, "keep_checkpoints": 2},
    "eval": {"attempts": "1-3", "samples": 2},
}


def tiny(**changes: Any) -> Recipe:
    """TABLE with settings changed; `__` stands for the dot (`train__steps=2`)."""
    return parse_recipe(tiny_table(**changes))


def tiny_table(**changes: Any) -> dict[str, Any]:
    table = json.loads(json.dumps(TABLE))
    for key, value in changes.items():
        node = table
        *parents, last = key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return table


class Killed(Exception):
    """Stands for a kill: nothing of ours catches it."""


class KillingDisplay(Display):
    """Kills the run when `state["step"]` is `after`, or in the middle of that step's sampling, after `dialogues` dialogues."""

    def __init__(self, after: int, dialogues: int | None = None):
        super().__init__(quiet=True)
        self.after, self.dialogues, self.steps, self.played = after, dialogues, 0, 0

    def step_done(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        self.steps, self.played = state["step"], 0
        if self.dialogues is None and state["step"] == self.after:
            raise Killed

    def rollout_done(self, rollout: Rollout) -> None:
        self.played += 1
        if self.steps == self.after and self.played == self.dialogues:
            raise Killed


class CountingDisplay(Display):
    """Notes what the run reports."""

    def __init__(self, on_step: Callable[[int], None] | None = None):
        super().__init__(quiet=True)
        self.steps: list[int] = []
        self.dialogues = 0

    def step_done(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        self.steps.append(state["step"])

    def rollout_done(self, rollout: Rollout) -> None:
        self.dialogues += 1


def metrics_of(run: Path, *, times: bool = False) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, by default without what the clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return lines if times else [{key: value for key, value in line.items() if key != "time" and not key.startswith("seconds")} for line in lines]


def rollouts_of(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Every rollout file, by name, without the time that grading took."""
    found = {}
    for file in sorted((run / "rollouts").iterdir()):
        rows = pq.read_table(file).to_pylist()
        for row in rows:
            for attempt in row["attempts"]:
                del attempt["ms"]
        found[file.name] = rows
    return found


def weights_of(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def assert_same_run(run: Path, other: Path) -> None:
    """Equal to the bit in everything but times: weights, optimizer states, metrics, rollouts, evaluation."""
    assert metrics_of(run) == metrics_of(other)
    assert rollouts_of(run) == rollouts_of(other)
    assert weights_of(run) == weights_of(other)
    last, other_last = (sorted((r / "checkpoints").iterdir())[-1] for r in (run, other))
    assert last.name == other_last.name
    assert (last / "tensors.safetensors").read_bytes() == (other_last / "tensors.safetensors").read_bytes()
    one, two = (json.loads((r / "eval.json").read_text()) for r in (run, other))
    assert one["problem_sets"] == two["problem_sets"]
