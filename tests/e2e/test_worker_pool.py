"""Worker processes of quickstart and reproduce end with the process that started them, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SCRIPT = """
import os, sys, time
from pathlib import Path
from rich.console import Console
from mulligan.jobs import worker_pool

def work(path, report):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    with worker_pool(Console(stderr=True), ["one"], 1) as submit:
        submit(work, sys.argv[1]).result()
"""


KILLED = """
import os, signal, sys
from rich.console import Console
from mulligan.errors import RunError
from mulligan.jobs import Task, run_tasks, worker_pool

def killed(report):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    try:
        with worker_pool(Console(stderr=True), ["one"], 1) as submit:
            run_tasks([Task("one", killed, ()), Task("two", killed, ())], submit, 1)
    except RunError as error:
        print(error)
"""


def test_a_killed_worker_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(KILLED)
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("one: the process was killed, most likely for want of memory"), done
    assert "Traceback" not in done.stderr


def test_a_killed_parent_leaves_no_worker_behind(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    told = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(told)])
    try:
        assert _within(120, lambda: told.exists() and told.read_text() != "")
        assert int(told.read_text()) in (started := _children(parent.pid))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _within(30, lambda: not any(map(_runs, started))), "workers, and whatever serves them"


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def _runs(pid: int) -> bool:
    """Whether the process is there, and not merely waiting to be collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def _children(pid: int) -> list[int]:
    """From the files /proc/PID/stat: PID (NAME) STATE PARENT ..."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may end in between
            stat = path.read_text()
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.split()[0]))
    return found
