"""Locks on folders: of several processes one begins a run, and one trains in it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mulligan.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, after whoever has it; the system lets go of it when a process dies. Where there is no such lock (Windows,
    some file systems of clusters), none is held."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # NFS, for one, locks nothing that is not open for writing
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def hold(folder: Path) -> BinaryIO | None:
    """Keep other processes from training in the folder while the file that is returned is open.

    A record lock: unlike that of `alone_in` it is not handed to child processes, so that graders which outlive a killed run hold nothing,
    and NFS knows it. Within one process it keeps nobody out, and closing any file of the lock lets go of it. None where the system or the file system has no such lock.

    Raises:
        RunError: another process holds it.
        OSError: the folder cannot be written.
    """
    if fcntl is None:
        return None
    file = (folder / LOCK).open("a+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().decode("ascii", "replace").strip()
        file.close()
        raise RunError(f"another process trains in {folder} ({holder or 'unknown'}): stop it, wait for its end, or choose another --out") from None
    except OSError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
    file.flush()
    return file
