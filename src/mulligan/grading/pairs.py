"""Many pairs of gold and answer at once, in order: the fast path here while the workers do the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

from mulligan.errors import ConfigError
from mulligan.grading.cache import VerdictCache
from mulligan.grading.entry_points import KINDS, check_kind
from mulligan.grading.grader import DEADLINE, Work, bare_problem, begin_answer, begin_text, grade_text, recall, settle
from mulligan.grading.pool import Reply, WorkerPool
from mulligan.types import Verdict

AHEAD = 2_000
"""Pairs that are begun before the first of them is handed back."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A gold answer with a whole attempt (`text`, its answer in a box) or an answer that is cut out already (`answer`)."""

    gold: str
    text: str | None = None
    answer: str | None = None
    kind: str = "math"


def grade_pairs(pairs: Iterable[Pair], *, workers: int | None = None, deadline: float = DEADLINE) -> Iterator[Verdict]:
    """Verdicts in the order of the pairs, lazily. `workers` None: as many as there are cores. `deadline`: seconds for one answer.

    Raises:
        ConfigError: a pair's kind does not exist or needs more than a gold answer.
    """
    pool = WorkerPool(workers)
    cache: VerdictCache[Verdict] = VerdictCache()
    waiting: deque[Verdict | tuple[Work, Future[Reply]]] = deque()
    try:
        for pair in pairs:
            waiting.append(_begin(pair, pool, cache, deadline))
            while waiting and (len(waiting) >= AHEAD or _ready(waiting[0])):
                yield _end(waiting.popleft(), cache)
        while waiting:
            yield _end(waiting.popleft(), cache)
    finally:
        pool.close()


def _begin(pair: Pair, pool: WorkerPool, cache: VerdictCache[Verdict], deadline: float) -> Verdict | tuple[Work, Future[Reply]]:
    if (pair.text is None) == (pair.answer is None):
        raise ConfigError("a pair has either a text or an answer: give one of them")
    if check_kind(pair.kind) not in KINDS:
        if pair.text is None:
            raise ConfigError(f"grader {pair.kind!r} reads whole texts: give a text")
        return grade_text(pair.gold, pair.text, kind=pair.kind, deadline=deadline)
    problem = bare_problem(pair.gold, pair.kind)
    found = begin_answer(problem, pair.answer) if pair.answer is not None else begin_text(problem, pair.text or "")
    if isinstance(found, Verdict):
        return found
    known = recall(cache, found)
    if known is not None:
        return replace(known, ms=0.0)
    return (found, pool.submit(found.module, found.payload, deadline))


def _ready(one: Verdict | tuple[Work, Future[Reply]]) -> bool:
    return isinstance(one, Verdict) or one[1].done()


def _end(one: Verdict | tuple[Work, Future[Reply]], cache: VerdictCache[Verdict]) -> Verdict:
    if isinstance(one, Verdict):
        return one
    work, future = one
    return settle(cache, work, future.result())
