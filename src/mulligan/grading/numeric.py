r"""Plain numbers as exact rationals: integers, decimals, fractions, mixed numbers, powers of ten. No floats, no tolerance.

Understood: `-1,234.50`, `0.1\overline{6}`, `1 000`, `11,\!111`, `\$18.90`, `7e2`, `1.5\times 10^{-3}`, `3/4`, `\frac34`, `\dfrac{-1}{1997}`, `137\frac{1}{2}`,
`62.5\%`, `90^\circ`, a leading `+`, a trailing full stop, full-width digits, the typographic minus signs and fractions.
Everything else is no plain number (None): `32, 349`, `0,111` (a decimal comma or a list), `2 3`, words, units, variables.

A percent sign on both sides is no difference; on one side, `x%` equals both `x` (questions that ask "what percent") and `x/100`.
A degree sign is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mulligan.grading.normalize import fold

MAX_LENGTH = 1_000
"""Characters of a plain number; longer ones are refused."""
MAX_EXPONENT = 1_000
"""Powers of ten beyond this are refused before they are computed."""

_INTEGER = re.compile(r"-?[0-9]{1,300}")
_NOISE = re.compile(r"\\!\s*|\\(?:left|right)(?![a-zA-Z])|\\(?:displaystyle|,|;|:|>)\s*")
_SPACES = re.compile(r"(?:\\ |~|\s)+")
_CURRENCY = "$€£¥₹₽₩"

# Atomic choices only, each with its own first character or anchor: matching cannot backtrack into quadratic time.
_DECIMAL = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?|[1-9][0-9]{0,2}(?: [0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = r"(?:[eE](?P<exp>[-+]?[0-9]{1,9})| ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?(?P<exp_braced>[-+]?[0-9]{1,9}) ?\}|(?P<exp_bare>-?[0-9]{1,9})))"
_SCALED = re.compile(rf"(?P<number>{_DECIMAL}){_POWER}?")
_SLASH = re.compile(rf"(?P<top>{_DECIMAL}) ?/ ?(?P<bottom>{_DECIMAL})")
_REPEATING = re.compile(r"(?P<whole>[0-9]{0,300})\.(?P<fixed>[0-9]{0,300}) ?\\(?:overline|bar|dot) ?(?:\{(?P<period>[0-9]{1,300})\}|(?P<digit>[0-9]))")
_MIXED = re.compile(r"(?P<whole>[0-9]{1,300}) (?P<top>[0-9]{1,300}) ?/ ?(?P<bottom>[0-9]{1,300})")
_FRAC = re.compile(
    r"(?P<whole>[0-9]{1,300})? ?\\[dtc]?frac"
    rf" ?(?:\{{ ?(?P<top>-?{_DECIMAL}) ?\}}|(?P<top1>[0-9]))"
    rf" ?(?:\{{ ?(?P<bottom>-?{_DECIMAL}) ?\}}|(?P<bottom1>[0-9]))"
)
_ASSIGNMENT = re.compile(r"\s*(?:[A-Za-z]|\\[a-zA-Z]+)(?:_(?:\{[^{}]{1,20}\}|[A-Za-z0-9]))?\s*=(?!=)\s*")


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value; `percent` if a percent sign stood behind it (the value is then the number as written, 62.5 in `62.5%`)."""

    value: Fraction | int
    percent: bool = False


def parse_number(text: str) -> Number | None:
    """Read a plain number; None if the text is anything else (or too large to be taken). Never raises."""
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return Number(int(text))
    if not text or len(text) > MAX_LENGTH:
        return None
    text = fold(text)
    text = _SPACES.sub(" ", _NOISE.sub("", text).replace("{,}", ",")).strip()
    text = _strip_full_stop(text)
    text, percent = _strip_signs(text)
    sign, text = _strip_sign(text)
    if text[:1] in _CURRENCY or text[:2] == r"\$":
        after = text.lstrip("\\" + _CURRENCY).strip()
        again, text = _strip_sign(after) if sign == 1 else (1, after)
        sign *= again
    value = _value(text)
    return None if value is None else Number(sign * value, percent)


def same_number(gold: Number, answer: Number, tolerance: Tolerance | None = None) -> bool:
    """Equality under the percent rule of this module: exact, or within what the problem declares."""
    if _close(gold.value, answer.value, tolerance):
        return True
    if gold.percent == answer.percent:
        return False
    return _close(gold.value, answer.value * 100, tolerance) if gold.percent else _close(gold.value * 100, answer.value, tolerance)


def _close(gold: Fraction | int, answer: Fraction | int, tolerance: Tolerance | None) -> bool:
    return gold == answer or (tolerance is not None and tolerance.allows(gold, answer))


def strip_assignment(text: str) -> str:
    """`x = 5` to `5`, if what stands on the left is one bare symbol; anything else as it is."""
    if "=" not in text:
        return text
    match = _ASSIGNMENT.match(text[:200])
    rest = text[match.end() :] if match else text
    return text if "=" in rest else rest


def _strip_full_stop(text: str) -> str:
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def _strip_signs(text: str) -> tuple[str, bool]:
    """Take dollar signs around, percent and degree signs behind the number away; says whether there was a percent sign."""
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = _strip_full_stop(text[1:-1].strip())
    if text.endswith("%"):
        return text[:-1].removesuffix("\\").rstrip(), True
    for degree in (r"^\circ", r"^{\circ}", "°"):
        if text.endswith(degree):
            return text[: -len(degree)].rstrip(), False
    if len(text) > 1 and text[-1] in _CURRENCY and text[-2] != "\\":
        return text[:-1].rstrip(), False
    return text.removesuffix(r"\$").rstrip(), False


def _strip_sign(text: str) -> tuple[int, str]:
    if text[:1] == "-":
        return -1, text[1:].lstrip()
    return 1, text[1:].lstrip() if text[:1] == "+" else text


def _value(text: str) -> Fraction | int | None:
    """The value of an unsigned number in plain ASCII."""
    if match := _SCALED.fullmatch(text):
        exponent = int(match["exp"] or match["exp_braced"] or match["exp_bare"] or 0)
        return None if abs(exponent) > MAX_EXPONENT else _decimal(match["number"]) * Fraction(10) ** exponent
    if match := _SLASH.fullmatch(text):
        return _ratio(match["top"], match["bottom"])
    if match := _REPEATING.fullmatch(text):
        fixed, period = match["fixed"], match["period"] or match["digit"]
        return int((match["whole"] or "0") + fixed) / Fraction(10 ** len(fixed)) + Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    if match := _MIXED.fullmatch(text):
        part = _ratio(match["top"], match["bottom"])
        return int(match["whole"]) + part if part is not None and 0 < part < 1 else None
    if match := _FRAC.fullmatch(text):
        part = _ratio(match["top"] or match["top1"], match["bottom"] or match["bottom1"])
        if match["whole"] is None or part is None:
            return part
        return int(match["whole"]) + part if 0 < part < 1 else None  # `2\frac{5}{2}` is a product, `2\frac12` a mixed number
    return None


def _decimal(text: str) -> Fraction:
    """Exact value of a matched decimal, at most MAX_LENGTH digits."""
    negative = text[0] == "-"
    whole, _, part = text.lstrip("-").replace(",", "").replace(" ", "").partition(".")
    value = Fraction(int(whole + part or "0"), 10 ** len(part))
    return -value if negative else value


def _ratio(top: str, bottom: str) -> Fraction | None:
    denominator = _decimal(bottom)
    return _decimal(top) / denominator if denominator else None


# ------------------------------------------------------------------------------------------------------------------ tolerance


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an answer may lie from the gold answer: `absolute`, or `relative` to the gold answer's size; the wider counts."""

    absolute: Fraction = Fraction(0)
    relative: Fraction = Fraction(0)

    def allows(self, gold: Fraction | int, answer: Fraction | int) -> bool:
        return abs(gold - answer) <= max(self.absolute, self.relative * abs(gold))


def tolerance_of(meta: Mapping[str, Any]) -> Tolerance | None:
    """What a problem's `tolerance` (absolute) and `relative_tolerance` declare; None if it declares nothing.

    Raises:
        ValueError: a value that is no number, or negative.
    """
    absolute, relative = (_declared(meta, key) for key in ("tolerance", "relative_tolerance"))
    return Tolerance(absolute, relative) if absolute or relative else None


def _declared(meta: Mapping[str, Any], key: str) -> Fraction:
    value = meta.get(key)
    if value is None:
        return Fraction(0)
    try:
        number = Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError, OverflowError):
        number = Fraction(-1)
    if number < 0 or isinstance(value, bool):
        raise ValueError(f"the problem's {key} = {value!r} is no number of at least 0")
    return number
