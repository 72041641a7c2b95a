r"""Which answers may be compared, and how: by what they are (`answers.py`), not by what a computer algebra system makes of them.

Every comparison says True, False, or None for "only algebra can tell". The judge of expressions does the algebra; in the process
itself there is none (`Judge`), and what comes out as None goes to a worker, whose judge knows everything (`symbolic.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mulligan.grading.answers import Answer, is_name
from mulligan.grading.numeric import Tolerance, same_number
from mulligan.grading.regions import WHOLE_LINE, Region, covers, exact, regions_of, variable_of
from mulligan.grading.units import units_differ

_SCALARS = frozenset({"number", "expression"})
_REGIONS = frozenset({"interval", "union", "difference", "relation"})
_EMPTY = frozenset({r"\emptyset", r"\{\}", r"\text{emptyset}"})
_PRODUCT = re.compile(r"\\cdot|\\times|[\s*{}()\\]|text")
_FUNCTION_NAME = re.compile(r"([A-Za-z])\(([a-zA-Z])\)")
_LETTER = re.compile(r"\(?([A-Za-z])[).]?")
_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|[A-Za-z0-9])")
MAX_PAIRS = 4_000
"""Pairs of elements of two collections that are compared."""


class Judge:
    """Says nothing: everything that needs algebra is left open. The worker's judge overrides all of it."""

    def expressions(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether two expressions have the same value, for all values of their variables."""
        return None

    def equations(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether two equations (or named values) say the same."""
        return None

    def relations(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether two chains of inequalities, not of the kind `a < x < b`, say the same."""
        return None

    def regions(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether two sets of numbers are the same."""
        return None


class Comparer:
    """Compares answers, and keeps the reason of the last refusal."""

    def __init__(self, judge: Judge, tolerance: Tolerance | None = None):
        self.judge = judge
        self.tolerance = tolerance
        self.reason: str | None = None

    def same(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether `answer` says what `gold` says; None if only algebra can tell and the judge knows none."""
        if gold.name is not None and answer.name is not None and not _same_name(gold.name, answer.name):
            return self._other_names(gold, answer)
        if answer.kind == "equation" or gold.kind == "equation":
            return self._equations(gold, answer)
        gold, answer = replace(gold, name=None), replace(answer, name=None)
        if units_differ(gold.unit, answer.unit):
            return self._no("the unit differs")
        if gold.kind == "number" and answer.kind == "number":
            return same_number(gold.number, answer.number, self.tolerance)  # type: ignore[arg-type]
        if gold.text == answer.text and gold.kind == answer.kind and gold.signs == answer.signs and gold.kind != "list":
            return True
        return self._by_kind(gold, answer)

    def _no(self, reason: str) -> bool:
        self.reason = self.reason or reason
        return False

    def _by_kind(self, gold: Answer, answer: Answer) -> bool | None:
        kinds = {gold.kind, answer.kind}
        if gold.text in WHOLE_LINE or answer.text in WHOLE_LINE:
            return self._regions(gold, answer)
        if gold.text in _EMPTY or answer.text in _EMPTY:
            return (gold.text in _EMPTY and answer.text in _EMPTY) or self._no("the empty set is equal only to itself")
        if kinds <= _SCALARS:
            return self.judge.expressions(gold, answer)
        if "choice" in kinds:
            return _letter(gold) == _letter(answer) or self._no("another choice")
        if "based" in kinds:
            return (gold.kind == answer.kind and gold.text == answer.text and gold.signs == answer.signs) or self._no("the base or the digits differ")
        if "text" in kinds:
            return self._texts(gold, answer)
        if kinds & _REGIONS or (kinds != {"list"} and (_is_bounds(gold) or _is_bounds(answer))):
            return self._regions(gold, answer)
        if "matrix" in kinds:
            return self._matrices(gold, answer)
        if "ratio" in kinds:
            return self._ratios(gold, answer)
        return self._collections(gold, answer)

    # ------------------------------------------------------------------------------------------------------- words, equations

    def _texts(self, gold: Answer, answer: Answer) -> bool:
        if gold.kind == answer.kind == "text":
            return gold.text == answer.text or self._no("another word")
        text, other = (gold, answer) if gold.kind == "text" else (answer, gold)
        same = other.kind == "expression" and _PRODUCT.sub("", other.text).casefold() == text.text
        return same or self._no("a word is equal only to itself")

    def _other_names(self, gold: Answer, answer: Answer) -> bool | None:
        """Both name what they give, and the names differ."""
        renamed = _with_variable_of(gold, answer)
        if renamed is not None:
            return self.same(replace(gold, name=None), replace(renamed, name=None))
        if gold.kind == answer.kind == "expression" and len(gold.name or "") == 1 and len(answer.name or "") == 1:
            return self.judge.equations(gold, answer)  # `y = x/2` for `x = 2y`
        return self._no("another variable is given")

    def _equations(self, gold: Answer, answer: Answer) -> bool | None:
        if gold.kind != "equation" and gold.name is None:
            return self._no("an equation is an answer only if its left side is a bare symbol")
        if answer.kind != "equation" and answer.name is None:
            return self._no("the answer is an equation")
        if gold.kind in ("number", "choice", "text", "tuple", "list", "set"):
            return self._no("the equation is not solved")
        return self.judge.equations(gold, answer)

    # ----------------------------------------------------------------------------------------------------------- collections

    def _collections(self, gold: Answer, answer: Answer) -> bool | None:
        """Tuples, lists, sets, and single values beside them. A list may stand for a tuple or a set, a tuple never for a set."""
        if gold.kind in _SCALARS or answer.kind in _SCALARS:
            return self._one_beside_many(gold, answer)
        kinds = {gold.kind, answer.kind}
        if kinds == {"tuple", "set"}:
            return self._no("a set has no order, the gold answer has one" if gold.kind == "tuple" else "the gold answer is a set")
        if "tuple" in kinds or _named_one_by_one(gold, answer):
            return self._ordered(gold.parts, answer.parts)
        return self._unordered(gold.parts, answer.parts)

    def _one_beside_many(self, gold: Answer, answer: Answer) -> bool | None:
        many = answer if gold.kind in _SCALARS else gold
        if many.kind == "set" and len(many.parts) == 1:
            return self.same(gold.parts[0], answer) if many is gold else self.same(gold, answer.parts[0])
        return self._no("the number of elements differs")

    def _ordered(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        if len(gold) != len(answer):
            return self._no("the number of elements differs")
        return _all(self.same(g, a) for g, a in zip(gold, answer, strict=True))

    def _unordered(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        """As sets: every element of one in the other. Where the gold answer repeats an element, the answer has to repeat it as often."""
        if len(gold) * len(answer) > MAX_PAIRS and len(gold) != len(answer):
            return self._no("the number of elements differs")
        if [g.text for g in gold] == [a.text for a in answer]:
            return True
        if len(gold) * len(answer) > MAX_PAIRS:
            return self._no("the elements stand in another order, and there are too many to compare")
        table = [[self.same(g, a) for a in answer] for g in gold]
        if len({g.text for g in gold}) < len(gold):
            return self._repeated(table, len(answer))
        lines = [*table, *zip(*table, strict=True)]
        if any(all(found is False for found in line) for line in lines):
            return False
        return True if all(any(line) for line in lines) else None

    def _repeated(self, table: list[list[bool | None]], size: int) -> bool | None:
        if len(table) != size:
            return self._no("the number of elements differs")
        free = set(range(size))
        for row in table:
            at = next((i for i in free if row[i]), None)
            if at is None:
                return None if any(row[i] is None for i in free) else False
            free.remove(at)
        return True

    def _matrices(self, gold: Answer, answer: Answer) -> bool | None:
        if gold.kind == answer.kind:
            return self._ordered(gold.parts, answer.parts) if gold.signs == answer.signs else self._no("the shape of the matrix differs")
        other = answer if gold.kind == "matrix" else gold
        if other.kind == "expression" and "matrix" in other.text:
            return self.judge.expressions(gold, answer)
        return self._no("a matrix is equal only to a matrix")

    def _ratios(self, gold: Answer, answer: Answer) -> bool | None:
        if gold.kind == answer.kind:
            return self._ordered(gold.parts, answer.parts)
        ratio, other = (gold, answer) if gold.kind == "ratio" else (answer, gold)
        if other.kind in _SCALARS and len(ratio.parts) == 2 and all(p.kind in _SCALARS for p in ratio.parts):
            quotient = Answer("expression", rf"\frac{{{ratio.parts[0].text}}}{{{ratio.parts[1].text}}}")
            return self.judge.expressions(quotient, answer) if ratio is gold else self.judge.expressions(gold, quotient)
        return self._no("a ratio is no list")

    # --------------------------------------------------------------------------------------------------------------- regions

    def _regions(self, gold: Answer, answer: Answer) -> bool | None:
        """Sets of numbers: intervals, unions, inequalities in one variable."""
        variable, other = variable_of(gold), variable_of(answer)
        if variable is not None and other is not None and not _same_name(variable, other):
            return self._no("another variable is given")
        ours, theirs = regions_of(gold), regions_of(answer)
        if ours is None or theirs is None:
            if gold.kind == answer.kind == "relation":
                return self.judge.relations(gold, answer)
            if gold.kind in ("tuple", "set", "list") or answer.kind in ("tuple", "set", "list", "number", "matrix", "text"):
                return self._no("the one is a region, the other is not")
            return self.judge.regions(gold, answer)
        mine, yours = exact(ours), exact(theirs)
        if mine is not None and yours is not None:
            return mine == yours or self._no("the regions differ")
        if len(ours) == len(theirs) and _all(self._same_region(g, a) for g, a in zip(ours, theirs, strict=True)):
            return True
        if len(ours) == len(theirs) == 1 and covers(ours[0]) != covers(theirs[0]):
            return self._no("the ends of the interval differ")
        return self.judge.regions(gold, answer)

    def _same_region(self, gold: Region, answer: Region) -> bool | None:
        if covers(gold) != covers(answer):
            return False
        ends = [(gold.low, answer.low), (gold.high, answer.high)]
        return _all(True if g is None or a is None else self.same(g, a) for g, a in ends)


def _all(found: Iterable[bool | None]) -> bool | None:
    """Conjunction of three values; stops at the first False."""
    unknown = False
    for value in found:
        if value is False:
            return False
        unknown = unknown or value is None
    return None if unknown else True


def _is_bounds(answer: Answer) -> bool:
    return answer.kind == "list" and all(part.kind == "relation" for part in answer.parts)


def _letter(answer: Answer) -> str | None:
    if answer.kind == "choice":
        return answer.text
    match = _LETTER.fullmatch(answer.text) if answer.kind == "expression" else None
    return match[1].upper() if match else answer.kind


def _plain_name(name: str) -> str:
    return re.sub(r"[{}\s]|\\text|\\mathrm|\\operatorname", "", name)


def _same_name(a: str, b: str) -> bool:
    return _plain_name(a) == _plain_name(b)


def _with_variable_of(gold: Answer, answer: Answer) -> Answer | None:
    """`f(n) = n + 1` as `f(x) = x + 1` beside a gold answer for `f(x)`; None if that is not the difference."""
    g, a = _FUNCTION_NAME.fullmatch(gold.name or ""), _FUNCTION_NAME.fullmatch(answer.name or "")
    if not g or not a or g[1] != a[1] or re.search(rf"(?<![a-zA-Z\\]){g[2]}(?![a-zA-Z])", answer.text):
        return None
    return _rename(answer, a[2], g[2])


def _rename(answer: Answer, old: str, new: str) -> Answer:
    text = re.sub(rf"\\[a-zA-Z]+|{old}", lambda m: m[0] if m[0].startswith("\\") else new, answer.text)
    return replace(answer, text=text, parts=tuple(_rename(part, old, new) for part in answer.parts))


def _named_one_by_one(gold: Answer, answer: Answer) -> bool:
    """`AB = 4, CD = 5` beside `4, 5`: the gold answer's names give the order. Not `x_1 = 4, x_2 = 5`, the roots of one equation."""
    names = [_SUBSCRIPT.sub("", part.name) for part in gold.parts if part.name and is_name(part.name)]
    return len(names) == len(gold.parts) > 1 and len(set(names)) == len(names) and not any(part.name for part in answer.parts)
