"""Graders that a user brings: `module:function`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import lru_cache
from typing import Any

from mulligan.errors import ConfigError
from mulligan.types import Problem, Verdict, VerdictKind

KINDS = ("math", "numeric", "text", "gym", "code")

EntryPoint = Callable[[Problem, str], Any]


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


async def call_entry_point(function: EntryPoint, problem: Problem, text: str, deadline: float) -> Verdict:
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
    result = _checked(result)
    return replace(result, ms=result.ms or (time.perf_counter() - start) * 1000)


def _checked(verdict: Verdict) -> Verdict:
    """The verdict of a user's function, who may have put anything into it: its kind as a `VerdictKind`, or ungradable with what is wrong."""
    try:
        kind = VerdictKind(verdict.kind)
    except ValueError:
        return _faulty(f"kind = {verdict.kind!r}: use {', '.join(VerdictKind)}")
    for name in ("answer", "reason"):
        if not isinstance(value := getattr(verdict, name), str | None):
            return _faulty(f"{name} = {value!r}: give a str or None")
    if not isinstance(verdict.fields, Mapping):
        return _faulty(f"fields = {verdict.fields!r}: give a dict")
    if isinstance(verdict.ms, bool) or not isinstance(verdict.ms, int | float):
        return _faulty(f"ms = {verdict.ms!r}: give a number or leave it out")
    return replace(verdict, kind=kind)


def _faulty(fault: str) -> Verdict:
    return Verdict(VerdictKind.UNGRADABLE, reason=f"the grader returned a Verdict with {fault}")


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
