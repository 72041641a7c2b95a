r"""Mathematical answers: what can be decided at once is decided here, without a worker; the rest is `symbolic.py`'s, in one.

At once: answers that are equal as written (spacing, `\left`, `\dfrac`, `\text{}` and a closing full stop apart), plain numbers as
exact rationals, and a few shapes that can never be equal, which a symbolic comparison would let pass.
"""

from __future__ import annotations

import re

from mulligan.grading.extract import MAX_ANSWER
from mulligan.grading.numeric import TYPOGRAPHY, parse_number, same_number, strip_assignment
from mulligan.grading.text import unwrap_text

_UNICODE = {
    **TYPOGRAPHY,
    **{ord(sign): f"^{{{digit}}}" for sign, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True)},
    **{ord(sign): f"_{{{digit}}}" for sign, digit in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)},
    **{
        ord(sign): f"\\{command} "
        for sign, command in {
            "≤": "le", "≥": "ge", "≠": "ne", "∞": "infty", "π": "pi", "θ": "theta", "α": "alpha", "β": "beta", "·": "cdot", "÷": "div",
            "±": "pm", "∪": "cup", "∩": "cap", "∈": "in", "∅": "emptyset", "√": "sqrt", "≈": "approx",
        }.items()
    },
    ord("°"): r"^\circ",
    ord("\u200b"): "",
}  # fmt: skip
_ROOT = re.compile(r"\\sqrt +(\d+|[a-zA-Z])")
_ROMAN_LETTER = re.compile(r"\\(?:math(?:rm|it)|text(?:rm|normal|it)?)\s*\{\s*([a-zA-Z])\s*\}")
_SPACING = re.compile(r"\\!\s*|\\(?:left|right)(?![a-zA-Z])\.?|\\(?:displaystyle|quad|qquad)(?![a-zA-Z])|\\[,;: ]|~")
_FRAC = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_SPACE_THAT_SEPARATES = re.compile(r"(?<=[0-9A-Za-z])\s+(?=[0-9A-Za-z])")
_SYNONYMS = (("{,}", ","), (r"\leq", r"\le"), (r"\geq", r"\ge"), (r"\neq", r"\ne"), (r"^{\circ}", r"^\circ"), (r"\lbrace", r"\{"), (r"\rbrace", r"\}"))

MAX_DEPTH = 100
"""Brackets within brackets in an answer; more would only exhaust the parser."""

_CHOICE = re.compile(r"\(?([A-Z])\)?")
_BASED = re.compile(r"([0-9][0-9A-F]*)_\{?([0-9]{1,2})\}?")
_WORDS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]+)*")
_NOT_A_NAME = re.compile(r"[0-9+*/^-]|\\(?:frac|sqrt|cdot|times|div|pm|sum|prod|int|sin|cos|tan|log|ln|exp|binom)(?![a-zA-Z])")
_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\\?[A-Za-z0-9]+)|\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}")
_RELATION = re.compile(r"(?<![<>!:=\\])=(?!=)")


def clean(answer: str) -> str:
    r"""LaTeX that a parser can read: Unicode signs as commands, no dollar signs, no closing full stop, `\mathrm{e}` as `e`.

    A single letter in roman type is that letter: left as `\mathrm{e}`, Math-Verify takes it, with all that follows, for a unit.
    """
    answer = answer.strip()
    if not answer.isascii():
        answer = _ROOT.sub(r"\\sqrt{\1}", answer.translate(_UNICODE))
    if "$" in answer:
        answer = answer.replace(r"\$", "").replace("$", "").strip()
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if answer.startswith(opening) and answer.endswith(closing) and answer.count(opening) == 1:
            answer = answer[2:-2].strip()
    if answer.endswith(".") and not answer.endswith(".."):
        answer = answer[:-1].rstrip()
    return _ROMAN_LETTER.sub(r"\1", answer) if "{" in answer else answer


def canonical(answer: str) -> str:
    """The form in which two answers that are equal as written are equal as strings. Takes what `clean` returns."""
    answer = _FRAC.sub(r"\\frac", _SPACING.sub(" ", answer.replace(r"\!", "")))
    for old, new in _SYNONYMS:
        if old in answer:
            answer = answer.replace(old, new)
    answer = _SPACE_THAT_SEPARATES.sub("\0", unwrap_text(answer).strip())
    return "".join(answer.split()).replace("\0", " ")


def decide(gold: str, answer: str) -> tuple[bool, str | None] | None:
    """Decide without symbolic algebra: (equal, reason if not), or None if a worker has to look. Never raises."""
    if len(answer) > MAX_ANSWER:
        return False, f"the answer is longer than {MAX_ANSWER} characters"
    if gold.strip() == answer.strip():
        return True, None
    if len(answer) > MAX_DEPTH and _depth(answer) > MAX_DEPTH:
        return False, f"the answer is nested more than {MAX_DEPTH} deep"
    gold, answer = clean(gold), clean(answer)
    if not answer:
        return False, "the answer is empty"
    gold_number = parse_number(gold)
    if gold_number is not None:
        number = parse_number(strip_assignment(answer))
        if number is not None:
            return same_number(gold_number, number), None
    short_gold, short = canonical(gold), canonical(answer)
    if short_gold == short:
        return True, None
    if ("=" in short) != ("=" in short_gold) and strip_assignment(short_gold) == strip_assignment(short):
        return True, None
    if gold_number is None and "=" in short_gold and (number := parse_number(answer)) is not None:
        gold_number = parse_number(strip_assignment(gold))  # `x = 5` asks for 5
        if gold_number is not None:
            return same_number(gold_number, number), None
    return _never_equal(gold, short_gold, short)


def _never_equal(gold: str, short_gold: str, short: str) -> tuple[bool, str] | None:
    """Shapes that no algebra makes equal. Each is refused here because Math-Verify accepts it."""
    based, other = _BASED.fullmatch(short_gold), _BASED.fullmatch(short)
    if based and (other or re.fullmatch(r"[0-9A-F]+", short)):
        equal = bool(other) and based.groups() == other.groups()  # type: ignore[union-attr]
        return (True, "") if equal else (False, "the base or the digits differ")
    choice, letter = _CHOICE.fullmatch(short_gold), _CHOICE.fullmatch(short)
    if choice and letter and (short_gold.startswith("(") or gold.startswith("\\")):
        return (True, "") if choice[1] == letter[1] else (False, "another choice")
    word, words = unwrap_text(gold), unwrap_text(short)
    if word != gold and _WORDS.fullmatch(word.strip()) and _WORDS.fullmatch(words):
        equal = word.replace(" ", "").casefold() == words.replace(" ", "").casefold()
        return (True, "") if equal else (False, "another word")
    if _is_tuple(short_gold) and short.startswith(r"\{") and short.endswith(r"\}"):
        return False, "a set has no order, the gold answer has one"
    if _is_tuple(short) and short_gold.startswith(r"\{") and short_gold.endswith(r"\}"):
        return False, "the gold answer is a set"
    if not _RELATION.search(short_gold) and (left := left_of_equation(short)) is not None and not is_name(left):
        return False, "an equation is an answer only if its left side is a bare symbol"
    return None


def _depth(answer: str) -> int:
    """How deep brackets of any kind are nested."""
    depth = deepest = 0
    for sign in answer:
        if sign in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "})]":
            depth -= 1
    return deepest


def _is_tuple(short: str) -> bool:
    return short.startswith("(") and short.endswith(")") and "," in short and short.count("(") == 1


def left_of_equation(answer: str) -> str | None:
    """What stands left of the first `=` outside brackets (after the last comma before it); None if there is no such sign."""
    depth = 0
    start = 0
    for i, sign in enumerate(answer):
        if sign in "{([":
            depth += 1
        elif sign in "})]":
            depth -= 1
        elif depth == 0 and sign in ",;":
            start = i + 1
        elif depth == 0 and sign == "=" and _RELATION.match(answer, i):
            return answer[start:i]
    return None


def is_name(left: str) -> bool:
    r"""Whether a left side only names what follows: `x`, `a_{1}`, `f(x)`, `(p,q)`, `|AB|`, `\angle ABC`; not `x+y`, `2x` or `8`."""
    return not _NOT_A_NAME.search(_SUBSCRIPT.sub("", left))
