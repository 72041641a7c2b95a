"""Where the work of a step happens: one process here; the loop in `train.py` sees only this protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mulligan.types import Group, Problem


class Workers(Protocol):
    """What the training loop asks for. Implemented by `runtime.local.LocalWorkers`."""

    def warm_up(self, problems: Sequence[Problem], *, step: int, lr_scale: float) -> dict[str, float]:
        """One supervised step; returns its metrics."""
        ...

    def rollout(self, problems: Sequence[Problem], *, step: int) -> list[Group]:
        """Play one step's dialogues with the current policy."""
        ...

    def update(self, groups: Sequence[Group], *, step: int, lr_scale: float) -> tuple[dict[str, float], list[Any]]:
        """Learn from them. Returns metrics, and the advantages (num_sampled,) of every rollout for the record."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def save_model(self, folder: Path) -> None:
        """Write a normal Hugging Face folder."""
        ...

    def close(self) -> None: ...
