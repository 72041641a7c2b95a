r"""Cut the answer out of an attempt: the last complete `\boxed{...}`, in time linear in the text."""

from __future__ import annotations

import re

MAX_TEXT = 1_000_000
"""Characters of an attempt that are looked at, counted from its end."""
MAX_ANSWER = 10_000
"""Characters of an answer that are graded; a longer one is wrong without a look."""

# `\\boxed` (a doubled backslash, as in JSON that was never unescaped) counts as `\boxed`; any other escaped character, `\{` above
# all, is stepped over whole.
_TOKEN = re.compile(r"(?P<box>\\{1,2}boxed\s*\{)|\\{1,2}boxed(?:[ \t]+|(?=[-+0-9]))(?P<bare>[^\s{}\\$]+)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_INNER_BOX = re.compile(r"\\{1,2}boxed\s*(?=\{)")


def extract_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}` of `text`, or of `\boxed 7` without braces; None if there is none.

    Of nested boxes the outermost counts, and the inner ones lose their command. A box that is opened and never closed is no box.
    Time is linear in the text, of which the last `MAX_TEXT` characters count. Never raises.
    """
    text = text[-MAX_TEXT:]
    start = text.find("boxed")
    if start < 0:
        return None
    open_braces: list[int] = []  # for each open brace: where the content of the box begins, or -1 for a brace that is no box
    found: tuple[int, int] | None = None
    for match in _TOKEN.finditer(text, max(0, start - 2)):
        kind = match.lastgroup
        if kind == "box":
            open_braces.append(match.end())
        elif kind == "open":
            open_braces.append(-1)
        elif kind == "close" and open_braces:
            content = open_braces.pop()
            if content >= 0:
                found = content, match.start()
        elif kind == "bare":
            found = match.span("bare")
    if found is None:
        return None
    answer = text[found[0] : found[1]].strip()
    if text[found[0] - 1] != "{":
        answer = answer.rstrip(".,;:)")
    return _INNER_BOX.sub("", answer) if "boxed" in answer else answer
