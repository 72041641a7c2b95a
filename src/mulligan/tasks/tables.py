"""Problems from rows: JSONL, JSON, CSV and Parquet files, and datasets of the Hugging Face Hub."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mulligan.errors import ConfigError, DataError
from mulligan.tasks.columns import Columns
from mulligan.tasks.problems import ProblemSet, SetAside, make_problem
from mulligan.tasks.query import check_keys
from mulligan.types import Problem

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Pairs of a place (`line 3`) and a row."""

_FILE_KEYS = ("question", "answer", "context", "grader", "limit")
_HUB_KEYS = (*_FILE_KEYS, "config", "revision")
_GRADERS = ("math", "numeric", "text", "code")
_META_KEYS = ("tolerance", "relative_tolerance", "tests", "entry_point")
"""Of a row's `meta` object, what graders read."""


def load(scheme: str, name: str, query: dict[str, str], *, source: str, limit: int | None) -> ProblemSet:
    """Read the rows of a file or a Hub dataset into problems; exact duplicates of an earlier row are set aside.

    Raises:
        ConfigError: unknown key or grader.
        DataError: missing file, wrong column, broken row, row without question or answer.
    """
    check_keys(query, _HUB_KEYS if scheme == "hub" else _FILE_KEYS, source)
    grader = query.get("grader", "math")
    if grader not in _GRADERS and ":" not in grader:
        raise ConfigError(f"{source}: unknown grader {grader!r}; use {', '.join(_GRADERS)} or module:function")
    rows = hub_rows(name, query, source) if scheme == "hub" else file_rows(Path(name).expanduser())
    origin = name if scheme == "file" else f"hub:{name}"
    columns = Columns(origin, query.get("question"), query.get("answer"), query.get("context"), keep_dollars=grader != "math")
    first_seen: dict[str, str] = {}
    problems: list[Problem] = []
    aside: list[SetAside] = []
    for place, row in rows:
        question, answer = columns.read(place, row)
        problem = make_problem(question, answer, grader, source, _meta(row))
        if problem.id in first_seen:
            aside.append(SetAside(problem, f"duplicate of {first_seen[problem.id]}"))
            continue
        first_seen[problem.id] = place
        problems.append(problem)
        if len(problems) == limit:
            break
    return ProblemSet(tuple(problems), source, tuple(aside), _remarks(source, columns))


def _remarks(source: str, columns: Columns) -> tuple[str, ...]:
    if not columns.system_turns:
        return ()
    whose = "1 question" if columns.system_turns == 1 else f"{columns.system_turns:,} questions"
    return (f"{source}: the system turn of {whose} is dropped: what it says goes into protocol.system, one text for all questions",)


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    meta = row.get("meta")
    return {key: meta[key] for key in _META_KEYS if meta.get(key) is not None} if isinstance(meta, dict) else {}


# ------------------------------------------------------------------------------------------------------------------- files


def file_rows(path: Path) -> Rows:
    """The rows of a .jsonl, .json, .csv or .parquet file, each with its place."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give the path of a file in it, or hub:{path}:SPLIT for a saved data set")
        if not path.exists():
            raise DataError(f"{path}: no such file; give the path of a {', '.join(readers)} file, or a hub:, gym: or builtin: source")
        if reader is None:
            raise DataError(f"{path}: has the suffix {path.suffix!r}; problems are read from {', '.join(readers)} files")
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None


def _jsonl(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", _json_object(path, number, line)


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        where = f", column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else f": {error}"
        raise DataError(f"{path}: line {number} is not valid JSON{where}; mend or remove the line") from None
    if not isinstance(row, dict):
        or_json = ", or name the file .json" if isinstance(row, list) and number == 1 else ""
        raise DataError(f"{path}: line {number} holds a JSON {type(row).__name__}, not an object; write one {{...}} per line{or_json}")
    return row


def _json(path: Path) -> Rows:
    """A list of objects, alone or under a single key; a `.json` file that holds JSON Lines is read as such."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            yield from _jsonl(path)
            return
        where = f" at line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else f": {error}"
        raise DataError(f"{path}: not valid JSON{where}; mend the file") from None
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        data = lists[0] if len(lists) == 1 else [data]
    if not isinstance(data, list):
        raise DataError(f"{path}: holds a JSON {type(data).__name__}; write a list of objects")
    for number, row in enumerate(data, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: entry {number} is a JSON {type(row).__name__}, not an object; write a list of objects")
        yield f"entry {number}", row


def _csv(path: Path) -> Rows:
    csv.field_size_limit(sys.maxsize)  # the default of 128 kB cuts long solutions off with an error
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                if None in row:
                    raise DataError(f"{path}: line {reader.line_num} has more fields than the header; quote the commas inside a field")
                yield f"line {reader.line_num}", row
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num} is not valid CSV ({error}); mend the line") from None


def _parquet(path: Path) -> Rows:
    import pyarrow  # slow to import, and needed for this format only
    import pyarrow.parquet

    try:
        number = 0
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({_first_line(error)}); write it again") from None


# --------------------------------------------------------------------------------------------------------------------- hub


def hub_rows(name: str, query: dict[str, str], source: str) -> Rows:
    """The rows of `ORG/NAME:SPLIT` (or of a local dataset folder), through `datasets.load_dataset`."""
    path, colon, split = name.rpartition(":")
    if not colon or not path or not split:
        raise ConfigError(f"{source}: names no split; write hub:ORG/NAME:SPLIT, e.g. hub:openai/gsm8k:test?config=main")
    import datasets  # slow to import, and needed for this kind of source only

    try:
        table = datasets.load_dataset(path, query.get("config"), split=split, revision=query.get("revision"))
    except Exception as error:  # whatever the loader raises (network, name, split, config) is for the user to read
        raise DataError(
            f"hub:{path}: cannot be loaded ({type(error).__name__}: {_first_line(error)}); check the name, split, config and connection"
        ) from error
    for number, row in enumerate(table, start=1):
        yield f"row {number}", dict(row)  # type: ignore[arg-type]  # a map-style dataset gives dicts


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
