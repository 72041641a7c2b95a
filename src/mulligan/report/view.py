"""The viewer: dialogues of a run, an evaluation or a Parquet file as one self-contained HTML page.

What goes in is chosen on light columns first (`choose`), so that a long run is never read whole for a short page. The page opens on an
index of all dialogues; their texts and tokens stand in blocks of CHUNK dialogues that are unpacked when they are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mulligan import __version__
from mulligan.errors import ConfigError, RunError
from mulligan.evaluation import read_evaluation
from mulligan.evaluation.arms import ON_THE_WAY
from mulligan.evaluation.values import folder_of_evaluation
from mulligan.report.dialogues import CHUNK, Vocabulary, dialogue_index, text_block, token_block
from mulligan.report.page import asset, build_page
from mulligan.report.words import Words, find_words
from mulligan.transcripts import SCHEMA, written_whole

MAX_MEGABYTES = 100
BYTES_PER_TOKEN, BYTES_PER_DIALOGUE = 8, 200
"""Of the page, about: for the guard, before anything is packed."""

END = "end"
_LIGHT = ("stage", "step", "problem_id")


@dataclass(frozen=True, slots=True)
class Source:
    """A file of dialogues. `after`: the training steps that the evaluated model had seen, where its folder says so."""

    path: Path
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows of a source, in their order."""

    source: Source
    rows: np.ndarray
    tokens: int


# ------------------------------------------------------------------------------------------------------------------ sources


def find_sources(path: str | Path) -> list[Source]:
    """The files of dialogues of a run folder (training by step, evaluations on the way, the one at the end: `RUN/eval` if there is one, as in
    reports), of an evaluation's folder, of a folder of Parquet files, or the one file.

    Raises:
        RunError: nothing of the kind there.
    """
    path = Path(path)
    if path.is_file():
        return [Source(path, _steps_before(path.parent))]
    if not path.is_dir():
        raise RunError(f"{path}: no such file or folder; name a run folder, an evaluation's folder or a .parquet file of dialogues")
    found = [Source(file) for file in sorted((path / "rollouts").glob("*.parquet"))]
    found += [Source(file, after) for file in sorted(path.glob("eval_*/dialogues.parquet")) if (after := _steps_before(file.parent)) is not None]
    at_end = folder_of_evaluation(path) / "dialogues.parquet"
    found += [Source(at_end, _steps_before(path))] if at_end.is_file() else []
    found = found or [Source(file) for file in sorted(path.glob("*.parquet")) if file.name != "values.parquet"]
    if not found:
        inside = sorted({file.parent.parent for file in path.glob("*/rollouts/*.parquet")} | {file.parent for file in path.glob("*/dialogues.parquet")})
        hint = f"name one of those inside it ({', '.join(str(p) for p in inside[:4])})" if inside else "train with log.rollouts = true, or run mulligan eval"
        raise RunError(f"{path}: no dialogues in this folder; {hint}")
    return found


def _steps_before(folder: Path) -> int | None:
    match = ON_THE_WAY.fullmatch(folder.resolve().name)
    return int(match[1]) if match else None


def parse_steps(text: str) -> tuple[list[tuple[int, int]], bool]:
    """`0-40,80,end` as spans of steps (both ends included) and whether the evaluation at the end is asked for.

    Raises:
        ConfigError: anything else.
    """
    spans, end = [], False
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if part.strip() == END:
            end = True
        elif match is None or int(match[1]) > int(match[2] or match[1]):
            raise ConfigError(f"--steps {text}: {part.strip()!r} is no step: write steps, spans of them and 'end', such as 0-40,80,end")
        else:
            spans.append((int(match[1]), int(match[2] or match[1])))
    return spans, end


# ---------------------------------------------------------------------------------------------------------------- selection


def choose(sources: Sequence[Source], *, steps: str | None = None, limit: int | None = None) -> list[Choice]:
    """Which dialogues go in: those of `steps`, of them at most `limit`.

    A limit keeps whole problems, drawn by a hash of their ids, so that what is left of a run can still be followed from step to step;
    the first of them alone may be cut.

    Raises:
        ConfigError: a `steps` that cannot be read.
        RunError: a file that is not one of dialogues, or nothing left.
    """
    spans, end = parse_steps(steps) if steps is not None else ([], False)
    chosen, ids, tokens = [], [], []
    for source in sources:
        table = _read(source.path, [*_LIGHT, "token_ids"])
        rows = np.arange(len(table))
        if steps is not None:
            at = _steps_of(table, source)
            wanted = np.isnan(at) & end
            for low, high in spans:
                wanted |= (at >= low) & (at <= high)
            rows = rows[wanted]
        chosen.append(rows)
        ids.append(np.asarray(table["problem_id"].to_pylist(), dtype=object)[rows])
        tokens.append(_lengths(table)[rows])
    total = sum(map(len, chosen))
    if not total:
        what = f"no dialogues of --steps {steps}" if steps is not None else "no dialogues"
        raise RunError(f"{sources[0].path.parent}: {what} in {len(sources)} files; choose other steps or another folder")
    if limit is not None and total > limit:
        kept = _whole_problems(np.concatenate(ids), limit)
        cuts = np.split(kept, np.cumsum([len(rows) for rows in chosen])[:-1])
        chosen = [rows[cut] for rows, cut in zip(chosen, cuts, strict=True)]
        tokens = [n[cut] for n, cut in zip(tokens, cuts, strict=True)]
    return [Choice(source, rows, int(n.sum())) for source, rows, n in zip(sources, chosen, tokens, strict=True) if len(rows)]


def _steps_of(table: pa.Table, source: Source) -> np.ndarray:
    """Per row the training step, or the steps that an evaluated model had seen; NaN: at the end, or unknown."""
    training = np.asarray([stage == "train" for stage in table["stage"].to_pylist()], dtype=bool)
    steps = np.asarray([np.nan if step is None else step for step in table["step"].to_pylist()], dtype=np.float64)
    return np.where(training, steps, np.nan if source.after is None else source.after)


def _lengths(table: pa.Table) -> np.ndarray:
    """Tokens of every dialogue."""
    lists: Any = table["token_ids"].combine_chunks()
    return np.asarray(lists.value_lengths().fill_null(0), dtype=np.int64)


def _whole_problems(ids: np.ndarray, limit: int) -> np.ndarray:
    """A mask over `ids` with at most `limit` set: all rows of a problem or none, problem after problem in the order of a hash."""
    unique, inverse, counts = np.unique(ids.astype(str), return_inverse=True, return_counts=True)
    order = sorted(range(len(unique)), key=lambda i: blake2b(str(unique[i]).encode("utf-8", "replace"), digest_size=8).digest())
    taken, room = np.zeros(len(unique), dtype=bool), limit
    for i in order:
        if counts[i] <= room:
            taken[i] = True
            room -= counts[i]
    if not taken.any():
        first = np.flatnonzero(inverse == order[0])[:limit]
        return np.isin(np.arange(len(ids)), first)
    return taken[inverse]


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        schema = pq.read_schema(path)
        if missing := [name for name in columns if name not in schema.names]:
            raise RunError(f"{path}: column {missing[0]!r} is missing, so this is not a file of dialogues; give one that mulligan wrote")
        return pq.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


# --------------------------------------------------------------------------------------------------------------------- page


def write_view(
    path: str | Path,
    out: str | Path,
    *,
    steps: str | None = None,
    limit: int | None = None,
    tokenizer: str | None = None,
    max_megabytes: float = MAX_MEGABYTES,
) -> dict[str, Any]:
    """Write the page of the dialogues in `path` to `out`; returns {"dialogues", "tokens", "bytes", "tokenizer"} (None: none was found).

    Raises:
        ConfigError: a `steps` that cannot be read.
        ModelError: the tokenizer asked for is none, or not the one that made these tokens.
        RunError: no dialogues, a page that would be too large, or one that cannot be written.
    """
    choices = choose(find_sources(path), steps=steps, limit=limit)
    dialogues, tokens = sum(len(c.rows) for c in choices), sum(c.tokens for c in choices)
    _guard(path, dialogues, tokens, max_megabytes)
    rows = list(_rows(choices))
    words = find_words(Path(path), rows, tokenizer)
    page = view_page(rows, name=Path(path).resolve().name, words=words)
    encoded = page.encode("utf-8")
    with written_whole(out, "the page") as temporary:
        temporary.write_bytes(encoded)
    return {"dialogues": dialogues, "tokens": tokens, "bytes": len(encoded), "tokenizer": words.name}


def view_page(rows: Sequence[dict[str, Any]], *, name: str, words: Words) -> str:
    """The page of dialogues, as rows of `transcripts.SCHEMA` with `at` (the step to sort by, or None) beside them."""
    vocabulary = Vocabulary(words)
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    texts = [text_block(chunk, words) for chunk in chunks]
    tokens = [token_block(chunk, vocabulary) for chunk in chunks]
    data = dialogue_index(rows) | {
        "name": name,
        "version": __version__,
        "chunk": CHUNK,
        "chunks": len(chunks),
        "tokenizer": words.name,
        "no_tokenizer": words.reason,
    }
    # block 0: the vocabulary; then the texts of every chunk, then its tokens
    script = "\n".join(asset(file) for file in ("view_data.js", "view_list.js", "view_dialogue.js", "view_tokens.js", "view.js"))
    blocks = [vocabulary.to_json(), *texts, *tokens]
    return build_page(title=f"Dialogues of {name}", css=asset("view.css"), script=script, data=data, body=asset("view.html"), blocks=blocks)


def _rows(choices: Sequence[Choice]) -> Iterator[dict[str, Any]]:
    for choice in choices:
        table = _read(choice.source.path, [name for name in SCHEMA.names if name in pq.read_schema(choice.source.path).names])
        table = table.take(pa.array(choice.rows))
        missing = dict.fromkeys(name for name in SCHEMA.names if name not in table.column_names)
        heats = _temperatures(choice.source.path.parent)
        for row, at in zip(table.to_pylist(), _steps_of(table, choice.source), strict=True):
            if row.get("stage") == "samples" and len(of_set := heats.get(row.get("problem_set") or "", ())) > 1 and row["step"] in range(len(of_set)):
                row["stage"] = f"samples at {of_set[row['step']]}"
            yield {**missing, **row, "at": None if np.isnan(at) else int(at)}


def _temperatures(folder: Path) -> dict[str, list[str]]:
    """Problem set -> the temperatures of its independent samples, rising, where the evaluation beside the dialogues says so."""
    try:
        problem_sets = read_evaluation(folder)["problem_sets"]
    except RunError:
        return {}
    return {name: sorted(figures.get("pass_temperatures") or (), key=float) for name, figures in problem_sets.items()}


def _guard(path: str | Path, dialogues: int, tokens: int, max_megabytes: float) -> None:
    megabytes = (tokens * BYTES_PER_TOKEN + dialogues * BYTES_PER_DIALOGUE) / 1e6
    if megabytes > max_megabytes:
        fit = max(1, int(dialogues * max_megabytes / megabytes))
        digits = 10 ** max(0, len(str(fit)) - 2)
        raise RunError(
            f"{path}: {dialogues:,} dialogues with {tokens:,} tokens would make a page of about {megabytes:,.0f} MB, more than {max_megabytes:g}: "
            f"choose steps (--steps), draw whole problems (--limit {fit // digits * digits}), or allow it (--max-megabytes {megabytes * 1.2:.0f})"
        )
