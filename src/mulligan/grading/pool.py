"""Killable worker processes: one job at a time each, a wall deadline from the start of the job, SIGKILL and a fresh one after it.

One thread (`dispatch.py`) watches over the workers, so that deadlines hold however busy or blocked the event loop is, and nothing
here belongs to an event loop: the same pool serves successive `asyncio.run`s, and callers without any loop. Nothing starts before
the first job comes. Time in the queue and time spent on starting a worker are not grading time.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from concurrent.futures import Future
from typing import Any

from mulligan.grading.dispatch import Dispatcher, Job, Reply

__all__ = ["Reply", "WorkerPool", "default_workers"]

MOST_BY_DEFAULT = 8


def default_workers() -> int:
    """As many as there are cores for this process, up to 8: while a step waits for verdicts, little else runs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_BY_DEFAULT)


class WorkerPool:
    """`workers` jobs at once at most (None: see `default_workers`). `memory_mb` is what a job may take beyond the libraries (Linux;
    elsewhere there is no limit). One process more is kept ready, to stand in for one that was killed."""

    def __init__(self, workers: int | None = None, *, memory_mb: int = 1024):
        self.workers = workers or default_workers()
        self.memory_mb = memory_mb
        self._reset()

    def _reset(self) -> None:
        self._state = Dispatcher(self.workers, self.memory_mb)
        self._finalizer = weakref.finalize(self, Dispatcher.shutdown, self._state)

    def submit(self, module: str, payload: dict[str, Any], deadline: float, *, later: bool = False) -> Future[Reply]:
        """Queue `module.run(payload, progress)` (the payload picklable, the result JSON-able) with `deadline` seconds of wall clock from its start.

        `later`: it looks as if it took long; it begins when those that do not are done. A job may be begun more than once: after its
        worker died, or because it held up others. The future always resolves to a
        `Reply`; it never raises, unless it is cancelled. Returns at once.
        """
        if self._state.pid != os.getpid():  # forked: the thread and the processes are the parent's, start over
            self._finalizer.detach()
            self._reset()
        job = Job(module, payload, deadline, Future(), long=later)
        self._state.submit(job)
        return job.future

    async def run(self, module: str, payload: dict[str, Any], deadline: float) -> Reply:
        """`submit` for coroutines: waits without blocking the event loop."""
        return await asyncio.wrap_future(self.submit(module, payload, deadline))

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers, those at work first, the one in reserve among them."""
        return [w.pid for w in sorted(self._state.workers.copy(), key=lambda w: not w.queue)]

    @property
    def started(self) -> bool:
        """Whether any process has been started."""
        return self._state.nursery.process is not None

    def close(self) -> None:
        """End all workers; jobs that are not done resolve as unavailable. Calling it twice is harmless."""
        self._finalizer()
