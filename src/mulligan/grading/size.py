r"""Numbers that nobody could write out: seen in the text, before anything works them out.

`9^{9^{9}}` has 370 million digits; to find that it is not 7 would take a worker its whole deadline. What is estimated here is the number
of digits of every power, factorial and binomial of plain numbers in an answer, however deep it stands; what cannot be read is passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

MOST_DIGITS = 300_000
"""Digits of a number that is worked out: a fraction of a second."""
MOST_DEPTH = 100
MOST_CHARACTERS = 10_000
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\\[a-zA-Z]+|\\.|\S")
_SKIPPED = frozenset(("\\left", "\\right", "\\!", "\\,", "\\;", "\\:", "\\ ", "\\quad", "\\displaystyle", "$", "~", "'"))
_OPENING = {"{": "}", "(": ")", "[": "]", "\\{": "\\}"}
_CLOSING = frozenset(_OPENING.values())
_TIMES = frozenset(("*", "/", "\\cdot", "\\times", "\\div", "\\bmod", "\\mod"))
_ENDS_A_TERM = frozenset(("+", "-", "\\pm", "\\mp", ",", ";", "=", "<", ">", "&", "\\\\", "\\le", "\\ge", "\\leq", "\\geq", "\\neq", "\\in", "\\cup", "\\cap", "|"))
_DIVIDES = frozenset(("\\frac", "\\dfrac", "\\tfrac", "\\cfrac", "\\binom", "\\dbinom", "\\tbinom"))
_MAY_TAKE_LONG = re.compile(
    r"\\(?:sum|prod|int|lim|det|gcd|binom|Gamma|zeta)(?![a-zA-Z])"
    r"|\\end\{[a-zB]{0,9}matrix\}\s*\^"  # the power of a matrix
    r"|\)\s*\^\s*\{?\s*\d{2}"  # a high power of a bracket
    r"|\)\s*\^\s*\{?\d{1,9}\}?[^()]{0,20}\)\s*\^"  # powers of brackets within brackets
)
_MAY_BE_LARGE = re.compile(r"\^|!|binom")


def may_take_long(text: str) -> bool:
    """Whether there is a sum, an integral, a high power or the like in the text: it may be worked out at once, or never."""
    return _MAY_TAKE_LONG.search(text) is not None


class _TooLarge(Exception):
    pass


@lru_cache(maxsize=1024)
def too_large(text: str) -> bool:
    """Whether a number in the text has more than `MOST_DIGITS` digits. Linear in the text; False for what cannot be read."""
    if len(text) > MOST_CHARACTERS or not _MAY_BE_LARGE.search(text):
        return False
    try:
        _Reader([token for token in _TOKEN.findall(text) if token not in _SKIPPED]).all()
    except _TooLarge:
        return True
    except RecursionError:  # nested deeper than anything that is worked out
        return False
    return False


class _Reader:
    """Reads once from left to right. A size is the decimal logarithm of the larger of numerator and denominator; None: not a plain number."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def all(self) -> None:
        while self.at < len(self.tokens):
            self.sum()
            self.at += 1  # a closing bracket that closes nothing

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def sum(self) -> float | None:
        """Everything up to a closing bracket."""
        sizes: list[float | None] = []
        while (token := self.peek()) and token not in _CLOSING:
            if token in _ENDS_A_TERM:
                self.at += 1
                if token not in "+-":
                    sizes.append(None)
            else:
                sizes.append(self.term())
        known = [size for size in sizes if size is not None]
        return max(known) + math.log10(len(known)) if known and len(known) == len(sizes) else None

    def term(self) -> float | None:
        total: float | None = 0.0
        while (token := self.peek()) and token not in _CLOSING and token not in _ENDS_A_TERM:
            if token in _TIMES:
                self.at += 1
                continue
            size = self.power()
            total = None if size is None or total is None else total + size
        return total

    def power(self) -> float | None:
        """A factor with its exponents, to the right first, and factorials."""
        size = self.atom()
        while (token := self.peek()) in ("^", "!", "_"):
            self.at += 1
            if token == "!":
                size = None if size is None else self._checked(_of_factorial(size))
                continue
            inner = self._deeper(self.power) if token == "^" else self._deeper(self.atom)
            if token == "_":
                size = None
            elif size is not None and inner is not None:
                size = self._checked(size * _value(inner)) if size > 0 else 0.0
            else:
                size = None
        return size

    def atom(self) -> float | None:
        token = self.peek()
        if not token or token in _CLOSING:
            return None
        self.at += 1
        if token[0].isdecimal():
            return _size(token)
        if token in _OPENING:
            size = self._deeper(self.sum)
            self.at += self.peek() in _CLOSING
            return size
        if token in _DIVIDES:
            upper, lower = self._deeper(self.atom), self._deeper(self.atom)
            if upper is None or lower is None:
                return None
            return max(upper, lower) if "frac" in token else self._checked(min(_value(lower), _value(upper)) * upper if lower < upper - 0.4 else 0.0)
        if token == "\\sqrt":
            if self.peek() == "[":
                self._deeper(self.atom)
            size = self._deeper(self.atom)
            return None if size is None else size / 2
        return self.power() if token in ("+", "-") else None

    def _deeper(self, read: Callable[[], float | None]) -> float | None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise RecursionError
        try:
            return read()
        finally:
            self.depth -= 1

    def _checked(self, size: float) -> float:
        if size > MOST_DIGITS:
            raise _TooLarge
        return size


def _size(digits: str) -> float:
    """Of a decimal: numerator and denominator both have its digits behind the point."""
    whole, _, decimals = digits.partition(".")
    significant = (whole + decimals).lstrip("0")
    if len(significant) > 15:
        return float(len(significant))
    number = int(significant or "0")
    return max(math.log10(number) if number else 0.0, float(len(decimals)))


def _of_factorial(size: float) -> float:
    """The size of n! for an n of this size."""
    n = _value(size)
    return math.lgamma(n + 1) / math.log(10) if n < 1e15 else n * (size - 0.4)


def _value(size: float) -> float:
    """The number of that size; infinite where floats end."""
    return 10.0**size if size < 300 else math.inf
