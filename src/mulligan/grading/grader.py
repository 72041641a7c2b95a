"""The graders that the rest of the project sees: one interface, routed by the kind that the recipe or the problem names."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from mulligan.config import GraderConfig
from mulligan.errors import ConfigError
from mulligan.grading import math
from mulligan.grading.extract import MAX_ANSWER, extract_boxed
from mulligan.grading.numeric import parse_number, same_number, strip_assignment
from mulligan.grading.pool import Reply, WorkerPool
from mulligan.grading.text import same_text
from mulligan.types import Problem, Verdict, VerdictKind

KINDS = ("math", "numeric", "text", "gym")
KEPT_ANSWER = 1_000
"""Characters of an answer that a verdict keeps."""

EntryPoint = Callable[[Problem, str], Any]


class Grader(Protocol):
    """Judges one attempt's text, and only that: never the feedback, never an earlier attempt."""

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """The verdict on `text`. A failure of the grader is a verdict too (UNGRADABLE, with the reason), never an exception.

        Raises:
            ConfigError: the problem names a grader that does not exist.
        """
        ...

    def close(self) -> None:
        """End the worker processes. Calling it twice is harmless."""
        ...


@dataclass(frozen=True, slots=True)
class _Work:
    """A question for a worker."""

    module: str
    payload: dict[str, Any]
    answer: str


def make_grader(config: GraderConfig) -> Grader:
    """The grader of a recipe. Starts no process before an answer needs one.

    Raises:
        ConfigError: `config.kind` names no grader, or an entry point that does not resolve.
    """
    return RoutingGrader(config)


class RoutingGrader:
    """Routes by `config.kind`, or by `problem.grader` if that is None.

    `math`, `numeric`, `text` and `gym` judge the last complete box of the text. An entry point `module:function` gets the problem
    and the whole text and returns a `Verdict`; it may be a coroutine function. It is called in a thread of its own, possibly
    several at once, and given up after `config.deadline` seconds.
    """

    def __init__(self, config: GraderConfig):
        self.config = config
        self.pool = WorkerPool(config.workers)
        if config.kind is not None:
            check_kind(config.kind)

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """See `Grader.grade`."""
        start = time.perf_counter()
        kind = check_kind(self.config.kind or problem.grader)
        if kind not in KINDS:
            return await _call_entry_point(resolve(kind), problem, text, self.config.deadline)
        found = _begin(kind, problem, extract_boxed(text))
        if isinstance(found, Verdict):
            return replace(found, ms=(time.perf_counter() - start) * 1000)
        return _conclude(found, await self.pool.run(found.module, found.payload, self.config.deadline))

    def close(self) -> None:
        """See `Grader.close`."""
        self.pool.close()


def grade_text(gold: str, text: str, *, kind: str = "math", deadline: float = 5.0) -> Verdict:
    """Grade a whole attempt against a gold answer, waiting for the verdict. `deadline` in seconds.

    Raises:
        ConfigError: no such kind, or `gym`, which needs more than a gold answer.
    """
    problem = _bare_problem(gold, kind)
    if kind not in KINDS:
        return asyncio.run(_call_entry_point(resolve(kind), problem, text, deadline))
    return _grade_now(kind, problem, extract_boxed(text), deadline)


def grade_answer(gold: str, answer: str, *, kind: str = "math", deadline: float = 5.0) -> Verdict:
    """Grade an answer that is cut out already; for `math` it may be a sentence with LaTeX in it. Otherwise as `grade_text`."""
    problem = _bare_problem(gold, kind)
    if kind not in KINDS:
        raise ConfigError(f"grader {kind!r} reads whole texts: use grade_text")
    return _grade_now(kind, problem, answer[-MAX_ANSWER:] if kind == "math" else answer, deadline, sentence=True)


def _grade_now(kind: str, problem: Problem, answer: str | None, deadline: float, *, sentence: bool = False) -> Verdict:
    start = time.perf_counter()
    found = _begin(kind, problem, answer, sentence=sentence)
    if isinstance(found, Verdict):
        return replace(found, ms=(time.perf_counter() - start) * 1000)
    return _conclude(found, _shared_pool().submit(found.module, found.payload, deadline).result())


@lru_cache(maxsize=1)
def _shared_pool() -> WorkerPool:
    return WorkerPool(1)


def _bare_problem(gold: str, kind: str) -> Problem:
    if check_kind(kind) == "gym":
        raise ConfigError("grader 'gym' needs the data set's whole entry: use make_grader with problems from a gym: source")
    return Problem(id="", question="", answer=gold, grader=kind)


# ----------------------------------------------------------------------------------------------------------------- verdicts


def _begin(kind: str, problem: Problem, answer: str | None, *, sentence: bool = False) -> Verdict | _Work:
    """Everything that needs no worker: the verdict, or the question for one."""
    if answer is None or not answer.strip():
        return Verdict(VerdictKind.NO_ANSWER, reason="no complete \\boxed{}" if answer is None else "the box is empty")
    gold = problem.answer
    if len(answer) > MAX_ANSWER:
        return _verdict(False, answer, f"the answer is longer than {MAX_ANSWER} characters")
    if kind == "text":
        return _verdict(same_text(gold, answer), answer)
    if kind == "numeric":
        return _numeric(gold, answer)
    if kind == "gym":
        entry = dict(problem.meta.get("entry", problem.meta))
        name = problem.meta.get("dataset") or entry.get("metadata", {}).get("source_dataset")
        if not name:
            return Verdict(VerdictKind.UNGRADABLE, answer[:KEPT_ANSWER], "the problem carries no reasoning-gym entry")
        return _Work("mulligan.grading.gym", {"name": name, "entry": entry, "answer": answer}, answer)
    decided = math.decide(gold, answer)
    if decided is not None and (decided[0] or not sentence):
        return _verdict(decided[0], answer, decided[1])
    return _Work("mulligan.grading.symbolic", {"gold": gold, "answer": answer, "sentence": sentence}, answer)


def _numeric(gold: str, answer: str) -> Verdict:
    gold_number = parse_number(strip_assignment(gold))
    if gold_number is None:
        return Verdict(VerdictKind.UNGRADABLE, answer[:KEPT_ANSWER], f"the gold answer {gold[:80]!r} is not a plain number")
    number = parse_number(strip_assignment(answer))
    if number is None:
        return _verdict(False, answer, "the answer is not a plain number")
    return _verdict(same_number(gold_number, number), answer)


def _verdict(equal: bool, answer: str, reason: str | None = None, ms: float = 0.0) -> Verdict:
    return Verdict(VerdictKind.CORRECT if equal else VerdictKind.WRONG, answer[:KEPT_ANSWER], None if equal else reason, ms)


def _conclude(work: _Work, reply: Reply) -> Verdict:
    """A worker's reply as a verdict. What goes wrong after the gold answer was read is the answer's doing: wrong, with the reason."""
    if reply.status == "ok" and reply.value is not None:
        return _verdict(reply.value["equal"], work.answer, reply.value["reason"], reply.ms)
    reason = {"timeout": "timeout", "memory": "memory", "died": "the comparison crashed"}.get(reply.status)
    if reason and reply.stage == "gold":
        return _verdict(False, work.answer, reason, reply.ms)
    if reason:
        reason = f"{reason} while the gold answer was read"
    elif reply.status == "error":
        reason = f"internal error: {reply.detail}"
    else:
        reason = f"no grading worker: {reply.detail}"
    return Verdict(VerdictKind.UNGRADABLE, work.answer[:KEPT_ANSWER], reason, reply.ms)


# ------------------------------------------------------------------------------------------------------------- entry points


def check_kind(kind: str) -> str:
    """The kind itself. Raises ConfigError if it is no known kind and no entry point that resolves."""
    if kind not in KINDS:
        resolve(kind)
    return kind


@lru_cache(maxsize=64)
def resolve(kind: str) -> EntryPoint:
    """The function behind `module:function`. Raises ConfigError, with what to change, if there is none."""
    module_name, colon, name = kind.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"grader {kind!r} is not known: use {', '.join(KINDS)}, or module:function")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise ConfigError(f"grader {kind!r}: cannot import {module_name} ({error}); install it or add its folder to PYTHONPATH") from None
    except AttributeError:
        raise ConfigError(f"grader {kind!r}: module {module_name} has no {name}") from None
    except Exception as error:
        raise ConfigError(f"grader {kind!r}: importing {module_name} raised {type(error).__name__}: {error}; mend the module") from None
    if not callable(found):
        raise ConfigError(f"grader {kind!r} is not a function: name one that takes (problem, text) and returns a Verdict")
    return found


async def _call_entry_point(function: EntryPoint, problem: Problem, text: str, deadline: float) -> Verdict:
    start = time.perf_counter()
    try:
        if inspect.iscoroutinefunction(function):
            result = await asyncio.wait_for(function(problem, text), deadline)
        elif getattr(function, "__module__", "").startswith("mulligan."):
            result = function(problem, text)  # our own are quick and pure: a thread would cost more than they do
        else:
            result = await asyncio.wait_for(_in_thread(function, problem, text), deadline)
    except TimeoutError:
        return Verdict(VerdictKind.UNGRADABLE, reason=f"the grader took more than {deadline:g} s", ms=(time.perf_counter() - start) * 1000)
    except Exception as error:
        return Verdict(VerdictKind.UNGRADABLE, reason=f"the grader raised {type(error).__name__}: {error}")
    if not isinstance(result, Verdict):
        return Verdict(VerdictKind.UNGRADABLE, reason=f"the grader returned {type(result).__name__}, not a Verdict")
    return replace(result, ms=result.ms or (time.perf_counter() - start) * 1000)


async def _in_thread(function: EntryPoint, problem: Problem, text: str) -> Any:
    """Call in a daemon thread. Not `asyncio.to_thread`, whose pool is joined at exit: a function that hangs would hang the run."""
    future: Future[Any] = Future()

    def call() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = function(problem, text)
        except BaseException as error:
            with contextlib.suppress(Exception):
                future.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
        else:
            with contextlib.suppress(Exception):
                future.set_result(result)

    threading.Thread(target=call, name="grader-entry-point", daemon=True).start()
    return await asyncio.wrap_future(future)
