r"""Code: the answer is a Python function, the problem brings tests. Nothing runs unless the recipe says `grader.code = true`.

`problem.meta` holds

    tests         Python source, as text or as a list of texts (lines, or blocks): `assert f(2) == 4`. Names other than the functions under
                  test it defines or imports itself (standard library). If it calls none of them but defines `check`, then
                  `check(function)` is called.
    entry_point   the name of the function under test, or a list of names

The answer is the last complete fenced block marked as Python; if no block is, the last without a mark. The code runs in one sandbox, the
tests in another (`sandbox.py`, `code_child.py`): the code is sent arguments and sends back values, and sees neither the tests nor what
they expect. Arguments and results are plain values (numbers, strings, bytes, None, lists, tuples, sets, dicts); a function is judged by
what it returns or raises, not by what it does to its arguments. Whatever the code does to get round this is wrong, with the reason;
what goes wrong before it has begun, or in the tests themselves, is ungradable.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mulligan.errors import ConfigError
from mulligan.grading.code_child import LENGTH, MOST
from mulligan.grading.sandbox import Sandboxed
from mulligan.types import Problem, Verdict, VerdictKind

START_SECONDS = 20.0
"""Patience with the start of the sandboxes; not counted as the code's time."""
MAX_CODE = 100_000
"""Characters of code that are run."""
MAX_TESTS = 1_000_000
KEPT_CODE = 1_000
_SIGNALS = {31: "it started a process, opened a socket or made another forbidden system call", 24: "timeout", 9: "it was killed"}


@dataclass(frozen=True, slots=True)
class CodeTests:
    """A problem's tests."""

    source: str
    names: tuple[str, ...]


class CodeGrader:
    """Runs answers, `workers` at a time. `deadline`: seconds of wall clock for an answer with all its tests; `memory_mb`: megabytes of
    address space of each of the two processes.

    Raises:
        ConfigError: there can be no sandbox on this machine; says what to install or to change.
    """

    def __init__(self, *, workers: int, deadline: float, memory_mb: int):
        self.deadline = deadline
        self.memory_mb = memory_mb
        check_sandbox()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="code-grader")  # they live on: a sandbox dies with its thread

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """The verdict on an attempt. Never raises for what the attempt or the problem holds; waits without blocking the event loop."""
        return await asyncio.wrap_future(self._threads.submit(grade_code, problem, text, deadline=self.deadline, memory_mb=self.memory_mb))

    def close(self) -> None:
        """Give up what waits. What runs ends at its deadline at the latest. Calling it twice is harmless."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@cache
def check_sandbox() -> None:
    """Try the sandbox. Raises ConfigError if there is none."""
    verdict = run("def f(x):\n    return x + 1", CodeTests("assert f(1) == 2", ("f",)), deadline=10.0, memory_mb=256)
    if not verdict.correct:
        raise ConfigError(
            f"grader.code: bubblewrap cannot make a sandbox here ({verdict.reason}): allow unprivileged user namespaces on this machine, or leave grader.code off"
        )


def grade_code(problem: Problem, text: str, *, deadline: float, memory_mb: int) -> Verdict:
    """`CodeGrader.grade`, waiting for the verdict."""
    tests = read_tests(problem.meta)
    if isinstance(tests, str):
        return Verdict(VerdictKind.UNGRADABLE, reason=tests)
    code = extract_code(text)
    if code is None or not code.strip():
        return Verdict(VerdictKind.NO_ANSWER, reason="no complete fenced block of Python" if code is None else "the block is empty")
    if len(code) > MAX_CODE:
        return Verdict(VerdictKind.WRONG, code[:KEPT_CODE], f"the code is longer than {MAX_CODE} characters")
    try:
        return run(code, tests, deadline=deadline, memory_mb=memory_mb)
    except Exception as error:  # e.g. no more processes or file descriptors on this machine: ours, not the code's
        return Verdict(VerdictKind.UNGRADABLE, code[:KEPT_CODE], f"the sandbox failed: {type(error).__name__}: {error}")


def read_tests(meta: Mapping[str, Any]) -> CodeTests | str:
    """The tests in a problem's `meta`; or what is wrong with them."""
    tests, names = meta.get("tests"), meta.get("entry_point")
    if isinstance(tests, (list, tuple)) and all(isinstance(t, str) for t in tests):
        tests = "\n".join(tests)
    if not isinstance(tests, str) or not tests.strip():
        return 'the problem has no tests: give its meta "tests", Python source or a list of it'
    if len(tests) > MAX_TESTS:
        return f"the problem's tests are longer than {MAX_TESTS} characters"
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(n, str) and n.isidentifier() for n in names):
        return 'the problem names no function: give its meta "entry_point", the name of the function under test'
    return CodeTests(tests, tuple(names))


def extract_code(text: str) -> str | None:
    """The last complete fenced block marked as Python, else the last without a mark; None if there is neither. Linear in the text."""
    marked = plain = None
    fence, mark, indent = "", "", 0
    block: list[str] = []
    for line in text.split("\n"):
        stripped = line.strip()
        run = len(stripped) - len(stripped.lstrip(stripped[:1])) if stripped[:1] in ("`", "~") else 0
        if not fence and run >= 3 and "`" not in stripped[run:]:
            fence, mark, indent = stripped[:run], stripped[run:].strip().split(" ")[0].lower(), len(line) - len(line.lstrip())
            block = []
        elif fence and run >= len(fence) and stripped == fence[0] * run:
            if mark in ("python", "py", "python3"):
                marked = "\n".join(block)
            elif not mark:
                plain = "\n".join(block)
            fence = ""
        elif fence:
            block.append(line[min(indent, len(line) - len(line.lstrip())) :].rstrip("\r"))
    return marked if marked is not None else plain


# ----------------------------------------------------------------------------------------------------------------- supervisor


def run(code: str, tests: CodeTests, *, deadline: float, memory_mb: int) -> Verdict:
    """Run the code against the tests in two sandboxes; nothing of them is left afterwards.

    Raises:
        OSError: a process or a socket cannot be made.
        ConfigError: no sandbox.
    """
    limits = [str(memory_mb << 20), str(int(deadline) + 2)]
    ours, judge_end = socket.socketpair()
    channel, candidate_end = socket.socketpair()
    boxes: list[Sandboxed] = []
    with ours:
        try:
            with judge_end, channel, candidate_end:
                boxes.append(Sandboxed(_script(), ["candidate", *limits], candidate_end))
                boxes.append(Sandboxed(_script(), ["judge", str(channel.fileno()), *limits], judge_end, (channel.fileno(),)))
            verdict = _conversation(ours, code, tests, deadline, boxes[0])
        finally:
            gone = [box.end() for box in boxes]
    if verdict.kind is VerdictKind.UNGRADABLE and (words := " ".join(box.errors.decode(errors="replace").strip() for box in boxes).strip()):
        return Verdict(verdict.kind, verdict.answer, f"{verdict.reason}: {words.splitlines()[0][:200]}", verdict.ms)
    if not all(gone):
        return Verdict(VerdictKind.UNGRADABLE, verdict.answer, "a sandbox could not be ended", verdict.ms)
    return verdict


def _conversation(ours: socket.socket, code: str, tests: CodeTests, deadline: float, candidate: Sandboxed) -> Verdict:
    """What the judge says of the code. Success is its token alone, which it was given here and nobody else has."""
    answer = code[:KEPT_CODE]
    token = secrets.token_hex(16)
    try:
        _send(ours, {"source": code.encode("utf-8", "replace").decode(), "tests": tests.source, "names": tests.names, "token": token})
        message = _receive(ours, time.monotonic() + START_SECONDS)
    except TimeoutError:
        message = {"broken": f"the sandbox did not start within {START_SECONDS:.0f} s"}
    except OSError as error:
        message = {"broken": f"the sandbox of the tests ended ({error})"}
    if "ready" not in message:
        return Verdict(VerdictKind.UNGRADABLE, answer, str(message.get("broken", "the sandbox did not start")))
    start = time.monotonic()
    try:
        message = _receive(ours, start + deadline)
    except TimeoutError:
        return Verdict(VerdictKind.WRONG, answer, "timeout", (time.monotonic() - start) * 1000)
    except OSError as error:
        message = {"broken": f"the sandbox of the tests ended ({error})"}
    ms = (time.monotonic() - start) * 1000
    if secrets.compare_digest(str(message.get("passed", "")), token):
        return Verdict(VerdictKind.CORRECT, answer, None, ms)
    if "wrong" not in message:
        return Verdict(VerdictKind.UNGRADABLE, answer, str(message.get("broken", "the tests ended without a word")), ms)
    reason = str(message["wrong"])
    if reason.startswith("the process ended"):
        status = candidate.status(1.0)
        reason = _SIGNALS.get((status or 0) - 128, reason)
    return Verdict(VerdictKind.WRONG, answer, reason, ms)


@cache
def _script() -> str:
    return Path(__file__).with_name("code_child.py").read_text(encoding="utf-8")


def _send(sock: socket.socket, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    sock.settimeout(START_SECONDS)
    sock.sendall(LENGTH.pack(len(data)) + data)


def _receive(sock: socket.socket, end: float) -> dict[str, Any]:
    """The judge's next message. Raises TimeoutError at `end`, OSError if the judge is gone."""
    parts = bytearray()
    size = LENGTH.size
    while len(parts) < size:
        sock.settimeout(max(end - time.monotonic(), 1e-4))
        part = sock.recv(min(size - len(parts), 65536))  # no more: the next message may lie behind this one
        if not part:
            raise OSError("no answer")
        parts += part
        if len(parts) == LENGTH.size:
            size += LENGTH.unpack(parts)[0]
            if size > MOST:
                raise OSError("too long an answer")
    return json.loads(parts[LENGTH.size : size])

