r"""What holds of every answer: no exception, a verdict in time, every gold equal to itself, symmetry, and agreement with exact arithmetic.

The oracles are independent of the grader: expressions are built together with their exact value, then written as LaTeX.
"""

import asyncio
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mulligan.config import GraderConfig
from mulligan.grading import extract_boxed, grade_answer, grade_text, make_grader
from mulligan.types import Problem, VerdictKind

DEADLINE = 1.0
LATE = 1.5
"""Seconds that a busy machine may add to the deadline before a test fails."""
SLOW = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def grader():
    grader = make_grader(GraderConfig(workers=2, deadline=DEADLINE))
    yield grader
    grader.close()


def grade(grader, gold, text, kind="math"):
    return asyncio.run(grader.grade(Problem(id="", question="", answer=gold, grader=kind), text))


def right(grader, gold, answer):
    verdict = grade(grader, gold, rf"\boxed{{{answer}}}")
    assert verdict.kind in (VerdictKind.CORRECT, VerdictKind.WRONG), (gold, answer, verdict)
    return verdict.correct


# ---------------------------------------------------------------------------------------------------------------- any answer

PIECES = [
    *"0123456789abcxyzei+-*/^_=<>()[]{}|,.;:!?%&$'\"\\ ~#\n", r"\frac", r"\frac{", r"}{", r"\sqrt{", r"\sqrt[3]{", r"\text{", r"\mathrm{", r"\left", r"\right", r"\{", r"\}",
    r"\pi", r"\infty", r"\cup", r"\in", r"\le", r"\ge", r"\ne", r"\pm", r"\cdot", r"\times", r"\circ", r"\%", r"\$", r"\,", r"\!", r"\\", r"\begin{pmatrix}", r"\end{pmatrix}",
    r"\boxed{", r"\sin", r"\log_2", r"\ln", r"\sum_{k=1}^{5}", r"\int_0^1", r"\binom{5}{2}", "e5", "10^", "x=", " or ", " and ", "½", "√", "π", "≤", "∞", "７", "−", "²", "°", "\u200b", "\x00", "\ud800",
]  # fmt: skip
junk = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=40)
GOLDS = ["7", r"\frac{1}{2}", r"\sqrt{2}", "x^2+1", "(1,2)", r"\{1,2\}", "[1,2)", "x<2", "y=2x+3", r"28\%", r"90^\circ", r"5\text{ cm}", "10_2", r"\text{(C)}", r"\text{even}", "1,2", r"1\pm\sqrt{2}", r"\begin{pmatrix}1\\2\end{pmatrix}"]  # fmt: skip


@SLOW
@given(gold=st.sampled_from(GOLDS), text=junk)
def test_no_attempt_raises_and_every_verdict_comes_in_time(grader, gold, text):
    start = time.monotonic()
    for attempt in (text, rf"\boxed{{{text}}}"):
        verdict = grade(grader, gold, attempt)
        assert verdict.kind is not VerdictKind.UNGRADABLE, verdict
        assert verdict.kind is VerdictKind.NO_ANSWER or isinstance(verdict.answer, str)
    assert time.monotonic() - start < 2 * (DEADLINE + LATE)


@SLOW
@given(gold=junk, answer=junk)
def test_no_gold_raises(grader, gold, answer):
    for kind in ("math", "numeric", "text"):
        start = time.monotonic()
        grade(grader, gold, rf"\boxed{{{answer}}}", kind)
        assert time.monotonic() - start < DEADLINE + LATE


@SLOW
@given(gold=st.sampled_from(GOLDS), answer=junk)
def test_no_answer_that_is_cut_out_raises(gold, answer):
    start = time.monotonic()
    verdict = grade_answer(gold, answer, deadline=DEADLINE)
    assert verdict.kind is not VerdictKind.UNGRADABLE, verdict
    assert time.monotonic() - start < DEADLINE + LATE


@SLOW
@given(junk)
def test_every_gold_is_equal_to_itself(gold):
    assume(gold.strip())
    assert grade_answer(gold, gold, deadline=DEADLINE).correct
    assert grade_answer(gold, gold, kind="text").correct


@SLOW
@given(gold=st.sampled_from(GOLDS), texts=st.lists(junk.map(lambda junk: rf"{junk}\boxed{{{junk}}}") | st.sampled_from([rf"\boxed{{{gold}}}" for gold in GOLDS]), min_size=2, max_size=4))
def test_a_verdict_depends_on_nothing_that_was_graded_before(grader, gold, texts):
    first = [(v.kind, v.answer) for v in (grade(grader, gold, text) for text in texts)]
    again = [(v.kind, v.answer) for v in (grade(grader, gold, text) for text in reversed(texts))]
    assert first == again[::-1]


# ---------------------------------------------------------------------------------------------------------------- extraction


@given(junk)
def test_extraction_is_total(text):
    found = extract_boxed(text)
    assert found is None or (isinstance(found, str) and len(found) <= len(text))


@given(before=st.lists(st.sampled_from(["so ", r"\boxed{9}", "$x$ ", "} ", r"\frac{1}{2} ", "7 "]), max_size=6).map("".join), answer=st.sampled_from(["7", r"\frac{1}{2}", r"\{1,2\}"]), behind=st.text("abc .,\n", max_size=10))
def test_only_the_last_box_counts(before, answer, behind):
    assert extract_boxed(rf"{before}\boxed{{{answer}}}{behind}") == answer


@given(first=st.sampled_from([r"\boxed{7", r"it is \boxed{", r"\boxed{7}", "7", r"\boxed{{7}"]), second=st.sampled_from(["}", "7}", " so 7", "} is it", ""]))
def test_attempts_are_never_joined(first, second):
    """A box that one attempt opens is not closed by the next; a box of the first is no answer of the second."""
    assert grade_text("7", second).kind is VerdictKind.NO_ANSWER
    assert grade_text("7", first).correct == (first == r"\boxed{7}")


@pytest.mark.parametrize("piece", [r"\boxed{", r"\boxed{1}", "{", "}", "\\", r"\boxed ", r"\boxed{{}", "{}", r"\{", "boxed{", r"\boxed{\boxed{1}", "\\\\boxed", "\n", r"$\boxed{$"])
def test_extraction_takes_time_in_proportion(piece):
    """Eight times the text, well below sixty-four times the time."""

    def seconds(size):
        text = (piece * (size // len(piece) + 1))[:size]
        times = []
        for _ in range(5):
            start = time.perf_counter()
            extract_boxed(text)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(800_000) < 24 * seconds(100_000) + 0.01


# ---------------------------------------------------------------------------------------------------------- exact arithmetic

numbers = st.integers(-30, 30)


def _sum(pair):
    (a, x), (b, y) = pair
    return a + b, rf"{x}+\left({y}\right)"


def _difference(pair):
    (a, x), (b, y) = pair
    return a - b, rf"{x}-({y})"


def _product(pair):
    (a, x), (b, y) = pair
    return a * b, rf"({x})\cdot({y})"


def _quotient(pair):
    (a, x), (b, y) = pair
    return (a / b, rf"\frac{{{x}}}{{{y}}}") if b else (a, x)


def _power(pair):
    (a, x), n = pair
    return (a**n, f"({x})^{{{n}}}") if a or n > 0 else (a, x)


leaves = numbers.map(lambda n: (Fraction(n), str(n))) | st.tuples(numbers, st.integers(1, 20)).map(lambda p: (Fraction(p[0], p[1]), rf"\frac{{{p[0]}}}{{{p[1]}}}"))
expressions = st.recursive(
    leaves,
    lambda inner: st.tuples(inner, inner).map(_sum)
    | st.tuples(inner, inner).map(_difference)
    | st.tuples(inner, inner).map(_product)
    | st.tuples(inner, inner).map(_quotient)
    | st.tuples(inner, st.integers(-2, 3)).map(_power),
    max_leaves=6,
)


def written(value):
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


@SLOW
@given(expressions)
def test_an_expression_equals_its_exact_value_and_nothing_near_it(grader, pair):
    value, latex = pair
    assume(abs(value.numerator) < 10**40 and value.denominator < 10**40)
    assert right(grader, written(value), latex)
    assert right(grader, latex, written(value))
    for near in (value + Fraction(1, 10**30), value + 1, 2 * value + 1):
        if near != value:
            assert not right(grader, written(near), latex)
            assert not right(grader, latex, written(near))


@SLOW
@given(st.fractions(max_denominator=10**4), st.fractions(max_denominator=10**4))
def test_two_numbers_are_equal_if_their_values_are(grader, a, b):
    assert right(grader, written(a), written(b)) == (a == b)
    assert right(grader, written(a), f"{a.numerator}/{a.denominator}")
    assert right(grader, f"x={written(a)}", written(a))
    assert not right(grader, written(a), rf"\pm {written(abs(a))}") or a == 0


coefficients = st.lists(st.integers(-9, 9), min_size=1, max_size=5)


def polynomial(values, order):
    terms = [f"{'+' if c >= 0 else '-'}{abs(c)}x^{{{i}}}" for i, c in enumerate(values)]
    return "".join(terms[i] for i in order).removeprefix("+")


@SLOW
@given(coefficients, coefficients, st.randoms(use_true_random=False))
def test_two_polynomials_are_equal_if_their_coefficients_are(grader, a, b, draw):
    trimmed = [list(values) for values in (a, b)]
    for values in trimmed:
        while values and values[-1] == 0:
            values.pop()
    order = list(range(len(a)))
    draw.shuffle(order)
    assume(len(trimmed[0]) > 1 and len(trimmed[1]) > 1)
    assert right(grader, polynomial(a, range(len(a))), polynomial(a, order))
    for one, other in ((a, b), (b, a)):
        assert right(grader, polynomial(one, range(len(one))), polynomial(other, range(len(other)))) == (trimmed[0] == trimmed[1])


# ------------------------------------------------------------------------------------------------------- order, ends, symmetry

elements = st.lists(st.fractions(min_value=-20, max_value=20, max_denominator=6), min_size=2, max_size=5, unique=True)


@SLOW
@given(elements, st.randoms(use_true_random=False))
def test_order_counts_in_tuples_and_not_in_sets(grader, values, draw):
    other = list(values)
    draw.shuffle(other)
    inside, shuffled = (",".join(map(written, v)) for v in (values, other))
    assert right(grader, rf"\{{{inside}\}}", rf"\{{{shuffled}\}}")
    assert right(grader, f"({inside})", f"({shuffled})") == (values == other)
    assert not right(grader, f"({inside})", rf"\{{{shuffled}\}}")
    assert not right(grader, rf"\{{{inside}\}}", rf"\{{{','.join(map(written, values[1:]))}\}}")
    assert not right(grader, f"({inside})", f"({','.join(map(written, values[1:]))})")


ends = st.tuples(st.integers(-9, 9), st.integers(1, 9), st.sampled_from("[("), st.sampled_from(")]")).map(lambda t: (t[2], t[0], t[0] + t[1], t[3]))


def interval(ends):
    return f"{ends[0]}{ends[1]},{ends[2]}{ends[3]}"


def inequality(ends):
    left, right = (r"\le" if bracket in "[]" else "<" for bracket in (ends[0], ends[3]))
    return f"{ends[1]} {left} x {right} {ends[2]}"


@SLOW
@given(ends, ends)
def test_intervals_are_equal_if_ends_and_brackets_are(grader, a, b):
    assert right(grader, interval(a), interval(b)) == (a == b)
    assert right(grader, interval(a), inequality(b)) == (a == b)
    assert right(grader, inequality(a), interval(b)) == (a == b)
    assert right(grader, inequality(a), inequality(b)) == (a == b)


SYMMETRIC = [
    "7", "-7", "7.0", r"\frac{14}{2}", "0.5", r"\frac12", "½", r"\sqrt{2}", "2^{1/2}", "1.414", r"\pi", "3.14", "x^2+2x+1", "(x+1)^2", "(x+2)^2", r"\sin^2 x", r"1-\cos^2 x", "(1,2)", "(2,1)", "[1,2]",
    r"\{1,2\}", r"\{2,1\}", "1,2", "2,1", "x<2", "2>x", r"x\le 2", r"(-\infty,2)", r"(-\infty,2]", "y=2x+3", "2x-y+3=0", "y=3x+2", r"\infty", r"-\infty", r"\emptyset", r"\begin{pmatrix}1\\2\end{pmatrix}",
    r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}", "10_2", "10_3", "10", r"1\pm\sqrt{2}", r"1+\sqrt{2},1-\sqrt{2}", r"\text{even}", "Even", r"\text{odd}", "i", "-i", "6-5i", "-5i+6",
    r"90^\circ", "90", r"28\%", "0.28", "28", r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}", "abc", "cba", "x=7", "x=8", r"(0,1)\cup(1,2)", r"(1,2)\cup(0,1)", "(0,2)", r"\$5", "5", "1,234", "1234", r"\binom{5}{2}", "5!", "120",
]  # fmt: skip


@SLOW
@given(st.sampled_from(SYMMETRIC), st.sampled_from(SYMMETRIC))
def test_equality_is_symmetric(grader, one, other):
    assert right(grader, one, other) == right(grader, other, one)
