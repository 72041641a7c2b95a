r"""Where an answer stands in an attempt: the marks of the formats (`grader.format`), and the checks that end an attempt at its answer.

A check reads an attempt token by token and fires at the very token whose text completes an answer, O(1) per token, amortised. What it
fires at is what `grading/formats.py` finds in the text: both read the marks given here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mulligan.config import EXACT_FORMATS
from mulligan.errors import ConfigError

LINE_MARKS = {
    "####": re.compile(r"[ \t>*_]{0,20}####[ \t]*"),
    "Answer:": re.compile(r"[ \t>*_#]{0,20}(?:[fF][iI][nN][aA][lL] {1,3})?[aA][nN][sS][wW][eE][rR][*_]{0,3} ?:[*_]{0,3}[ \t]*"),
}
"""What begins a line that gives the answer. A line with nothing behind its mark hands over to the next one that is not blank."""
TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)
OPENING, CLOSING = "<answer>", "</answer>"


def answer_stop(pieces: Mapping[int, str], answer_format: str) -> AnswerStop | LineStop | TagStop:
    """A fresh check for one attempt. `pieces`: the text of each token id.

    Raises:
        ConfigError: answers of this format have no end that a token could show.
    """
    if answer_format == "boxed":
        return AnswerStop(pieces)
    if answer_format in LINE_MARKS:
        return LineStop(pieces, LINE_MARKS[answer_format])
    if answer_format == OPENING:
        return TagStop(pieces)
    known = ", ".join(repr(name) for name in EXACT_FORMATS)
    raise ConfigError(f"grader.format = {answer_format!r} has no end that a token could show ({known} have): set protocol.stop = 'end_of_turn'")


class LineStop:
    """Fires at the token that ends the line with the answer. Implements `sampling.StopChecker`."""

    __slots__ = ("_line", "_mark", "_open", "_pieces")

    def __init__(self, pieces: Mapping[int, str], mark: re.Pattern[str]):
        self._pieces = pieces
        self._mark = mark
        self._line: list[str] = []
        self._open = False  # the mark stood alone: the answer is the next line that is not blank

    def push(self, token_id: int) -> bool:
        """Take the token just drawn; True if a line that gives an answer ends in it."""
        *ended, rest = self._pieces[token_id].split("\n")
        for text in ended:
            self._line.append(text)
            line = "".join(self._line)
            self._line = []
            if self._gives_answer(line):
                return True
        self._line.append(rest)
        return False

    def _gives_answer(self, line: str) -> bool:
        match = self._mark.match(line)
        if match is None:
            return self._open and not line.isspace() and line != ""
        self._open = not line[match.end() :].strip()
        return not self._open


class TagStop:
    """Fires at the token that closes `<answer>...</answer>`. Implements `sampling.StopChecker`."""

    __slots__ = ("_open", "_pieces", "_tail")

    def __init__(self, pieces: Mapping[int, str]):
        self._pieces = pieces
        self._tail = ""
        self._open = False

    def push(self, token_id: int) -> bool:
        """Take the token just drawn; True if its text closes the tag."""
        piece = self._pieces[token_id]
        text = self._tail + piece
        self._tail = text[-len(CLOSING) + 1 :]
        if ">" not in piece:
            return False
        for match in TAG.finditer(text):
            if match.end() <= len(text) - len(piece):
                continue  # seen before
            if match[1] and self._open:
                return True
            self._open = self._open or not match[1]
        return False


class AnswerStop:
    """Fires at the token whose text closes a `\\boxed{...}`: braces are counted, `\\{` and `\\}` are not. O(1) per token, amortised.

    White space may stand before the opening brace, as the graders allow; an empty box closes too; of nested boxes the outermost counts.
    One object per attempt; implements `sampling.StopChecker`.
    """

    __slots__ = ("_depth", "_escaped", "_idle", "_matched", "_pieces")
    _COMMAND = "\\boxed"

    def __init__(self, pieces: Mapping[int, str]):
        self._pieces = pieces
        self._matched = 0  # characters of _COMMAND seen so far
        self._depth = 0  # open braces, the box's own included
        self._escaped = False
        self._idle = True  # neither in a box nor in the middle of an opening

    def push(self, token_id: int) -> bool:
        """Take the token just drawn; True if its text closes a box (what stands behind the brace in that token is ignored)."""
        piece = self._pieces[token_id]
        if self._idle and "\\" not in piece:
            return False
        closed = any(self._step(character) for character in piece)
        self._idle = not (self._matched or self._depth)
        return closed

    def _step(self, character: str) -> bool:
        if not self._depth:
            self._match_opening(character)
        elif self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == "{":
            self._depth += 1
        elif character == "}":
            self._depth -= 1
            return self._depth == 0
        return False

    def _match_opening(self, character: str) -> None:
        if character == "\\":
            self._matched = 1
        elif self._matched < len(self._COMMAND):
            self._matched = self._matched + 1 if character == self._COMMAND[self._matched] else 0
        elif character == "{":
            self._matched, self._depth = 0, 1
        elif not character.isspace():
            self._matched = 0
