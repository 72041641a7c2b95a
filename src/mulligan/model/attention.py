"""Our attention, hooked into transformers under the name `mulligan`: one forward pass over ragged sequences, no padding rows.

Every forward pass is *flat*: the tokens of all sequences lie in one row of shape (1, T), each with its own position id. What
belongs together is said by a `Layout`, which travels as a keyword argument through the Hugging Face module to every layer:

- `PackedLayout` (the learner): whole sequences one after the other, each attending to its own past.
- `CachedLayout` (the sampler): a few new tokens per sequence, attending to the sequence's keys and values in a `KVCache`.

Legend: T tokens of the pass, B sequences, L longest of them, H query heads, K key/value heads, D head size, S cache rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from mulligan.model.kernels import Kernels, Places, compiled
from mulligan.model.ops import attend_packed

ATTENTION = "mulligan"


class Layout(Protocol):
    def attend(self, layer: int, query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        """Attention of one layer for all tokens of the pass; returns (T, H, D)."""
        ...


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every attention layer. query (1, H, T, D), key and value (1, K, T, D)."""
    if layout is None:
        raise RuntimeError("this model was loaded for mulligan's flat forward pass: call it through mulligan.model.Policy, or load it anew for other uses")
    if s_aux is not None:
        raise NotImplementedError("attention sinks are not supported")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Under autocast, rotary embeddings leave queries and keys in float32 beside values in bfloat16; attention takes one type.
    query, key = query.to(value.dtype), key.to(value.dtype)
    out = layout.attend(module.layer_idx, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), scale, sliding_window, softcap)  # type: ignore[arg-type]
    return out.unsqueeze(0), None


AttentionInterface.register(ATTENTION, attention_forward)


class PackedLayout:
    """Whole sequences of `lengths` tokens in one pass, each attending to its own past.

    Args:
        lengths: tokens of each sequence.
        places: for each sequence, where its tokens stand in the pass, (length,). Sequences that begin alike may share the places of
            their beginning: its tokens are in the pass once, and every layer but the attention computes them once. By default the
            sequences lie one after the other.

    Linear layers see no padding. A shared token has the same past in all its sequences, hence the same result; it is taken from the
    first one, and its key and value gather the gradients of all. On the processor a compiled kernel attends each sequence to its own
    length. Elsewhere, and for windows, caps and sequences above `COMPILED`, attention alone is padded to the longest (like lengths are
    packed together, so little is lost); right padding needs no mask: it lies in the future of every real token.
    """

    COMPILED = 1024
    """Tokens of the longest sequence that the compiled kernel attends: it divides the work by sequences and heads alone."""

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu", *, places: Sequence[np.ndarray] | None = None):
        self.longest = max(lengths)
        if places is None:
            starts = np.cumsum([0, *lengths[:-1]])
            places = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        self.total = int(max(p[-1] for p in places)) + 1
        self.even = self.total == len(lengths) * self.longest
        gather = np.zeros((len(lengths), self.longest), dtype=np.int64)
        scatter, positions = np.zeros(self.total, dtype=np.int64), np.zeros(self.total, dtype=np.int64)
        for row in range(len(lengths) - 1, -1, -1):  # backwards, so that the first sequence's is what stays
            gather[row, : lengths[row]] = places[row]
            scatter[places[row]] = row * self.longest + np.arange(lengths[row])
            positions[places[row]] = np.arange(lengths[row])
        self.gather_P = torch.from_numpy(gather.ravel()).to(device)
        self.scatter_T = torch.from_numpy(scatter).to(device)
        owner = scatter // self.longest
        own = [np.count_nonzero(owner[p] < row) for row, p in enumerate(places)]
        self.places = Places(*(torch.from_numpy(x.astype(np.int64)) for x in (np.concatenate(places), np.cumsum([0, *lengths]), np.array(own))))
        self.position_ids = torch.from_numpy(positions).to(device).unsqueeze(0)

    def attend(self, layer: int, query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        length = self.longest
        plain = softcap is None and (window is None or window >= length) and length <= self.COMPILED
        kernels = compiled() if plain and value_TKD.device.type == "cpu" and value_TKD.dtype == torch.float32 else None
        if kernels is not None:
            return attend_packed(kernels, query_THD, key_TKD, value_TKD, self.places, scale)
        query, key, value = (self._pad(x) for x in (query_THD, key_TKD, value_TKD))
        mask = None
        if window is not None and window < length:
            index = torch.arange(length, device=query.device)
            distance = index[:, None] - index
            mask = (distance >= 0) & (distance < window)
        out_BHLD = _attend(query, key, value, scale, mask, causal=mask is None, softcap=softcap)
        out = out_BHLD.transpose(1, 2).flatten(0, 1)
        return out if self.even else out.index_select(0, self.scatter_T)

    def _pad(self, x_TND: Tensor) -> Tensor:
        """(T, N, D) -> (B, N, L, D)."""
        padded = x_TND if self.even else x_TND.index_select(0, self.gather_P)
        return padded.unflatten(0, (-1, self.longest)).transpose(1, 2)


class KVCache:
    """Keys and values of up to `max_rows` sequences, one row each; grows with the longest sequence. Belongs to one policy version."""

    def __init__(self, max_rows: int):
        self.max_rows = max_rows
        self.keys: dict[int, Tensor] = {}
        """Per layer: (S, K, capacity, D)."""
        self.values: dict[int, Tensor] = {}
        self.capacity = 0
        self.rows = 0

    def reserve(self, rows: int, length: int, most: int = 0) -> None:
        """Make room for `rows` sequences of `length` tokens; what is stored stays. To grow is to copy all of it, so there is room for a quarter
        more than there was, or for the `most` tokens that the attempts at work may reach, but of those for no more than twice `length`."""
        if rows <= self.rows and length <= self.capacity:
            return
        rows = min(self.max_rows, max(rows, self.rows, min(2 * self.rows, self.max_rows) if rows > self.rows else 0))
        room = max(self.capacity * 5 // 4, min(most, 2 * length))
        capacity = self.capacity if length <= self.capacity else -(-max(length, room) // 32) * 32
        for store in (self.keys, self.values):
            for layer, old in store.items():
                new = old.new_empty(rows, old.shape[1], capacity, old.shape[3])
                new[: self.rows, :, : self.capacity] = old
                new[: self.rows, :, self.capacity :] = 0  # as in `layer`
                new[self.rows :] = 0
                store[layer] = new
        self.rows, self.capacity = rows, capacity

    def layer(self, layer: int, key_TKD: Tensor, value_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values, allocated on first use from the shape that the model itself produces."""
        if layer not in self.keys:
            # Zeros, not empty: an unwritten NaN behind the mask would survive the multiplication by a zero weight.
            for store, like in ((self.keys, key_TKD), (self.values, value_TKD)):
                store[layer] = like.new_zeros(self.rows, like.shape[1], self.capacity, like.shape[2])
        return self.keys[layer], self.values[layer]

    def copy(self, source: int, targets: Sequence[int], length: int) -> None:
        """Copy the first `length` tokens of row `source` to the rows `targets`."""
        for store in (self.keys, self.values):
            for tensor in store.values():
                prompt = tensor[source, :, :length]
                for target in targets:
                    tensor[target, :, :length] = prompt


class CachedLayout:
    """`counts[i]` new tokens for cache row `rows[i]`, which already holds `starts[i]` tokens.

    Single new tokens (decoding) are attended in one batched pass over a view of the cache; longer runs (prompts, feedback) in
    padded chunks of bounded area. With compiled `kernels`, single tokens and short runs attend to exactly what they may see.
    """

    MAX_AREA = 1 << 22
    """Most score elements (rows x new tokens x cached tokens) per chunk of prefill and head: bounds memory."""
    SHORT_RUN = 64
    """Tokens of the longest run that the compiled kernel attends, which takes each token by itself: longer ones are faster in chunks."""

    def __init__(
        self,
        cache: KVCache,
        rows: Sequence[int],
        starts: Sequence[int],
        counts: Sequence[int],
        device: torch.device | str = "cpu",
        kernels: Kernels | None = None,
    ):
        self.cache, self.kernels = cache, kernels
        rows_R, starts_R, counts_R = (torch.tensor(x, device=device) for x in (rows, starts, counts))
        ends_R = starts_R + counts_R
        offsets_R = torch.cumsum(counts_R, 0) - counts_R
        self.last_T = offsets_R + counts_R - 1
        """Index in the pass of each row's last new token."""
        total = int(counts_R.sum())
        self.position_T = torch.arange(total, device=device) - torch.repeat_interleave(offsets_R - starts_R, counts_R)
        self.row_T = torch.repeat_interleave(rows_R, counts_R)
        self.position_ids = self.position_T.unsqueeze(0)
        cache.reserve(max(rows) + 1, int(ends_R.max()))

        single = counts_R == 1 if kernels is None else counts_R <= self.SHORT_RUN
        self._masks: dict[tuple[int | None, int], Tensor] = {}
        if kernels is None:
            self.decode_T = offsets_R[single]
            self._plan_decode(rows_R[single], ends_R[single])
        else:
            self.decode_T = torch.repeat_interleave(single, counts_R).nonzero().flatten()
        self.chunks = self._plan_prefill(rows_R[~single], starts_R[~single], counts_R[~single], offsets_R[~single])

    def _plan_decode(self, rows_N: Tensor, ends_N: Tensor) -> None:
        self.decode_rows = rows_N
        if not len(rows_N):
            return
        self.decode_length = int(ends_N.max())
        # A view of rows 0..n costs nothing; gathering costs a copy of keys and values per layer. Rows in between that do not
        # decode in this pass are computed and thrown away, unless they are most of the view.
        span = int(rows_N.max()) + 1
        self.decode_view = span if len(rows_N) * 2 >= span else None
        self.decode_all = span == len(rows_N) and bool((rows_N[1:] > rows_N[:-1]).all())
        """Rows 0..n, in this order: nothing to pick out and put back."""
        ends = ends_N
        if self.decode_view is not None:
            ends = torch.ones(span, dtype=ends_N.dtype, device=ends_N.device)
            ends[rows_N] = ends_N
        self.decode_ends = ends

    def _plan_prefill(self, rows: Tensor, starts: Tensor, counts: Tensor, offsets: Tensor) -> list[tuple[Tensor, Tensor, Tensor, int]]:
        """Chunks of (cache rows, token index padded (m, t), positions padded (m, t), longest cache length)."""
        chunks = []
        order = torch.argsort(counts, stable=True).tolist()
        while order:
            chunk: list[int] = []
            longest = length = 0
            while order:
                new, end = int(counts[order[0]]), int(starts[order[0]] + counts[order[0]])
                area = (len(chunk) + 1) * max(longest, new) * max(length, end)
                if chunk and (area > self.MAX_AREA or new > 2 * longest):
                    break
                longest, length = max(longest, new), max(length, end)
                chunk.append(order.pop(0))
            index = torch.tensor(chunk, device=rows.device)
            within = torch.arange(longest, device=rows.device).expand(len(chunk), -1)
            # Padding repeats the row's last token; its result is not read back.
            within = torch.minimum(within, counts[index][:, None] - 1)
            chunks.append((rows[index], offsets[index][:, None] + within, starts[index][:, None] + within, length))
        return chunks

    def attend(self, layer: int, query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        keys, values = self.cache.layer(layer, key_TKD, value_TKD)
        if self.kernels is not None:
            places = self.row_T, self.position_T
            out = self.kernels.attend(query_THD, key_TKD, value_TKD, (keys, values), places, self.decode_T, scale, window, softcap)
        else:
            keys[self.row_T, :, self.position_T] = key_TKD
            values[self.row_T, :, self.position_T] = value_TKD
            if not self.chunks:
                return self._decode(query_THD, keys, values, scale, window, softcap)
            out = query_THD.new_empty(*query_THD.shape[:2], value_TKD.shape[2])
            if len(self.decode_rows):
                out[self.decode_T] = self._decode(query_THD[self.decode_T], keys, values, scale, window, softcap)
        for rows, tokens, positions, length in self.chunks:
            index = torch.arange(length, device=query_THD.device)
            distance = positions[:, :, None] - index
            mask = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            got = _attend(query_THD[tokens].transpose(1, 2), keys[rows, :, :length], values[rows, :, :length], scale, mask[:, None], causal=False, softcap=softcap)
            out[tokens] = got.transpose(1, 2)  # padded repeats write the same value again
        return out

    def _decode(self, query_NHD: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        length, kv_heads = self.decode_length, keys.shape[1]
        query = query_NHD
        if self.decode_view is not None:
            keys, values = keys[: self.decode_view, :, :length], values[: self.decode_view, :, :length]
            if not self.decode_all:
                query = query_NHD.new_zeros(self.decode_view, *query_NHD.shape[1:])
                query[self.decode_rows] = query_NHD
        else:
            keys, values = keys[self.decode_rows, :, :length], values[self.decode_rows, :, :length]
        # The query heads that share a key/value head stand as so many queries of it: no expansion of keys and values.
        query = query.unflatten(1, (kv_heads, -1))
        mask = self._decode_mask(window, kv_heads, query.dtype)
        if softcap is None and query.dtype == torch.float32:
            # One query per row: two batched products over the cache as it lies are twice as fast as the processor's fused attention.
            scores = torch.baddbmm(mask, query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=scale)
            out = torch.bmm(torch.softmax(scores, -1), values.flatten(0, 1)).unflatten(0, (-1, kv_heads)).flatten(1, 2)
        else:
            out = _attend(query, keys, values, scale, (mask == 0).unflatten(0, (-1, kv_heads)), causal=False, softcap=softcap).flatten(1, 2)
        return out if self.decode_view is None or self.decode_all else out[self.decode_rows]

    def _decode_mask(self, window: int | None, kv_heads: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores, (rows x K, 1, L): 0 where a row may look, else so low that its weight is 0. The same for all
        layers with this window."""
        key = (window, kv_heads)
        if key not in self._masks:
            index = torch.arange(self.decode_length, device=self.decode_ends.device)
            seen = index < self.decode_ends[:, None]
            if window is not None:
                seen = seen & (index >= self.decode_ends[:, None] - window)
            low = torch.finfo(dtype).min / 2  # half: the scores are added to it
            self._masks[key] = torch.where(seen, 0.0, low).to(dtype).repeat_interleave(kv_heads, 0).unsqueeze(1)
        return self._masks[key]


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None, *, causal: bool, softcap: float | None) -> Tensor:
    """Attention of (B, H, Q, D) over (B, K, L, D); query heads share key/value heads in groups of H / K."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
    scores = torch.tanh(query @ key.transpose(-1, -2) * (scale / softcap)) * softcap
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores.float(), -1).to(value.dtype) @ value
