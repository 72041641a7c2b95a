r"""Mathematical answers: what can be decided at once is decided here, without a worker; the rest is `symbolic.py`'s, in one.

At once: answers that are equal as written (spacing, `\left`, `\dfrac`, `\text{}` and closing punctuation apart), plain numbers as exact
rationals, words, choices and bases, tuples, sets, matrices and intervals of these, and whatever cannot be equal because of what it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mulligan.grading.answers import MAX_DEPTH, Answer, depth_of, is_name, read
from mulligan.grading.compare import Comparer, Judge
from mulligan.grading.extract import MAX_ANSWER
from mulligan.grading.hints import NO_HINT, hints
from mulligan.grading.normalize import canonical, clean
from mulligan.grading.numeric import Tolerance

__all__ = ["Decision", "canonical", "clean", "decide", "is_name", "look"]

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NOTHING = Judge()
MAX_QUICK = 2_000
"""Characters of an answer that is read here: some milliseconds at most. What is longer goes to a worker."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision without a worker. `fields`: hints, if they were asked for."""

    equal: bool
    reason: str | None = None
    fields: dict[str, str] | None = None


def decide(gold: str, answer: str, tolerance: Tolerance | None = None) -> tuple[bool, str | None] | None:
    """Decide without symbolic algebra: (equal, reason if not), or None if a worker has to look. Never raises."""
    found = look(gold, answer, tolerance)
    return None if found is None else (found.equal, found.reason)


def look(gold: str, answer: str, tolerance: Tolerance | None = None, *, with_hints: bool = False) -> Decision | None:
    """As `decide`; with `with_hints`, the decision carries the fields of `hints.py`."""
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer) and tolerance is None and not with_hints:
        return Decision(int(gold) == int(answer))
    if len(answer) > MAX_ANSWER:
        return Decision(False, f"the answer is longer than {MAX_ANSWER} characters", _no_hints(with_hints))
    if gold.strip() == answer.strip():
        return Decision(True, None, _no_hints(with_hints))
    if len(answer) > MAX_DEPTH and depth_of(answer) > MAX_DEPTH:
        return Decision(False, f"the answer is nested more than {MAX_DEPTH} deep", _no_hints(with_hints))
    if len(answer) > MAX_QUICK or len(gold) > MAX_QUICK:
        return None
    short = canonical(clean(answer))
    if not short:
        return Decision(False, "the answer is empty", _no_hints(with_hints))
    ours, right = _read_gold(gold)
    if short == ours:
        return Decision(True, None, _no_hints(with_hints))
    comparer = Comparer(_NOTHING, tolerance)
    theirs = read(answer)
    equal = comparer.same(right, theirs)
    if equal is None:
        return None
    return Decision(equal, None if equal else comparer.reason, hints(right, theirs, equal, comparer) if with_hints else None)


@lru_cache(maxsize=8192)
def _read_gold(gold: str) -> tuple[str, Answer]:
    short = canonical(clean(gold))
    too_deep = len(gold) > MAX_DEPTH and depth_of(gold) > MAX_DEPTH
    return short, Answer("expression", short) if too_deep else read(gold, gold=True)


def _no_hints(with_hints: bool) -> dict[str, str] | None:
    return dict(NO_HINT) if with_hints else None
