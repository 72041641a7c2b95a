"""Dialogues made by hand, token by token, with a real tokenizer: files for the viewer without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mulligan.chat import Chat
from mulligan.transcripts import rollout_table, write_table
from mulligan.types import Attempt, Group, Problem, Rollout, StopReason, Transcript, Verdict, VerdictKind

RIGHT, WRONG, NONE, FAILED = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.UNGRADABLE
SYSTEM = "Answer in a box. You have 3 attempts."
FEEDBACK = "That answer is wrong. Please try again."

HOSTILE = (
    '</script><script>document.title="owned";alert(1)</script>',
    '<img src="http://127.0.0.1:9/x.png" onerror="alert(2)"><svg onload=alert(3)><iframe src="javascript:alert(4)"></iframe>',
    "<!-- <script> --> <style>*{display:none}</style> &lt;b&gt; &amp;amp; ]]>",
    "'\"`${alert(5)}{{7*7}} javascript:alert(6)",
    "a\u2028b\u2029c \u202egnp.exe\u202c \u2066x\u2069 \ufeff\u200b",
    "nul\x00 bell\x07 escape\x1b[31m return\rdelete\x7f",
)

Reply = tuple[str, VerdictKind] | tuple[str, VerdictKind, StopReason]


def play(
    chat: Chat,
    problem: Problem,
    replies: Sequence[Reply],
    *,
    budget: int = 3,
    step: int = 0,
    index: int = 0,
    feedback: str = FEEDBACK,
    error: str | None = None,
    cut: bool = False,
) -> Rollout:
    """A dialogue in which the model gives these replies. Token n of the dialogue has log-prob -n/100."""
    transcript, attempts = Transcript(), []
    transcript.append_forced(chat.prompt_ids([{"role": "system", "content": SYSTEM}, {"role": "user", "content": problem.question}]))
    for i, (text, kind, *stop) in enumerate(replies, start=1):
        ids = [*chat.encode_text(text), *chat.close_turn_ids[:1]]
        first = len(transcript)
        start, end = transcript.append_sampled(ids, [-(first + n) / 100 for n in range(len(ids))])
        more = i < len(replies)
        verdict = Verdict(kind, answer=None if kind in (NONE, FAILED) else text, reason=text if kind is FAILED else None, ms=1.5)
        attempts.append(Attempt(i, start, end, text, stop[0] if stop else StopReason.END_OF_TURN, verdict, feedback if more else None))
        if more:
            transcript.append_forced(chat.bridge_ids(feedback, "user", turn_closed=True))
    rewards = tuple(float(a.verdict.correct) for a in attempts)
    return Rollout(problem, transcript, tuple(attempts), budget, rewards, step, index, policy_version=step, cut=cut, error=error)


def table_of(rollouts: Sequence[Rollout], *, stage: str = "train", step: int = 0, problem_set: str | None = None) -> pa.Table:
    """A step's table; in training, advantages are +1 in attempts that were right and -0.5 in others."""
    groups = [Group(r.problem, (r,)) for r in rollouts]
    advantages = [np.concatenate([np.full(a.num_tokens, 1.0 if a.verdict.correct else -0.5) for a in r.attempts] or [np.zeros(0)]) for r in rollouts]
    return rollout_table(groups, stage=stage, step=step, problem_set=problem_set, advantages=advantages if stage == "train" else None)


def problem(n: int, **changes: Any) -> Problem:
    return Problem(**{"id": f"problem{n:04d}", "question": f"What is {n} + {n}?", "answer": str(2 * n), "source": "sums", **changes})


def write_run(folder: Path, chat: Chat, *, steps: int = 4, problems: int = 3) -> Path:
    """A run folder with its tokenizer: in every step each problem is played twice, and over the steps it is solved sooner; then an evaluation at
    the end. Outcomes of step 0: the first problem unsolved, ungradable; the second truncated, without an answer; the third broken, solved at 3."""
    chat.tokenizer.save_pretrained(folder / "model")
    chosen = [problem(n) for n in range(problems)]
    for step in range(steps):
        rollouts = []
        for p in chosen:
            for index in range(2):
                wrong = max(0, 2 - step - index)
                rollouts.append(play(chat, p, [*[("perhaps 1", WRONG)] * wrong, (f"it is {p.answer}", RIGHT)], step=step, index=index))
        if step == 0:
            rollouts[:6] = [
                play(chat, chosen[0], [("one", WRONG), ("two", WRONG), ("three", WRONG)], index=0),
                play(chat, chosen[0], [("one", WRONG), ("hm", FAILED)], index=1),
                play(chat, chosen[1], [("so we begin and", NONE, StopReason.DIALOGUE_LENGTH)], index=0),
                play(chat, chosen[1], [("I do not know", NONE), ("nor now", NONE), ("no", NONE)], index=1),
                play(chat, chosen[2], [("one", WRONG)], index=0, error="feedback: KeyError: 'hint'"),
                play(chat, chosen[2], [("one", WRONG), ("two", WRONG), (f"it is {chosen[2].answer}", RIGHT)], index=1),
            ]
        write_table(folder / "rollouts" / f"step_{step:06d}.parquet", table_of(rollouts, step=step))
    evaluated = [play(chat, p, [("perhaps 1", WRONG), (f"it is {p.answer}", RIGHT)], budget=2) for p in chosen]
    write_table(folder / "dialogues.parquet", table_of(evaluated, stage="attempts", step=2, problem_set="held-out"))
    return folder


def write_many(path: Path, chat: Chat, count: int) -> Path:
    """One file with `count` dialogues: copies of some hundred, over many problems and steps."""
    kinds = [[("it is 4", RIGHT)], [("perhaps 1", WRONG), ("it is 4", RIGHT)], [("perhaps 1 or 2, say 3", WRONG)] * 3]
    table = table_of([play(chat, problem(n), kinds[n % 3]) for n in range(120)])
    whole = pa.concat_tables([table] * (count // len(table) + 1)).slice(0, count)
    numbers = np.arange(count)
    for name, values in (("step", numbers // 200), ("rollout", numbers % 4), ("problem_id", [f"p{n % 500}" for n in numbers])):
        at = whole.schema.get_field_index(name)
        whole = whole.set_column(at, whole.schema.field(at), pa.array(values, type=whole.schema.field(at).type))
    write_table(path, whole)
    return path
