"""Answers that were written to hang, crash or take over the grader: bombs (`grading_cases/bombs.jsonl`) and code that would leave a marker.

A bomb is `{"name", "parts"}`: the text is all parts one after the other, a part being a piece, how often it is repeated, and `"count"` if
a `#` in it stands for how often it was repeated before. `"raw"` says that the text is the whole attempt; else it stands in a box.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mulligan.config import GraderConfig
from mulligan.errors import ConfigError
from mulligan.grading import grade_answer, grade_text, make_grader
from mulligan.types import Problem, VerdictKind

DEADLINE = 0.5
NOISE = 1.5
"""Seconds beyond the deadline that a busy machine may add."""
MEMORY_MB = 1024 + 700
"""One job at its limit, and the libraries of a few processes."""
SETTLED = (VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.CORRECT)
"""What an answer can come to. Never ungradable: that is said of failures of the grader's own."""


def built(bomb):
    text = "".join(
        "".join(piece.replace("#", str(i)) for i in range(times)) if count else piece * times for piece, times, *count in bomb["parts"]
    )
    return text if bomb.get("raw") else rf"\boxed{{{text}}}"


BOMBS = [json.loads(line) for line in (Path(__file__).parent / "grading_cases" / "bombs.jsonl").read_text(encoding="utf-8").splitlines()]
GOLDS = {
    "number": "7",
    "root": r"\sqrt{2}",
    "expression": r"x^2+\sin x",
    "tuple": "(1,2)",
    "set": r"\{1,2\}",
    "interval": "[1,2)",
    "union": r"(-\infty,2)\cup(3,\infty)",
    "inequality": "x<2",
    "equation": "y=2x+3",
    "name": "x=7",
    "matrix": r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    "unit": r"5\text{ cm}",
    "percent": r"28\%",
    "base": "10_2",
    "choice": r"\text{(C)}",
    "words": r"\text{no solutions}",
}


def problem(gold, kind="math", **meta):
    return Problem(id="", question="", answer=gold, grader=kind, meta=meta)


class Memory:
    """The most memory that the descendants of this process had in use at any one time, in MB, looked at every few milliseconds."""

    def __init__(self):
        self.most = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.02):
            self.most = max(self.most, sum(map(self._resident, self._descendants(os.getpid()))))

    def _descendants(self, pid):
        found = []
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                children = (task / "children").read_text().split()
            except OSError:
                continue
            for child in children:
                found += [int(child), *self._descendants(int(child))]
        return found

    @staticmethod
    def _resident(pid):
        try:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        except OSError:
            return 0.0


@pytest.fixture(scope="module")
def grader():
    grader = make_grader(GraderConfig(workers=1, deadline=DEADLINE))
    asyncio.run(grader.grade(problem(r"\sqrt{2}"), r"\boxed{2^{1/2}}"))  # has the worker started
    yield grader
    grader.close()


def throw(grader, pairs):
    """Grade one after the other, an ordinary question behind each. What went wrong, one line each."""

    async def main():
        faults = []
        for name, gold, text in pairs:
            start = time.monotonic()
            verdict = await grader.grade(problem(gold), text)
            took = time.monotonic() - start
            if verdict.kind not in SETTLED or verdict.correct:
                faults.append(f"{name}: {verdict.kind.value}, {verdict.reason}")
            if took > DEADLINE + NOISE:
                faults.append(f"{name}: answered after {took:.2f} s")
            start = time.monotonic()
            after = await grader.grade(problem(r"\frac{\sqrt{3}}{2}"), rf"\boxed{{\frac{{\sqrt{{{2 + len(name) % 2}}}}}{{2}}}}")
            took = time.monotonic() - start
            if after.correct != (len(name) % 2 == 1) or after.kind is VerdictKind.UNGRADABLE or took > DEADLINE + NOISE:
                faults.append(f"after {name}: {after.kind.value}, {after.reason}, after {took:.2f} s")
        return faults

    return asyncio.run(main())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is looked up in /proc")
def test_bombs_cost_their_deadline_and_no_more(grader):
    assert len(BOMBS) >= 60 and len({bomb["name"] for bomb in BOMBS}) == len(BOMBS)
    with Memory() as memory:
        faults = throw(grader, [(bomb["name"], r"\sqrt{2}", built(bomb)) for bomb in BOMBS])
    assert not faults, "\n".join(faults)
    assert 20 < memory.most < MEMORY_MB


BY_TYPE = ("tower of nines and a variable", "tower in a tuple", "tower in a set", "tower as the end of an interval", "tower in an inequality", "open parentheses only", "many commas", "tower in a matrix")


@pytest.mark.parametrize("kind", GOLDS)
def test_bombs_against_golds_of_every_type(grader, kind):
    bombs = [bomb for bomb in BOMBS if bomb["name"] in BY_TYPE]
    assert len(bombs) == len(BY_TYPE)
    faults = throw(grader, [(bomb["name"], GOLDS[kind], built(bomb)) for bomb in bombs])
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("kind", ["numeric", "text"])
def test_bombs_against_graders_without_algebra(grader, kind):
    async def main():
        return [(bomb["name"], verdict) for bomb in BOMBS if (verdict := await grader.grade(problem("7", kind), built(bomb))).correct or verdict.kind not in SETTLED or verdict.ms > 1000]

    assert asyncio.run(main()) == []


def test_a_bomb_delays_no_other_verdict_by_more_than_its_deadline():
    """One bomb to ten ordinary questions, all at once on two workers: the ordinary ones wait for no row of bombs."""
    grader = make_grader(GraderConfig(workers=2, deadline=DEADLINE))

    async def timed(gold, text, start):
        verdict = await grader.grade(problem(gold), text)
        return verdict, time.monotonic() - start

    async def main():
        await asyncio.gather(*(grader.grade(problem(r"\sqrt{2}"), rf"\boxed{{2^{{1/{i}}}}}") for i in range(2, 8)))  # both workers stand
        start = time.monotonic()
        ordinary = [timed(r"x^2+2x+1", rf"\boxed{{(x+{i % 2 + 1})^2}}", start) for i in range(100)]
        bombs = [timed("x", rf"\boxed{{9^{{9^{{9^9}}}}+x^{{{i}}}}}", start) for i in range(10)]
        mixed = [task for i in range(10) for task in (bombs[i], *ordinary[10 * i : 10 * i + 10])]
        return await asyncio.gather(*mixed)

    try:
        results = asyncio.run(main())
    finally:
        grader.close()
    ordinary = [result for i, result in enumerate(results) if i % 11]
    assert [verdict.correct for verdict, _ in ordinary] == [i % 2 == 0 for i in range(100)]
    assert max(took for _, took in ordinary) < 2 * DEADLINE + NOISE  # five bombs fall to each worker: in a row they would take 2.5 s
    assert all(verdict.kind is VerdictKind.WRONG for i, (verdict, _) in enumerate(results) if i % 11 == 0)


# ------------------------------------------------------------------------------------------------------------------ payloads

EXPRESSIONS = [
    "open('{m}','w')",
    "__import__('os').system('touch {m}')",
    "__import__('pathlib').Path('{m}').touch()",
    "(lambda: open('{m}','w'))()",
    "[open('{m}','w') for _ in (1,)]",
    "getattr(__import__('os'),'sys'+'tem')('touch {m}')",
    "[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='_wrap_close'][0].__init__.__globals__['system']('touch {m}')",
    "f\"{{open('{m}','w')}}\"",
    "eval(\"open('{m}','w')\")",
    "exec(\"open('{m}','w')\")",
    "exec(bytes([111,112,101,110]).decode()+\"('{m}','w')\")",
    "7 if open('{m}','w') else 8",
    "7 and open('{m}','w')",
    "7+len(open('{m}','w').name)",
    "print(open('{m}','w'))",
    "__import__('subprocess').run(['touch','{m}'])",
    "__builtins__.__dict__['open']('{m}','w') if hasattr(__builtins__,'__dict__') else __builtins__['open']('{m}','w')",
    "(x:=open('{m}','w'))",
    "type('x',(),dict(a=open('{m}','w')))",
    "max([7],key=lambda y: open('{m}','w').fileno())",
]
"""Expressions of Python, each of which makes the marker if it is evaluated."""

OTHERS = [
    "7; import os; os.system('touch {m}')",
    "7\nimport os\nos.system('touch {m}')",
    "'''); open('{m}','w'); ('''",
    "Symbol(\"x'); open('{m}','w'); ('\")",
    "sympify(\"open('{m}','w')\")",
    "parse_expr(\"open('{m}','w')\")",
    "S(\"open('{m}','w')\")",
    "N(\"open('{m}','w')\")",
    "Function('f')(open('{m}','w'))",
    "lambdify((), \"open('{m}','w')\")()",
    "Integer(7).__class__.__init__.__globals__['__builtins__']['open']('{m}','w')",
    "x.subs(x, \"open('{m}','w')\")",
    "cos\nsystem\n(S'touch {m}'\ntR.",
    "!!python/object/apply:os.system ['touch {m}']",
    "!touch {m}",
    "%sx touch {m}",
    "\\write18{{touch {m}}}",
    "\\immediate\\write18{{touch {m}}}",
    "\\input{{|\"touch {m}\"}}",
    "\\openout7={m}\\relax",
    "\\directlua{{os.execute('touch {m}')}}",
    "\\href{{run:touch {m}}}{{7}}",
    "$(touch {m})",
    "`touch {m}`",
    "7; touch {m}",
    "7 && touch {m}",
    "7 | touch {m}",
    "7\ntouch {m}\n",
    "'; touch {m}; '",
    "7 > {m}",
]

POSITIONS = [
    "{p}", r"\text{{{p}}}", r"\mathrm{{{p}}}", r"\operatorname{{{p}}}(2)", r"7\text{{ {p}}}", r"7 \mathrm{{~{p}}}", "(1,{p})", r"\{{{p},2\}}", "[{p},2)",
    r"(1,2)\cup({p},3)", r"\begin{{pmatrix}} {p} & 2 \\ 3 & 4 \end{{pmatrix}}", r"\begin{{{p}}}1\end{{{p}}}", "x={p}", "{p}=7", "{p}(x)=7", r"\frac{{{p}}}{{2}}", r"\sqrt{{{p}}}",
    "x_{{{p}}}", "x^{{{p}}}", "10_{{{p}}}", "${p}$", r"\boxed{{{p}}}", "'{p}'", '"{p}"', "x<{p}", r"\sum_{{k=1}}^{{{p}}} k", "f({p})", r"{p}\%", r"\${p}", "#### {p}", "<answer>{p}</answer>",
]  # fmt: skip


def payloads(marker):
    return [payload.format(m=marker) for payload in EXPRESSIONS + OTHERS]


def test_the_payloads_are_live(tmp_path):
    """Evaluated, every expression makes its marker, and SymPy's `sympify` evaluates: the tests below can fail."""
    markers = [tmp_path / str(i) for i in range(len(EXPRESSIONS))]
    code = "import sys\nfor line in sys.stdin:\n    try:\n        eval(line.strip())\n    except Exception:\n        pass\n"
    subprocess.run([sys.executable, "-c", code], input="\n".join(p.format(m=m) for p, m in zip(EXPRESSIONS, markers, strict=True)), text=True, check=True, capture_output=True)
    assert [expression for expression, marker in zip(EXPRESSIONS, markers, strict=True) if not marker.exists()] == []
    marker = tmp_path / "sympy"
    code = "import sys, sympy\ntry:\n    sympy.sympify(sys.argv[1])\nexcept Exception:\n    pass\n"
    subprocess.run([sys.executable, "-c", code, EXPRESSIONS[1].format(m=marker)], check=True, capture_output=True)
    assert marker.exists()


def test_text_of_a_model_is_never_run_in_any_position(grader, tmp_path):
    marker = tmp_path / "marker"
    golds = list(GOLDS.values())
    work = [
        (golds[(i + j) % len(golds)], position.format(p=payload)) for i, payload in enumerate(payloads(marker)) for j, position in enumerate(POSITIONS)
    ] + [(gold, payload) for payload in payloads(marker) for gold in golds]

    async def main():
        return await asyncio.gather(*(grader.grade(problem(gold), rf"\boxed{{{answer}}}") for gold, answer in work))

    verdicts = asyncio.run(main())
    assert len(verdicts) > 2000 and all(verdict.kind in SETTLED for verdict in verdicts)
    assert not marker.exists()
    assert [pair for pair, verdict in zip(work, verdicts, strict=True) if verdict.correct] == []


def test_text_of_a_model_is_never_run_as_a_sentence_or_a_gold(tmp_path):
    marker = tmp_path / "marker"
    for payload in payloads(marker):
        for answer in (payload, f"The answer is ${payload}$ and {payload}", f"{payload}\n\\boxed{{{payload}}}"):
            grade_answer(r"\sqrt{2}", answer)
        grade_text(r"\sqrt{2}", f"{payload} \\boxed{{{payload}}} {payload}")
        grade_text(payload, r"\boxed{\sqrt{2}}")
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["numeric", "text", "gym"])
def test_text_of_a_model_is_never_run_by_the_other_graders(grader, tmp_path, kind):
    marker = tmp_path / "marker"
    names = ("countdown", "chain_sum", "simple_equations", "polynomial_equations", "complex_arithmetic", "decimal_arithmetic")

    async def main():
        for payload in payloads(marker):
            for name in names if kind == "gym" else ("",):
                entry = {"question": "?", "answer": "7", "metadata": {"source_dataset": name, "numbers": [7], "target": 7}}
                meta = {"dataset": name, "entry": entry} if name else {}
                verdict = await grader.grade(problem("7", kind, **meta), rf"\boxed{{{payload}}}")
                assert not verdict.correct, (name, payload, verdict)

    asyncio.run(main())
    assert not marker.exists()


@pytest.mark.parametrize("answer_format", ["####", "Answer:", "<answer>", "last number", r"regex:Result: (.*)"])
def test_text_of_a_model_is_never_run_in_other_formats(tmp_path, answer_format):
    """Hints are on: they compare once more than verdicts do."""
    marker = tmp_path / "marker"
    grader = make_grader(GraderConfig(workers=1, deadline=DEADLINE, format=answer_format, hints=True))

    async def main():
        texts = [
            (gold, text)
            for payload in payloads(marker)
            for gold in (r"\sqrt{2}", "(1,2)", r"5\text{ cm}")
            for text in (f"#### {payload}", f"Answer: {payload}", f"<answer>{payload}</answer>", f"Result: {payload}", f"{payload} 7")
        ]
        return await asyncio.gather(*(grader.grade(problem(gold, tolerance=1e-3), text) for gold, text in texts))

    try:
        verdicts = asyncio.run(main())
    finally:
        grader.close()
    assert not marker.exists()
    assert all(verdict.kind in SETTLED and not verdict.correct for verdict in verdicts)


def test_code_of_a_model_is_run_in_its_sandbox_alone(tmp_path):
    marker = tmp_path / "marker"
    try:
        grader = make_grader(GraderConfig(workers=1, code=True))
    except ConfigError as error:
        pytest.skip(f"no sandbox: {error}")
    lines = ["def f(x):", "    return x + 1", ""]
    for payload in payloads(marker):
        lines += ["try:", f"    exec({payload!r})", "except BaseException:", "    pass"]
    tests = {"tests": "assert f(1) == 2", "entry_point": "f"}
    try:
        for body in ("\n".join(lines), f"import os\nos.system('touch {marker}')\ndef f(x):\n    return x + 1", f"def f(x):\n    open({str(marker)!r}, 'w')\n    return x + 1"):
            verdict = asyncio.run(grader.grade(problem("", "code", **tests), f"```python\n{body}\n```"))
            assert verdict.kind in SETTLED, verdict
        harmless = asyncio.run(grader.grade(problem("", "code", **tests), "```python\ndef f(x):\n    return x + 1\n```"))
    finally:
        grader.close()
    assert harmless.correct
    assert not marker.exists()
