r"""The answer inside a sentence, for `grade_answer`: text that nobody has cut an answer out of. Not used where a format marks the answer.

In order: its boxes (several, if they stand close together), what follows the last "final answer is", its last formula or plain number.
Linear in the text, which is cut to `MAX_ANSWER` characters.
"""

from __future__ import annotations

import re

from mulligan.grading.answers import read
from mulligan.grading.numeric import parse_number

_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{|\\.|\{|\}", re.DOTALL)
_INNER_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*(?=\{)")
_BETWEEN = re.compile(r"\b(?:and|or)\b|[,;]")
_PERCENT_BEHIND = re.compile(r"\s*\$?\s*(?:\\?%|percent|pct)")
_MATH = re.compile(r"\$\$([^$]+)\$\$|(?<![\\\d])\$((?:\\\$|[^$\n])+)\$|\\\(([^\n]+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_JOINT = re.compile(r"\s*,?\s*(?:and|or|,)\s*|\s*,\s*")
_NUMBER = re.compile(r"(?<![\w.,/^_-])-?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_WORD = re.compile(r"(?<![\\a-zA-Z{])[A-Za-z]{2,}")
_NO_PROSE = frozenset({"and", "or", "percent", "pct", "percentage"})
_ARGUMENT = re.compile(r"\\[a-zA-Z]+\s*\{[^{}]*\}")  # LaTeX, not prose
_GLUED = re.compile(r"(?<=[0-9)])(?:or|and)(?=[A-Z0-9(])")
_BEGINS_WITH_WORD = re.compile(r"\s*[A-Za-z]{3,}[ :,]")
_ANCHOR = re.compile(r"(?i:final answer)(?:[^.\n]{0,100}?\bis\b:?|:)")
_BROKEN_MATH = re.compile(r"\$[ \t]*\n[^$]*\n[ \t]*\$|\\\([ \t]*\n[^\\]*\n[ \t]*\\\)")  # inline formulas do not span lines
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")

CLOSE, NEAR = 10, 70
"""Characters between two boxes that belong together: so few in any case, or so few with a comma, `and` or `or` among them."""


def answer_of(text: str) -> str:
    """The answer in a text; the text itself if it is no sentence."""
    boxes = _boxes(text)
    anchor = max((m.end() for m in _ANCHOR.finditer(text)), default=-1)
    marked = _first(text, anchor) if text[:anchor].lower().endswith(("is", "is:")) and anchor > 0 else None
    if boxes:
        return marked if marked and anchor > boxes[-1][1] else _joined(text, boxes)
    spans = [m.span() for m in _MATH.finditer(text)]
    outside = _GLUED.sub(" ", _ARGUMENT.sub(" ", _without(text, spans)))
    words = [word for word in _WORD.findall(outside) if word.casefold() not in _NO_PROSE]
    if not words or (not spans and len(words) < 2 and not _BEGINS_WITH_WORD.match(outside)) or read(text[:100]).kind in ("number", "text", "choice"):
        return text
    return marked or (_last(text, anchor) if anchor > 0 else None) or _last(text, 0) or text


def with_decimal_comma(gold: str, answer: str) -> tuple[str, str]:
    """`1000,99` as `1000.99`, on the one side where the other is a number that is not whole."""
    for one, other in ((gold, answer), (answer, gold)):
        if _DECIMAL_COMMA.fullmatch(one.strip()) and parse_number(one) is None:
            number = parse_number(other)
            if number is not None and number.value != int(number.value):
                changed = one.strip().replace(",", ".")
                return (changed, answer) if one is gold else (gold, changed)
    return gold, answer


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the outermost boxes; one that is never closed reaches to the end, if no other is there."""
    found: list[tuple[int, int, str]] = []
    stack: list[tuple[int, int]] = []
    for match in _BOX.finditer(text):
        token = match[0]
        if token == "}":
            if stack:
                start, content = stack.pop()
                if content >= 0 and not any(c >= 0 for _, c in stack):
                    found.append((start, match.end(), text[content : match.start()]))
        elif token.endswith("{") and token != r"\{":
            stack.append((match.start(), match.end() if "box" in token else -1))
    if not found and (unclosed := next(((s, c) for s, c in stack if c >= 0), None)):
        found.append((unclosed[0], len(text), text[unclosed[1] :]))
    return found


def _joined(text: str, boxes: list[tuple[int, int, str]]) -> str:
    last = boxes[-1]
    parts = [last[2]]
    for box in reversed(boxes[:-1]):
        between = text[box[1] : last[0]]
        if len(between) >= CLOSE and not (len(between) < NEAR and box[2] != last[2] and _BETWEEN.search(between)):
            break
        if box[2] != parts[-1]:
            parts.append(box[2])
        last = box
    answer = ", ".join(_INNER_BOX.sub("", part).strip() for part in reversed(parts))
    return answer + r"\%" if _PERCENT_BEHIND.match(text, boxes[-1][1]) and "%" not in answer else answer


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    parts, at = [], 0
    for start, end in spans:
        parts.append(text[at:start])
        at = end
    return " ".join([*parts, text[at:]])


def _groups(text: str, start: int) -> list[tuple[int, int, str]]:
    """Formulas from `start` on; those that stand together, joined by commas, `and`, `or`, as one."""
    groups: list[tuple[int, int, str]] = []
    for match in _MATH.finditer(text, start):
        content = next(g for g in match.groups() if g is not None).strip()
        if groups and _JOINT.fullmatch(text[groups[-1][1] : match.start()]):
            first, _, before = groups[-1]
            groups[-1] = (first, match.end(), f"{before}, {content}")
        else:
            groups.append((match.start(), match.end(), content))
    return groups


def _first(text: str, start: int) -> str | None:
    """The first formula or number after `start`."""
    group, number = next(iter(_groups(text, start)), None), _NUMBER.search(text, start)
    if group is None or (number is not None and number.start() < group[0]):
        return number[0].rstrip(",") if number else None
    return _with_percent(text, group)


def _last(text: str, start: int) -> str | None:
    """The last number after the last formula, if there is one, else that formula."""
    groups = _groups(text, start)
    end = groups[-1][1] if groups else start
    numbers = _NUMBER.findall(_BROKEN_MATH.sub(" ", text[end:]))
    if numbers and not (groups and _PERCENT_BEHIND.match(text, end)):
        return numbers[-1].rstrip(",")
    return _with_percent(text, groups[-1]) if groups else None


def _with_percent(text: str, group: tuple[int, int, str]) -> str:
    return group[2] + r"\%" if _PERCENT_BEHIND.match(text, group[1]) else group[2]
