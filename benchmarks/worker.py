"""Contenders are processes that stay alive and take one job at a time: JSON lines on standard input and output.

The driver holds one `Worker` per contender and lets one of them run at a time; the others are stopped (SIGSTOP), so that nobody
spins on a core while another is measured. The child side is `Channel`. This module needs the standard library alone: the child may
run in another environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 900
JOB_SECONDS = 3600
_TICKS = os.sysconf("SC_CLK_TCK")


class WorkerFailed(Exception):
    """A contender did not start, raised, or ended; the message is its own."""


# ------------------------------------------------------------------------------------------------------------------ child side


class Channel:
    """The child's end. What libraries print goes to standard error: standard output belongs to the driver."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, message: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def receive(self) -> dict[str, Any] | None:
        """The next job; None when the driver is done."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def serve(self, function: Callable[[dict[str, Any]], Mapping[str, Any]], **ready: Any) -> None:
        """Say that all is loaded, then answer jobs until there are no more."""
        self.send({"ready": True, **ready})
        while (job := self.receive()) is not None:
            self.send(function(job))


def main() -> int:
    """`python -m benchmarks.worker MODULE:FUNCTION ARGUMENTS`: call the function with a channel and the arguments (a JSON object)."""
    module, _, name = sys.argv[1].partition(":")
    channel = Channel()
    if sys.platform == "linux":  # a contender in the middle of a job must not outlive a driver that was killed
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    try:
        getattr(importlib.import_module(module), name)(channel, **json.loads(sys.argv[2]))
    except Exception as error:
        traceback.print_exc()
        channel.send({"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"})
        return 1
    return 0


# ----------------------------------------------------------------------------------------------------------------- driver side


class Worker:
    """One contender. Stopped whenever it has no job.

    Args:
        target: `module:function`, called in the child with its channel and `arguments`.
        out: folder for its log, `worker_NAME.log`.
        python: the interpreter, if it is not ours.
    """

    def __init__(
        self, name: str, target: str, arguments: Mapping[str, Any], *, out: Path, threads: int, python: str = sys.executable, environment: Mapping[str, str] | None = None
    ):
        self.name = name
        self.log = out / f"worker_{''.join(c if c.isalnum() else '_' for c in name)}.log"
        self.idle_seconds = self.idle_cpu = 0.0
        self._idle_since: tuple[float, float] | None = None
        settings = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
        with self.log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [python, "-m", "benchmarks.worker", target, json.dumps(arguments)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=ROOT,
                    env=os.environ | settings | dict(environment or {}),
                    # A group of its own, to be stopped as a whole; in our session, so that the system hangs up and continues
                    # even stopped ones when we are killed.
                    process_group=0,
                )
            except OSError as error:
                raise WorkerFailed(f"{python} cannot be started: {error.strerror}") from error
        try:
            self.info = self._read(START_SECONDS)
        except BaseException:
            self.close(patience=1.0)
            raise
        self._pause()

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Let it run until it has answered.

        Raises:
            WorkerFailed: it raised, ended, or took longer than an hour.
        """
        self._resume()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerFailed(self._last_words()) from None
        answer = self._read(JOB_SECONDS)
        self._pause()
        return answer

    def close(self, patience: float = 20.0) -> None:
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience)
        self._signal(signal.SIGKILL)  # whatever it has left behind in its own group
        self._process.wait()

    @property
    def idle_share(self) -> float:
        """Processor time used while it was not its turn, as a share of one core."""
        return self.idle_cpu / self.idle_seconds if self.idle_seconds else 0.0

    def _read(self, seconds: float) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], seconds)[0]:
            raise WorkerFailed(f"no answer within {seconds:.0f} s")
        line = stdout.readline()
        message = json.loads(line) if line else {"error": self._last_words()}
        if "error" in message:
            raise WorkerFailed(message["error"])
        return message

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"ended: {lines[-1][:300]}" if lines else "ended without a word"

    def _pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self._idle_since = time.monotonic(), self._cpu_seconds()

    def _resume(self) -> None:
        if self._idle_since is not None:
            began, used = self._idle_since
            self.idle_seconds += time.monotonic() - began
            self.idle_cpu += max(self._cpu_seconds() - used, 0.0)
            self._idle_since = None
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _cpu_seconds(self) -> float:
        """Processor time of every process of the worker's group so far."""
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()  # from the state on: the name may hold spaces
                if int(fields[2]) == self._process.pid:
                    total += int(fields[11]) + int(fields[12])
        return total / _TICKS


Start = Callable[[], Worker]


class Contest:
    """Contenders side by side: starts them, gives each the same job in turn, and keeps what each has answered, round by round.

    A contender that fails is left out from there on; `failures` says why.
    """

    def __init__(self, starts: Mapping[str, Start]):
        self.starts = starts
        self.workers: dict[str, Worker] = {}
        self.failures: dict[str, str] = {}
        self.info: dict[str, dict[str, Any]] = {}
        """What each said when it was ready."""

    def __enter__(self) -> Contest:
        try:
            for name, start in self.starts.items():
                print(f"  starting {name}", flush=True)
                try:
                    self.workers[name] = start()
                    self.info[name] = self.workers[name].info
                except WorkerFailed as failure:
                    self._fail(name, failure)
        except BaseException:
            self._close(patience=1.0)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._close(patience=20.0 if kind is None else 1.0)

    def round(self, job: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
        """One job for everybody, one after the other; `jobs` names those who get another one."""
        answers = {}
        for name, worker in list(self.workers.items()):
            try:
                answers[name] = worker.ask((jobs or {}).get(name, job))
            except WorkerFailed as failure:
                self._fail(name, failure)
                self.workers.pop(name).close()
        return answers

    def idle_shares(self) -> dict[str, float]:
        """Share of a core that each worker used while it was stopped; warns above 5 %."""
        shares = {name: round(worker.idle_share, 4) for name, worker in self.workers.items()}
        for name, share in shares.items():
            if share > 0.05:
                print(f"  warning: {name} used {share:.0%} of a core while others were measured", flush=True)
        return shares

    def _close(self, patience: float) -> None:
        for worker in self.workers.values():
            worker.close(patience)

    def _fail(self, name: str, failure: WorkerFailed) -> None:
        self.failures[name] = str(failure)
        print(f"  {name}: {failure}", flush=True)


def column(rounds: Sequence[Mapping[str, Mapping[str, Any]]], name: str, key: str) -> list[float]:
    """One number of one contender over the rounds; empty unless it gave it in all of them."""
    found = [answers[name][key] for answers in rounds if key in answers.get(name, ())]
    return found if len(found) == len(rounds) else []


if __name__ == "__main__":
    sys.exit(main())
