"""Suite `grading`: answers judged per second on MATH-500, mulligan beside Math-Verify; the same with bombs among them; time to answer one.

Pairs are half right, half wrong: every gold answer boxed in a sentence, then with the next problem's answer in its place. The folder of
`math500.jsonl` is that of the environment variable MULLIGAN_DATA; without it the suite says so and measures nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.table import Result, Settings, Table, failed_rows, ratio, spread
from benchmarks.worker import Channel, Contest, Worker, column

OURS, THEIRS = "mulligan", "Math-Verify, parse and verify"
DEADLINE = 1.0
# A sample of what models have written, or might: towers, sizes, nesting. Numbered below, so that no two are the same.
BOMBS = (
    "9^{9^{9^{9}}}+%d", r"(10^9+%d)!", r"\binom{10^{12}}{%d}", r"\sqrt{2+\sqrt{3^{9^{9^{%d}}}}}", "(a+b+c+d+e+f)^{99%d}", r"\sin(9^{9^{9^{%d}}})",
    r"\sum_{n=1}^{10^{12}} \frac{1}{n^2+%d}", r"\prod_{n=1}^{10^{9}} (n^2+%d)", "7^{1000000%d}-x", r"\begin{pmatrix} 1 & 1 \\ 1 & 0 \end{pmatrix}^{10^{%d}}",
    "(((x+1)^9+1)^9+1)^9-(((x+%d)^9+1)^9+1)^9", r"\frac{(10^8+%d)!}{(10^8-1)!}", r"\int_0^1 x^{x^{x^{%d}}} \sin(\tan(x^{9})) \, dx",
)  # fmt: skip


def pairs(path: str, limit: int | None) -> list[tuple[str, str]]:
    """(gold, answer): right and wrong by turns."""
    with Path(path).open(encoding="utf-8") as lines:
        golds = [json.loads(line)["answer"] for line in lines][:limit]
    return [pair for i, gold in enumerate(golds) for pair in ((gold, gold), (gold, golds[(i + 1) % len(golds)]))]


def sentence(answer: str) -> str:
    return f"Adding up, we find that the answer is $\\boxed{{{answer}}}$."


# --------------------------------------------------------------------------------------------------------------------- workers


def serve_ours(channel: Channel, *, path: str, limit: int | None, workers: int) -> None:
    """Jobs: `{"bombs": n}` mixes n into the pairs; answers the seconds until the last ordinary verdict, and the last of all.
    `{"single": true}` sends every bomb alone and answers how long each took. Nothing is remembered between jobs."""
    from mulligan.config import GraderConfig
    from mulligan.grading import make_grader
    from mulligan.types import Problem

    work = [(Problem(gold, "", gold), sentence(answer)) for gold, answer in pairs(path, limit)]
    numbers = itertools.count(2)

    def bomb(i: int) -> tuple[Problem, str]:
        return Problem("b", "", "x^2+1"), sentence(BOMBS[i % len(BOMBS)] % next(numbers))

    async def grade(grader: Any, problem: Problem, text: str) -> tuple[Any, float]:
        verdict = await grader.grade(problem, text)
        return verdict, time.perf_counter()

    async def mixed(grader: Any, bombs: int) -> dict[str, Any]:
        start = time.perf_counter()
        tasks, ordinary = [], []
        for i, (problem, text) in enumerate(work):
            if bombs and i % (len(work) // bombs) == 0:
                tasks.append(grade(grader, *bomb(i)))
            ordinary.append(len(tasks))
            tasks.append(grade(grader, problem, text))
        found = await asyncio.gather(*tasks)
        verdicts = [found[i][0].kind.value for i in ordinary]
        return {
            "seconds": max(found[i][1] for i in ordinary) - start,
            "all_seconds": max(at for _, at in found) - start,
            "right": verdicts[::2].count("correct"),
            "accepted": verdicts[1::2].count("correct"),
            "ungradable": sum(v.kind.value == "ungradable" for v, _ in found),
            "timeouts": sum(v.reason == "timeout" for v, _ in found),
        }

    async def single(grader: Any) -> dict[str, Any]:
        taken = []
        for i in range(len(BOMBS)):
            start = time.perf_counter()
            taken.append((await grade(grader, *bomb(i)))[1] - start)
        return {"taken": taken}

    def run(job: dict[str, Any]) -> dict[str, Any]:
        grader = make_grader(GraderConfig(workers=workers, deadline=DEADLINE))
        try:
            asyncio.run(_warm(grader, Problem))
            return asyncio.run(single(grader) if job.get("single") else mixed(grader, job.get("bombs", 0)))
        finally:
            grader.close()

    channel.serve(run, pairs=len(work))


async def _warm(grader: Any, problem: Any) -> None:
    """Have the workers started: that happens once in a run."""
    await asyncio.gather(*(grader.grade(problem("w", "", rf"\sqrt{{{i}}}+x"), sentence(rf"x+\sqrt{{{i}+{i}}}")) for i in range(2, 22)))


def serve_theirs(channel: Channel, *, path: str, limit: int | None) -> None:
    """As its README has it, without its timeouts (they are not ours, and cost a little): one process, gold and answer parsed, then compared."""
    from math_verify import parse, verify
    from math_verify.parser import parse_latex_cached

    work = [(f"${gold}$", sentence(answer)) for gold, answer in pairs(path, limit)]

    def run(job: dict[str, Any]) -> dict[str, Any]:
        parse_latex_cached.cache_clear()
        start = time.perf_counter()
        verdicts = [verify(parse(g, parsing_timeout=None), parse(a, parsing_timeout=None), timeout_seconds=None) for g, a in work]  # type: ignore[arg-type]
        return {"seconds": time.perf_counter() - start, "right": sum(map(bool, verdicts[::2])), "accepted": sum(map(bool, verdicts[1::2]))}

    for gold, answer in work[:40]:
        verify(parse(gold, parsing_timeout=None), parse(answer, parsing_timeout=None), timeout_seconds=None)  # type: ignore[arg-type]
    channel.serve(run, pairs=len(work))


# ----------------------------------------------------------------------------------------------------------------------- suite


def run(settings: Settings) -> Result:
    path = Path(os.environ.get("MULLIGAN_DATA", "")) / "math500.jsonl"
    if not os.environ.get("MULLIGAN_DATA") or not path.exists():
        return Result("Grading", [], ["Not measured: set MULLIGAN_DATA to the folder that holds math500.jsonl."])
    limit = 20 if settings.tiny else None
    start = partial(Worker, out=settings.out, threads=1)
    data = {"path": str(path), "limit": limit}
    starts: dict[str, Any] = {OURS: partial(start, OURS, "benchmarks.grading:serve_ours", data | {"workers": settings.threads})}
    starts[THEIRS] = partial(start, THEIRS, "benchmarks.grading:serve_theirs", data)
    rounds, mixed, alone = [], [], []
    with Contest(starts) as contest:
        count = contest.info.get(OURS, contest.info.get(THEIRS, {})).get("pairs", 0)
        for number in range(settings.rounds):
            rounds.append(contest.round({}))
            if OURS in contest.workers:
                mixed.append({OURS: contest.workers[OURS].ask({"bombs": count // 10})})
                alone.append(contest.workers[OURS].ask({"single": True}))
            print(f"  round {number + 1} of {settings.rounds}", flush=True)
    speeds = {name: [count / s for s in column(rounds, name, "seconds")] for name in starts}
    table = Table(f"{count} pairs of MATH-500, half of them wrong: verdicts per second", ["", "per second", "times Math-Verify", "right accepted", "wrong accepted"])
    for name in starts:
        if speeds[name]:
            last = rounds[-1][name]
            table.add(name, spread(speeds[name], 0), spread(ratio(speeds[name], speeds[THEIRS]), 1) if speeds[THEIRS] else "", str(last["right"]), str(last["accepted"]))
    if with_bombs := [count / s for s in column(mixed, OURS, "seconds")]:
        last = mixed[-1][OURS]
        table.add(f"{OURS}, the same with one bomb to ten", spread(with_bombs, 0), "", str(last["right"]), str(last["accepted"]))
    failed_rows(table, contest.failures)
    notes = [f"mulligan with {settings.threads} worker processes and a deadline of {DEADLINE:g} s; Math-Verify in one process, without its timeouts; no verdict is remembered between rounds."]
    if with_bombs:
        share = ratio(with_bombs, speeds[OURS])
        notes.append(f"With bombs the ordinary answers come at {spread([100 * s for s in share], 0)} % of the speed; all verdicts after {spread(column(mixed, OURS, 'all_seconds'), 2)} s, "
                     f"{spread(column(mixed, OURS, 'timeouts'), 0)} at their deadline, {spread(column(mixed, OURS, 'ungradable'), 0)} ungradable.")  # fmt: skip
        slowest = [max(answer["taken"]) for answer in alone]
        notes.append(f"A bomb alone: median {1000 * statistics.median(itertools.chain.from_iterable(a['taken'] for a in alone)):.0f} ms, slowest {spread(slowest, 3)} s.")
    return Result("Grading", [table], notes, {"rounds": rounds, "mixed": mixed, "alone": alone, "info": contest.info, "failures": contest.failures})
