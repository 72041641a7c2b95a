"""`mulligan grade`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mulligan.cli.app import app
from mulligan.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mulligan.types import Verdict


@app.command()
def grade(
    gold: Annotated[str | None, typer.Option(help="the right answer")] = None,
    text: Annotated[str | None, typer.Option(help="the attempt, whole, with its answer in a box")] = None,
    answer: Annotated[str | None, typer.Option(help="the answer, cut out already, instead of --text")] = None,
    kind: Annotated[str, typer.Option(help="math, numeric, text, or module:function")] = "math",
    file: Annotated[Path | None, typer.Option(help='pairs to grade: JSONL with "gold" and either "text" or "answer" (and "kind") a line')] = None,
    deadline: Annotated[float, typer.Option(help="seconds per answer")] = 1.0,
    workers: Annotated[int | None, typer.Option(help="processes; by default as many as there are cores, up to 8")] = None,
) -> None:
    """Grade an attempt against a gold answer; prints the verdict as JSON, one line a pair, in order."""
    single = gold is not None and (text is None) != (answer is None)
    if (file is None) != single or (file is not None and not (gold is None and text is None and answer is None)):
        raise ConfigError("give either --gold and --text, or --file")
    if deadline <= 0:
        raise ConfigError(f"--deadline {deadline}: give the seconds that one answer may take, more than 0")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: give 1 or more")
    pairs = list(_read_pairs(file, kind)) if file is not None else [{"gold": gold, "text": text, "answer": answer, "kind": kind}]

    from mulligan.grading import Pair, grade_pairs

    for verdict in grade_pairs((Pair(**pair) for pair in pairs), workers=workers, deadline=deadline):
        print(json.dumps(_verdict_json(verdict), ensure_ascii=False).encode("utf-8", "replace").decode(), flush=True)


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {"verdict": verdict.kind.value, "reason": verdict.reason, "answer": verdict.answer, "ms": round(verdict.ms, 3)}


def _read_pairs(path: Path, kind: str) -> Iterator[dict[str, str]]:
    """Raises DataError naming the line, before anything is graded."""
    from mulligan.grading.entry_points import check_kind

    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a JSON string may hold other line separators
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: no pairs in it: write one JSON object a line, with 'gold' and 'text' (or 'answer')")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            pair = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON ({error})") from None
        if not isinstance(pair, dict) or not isinstance(pair.get("gold"), str):
            raise DataError(f"{where}: 'gold' must be there and be a string")
        given = [key for key in ("text", "answer") if isinstance(pair.get(key), str)]
        if len(given) != 1 or sum(pair.get(key) is not None for key in ("text", "answer")) != 1:
            raise DataError(f"{where}: 'text' must be there and be a string (or 'answer' in its place)")
        how = str(pair.get("kind", kind))
        try:
            if check_kind(how) in ("gym", "code") or (":" in how and given == ["answer"]):
                raise ConfigError(f"grader {how!r} cannot judge a pair like this: it needs more than a gold answer and {given[0]!r}")
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from None
        yield {"gold": pair["gold"], given[0]: pair[given[0]], "kind": how}
