"""The other side of `pool.py`: a nursery process that has the heavy imports done and forks workers on request.

Started as a fresh interpreter, so that neither threads nor memory nor torch come along from the training process. Single-threaded,
hence safe to fork; it owns the workers' process ids until it has reaped them, so that no kill can hit a stranger.

    parent --control socket--> nursery --fork--> worker <--job socket--> parent

Nursery and workers end when their socket's other end is gone. Requests to the nursery are lines of JSON; messages of a job have a
4-byte length in front. Jobs are pickled, since an entry of reasoning-gym holds tuples and more; what comes back from a worker, which
has read a model's text, is JSON and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from typing import Any

LENGTH = struct.Struct("!I")
OWN_DEADLINE = 0.02
"""Seconds past its deadline at which a job's process ends by itself: its parent, which comes first, may be held up."""
_PR_SET_PDEATHSIG = 1
_LOOK_AFTER = 0.05
"""A job that ran for so many seconds may have left memory behind; others are looked at now and then."""
_LOOK_EVERY = 256

# What a worker never needs and an answer that found a way to run would want. Not a sandbox: a second fence.
_FORBIDDEN = ("os.", "subprocess.", "shutil.", "socket.", "pty.", "ftplib.", "http.", "urllib.", "smtplib.", "webbrowser.", "ctypes.", "tempfile.", "signal.")
_HARMLESS = frozenset({"os.listdir", "os.scandir", "os.walk", "os.fwalk"})


def frame(data: bytes) -> bytes:
    """`data` with its length in front."""
    return LENGTH.pack(len(data)) + data


def pack_job(module: str, payload: dict[str, Any], deadline: float) -> bytes:
    """A job as a worker reads it. Raises what pickle raises if the payload cannot be sent."""
    return frame(pickle.dumps((module, payload, deadline)))


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send one message as JSON. Raises OSError if the other end is gone."""
    sock.sendall(frame(json.dumps(message).encode()))


def _receive(sock: socket.socket) -> bytes | None:
    header = _exactly(sock, LENGTH.size)
    return _exactly(sock, LENGTH.unpack(header)[0]) if header else None


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


# ------------------------------------------------------------------------------------------------------------------ nursery


def nursery(control_fd: int, memory_bytes: int) -> None:
    """Serve requests until the control socket closes; then take all workers down.

    `{"fork": module}`, with the worker's end of its job socket: answers `{"pid": ...}` or `{"error": ...}`, in the order asked.
    `{"kill": pid}`: kill, if it lives, and reap; no answer.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C is the trainer's business
    sys.dont_write_bytecode = True
    control = socket.socket(fileno=control_fd)
    children: set[int] = set()
    dying: set[int] = set()
    text = b""
    fds: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            data, more, _, _ = socket.recv_fds(control, 65536, 64)
            if not data:
                break
            fds += more
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if "kill" in request:
                    _kill(request["kill"], children, dying)
                else:
                    reply = _fork(request["fork"], fds, children, control, memory_bytes)
                    control.sendall(json.dumps(reply).encode() + b"\n")
            _reap(dying)
    for pid in children:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)  # nothing to tidy up, and somebody may be waiting


def _fork(module: str, fds: list[int], children: set[int], control: socket.socket, memory_bytes: int) -> dict[str, Any]:
    """Fork a worker that has `module` imported and serves the first of `fds`."""
    fd = fds.pop(0)
    try:
        if module not in sys.modules:
            getattr(importlib.import_module(module), "warm_up", lambda: None)()
            gc.collect()
            gc.freeze()  # pages shared with the workers stay shared
        mother = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                control.close()
                for other in fds:  # a second holder would hide the end of that worker from the parent
                    os.close(other)
                _serve(socket.socket(fileno=fd), memory_bytes, mother)
            finally:
                os._exit(0)
        children.add(pid)
        return {"pid": pid}
    except Exception as error:  # told to the parent, which reports it as a failure of the grader
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        os.close(fd)


def _kill(pid: int, children: set[int], dying: set[int]) -> None:
    """Kill one of our own children. It is reaped later: to free its memory can take longer than the next request can wait."""
    if pid in children:
        children.discard(pid)
        dying.add(pid)
        os.kill(pid, signal.SIGKILL)  # not reaped yet, so the id is still its own, even if it is dead


def _reap(dying: set[int]) -> None:
    for pid in tuple(dying):
        if os.waitpid(pid, os.WNOHANG)[0]:
            dying.discard(pid)


# ------------------------------------------------------------------------------------------------------------------- worker


def _serve(sock: socket.socket, memory_bytes: int, mother: int) -> None:
    """Do jobs until the socket closes. A reply with `last` is the last: the worker has run out of memory, or holds on to too much.

    `end` (`time.monotonic`, one clock for all processes of a machine) tells the parent when the next job in the socket was begun.
    """
    most = _fence(memory_bytes, mother)
    jobs = 0
    while (job := _receive(sock)) is not None:
        start = time.monotonic()
        jobs += 1
        reply = _do(job, sock)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        spent = time.monotonic() - start
        reply["ms"] = spent * 1000
        if reply.get("status") == "memory" or ((spent > _LOOK_AFTER or jobs % _LOOK_EVERY == 0) and _in_use() > most):
            reply["last"] = True
        reply["end"] = time.monotonic()
        send(sock, reply)
        if "last" in reply:
            return


def _do(job: bytes, sock: socket.socket) -> dict[str, Any]:
    try:
        module, payload, deadline = pickle.loads(job)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also in the midst of a computation that hears no handler
        signal.setitimer(signal.ITIMER_REAL, deadline + OWN_DEADLINE)
        return {"value": importlib.import_module(module).run(payload, lambda stage: send(sock, {"stage": stage}))}
    except MemoryError:
        return {"status": "memory"}
    except Exception as error:
        return {"status": "error", "detail": f"{type(error).__name__}: {str(error)[:200]}"}


def _fence(memory_bytes: int, mother: int) -> int:
    """Limits of a worker: it dies with the nursery, gets `memory_bytes` beyond what it has, writes no file and starts nothing.

    Returns the bytes in use beyond which it should be replaced, since the next job would find too little left.
    """
    in_use = 0
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != mother:
            os._exit(0)
        in_use = _in_use()
        _limit(resource.RLIMIT_AS, in_use + memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    sys.addaudithook(_audit)
    return in_use + memory_bytes // 2


def _in_use() -> int:
    """Bytes of address space; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _limit(kind: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower hard limit is in force already
        resource.setrlimit(kind, (value, value))


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        mode, flags = args[1], args[2]
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            raise PermissionError("a grading worker writes no files")
    elif event.startswith(_FORBIDDEN) and event not in _HARMLESS:
        raise PermissionError(f"a grading worker does not do {event}")
