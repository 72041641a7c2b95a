r"""The judge that knows algebra. Runs in a worker process only: it may take for ever, or all memory.

What may be compared has been settled by the kinds of the answers (`compare.py`); here the expressions at their leaves are read with
latex2sympy and compared by value (`algebra.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mulligan.grading.algebra import Unreadable, equal, is_matrix, no_evaluation, parse, ratio, value
from mulligan.grading.answers import Answer, read
from mulligan.grading.compare import Comparer, Judge
from mulligan.grading.hints import NO_HINT, hints
from mulligan.grading.normalize import canonical, clean
from mulligan.grading.numeric import Number, Tolerance
from mulligan.grading.regions import Region, exact, regions_of

logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

FLOAT_DIGITS = 15
"""A gold answer written with so many digits is a machine's rounding of an exact value, and stands for that value."""


def run(payload: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Compare `payload["answer"]` with `payload["gold"]`; `tolerance` (absolute, relative: fractions as text) and `hints` may be given.

    Calls `progress("gold")` once the gold answer is read: whatever takes too long or breaks after that is the answer's doing.
    """
    with no_evaluation():
        if canonical(clean(payload["gold"])) == canonical(clean(payload["answer"])):
            return {"equal": True, "reason": None, "fields": dict(NO_HINT) if payload.get("hints") else {}}
        gold = read(payload["gold"], gold=True)
        tolerance = Tolerance(*map(Fraction, payload["tolerance"])) if payload.get("tolerance") else None
        judge = Algebra(tolerance)
        judge.prepare(gold)
        progress("gold")
        answer = read(payload["answer"])
        comparer = Comparer(judge, tolerance)
        found = comparer.same(gold, answer)
        reason = None if found else comparer.reason or judge.reason
        fields = hints(gold, answer, bool(found), comparer) if payload.get("hints") else {}
    return {"equal": bool(found), "reason": reason, "fields": fields}


class Algebra(Judge):
    """Answers every question; `reason` says what could not be read."""

    def __init__(self, tolerance: Tolerance | None = None):
        self.tolerance = tolerance
        self.reason: str | None = None

    def prepare(self, gold: Answer) -> None:
        """Read and evaluate every expression of the gold answer, so that its cost is not laid to the answer."""
        for part in (gold, *gold.parts):
            if part.kind == "expression" and not part.parts:
                try:
                    value(parse(part.text))
                except Unreadable:
                    self.reason = "the gold answer is compared as text"
            elif part is not gold:
                self.prepare(part)

    def expressions(self, gold: Answer, answer: Answer) -> bool:
        pair = self._pair(_text(gold), _text(answer))
        if pair is None:
            return False
        a, b = pair
        if equal(a, b):
            return True
        if a.free_symbols or b.free_symbols:
            return False
        if not is_matrix(b) and value(b) is None:
            self.reason = "the answer has no value that could be worked out"
            return False
        return self._near(gold, a, b)

    def _pair(self, gold: str, answer: str) -> tuple[Any, Any] | None:
        try:
            a = parse(gold)
        except Unreadable:
            self.reason = "the gold answer is compared as text"
            return None
        try:
            return a, parse(answer)
        except Unreadable as error:
            self.reason = f"the answer cannot be read ({error})"
            return None

    def _near(self, gold: Answer, a: Any, b: Any) -> bool:
        """Within the declared tolerance, or the exact value that a gold answer of machine precision was rounded from."""
        u, v = (None if is_matrix(one) else value(one) for one in (a, b))
        if u is None or v is None or not u.is_real or not v.is_real:
            return False
        if self.tolerance is not None and self.tolerance.allows(Fraction(str(u)), Fraction(str(v))):
            return True
        whole, _, decimals = gold.text.lstrip("-").partition(".")
        if gold.kind != "number" or not decimals.isdigit() or len((whole + decimals).lstrip("0")) < FLOAT_DIGITS:
            return False
        return abs(Fraction(str(u)) - Fraction(str(v))) <= Fraction(1, 10 ** len(decimals))

    # ------------------------------------------------------------------------------------------------ equations, inequalities

    def equations(self, gold: Answer, answer: Answer) -> bool:
        left, right = _sides(gold), _sides(answer)
        if left is None or right is None:
            return False
        found = self._differences([left], [right])
        return found is not None and ratio(*found[0]) is not None

    def relations(self, gold: Answer, answer: Answer) -> bool:
        ours, theirs = _links(gold), _links(answer)
        if [sign for _, sign, _ in ours] != [sign for _, sign, _ in theirs]:
            return False
        found = self._differences([(a, b) for a, _, b in ours], [(a, b) for a, _, b in theirs])
        if found is None:
            return False
        for (a, b), (_, sign, _) in zip(found, ours, strict=True):
            factor = ratio(a, b)
            if factor is None or (sign in ("<", "<=") and not (factor.is_real and factor > 0)):
                return False
        return True

    def _differences(self, gold: list[tuple[str, str]], answer: list[tuple[str, str]]) -> list[tuple[Any, Any]] | None:
        found = []
        for g, a in zip(gold, answer, strict=True):
            left, right = self._pair(g[0], a[0]), self._pair(g[1], a[1])
            if left is None or right is None:
                return None
            found.append((left[0] - right[0], left[1] - right[1]))
        return found

    # -------------------------------------------------------------------------------------------------------------- regions

    def regions(self, gold: Answer, answer: Answer) -> bool:
        ours, theirs = regions_of(gold), regions_of(answer)
        if ours is None or theirs is None:
            return False
        left, right = ([self._in_numbers(r) for r in regions] for regions in (ours, theirs))
        if None in left or None in right:
            return False
        return exact(left) == exact(right)  # type: ignore[arg-type]

    def _in_numbers(self, region: Region) -> Region | None:
        """Ends as numbers of 25 digits: ends that are equal come out equal."""
        ends = []
        for end in (region.low, region.high):
            if end is None or (end.number is not None and not end.number.percent):
                ends.append(end)
                continue
            try:
                found = value(parse(_text(end)))
            except Unreadable:
                return None
            if found is None or not found.is_real:
                return None
            ends.append(Answer("number", end.text, number=Number(Fraction(str(found.evalf(25))))))
        return replace(region, low=ends[0], high=ends[1])


def _text(answer: Answer) -> str:
    """LaTeX of one expression, or of a number (the fast path's reading, which knows more spellings than the parser)."""
    if answer.kind == "number" and answer.number is not None:
        number = Fraction(answer.number.value) / (100 if answer.number.percent else 1)
        sign = "-" if number < 0 else ""
        return f"{sign}{abs(number.numerator)}" if number.denominator == 1 else rf"{sign}\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
    return answer.text


def _sides(answer: Answer) -> tuple[str, str] | None:
    if answer.kind == "equation":
        return (_text(answer.parts[0]), _text(answer.parts[1])) if not answer.parts[1].parts else None
    return (answer.name, _text(answer)) if answer.name is not None and not answer.parts else None


def _links(answer: Answer) -> list[tuple[str, str, str]]:
    """The links of a chain as (left, sign, right), all in the direction of `<`."""
    texts = [_text(part) for part in answer.parts]
    links = [(texts[i], sign, texts[i + 1]) for i, sign in enumerate(answer.signs)]
    if all(sign in (">", ">=") for sign in answer.signs):
        links.reverse()
    return [(b, sign.replace(">", "<"), a) if sign in (">", ">=") else (a, sign, b) for a, sign, b in links]


_WARM_UP = (
    (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
    (r"x^2 + 2x y - 1", r"(x+1)^2 - 2"),
    (r"\begin{pmatrix} x \\ -2 \end{pmatrix}", r"\begin{bmatrix} x+1-1 \\ -3 \end{bmatrix}"),
    (r"[0, 1) \cup (\sqrt{2},\infty)", r"x \in (-\infty, 2]"),
    (r"y = 2x + 3", r"2x - y + 3 = 0"),
    (r"1, -\sqrt{5}", r"\{1 \pm \sqrt{5}\}"),
    (r"\sin^2 x + \log_{2} 3 + \ln x", r"\cos x - e^{2x}"),
    (r"\lfloor n/2 \rfloor + n!", r"\binom{n}{k} \cdot 3^{n}"),
    (r"6 - 5i", r"|x| + \frac{1}{3+i}"),
    (r"x + y \le \tan 30^\circ", r"\sqrt[3]{2} \ge f(x)"),
)


def warm_up() -> None:
    """Have the parser's tables, the regular expressions and SymPy's lazy imports ready before the workers are forked."""
    for gold, answer in _WARM_UP:
        run({"gold": gold, "answer": answer, "hints": True}, lambda stage: None)
    parse.cache_clear()
