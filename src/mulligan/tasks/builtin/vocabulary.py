r"""Every word and symbol of the built-in tasks in their `tokens` style: the vocabulary of the tiny models.

A text is split greedily, longest item first, spaces ignored: `@2 3+8-6` is `@2 3 + 8 - 6` and `\boxed{7}` is `\boxed{ 7 }`.
The numbers 10 to 15 are words of their own (so that each guess is one token); where digits must stay digits next to each
other, the tasks write them apart (`7 0 5`).
"""

from __future__ import annotations

WORDS: tuple[str, ...] = (
    *"0123456789",
    *("10", "11", "12", "13", "14", "15"),
    *("\\boxed{", "}"),
    *("+", "-", "*", "="),
    *("@1", "@2", "@3"),
    *("higher", "lower", "invalid", "wrong"),
    *("guess", "code", "distinct", "bulls", "cows"),
    *("digit", "length"),
    *"ABCDEF",
    *("attempts", "left"),
)


def spaced(number: int | str) -> str:
    """Digits (or letters) apart from each other: `705` is `7 0 5`."""
    return " ".join(str(number))
