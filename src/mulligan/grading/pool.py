"""Killable worker processes: one job at a time each, a wall deadline from the start of the job, SIGKILL and a fresh one after it.

A thread of its own watches over each worker, so that deadlines hold however busy or blocked the event loop is, and nothing here
belongs to an event loop: the same pool serves successive `asyncio.run`s, and callers without any loop. Nothing starts before the
first job comes. Time in the queue and time spent on starting a worker are not grading time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from mulligan.errors import GraderError
from mulligan.grading import worker as wire

START_SECONDS = 120.0
"""Patience with the start of a worker, imports included."""
JOBS_PER_WORKER = 5_000
"""A worker is replaced after so many jobs: what its libraries cache stays bounded."""

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from mulligan.grading.worker import nursery; nursery(int(sys.argv[2]), int(sys.argv[3]))"


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


@dataclass(frozen=True, slots=True)
class _Job:
    module: str
    payload: dict[str, Any]
    deadline: float
    future: Future[Reply]


class WorkerPool:
    """`workers` processes at most. `memory_mb` is what a job may take beyond the libraries (Linux; elsewhere there is no limit)."""

    def __init__(self, workers: int = 1, *, memory_mb: int = 1024):
        self.workers = workers
        self.memory_mb = memory_mb
        self._reset()

    def _reset(self) -> None:
        self._state = _State(self.workers, self.memory_mb)
        self._finalizer = weakref.finalize(self, _State.shutdown, self._state)

    def submit(self, module: str, payload: dict[str, Any], deadline: float) -> Future[Reply]:
        """Queue `module.run(payload, progress)` (the payload picklable, the result JSON-able) with `deadline` seconds of wall clock from its start.

        The future always resolves to a `Reply`; it never raises, unless it is cancelled.
        """
        if self._state.pid != os.getpid():  # forked: the threads and the processes are the parent's, start over
            self._finalizer.detach()
            self._reset()
        job = _Job(module, payload, deadline, Future())
        self._state.submit(job)
        return job.future

    async def run(self, module: str, payload: dict[str, Any], deadline: float) -> Reply:
        """`submit` for coroutines: waits without blocking the event loop."""
        return await asyncio.wrap_future(self.submit(module, payload, deadline))

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return [slot.worker.pid for slot in self._state.slots if slot.worker is not None]

    @property
    def started(self) -> bool:
        """Whether any process has been started."""
        return self._state.nursery.process is not None

    def close(self) -> None:
        """End all workers; jobs that are not done resolve as unavailable. Calling it twice is harmless."""
        self._finalizer()


class _State:
    """What the watching threads share. They hold this and not the pool, so that a forgotten pool is closed by the collector."""

    def __init__(self, workers: int, memory_mb: int):
        self.pid = os.getpid()
        self.workers = workers
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.nursery = _Nursery(memory_mb)
        self.slots: list[_Slot] = []
        self.lock = threading.Lock()
        self.pending = 0
        self.closed = False

    def submit(self, job: _Job) -> None:
        with self.lock:
            if self.closed:
                job.future.set_result(Reply("unavailable", detail="the grader was closed"))
                return
            self.pending += 1
            if self.pending > len(self.slots) and len(self.slots) < self.workers:
                slot = _Slot(self)
                self.slots.append(slot)
                threading.Thread(target=slot.watch, name=f"grading-{len(self.slots)}", daemon=True).start()
            self.jobs.put(job)

    def shutdown(self) -> None:
        if self.pid != os.getpid():
            return
        with self.lock:
            if self.closed:
                return
            self.closed = True
        self.nursery.stop()
        for _ in self.slots:
            self.jobs.put(None)


class _Slot:
    """One worker and the thread that feeds it."""

    def __init__(self, state: _State):
        self.state = state
        self.worker: _Worker | None = None

    def watch(self) -> None:
        while (job := self.state.jobs.get()) is not None:
            try:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_result(self._reply(job))
            finally:
                with self.state.lock:
                    self.state.pending -= 1
        self._drop()

    def _reply(self, job: _Job) -> Reply:
        try:
            return self._do(job)
        except Exception as error:  # e.g. a payload that cannot be pickled: one job's fault must not end the thread
            self._drop()
            return Reply("error", detail=f"{type(error).__name__}: {error}")

    def _do(self, job: _Job) -> Reply:
        """Run a job. One whose worker dies is tried once more, in what is left of its time: the worker may have been ill before,
        or killed from outside."""
        left = job.deadline
        reply = Reply("unavailable")
        for _ in range(2):
            if self.state.closed:
                return Reply("unavailable", detail="the grader was closed")
            if self.worker is not None and job.module not in self.worker.modules:
                self._drop()  # the nursery imports it, so that its import is no job's time
            try:
                worker = self.worker = self.worker or self.state.nursery.fork(job.module)
            except (OSError, GraderError) as error:
                return Reply("unavailable", detail=str(error))
            start = time.monotonic()
            reply = worker.do(job, start + left)
            left -= time.monotonic() - start
            if reply.status not in ("ok", "error") or worker.jobs >= JOBS_PER_WORKER:
                self._drop()
            if reply.status != "died" or left <= 0:
                break
        return reply

    def _drop(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.sock.close()
            with contextlib.suppress(OSError, GraderError):
                self.state.nursery.kill(worker.pid)


class _Worker:
    """Our end of one worker process."""

    def __init__(self, sock: socket.socket, pid: int, modules: frozenset[str]):
        self.sock = sock
        self.pid = pid
        self.modules = modules
        self.jobs = 0

    def do(self, job: _Job, end: float) -> Reply:
        """Send the job and wait for its end, at most until `end` (`time.monotonic`)."""
        self.jobs += 1
        start = time.monotonic()
        stage = None
        try:
            wire.send_job(self.sock, job.module, job.payload)
            while self._readable(end):
                message = wire.receive(self.sock)
                if message is None:
                    break
                if "stage" not in message:
                    return Reply(message.get("status", "ok"), message.get("value"), stage, message.get("detail", ""), message["ms"])
                stage = message["stage"]
            else:
                return Reply("timeout", stage=stage, ms=(time.monotonic() - start) * 1000)
        except OSError:
            pass
        return Reply("died", stage=stage, ms=(time.monotonic() - start) * 1000)

    def _readable(self, end: float) -> bool:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        # One look at least: this thread may come late, and an answer that lies there is an answer.
        return bool(poll.poll(max(0.0, end - time.monotonic()) * 1000))


class _Nursery:
    """Our end of the nursery process; started by the first fork, and again if it has died."""

    def __init__(self, memory_mb: int):
        self.memory_bytes = memory_mb * 1024 * 1024
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.modules: frozenset[str] = frozenset()
        self.lock = threading.Lock()
        self.stopped = False

    def fork(self, module: str) -> _Worker:
        """A fresh worker that has `module` imported. Raises GraderError or OSError if there can be none."""
        with self.lock:
            for last in (False, True):
                ours, theirs = socket.socketpair()
                try:
                    self._start()
                    reply = self._ask({"module": module}, theirs)
                except OSError:
                    ours.close()
                    self._discard()
                    if last or self.stopped:
                        raise
                    continue
                finally:
                    theirs.close()
                if "error" in reply:
                    ours.close()
                    raise GraderError(f"a grading worker cannot import {module} ({reply['error']}): install the package it needs")
                self.modules |= {module}
                return _Worker(ours, reply["pid"], self.modules)
        raise AssertionError("unreachable")

    def kill(self, pid: int) -> None:
        """Kill a worker and wait for its end. A worker whose nursery is gone died with it."""
        with self.lock:
            if self.control is not None:
                self._ask({"kill": pid})

    def stop(self) -> None:
        """End the nursery and, by that, all workers."""
        self.stopped = True
        control = self.control
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a reply, too
        with self.lock:
            self._discard()

    def _start(self) -> None:
        if self.stopped:
            raise GraderError("the grader was closed: make a new one")
        if self.process is not None:
            return
        ours, theirs = socket.socketpair()
        # The hash seed fixes the order of SymPy's sets, and with it verdicts; numeric libraries must start no threads before a fork.
        env = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno()), str(self.memory_bytes)]
        try:
            self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(START_SECONDS)
        self.control = ours

    def _ask(self, request: dict[str, Any], pass_socket: socket.socket | None = None) -> dict[str, Any]:
        control = self.control
        if control is None:
            raise OSError("the grading processes are gone")
        socket.send_fds(control, [json.dumps(request).encode()], [pass_socket.fileno()] if pass_socket else [])
        reply = wire.receive(control)
        if reply is None:
            raise OSError("the process that starts grading workers ended: see its message above, or free some memory")
        return reply

    def _discard(self) -> None:
        self.modules = frozenset()
        control, self.control = self.control, None
        if control is not None:
            control.close()
        process, self.process = self.process, None
        if process is None:
            return
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
