"""The thread that hands jobs to worker processes and keeps their time. It holds no thread up but itself, and belongs to no event loop.

Jobs go to whichever worker is free. While many small ones wait, a worker has the next few in its socket already, so that it need not
wait for this thread, which shares the interpreter with whatever else the program does; the clock of each begins when the one before
it ended. A job that is not done after `SLICE` while others wait is put back, to begin again, with its whole deadline, when they are
done: an answer that takes for ever holds up the others for a moment instead of a deadline.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from mulligan.grading.nursery import Nursery, Worker
from mulligan.grading.worker import pack_job

START_SECONDS = 120.0
"""Patience with the start of a worker, imports included."""
JOBS_PER_WORKER = 5_000
"""A worker is replaced after so many jobs: what its libraries cache stays bounded."""
SLICE = 0.1
"""Seconds that a job may hold up others that wait."""
LONG_EVERY = 3.0
"""While new jobs wait, one of those that were put back begins every so many seconds."""
DEPTH = 8
"""Jobs that a worker may have in its socket."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a job. `stage` is the last stage that the job itself announced before it ended; `ms` its own running time."""

    status: Literal["ok", "error", "timeout", "memory", "died", "unavailable"]
    """ok: `value` holds the result. error: the job raised. timeout, memory: it was stopped by a limit. died: its process ended.
    unavailable: no worker could be started (or the pool is closed); the job never ran."""
    value: dict[str, Any] | None = None
    stage: str | None = None
    detail: str = ""
    ms: float = 0.0


@dataclass(eq=False, slots=True)
class Job:
    """`left`: seconds that it may run. `long`: it was put back once, or is known to take long. `tries`: how often a worker was lost with it."""

    module: str
    payload: dict[str, Any]
    left: float
    future: Future[Reply]
    claimed: bool = False
    long: bool = False
    put_back: bool = False
    tries: int = 0
    sent: float = 0.0

    def claim(self) -> bool:
        """Whether anybody still wants it; from then on it cannot be cancelled."""
        self.claimed = self.claimed or self.future.set_running_or_notify_cancel()
        return self.claimed


CLOSED = Reply("unavailable", detail="the grader was closed")


class Dispatcher:
    """All state but `inbox`, `closed` and `asleep`, which `lock` guards, belongs to the thread."""

    def __init__(self, workers: int, memory_mb: int):
        self.pid = os.getpid()
        self.size = workers
        self.lock = threading.Lock()
        self.inbox: deque[Job] = deque()
        self.closed = False
        self.asleep = False
        self.thread: threading.Thread | None = None
        self.nursery = Nursery(memory_mb * 1024 * 1024)
        self.workers: list[Worker[Job]] = []
        self._fresh: dict[str, deque[Job]] = {}
        self._long: dict[str, deque[Job]] = {}
        self._long_turn = 0.0
        self._needed = 0
        """The most jobs at once so far, up to `size`: the strength that is kept."""
        self._failures = 0
        """Nurseries that ended in a row without a worker."""
        self._fork_asked = 0.0

    # ------------------------------------------------------------------------------------------------------- any thread

    def submit(self, job: Job) -> None:
        with self.lock:
            if not self.closed:
                if self.thread is None:
                    self._wake, self._woken = socket.socketpair()
                    self.thread = threading.Thread(target=self._run, name="grading", daemon=True)
                    self.thread.start()
                self.inbox.append(job)
                self._rouse()
                return
        job.future.set_result(CLOSED)

    def shutdown(self) -> None:
        if self.pid != os.getpid():
            return
        with self.lock:
            self.closed = True
            self._rouse()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(2.0)

    def _rouse(self) -> None:
        if self.asleep:
            self.asleep = False
            with contextlib.suppress(OSError):
                self._wake.send(b"x")

    # -------------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        end = CLOSED
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ, lambda mask: self._woken.recv(4096))
        try:
            while self._round():
                pass
        except Exception as error:  # a fault of ours: whoever waits is told, and nobody waits for ever
            end = Reply("unavailable", detail=f"the dispatcher of grading jobs failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._end(end)

    def _round(self) -> bool:
        with self.lock:
            if self.closed:
                return False
            while self.inbox:
                self._put_last(self.inbox.popleft())
        self._dispatch()
        patience = self._patience()
        with self.lock:
            if self.inbox or self.closed:
                patience = 0.0
            self.asleep = patience != 0.0
        events = self._selector.select(patience)
        self.asleep = False
        for key, mask in events:
            key.data(mask)
        self._look_at_clocks()
        return True

    def _end(self, reply: Reply) -> None:
        with self.lock:
            self.closed = True
            jobs = [*self.inbox]
        for queues in (self._fresh, self._long):
            jobs += [job for queue in queues.values() for job in queue]
        for worker in self.workers:
            jobs += worker.queue
            worker.kill()
        self.workers = []
        self.nursery.discard()
        for job in jobs:
            self._resolve(job, reply)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _resolve(self, job: Job, reply: Reply) -> None:
        if job.claim():
            job.future.set_result(reply)

    # ------------------------------------------------------------------------------------------------- who does what when

    def _dispatch(self) -> None:
        waiting = sum(map(len, self._fresh.values())) + sum(map(len, self._long.values()))
        if waiting:
            self._needed = max(self._needed, min(self.size, waiting + self._busy()))
        for module, queue in self._queues():
            while queue and (worker := self._free(module)):
                self._give(worker, queue.popleft())
            if queue and self._busy() == self.size and queue is self._fresh.get(module) and not self._long_due():
                self._fill(module, queue)
            if queue:
                self._make_room(module)
        self._keep_strength()

    def _queues(self) -> Iterator[tuple[str, deque[Job]]]:
        """Queues in the order of their turn: new jobs, then long ones; but now and then a long one comes first."""
        if any(self._fresh.values()) and self._long_due():
            module, queue = next((m, q) for m, q in self._long.items() if q)
            if worker := self._free(module):
                self._long_turn = time.monotonic() + LONG_EVERY
                self._give(worker, queue.popleft())
        yield from list(self._fresh.items())
        if not any(self._fresh.values()):
            yield from list(self._long.items())

    def _long_due(self) -> bool:
        return any(self._long.values()) and time.monotonic() >= self._long_turn

    def _busy(self) -> int:
        return sum(1 for worker in self.workers if worker.queue)

    def _free(self, module: str) -> Worker[Job] | None:
        if self._busy() >= self.size:
            return None
        return next((w for w in self.workers if not w.queue and module in w.modules), None)

    def _give(self, worker: Worker[Job], job: Job) -> None:
        if not job.claim():
            return
        try:
            data = pack_job(job.module, job.payload, job.left)
        except Exception as error:  # a payload that cannot be pickled
            self._resolve(job, Reply("error", detail=f"{type(error).__name__}: {error}"))
            return
        job.sent = time.monotonic()
        if not worker.queue:
            worker.since, worker.stage = job.sent, None
        worker.queue.append(job)
        worker.given += 1
        self._flush(worker, data)

    def _flush(self, worker: Worker[Job], data: bytes = b"") -> None:
        had = bool(worker.unsent)
        try:
            worker.send(data)
        except OSError:
            return  # it is gone; reading will say so
        if had or worker.unsent:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.unsent else 0)
            self._selector.modify(worker.sock, events, self._handler(worker))

    def _fill(self, module: str, queue: deque[Job]) -> None:
        """Give busy workers more, so that they need not wait for us; few where few are left, so that they end together."""
        for worker in self.workers:
            depth = min(DEPTH, len(queue) // (2 * self.size))
            if not worker.queue or worker.queue[0].long or module not in worker.modules:
                continue
            while queue and len(worker.queue) < depth and worker.given < JOBS_PER_WORKER and not worker.unsent:
                self._give(worker, queue.popleft())

    def _make_room(self, module: str) -> None:
        """Retire an idle worker that lacks the module, if no other can come: the nursery imports it, so that its import is no job's time."""
        if not self.nursery.forking and len(self.workers) > self._needed and not any(module in w.modules for w in self.workers if not w.queue):
            idle = next((w for w in self.workers if not w.queue), None)
            if idle is not None:
                self._remove(idle)

    def _keep_strength(self) -> None:
        """Fork up to the strength once needed and one more, so that one that was killed is replaced at once.

        Not after a failure while nobody waits: something is wrong with the machine, and it would go on for ever.
        """
        modules = [m for queues in (self._fresh, self._long) for m, queue in queues.items() if queue]
        if not self._needed or (self._failures and not modules):
            return
        lacking = [m for m in modules if not any(m in w.modules for w in self.workers) and not any(m == f for f, _ in self.nursery.forking)]
        try:
            while len(self.workers) + len(self.nursery.forking) <= self._needed:
                modules = lacking or modules or [*self._fresh] or [*self._long]
                self._fork_asked = self._fork_asked if self.nursery.forking else time.monotonic()
                fresh = self.nursery.process is None
                self.nursery.fork(modules[0])
                if fresh and self.nursery.control is not None:
                    self._selector.register(self.nursery.control, selectors.EVENT_READ, lambda mask: self._hear_nursery())
                lacking = []
        except OSError as error:
            self._nursery_failed(error)

    # ------------------------------------------------------------------------------------------------------------- events

    def _handler(self, worker: Worker[Job]) -> Callable[[int], None]:
        return lambda mask: self._hear(worker, mask)

    def _hear_nursery(self) -> None:
        if self.nursery.control is None:
            return
        try:
            ready = self.nursery.receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._nursery_failed(error)
            return
        for found in ready:
            if isinstance(found, Worker):
                self._failures = 0
                self.workers.append(found)
                self._selector.register(found.sock, selectors.EVENT_READ, self._handler(found))
            else:
                self._give_up(str(found[1]), found[0])

    def _nursery_failed(self, error: OSError) -> None:
        """Start over; the second time in a row that not one worker came, those who wait are told."""
        if self.nursery.control is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self.nursery.control)
        self._failures += 1
        self.nursery.discard()
        if self._failures > 1:
            self._give_up(str(error))
        else:
            self._keep_strength()

    def _give_up(self, detail: str, module: str | None = None) -> None:
        for queues in (self._fresh, self._long):
            for name in [module] if module else list(queues):
                for job in queues.pop(name, ()):
                    self._resolve(job, Reply("unavailable", detail=detail))
        if not self._fresh and not self._long:
            self._needed = 0

    def _hear(self, worker: Worker[Job], mask: int = selectors.EVENT_READ) -> None:
        if worker not in self.workers:  # removed by an earlier event of the same round
            return
        if mask & selectors.EVENT_WRITE:
            self._flush(worker)
        messages, alive = worker.receive()
        for message in messages:
            if "stage" in message:
                worker.stage = message["stage"]
            elif worker.queue:
                self._answered(worker, message)
        if not alive and worker in self.workers:
            self._lost(worker)

    def _answered(self, worker: Worker[Job], message: dict[str, Any]) -> None:
        job = worker.queue.popleft()
        status = message.get("status", "ok")
        if status == "memory" and worker.given - len(worker.queue) > 1 and not job.tries:
            self._again(job, message["ms"] / 1000)  # earlier jobs may have left it too little
        else:
            self._resolve(job, Reply(status, message.get("value"), worker.stage, message.get("detail", ""), message["ms"]))
        worker.stage = None
        if worker.queue:
            worker.since = max(message["end"], worker.queue[0].sent)
        if "last" in message or (not worker.queue and worker.given >= JOBS_PER_WORKER):
            self._remove(worker)

    def _lost(self, worker: Worker[Job]) -> None:
        """A worker has ended. Its job is tried once more, in what is left of its time: the worker may have been ill before, or been
        killed from outside. At its deadline it ends by itself."""
        job = worker.queue.popleft() if worker.queue else None
        spent = time.monotonic() - worker.since
        self._remove(worker)
        if job is not None and spent < job.left and not job.tries:
            self._again(job, spent)
        elif job is not None:
            self._resolve(job, Reply("died" if spent < job.left else "timeout", stage=worker.stage, ms=spent * 1000))

    def _again(self, job: Job, spent: float) -> None:
        job.tries += 1
        job.left -= spent
        self._put_first(job)

    def _put_last(self, job: Job) -> None:
        if job.long and not any(self._long.values()):
            self._long_turn = max(self._long_turn, time.monotonic() + LONG_EVERY)
        queue = (self._long if job.long else self._fresh).setdefault(job.module, deque())
        # Those that were put back come before those that were known to take long: they may have been unlucky.
        place = next((i for i, other in enumerate(queue) if not other.put_back), len(queue)) if job.put_back else len(queue)
        queue.insert(place, job)

    def _put_first(self, job: Job) -> None:
        (self._long if job.long else self._fresh).setdefault(job.module, deque()).appendleft(job)

    def _remove(self, worker: Worker[Job]) -> None:
        """Kill a worker; what it has not begun goes back to the front."""
        self.workers.remove(worker)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(worker.sock)
        worker.kill()
        self.nursery.bury(worker.pid)
        while worker.queue:
            self._put_first(worker.queue.pop())

    # ------------------------------------------------------------------------------------------------------------- clocks

    def _held_up(self, worker: Worker[Job]) -> bool:
        """Whether others wait for a job that is new."""
        return not worker.queue[0].long and (len(worker.queue) > 1 or any(self._fresh.values()))

    def _patience(self) -> float | None:
        """Seconds until a clock runs out."""
        ends = [w.since + (min(SLICE, w.queue[0].left) if self._held_up(w) else w.queue[0].left) for w in self.workers if w.queue]
        if self.nursery.forking:
            ends.append(self._fork_asked + START_SECONDS)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _look_at_clocks(self) -> None:
        for worker in [w for w in self.workers if w.queue]:
            job = worker.queue[0]
            if time.monotonic() - worker.since < min(job.left, SLICE):
                continue
            self._hear(worker)  # this thread may come late, and an answer that lies there is an answer
            if not (worker.queue and worker.queue[0] is job and worker in self.workers):
                continue
            spent = time.monotonic() - worker.since
            if spent >= job.left:
                worker.queue.popleft()
                self._resolve(job, Reply("timeout", stage=worker.stage, ms=spent * 1000))
                self._remove(worker)
            elif spent >= SLICE and self._held_up(worker):
                worker.queue.popleft()
                job.long = job.put_back = True
                self._put_last(job)
                self._remove(worker)
        if self.nursery.forking and time.monotonic() - self._fork_asked > START_SECONDS:
            self._nursery_failed(OSError(f"a grading worker did not start within {START_SECONDS:.0f} s"))



