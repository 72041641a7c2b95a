"""Our ends of the nursery process and of its workers: sockets that never block, read and written by the one thread that dispatches."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mulligan.errors import GraderError
from mulligan.grading.worker import LENGTH

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from mulligan.grading.worker import nursery; nursery(int(sys.argv[2]), int(sys.argv[3]))"
_CHUNK = 65536

Task = TypeVar("Task")


@dataclass(eq=False, slots=True)
class Worker(Generic[Task]):
    """One worker process. `queue` holds what was sent to it and is not answered, the one at work first."""

    sock: socket.socket
    pid: int
    modules: frozenset[str]
    queue: deque[Task] = field(default_factory=deque)
    given: int = 0
    """Jobs sent to it so far."""
    since: float = 0.0
    """When the job at work was begun (`time.monotonic`)."""
    stage: str | None = None
    """The last stage that the job at work announced."""
    pidfd: int | None = None
    unsent: bytearray = field(default_factory=bytearray)
    _received: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.sock.setblocking(False)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self.pidfd = os.pidfd_open(self.pid)

    def send(self, data: bytes) -> None:
        """Send what the socket takes; the rest stays in `unsent`. Raises OSError if the worker is gone."""
        self.unsent += data
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent[: 16 * _CHUNK])]

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """The complete messages that have come, and whether the worker is still there."""
        alive = True
        try:
            while part := self.sock.recv(_CHUNK):
                self._received += part
                if len(part) < _CHUNK:
                    break
            else:
                alive = False
        except BlockingIOError:
            pass
        except OSError:
            alive = False
        messages = []
        while len(self._received) >= LENGTH.size and len(self._received) >= (end := LENGTH.size + LENGTH.unpack_from(self._received)[0]):
            messages.append(json.loads(self._received[LENGTH.size : end]))
            del self._received[:end]
        return messages, alive

    def kill(self) -> None:
        """SIGKILL, without waiting and without the nursery, which may be at an import. It reaps later."""
        self.sock.close()
        if self.pidfd is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.close(self.pidfd)
            self.pidfd = None


class Nursery:
    """The process that forks workers. Raises OSError where it turns out to be gone; `discard` it then and start another."""

    def __init__(self, memory_bytes: int):
        self.memory_bytes = memory_bytes
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.modules: frozenset[str] = frozenset()
        self.forking: deque[tuple[str, socket.socket]] = deque()
        """Forks that were asked for: the module, and our end of the worker's socket."""
        self._text = b""

    def start(self) -> None:
        """Start the process, if there is none."""
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
        ours.setblocking(False)
        self.control = ours

    def fork(self, module: str) -> None:
        """Ask for a worker that has `module` imported; `receive` hands it over."""
        self.start()
        assert self.control is not None
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self.control, [json.dumps({"fork": module}).encode() + b"\n"], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.forking.append((module, ours))

    def receive(self) -> list[Worker[Any] | tuple[str, GraderError]]:
        """The workers that are ready; or a module that cannot be imported, and why."""
        assert self.control is not None
        data = self.control.recv(_CHUNK)
        if not data:
            raise OSError("the process that starts grading workers ended: see its message above, or free some memory")
        *lines, self._text = (self._text + data).split(b"\n")
        ready: list[Worker[Any] | tuple[str, GraderError]] = []
        for line in lines:
            reply = json.loads(line)
            module, ours = self.forking.popleft()
            if "error" in reply:
                ours.close()
                ready.append((module, GraderError(f"a grading worker cannot import {module} ({reply['error']}): install the package it needs")))
            else:
                self.modules |= {module}
                ready.append(Worker(ours, reply["pid"], self.modules))
        return ready

    def bury(self, pid: int) -> None:
        """Have a worker killed, if it lives, and reaped. One whose nursery is gone died with it."""
        if self.control is not None:
            with contextlib.suppress(OSError):
                self.control.sendall(json.dumps({"kill": pid}).encode() + b"\n")

    def discard(self) -> None:
        """End the process and, by that, all workers."""
        self.modules, self._text = frozenset(), b""
        for _, ours in self.forking:
            ours.close()
        self.forking.clear()
        control, self.control = self.control, None
        if control is not None:
            control.close()  # it ends by that, and takes the workers along
        process, self.process = self.process, None
        if process is not None:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
