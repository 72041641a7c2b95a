"""The other side of `pool.py`: a nursery process that has the heavy imports done and forks workers on request.

Started as a fresh interpreter, so that neither threads nor memory nor torch come along from the training process. Single-threaded,
hence safe to fork; it owns the workers' process ids until it has reaped them, so that no kill can hit a stranger.

    parent --control socket--> nursery --fork--> worker <--job socket--> parent

Nursery and workers end when their socket's other end is gone. Messages have a 4-byte length in front. Jobs are pickled, since an
entry of reasoning-gym holds tuples and more; what comes back from a worker, which has read a model's text, is JSON and nothing else.
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

_LENGTH = struct.Struct("!I")
_PR_SET_PDEATHSIG = 1

# What a worker never needs and an answer that found a way to run would want. Not a sandbox: a second fence.
_FORBIDDEN = ("os.", "subprocess.", "shutil.", "socket.", "pty.", "ftplib.", "http.", "urllib.", "smtplib.", "webbrowser.", "ctypes.", "tempfile.", "signal.")
_HARMLESS = frozenset({"os.listdir", "os.scandir", "os.walk", "os.fwalk"})


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send one message as JSON. Raises OSError if the other end is gone."""
    _send_bytes(sock, json.dumps(message).encode())


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """Receive one JSON message, waiting for it; None at the end of the stream."""
    data = _receive_bytes(sock)
    return json.loads(data) if data else None


def send_job(sock: socket.socket, module: str, payload: dict[str, Any]) -> None:
    """Send a job to a worker. Raises OSError if it is gone, and what pickle raises if the payload cannot be sent."""
    _send_bytes(sock, pickle.dumps((module, payload)))


def _send_bytes(sock: socket.socket, data: bytes) -> None:
    sock.sendall(_LENGTH.pack(len(data)) + data)


def _receive_bytes(sock: socket.socket) -> bytes | None:
    header = _exactly(sock, _LENGTH.size)
    return _exactly(sock, _LENGTH.unpack(header)[0]) if header else None


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
    """Serve fork and kill requests until the control socket closes; then take all workers down."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C is the trainer's business
    sys.dont_write_bytecode = True
    control = socket.socket(fileno=control_fd)
    children: set[int] = set()
    with contextlib.suppress(OSError):
        while True:
            data, fds, _, _ = socket.recv_fds(control, 65536, 1)
            if not data:
                break
            request = json.loads(data)
            try:
                reply = _answer(request, fds, children, control, memory_bytes)
            except Exception as error:  # told to the parent, which reports it as a failure of the grader
                reply = {"error": f"{type(error).__name__}: {error}"}
            for fd in fds:
                os.close(fd)
            send(control, reply)
    for pid in children:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _answer(request: dict[str, Any], fds: list[int], children: set[int], control: socket.socket, memory_bytes: int) -> dict[str, Any]:
    if "kill" in request:
        return {"status": _kill(request["kill"], children)}
    if request["module"] not in sys.modules:
        getattr(importlib.import_module(request["module"]), "warm_up", lambda: None)()
        gc.collect()
        gc.freeze()  # pages shared with the workers stay shared
    mother = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            _serve(socket.socket(fileno=fds[0]), memory_bytes, mother)
        finally:
            os._exit(0)
    children.add(pid)
    return {"pid": pid}


def _kill(pid: int, children: set[int]) -> int:
    """Kill and reap one of our own children; its wait status."""
    if pid not in children:
        return 0
    children.discard(pid)
    os.kill(pid, signal.SIGKILL)  # not reaped yet, so the id is still its own, even if it is dead
    return os.waitpid(pid, 0)[1]


# ------------------------------------------------------------------------------------------------------------------- worker


def _serve(sock: socket.socket, memory_bytes: int, mother: int) -> None:
    """Do jobs until the socket closes. A job that runs out of memory ends the worker after its reply."""
    _fence(memory_bytes, mother)
    while (job := _receive_bytes(sock)) is not None:
        start = time.perf_counter()
        reply: dict[str, Any]
        try:
            module, payload = pickle.loads(job)
            reply = {"value": importlib.import_module(module).run(payload, lambda stage: send(sock, {"stage": stage}))}
        except MemoryError:
            reply = {"status": "memory"}
        except Exception as error:
            reply = {"status": "error", "detail": f"{type(error).__name__}: {str(error)[:200]}"}
        reply["ms"] = (time.perf_counter() - start) * 1000
        send(sock, reply)
        if reply.get("status") == "memory":
            return


def _fence(memory_bytes: int, mother: int) -> None:
    """Limits of a worker: it dies with the nursery, gets `memory_bytes` beyond what it has, writes no file and starts nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != mother:
            os._exit(0)
        with open("/proc/self/statm") as statm:
            in_use = int(statm.read().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, in_use + memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    sys.addaudithook(_audit)


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
