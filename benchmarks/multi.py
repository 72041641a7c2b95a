"""Suite `multi`: one step with up to five attempts and feedback between them, mulligan beside plain transformers (`counterpart.py`)."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.grpo import LIMIT_NOTE, OURS, ours_starts, step_rounds, step_table
from benchmarks.table import Result, Settings, spread
from benchmarks.worker import Contest, Worker, column

COUNTERPART = "transformers, written by hand"


def run(settings: Settings) -> Result:
    shape: dict[str, Any] = {"model": settings.model, "groups": 4, "group_size": 8, "new": 32, "attempts": 5, "right": 0.25}
    if settings.tiny:
        shape |= {"groups": 2, "group_size": 4, "new": 8, "attempts": 3}
    start = partial(Worker, out=settings.out, threads=settings.threads)
    starts: dict[str, Any] = {"limits": partial(start, "limits", "benchmarks.limits:serve", {"model": settings.model})}
    starts |= ours_starts(settings, shape | {"kl": 0.0})
    starts[COUNTERPART] = partial(start, COUNTERPART, "benchmarks.counterpart:serve", shape)
    with Contest(starts) as contest:
        rounds = step_rounds(contest, settings.rounds)
        idle = contest.idle_shares()
    caption = f"One step of up to {shape['attempts']} attempts, {shape['groups']} problems x {shape['group_size']} rollouts, {shape['new']} tokens per attempt"
    table = step_table(contest, rounds, caption, passes=3)
    notes = [
        "A seeded coin finds one attempt in four right, the same on both sides; float32, AdamW, GRPO's advantages, no KL; no attempt is ended by the model.",
        "By hand: `generate()` per attempt on the left-padded dialogues of all who are still at work, then padded forward and backward "
        "passes over 8 whole dialogues at a time, sorted by length, with logits at every position.",
        *[f"{name}: {_work(rounds, name)}" for name in contest.starts if column(rounds, name, "dialogue_tokens")],
        LIMIT_NOTE,
    ]
    same = column(rounds, OURS, "dialogue_tokens") == column(rounds, COUNTERPART, "dialogue_tokens")
    if OURS in contest.workers and COUNTERPART in contest.workers and not same:
        notes.append("The two sides did not do the same work: compare the tokens.")
    return Result("Multi-attempt step", [table], notes, {"rounds": rounds, "idle": idle, "info": contest.info, "failures": contest.failures})


def _work(rounds: list[dict[str, Any]], name: str) -> str:
    attempts, tokens = column(rounds, name, "attempts"), column(rounds, name, "dialogue_tokens")
    skipped = column(rounds, name, "without_gradient")
    spared = f", {spread(skipped, 0)} dialogues without advantage not trained on" if any(skipped) else ""
    return f"{spread(attempts, 2)} attempts per dialogue, {spread(tokens, 0)} tokens of all dialogues of a step{spared}."
