"""From rollouts to packed micro-batches: flat token rows, and per-action-token tensors that line up with the logits asked for.

Only sampled tokens ("actions") get logits. Action token i stands at position p_i of its sequence and is predicted by the logits
at p_i - 1; `index` holds that position within the packed row. What sequences have in common at their beginning (the prompt of a
group, a failed attempt shared by two) is packed, and read, once.
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

    @classmethod
    def contexts_of(cls, transcript: Transcript) -> list[TrainSequence]:
        """One sequence per context: a dialogue is one, attempts that are blind to their history are one each. Their actions, joined in
        order, are the transcript's."""
        ends = [*transcript.context_starts[1:], len(transcript)]
        sampled = np.asarray(transcript.sampled, dtype=bool)
        return [cls(transcript.token_ids[a:b], np.flatnonzero(sampled[a:b])) for a, b in zip(transcript.context_starts, ends, strict=True)]

    @property
    def num_actions(self) -> int:
        return len(self.actions)

    @property
    def length(self) -> int:
        """Tokens that must be read: nothing after the last action is."""
        return int(self.actions[-1]) + 1 if len(self.actions) else 0


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One packed pass. T tokens in all, N actions, U positions that predict them."""

    ids_T: Tensor
    layout: PackedLayout
    index_N: Tensor
    """Positions of the packed row whose logits predict the actions."""
    index_U: Tensor
    """The same without repetition, ascending: at a position where dialogues part, several actions are predicted."""
    row_N: Tensor
    """Which of the U each action is predicted at."""
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
    """Cut sequences into packed micro-batches of at most `micro_batch_tokens` tokens, like beginnings and like lengths together.

    A single longer sequence forms a pass of its own; sequences without actions are left out. The order is a function of the
    sequences alone, so that it is the same on every run.
    """
    taken: list[int] = []
    places: list[np.ndarray] = []
    total = 0
    for member in _order(sequences):
        shared = _common(sequences[taken[-1]], sequences[member]) if taken else 0
        new = sequences[member].length - shared
        if taken and total + new > micro_batch_tokens:
            yield _pack_one(sequences, taken, places, device)
            taken, places, total = [], [], 0
            shared, new = 0, sequences[member].length
        before = places[-1][:shared] if shared else np.zeros(0, dtype=np.int64)
        places.append(np.concatenate([before, np.arange(total, total + new)]))
        taken.append(member)
        total += new
    if taken:
        yield _pack_one(sequences, taken, places, device)


def _order(sequences: Sequence[TrainSequence]) -> list[int]:
    """Sequences with actions: families of one prompt by the length of their longest, and within a family by their tokens, so
    that each has the longest possible beginning in common with its neighbour."""
    families: dict[tuple[int, ...], list[int]] = {}
    for i, sequence in enumerate(sequences):
        if sequence.num_actions:
            families.setdefault(tuple(sequence.token_ids[: int(sequence.actions[0])]), []).append(i)
    ordered = sorted(families.values(), key=lambda family: (max(sequences[i].length for i in family), family[0]))
    return [i for family in ordered for i in sorted(family, key=lambda i: (tuple(sequences[i].token_ids[: sequences[i].length]), i))]


def _common(one: TrainSequence, other: TrainSequence) -> int:
    """Tokens that two sequences have in common at their beginning, of those that are read."""
    length = min(one.length, other.length)
    differ = np.flatnonzero(np.asarray(one.token_ids[:length]) != np.asarray(other.token_ids[:length]))
    return int(differ[0]) if len(differ) else length


def _pack_one(sequences: Sequence[TrainSequence], members: list[int], places: list[np.ndarray], device: torch.device | str) -> MicroBatch:
    chosen = [sequences[i] for i in members]
    ids = np.zeros(int(max(p[-1] for p in places)) + 1, dtype=np.int64)
    for sequence, place in zip(chosen, places, strict=True):
        ids[place] = sequence.token_ids[: sequence.length]
    index = np.concatenate([place[s.actions - 1] for s, place in zip(chosen, places, strict=True)])
    unique, row = np.unique(index, return_inverse=True)
    columns = {
        name: torch.from_numpy(np.concatenate([np.asarray(s.columns[name], dtype=np.float32) for s in chosen])).to(device) for name in chosen[0].columns
    }
    return MicroBatch(
        ids_T=torch.from_numpy(ids).to(device),
        # Positions are read up to the last action; its own position is needed as a target only, but a packed row of whole
        # sequences keeps lengths and positions plain.
        layout=PackedLayout([s.length for s in chosen], device, places=places),
        index_N=torch.from_numpy(index).to(device),
        index_U=torch.from_numpy(unique).to(device),
        row_N=torch.from_numpy(row).to(device),
        targets_N=torch.from_numpy(np.concatenate([np.asarray(s.token_ids)[s.actions] for s in chosen])).to(device),
        columns=columns,
        members=tuple(members),
        counts=tuple(s.num_actions for s in chosen),
    )
