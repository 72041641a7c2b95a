"""Dialogues on disk: one row a dialogue, as Parquet. Training writes one file a step, evaluation one a problem set.

What stands in a row is enough to train on it again or to show it: tokens exactly as sampled or forced, mask, log-probs,
verdicts, rewards and advantages. Suffix: `_T` token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mulligan.errors import RunError
from mulligan.types import Attempt, Group, Outcome, Problem, Rollout, StopReason, Transcript, Verdict, VerdictKind

ATTEMPT = pa.struct(
    [
        ("index", pa.int32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("text", pa.string()),
        ("stop", pa.string()),
        ("outcome", pa.string()),
        ("answer", pa.string()),
        ("reason", pa.string()),
        ("ms", pa.float64()),
        ("feedback", pa.string()),
        ("told", pa.string()),
        ("fields", pa.map_(pa.string(), pa.string())),
    ]
)

SCHEMA = pa.schema(
    [
        ("problem_set", pa.string()),
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("k", pa.int32()),
        ("problem_id", pa.string()),
        ("question", pa.string()),
        ("gold", pa.string()),
        ("rollout", pa.int32()),
        ("solved", pa.bool_()),
        ("solved_at", pa.int32()),
        ("reward", pa.float64()),
        ("rewards", pa.list_(pa.float64())),
        ("token_ids", pa.list_(pa.int32())),
        ("sampled", pa.list_(pa.bool_())),
        ("logprobs", pa.list_(pa.float32())),
        ("full_logprobs", pa.list_(pa.float32())),
        ("advantages", pa.list_(pa.float32())),
        ("context_starts", pa.list_(pa.int32())),
        ("attempts", pa.list_(ATTEMPT)),
        ("cut", pa.bool_()),
        ("error", pa.string()),
        ("policy_version", pa.int64()),
    ]
)
"""`k` is the budget of attempts; `rollout` the index within the group; `attempts[i].start:end` spans of sampled tokens;
`advantages` (per token, 0 on forced ones) is null where nothing was trained; `context_starts`: where the policy began anew, without sight of
what comes before ([0] for a dialogue); `attempts[i].told`: the outcome that a control told instead of the true one; `attempts[i].fields`: what
the verdict said beyond right or wrong (a hint); `cut`: ended by the dialogue's token cap with attempts left."""


def rollout_table(
    groups: Sequence[Group], *, stage: str, step: int, problem_set: str | None = None, advantages: Sequence[Sequence[float] | np.ndarray] | None = None
) -> pa.Table:
    """One row per rollout, group by group.

    Args:
        stage: `train`, or what of the evaluation this was.
        problem_set: its name; None: each problem's own source.
        advantages: one sequence per rollout, in the order of the rows, with one value per sampled token; written per token, 0 on forced ones.

    Raises:
        ValueError: advantages that do not match the rollouts in number or length.
    """
    rollouts = list(chain.from_iterable(group.rollouts for group in groups))
    if advantages is not None and len(advantages) != len(rollouts):
        raise ValueError(f"{len(advantages)} advantage rows for {len(rollouts)} rollouts: give one per rollout, in the order of the groups")
    rows = [_row(rollout, None if advantages is None else advantages[i]) for i, rollout in enumerate(rollouts)]
    for rollout, row in zip(rollouts, rows, strict=True):
        row |= {"problem_set": _text(rollout.problem.source if problem_set is None else problem_set), "stage": stage, "step": step}
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write the file whole or not at all (a temporary file beside it, then a rename), creating its folder.

    Raises:
        RunError: the folder or the file cannot be written.
    """
    with written_whole(path, "the dialogues") as temporary:
        pq.write_table(table, temporary, compression="zstd")


@contextmanager
def written_whole(path: str | Path, what: str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, else removed.

    Raises:
        RunError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: {what} cannot be written ({error.strerror or error}); free space or choose another folder") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def read_rollouts(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file, or of every Parquet file of a folder in the order of their names.

    Raises:
        RunError: nothing there, or a file that is not a rollout file.
    """
    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise RunError(f"{path}: no rollouts found; give a .parquet file of dialogues or the folder that holds them")
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise RunError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        missing = [name for name in ("problem_id", "token_ids", "attempts") if name not in table.column_names]
        if missing:
            raise RunError(f"{file}: column {missing[0]!r} is missing, so this is not a file of dialogues; give one that mulligan wrote")
        rows.extend(table.to_pylist())
    return rows


def rollout_of(row: Mapping[str, Any], problem: Problem) -> Rollout:
    """The rollout that a row was written from; log-probs come back in float32, in which they are kept."""
    transcript = Transcript()
    for name in ("token_ids", "sampled", "logprobs", "full_logprobs", "context_starts"):
        setattr(transcript, name, row[name])
    return Rollout(
        problem=problem,
        transcript=transcript,
        attempts=tuple(_attempt_of(attempt) for attempt in row["attempts"]),
        budget=row["k"],
        rewards=tuple(row["rewards"]),
        step=row["step"],
        index=row["rollout"],
        policy_version=row["policy_version"],
        cut=row["cut"],
        error=row["error"],
    )


def _attempt_of(row: Mapping[str, Any]) -> Attempt:
    outcome = Outcome(row["outcome"])
    # What was truncated had no answer: see `outcome_of`.
    kind = VerdictKind.NO_ANSWER if outcome is Outcome.TRUNCATED else VerdictKind(outcome.value)
    return Attempt(
        index=row["index"],
        start=row["start"],
        end=row["end"],
        text=row["text"],
        stop=StopReason(row["stop"]),
        verdict=Verdict(kind, row["answer"], row["reason"], row["ms"], dict(row["fields"] or ())),
        feedback=row["feedback"],
        told=Outcome(row["told"]) if row["told"] is not None else None,
    )


def _row(rollout: Rollout, advantages: Sequence[float] | np.ndarray | None) -> dict[str, Any]:
    transcript = rollout.transcript
    if advantages is not None and len(advantages) != sum(transcript.sampled):
        raise ValueError(f"{len(advantages)} advantages for {sum(transcript.sampled)} sampled tokens: give one per sampled token")
    values = iter(()) if advantages is None else iter(advantages)
    return {
        "k": rollout.budget,
        "problem_id": rollout.problem.id,
        "question": _text(rollout.problem.question),
        "gold": _text(rollout.problem.answer),
        "rollout": rollout.index,
        "solved": rollout.solved,
        "solved_at": rollout.solved_at,
        "reward": rollout.reward,
        "rewards": list(rollout.rewards),
        "token_ids": transcript.token_ids,
        "sampled": transcript.sampled,
        "logprobs": transcript.logprobs,
        "full_logprobs": transcript.full_logprobs,
        "advantages": None if advantages is None else [float(next(values)) if sampled else 0.0 for sampled in transcript.sampled],
        "context_starts": transcript.context_starts,
        "attempts": [_attempt(attempt) for attempt in rollout.attempts],
        "cut": rollout.cut,
        "error": _text(rollout.error),
        "policy_version": rollout.policy_version,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "index": attempt.index,
        "start": attempt.start,
        "end": attempt.end,
        "text": _text(attempt.text),
        "stop": attempt.stop.value,
        "outcome": attempt.outcome.value,
        "answer": _text(attempt.verdict.answer),
        "reason": _text(attempt.verdict.reason),
        "ms": attempt.verdict.ms,
        "feedback": _text(attempt.feedback),
        "told": attempt.told.value if attempt.told is not None else None,
        "fields": [(as_utf8(str(name)), as_utf8(str(value))) for name, value in attempt.verdict.fields.items()],
    }


def as_utf8(text: str) -> str:
    """Lone surrogates (from JSON escapes, or names of files in another encoding) are not UTF-8 and would make the whole file fail: they become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _text(text: str | None) -> str | None:
    return None if text is None else as_utf8(text)
