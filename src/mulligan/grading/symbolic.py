r"""Symbolic comparison with Hugging Face's Math-Verify. Runs in a worker process only: it may take for ever, or all memory.

No text of a model is ever evaluated as Python here: of Math-Verify's extractors only the LaTeX one is used, whose parser builds
expressions from a grammar; the one for plain expressions, which calls SymPy's `parse_expr`, is left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig, normalize_latex
from math_verify import LatexExtractionConfig, parse, verify
from math_verify.parser import parse_latex_cached
from sympy import Basic, Float, UnevaluatedExpr

from mulligan.grading.math import clean, decide
from mulligan.grading.numeric import parse_number

# Math-Verify warns that its own timeouts are off; the deadline of the worker process stands in for them.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

_NORMALIZATION = NormalizationConfig(basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none", equations=False)
_WITHOUT_UNITS = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False)
_EXTRACTION = (LatexExtractionConfig(),)
_MATH_INSIDE = re.compile(r"\\{1,2}boxed|\\fbox|(?<!\\)\$|\\\(|\\\[")
_BOX = re.compile(r"\\{1,2}boxed|\\fbox")
_MATH_SPAN = re.compile(r"\$\$[^$]+\$\$|\$[^$\n]+\$|\\\([^\n]+?\\\)|\\\[.+?\\\]", re.DOTALL)
_PROSE = re.compile(r"(?<![\\a-zA-Z{])[A-Za-z]{2,} +[A-Za-z]{2,}")
_PLAIN_NUMBER = re.compile(r"(?<![\w.,/^_-])-?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d+)")


def run(payload: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Compare `payload["answer"]` with `payload["gold"]`; `sentence` says that the answer may be a whole sentence.

    Calls `progress("gold")` once the gold answer is read: whatever takes too long or breaks after that is the answer's doing.
    """
    gold = parse_gold(payload["gold"])
    progress("gold")
    try:
        answer = parse_sentence(payload["answer"]) if payload.get("sentence") else parse_answer(clean(payload["answer"]))
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        return {"equal": False, "reason": f"the answer cannot be read ({type(error).__name__})"}
    if not answer:
        return {"equal": False, "reason": "the answer cannot be read"}
    if payload.get("sentence") and len(answer) > 1 and isinstance(answer[-1], str):
        quick = decide(payload["gold"], answer[-1])
        if quick is not None:
            return {"equal": quick[0], "reason": quick[1] or None}
    equal = any(_equal(g, a) for g in gold for a in answer)
    return {"equal": equal, "reason": None}


@lru_cache(maxsize=512)
def parse_gold(gold: str) -> list[Any]:
    """A gold answer as Math-Verify compares it: the expression, if there is one, and its normalised text."""
    if "boxed" in gold:
        return parse(gold, extraction_config=_EXTRACTION, parsing_timeout=None)  # type: ignore[arg-type]
    return parse_answer(clean(gold))


def parse_answer(answer: str) -> list[Any]:
    """An answer that was cut out: the expression, if it parses, and its normalised text (Math-Verify's own form of a result)."""
    text = normalize_latex(answer, _NORMALIZATION)
    if text.count("{") != text.count("}"):
        text = normalize_latex(answer, _WITHOUT_UNITS)  # stripping a "unit" tore a group apart
    if not text:
        return []
    try:
        return [parse_latex_cached(text), text]
    except MemoryError:
        raise
    except Exception:  # the parser raises whatever it meets; what it cannot read is compared as text
        return [text]


def parse_sentence(answer: str) -> list[Any]:
    """An answer that may be a whole sentence with LaTeX in it: its boxes, else its last formula or plain number."""
    prose = _PROSE.search(answer) is not None
    number = _number_after_math(answer) if prose and not _BOX.search(answer) else None
    if number is None and _MATH_INSIDE.search(answer):
        found = parse(answer, extraction_config=_EXTRACTION, parsing_timeout=None)  # type: ignore[arg-type]
        if found:
            return found
    answer = (number or answer).strip()
    if (match := _DECIMAL_COMMA.fullmatch(answer)) and parse_number(answer) is None:
        answer = f"{match[1]}.{match[2]}"
    return parse_answer(clean(answer))


def _number_after_math(text: str) -> str | None:
    """The last plain number of a sentence, if no formula stands behind it."""
    end = max((match.end() for match in _MATH_SPAN.finditer(text)), default=0)
    numbers = _PLAIN_NUMBER.findall(text[end:])
    return numbers[-1].rstrip(",") if numbers else None


_WARM_UP = (
    (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
    (r"x^2 + 2x y - 1", r"(x+1)^2 - 2"),
    (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ -3 \end{bmatrix}"),
    (r"[0, 1) \cup (2,\infty)", r"x \in (-\infty, 2]"),
    (r"y = 2x + 3", r"2x - y + 3 = 0"),
    (r"1, -2", r"\{1 \pm \sqrt{5}\}"),
    (r"\sin^2 x + \log_{2} 3", r"\cos x"),
    (r"\lfloor n/2 \rfloor + n!", r"\binom{n}{k} \cdot 3^{n}"),
    (r"6 - 5i", r"1 \le x < 28\%"),
    (r"30^\circ", r"5 \text{ cm}^2"),
)


def warm_up() -> None:
    """Have the parser's tables, the regular expressions and SymPy's lazy imports ready before the workers are forked."""
    for gold, answer in _WARM_UP:
        run({"gold": gold, "answer": answer, "sentence": True}, lambda stage: None)
    parse_latex_cached.cache_clear()


def _equal(gold: Any, answer: Any) -> bool:
    return bool(verify(gold, answer, timeout_seconds=None)) and not _differ_by_little(gold, answer)  # type: ignore[arg-type]


def _differ_by_little(gold: Any, answer: Any) -> bool:
    """Whether two exact constants that passed as equal differ after all: Math-Verify takes any difference below 1e-15 for none.

    Not where a decimal or a percentage stands: there Math-Verify's own rules are wanted.
    """
    try:
        if not (isinstance(gold, Basic) and isinstance(answer, Basic)) or gold == answer or gold.free_symbols or answer.free_symbols:
            return False
        if gold.has(Float, UnevaluatedExpr) or answer.has(Float, UnevaluatedExpr):
            return False
        a: Any = gold.doit()
        b: Any = answer.doit()
        if a.is_Rational and b.is_Rational:
            return bool(a != b)
        size = max(abs(complex(a.evalf(30))), abs(complex(b.evalf(30))))
        return abs(complex((a - b).evalf(30))) > 1e-12 * size
    except (TypeError, ValueError, AttributeError, ArithmeticError):
        return False
