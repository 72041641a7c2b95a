r"""Plain numbers as exact rationals: integers, decimals, fractions, mixed numbers, powers of ten. No floats, no tolerance.

Understood: `-1,234.50`, `1 000`, `11,\!111`, `\$18.90`, `7e2`, `1.5\times 10^{-3}`, `3/4`, `\frac34`, `\dfrac{-1}{1997}`, `137\frac{1}{2}`,
`62.5\%`, `90^\circ`, a leading `+`, a trailing full stop, full-width digits, the typographic minus signs and fractions.
Everything else is no plain number (None): `32, 349`, `0,111` (a decimal comma or a list), `2 3`, words, units, variables.

A percent sign on both sides is no difference; on one side, `x%` equals both `x` (questions that ask "what percent") and `x/100`.
A degree sign is dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from mulligan.grading.text import MINUS_SIGNS

MAX_LENGTH = 1_000
"""Characters of a plain number; longer ones are refused."""
MAX_EXPONENT = 1_000
"""Powers of ten beyond this are refused before they are computed."""

VULGAR_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5), "⅙": (1, 6),
    "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
# Not NFKC, which would turn `10²` into 102.
TYPOGRAPHY = {
    **{ord(sign): rf"\frac{{{a}}}{{{b}}}" for sign, (a, b) in VULGAR_FRACTIONS.items()},
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
    **MINUS_SIGNS,
    ord("×"): r"\times ",
    ord("⁄"): "/",
}

_INTEGER = re.compile(r"-?[0-9]{1,300}")
_NOISE = re.compile(r"\\!\s*|\\(?:left|right)(?![a-zA-Z])|\\(?:displaystyle|,|;|:)\s*")
_SPACES = re.compile(r"(?:\\ |~|\s)+")
_CURRENCY = "$€£¥₹₽₩"

# Atomic choices only, each with its own first character or anchor: matching cannot backtrack into quadratic time.
_DECIMAL = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?|[1-9][0-9]{0,2}(?: [0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = r"(?:[eE](?P<exp>[-+]?[0-9]{1,9})| ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?(?P<exp_braced>[-+]?[0-9]{1,9}) ?\}|(?P<exp_bare>-?[0-9]{1,9})))"
_SCALED = re.compile(rf"(?P<number>{_DECIMAL}){_POWER}?")
_SLASH = re.compile(rf"(?P<top>{_DECIMAL}) ?/ ?(?P<bottom>{_DECIMAL})")
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
    text = text.translate(TYPOGRAPHY)
    text = _SPACES.sub(" ", _NOISE.sub("", text).replace("{,}", ",")).strip()
    text = _strip_full_stop(text)
    text, percent = _strip_signs(text)
    sign, text = _strip_sign(text)
    text = text.lstrip("\\" + _CURRENCY).strip() if text[:1] in _CURRENCY or text[:2] == r"\$" else text
    value = _value(text)
    return None if value is None else Number(sign * value, percent)


def same_number(gold: Number, answer: Number) -> bool:
    """Exact equality under the percent rule of this module."""
    if gold.value == answer.value:
        return True
    if gold.percent == answer.percent:
        return False
    return (gold.value == answer.value * 100) if gold.percent else (gold.value * 100 == answer.value)


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
