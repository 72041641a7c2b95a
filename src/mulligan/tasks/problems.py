"""Sets of problems, their stable ids, and the check of every gold answer against itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mulligan.errors import DataError
from mulligan.types import Problem, Verdict

# Canonical JSON: sorted keys, no spaces. What JSON cannot hold (a date, a set of a task's metadata) counts by its text.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode
_NO_META: Mapping[str, Any] = {}


class Grader(Protocol):
    """What `self_check` needs of a grader."""

    async def grade(self, problem: Problem, text: str) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class SetAside:
    """A problem that was read but is not used, and why."""

    problem: Problem
    reason: str


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The problems of one source, in its order; `set_aside` lists what was left out and is never silently dropped, `remarks` says what of the
    problems themselves was."""

    problems: tuple[Problem, ...]
    source: str
    set_aside: tuple[SetAside, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @property
    def unchecked(self) -> int:
        """Problems without a gold answer (a puzzle with many solutions, which only its own scorer can judge)."""
        return sum(not p.answer for p in self.problems)


def content_id(question: str, answer: str, grader: str, meta: Mapping[str, Any] = _NO_META) -> str:
    """16 hex digits of blake2b over the problem's content: the same in every file, run and version of Python."""
    text = _canonical([question, answer, grader, meta])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def make_problem(question: str, answer: str, grader: str, source: str, meta: Mapping[str, Any] = _NO_META) -> Problem:
    """A problem with its content id."""
    return Problem(content_id(question, answer, grader, meta), question, answer, grader, source, meta)


async def grade_answer(grader: Grader, problem: Problem, answer: str) -> Verdict:
    r"""The verdict on an answer, whatever format attempts mark theirs by: a grader that has no word for it gets `\boxed{answer}`."""
    cut_out = getattr(grader, "grade_answer", None)
    return await (cut_out(problem, answer) if cut_out else grader.grade(problem, f"\\boxed{{{answer}}}"))


async def self_check(problems: ProblemSet, grader: Grader, *, concurrency: int = 256) -> ProblemSet:
    """Grade every gold answer against itself; those that fail move to `set_aside`.

    Problems that agree in question, answer and grader (draws of a stream) are graded once. Problems without a gold answer
    cannot be checked and stay (see `ProblemSet.unchecked`).

    Raises:
        DataError: no problem passes.
    """
    reasons: dict[Any, str | None] = {}
    todo: list[Problem] = []
    for problem in problems:
        key = _check_key(problem)
        if problem.answer and key not in reasons:
            reasons[key] = None
            todo.append(problem)
    for start in range(0, len(todo), concurrency):
        part = todo[start : start + concurrency]
        verdicts = await asyncio.gather(*(grade_answer(grader, p, p.answer) for p in part))
        for problem, verdict in zip(part, verdicts, strict=True):
            if not verdict.correct:
                why = f": {verdict.reason}" if verdict.reason else ""
                reasons[_check_key(problem)] = f"gold answer {problem.answer!r} does not pass its own grader ({verdict.kind.value}{why})"
    failed = tuple(SetAside(p, why) for p in problems if (why := reasons.get(_check_key(p))))
    kept = tuple(p for p in problems if not reasons.get(_check_key(p)))
    if not kept:
        raise DataError(
            f"{problems.source}: no gold answer passes its own grader, so nothing is left; check answer column and grader ({failed[0].reason})"
        )
    return ProblemSet(kept, problems.source, problems.set_aside + failed, problems.remarks)


def _check_key(problem: Problem) -> Any:
    return problem.id if problem.grader == "gym" else (problem.grader, problem.question, problem.answer)
