"""The graders that the rest of the project sees: one interface, routed by the kind that the recipe or the problem names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from mulligan.config import REGEX_PREFIX, GraderConfig
from mulligan.errors import ConfigError
from mulligan.grading import formats, math
from mulligan.grading.answers import MAX_DEPTH, depth_of
from mulligan.grading.cache import VerdictCache, cache_key
from mulligan.grading.code import CodeGrader
from mulligan.grading.entry_points import KINDS, call_entry_point, check_kind, resolve
from mulligan.grading.extract import MAX_ANSWER, MAX_TEXT, extract_boxed
from mulligan.grading.hints import NO_HINT
from mulligan.grading.numeric import Tolerance, parse_number, same_number, strip_assignment, tolerance_of
from mulligan.grading.pool import Reply, WorkerPool, default_workers
from mulligan.grading.sentence import answer_of, with_decimal_comma
from mulligan.grading.size import may_take_long, too_large
from mulligan.grading.text import same_text
from mulligan.types import Problem, Verdict, VerdictKind

KEPT_ANSWER = 1_000
"""Characters of an answer that a verdict keeps."""
DEADLINE = 1.0
"""Seconds for one answer, unless said otherwise."""


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
class Work:
    """A question for a worker. `key`: under which its verdict may be kept, None if it may not."""

    module: str
    payload: dict[str, Any]
    answer: str
    key: Hashable | None = None


def make_grader(config: GraderConfig) -> Grader:
    """The grader of a recipe. Starts no process before an answer needs one (but for `grader.code`, whose sandbox is tried at once).

    Raises:
        ConfigError: `config.kind` names no grader, or an entry point that does not resolve; code without `grader.code`, or without a sandbox.
    """
    return RoutingGrader(config)


class RoutingGrader:
    """Routes by `config.kind`, or by `problem.grader` if that is None.

    `math`, `numeric`, `text` and `gym` judge the answer that `config.format` cuts out of the text; `code` a fenced block, in a sandbox.
    An entry point `module:function` gets the problem and the whole text and returns a `Verdict`; it may be a coroutine function. It is
    called in a thread of its own, possibly several at once, and given up after `config.deadline` seconds.
    """

    def __init__(self, config: GraderConfig):
        self.config = config
        self.pool = WorkerPool(config.workers, memory_mb=config.memory_mb)
        self.cache: VerdictCache[Verdict] = VerdictCache()
        self._code: CodeGrader | None = None
        self._under_way: dict[Hashable, Future[Reply]] = {}
        if config.kind is not None:
            self._check(config.kind)
        if config.code:
            self._code = CodeGrader(workers=config.workers or default_workers(), deadline=config.code_deadline, memory_mb=config.memory_mb)

    def _check(self, kind: str) -> str:
        if check_kind(kind) == "code" and not self.config.code:
            raise ConfigError("grader 'code' runs what the model wrote: allow it with grader.code = true (it needs bubblewrap)")
        return kind

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """See `Grader.grade`."""
        start = time.perf_counter()
        kind = self._check(self.config.kind or problem.grader)
        if kind == "code" and self._code is not None:
            return await self._code.grade(problem, text)
        if kind not in KINDS:
            return await call_entry_point(resolve(kind), problem, text, self.config.deadline)
        answer_format = self.config.format
        if answer_format.startswith(REGEX_PREFIX):
            found = await self._by_pattern(answer_format.removeprefix(REGEX_PREFIX), text)
            if isinstance(found, Verdict):
                return found
        else:
            found = formats.extract(text, answer_format)
        return await self._grade(kind, problem, found, start)

    async def grade_answer(self, problem: Problem, answer: str) -> Verdict:
        """As `grade`, of an answer that is cut out already: says how a gold answer fares whatever the format (entry points get it in a box)."""
        kind = self._check(self.config.kind or problem.grader)
        if kind == "code":
            return await self.grade(problem, answer if "```" in answer else f"```python\n{answer}\n```")
        if kind not in KINDS:
            return await self.grade(problem, f"\\boxed{{{answer}}}")
        return await self._grade(kind, problem, answer, time.perf_counter())

    async def _grade(self, kind: str, problem: Problem, answer: str | None, start: float) -> Verdict:
        found = begin(kind, problem, answer, answer_format=self.config.format, hints=self.config.hints)
        if isinstance(found, Verdict):
            return replace(found, ms=(time.perf_counter() - start) * 1000)
        known = recall(self.cache, found)
        if known is not None:
            return replace(known, ms=(time.perf_counter() - start) * 1000)
        return settle(self.cache, found, await self._ask(found))

    async def _ask(self, work: Work) -> Reply:
        """Ask a worker; rollouts that give the same answer at the same time ask once."""
        key = work.key
        future = self._under_way.get(key) if key is not None else None
        if future is None or future.cancelled():
            future = self.pool.submit(work.module, work.payload, self.config.deadline, later=may_take_long(work.answer))
            if key is not None:
                self._under_way[key] = future
                future.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(asyncio.wrap_future(future))

    async def _by_pattern(self, pattern: str, text: str) -> str | Verdict | None:
        reply = await self.pool.run("mulligan.grading.pattern", {"pattern": pattern, "text": text[-MAX_TEXT:]}, self.config.deadline)
        if reply.status == "ok" and reply.value is not None:
            return reply.value["answer"]
        return Verdict(VerdictKind.UNGRADABLE, reason=f"the pattern of grader.format: {reply.detail or reply.status}", ms=reply.ms)

    def close(self) -> None:
        """See `Grader.close`."""
        self.pool.close()
        if self._code is not None:
            self._code.close()


# -------------------------------------------------------------------------------------------------------------- single answers


def grade_text(gold: str, text: str, *, kind: str = "math", deadline: float = DEADLINE) -> Verdict:
    r"""Grade a whole attempt, its answer in a `\boxed{}`, against a gold answer, waiting for the verdict. `deadline` in seconds.

    Raises:
        ConfigError: no such kind, or `gym` or `code`, which need more than a gold answer.
    """
    problem = bare_problem(gold, kind)
    if kind not in KINDS:
        return asyncio.run(call_entry_point(resolve(kind), problem, text, deadline))
    return _grade_now(begin_text(problem, text), deadline)


def grade_answer(gold: str, answer: str, *, kind: str = "math", deadline: float = DEADLINE) -> Verdict:
    """Grade an answer that is cut out already; for `math` both may be sentences with LaTeX in them. Otherwise as `grade_text`."""
    problem = bare_problem(gold, kind)
    if kind not in KINDS:
        raise ConfigError(f"grader {kind!r} reads whole texts: use grade_text")
    return _grade_now(begin_answer(problem, answer), deadline)


def begin_text(problem: Problem, text: str) -> Verdict | Work:
    """What of grading an attempt needs no worker."""
    start = time.perf_counter()
    return _timed(begin(problem.grader, problem, extract_boxed(text)), start)


def begin_answer(problem: Problem, answer: str) -> Verdict | Work:
    """What of grading an answer, which may be a sentence, needs no worker."""
    start = time.perf_counter()
    if problem.grader != "math":
        return _timed(begin(problem.grader, problem, answer), start)
    whole = math.look(problem.answer, answer) if len(answer) <= MAX_ANSWER else None
    if whole is not None and whole.equal:
        return _timed(_verdict(True, answer), start)
    gold, found = with_decimal_comma(answer_of(problem.answer[-MAX_ANSWER:]), answer_of(answer[-MAX_ANSWER:]))
    return _timed(begin("math", replace(problem, answer=gold), found), start)


def bare_problem(gold: str, kind: str) -> Problem:
    """A problem of nothing but its gold answer. Raises ConfigError for a kind that needs more."""
    if check_kind(kind) in ("gym", "code"):
        need = {"gym": "the data set's whole entry: use make_grader with problems from a gym: source", "code": "the problem's tests: use make_grader"}
        raise ConfigError(f"grader {kind!r} needs {need[kind]}")
    return Problem(id="", question="", answer=gold, grader=kind)


def _timed(found: Verdict | Work, start: float) -> Verdict | Work:
    return replace(found, ms=(time.perf_counter() - start) * 1000) if isinstance(found, Verdict) else found


def _grade_now(found: Verdict | Work, deadline: float) -> Verdict:
    if isinstance(found, Verdict):
        return found
    return conclude(found, shared_pool().submit(found.module, found.payload, deadline).result())


@lru_cache(maxsize=1)
def shared_pool() -> WorkerPool:
    """The workers behind `grade_text`, `grade_answer` and `grade_pairs`."""
    return WorkerPool()


# ------------------------------------------------------------------------------------------------------------------- verdicts


def begin(kind: str, problem: Problem, answer: str | None, *, answer_format: str = "boxed", hints: bool = False) -> Verdict | Work:
    """Everything that needs no worker: the verdict, or the question for one. `answer`: what the format cut out."""
    fields = dict(NO_HINT) if hints and kind == "math" else {}
    if answer is None or not answer.strip():
        reason = formats.missing(answer_format) if answer is None else "the box is empty" if answer_format == "boxed" else "the answer is empty"
        return Verdict(VerdictKind.NO_ANSWER, reason=reason)
    try:
        tolerance = tolerance_of(problem.meta)
    except ValueError as error:
        return Verdict(VerdictKind.UNGRADABLE, answer[:KEPT_ANSWER], str(error))
    if kind != "gym" and (fault := _gold_fault(problem.answer)):
        return Verdict(VerdictKind.UNGRADABLE, answer[:KEPT_ANSWER], fault)
    if len(answer) > MAX_ANSWER:
        return _verdict(False, answer, f"the answer is longer than {MAX_ANSWER} characters", fields=fields)
    if kind == "text":
        return _verdict(same_text(problem.answer, answer), answer)
    if kind == "numeric":
        return _numeric(problem.answer, answer, tolerance)
    if kind == "gym":
        return _gym(problem, answer)
    return _math(problem.answer, answer, tolerance, hints)


def _gold_fault(gold: str) -> str | None:
    if not gold.strip():
        return "the gold answer is empty"
    if len(gold) > MAX_DEPTH and depth_of(gold) > MAX_DEPTH:
        return f"the gold answer is nested more than {MAX_DEPTH} deep"
    return None


def _math(gold: str, answer: str, tolerance: Tolerance | None, hints: bool) -> Verdict | Work:
    decided = math.look(gold, answer, tolerance, with_hints=hints)
    if decided is not None:
        return _verdict(decided.equal, answer, decided.reason, fields=decided.fields or {})
    if too_large(answer) and not too_large(gold):
        return _verdict(False, answer, "a number in the answer is too large to be worked out", fields=dict(NO_HINT) if hints else None)
    payload: dict[str, Any] = {"gold": gold, "answer": answer}
    if tolerance is not None:
        payload["tolerance"] = (str(tolerance.absolute), str(tolerance.relative))
    if hints:
        payload["hints"] = True
    module = "mulligan.grading.symbolic"
    return Work(module, payload, answer, cache_key(module, payload))


def _gym(problem: Problem, answer: str) -> Verdict | Work:
    entry = dict(problem.meta.get("entry", problem.meta))
    name = problem.meta.get("dataset") or entry.get("metadata", {}).get("source_dataset")
    if not name:
        return Verdict(VerdictKind.UNGRADABLE, answer[:KEPT_ANSWER], "the problem carries no reasoning-gym entry")
    return Work("mulligan.grading.gym", {"name": name, "entry": entry, "answer": answer}, answer)


def _numeric(gold: str, answer: str, tolerance: Tolerance | None) -> Verdict:
    gold_number = parse_number(strip_assignment(gold))
    if gold_number is None:
        return Verdict(VerdictKind.UNGRADABLE, answer[:KEPT_ANSWER], f"the gold answer {gold[:80]!r} is not a plain number")
    number = parse_number(strip_assignment(answer))
    if number is None:
        return _verdict(False, answer, "the answer is not a plain number")
    return _verdict(same_number(gold_number, number, tolerance), answer)


def _verdict(equal: bool, answer: str, reason: str | None = None, ms: float = 0.0, fields: dict[str, str] | None = None) -> Verdict:
    return Verdict(VerdictKind.CORRECT if equal else VerdictKind.WRONG, answer[:KEPT_ANSWER], None if equal else reason, ms, fields or {})


def recall(cache: VerdictCache[Verdict], work: Work) -> Verdict | None:
    """The verdict on this answer, if it was worked out before; `ms` is that of then."""
    known = cache.get(work.key) if work.key is not None else None
    return None if known is None else replace(known, answer=work.answer[:KEPT_ANSWER])


def settle(cache: VerdictCache[Verdict], work: Work, reply: Reply) -> Verdict:
    """A worker's reply as a verdict, kept if it depends on nothing but gold and answer."""
    verdict = conclude(work, reply)
    if work.key is not None and reply.status == "ok":
        cache.put(work.key, verdict)
    return verdict


def conclude(work: Work, reply: Reply) -> Verdict:
    """A worker's reply as a verdict. What goes wrong after the gold answer was read is the answer's doing: wrong, with the reason."""
    if reply.status == "ok" and reply.value is not None:
        return _verdict(reply.value["equal"], work.answer, reply.value["reason"], reply.ms, reply.value.get("fields"))
    fields = dict(NO_HINT) if work.payload.get("hints") else None
    reason = {"timeout": "timeout", "memory": "memory", "died": "the comparison crashed"}.get(reply.status)
    if reply.stage == "gold" and reply.status == "error":
        reason = f"the answer cannot be read ({reply.detail})"
    if reason and reply.stage == "gold":
        return _verdict(False, work.answer, reason, reply.ms, fields)
    if reason:
        reason = f"{reason} while the gold answer was read"
    elif reply.status == "error":
        reason = f"internal error: {reply.detail}"
    else:
        reason = f"no grading worker: {reply.detail}"
    return Verdict(VerdictKind.UNGRADABLE, work.answer[:KEPT_ANSWER], reason, reply.ms)
