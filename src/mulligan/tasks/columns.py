"""Which column holds the question and which the answer, and what the gold answer is in the ways people write it."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mulligan.errors import DataError
from mulligan.tasks.boxed import last_boxed
from mulligan.tasks.query import nearest

QUESTION_COLUMNS = ("question", "problem", "prompt", "query", "input", "instruction", "question_text")
ANSWER_COLUMNS = (
    "answer",
    "final_answer",
    "gold",
    "target",
    "expected_answer",
    "ground_truth",
    "gold_answer",
    "correct_answer",
    "reference_answer",
    "reward_model.ground_truth",
    "label",
)
PROSE_COLUMNS = ("solution", "output", "response", "completion", "generated_solution", "reasoning")
"""Worked solutions: searched last, and only for a marked answer (`\\boxed{}`, `####`), unless named in the source string."""

_MARKED = re.compile(r"^####[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_THOUSANDS = re.compile(r"-?\$?\d{1,3}(,\d{3})+(\.\d+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character: JSON can hold it, UTF-8 and tokenizers cannot."""
_WRITTEN_LIST = re.compile(r"\s*\[\s*['\"]")


class Columns:
    """Reads question and answer out of a row. Columns that are not named are searched, per row, in the order of the lists above.

    Attributes:
        system_turns: questions read so far whose chat messages had a system turn, which is left out.
    """

    def __init__(
        self, origin: str, question: str | None = None, answer: str | None = None, context: str | None = None, *, keep_dollars: bool = False
    ):
        self.origin = origin
        self.question = (question,) if question else QUESTION_COLUMNS
        self.answer = (answer,) if answer else ANSWER_COLUMNS + PROSE_COLUMNS
        self.named = {"question": question, "answer": answer, "context": context}
        self.context = context or "context"
        self.keep_dollars = keep_dollars
        self.system_turns = 0
        self._checked = False

    def read(self, place: str, row: Mapping[str, Any]) -> tuple[str, str]:
        """Question (its context put before it) and gold answer of one row.

        Raises:
            DataError: no such column (names those there are), or this row lacks a question or an answer, or has a dialogue for a question, or
                a text that is no Unicode (names the row).
        """
        if not self._checked:
            self._check_columns(row)
            self._checked = True
        column, question = next(((c, text) for c in self.question if (text := question_text(cell(row, c)))), ("", None))
        if question is None:
            raise DataError(f"{self.origin}: {place} has no question (column {_names(self.question, row)}); fill it in or remove the row")
        self._check_turns(place, roles_of(cell(row, column)))
        answer = next((text for c in self.answer if (text := self._gold(c, cell(row, c)))), None)
        if answer is None:
            raise DataError(
                f"{self.origin}: {place} has no answer (column {_names(self.answer, row)}); "
                "fill it in, remove the row, or name the column with ?answer=COLUMN"
            )
        context = cell(row, self.context)
        if isinstance(context, str) and context.strip():
            question = f"{context.strip()}\n\n{question}"
        for role, text in (("question", question), ("answer", answer)):
            if _SURROGATE.search(text):
                raise DataError(f"{self.origin}: {place} has half of a character in its {role} (a \\ud800 to \\udfff alone); mend it or remove the row")
        return question, answer

    def _gold(self, column: str, value: Any) -> str | None:
        only_marked = column in PROSE_COLUMNS and self.named["answer"] is None
        return gold_text(value, only_marked=only_marked, keep_dollars=self.keep_dollars)

    def _check_turns(self, place: str, roles: Sequence[Any]) -> None:
        if len(roles) > 1 + roles.count("system"):
            raise DataError(
                f"{self.origin}: {place} has a dialogue for a question (turns: {', '.join(map(str, roles))}); "
                "leave one user turn: the turns that follow are played, with the feedback of the recipe's protocol"
            )
        self.system_turns += "system" in roles

    def _check_columns(self, row: Mapping[str, Any]) -> None:
        there = ", ".join(row) or "none"
        for role, name in self.named.items():
            if name and not has_column(row, name):
                raise DataError(f"{self.origin}: no column {name!r} for the {role}; {nearest(name, row)} (columns: {there})")
        for role, names in (("question", self.question), ("answer", self.answer)):
            if not any(has_column(row, name) for name in names):
                raise DataError(f"{self.origin}: no column that looks like the {role}; name it with ?{role}=COLUMN (columns: {there})")


def has_column(row: Mapping[str, Any], name: str) -> bool:
    return _find(row, name)[0]


def cell(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, None if there is none; upper and lower case count alike, spaces around a header do not, `a.b` is field b of struct a."""
    return _find(row, name)[1]


def _find(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    if name in row:
        return True, row[name]
    for key, value in row.items():
        if isinstance(key, str) and key.strip().lower() == name.strip().lower():
            return True, value
    head, dot, rest = name.partition(".")
    if dot and isinstance(row.get(head), Mapping):
        return _find(row[head], rest)
    return False, None


def _names(columns: Sequence[str], row: Mapping[str, Any]) -> str:
    return " or ".join(repr(c) for c in columns if has_column(row, c)) or repr(columns[0])


def roles_of(value: Any) -> list[Any]:
    """The roles of a list of chat messages; empty for anything else."""
    return [m.get("role") for m in value if isinstance(m, Mapping)] if isinstance(value, (list, tuple)) else []


def question_text(value: Any) -> str | None:
    """The question in a cell: text, or the last user turn of a list of chat messages. None if there is no text."""
    if isinstance(value, (list, tuple)):
        turns = [m for m in value if isinstance(m, Mapping) and isinstance(m.get("content"), str)]
        users = [m["content"] for m in turns if m.get("role") == "user"]
        value = users[-1] if users else None
    return value if isinstance(value, str) and value.strip() else None


def gold_text(value: Any, *, only_marked: bool = False, keep_dollars: bool = False) -> str | None:
    r"""The gold answer in a cell, or None.

    A whole float loses its `.0`; one that is not finite is none (Python's JSON writes what is missing as NaN); several answers (a list, or a list of strings written as text) are joined by `, `;
    of a text, what follows the last `####` (GSM8K), else the last complete `\boxed{}`, else the whole, unless `only_marked`.
    Dollar signs that quote LaTeX go, `\$` stays, unless `keep_dollars`.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if _WRITTEN_LIST.match(value) and (items := _written_list(value)):
            return gold_text(items, only_marked=only_marked, keep_dollars=keep_dollars)
        return _gold_of_text(value, only_marked, keep_dollars)
    if isinstance(value, (list, tuple)):
        parts = [gold_text(item, only_marked=only_marked, keep_dollars=keep_dollars) for item in value]
        return ", ".join(parts) if parts and all(parts) else None  # type: ignore[arg-type]
    if only_marked or isinstance(value, Mapping):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        if value.is_integer():
            return str(int(value))
    return str(value)


def _gold_of_text(text: str, only_marked: bool, keep_dollars: bool) -> str | None:
    marked = _MARKED.findall(text)
    if marked:
        text = marked[-1]
        if _THOUSANDS.fullmatch(text):
            text = text.replace(",", "")
    elif (boxed := last_boxed(text)) is not None:
        text = boxed
    elif only_marked:
        return None
    if not keep_dollars:
        text = re.sub(r"(?<!\\)\$", "", text)
    return text.strip() or None


def _written_list(text: str) -> list[Any] | None:
    try:
        items = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return items if isinstance(items, list) and all(isinstance(i, str) for i in items) else None
