"""What stands in the last complete `\\boxed{...}` of a text."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"(?P<box>\\(?:boxed|framebox)\s*\{)|\\boxed[ \t]+(?P<bare>[^\s{}\\$]+)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}` (`\framebox{...}`, `\boxed 7`), braces inside balanced; None if there is none.

    Of nested boxes the outermost counts. `\{` and `\}` are letters, not braces. One pass, linear in the text's length.
    """
    opened: list[int] = []  # per open brace: where a box's content starts, or -1 for a plain brace
    found: str | None = None
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "box":
            opened.append(match.end())
        elif kind == "open":
            opened.append(-1)
        elif kind == "bare":
            found = match["bare"].rstrip(".,;:")
        elif kind == "close" and opened and (start := opened.pop()) >= 0:
            found = text[start : match.start()]
    return found
