"""From rollouts to packed micro-batches: flat token rows, and per-action-token tensors that line up with the logits asked for.

Only sampled tokens ("actions") get logits. Action token i stands at position p_i of its sequence and is predicted by the logits
at p_i - 1; `index` holds that position within the packed row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mulligan.model import PackedLayout
from mulligan.types import Transcript


@dataclass(frozen=True, slots=True)
class TrainSequence:
    """One dialogue as the learner sees it: tokens, which of them are actions, and named per-action arrays of equal length."""

    token_ids: Sequence[int]
    actions: np.ndarray
    """Positions of sampled tokens, ascending, shape (num_actions,); position 0 cannot be one (nothing predicts it)."""
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, transcript: Transcript, **columns: np.ndarray) -> TrainSequence:
        return cls(transcript.token_ids, np.flatnonzero(transcript.sampled), columns)

    @property
    def num_actions(self) -> int:
        return len(self.actions)

    @property
    def length(self) -> int:
        """Tokens that must be read: nothing after the last action is."""
        return int(self.actions[-1]) + 1 if len(self.actions) else 0


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One packed pass. T tokens in all, N actions."""

    ids_T: Tensor
    layout: PackedLayout
    index_N: Tensor
    """Positions of the packed row whose logits predict the actions."""
    targets_N: Tensor
    columns: dict[str, Tensor]
    """Each (N,), float32."""
    members: tuple[int, ...]
    """Which sequences, in the order packed."""
    counts: tuple[int, ...]
    """Actions of each."""

    def scatter(self, values_N: Tensor, into: list[np.ndarray | None]) -> None:
        """Split per-action values by sequence and put them in the places of their sequences."""
        for member, part in zip(self.members, values_N.detach().float().cpu().split(list(self.counts)), strict=True):
            into[member] = part.numpy()


def pack(sequences: Sequence[TrainSequence], micro_batch_tokens: int, device: torch.device | str = "cpu") -> Iterable[MicroBatch]:
    """Cut sequences into packed micro-batches of at most `micro_batch_tokens` tokens, like lengths together.

    A single longer sequence forms a pass of its own; sequences without actions are left out. The order is a function of the
    lengths alone, so that it is the same on every run.
    """
    order = sorted((i for i, s in enumerate(sequences) if s.num_actions), key=lambda i: (sequences[i].length, i))
    start = 0
    while start < len(order):
        end, total = start, 0
        while end < len(order) and (end == start or total + sequences[order[end]].length <= micro_batch_tokens):
            total += sequences[order[end]].length
            end += 1
        yield _pack_one(sequences, order[start:end], device)
        start = end


def _pack_one(sequences: Sequence[TrainSequence], members: list[int], device: torch.device | str) -> MicroBatch:
    chosen = [sequences[i] for i in members]
    lengths = [s.length for s in chosen]
    offsets = np.cumsum([0, *lengths[:-1]])
    ids = np.concatenate([np.asarray(s.token_ids[: s.length], dtype=np.int64) for s in chosen])
    actions = np.concatenate([s.actions + offset for s, offset in zip(chosen, offsets, strict=True)])
    columns = {
        name: torch.from_numpy(np.concatenate([np.asarray(s.columns[name], dtype=np.float32) for s in chosen])).to(device) for name in chosen[0].columns
    }
    return MicroBatch(
        ids_T=torch.from_numpy(ids).to(device),
        # Positions are read up to the last action; its own position is needed as a target only, but a packed row of whole
        # sequences keeps lengths and positions plain.
        layout=PackedLayout(lengths, device),
        index_N=torch.from_numpy(actions - 1).to(device),
        targets_N=torch.from_numpy(ids[actions]).to(device),
        columns=columns,
        members=tuple(members),
        counts=tuple(s.num_actions for s in chosen),
    )
