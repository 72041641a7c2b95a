"""Exact text, after NFKC, white space and case are made alike."""

from __future__ import annotations

import re
import unicodedata

_WRAPPER = re.compile(r"\s*\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|underline|operatorname|mbox|hbox)\s*\{([^{}]*)\}\s*")
# All the signs that are typed or typeset for a minus, made one: no two of them ever mean different things in an answer.
MINUS_SIGNS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d", "-"))


def normalize_text(text: str) -> str:
    """NFKC, runs of white space to one space, ends stripped, casefolded."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


def unwrap_text(answer: str) -> str:
    r"""`\text{odd}` to `odd`, if the wrapper spans the whole answer."""
    match = _WRAPPER.fullmatch(answer) if "\\" in answer else None
    return match[1] if match else answer


def same_text(gold: str, answer: str) -> bool:
    r"""Whether two texts are equal once normalised; a `\text{}` around the whole of either is no difference."""
    return normalize_text(gold) == normalize_text(answer) or normalize_text(unwrap_text(gold)) == normalize_text(unwrap_text(answer))
