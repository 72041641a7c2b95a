"""Dialogues to Parquet and back: nothing is lost, nothing half-written."""

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_dialogues import problem, rollout

from mulligan.errors import RunError
from mulligan.transcripts import SCHEMA, read_rollouts, rollout_table, write_table
from mulligan.types import Group, Outcome, Problem


def groups():
    p, q = problem(1), problem(2)
    return [
        Group(p, (rollout(p, ["w:3", "c"], budget=4), rollout(p, ["t"], budget=4, index=1))),
        Group(q, (rollout(q, [], budget=2, error="too long"),)),
    ]


def test_a_row_holds_the_dialogue_as_it_was(tmp_path):
    write_table(tmp_path / "new" / "r.parquet", rollout_table(groups(), stage="train", step=12))
    first, second, third = read_rollouts(tmp_path / "new" / "r.parquet")
    assert (first["problem_set"], first["stage"], first["step"], first["k"]) == ("fake:set", "train", 12, 4)
    assert (first["problem_id"], first["question"], first["gold"], first["rollout"]) == ("p1", "question 1", "7", 0)
    assert (first["solved"], first["solved_at"], first["reward"], first["rewards"]) == (True, 2, 1.0, [0.0, 1.0])
    assert first["token_ids"] == [1, 2, 3, 4, 10, 11, 5, 6, 5, 10, 11, 12]
    assert first["sampled"] == [False] * 4 + [True] * 2 + [False] * 3 + [True] * 3
    assert first["logprobs"] == [0] * 4 + [-0.5] * 2 + [0] * 3 + [-0.5] * 3
    assert first["full_logprobs"] == [0] * 4 + [-0.25] * 2 + [0] * 3 + [-0.25] * 3
    assert first["advantages"] is None
    assert first["context_starts"] == [0]
    assert first["error"] is None
    assert first["policy_version"] == 3
    wrong, right = first["attempts"]
    assert wrong == {
        "index": 1, "start": 4, "end": 6, "text": "text 1", "stop": "answer", "outcome": "wrong", "answer": "3", "reason": None, "ms": 1.5, "feedback": "wrong", "told": None,
        "fields": [],
    }  # fmt: skip
    assert (right["outcome"], right["start"], right["end"], right["feedback"]) == ("correct", 9, 12, None)
    assert second["attempts"][0]["outcome"] == "truncated"
    assert second["solved_at"] is None
    assert second["rollout"] == 1
    assert third["attempts"] == []
    assert third["error"] == "too long"
    assert third["k"] == 2


def test_advantages_stand_beside_the_sampled_tokens():
    rows = rollout_table(groups(), stage="train", step=0, advantages=[[0.5, 0.25, 1.0, 2.0, 3.0], *_per_sampled(groups())[1:]]).to_pylist()
    assert rows[0]["advantages"] == [0] * 4 + [0.5, 0.25] + [0] * 3 + [1.0, 2.0, 3.0]
    assert [len(r["advantages"]) for r in rows] == [len(r["token_ids"]) for r in rows]
    with pytest.raises(ValueError, match="2 advantage rows for 3 rollouts"):
        rollout_table(groups(), stage="train", step=0, advantages=_per_sampled(groups())[:2])
    with pytest.raises(ValueError, match="4 advantages for 5 sampled tokens"):
        rollout_table(groups(), stage="train", step=0, advantages=[[0.5] * 4, *_per_sampled(groups())[1:]])


def _per_sampled(played):
    return [[0.0] * sum(r.transcript.sampled) for g in played for r in g.rollouts]


def test_every_file_has_the_same_schema(tmp_path):
    assert rollout_table([], stage="train", step=0).schema == SCHEMA
    for step in (2, 10, 1):
        write_table(tmp_path / f"{step:06d}.parquet", rollout_table(groups()[:1], stage="train", step=step, problem_set="named"))
    rows = read_rollouts(tmp_path)
    assert [r["step"] for r in rows] == [1, 1, 2, 2, 10, 10]
    assert {r["problem_set"] for r in rows} == {"named"}


def test_text_that_is_not_utf8_does_not_lose_the_file(tmp_path):
    p = Problem(id="x", question="a\ud800b \x00 \u202e", answer="7")
    write_table(tmp_path / "r.parquet", rollout_table([Group(p, (rollout(p, ["c"]),))], stage="train", step=0))
    assert read_rollouts(tmp_path)[0]["question"] == "a?b \x00 \u202e"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.parquet"
    write_table(path, rollout_table(groups(), stage="train", step=1))

    def full(table, where, **_):
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mulligan.transcripts.pq.write_table", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_table(path, rollout_table(groups(), stage="train", step=2))
    assert read_rollouts(path)[0]["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["r.parquet"]


def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(RunError, match="no rollouts found"):
        read_rollouts(tmp_path)
    with pytest.raises(RunError, match="no rollouts found"):
        read_rollouts(tmp_path / "absent.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(RunError, match=r"broken\.parquet: not a readable Parquet file"):
        read_rollouts(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "broken.parquet")
    with pytest.raises(RunError, match="column 'problem_id' is missing"):
        read_rollouts(tmp_path)


def test_contexts_and_what_was_told_are_kept():
    p = problem(1)
    made = rollout(p, ["w", "c"])
    made.transcript.context_starts.append(9)
    told = dataclasses.replace(made, attempts=(dataclasses.replace(made.attempts[0], told=Outcome.CORRECT), made.attempts[1]))
    (row,) = rollout_table([Group(p, (told,))], stage="random_verdict", step=2).to_pylist()
    assert row["context_starts"] == [0, 9]
    assert [a["told"] for a in row["attempts"]] == ["correct", None]
