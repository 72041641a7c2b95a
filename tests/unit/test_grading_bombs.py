r"""Answers built to hang, exhaust or crash a grader, through the grader that everybody uses: each is answered in time, and the pool is
as it was. The bound on time is part of the contract (the deadline and 0.3 s); it is asserted here with room for a busy machine."""

import asyncio
import os
import resource
import time
from pathlib import Path

import pytest

from mulligan.config import GraderConfig
from mulligan.grading import make_grader
from mulligan.types import Problem, VerdictKind

DEADLINE = 1.0
ROOM = 1.5
"""Seconds; 0.3 on a machine that does nothing else."""

NINES = "9^{9^{9^{9}}}"
BOMBS = {
    "tower": NINES,
    "tower plus a symbol": NINES + "+x",
    "tower without braces": "9^9^9^9^9",
    "ratio of towers": rf"\frac{{{NINES}}}{{{NINES}+1}}",
    "tower modulo": NINES + r"\bmod 7",
    "tower of a fraction": r"\left(\frac{2}{3}\right)^{9^{9^{9}}}",
    "sine of a tower": rf"\sin({NINES})",
    "logarithm of a tower": rf"\ln({NINES})",
    "million-digit power": "7^{10000000}",
    "difference of powers": "3^{9999999}-3^{9999998}\\cdot 3+7",
    "factorial": "(10^9)!",
    "factorial of a factorial": "((9!)!)!",
    "twenty exclamation marks": "3" + "!" * 20,
    "ratio of factorials": r"\frac{(10^8)!}{(10^8-1)!}",
    "binomial": r"\binom{10^{12}}{5\cdot 10^{11}}",
    "binomials within binomials": r"\binom{\binom{\binom{99}{49}}{9}}{9}",
    "a thousand braces": "{" * 1000 + "7" + "}" * 1000,
    "a thousand parentheses": "(" * 1000 + "7" + ")" * 1000,
    "ninety-nine parentheses": "(" * 99 + "x+1" + ")" * 99,
    "ninety nested powers": "(" * 90 + "x+1" + ")^2" * 90,
    "only opening braces": "{" * 5000 + "}" * 0,
    "nested fractions": r"\frac{1}{1+" * 90 + "x" + "}" * 90,
    "nested radicals": r"\sqrt{2+" * 90 + "2" + "}" * 90,
    "roots of a high order": r"\sqrt[987654321]{123456789123456789}",
    "a million digits": "7" * 1_000_000,
    "a million digits after the point": "0." + "3" * 1_000_000,
    "nine thousand digits": "7" * 9_000,
    "fraction of long numbers": rf"\frac{{{'7' * 4000}}}{{{'3' * 4000}}}",
    "sum with huge bounds": r"\sum_{n=1}^{10^{12}} \frac{1}{n^2+n+1}",
    "product with huge bounds": r"\prod_{n=1}^{10^{9}} (n^2+1)",
    "sums within sums": r"\sum_{a=1}^{9999} \sum_{b=1}^{9999} \sum_{c=1}^{9999} \frac{1}{a+b+c}",
    "integral": r"\int_0^1 x^{x^{x^{x}}} \sin(\tan(x^{99})) \, dx",
    "limit": r"\lim_{x \to 0} \frac{\sin(\tan x)-\tan(\sin x)}{\arcsin(\arctan x)-\arctan(\arcsin x)}",
    "expansion": "(a+b+c+d+e+f+g+h)^{999}",
    "powers of sums multiplied": "(x+1)^{500}(x+2)^{500}(x+3)^{500}-(x^3+6x^2+11x+6)^{500}",
    "polynomial of a high degree": "x^{99999}-1",
    "huge matrix": r"\begin{pmatrix}" + r"\\".join("&".join("x" for _ in range(60)) for _ in range(60)) + r"\end{pmatrix}",
    "power of a matrix": r"\begin{pmatrix} 1 & 1 \\ 1 & 0 \end{pmatrix}^{10^{9}}",
    "determinant": r"\det \begin{pmatrix}" + r"\\".join("&".join(f"x_{{{i}{j}}}" for j in range(12)) for i in range(12)) + r"\end{pmatrix}",
    "a set of thousands": r"\{" + ",".join(map(str, range(4000))) + r"\}",
    "a tuple of expressions": "(" + ",".join(rf"\sqrt{{{i}+\sqrt{{{i}}}}}" for i in range(300)) + ")",
    "unions": r"\cup".join(f"({i},{i + 1})" for i in range(600)),
    "a chain of equations": "=".join(f"x^{{{i}}}" for i in range(1000)),
    "a chain of inequalities": "<".join(f"x_{{{i}}}" for i in range(1000)),
    "plus and minus signs": "+-" * 20_000 + "7",
    "plus-minus of plus-minus": r"\pm 1" * 60,
    "commas": "," * 50_000,
    "unreadable commands": r"\frac" * 5_000,
    "left without right": r"\left(" * 3_000,
    "boxes within the box": r"\boxed{" * 300 + "7" + "}" * 300,
    "text within text": r"\text{" * 400 + "a" + "}" * 400,
    "dollars": "$" * 20_000,
    "subscripts": "a" + "_{b" * 300 + "}" * 300,
    "primes": "f" + "'" * 10_000,
    "control characters": "".join(map(chr, range(32))) * 50 + "7",
    "null characters": "7\0" * 1_000,
    "combining accents": "7" + "\u0301" * 20_000,
    "right to left": "\u202e7\u202c" * 2_000,
    "surrogates": "\ud800" * 500 + "7",
    "digits of all scripts": "".join(chr(c) for c in range(0x660, 0x66A)) * 500,
    "superscripts": "7" + "⁹" * 3_000,
    "ligatures that grow": "\ufdfa" * 5_000,
    "emoji": "👩‍👩‍👧‍👦" * 1_000,
    "absolute values": "|" * 999 + "x" + "|" * 999,
    "floors": r"\lfloor " * 90 + r"\pi^{99}" + r" \rfloor" * 90,
    "degrees of degrees": "7" + r"^{\circ}" * 500,
    "percent of percent": "7" + r"\%" * 3_000,
    "zeta by hand": r"\zeta(10^{9})+\Gamma(10^{9})",
    "gcd": r"\gcd(2^{10^{7}}-1, 3^{10^{7}}-1)",
    "bases": "1" * 4_000 + "_{2}",
    "scientific": "1e999999999",
    "scientific in LaTeX": r"1 \times 10^{999999999}",
    "repeating": r"0.\overline{" + "142857" * 1_500 + "}",
    "continued": "1+" + r"\cfrac{1}{1+" * 80 + "1" + "}" * 80,
}  # fmt: skip
GOLDS = ("42", r"\frac{\sqrt{3}}{2}", "x^2+1", "(1,2)", "[0,1)", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}")


@pytest.fixture(scope="module")
def grader():
    grader = make_grader(GraderConfig(deadline=DEADLINE, workers=2))
    yield grader
    grader.close()


def problem(gold):
    return Problem(gold, "", gold)


def boxed(answer):
    return f"So it is \\boxed{{{answer}}}"


async def grade(grader, gold, answer):
    start = time.monotonic()
    verdict = await grader.grade(problem(gold), boxed(answer))
    return verdict, time.monotonic() - start


@pytest.fixture(scope="module")
def warm(grader):
    """Workers are there: what is timed is grading."""

    async def start():
        await asyncio.gather(*(grade(grader, r"\frac{\sqrt{3}}{2}", rf"\sin({i}^\circ)") for i in range(61, 66)))

    asyncio.run(start())


def memory_of_children():
    """Megabytes resident in the processes below this one."""
    parents, sizes = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[path.parent.name], sizes[path.parent.name] = fields[1], int(fields[21]) * resource.getpagesize() / 2**20
    family = {str(os.getpid())}
    for _ in range(4):
        family |= {pid for pid, parent in parents.items() if parent in family}
    return max((sizes[pid] for pid in family - {str(os.getpid())} if pid in sizes), default=0.0)


def test_there_are_bombs_enough():
    assert len(BOMBS) >= 60


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_answered_in_time(grader, name):
    gold = GOLDS[list(BOMBS).index(name) % len(GOLDS)]
    verdict, seconds = asyncio.run(grade(grader, gold, BOMBS[name]))
    assert seconds < DEADLINE + ROOM
    # An unbalanced one is no answer; whatever is read as one is judged. The gold is readable: nothing here is the grader's failure.
    assert verdict.kind in (VerdictKind.WRONG, VerdictKind.NO_ANSWER) or (verdict.correct and gold == "42"), verdict
    assert verdict.kind is not VerdictKind.WRONG or verdict.ms < (DEADLINE + ROOM) * 1000


@pytest.mark.usefixtures("warm")
def test_all_at_once_among_ordinary_answers(grader):
    """Every verdict comes, the ordinary ones are right, memory stays within the limits, and the pool is whole at the end."""
    ordinary = [(r"\frac{\sqrt{3}}{2}", rf"\frac{{{k}\sqrt{{3}}}}{{{2 * k}}}", True) for k in range(1, 40)]
    ordinary += [(r"\frac{\sqrt{3}}{2}", rf"\frac{{{k}\sqrt{{3}}}}{{{2 * k + 1}}}", False) for k in range(1, 40)]
    bombs = list(BOMBS.values())
    peak = 0.0

    async def watch():
        nonlocal peak
        while True:
            peak = max(peak, memory_of_children())
            await asyncio.sleep(0.05)

    async def main():
        watching = asyncio.ensure_future(watch())
        tasks = [grade(grader, "x^2+1", bomb) for bomb in bombs[:20]]
        tasks += [grade(grader, gold, answer) for gold, answer, _ in ordinary]
        tasks += [grade(grader, "x^2+1", bomb) for bomb in bombs[20:]]
        found = await asyncio.gather(*tasks)
        watching.cancel()
        return found

    found = asyncio.run(main())
    of_ordinary = found[20 : 20 + len(ordinary)]
    assert [verdict.correct for verdict, _ in of_ordinary] == [expected for _, _, expected in ordinary]
    assert not [v for v, _ in found if v.kind is VerdictKind.UNGRADABLE]
    assert not [v for v, _ in found[:20] + found[20 + len(ordinary) :] if v.correct]
    slowest = max(seconds for _, seconds in of_ordinary)
    assert slowest < 5 * (DEADLINE + ROOM), "the ordinary ones waited for the bombs"
    assert peak < 1024 + 512, "megabytes of one process: its limit and the libraries"
    pool = grader.pool
    end = time.monotonic() + 5
    while len(pool.pids) < pool.workers and time.monotonic() < end:
        time.sleep(0.02)
    assert len(pool.pids) >= pool.workers
