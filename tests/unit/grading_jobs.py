"""Jobs for the worker pool's tests; imported by workers, never by pytest as a test."""

import os
import socket
import subprocess
import sys
import time


def run(payload, progress):
    return globals()[payload["do"]](payload, progress)


def add(payload, progress):
    return {"sum": payload["a"] + payload["b"], "pid": os.getpid(), "torch": "torch" in sys.modules}


def sleep(payload, progress):
    progress("asleep")
    time.sleep(payload["seconds"])
    return {"pid": os.getpid()}


def die(payload, progress):
    progress("dying")
    os._exit(3)


def fail(payload, progress):
    raise KeyError("no such thing")


def hoard(payload, progress):
    return {"size": len(bytearray(payload["bytes"]))}


def misbehave(payload, progress):
    """Tries to leave traces; says which of the attempts were refused."""
    attempts = {
        "write": lambda: open(payload["marker"], "w"),  # noqa: SIM115
        "low_level": lambda: os.open(payload["marker"], os.O_CREAT | os.O_WRONLY),
        "system": lambda: os.system(f"touch {payload['marker']}"),
        "process": lambda: subprocess.run(["touch", payload["marker"]]),
        "remove": lambda: os.remove(__file__),
        "connect": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    }
    refused = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            refused.append(name)
    return {"refused": refused}


def spin(payload, progress):
    """Works without a pause, as a bomb does."""
    progress("spinning")
    end = time.monotonic() + payload["seconds"]
    while time.monotonic() < end:
        sum(range(1000))
    return {"pid": os.getpid()}


_KEPT = []


def keep(payload, progress):
    """Holds on to memory after the job, as a cache does."""
    time.sleep(payload.get("seconds", 0.0))
    _KEPT.append(bytearray(payload["bytes"]))
    return {"pid": os.getpid()}


def echo(payload, progress):
    return {"size": len(payload["data"]), "data": payload["data"][: payload.get("back", 0)]}


def ignore_alarm(payload, progress):
    """Takes the worker's own clock away."""
    import signal

    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(payload["seconds"])
    return {}
