"""The viewer's data: which dialogues go in, what stands in the blocks, which words stand for the ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_dialogues import FAILED, FEEDBACK, NONE, RIGHT, SYSTEM, WRONG, play, problem, table_of, write_run

from mulligan.chat import Chat
from mulligan.errors import ConfigError, ModelError, RunError
from mulligan.report.dialogues import Vocabulary, advantage_scale, dialogue_index, outcome_of_dialogue, text_block, token_block
from mulligan.report.view import _rows, choose, find_sources, parse_steps, write_view
from mulligan.report.words import Words, find_words
from mulligan.transcripts import read_rollouts, write_table
from mulligan.types import StopReason


@pytest.fixture(scope="module")
def run(chat, tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "made", chat)


def rows_of(*rollouts, **options) -> list[dict]:
    return [{**row, "at": row["step"]} for row in table_of(rollouts, **options).to_pylist()]


# ------------------------------------------------------------------------------------------------------------------ sources


def test_a_run_folder_has_its_steps_and_its_evaluations(run, tmp_path):
    assert [(s.path.name, s.after) for s in find_sources(run)] == [*((f"step_{n:06d}.parquet", None) for n in range(4)), ("dialogues.parquet", None)]
    between = tmp_path / "eval_000020"
    between.mkdir()
    (between / "dialogues.parquet").write_bytes((run / "dialogues.parquet").read_bytes())
    assert [s.after for s in find_sources(tmp_path)] == [20], "an evaluation on the way knows its step"
    assert [s.after for s in find_sources(between)] == [20]
    assert [s.after for s in find_sources(between / "dialogues.parquet")] == [20]
    assert len(find_sources(run / "rollouts")) == 4


def test_the_evaluation_at_the_end_is_that_of_reports_and_other_folders_are_none(run, tmp_path):
    def place(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "dialogues.parquet").write_bytes((run / "dialogues.parquet").read_bytes())
        return tmp_path / name / "dialogues.parquet"

    for name in ("eval_2", "eval_hard"):
        place(name)
    with pytest.raises(RunError, match="name one of those inside it"):
        find_sources(tmp_path)
    own = place(".")
    assert [(s.path, s.after) for s in find_sources(tmp_path)] == [(own, None)]
    on_the_way, asked_for = place("eval_000020"), place("eval")
    assert [(s.path, s.after) for s in find_sources(tmp_path)] == [(on_the_way, 20), (own, None)], "of an evaluation that is not whole there is no report"
    (tmp_path / "recipe.json").write_text("{}")  # a run
    (tmp_path / "eval" / "eval.json").write_text("{}")
    assert [(s.path, s.after) for s in find_sources(tmp_path)] == [(on_the_way, 20), (asked_for, None)]
    asked_for.unlink()
    assert [(s.path, s.after) for s in find_sources(tmp_path)] == [(on_the_way, 20)], "another evaluation's dialogues would not be those of its figures"


def test_a_folder_without_dialogues_names_those_inside_it(run, tmp_path):
    with pytest.raises(RunError, match=r"no such file or folder"):
        find_sources(tmp_path / "absent")
    with pytest.raises(RunError, match=r"no dialogues in this folder; train with log.rollouts"):
        find_sources(tmp_path)
    with pytest.raises(RunError, match=rf"name one of those inside it \({run}\)"):
        find_sources(run.parent)


@pytest.mark.parametrize(
    ("text", "spans", "end"),
    [("3", [(3, 3)], False), ("0-40,80", [(0, 40), (80, 80)], False), (" 1 - 2 , end ", [(1, 2)], True), ("end", [], True)],
)
def test_steps(text, spans, end):
    assert parse_steps(text) == (spans, end)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-3", "1.5", "last"])
def test_steps_that_are_none(text):
    with pytest.raises(ConfigError, match="--steps"):
        parse_steps(text)


# ---------------------------------------------------------------------------------------------------------------- selection


def chosen_rows(choices) -> list[tuple[str, int]]:
    return [(c.source.path.name, int(row)) for c in choices for row in c.rows]


def test_steps_choose_training_and_the_evaluation_at_the_end(run):
    sources = find_sources(run)
    assert len(chosen_rows(choose(sources))) == 4 * 6 + 3
    assert {name for name, _ in chosen_rows(choose(sources, steps="1-2"))} == {"step_000001.parquet", "step_000002.parquet"}
    assert chosen_rows(choose(sources, steps="end")) == [("dialogues.parquet", n) for n in range(3)], "its column `step` is a budget, not a step"
    with pytest.raises(RunError, match="no dialogues of --steps 77"):
        choose(sources, steps="77")


def test_a_limit_keeps_whole_problems(run):
    sources = find_sources(run)
    per_problem = 4 * 2 + 1
    for limit, problems in ((per_problem, 1), (2 * per_problem + 3, 2), (1000, 3)):
        choices = choose(sources, limit=limit)
        ids = [pq.read_table(c.source.path)["problem_id"][int(row)].as_py() for c in choices for row in c.rows]
        assert len(ids) == problems * per_problem
        assert len(set(ids)) == problems
        assert chosen_rows(choices) == chosen_rows(choose(sources, limit=limit)), "the same at every call"
    assert len(chosen_rows(choose(sources, limit=4))) == 4, "one problem, cut"
    assert sum(c.tokens for c in choose(sources)) == sum(len(r["token_ids"]) for s in sources for r in read_rollouts(s.path))


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(RunError, match=r"a\.parquet: not a readable Parquet file"):
        choose(find_sources(tmp_path))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(RunError, match="column 'stage' is missing"):
        choose(find_sources(tmp_path / "a.parquet"))
    write_table(tmp_path / "a.parquet", table_of([]))
    with pytest.raises(RunError, match="no dialogues in 1 files"):
        choose(find_sources(tmp_path))


def test_a_page_that_would_be_too_large_is_refused_before_it_is_made(run, tmp_path):
    with pytest.raises(RunError, match=r"27 dialogues with [\d,]+ tokens would make a page of about .* MB, more than 0.01: .*--limit \d+.*--max-megabytes"):
        write_view(run, tmp_path / "v.html", max_megabytes=0.01)
    assert not (tmp_path / "v.html").exists()


def test_the_page_is_written_and_counted(run, tmp_path, chat):
    done = write_view(run, tmp_path / "new" / "v.html", steps="0,1")
    assert done["dialogues"] == 12
    assert done["bytes"] == (tmp_path / "new" / "v.html").stat().st_size
    assert done["tokenizer"] == str(run / "model")
    with pytest.raises(RunError, match="the page cannot be written"):
        write_view(run, tmp_path / "new" / "v.html" / "under_a_file.html")


def test_samples_of_several_temperatures_are_told_apart(tmp_path, chat):
    tables = [table_of([play(chat, problem(1), [("a", WRONG)])], stage="samples", step=place, problem_set="s") for place in range(2)]
    write_table(tmp_path / "dialogues.parquet", pa.concat_tables(tables))
    assert {row["stage"] for row in _rows(choose(find_sources(tmp_path)))} == {"samples"}, "no eval.json beside it"
    (tmp_path / "eval.json").write_text(json.dumps({"problem_sets": {"s": {"pass_temperatures": {"1.4": {}, "0.6": {}}}}}))
    assert [row["stage"] for row in _rows(choose(find_sources(tmp_path)))] == ["samples at 0.6", "samples at 1.4"]


# -------------------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("replies", "options", "outcome"),
    [
        ([("a", WRONG), ("b", RIGHT)], {}, "solved"),
        ([("a", WRONG)] * 3, {}, "unsolved"),
        ([("a", NONE, StopReason.ATTEMPT_LENGTH)], {"budget": 1}, "truncated"),
        ([("a", WRONG, StopReason.DIALOGUE_LENGTH)], {}, "truncated"),
        ([("a", WRONG)], {"cut": True}, "truncated"),
        ([("a", WRONG), ("a", NONE)], {"budget": 2}, "no_answer"),
        ([("a", WRONG), ("a", FAILED)], {}, "ungradable"),
        ([("a", WRONG)], {"error": "feedback: boom"}, "broken"),
        ([], {"error": ""}, "broken"),
    ],
)
def test_outcomes(chat, replies, options, outcome):
    [row] = rows_of(play(chat, problem(1), replies, **options))
    assert outcome_of_dialogue(row) == outcome


def test_the_index_has_one_row_per_dialogue_and_each_problem_once(chat):
    rows = rows_of(play(chat, problem(1), [("a", WRONG), ("b", RIGHT)]), play(chat, problem(2), [("c", WRONG)], index=1), play(chat, problem(1), [], error="x", index=1))
    index = dialogue_index(rows)
    assert index["problems"] == [["problem0001", "What is 1 + 1?", "2"], ["problem0002", "What is 2 + 2?", "4"]]
    columns = index["columns"]
    assert columns["problem"] == [0, 1, 0]
    assert columns["path"] == ["wc", "w", ""]
    assert columns["used"] == [2, 1, 0]
    assert columns["answer"] == ["b", "c", ""]
    assert columns["reward"] == [1.0, 0.0, 0.0]
    assert columns["tokens"] == [len(row["token_ids"]) for row in rows]
    assert len(set(columns["key"])) == 3
    assert columns["key"] == dialogue_index(rows)["columns"]["key"]
    assert dialogue_index([rows[1]])["columns"]["key"] == [columns["key"][1]], "links hold in a page of another choice"
    assert len(set(dialogue_index([rows[0], rows[0]])["columns"]["key"])) == 2


def test_texts_are_turns_and_what_was_said(chat):
    rows = rows_of(play(chat, problem(7), [("perhaps 1", WRONG), ("it is 14", RIGHT)]), play(chat, problem(7), [("1", FAILED)], index=1))
    block = text_block(rows, Words.of(chat.tokenizer, "t"))
    assert block["prompts"] == [[["system", SYSTEM], ["user", "What is 7 + 7?"]]], "the same prompt once"
    first, second = block["dialogues"]
    assert [(a["text"], a["outcome"], a["feedback"], a["answer"]) for a in first["attempts"]] == [
        ("perhaps 1", "wrong", FEEDBACK, "perhaps 1"),
        ("it is 14", "correct", None, "it is 14"),
    ]
    assert second["attempts"][0]["reason"] == "1"
    for row in rows:
        for attempt in row["attempts"]:
            attempt["feedback"] = None
    told = text_block(rows, Words.of(chat.tokenizer, "t"))["dialogues"][0]["attempts"][0]["feedback"]
    assert FEEDBACK in told, "not recorded: read off the tokens"


def test_what_a_control_told_and_where_it_began_anew(chat):
    rows = rows_of(play(chat, problem(7), [("perhaps 1", WRONG), ("2", WRONG), ("it is 14", RIGHT)]))
    row = rows[0]
    row["attempts"][1]["told"] = "correct"
    row["context_starts"] = [0, row["attempts"][1]["end"]]
    (dialogue,) = text_block(rows, Words.of(chat.tokenizer, "t"))["dialogues"]
    assert [a["told"] for a in dialogue["attempts"]] == [None, "correct", None]
    assert [a["anew"] for a in dialogue["attempts"]] == [False, True, False]
    del row["context_starts"], row["attempts"][1]["told"]  # as earlier versions wrote them
    (dialogue,) = text_block(rows, Words.of(chat.tokenizer, "t"))["dialogues"]
    assert not any(a["anew"] or a["told"] for a in dialogue["attempts"])


def test_tokens_come_back_from_the_vocabulary_with_their_values(chat):
    rollouts = [play(chat, problem(7), [("perhaps 1", WRONG), ("it is 14", RIGHT)]), play(chat, problem(8), [("16", RIGHT)])]
    rows = rows_of(*rollouts)
    rows[1]["full_logprobs"] = [2 * x for x in rows[1]["full_logprobs"]]
    vocabulary = Vocabulary(Words.of(chat.tokenizer, "t"))
    first, second = token_block(rows, vocabulary)
    words = vocabulary.to_json()
    assert len(set(words["ids"])) == len(words["ids"]) == len(words["texts"])
    for block, rollout in ((first, rollouts[0]), (second, rollouts[1])):
        transcript = rollout.transcript
        assert [words["ids"][n] for n in block["ids"]] == transcript.token_ids
        assert block["sampled"] == [[a.start, a.end] for a in rollout.attempts]
        assert block["logprobs"] == pytest.approx([x for x, s in zip(transcript.logprobs, transcript.sampled, strict=True) if s], abs=1e-4)
        whole = "".join(words["texts"][n] for n in block["ids"])
        assert whole == chat.tokenizer.decode(transcript.token_ids, clean_up_tokenization_spaces=False)
    assert first["full"] is None
    assert second["full"] == pytest.approx([2 * x for x in second["logprobs"]], abs=1e-3)
    assert set(first["advantages"]) == {-0.5, 1.0}
    names = {chat.tokenizer.convert_ids_to_tokens(words["ids"][n]) for n in words["control"]}
    assert names == {"<|im_start|>", "<|im_end|>"}


def test_values_that_are_no_numbers_become_null(chat):
    [row] = rows_of(play(chat, problem(1), [("a b", RIGHT)]))
    at = row["sampled"].index(True)
    row["logprobs"][at], row["advantages"][at] = float("nan"), float("inf")
    row["reward"] = float("nan")
    [block] = token_block([row], Vocabulary(Words()))
    assert block["logprobs"][0] is None and block["advantages"][0] is None
    assert None not in block["logprobs"][1:]
    assert dialogue_index([row])["columns"]["reward"] == [None]
    assert advantage_scale([row]) == 1.0


def test_an_evaluation_has_no_advantages(chat):
    rows = rows_of(play(chat, problem(1), [("a", RIGHT)]), stage="attempts")
    assert token_block(rows, Vocabulary(Words()))[0]["advantages"] is None
    assert advantage_scale(rows) is None
    assert advantage_scale(rows_of(play(chat, problem(1), [("a", RIGHT)]))) == 1.0


# --------------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("name", ["chatml", "chatml_base", "llama3", "mistral", "qwen3", "phi3", "plain", "gemma"])
def test_prompts_are_cut_into_turns_for_every_family(tokenizers, name):
    chat = Chat(tokenizers[name])
    words = Words.of(tokenizers[name], name)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is\n1 + 1?"}]
    try:
        ids = chat.prompt_ids(messages)
    except ModelError:  # takes no system turn
        messages = messages[1:]
        ids = chat.prompt_ids(messages)
    turns = words.turns(ids)
    assert turns is not None
    if name == "mistral":  # decoding puts spaces around its control tokens: shown whole
        assert [role for role, _ in turns] in (["prompt"], ["user"], ["system", "user"])
        assert "What is\n1 + 1?" in turns[-1][1]
    else:
        assert turns == [(m["role"], m["content"]) for m in messages]


def test_pieces_join_to_the_text(tokenizers):
    for name in ("chatml", "mistral"):
        words = Words.of(tokenizers[name], name)
        text = "The answer is 12 + 30."
        ids = tokenizers[name].encode(text, add_special_tokens=False)
        assert "".join(words.piece(i) or "" for i in ids).lstrip() == text
    assert words.piece(10**6) == ""


def test_without_a_tokenizer_ids_stay_ids(chat, tmp_path):
    write_table(tmp_path / "d.parquet", table_of([play(chat, problem(1), [("a", RIGHT)])]))
    rows = [{**row, "at": 0} for row in read_rollouts(tmp_path / "d.parquet")]
    words = find_words(tmp_path / "d.parquet", rows)
    assert words.name is None
    assert words.reason is not None and "no tokenizer was found" in words.reason and "--tokenizer" in words.reason
    block = text_block(rows, words)
    assert block["prompts"] == [None]
    assert block["dialogues"][0]["attempts"][0]["text"] == "a"
    vocabulary = Vocabulary(words)
    token_block(rows, vocabulary)
    assert vocabulary.to_json()["texts"] is None
    assert write_view(tmp_path, tmp_path / "v.html")["tokenizer"] is None


def test_another_tokenizer_is_not_believed(chat, tokenizers, tmp_path):
    write_table(tmp_path / "rollouts" / "step_000000.parquet", table_of([play(chat, problem(1), [("The answer is 7.", RIGHT)])]))
    tokenizers["mistral"].save_pretrained(tmp_path / "model")
    rows = read_rollouts(tmp_path / "rollouts")
    words = find_words(tmp_path, rows)
    assert words.name is None and words.reason is not None and "otherwise" in words.reason
    with pytest.raises(ModelError, match=r"--tokenizer .*reads the recorded tokens otherwise"):
        find_words(tmp_path, rows, str(tmp_path / "model"))
    with pytest.raises(ModelError, match="no such model folder"):
        find_words(tmp_path, rows, str(tmp_path / "absent"))
    chat.tokenizer.save_pretrained(tmp_path / "right")
    assert find_words(tmp_path, rows, str(tmp_path / "right")).name == str(tmp_path / "right")
    chat.tokenizer.save_pretrained(tmp_path / "initial_model")
    assert find_words(tmp_path, rows).name == str(tmp_path / "initial_model"), "the next candidate"


def test_an_evaluation_finds_the_tokenizer_of_its_model(run, chat, tmp_path):
    (tmp_path / "dialogues.parquet").write_bytes((run / "dialogues.parquet").read_bytes())
    (tmp_path / "eval.json").write_text(json.dumps({"model": str(run), "problem_sets": {}}))
    rows = read_rollouts(tmp_path / "dialogues.parquet")
    assert find_words(tmp_path, rows).name == str(run / "model")
    assert find_words(run / "rollouts" / "step_000001.parquet", rows).name == str(run / "model")


def test_spans_cover_the_sampled_tokens(chat):
    [row] = rows_of(play(chat, problem(3), [("a", WRONG), ("b", WRONG), ("c", RIGHT)]))
    [block] = token_block([row], Vocabulary(Words()))
    mask = np.zeros(len(row["token_ids"]), dtype=bool)
    for start, end in block["sampled"]:
        mask[start:end] = True
    assert mask.tolist() == row["sampled"]
