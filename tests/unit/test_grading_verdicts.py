"""What surrounds a comparison: kept verdicts, hints, tolerance, many pairs at once, and strings that are never evaluated."""

import asyncio
import json
import time

import pytest
import sympy

from mulligan.cli import main
from mulligan.config import GraderConfig
from mulligan.errors import ConfigError
from mulligan.grading import Pair, grade_pairs, make_grader
from mulligan.grading.algebra import no_evaluation
from mulligan.grading.cache import MAX_CHARACTERS, VerdictCache, cache_key
from mulligan.grading.grader import RoutingGrader
from mulligan.types import Problem, VerdictKind

SLOW = r"\int_0^1 x^{x^{x}} \sin(\tan(x^{9})) \, dx"
"""An answer whose value takes for ever to work out."""
CORRECT, WRONG, UNGRADABLE = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.UNGRADABLE


@pytest.fixture(scope="module")
def grader():
    grader = RoutingGrader(GraderConfig(workers=2, deadline=5.0))
    yield grader
    grader.close()


@pytest.fixture(scope="module")
def hinting():
    grader = RoutingGrader(GraderConfig(workers=1, deadline=5.0, hints=True))
    yield grader
    grader.close()


def grade(grader, gold, answer, **meta):
    return asyncio.run(grader.grade(Problem("p", "?", gold, meta=meta), rf"\boxed{{{answer}}}"))


# ----------------------------------------------------------------------------------------------------------------------- cache


def test_the_cache_forgets_what_was_not_asked_for_longest():
    cache = VerdictCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache), cache.hits) == (1, None, 3, 2, 3)


def test_what_a_kept_verdict_depends_on():
    key = cache_key("m", {"gold": "x", "answer": "x + 1"})
    assert key == cache_key("m", {"gold": "x", "answer": " $x  + 1$. "})
    others = [{"gold": "y"}, {"answer": "x+2"}, {"tolerance": ("1", "0")}, {"hints": True}]
    assert len({key, cache_key("n", {"gold": "x", "answer": "x + 1"}), *(cache_key("m", {"gold": "x", "answer": "x + 1", **other}) for other in others)}) == 6
    assert cache_key("m", {"gold": "x", "answer": "x" * MAX_CHARACTERS}) is None
    assert cache_key("m", {"entry": {}, "answer": "x"}) is None


def test_a_verdict_is_worked_out_once(grader):
    first = grade(grader, r"\sqrt{2}", r"2^{1/2}")
    hits = grader.cache.hits
    again = grade(grader, r"\sqrt{2}", r" 2^{1/2}. ")
    assert first.correct and again.correct and grader.cache.hits == hits + 1
    assert again.answer == "2^{1/2}." and again.ms < 5
    assert not grade(grader, r"\sqrt{2}", r"2^{1/3}").correct


def test_timeouts_are_not_kept():
    grader = RoutingGrader(GraderConfig(workers=1, deadline=0.2))
    for _ in range(2):
        verdict = grade(grader, "x", SLOW + "+x")
        assert verdict.kind is WRONG and verdict.reason == "timeout"
    assert len(grader.cache) == 0
    grader.close()


def test_the_same_question_at_the_same_time_is_asked_once(grader):
    asked = []
    submit = grader.pool.submit

    async def main():
        problem = Problem("p", "?", r"\sqrt{3}")
        return await asyncio.gather(*(grader.grade(problem, r"\boxed{3^{0.5}}") for _ in range(20)), *(grader.grade(problem, r"\boxed{3^{0.6}}") for _ in range(20)))

    grader.pool.submit = lambda *arguments, **more: asked.append(arguments) or submit(*arguments, **more)
    try:
        verdicts = asyncio.run(main())
    finally:
        del grader.pool.submit
    assert [v.correct for v in verdicts] == [True] * 20 + [False] * 20 and len(asked) == 2


# ----------------------------------------------------------------------------------------------------------------------- hints


@pytest.mark.parametrize(
    ("gold", "answer", "kind", "hint"),
    [
        ("5", "-5", WRONG, "sign"),
        (r"\sqrt{2}-1", r"1-\sqrt{2}", WRONG, "sign"),
        ("5", "6", WRONG, ""),
        ("1,2,3", "1,2", WRONG, "count"),
        ("(1,2)", "(1,2,3)", WRONG, "count"),
        ("1,2", r"\sqrt{5},2", WRONG, ""),
        (r"5\text{ cm}", r"5\text{ m}", WRONG, "unit"),
        (r"5\text{ cm}", "6", WRONG, "unit"),
        (r"5\text{ cm}", "5", CORRECT, "unit"),
        ("10_2", "10", WRONG, "base"),
        (r"\frac{3}{4}", r"\frac{6}{8}", CORRECT, "form"),
        (r"\frac{3}{4}", "3/4", CORRECT, ""),
        (r"3\sqrt{2}", r"\sqrt{2}+2\sqrt{2}", CORRECT, "form"),
        ("7", "x^2+1", WRONG, ""),
        ("7", SLOW, WRONG, ""),
    ],
)
def test_hints(hinting, gold, answer, kind, hint):
    verdict = grade(hinting, gold, answer)
    assert verdict.kind is kind
    assert set(verdict.fields) == {"hint", "hint_kind"} and verdict.fields["hint_kind"] == hint
    assert bool(verdict.fields["hint"]) == bool(hint)
    assert gold not in verdict.fields["hint"]


def test_hints_are_off_unless_asked_for(grader):
    for gold, answer in (("5", "-5"), (r"\sqrt{2}-1", r"1-\sqrt{2}"), ("1,2,3", "1,2")):
        assert grade(grader, gold, answer).fields == {}


# ------------------------------------------------------------------------------------------------------------------- tolerance


def test_tolerance_of_the_problem(grader):
    assert grade(grader, "3.14", r"\pi").kind is WRONG
    assert grade(grader, "3.14", r"\pi", tolerance=0.01).kind is CORRECT
    assert grade(grader, "3.14", r"\pi", tolerance=0.001).kind is WRONG
    assert grade(grader, r"\sqrt{2}", "1.41", relative_tolerance=0.01).kind is CORRECT
    assert grade(grader, r"\sqrt{2}", "1.41").kind is WRONG
    assert grade(grader, "(1,2)", "(1.001,2)", tolerance=0.01).kind is CORRECT
    faulty = grade(grader, "1", "1", tolerance="some")
    assert faulty.kind is UNGRADABLE and "tolerance" in (faulty.reason or "")


def test_golds_that_cannot_be_graded(grader):
    assert grade(grader, " ", "7").kind is UNGRADABLE
    deep = grade(grader, "{" * 200 + "x" + "}" * 200, "7")
    assert deep.kind is UNGRADABLE and "gold" in (deep.reason or "")


# ----------------------------------------------------------------------------------------------------------------- many pairs


def test_pairs_come_back_in_order():
    pairs = []
    for i in range(60):
        pairs += [Pair(str(i), rf"\boxed{{{i}}}"), Pair(r"\sqrt{2}", answer=rf"\frac{{{i}}}{{\sqrt{{2}}}}"), Pair("7", "no box"), Pair("a", r"\boxed{A}", kind="text")]
    pairs.insert(10, Pair("x", rf"\boxed{{{SLOW}+x}}"))
    verdicts = list(grade_pairs(pairs, workers=2, deadline=1.0))
    assert verdicts.pop(10).reason == "timeout"
    kinds = [v.kind.value for v in verdicts]
    expected = [["correct", "correct" if i == 2 else "wrong", "no_answer", "correct"] for i in range(60)]
    assert kinds == [kind for four in expected for kind in four]


def test_pairs_are_read_as_they_are_needed():
    def endless():
        i = 0
        while True:
            yield Pair(str(i), rf"\boxed{{{i}}}")
            i += 1

    verdicts = grade_pairs(endless())
    assert next(verdicts).correct and next(verdicts).correct
    verdicts.close()


@pytest.mark.parametrize("pair", [Pair("1"), Pair("1", "1", "1"), Pair("1", "1", kind="gym"), Pair("1", "1", kind="code"), Pair("1", "1", kind="maths")])
def test_pairs_that_cannot_be_graded(pair):
    with pytest.raises(ConfigError):
        next(grade_pairs([pair]))


def test_the_command_grades_texts_and_answers_in_order(tmp_path, capsys):
    rows = [
        {"gold": r"\sqrt{2}", "text": r"so \boxed{2^{1/2}}"},
        {"gold": "$9$", "answer": r"Answer \[ 9 \]"},
        {"gold": "7", "text": "no box"},
        {"gold": "7", "answer": "8=7"},
        {"gold": "a b", "answer": "A  B", "kind": "text"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["grade", "--file", str(path), "--workers", "1"]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [v["verdict"] for v in verdicts] == ["correct", "correct", "no_answer", "wrong", "correct"]
    assert all(set(v) == {"verdict", "reason", "answer", "ms"} for v in verdicts) and "bare symbol" in verdicts[3]["reason"]
    assert main(["grade", "--gold", "7", "--answer", "7."]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "correct"


@pytest.mark.parametrize("row", ['{"gold": "7", "answer": 7}', '{"gold": "7", "text": "7", "answer": "7"}', '{"gold": "7", "text": "7", "kind": "gym"}', '{"gold": "7", "answer": "7", "kind": "maths"}'])
def test_the_command_names_the_line_that_is_wrong(tmp_path, capsys, row):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"gold": "7", "answer": "7"}\n' + row + "\n")
    assert main(["grade", "--file", str(path)]) == 2
    written = capsys.readouterr()
    assert written.out == "" and written.err.count("\n") == 1 and "line 2" in written.err


def test_code_has_to_be_allowed():
    grader = make_grader(GraderConfig())
    with pytest.raises(ConfigError, match=r"grader\.code = true"):
        asyncio.run(grader.grade(Problem("p", "?", "def f(): pass", grader="code"), "```python\npass\n```"))
    with pytest.raises(ConfigError, match=r"grader\.code = true"):
        make_grader(GraderConfig(kind="code"))


# ------------------------------------------------------------------------------------------------------------- no evaluation


def test_strings_are_not_evaluated_while_an_answer_is_compared():
    with no_evaluation():
        for door in (sympy.sympify, sympy.N, sympy.parse_expr, sympy.Number):
            with pytest.raises(Exception, match=r"not evaluated|Sympify"):
                door("1+x")
    assert sympy.sympify("1+1") == 2


def test_no_expression_is_read_by_evaluating_it(monkeypatch, tmp_path):
    """The reader of expressions works with the door shut: numbers, decimals, exponents, functions, matrices."""
    from mulligan.grading import symbolic

    opened = []
    monkeypatch.setattr("builtins.eval", lambda *arguments: opened.append(arguments))
    for gold, answer in ((r"\frac{7}{2}x", "3.5x"), (r"\gcd(4,6)+x", "2+x"), ("700x", r"7\cdot 10^2 x"), (r"\begin{pmatrix}x\\2\end{pmatrix}", r"2\begin{pmatrix}x/2\\1\end{pmatrix}")):
        assert symbolic.run({"gold": gold, "answer": answer}, lambda stage: None)["equal"], (gold, answer)
    assert opened == []


def test_integers_do_not_wait_for_workers(grader):
    start = time.perf_counter()
    for i in range(2000):
        assert grade(grader, "1234", str(1230 + i % 10)).correct == (i % 10 == 4)
    assert time.perf_counter() - start < 5


def test_the_recipes_limits_reach_the_workers() -> None:
    grader = make_grader(GraderConfig(memory_mb=256, workers=1))
    assert isinstance(grader, RoutingGrader)
    assert (grader.pool.memory_mb, grader.pool.workers) == (256, 1)
    grader.close()
