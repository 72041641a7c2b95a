r"""How an attempt marks its answer, as the recipe says it (`grader.format`), and how that answer is cut out.

    boxed            the last complete `\boxed{...}` (or `\boxed 7`)
    ####             what follows the last `####` that begins a line, to the end of the line; or the next line that is not empty
    Answer:          the same for a line that begins with `Answer:` or `Final answer:` (any case, bold or quoted)
    <answer>         the last complete `<answer>...</answer>`
    last number      the last plain number in the text
    regex:PATTERN    the first group (or the whole) of the last match; runs in a worker, since a pattern may take for ever

The first four end an attempt exactly: `answer_marks.py` has the check that fires on the very token which completes what is found here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mulligan.answer_marks import LINE_MARKS, TAG
from mulligan.grading.extract import MAX_TEXT, extract_boxed

_NUMBER = re.compile(r"(?<![\w.,/^_-])-?[$€£]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?(?:[eE][-+]?\d{1,9})?(?:\\?%)?|(?<!\w)-?\\[dt]?frac\{\d+\}\{\d+\}")
_MISSING = {
    "boxed": r"no complete \boxed{}",
    "####": "no line that begins with ####",
    "Answer:": "no line that begins with 'Answer:'",
    "<answer>": "no complete <answer>...</answer>",
    "last number": "no number",
}


def extract(text: str, answer_format: str) -> str | None:
    """The answer of an attempt; None if there is none. Linear in the text, of which the last `MAX_TEXT` characters count. Never raises."""
    text = text[-MAX_TEXT:]
    found = _EXTRACTORS[answer_format](text)
    if found is None or answer_format == "boxed":
        return found
    boxed = extract_boxed(found) if "boxed" in found else None
    return found if boxed is None else boxed


def missing(answer_format: str) -> str:
    """What to say of an attempt without an answer."""
    return _MISSING.get(answer_format, "the pattern of grader.format matches nothing")


def _marked_line(text: str, answer_format: str) -> str | None:
    mark = LINE_MARKS[answer_format]
    found, open_mark = None, False
    for line in text.split("\n"):
        if match := mark.match(line):
            rest = line[match.end() :].strip()
            found, open_mark = rest or found, not rest
        elif open_mark and line.strip():
            found, open_mark = line.strip(), False
    return None if found is None else found.removesuffix("**").strip()


def _tagged(text: str) -> str | None:
    start, found = None, None
    for match in TAG.finditer(text):
        if not match[1]:
            start = match.end() if start is None else start
        elif start is not None:
            found, start = (start, match.start()), None
    return None if found is None else text[found[0] : found[1]].strip()


def _last_number(text: str) -> str | None:
    found = None
    for match in _NUMBER.finditer(text):
        found = match[0]
    return None if found is None else found.rstrip(",.")


_EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "boxed": extract_boxed,
    "####": lambda text: _marked_line(text, "####"),
    "Answer:": lambda text: _marked_line(text, "Answer:"),
    "<answer>": _tagged,
    "last number": _last_number,
}
