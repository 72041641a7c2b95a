r"""Coverage-guided fuzzing of the grader with atheris, which is not among the project's dependencies (`pip install atheris`).

    python -m benchmarks.fuzz_grading corpus/ -max_total_time=180

Arguments are libFuzzer's; the corpus folder is kept and grows. The first run fills it with the answers of `tests/unit/grading_cases`.
What is checked of every input, a gold answer and an attempt:

- nothing raises, and no verdict is ungradable for what an attempt holds;
- what is decided without a worker is decided within `QUICK` seconds, and a verdict from a worker within its deadline;
- extraction is total, finds what a box is put around, and looks at no more than the text;
- a gold answer that is not empty is equal to itself.

Only what runs in this process is instrumented: reading, normalising, units, numbers, extraction. One input in `EVERY` goes through the
workers too, whose algebra has deadlines of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-not-found]  # installed by whoever fuzzes

with atheris.instrument_imports(include=["mulligan.grading"]):
    from mulligan.grading import extract_boxed, grade_answer, grade_text
    from mulligan.grading.math import decide
    from mulligan.types import VerdictKind

QUICK = 1.0
"""Seconds of processor time: others may run beside."""
DEADLINE = 0.5
NOISE = 5.0
"""Seconds beyond the deadline: a wait for a worker to start on a machine that is busy."""
EVERY = 16
SEPARATOR = "\x1f"
KINDS = ("math", "numeric", "text")


class Fault(AssertionError):
    """Something that must hold does not."""


def check(condition: bool, what: str, *facts: Any) -> None:
    if not condition:
        raise Fault(f"{what}: {facts!r}")


class Target:
    """The function under test, and a count of what it was given."""

    def __init__(self) -> None:
        self.inputs = self.through_workers = 0

    def __call__(self, data: bytes) -> None:
        text = data.decode("utf-8", errors="surrogateescape")
        gold, _, attempt = text.partition(SEPARATOR)
        self.inputs += 1
        self.in_process(gold, attempt)
        if self.inputs % EVERY == 0:
            self.through_workers += 1
            self.by_workers(gold, attempt)

    def in_process(self, gold: str, attempt: str) -> None:
        start = time.process_time()
        found = extract_boxed(attempt)
        check(found is None or (isinstance(found, str) and len(found) <= len(attempt)), "extraction", attempt, found)
        for answer in (attempt, found):
            if answer:
                decide(gold or "7", answer)
                decide(answer, gold or "7")
        if gold.strip():
            itself = decide(gold, gold)
            check(itself is None or itself[0], "a gold answer differs from itself", gold)
        for kind in ("numeric", "text"):
            check(isinstance(grade_text(gold, attempt, kind=kind).kind, VerdictKind), "no verdict", gold, attempt)
        took = time.process_time() - start
        check(took < QUICK, "slow", took, gold, attempt)

    def by_workers(self, gold: str, attempt: str) -> None:
        for known in ("7", r"\sqrt{2}", r"\{1,2\}"):
            start = time.perf_counter()
            for verdict in (grade_text(known, rf"\boxed{{{attempt}}}", deadline=DEADLINE), grade_answer(known, attempt, deadline=DEADLINE)):
                check(verdict.kind is not VerdictKind.UNGRADABLE, "ungradable", known, attempt, verdict)
                check(verdict.ms < 1000 * DEADLINE + 1000, "late", known, attempt, verdict)
            check(time.perf_counter() - start < 2 * (DEADLINE + NOISE), "late", known, attempt)
        if gold.strip():
            check(grade_answer(gold, gold, deadline=DEADLINE).correct, "a gold answer differs from itself", gold)
        grade_answer(gold, attempt, deadline=DEADLINE)


def seed(corpus: Path) -> None:
    """Fill an empty corpus with the pairs of the suite."""
    corpus.mkdir(parents=True, exist_ok=True)
    if any(corpus.iterdir()):
        return
    number = 0
    for path in sorted((Path(__file__).parent.parent / "tests/unit/grading_cases").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            if "gold" in case:
                text = case["gold"] + SEPARATOR + case.get("text", rf"\boxed{{{case.get('answer')}}}")
                (corpus / f"suite-{number}").write_bytes(text.encode("utf-8", errors="surrogateescape"))
                number += 1


def main() -> None:
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders:
        seed(Path(folders[0]))
    target = Target()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
