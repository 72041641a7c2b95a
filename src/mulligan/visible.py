"""Text of others (names, answers, labels, error messages) made safe to print: what would act on a terminal is shown instead."""

from __future__ import annotations

import re

# C0 and C1 controls but for tab and line feed, bidirectional marks, line separators, lone surrogates. Joiners (ZWJ, ZWNJ) only shape their neighbours.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """`text` with every character that a terminal would obey instead of showing as `⟨U+001B⟩`."""
    return _ACTS.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
