"""The local sampler: continuous batching over the learner's own parameters, one flat forward pass per step.

Anatomy, in the order in which a token comes to be: `LocalDialogue.sample` queues a request; `LocalSampler._drive` waits until
every open dialogue has asked for tokens or closed; `_step` reads new tokens and draws the next one of each row; a row that stops
answers its request at once and keeps its keys and values for the next attempt.

Dialogues join and leave at every step. The driver steps only when no dialogue is out with the grader: this costs the grader's
time, a small part of a step, and makes the composition of every batch a function of the tokens alone, so that a run is
reproducible to the bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import torch

from mulligan.model import CachedLayout, KVCache, PackedLinears, Policy, Precision
from mulligan.model.kernels import Kernels
from mulligan.sampling import Completion, SamplingParams, StopChecker
from mulligan.sampling.draw import draw, keyed_uniforms
from mulligan.types import StopReason


class LocalDialogue:
    """One open dialogue: what is in the cache, what is still to be read, and the attempt being drawn."""

    def __init__(self, sampler: LocalSampler, key: int, params: SamplingParams):
        self._sampler = sampler
        self.key = key
        self.params = params
        self.row: int | None = None
        self.prompt: tuple[int, ...] = ()
        """The tokens that it began with."""
        self.cached = 0
        """Tokens whose keys and values are in the cache row."""
        self.unread: list[int] = []
        """Tokens of the dialogue that the model has not read yet: the prompt, the feedback, or the token just drawn."""
        self.closed = False
        self.request: asyncio.Future[Completion] | None = None

    async def sample(self, new_ids: Sequence[int], *, max_tokens: int, stop: StopChecker | None, end_ids: frozenset[int]) -> Completion:
        if self.closed or self.request is not None:
            raise RuntimeError("a dialogue takes one request at a time, and none once it is closed")
        self.unread.extend(new_ids)
        if not self.unread or max_tokens < 1:
            raise ValueError("an attempt needs at least one token to read and room for one to draw")
        if not self.cached and self.row is None:
            self.prompt = tuple(self.unread)
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.full_logprobs: list[float] = []
        self.max_tokens, self.stop, self.end_ids = max_tokens, stop, end_ids
        self.request = asyncio.get_running_loop().create_future()
        self._sampler._submitted(self)
        try:
            return await self.request
        except BaseException:
            self.close()  # cancelled, or the sampler broke: half an attempt is of no use
            raise
        finally:
            self.request = None

    @property
    def room(self) -> int:
        """Tokens that the attempt may still have."""
        return self.max_tokens - len(self.token_ids)

    def take(self, token: int, logprob: float, full_logprob: float) -> StopReason | None:
        """Append the token just drawn; the reason to stop, if there is one."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.full_logprobs.append(full_logprob)
        self.unread = [token]
        if token in self.end_ids:
            return StopReason.END_OF_TURN
        if self.stop is not None and self.stop.push(token):
            return StopReason.ANSWER
        if not self.room:
            return StopReason.ATTEMPT_LENGTH
        return None

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.request is not None and not self.request.done():
            self.request.cancel()
        self._sampler._closed(self)


class LocalSampler:
    """Samples from `policy`, whose weights it reads as they are now; on the processor, through packed copies of its linear layers.

    Args:
        precision: "int8" samples in 8 bits: about twice as fast, and from a slightly different policy (`model.packed`).
        max_rows: dialogues decoded at once; further ones wait.
        prefill_tokens: prompt and feedback tokens read in one pass, at most (one longer prompt is still read whole). More bring no
            speed once the activations of a layer no longer fit the processor's cache.
    """

    def __init__(self, policy: Policy, *, max_rows: int = 64, prefill_tokens: int = 1024, precision: Precision = "exact"):
        self.policy = policy
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        self._cache = KVCache(max_rows)
        self._linears = PackedLinears(policy, precision)
        self._reset()

    def _reset(self) -> None:
        self._rows: list[LocalDialogue] = []
        self._waiting: list[LocalDialogue] = []
        self._open: set[LocalDialogue] = set()
        self._busy: set[LocalDialogue] = set()
        """Open dialogues that are not waiting for tokens: with the grader, or about to ask."""
        self._idle = asyncio.Event()
        """Set while nobody is busy."""
        self._driver: asyncio.Task[None] | None = None
        self._cache_version = self.policy.version
        self.sampled_tokens = 0
        self.read_tokens = 0

    @property
    def context_length(self) -> int:
        return self.policy.context_length

    @property
    def policy_version(self) -> int:
        return self.policy.version

    def open(self, *, key: int, params: SamplingParams) -> LocalDialogue:
        if not self._open:
            self._cache_version = self.policy.version
        dialogue = LocalDialogue(self, key, params)
        self._open.add(dialogue)
        self._now_busy(dialogue)
        return dialogue

    def release(self) -> None:
        """Close every dialogue and drop the cache's memory: before an update, or after a batch was abandoned."""
        for dialogue in [*self._open]:
            dialogue.close()
        if self._driver is not None and not self._driver.done():
            self._driver.cancel()
        self._cache = KVCache(self.max_rows)
        self._reset()

    # ------------------------------------------------------------------------------------------------- scheduling

    def _submitted(self, dialogue: LocalDialogue) -> None:
        if dialogue.row is None:
            self._waiting.append(dialogue)
        if self._driver is None or self._driver.done():
            self._idle = asyncio.Event()  # an event belongs to the loop that first waits on it
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        self._not_busy(dialogue)

    def _closed(self, dialogue: LocalDialogue) -> None:
        """Forget the dialogue; its row is freed at the next step."""
        self._open.discard(dialogue)
        if dialogue in self._waiting:
            self._waiting.remove(dialogue)
        self._not_busy(dialogue)

    def _now_busy(self, dialogue: LocalDialogue) -> None:
        self._busy.add(dialogue)
        self._idle.clear()

    def _not_busy(self, dialogue: LocalDialogue) -> None:
        self._busy.discard(dialogue)
        if not self._busy:
            self._idle.set()

    async def _drive(self) -> None:
        try:
            while True:
                while self._busy:  # again, if somebody became busy between the wake-up and now
                    await self._idle.wait()
                if not self._open:
                    return
                self._step()
                await asyncio.sleep(0)  # lets a cancellation or an interrupt in
        except Exception as error:
            for dialogue in [*self._rows, *self._waiting]:
                if dialogue.request is not None and not dialogue.request.done():
                    dialogue.request.set_exception(error)
                    self._now_busy(dialogue)

    def _compact(self) -> None:
        """Move the last dialogues into the rows of closed ones, so that rows stay contiguous and decoding reads a plain view.

        Row by row and not as they close: the order in which graders answered must leave no trace in the batch.
        """
        for row in range(len(self._rows)):
            while self._rows and self._rows[-1].closed:
                self._rows.pop()
            if row < len(self._rows) and self._rows[row].closed:
                last = self._rows.pop()
                self._cache.copy(last.row, [row], last.cached)  # type: ignore[arg-type]
                self._rows[row], last.row = last, row

    def _admit(self) -> None:
        """Give free rows to waiting dialogues, first come first served. One whose prompt stands in another row already (a group
        larger than the rows that were free) takes it from there and reads only its last token, whose logits it needs."""
        if not self._waiting or len(self._rows) >= self.max_rows:
            return
        readers = {d.prompt: d for d in self._rows if d.cached >= len(d.prompt)}
        while self._waiting and len(self._rows) < self.max_rows:
            dialogue = self._waiting.pop(0)
            dialogue.row = len(self._rows)
            self._rows.append(dialogue)
            reader = readers.get(dialogue.prompt)
            if reader is not None and len(dialogue.prompt) > 1:
                self._cache.reserve(len(self._rows), 0)
                dialogue.cached = len(dialogue.prompt) - 1
                dialogue.unread = [dialogue.prompt[-1]]
                self._cache.copy(reader.row, [dialogue.row], dialogue.cached)  # type: ignore[arg-type]

    def _select(self) -> tuple[list[LocalDialogue], dict[int, list[LocalDialogue]]]:
        """The rows of this pass, and who follows whom: dialogues that begin with the same prompt let the first one read it."""
        chosen: list[LocalDialogue] = []
        followers: dict[int, list[LocalDialogue]] = {}
        leaders: dict[tuple[int, ...], int] = {}
        budget = self.prefill_tokens
        for dialogue in self._rows:
            prompt = dialogue.prompt if dialogue.cached == 0 else None
            if prompt is not None:
                if prompt in leaders:
                    followers.setdefault(leaders[prompt], []).append(dialogue)
                    continue
                leaders[prompt] = len(chosen)
            new = len(dialogue.unread)
            if new > 1:
                if budget < new and budget < self.prefill_tokens:
                    if prompt is not None:
                        del leaders[prompt]
                    continue
                budget -= new
            chosen.append(dialogue)
        return chosen, followers

    # --------------------------------------------------------------------------------------------------- one step

    @torch.inference_mode()
    def _step(self) -> None:
        assert self._cache_version == self.policy.version, "the weights changed under open dialogues"
        self._compact()
        self._admit()
        rows, followers = self._select()
        with self._linears.in_use() as kernels:
            logits = self._read(rows, kernels)
        drawing, source = list(rows), list(range(len(rows)))
        for leader, group in followers.items():
            self._cache.copy(rows[leader].row, [d.row for d in group], rows[leader].cached)  # type: ignore[arg-type, misc]
            for dialogue in group:
                dialogue.cached, dialogue.unread = rows[leader].cached, []
            drawing += group
            source += [leader] * len(group)
        if followers:
            logits = logits[torch.tensor(source, device=logits.device)]
        for params in dict.fromkeys(d.params for d in drawing):
            index = [i for i, d in enumerate(drawing) if d.params == params]
            chosen = logits if len(index) == len(drawing) else logits[torch.tensor(index, device=logits.device)]
            self._draw([drawing[i] for i in index], chosen, params, kernels)

    def _read(self, rows: list[LocalDialogue], kernels: Kernels | None) -> torch.Tensor:
        """One forward pass over every row's unread tokens; the logits after each row's last one, (R, V)."""
        counts = [len(d.unread) for d in rows]
        length = max(d.cached + count for d, count in zip(rows, counts, strict=True))
        self._cache.reserve(len(self._rows), length, most=max(d.cached + len(d.unread) + d.room for d in self._rows))
        ids_T = torch.tensor([token for d in rows for token in d.unread], device=self.policy.device)
        layout = CachedLayout(self._cache, [d.row for d in rows], [d.cached for d in rows], counts, self.policy.device, kernels)  # type: ignore[misc]
        logits = self.policy.logits(ids_T, layout, layout.position_ids, layout.last_T)
        self.read_tokens += len(ids_T)
        for dialogue, count in zip(rows, counts, strict=True):
            dialogue.cached += count
            dialogue.unread = []
        return logits

    def _draw(self, rows: list[LocalDialogue], logits_RV: torch.Tensor, params: SamplingParams, kernels: Kernels | None) -> None:
        keys_R = np.array([d.key for d in rows], dtype=np.uint64)
        # The position counts tokens of the dialogue, so no two draws of a dialogue share one.
        uniforms_R = keyed_uniforms(keys_R, np.array([d.cached for d in rows]))
        drawn = draw(logits_RV, uniforms_R, params, kernels)
        for dialogue, token, logprob, full_logprob in zip(rows, *(x.tolist() for x in drawn), strict=True):
            reason = dialogue.take(token, logprob, full_logprob)
            if reason is not None:
                self._finish(dialogue, reason)
        self.sampled_tokens += len(rows)

    def _finish(self, dialogue: LocalDialogue, reason: StopReason) -> None:
        completion = Completion(dialogue.token_ids, dialogue.logprobs, dialogue.full_logprobs, reason, self.policy.version)
        if dialogue.request is not None and not dialogue.request.done():
            dialogue.request.set_result(completion)
        self._now_busy(dialogue)
