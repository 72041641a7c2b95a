r"""LaTeX expressions as SymPy's, and whether two of them are equal. Runs in a worker process only: it may take for ever, or all memory.

latex2sympy builds expressions from a grammar, unevaluated. Equality is decided by value, not by rewriting: constants are compared to
60 digits, then, if they agree, to `MOST_DIGITS` behind the point; expressions with variables at fixed points, to 50 digits. Text of a
model is never evaluated as Python: while it is worked on, the one door through which SymPy evaluates strings is shut (`no_evaluation`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from sympy.core.function import AppliedUndef
from sympy.parsing import sympy_parser

_NORMALIZATION = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False)
_PRIME = re.compile(r"([A-Za-z])('+)(?:_\{?([A-Za-z0-9]+)\}?)?")
_CALL = re.compile(r"(?<![\\a-zA-Z])([a-zA-Z](?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?)\((?!-?[0-9]+\))")
_FUNCTIONS = frozenset("fghuyFGHPQWI")
_TRIG = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DISCRETE = (sympy.factorial, sympy.binomial, sympy.Sum, sympy.Product)
_ROUNDING = (sympy.floor, sympy.ceiling, sympy.Mod)
_WHOLE_NAMES = frozenset("ijklmnpqNMK")

DIGITS = 60
AGREED = 50
TINY = sympy.Float("1e-40")


MOST_DIGITS = 500
MAX_EXPONENT = 10_000
"""Powers of ten in `1e5` beyond this are not read."""


class Unreadable(ValueError):
    """The text is no expression that latex2sympy understands."""


class _Reader(_Latex2Sympy):
    """latex2sympy, but for its numbers: it hands their digits to `sympy.Number`, which evaluates them as Python. Here decimals are exact."""

    def parse_number(self, text: str) -> Any:
        digits, _, exponent = text.replace(",", "").lower().partition("e")
        if exponent and abs(int(exponent)) > MAX_EXPONENT:
            raise Unreadable("exponent")
        number = Fraction(digits) * Fraction(10) ** int(exponent or 0)
        return sympy.Rational(number.numerator, number.denominator)


@contextmanager
def no_evaluation() -> Iterator[None]:
    """While it holds, every string that SymPy would evaluate as Python raises instead (`sympify`, `parse_expr`, `N` on a string)."""
    was = sympy_parser.eval_expr, sympy_parser.parse_expr
    sympy_parser.eval_expr = sympy_parser.parse_expr = _refuse
    try:
        yield
    finally:
        sympy_parser.eval_expr, sympy_parser.parse_expr = was


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("text of a model is not evaluated")


# --------------------------------------------------------------------------------------------------------------------- parsing


@lru_cache(maxsize=2048)
def parse(text: str) -> Any:
    """A canonical expression as SymPy's: decimals as exact rationals, `i` as the imaginary unit, calls of unknown functions as symbols.

    Raises:
        Unreadable: latex2sympy cannot read it.
    """
    degrees = r"^\circ" in text and _TRIG.search(text) is not None
    written = _PRIME.sub(lambda m: f"{m[1]}_{{{m[3] or ''}{'p' * len(m[2])}}}", text)
    written = _CALL.sub(lambda m: m[0] if m[1][0] in _FUNCTIONS else rf"{m[1]} \cdot (", written)
    try:
        reader = _Reader(None, is_real=True, convert_degrees=degrees, config=ConversionConfig(lowercase_symbols=False))
        found = reader.parse(normalize_latex(written, _NORMALIZATION))
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # the parser raises whatever it meets
        raise Unreadable(type(error).__name__) from None
    if not isinstance(found, (sympy.Expr, sympy.MatrixBase)):
        raise Unreadable(type(found).__name__)
    return _plain(found)


def _plain(found: Any) -> Any:
    if isinstance(found, sympy.MatrixBase):
        return found.applyfunc(_plain)
    found = found.xreplace({part: part.args[0] for part in found.atoms(sympy.UnevaluatedExpr)})
    opaque = {part: sympy.Symbol(f"<{part}>", real=True) for part in found.atoms(AppliedUndef, sympy.Derivative)}
    if opaque:
        found = found.xreplace(opaque)
    if found.has(sympy.Sum, sympy.Product):
        return found  # there `i` counts
    swaps = {s: sympy.I for s in found.free_symbols if s.name == "i"}
    return found.xreplace(swaps) if swaps else found


# -------------------------------------------------------------------------------------------------------------------- equality


def equal(a: Any, b: Any) -> bool:
    """Whether two parsed expressions have the same value wherever both have one."""
    if a == b:
        return True
    if is_matrix(a) or is_matrix(b):
        return _equal_matrices(a, b)
    if not a.free_symbols and not b.free_symbols:
        return equal_constants(a, b)
    found = [(u, v, point) for point in points(a, b) if (u := value(a, point)) is not None and (v := value(b, point)) is not None]
    if len(found) < 2 or not all(_close(u, v) for u, v, _ in found):
        return False
    if all(_agree(u, v) for u, v, _ in found) and _vanish_at(a - b, found[0][2]):
        return True
    return all(equal_constants(a.subs(point).doit(), b.subs(point).doit()) for _, _, point in found[:3])


def _vanish_at(difference: Any, point: dict[Any, Any]) -> bool:
    """Whether it is 0 to `MOST_DIGITS`: what agrees to `DIGITS` may still differ by a tiny number."""
    try:
        found = difference.evalf(15, subs=point, maxn=MOST_DIGITS)
        return not found.is_number or all(_vanishes(part) for part in found.as_real_imag())
    except (TypeError, ValueError, AttributeError, ArithmeticError, NotImplementedError):
        return True


def equal_constants(a: Any, b: Any) -> bool:
    """Exact equality of two constants, as far as `MOST_DIGITS` behind the point tell."""
    u, v = value(a), value(b)
    if u is None or v is None or not _close(u, v):
        return False
    # `evalf` makes a tiny number of a power of what is 0 but was not worked out, `(1-1)^2`: if they differ by so little, work them out.
    return _same_value(a, b) or _same_value(a.doit(), b.doit())


def _same_value(a: Any, b: Any) -> bool:
    """Whether the values agree to `AGREED` digits, then to `MOST_DIGITS` behind the point."""
    u, v = value(a), value(b)
    if u is None or v is None or not _agree(u, v):
        return False
    # Anew with more digits, not as the difference of the two: SymPy takes the logarithm of 1 + 10^-200 for 0 at fewer.
    digits = MOST_DIGITS + _magnitude(u)
    if digits > 20 * MOST_DIGITS:
        return False  # too large to be told apart
    u, v = value(a, digits=digits), value(b, digits=digits)
    return u is not None and v is not None and _agree(u, v, digits - 15)


def ratio(a: Any, b: Any) -> Any:
    """The constant c with a = c b wherever both have a value, not 0; None if there is none."""
    found = []
    for point in points(a, b):
        u, v = value(a, point), value(b, point)
        if u is not None and v is not None and v != 0 and u != 0:
            found.append(u / v)
    if len(found) < 2 or not all(_agree(found[0], one) for one in found[1:]):
        return None
    return found[0]


def value(expression: Any, point: dict[Any, Any] | None = None, digits: int = DIGITS) -> Any:
    """The value as a complex number of so many digits (SymPy); None if there is none (a pole, a function that is not known)."""
    try:
        found = expression.evalf(digits, subs=point) if point else expression.evalf(digits)
        if not found.is_number or found.has(sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit):
            found = expression.subs(point or {}).doit().evalf(digits)
        real, imaginary = (sympy.Integer(0) if _vanishes(part) else part for part in found.as_real_imag())
        if not (real.is_Float or real.is_Rational) or not (imaginary.is_Float or imaginary.is_Rational):
            return None
        return real + imaginary * sympy.I if real.is_finite and imaginary.is_finite else None
    except (TypeError, ValueError, AttributeError, ArithmeticError, NotImplementedError, KeyError):
        return None


def _agree(u: Any, v: Any, digits: int = AGREED) -> bool:
    size = max(abs(u), abs(v))
    return size == 0 or bool(abs(u - v) <= size * sympy.Float(10, 15) ** -digits)


def _close(u: Any, v: Any) -> bool:
    """Whether so little is between them that it may come of the computation."""
    return bool(abs(u - v) <= TINY * (1 + abs(u)))


def _magnitude(u: Any) -> int:
    """Digits before the point."""
    _, _, exponent, bits = sympy.Float(abs(u), 15)._mpf_
    return max(0, int((exponent + bits) * 0.30103) + 1)


def _vanishes(part: Any) -> bool:
    return part == 0 or (part.is_Float and part._prec == 1)


def points(a: Any, b: Any) -> list[dict[Any, Any]]:
    """Values for the variables: positive ones, then ones of both signs where the expressions are real; whole numbers for what counts."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    between = [{s: sympy.Rational(_PRIMES[(j + 5 * i) % len(_PRIMES)], 31 + 6 * i + j % 5) for j, s in enumerate(symbols)} for i in range(4)]
    if _counts(a) or _counts(b):
        whole = [{s: sympy.Integer(_WHOLE[(i * 7 + j * 3 * (i + 1)) % len(_WHOLE)]) for j, s in enumerate(symbols)} for i in range(9)]
        rounded = (a.has(*_ROUNDING) or b.has(*_ROUNDING)) and not a.has(*_DISCRETE) and not b.has(*_DISCRETE)
        # What is rounded need not be whole, unless its name says so.
        return whole + [{s: w[s] if str(s)[0] in _WHOLE_NAMES else r[s] for s in symbols} for w, r in zip(whole, between, strict=False)] if rounded else whole
    far = [{s: 10**6 * q for s, q in between[0].items()}, {s: q / 10**6 for s, q in between[1].items()}]
    found = [*between, *(point for point in far if _real(a, point) and _real(b, point))]
    for i in range(3):
        mixed = {s: between[i][s] * (-1 if (j + i) % 2 == 0 else 1) for j, s in enumerate(symbols)}
        if _real(a, mixed) and _real(b, mixed):
            found.append(mixed)
    return found


_PRIMES = (53, 71, 37, 89, 41, 97, 59, 83, 43, 79, 61, 101, 47, 73, 67)
_WHOLE = (5, 2, 7, 3, 11, 4, 6, 9, 8, 13, 10)


def _counts(expression: Any) -> bool:
    if expression.has(*_DISCRETE, *_ROUNDING):
        return True
    return any(p.base.is_number and p.exp.free_symbols and p.base.is_negative for p in expression.atoms(sympy.Pow))


def _real(expression: Any, point: dict[Any, Any]) -> bool:
    found = value(expression, point)
    return found is not None and abs(sympy.im(found)) <= max(abs(found), 1) * sympy.Float(10, 15) ** -AGREED


def is_matrix(a: Any) -> bool:
    """Whether it is a matrix, worked out or not."""
    return isinstance(a, (sympy.MatrixBase, sympy.MatrixExpr))


def _equal_matrices(a: Any, b: Any) -> bool:
    a, b = (m.doit() if is_matrix(m) else m for m in (a, b))
    if not isinstance(a, sympy.MatrixBase) or not isinstance(b, sympy.MatrixBase) or a.shape != b.shape:
        return False
    return all(equal(u, v) for u, v in zip(a.flat(), b.flat(), strict=True))
