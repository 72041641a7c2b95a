r"""One spelling for what is written in many: Unicode signs as LaTeX commands, no dollar signs, no closing punctuation, no wrappers.

Everything here is linear in the text and needs no worker. Order of the steps: superscripts, fractions and signs that NFKC would tear
apart are made commands first (NFKC alone turns `10²` into 102), then NFKC folds full-width forms, ligatures and odd spaces.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from mulligan.grading.text import MINUS_SIGNS, unwrap_text

VULGAR_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5), "⅙": (1, 6),
    "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
TYPOGRAPHY = {
    **{ord(sign): rf"\frac{{{a}}}{{{b}}}" for sign, (a, b) in VULGAR_FRACTIONS.items()},
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
    **MINUS_SIGNS,
    ord("×"): r"\times ",
    ord("⁄"): "/",
    ord("∕"): "/",
}
_COMMANDS = {
    "≤": "le", "≦": "le", "⩽": "le", "≥": "ge", "≧": "ge", "⩾": "ge", "≠": "ne", "∞": "infty", "·": "cdot", "⋅": "cdot", "∙": "cdot", "÷": "div", "∗": "cdot",
    "±": "pm", "∓": "mp", "∪": "cup", "∩": "cap", "∈": "in", "∅": "emptyset", "√": "sqrt", "≈": "approx", "→": "to", "∖": "setminus", "∠": "angle",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda",
    "μ": "mu", "µ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
    "ℝ": "mathbb{R}", "ℤ": "mathbb{Z}", "ℕ": "mathbb{N}", "ℚ": "mathbb{Q}", "ℂ": "mathbb{C}",
}  # fmt: skip
UNICODE = {
    **TYPOGRAPHY,
    **{ord(sign): f"_{{{digit}}}" for sign, digit in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)},
    **{ord(sign): f"\\{command} " for sign, command in _COMMANDS.items()},
    ord("°"): r"^\circ ",
    ord("∛"): r"\sqrt[3]",
    ord("∜"): r"\sqrt[4]",
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), ""),
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FRACTION_SLASH = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹0-9]{1,20})⁄([₀₁₂₃₄₅₆₇₈₉0-9]{1,20})")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_ROOT = re.compile(r"\\sqrt(\[[0-9]\])? *(?:([0-9]+(?:\.[0-9]+)?|[a-zA-Z])|\(([^()]*)\))")
_OVER = re.compile(r"\{?([^{}]*?)\\over(?![a-zA-Z])([^{}]*)\}?")
_BARE_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt *(?:\(([^()]*)\)|(?=\{))")
_PLAIN_COMMAND = re.compile(r"(?<![\\a-zA-Z{])(pi|infty|infinity|theta|alpha|cup)(?![a-zA-Z])")
_ROMAN_LETTER = re.compile(r"\\(?:math(?:rm|it|bf|sf)|text(?:rm|normal|it|bf)?|operatorname)\s*\{\s*([a-zA-Z])\s*\}")
_FRAC = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_SHORT_FRAC = re.compile(r"\\frac *(?:\{([^{}]*)\}|([0-9a-zA-Z])) *(?:\{([^{}]*)\}|([0-9a-zA-Z]))")
_SHORT_ROOT = re.compile(r"\\sqrt *([0-9a-zA-Z])")
_NEGATIVE_SPACE = re.compile(r"\\!\s*")
_LISTED_HUNDREDS = re.compile(r"(?<=[0-9],)\s+(?=[0-9]{3}(?![0-9]))")
_SPACING = re.compile(r"(\\\\)|\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?|\\(?:displaystyle|textstyle|limits|quad|qquad|,|;|:| |>)(?![a-zA-Z])|~")
_SPACE_THAT_SEPARATES = re.compile(r"(?<=[0-9A-Za-z])\s+(?=[0-9A-Za-z])")
_SPACE_BEFORE_SYMBOL = re.compile(r"(?<=[0-9])\s+(?=[a-zA-Z](?![a-zA-Z]))")
_SPACE_AFTER_COMMAND = re.compile(r"(\\[a-zA-Z]+)\0(?=[0-9])")
_SYNONYMS = (
    ("{,}", ","), (r"\leqslant", r"\le"), (r"\geqslant", r"\ge"), (r"\leq", r"\le"), (r"\geq", r"\ge"), (r"\neq", r"\ne"), (r"\not=", r"\ne"), (r"^{\circ}", r"^\circ"),
    (r"\lbrace", r"\{"), (r"\rbrace", r"\}"), (r"\lbrack", "["), (r"\rbrack", "]"), (r"\lvert", "|"), (r"\rvert", "|"), (r"\vert", "|"), (r"\mid", "|"),
    (r"\varnothing", r"\emptyset"), (r"\langle", "("), (r"\rangle", ")"), (r"\land", r"\text{and}"), (r"\lor", r"\text{or}"), (r"\colon", ":"),
    (r"\degree", r"^\circ"), (r"^{\prime}", "'"), (r"^\prime", "'"), (r"\backslash", r"\setminus"), (r"\lt", "<"), (r"\gt", ">"), ("<=", r"\le"), (">=", r"\ge"), ("!=", r"\ne"),
    ("**", "^"), (r"\ast", "*"), (r"\dots", r"\ldots"), (r"\cdots", r"\ldots"),
)  # fmt: skip
_SYNONYM_PATTERN = re.compile("|".join(re.escape(old) + (r"(?![a-zA-Z])" if old[-1].isalpha() else "") for old, _ in _SYNONYMS))
_SYNONYM = dict(_SYNONYMS)
_UNIT_LETTERS = frozenset("mglLshNJWVKCFATHB")
_END_OF_UNIT = re.compile(r"(?:\s*\^\s*\{?-?[0-9]\}?)?\s*\.?")
_ENCLOSURES = ((r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ('"', '"'))


def fold(text: str) -> str:
    """Unicode to LaTeX commands and plain characters; ASCII comes back as it is."""
    if text.isascii():
        return text
    text = _FRACTION_SLASH.sub(lambda m: rf"\frac{{{m[1].translate(_SUPERSCRIPTS)}}}{{{m[2].translate(_SUBSCRIPTS)}}}", text)
    text = _SUPERSCRIPT.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    return _ROOT.sub(_braced_root, unicodedata.normalize("NFKC", text.translate(UNICODE)).translate(UNICODE))


def _braced_root(match: re.Match[str]) -> str:
    return rf"\sqrt{match[1] or ''}{{{match[2] or match[3] or ''}}}"


@lru_cache(maxsize=256)  # an answer is looked at, read and made a key
def clean(answer: str) -> str:
    r"""LaTeX that a parser can read: Unicode signs as commands, no dollar signs, no closing punctuation, `\mathrm{e}` as `e`.

    A single letter in roman type is that letter: left as `\mathrm{e}`, a parser of units would take it, with all that follows, for one.
    """
    answer = fold(answer.strip())
    if "\\\\" in answer and r"\begin" not in answer:
        answer = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", answer)  # doubled, as in JSON that was never unescaped
    if "$" in answer:
        answer = answer.replace(r"\$", "").replace("$", "").strip()
    answer = strip_enclosures(strip_punctuation(answer))
    answer = strip_punctuation(answer)
    if r"\over" in answer and (match := _OVER.fullmatch(answer)):
        answer = rf"\frac{{{match[1].strip()}}}{{{match[2].strip()}}}"
    if "sqrt" in answer:
        answer = _BARE_ROOT.sub(lambda m: r"\sqrt" + (f"{{{m[1]}}}" if m[1] is not None else ""), answer)
    answer = _PLAIN_COMMAND.sub(lambda m: "\\" + {"infinity": "infty"}.get(m[1], m[1]) + " ", answer)
    return _ROMAN_LETTER.sub(_letter, answer) if "{" in answer else answer


def _letter(match: re.Match[str]) -> str:
    before, behind = match.string[: match.start()].rstrip("\\,~ "), match.string[match.end() :]
    if match[1] in _UNIT_LETTERS and before and before[-1] in "0123456789})/" and _END_OF_UNIT.fullmatch(behind):
        return match[0]
    return match[1]


def strip_punctuation(text: str) -> str:
    """Without a closing full stop, comma, colon or semicolon; an ellipsis stays."""
    while text and text[-1] in ".,;:" and not text.endswith("..") and not text.endswith((r"\,", r"\;", r"\:")):
        text = text[:-1].rstrip()
    return text


def strip_enclosures(text: str) -> str:
    r"""Without `\(...\)`, `\[...\]`, bold, code and quotation marks, where one pair holds the whole."""
    for opening, closing in _ENCLOSURES:
        inner = text[len(opening) : -len(closing)]
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing) and opening not in inner and closing not in inner:
            text = inner.strip()
    return text


@lru_cache(maxsize=256)
def canonical(answer: str) -> str:
    """The form in which two answers that are equal as written are equal as strings. Takes what `clean` returns."""
    if "\\" in answer or "~" in answer:
        answer = _SPACING.sub(lambda m: m[1] or " ", _NEGATIVE_SPACE.sub("", answer))
    answer = _SYNONYM_PATTERN.sub(lambda m: _SYNONYM[m[0]], answer)
    if r"frac" in answer:
        answer = _SHORT_FRAC.sub(_long_frac, _FRAC.sub(r"\\frac", answer))
    if r"\sqrt" in answer:
        answer = _SHORT_ROOT.sub(r"\\sqrt{\1}", answer)
    answer = _SPACE_BEFORE_SYMBOL.sub("", unwrap_text(answer).strip())
    answer = _SPACE_THAT_SEPARATES.sub("\0", answer)
    if "," in answer:
        answer = _LISTED_HUNDREDS.sub("\0", answer)  # `32, 349` is a list, `32,349` a number
    return "".join(_SPACE_AFTER_COMMAND.sub(r"\1", answer).split()).replace("\0", " ")


def _long_frac(match: re.Match[str]) -> str:
    top, bottom = match[1] if match[1] is not None else match[2], match[3] if match[3] is not None else match[4]
    return rf"\frac{{{top}}}{{{bottom}}}"
