"""Dialogues as the viewer's page holds them: an index of columns, and per chunk of dialogues a block of texts and a block of tokens.

A dialogue is a row of `transcripts.SCHEMA` with `at` beside it: the training step, or the steps that the evaluated model had seen.
Everything here is JSON-able. Suffix: `_T` token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from mulligan.report.names import short_names
from mulligan.report.words import Words

CHUNK = 64
"""Dialogues to a block."""
LONGEST_ANSWER = 120
LETTERS = {"correct": "c", "wrong": "w", "no_answer": "n", "truncated": "t", "ungradable": "u"}

Row = Mapping[str, Any]


def outcome_of_dialogue(row: Row) -> str:
    """`broken`, `ungradable`, `solved`, `truncated`, `no_answer` or `unsolved`: the first that holds.

    `truncated`: ended by a token limit, whether the whole dialogue's or that of the last attempt before an answer stood there.
    `no_answer`: the last attempt held none.
    """
    attempts = row["attempts"] or []
    last = attempts[-1] if attempts else {"outcome": None, "stop": None}
    if row.get("error") is not None:
        return "broken"
    if any(attempt["outcome"] == "ungradable" for attempt in attempts):
        return "ungradable"
    if row["solved"]:
        return "solved"
    if row.get("cut") or last["stop"] == "dialogue_length" or last["outcome"] == "truncated":
        return "truncated"
    return "no_answer" if last["outcome"] == "no_answer" else "unsolved"


def dialogue_index(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that lists, filters and strips need, as columns; problems, problem sets and stages are numbered."""
    problems, sets, stages = _Numbering(), _Numbering(), _Numbering()
    shown: list[list[str]] = []
    columns: dict[str, list[Any]] = {name: [] for name in ("problem", "set", "stage", "at", "k", "rollout", "outcome", "used", "path", "answer", "reward", "tokens", "key")}
    keys: dict[str, int] = {}
    for row in rows:
        attempts = row["attempts"] or []
        problem = problems.number(str(row["problem_id"]))
        if problem == len(shown):
            shown.append([str(row["problem_id"]), row["question"] or "", row["gold"] or ""])
        values = {
            "problem": problem,
            "set": sets.number(row["problem_set"] or ""),
            "stage": stages.number(row["stage"] or ""),
            "at": row["at"],
            "k": row["k"],
            "rollout": row["rollout"],
            "outcome": outcome_of_dialogue(row),
            "used": len(attempts),
            "path": "".join(LETTERS.get(attempt["outcome"], "?") for attempt in attempts),
            "answer": ((attempts[-1]["answer"] if attempts else None) or "")[:LONGEST_ANSWER],
            "reward": _number(row["reward"]),
            "tokens": len(row["token_ids"] or ()),
            "key": _key(row, keys),
        }
        for name, value in values.items():
            columns[name].append(value)
    return {"problems": shown, "sets": sets.names, "set_names": list(short_names(sets.names).values()), "stages": stages.names, "columns": columns, "advantage_scale": advantage_scale(rows)}


def advantage_scale(rows: Sequence[Row]) -> float | None:
    """The absolute advantage at which the colour is full: the 95th percentile of those that are not 0. None where nothing was trained."""
    found = [np.abs(np.asarray(row["advantages"], dtype=np.float64)) for row in rows if row.get("advantages")]
    values = np.concatenate(found) if found else np.zeros(0)
    values = values[np.isfinite(values) & (values > 0)]
    return float(f"{np.percentile(values, 95):.3g}") if len(values) else None


def text_block(rows: Sequence[Row], words: Words) -> dict[str, Any]:
    """Prompts (each once) and, per dialogue, its attempts with verdicts and feedback."""
    prompts: dict[tuple[int, ...], int] = {}
    turns: list[list[list[str]] | None] = []
    dialogues = []
    for row in rows:
        ids, attempts = row["token_ids"] or [], row["attempts"] or []
        prompt = tuple(ids[: attempts[0]["start"]] if attempts else ids)
        if prompt not in prompts:
            prompts[prompt] = len(turns)
            found = words.turns(prompt)
            turns.append(None if found is None else [list(turn) for turn in found])
        rewards = row["rewards"] or []
        dialogues.append(
            {
                "prompt": prompts[prompt],
                "cut": bool(row["cut"]),
                "error": row["error"],
                "attempts": [
                    {key: attempt[key] for key in ("text", "stop", "outcome", "answer", "reason", "start", "end")}
                    | {"feedback": _feedback(row, i, words), "anew": _begins_anew(row, i), "told": attempt.get("told"), "ms": _number(attempt["ms"]), "reward": _number(rewards[i]) if i < len(rewards) else None}
                    for i, attempt in enumerate(attempts)
                ],
            }
        )
    return {"prompts": turns, "dialogues": dialogues}


def _feedback(row: Row, i: int, words: Words) -> str | None:
    """What the policy was told after attempt i: as recorded, else what was forced between this attempt and the next."""
    attempts = row["attempts"]
    if attempts[i]["feedback"] is not None or i + 1 >= len(attempts):
        return attempts[i]["feedback"]
    return words.decode(row["token_ids"][attempts[i]["end"] : attempts[i + 1]["start"]])


def _begins_anew(row: Row, i: int) -> bool:
    """Whether what follows attempt i is read without sight of anything before it."""
    attempts, starts = row["attempts"], row.get("context_starts") or []
    return i + 1 < len(attempts) and any(attempts[i]["end"] <= start <= attempts[i + 1]["start"] for start in starts)


def token_block(rows: Sequence[Row], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Per dialogue: `ids` (numbers of the page's vocabulary), `sampled` (spans), and for the sampled tokens alone, in their order, `logprobs`,
    `full` (null where equal) and `advantages` (null where nothing was trained)."""
    blocks = []
    for row in rows:
        sampled_T = np.asarray(row["sampled"] or [], dtype=bool)
        drawn = _of_sampled(row["logprobs"], sampled_T)
        full = _of_sampled(row["full_logprobs"], sampled_T)
        blocks.append(
            {
                "ids": [vocabulary.number(token_id) for token_id in row["token_ids"] or ()],
                "sampled": _spans(sampled_T),
                "logprobs": drawn,
                "full": None if full == drawn else full,
                "advantages": _of_sampled(row["advantages"], sampled_T),
                "policy": row["policy_version"],
            }
        )
    return blocks


class Vocabulary:
    """The tokens that occur, numbered in order of appearance, each with its text once."""

    def __init__(self, words: Words):
        self._words = words
        self._ids = _Numbering()

    def number(self, token_id: int) -> int:
        return self._ids.number(token_id)

    def to_json(self) -> dict[str, Any]:
        """`ids`, `texts` (null without a tokenizer) and `control`, the numbers of special tokens."""
        ids: list[int] = self._ids.names
        texts = None if self._words.tokenizer is None else [self._words.piece(i) for i in ids]
        return {"ids": ids, "texts": texts, "control": [n for n, i in enumerate(ids) if i in self._words.control]}


class _Numbering:
    """0, 1, 2... in order of first appearance."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def number(self, name: Any) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> list[Any]:
        return list(self._numbers)


def _key(row: Row, taken: dict[str, int]) -> str:
    """A short name of a dialogue that stays the same in every page that holds it: for links."""
    parts = [str(row[name]) for name in ("problem_set", "stage", "at", "k", "problem_id", "rollout")]
    key = blake2b("\x1f".join(parts).encode("utf-8", "replace"), digest_size=5).hexdigest()
    taken[key] = taken.get(key, 0) + 1
    return key if taken[key] == 1 else f"{key}-{taken[key]}"


def _spans(mask_T: np.ndarray) -> list[list[int]]:
    """[start, end) of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask_T, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).tolist()


def _of_sampled(values: Sequence[float] | None, sampled_T: np.ndarray) -> list[float | None] | None:
    """The values of sampled tokens, to four decimals; what is not finite becomes null."""
    if values is None or len(values) != len(sampled_T):
        return None
    chosen = np.round(np.asarray(values, dtype=np.float64)[sampled_T], 4) + 0.0  # no -0.0
    finite = np.isfinite(chosen)
    return chosen.tolist() if finite.all() else [float(x) if ok else None for x, ok in zip(chosen, finite, strict=True)]


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 6)
