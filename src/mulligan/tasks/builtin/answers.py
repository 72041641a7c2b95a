"""What the built-in graders share: the boxed answer, whole numbers, verdicts, and a split by content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from mulligan.errors import ConfigError
from mulligan.tasks.boxed import last_boxed
from mulligan.types import Verdict, VerdictKind

INVALID: Mapping[str, str] = {"hint": "invalid"}
_WHOLE = re.compile(r"-?[0-9]{1,18}")


def boxed_answer(text: str) -> str | None:
    """The last boxed answer without its spaces; None if there is no box or nothing in it."""
    box = last_boxed(text)
    return "".join(box.split()) or None if box is not None else None


def whole_number(answer: str) -> int | None:
    """`-12` as a number, None if it is not written with plain digits."""
    return int(answer) if _WHOLE.fullmatch(answer) else None


def no_answer(fields: Mapping[str, str] = INVALID) -> Verdict:
    return Verdict(VerdictKind.NO_ANSWER, reason="no boxed answer", fields=fields)


def judged(correct: bool, answer: str, fields: Mapping[str, str] | None = None) -> Verdict:
    return Verdict(VerdictKind.CORRECT if correct else VerdictKind.WRONG, answer, fields=fields or {})


def by_hash(items: Iterable[str], salt: str) -> list[str]:
    """The items in the order of a hash of their text: a fixed shuffle that no version of Python can change."""
    return sorted(items, key=lambda item: hashlib.blake2b(f"{salt}:{item}".encode(), digest_size=8).digest())


def check_count(n: int | None) -> None:
    """Raise ConfigError if a number of problems is given that is below 1."""
    if n is not None and n < 1:
        raise ConfigError(f"n={n} must be at least 1")
