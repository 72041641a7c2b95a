"""What a verdict can say beyond right or wrong, without giving the answer away: fields for feedback templates.

Every verdict with hints has the same two fields, so that a template may name them: `hint`, a sentence or nothing, and `hint_kind`, one of
`unit`, `sign`, `count`, `form`, `base`, or nothing.
"""

from __future__ import annotations

from mulligan.grading.answers import Answer, negated
from mulligan.grading.compare import Comparer
from mulligan.grading.units import units_differ

_SENTENCES = {
    "sign": "The answer is right up to its sign.",
    "missing unit": "The unit is missing.",
    "unit": "The unit is not the right one.",
    "base": "The base is missing or not the right one.",
    "form": "The value is right, but it is not simplified.",
    "fewer": "There are too few elements in the answer.",
    "more": "There are too many elements in the answer.",
}
_KINDS = {"missing unit": "unit", "fewer": "count", "more": "count"}
NO_HINT = {"hint": "", "hint_kind": ""}
_MANY = frozenset({"tuple", "list", "set"})


def hints(gold: Answer, answer: Answer, equal: bool, comparer: Comparer) -> dict[str, str]:
    """The fields `hint` and `hint_kind` of one verdict; both empty where there is nothing to say."""
    found = _found(gold, answer, equal, comparer)
    return dict(NO_HINT) if found is None else {"hint": _SENTENCES[found], "hint_kind": _KINDS.get(found, found)}


def _found(gold: Answer, answer: Answer, equal: bool, comparer: Comparer) -> str | None:
    if equal:
        if gold.unit and not answer.unit and answer.kind in ("number", "expression"):
            return "missing unit"
        return "form" if _is_longer(gold, answer) else None
    if gold.kind == "based" and answer.kind in ("based", "number"):
        return "base" if answer.text == gold.text else None
    if units_differ(gold.unit, answer.unit):
        return "unit"
    if gold.kind in _MANY or answer.kind in _MANY:
        ours, theirs = _size(gold), _size(answer)
        return None if ours == theirs else "fewer" if theirs < ours else "more"
    if gold.kind in ("number", "expression") and answer.kind in ("number", "expression") and comparer.same(gold, negated(answer)):
        return "sign"
    return "missing unit" if gold.unit and not answer.unit and answer.kind in ("number", "expression") else None


def _is_longer(gold: Answer, answer: Answer) -> bool:
    """Whether an answer of the right value is written with more than it needs: `6/8` for `3/4`, `2+3` for `5`."""
    if gold.kind == "number" and answer.kind == "number":
        return "frac" in answer.text + gold.text and _fraction_text(answer.text) != _fraction_text(gold.text) and "." not in answer.text + gold.text
    return gold.kind in ("number", "expression") and answer.kind == "expression" and len(answer.text) > len(gold.text) + 2


def _fraction_text(text: str) -> str:
    return text.replace(r"\frac{", "").replace("}{", "/").replace("}", "")


def _size(answer: Answer) -> int:
    return len(answer.parts) if answer.kind in _MANY else 1
