"""The grader as the rest of the project uses it: verdicts, routing, bombs, injections, real question sets."""

import asyncio
import json
import os
import sys
import time
import types
from pathlib import Path

import pytest

from mulligan.config import GraderConfig
from mulligan.errors import ConfigError
from mulligan.grading import grade_answer, grade_text, make_grader
from mulligan.grading.entry_points import call_entry_point
from mulligan.grading.extract import MAX_ANSWER
from mulligan.types import Problem, Verdict, VerdictKind

CORRECT, WRONG, NO_ANSWER, UNGRADABLE = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.UNGRADABLE


@pytest.fixture(scope="module")
def grader():
    grader = make_grader(GraderConfig(workers=2, deadline=5.0))
    yield grader
    grader.close()


def problem(answer, grader="math", **meta):
    return Problem(id="p", question="?", answer=answer, grader=grader, meta=meta)


def grade(grader, answer, text, kind="math", **meta):
    return asyncio.run(grader.grade(problem(answer, kind, **meta), text))


def test_verdicts_without_a_worker():
    grader = make_grader(GraderConfig())
    assert grade(grader, "7", r"\boxed{7}").kind is CORRECT
    wrong = grade(grader, "7", r"first \boxed{7}, no, \boxed{8}")
    assert wrong.kind is WRONG and wrong.answer == "8" and 0 < wrong.ms < 1000
    assert grade(grader, "7", "it is 7").kind is NO_ANSWER
    assert grade(grader, "7", r"\boxed{7").kind is NO_ANSWER
    assert grade(grader, "7", r"\boxed{ }").kind is NO_ANSWER
    long = grade(grader, "7", r"\boxed{" + "7" * 100_000 + "}")
    assert long.kind is WRONG and str(MAX_ANSWER) in (long.reason or "") and len(long.answer or "") <= 1000
    assert grade(grader, "Even", r"\boxed{even }", "text").kind is CORRECT
    assert grade(grader, "7", r"\boxed{7.0}", "text").kind is WRONG
    assert grade(grader, "1,000", r"\boxed{\$1000.00}", "numeric").kind is CORRECT
    assert grade(grader, "1000", r"\boxed{a thousand}", "numeric").kind is WRONG
    assert grade(grader, "a thousand", r"\boxed{1000}", "numeric").kind is UNGRADABLE
    assert not grader.pool.started


def test_integers_are_graded_fast():
    start = time.perf_counter()
    for i in range(4000):
        grade_text("1234", rf"Let me see. The answer is \boxed{{{1230 + i % 10}}}.")
    assert 4000 / (time.perf_counter() - start) > 20_000 / 4  # a quarter of what an idle machine must do


@pytest.mark.parametrize(
    ("gold", "answer", "kind"),
    [
        (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2", CORRECT),
        (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/3", WRONG),
        ("5", "2+3", CORRECT),
        (r"x^2+2x+1", r"(x+1)^2", CORRECT),
        (r"x^2+2x+1", r"(x+2)^2", WRONG),
        ("1,-2", "-2, 1", CORRECT),
        ("(1,2)", "(p,q)=(1,2)", CORRECT),
        ("(1,2)", "(2,1)", WRONG),
        ("[0,1)", "[0,1]", WRONG),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", CORRECT),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 3 \end{bmatrix}", WRONG),
        (r"864 \mbox{ inches}^2", "864", CORRECT),
        (r"1-\frac{1}{\mathrm{e}}", r"1+\frac{1}{\mathrm{e}}", WRONG),
        (r"1-\frac{1}{\mathrm{e}}", r"\frac{e-1}{e}", CORRECT),
        (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}", WRONG),
        (r"\frac{1}{2^{98}}", r"2^{-98}", CORRECT),
        (r"7", r"\text{no idea at all}", WRONG),
        (r"\text{no solutions}", "7", WRONG),
    ],
)
def test_symbolic(grader, gold, answer, kind):
    assert grade(grader, gold, rf"\boxed{{{answer}}}").kind is kind


@pytest.mark.parametrize(
    ("gold", "answer", "kind"),
    [
        ("$9$", r"Answer \[ 9 \]", CORRECT),
        ("$28\\%$", "28 percent", CORRECT),
        ("1000.99", "the number is not 10 which is 1,000.99€", CORRECT),
        ("$34$", "Final Answer: The largest $n$ is 34.", CORRECT),
        ("$34$", "Final Answer: The largest $n$ is 35.", WRONG),
        ("2", "AZYUK2A", WRONG),
        ("$x > 5$", "Therefore $x < 5$ is the solution.", WRONG),
    ],
)
def test_answers_that_are_sentences(gold, answer, kind):
    assert grade_answer(gold, answer).kind is kind


def test_a_deadline_is_wrong_if_the_answer_passed_it_and_ungradable_if_the_gold_did():
    tower = r"\int_0^1 x^{x^{x}} \sin(\tan(x^{9})) \, dx + x"
    wrong = grade_text("x", rf"\boxed{{{tower}}}", deadline=0.5)
    assert wrong.kind is WRONG and wrong.reason == "timeout"
    ours = grade_text("{" * 1000 + "x" + "}" * 1000, r"\boxed{x^2}", deadline=0.5)
    assert ours.kind is UNGRADABLE and "gold" in (ours.reason or "")


def test_a_worker_that_cannot_start_is_ungradable(grader, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    broken = make_grader(GraderConfig())
    verdict = grade(broken, "5", r"\boxed{2+3}")
    assert verdict.kind is UNGRADABLE and "no grading worker" in (verdict.reason or "")
    broken.close()


BOMBS = {
    "tower": "9^{9^{9^9}}",
    "factorial": "(10^9)!",
    "factorials": "10!!!!!!",
    "exponent": "1e999999999",
    "power of ten": "10^{10^{10}}",
    "nested braces": "{" * 1000 + "1" + "}" * 1000,
    "nested roots": r"\sqrt{" * 90 + "2" + "}" * 90,
    "nested fractions": r"\frac{1}{1+" * 80 + "x" + "}" * 80,
    "a million digits": "7" * 1_000_000,
    "many digits": "7" * 9_000,
    "many terms": "+".join(f"x^{{{i}}}" for i in range(900)),
    "expansion": "(a+b+c+d+e+f)^{500}",
    "control characters": "7\x00\x01\x1b[2J\ud800",
    "backslashes": "\\" * 5_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_their_deadline_and_no_more(grader, name):
    grade(grader, "5", r"\boxed{2+3}")  # has the workers started
    bombed = make_grader(GraderConfig(deadline=1.0))
    bombed.pool = grader.pool
    start = time.monotonic()
    verdict = grade(bombed, r"\sqrt{2}", rf"\boxed{{{BOMBS[name]}}}")
    assert time.monotonic() - start < 2.0
    assert verdict.kind in (WRONG, NO_ANSWER), verdict
    assert grade(grader, "5", r"\boxed{2+3}").kind is CORRECT


def test_text_of_a_model_is_never_run(grader, tmp_path):
    marker = tmp_path / "marker"
    payloads = [
        f"__import__('os').system('touch {marker}')",
        f"open('{marker}','w')",
        f"exec(\"open('{marker}','w')\")",
        f"1 if open('{marker}','w') else 2",
        f"\\text{{__import__('os').system('touch {marker}')}}",
        f"(lambda: open('{marker}','w'))()",
        f"\\input{{|touch {marker}}}\\write18{{touch {marker}}}",
        f"7; import os; os.system('touch {marker}')",
        f"'; touch {marker}; '",
        f"$(touch {marker})",
    ]
    for payload in payloads:
        for kind in ("math", "numeric", "text"):
            assert grade(grader, "7", rf"\boxed{{{payload}}}", kind).kind in (WRONG, NO_ANSWER)
        grade_answer("7", f"The answer is ${payload}$ and {payload}")
        for name in ("countdown", "chain_sum", "simple_equations"):
            entry = {"question": "?", "answer": "7", "metadata": {"source_dataset": name, "numbers": [7], "target": 7}}
            assert not grade(grader, "7", rf"\boxed{{{payload}}}", "gym", dataset=name, entry=entry).correct
    assert not marker.exists()


def test_reasoning_gym(grader):
    entry = {"question": "Reach 12 with 3, 4.", "answer": "3 * 4", "metadata": {"source_dataset": "countdown", "numbers": [3, 4], "target": 12}}
    assert grade(grader, "3 * 4", r"\boxed{3 * 4}", "gym", dataset="countdown", entry=entry).kind is CORRECT
    assert grade(grader, "3 * 4", r"\boxed{4 * 3}", "gym", dataset="countdown", entry=entry).kind is CORRECT
    assert grade(grader, "3 * 4", r"\boxed{3 + 4}", "gym", dataset="countdown", entry=entry).kind is WRONG
    assert grade(grader, "3 * 4", "3 * 4", "gym", dataset="countdown", entry=entry).kind is NO_ANSWER
    assert grade(grader, "3 * 4", r"\boxed{7}", "gym").kind is UNGRADABLE
    assert grade(grader, "3 * 4", r"\boxed{7}", "gym", dataset="no_such", entry=entry).kind is UNGRADABLE


def right(problem, text):
    return Verdict(CORRECT if problem.answer in text else WRONG, text, fields={"hint": "higher"})


async def right_later(problem, text):
    await asyncio.sleep(0.01)
    return right(problem, text)


def broken(problem, text):
    raise KeyError("oh")


def odd(problem, text):
    return True


def endless(problem, text):
    time.sleep(30)


@pytest.fixture
def importable(monkeypatch):
    """The functions above as a module that can be imported (under importlib mode this file cannot, by its name)."""
    module = types.ModuleType("grading_entry_points")
    for function in (right, right_later, broken, odd, endless):
        setattr(module, function.__name__, function)
    module.number = 7
    monkeypatch.setitem(sys.modules, "grading_entry_points", module)
    return lambda name: f"grading_entry_points:{name}"


def test_entry_points(importable):
    grader = make_grader(GraderConfig(deadline=0.3))
    for name in ("right", "right_later"):
        verdict = grade(grader, "7", "7!", importable(name))
        assert verdict.kind is CORRECT and verdict.fields == {"hint": "higher"} and verdict.ms > 0
        assert grade_text("7", "8!", kind=importable(name)).kind is WRONG
    assert "KeyError" in (grade(grader, "7", "7!", importable("broken")).reason or "")
    for name in ("broken", "odd", "endless"):
        assert grade(grader, "7", "7!", importable(name)).kind is UNGRADABLE
    assert grade(make_grader(GraderConfig(kind=importable("right"))), "7", "7!", "math").kind is CORRECT


@pytest.mark.parametrize(
    ("verdict", "fault"),
    [
        (Verdict("maybe"), "kind = 'maybe': use correct, wrong, no_answer, ungradable"),
        (Verdict(None), "kind = None: use correct"),
        (Verdict(CORRECT, answer=42), "answer = 42: give a str or None"),
        (Verdict(CORRECT, reason=b"no"), "reason = b'no': give a str or None"),
        (Verdict(CORRECT, fields=None), "fields = None: give a dict"),
        (Verdict(CORRECT, ms="1"), "ms = '1': give a number"),
    ],
)
def test_a_verdict_with_something_else_in_it(verdict, fault):
    found = asyncio.run(call_entry_point(lambda problem, text: verdict, problem("7"), "7!", 5.0))
    assert found.kind is UNGRADABLE and (found.reason or "").startswith(f"the grader returned a Verdict with {fault}")


def test_a_verdict_may_name_its_kind():
    assert asyncio.run(call_entry_point(lambda problem, text: Verdict("correct", "7"), problem("7"), "7!", 5.0)).kind is CORRECT


@pytest.mark.parametrize("kind", ["maths", "no_such_module:f", "json:no_such", "json:", ":f", "json:__doc__"])
def test_graders_that_do_not_exist(kind):
    with pytest.raises(ConfigError) as error:
        make_grader(GraderConfig(kind=kind))
    assert kind in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ConfigError):
        grade(make_grader(GraderConfig()), "7", r"\boxed{7}", kind)


def test_the_kind_of_the_recipe_comes_first():
    assert grade(make_grader(GraderConfig(kind="text")), "7", r"\boxed{7.0}", "math").kind is WRONG
    with pytest.raises(ConfigError, match="entry"):
        grade_text("7", r"\boxed{7}", kind="gym")


def test_many_at_once_and_loops_after_each_other(grader):
    async def main():
        pairs = [("x^2+2x+1", "(x+1)^2" if i % 2 else "(x+2)^2") for i in range(60)] + [(str(i), str(i)) for i in range(60)]
        verdicts = await asyncio.gather(*(grader.grade(problem(g), rf"\boxed{{{a}}}") for g, a in pairs))
        return [v.correct for v in verdicts]

    expected = [bool(i % 2) for i in range(60)] + [True] * 60
    assert asyncio.run(main()) == expected
    assert asyncio.run(main()) == expected


def data(name):
    folder = os.environ.get("MULLIGAN_DATA")
    if not folder:
        pytest.skip("MULLIGAN_DATA is not set: it names the folder with the question sets")
    return [json.loads(line) for line in (Path(folder) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_math500_golds_accept_themselves_and_not_their_neighbours(grader):
    golds = [row["answer"] for row in data("math500")]
    forms = [lambda g: g, lambda g: g + ".", lambda g: g.replace(r"\frac", r"\dfrac"), lambda g: g.replace(r"\left", "").replace(r"\right", ""), lambda g: f" ${g}$ "]

    async def main():
        own = [grader.grade(problem(g), rf"\boxed{{{form(g)}}}") for g in golds for form in forms]
        others = [grader.grade(problem(g), rf"\boxed{{{golds[(i + 1) % len(golds)]}}}") for i, g in enumerate(golds)]
        return await asyncio.gather(*own), await asyncio.gather(*others)

    own, others = asyncio.run(main())
    assert sum(v.correct for v in own) == len(golds) * len(forms)
    accepted = [(g, v.answer) for g, v in zip(golds, others, strict=True) if v.correct]
    assert sorted(accepted) == [("3", "3"), ("5", "x=5"), ("7", "7")]  # equal by chance
    assert all(v.kind is not UNGRADABLE for v in others)


DISAGREEMENTS = {
    (r"$10/9$", "Answer $ \\frac{1}{2} \\$ = \\frac{10}{9} $"): (True, "1/2 = 10/9 is a false equation, and its left side names nothing"),
    (r"$-2 \\le x \\le 7$", r"$x \in [-2,7]$"): (False, "the same numbers in another notation; the same pair is listed as equal as well"),
    (r"$x \in [-2,7]$", r"$-2 \\le x \\le 7$"): (False, "the same numbers in another notation; the same pair is listed as equal as well"),
    (r"$1 - \frac{1}{\mathrm{e}}$", r"$1 + \frac{1}{\mathrm{e}}$"): (True, "a sign is wrong: 0.63 is not 1.37"),
}
"""Pairs of Math-Verify's own suite that are judged otherwise here: (what it says, why we do not)."""


def test_math_verify_cases_agree():
    """At most five disagreements, each listed."""
    rows = data("math_verify_cases")
    wrong = {(row["gold"], row["answer"]): row["equal"] for row in rows if grade_answer(row["gold"], row["answer"], deadline=5.0).correct != row["equal"]}
    assert len(rows) == 249
    assert wrong == {pair: says for pair, (says, _) in DISAGREEMENTS.items()}
