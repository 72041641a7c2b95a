"""Problems from files and Hub datasets: columns, gold answers, errors."""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulligan.errors import ConfigError, DataError
from mulligan.tasks import content_id, demonstrator, last_boxed, load_problems
from mulligan.tasks.columns import gold_text
from mulligan.types import Problem


def write_lines(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# ------------------------------------------------------------------------------------------------------------ real files


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("MULLIGAN_DATA")
    if not folder:
        pytest.skip("MULLIGAN_DATA is not set: it names the folder with the question sets")
    return Path(folder)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("aime24", 30, ["204", "113", "371"]),
        ("amc23", 40, ["27", "36", "45"]),
        ("math500", 500, ["\\left( 3, \\frac{\\pi}{2} \\right)", "p - q", "\\frac{14}{3}"]),
        ("minerva_math", 272, ["1.6", "4.5e33", "41.8"]),
        ("olympiadbench", 675, ["2", "\\frac{1}{2 n+2}", "2^{1009}"]),
        ("gsm8k", 1319, ["18", "3", "70000"]),
    ],
)
def test_question_files_load_without_a_query(data, name, count, first):
    found = load_problems(str(data / f"{name}.jsonl"))
    assert len(found) == count
    assert found.set_aside == ()
    assert [p.answer for p in found][:3] == first
    assert len({p.id for p in found}) == count
    assert all(p.grader == "math" and p.question and "####" not in p.answer and "\\boxed" not in p.answer for p in found)


def test_olympiadbench_answers_of_several_parts(data):
    answers = [p.answer for p in load_problems(str(data / "olympiadbench.jsonl"))]
    assert "69,84" in answers  # '$69$,$84$'
    assert "(-6,6), (2,6)" in answers  # '$(-6,6)$, $(2,6)$'
    assert not any("$" in a for a in answers)


def test_math500_keeps_escaped_dollars(data):
    assert "\\$18.90" in [p.answer for p in load_problems(str(data / "math500.jsonl"))]


# --------------------------------------------------------------------------------------------------------------- formats


ROWS = [{"question": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": "4"}]


def test_all_formats_give_the_same_problems(tmp_path):
    import pyarrow
    import pyarrow.parquet

    jsonl = write_lines(tmp_path / "a.jsonl", *ROWS)
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": ROWS}))
    write_lines(tmp_path / "c.json", *ROWS)  # JSON Lines in disguise
    (tmp_path / "a.csv").write_text("question,answer\n1+1?,2\n2+2?,4\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    expected = [(p.id, p.question, p.answer) for p in load_problems(jsonl)]
    assert [e[1:] for e in expected] == [("1+1?", "2"), ("2+2?", "4")]
    for name in ("a.json", "b.json", "c.json", "a.csv", "a.parquet"):
        assert [(p.id, p.question, p.answer) for p in load_problems(str(tmp_path / name))] == expected, name


def test_a_byte_order_mark_and_blank_lines_are_harmless(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\n\n" + json.dumps(ROWS[1]).encode())
    assert len(load_problems(str(path))) == 2


def test_long_csv_fields(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\n" + "x" * 200_000 + ",2\n")
    assert len(load_problems(str(tmp_path / "a.csv")).problems[0].question) == 200_000


def test_columns_by_name_case_and_path(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"Q": "one?", "Problem": "two?", "reward_model": {"ground_truth": 7}})
    assert [(p.question, p.answer) for p in load_problems(path)] == [("two?", "7")]
    assert load_problems(path + "?question=Q&answer=reward_model.ground_truth").problems[0].question == "one?"


def test_spaces_around_the_names_of_columns_do_not_count(tmp_path):
    (tmp_path / "a.csv").write_text("question , answer\none?,2\n")
    assert [(p.question, p.answer) for p in load_problems(str(tmp_path / "a.csv"))] == [("one?", "2")]
    assert load_problems(f"{tmp_path / 'a.csv'}?question=Question&answer=answer").problems[0].answer == "2"


def test_chat_messages_as_the_question(tmp_path):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "how many?"}]
    assert load_problems(write_lines(tmp_path / "a.jsonl", {"prompt": messages, "answer": 3})).problems[0].question == "how many?"


def turns(*roles):
    return [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)]


@pytest.mark.parametrize("roles", [("user", "user"), ("user", "assistant"), ("system", "user", "assistant", "user"), ("user", "tool")])
def test_a_dialogue_is_no_question(tmp_path, roles):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": turns("user"), "answer": 1}, {"prompt": turns(*roles), "answer": 3})
    with pytest.raises(DataError) as error:
        load_problems(path)
    assert f"{path}: line 2 has a dialogue for a question (turns: {', '.join(roles)}); leave one user turn" in str(error.value)


def test_a_dropped_system_turn_is_remarked_on(tmp_path):
    one = write_lines(tmp_path / "one.jsonl", {"prompt": turns("system", "user"), "answer": 3}, {"prompt": turns("user"), "answer": 4})
    two = write_lines(tmp_path / "two.jsonl", *({"prompt": turns("system", "user"), "answer": i} for i in range(2)))
    remarks = (
        f"{one}: the system turn of 1 question is dropped: what it says goes into protocol.system, one text for all questions",
        f"{two}: the system turn of 2 questions is dropped: what it says goes into protocol.system, one text for all questions",
    )
    assert load_problems(f"{one} + {two}").remarks == remarks
    assert load_problems(f"{one} + {two}", limit=1).problems[0].question == "user 1"
    assert load_problems(write_lines(tmp_path / "three.jsonl", *ROWS)).remarks == ()


def test_context_stands_before_the_question(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl", {"context": "Let x = 2.", "question": "x?", "answer": 2}, {"context": None, "question": "1?", "answer": 1}
    )
    assert [p.question for p in load_problems(path)] == ["Let x = 2.\n\nx?", "1?"]


def test_solution_with_a_box_where_the_answer_is_missing(tmp_path):
    rows = (
        {"problem": "a", "answer": None, "solution": "so \\boxed{1} or \\boxed{\\frac{1}{2}}."},
        {"problem": "b", "answer": "3", "solution": "\\boxed{4}"},
    )
    assert [p.answer for p in load_problems(write_lines(tmp_path / "a.jsonl", *rows))] == ["\\frac{1}{2}", "3"]


def test_limit_is_the_smaller_one_and_stops_reading(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", *ROWS, "{broken")
    assert len(load_problems(path, limit=2)) == 2
    assert len(load_problems(path + "?limit=1", limit=2)) == 1
    assert len(load_problems(path + "?limit=2", limit=1)) == 1


def test_exact_duplicates_are_set_aside_and_named(tmp_path):
    found = load_problems(write_lines(tmp_path / "a.jsonl", ROWS[0], ROWS[1], ROWS[0], {"question": "1+1?", "answer": "two"}))
    assert [p.answer for p in found] == ["2", "4", "two"]
    assert [(a.problem.answer, a.reason) for a in found.set_aside] == [("2", "duplicate of line 1")]


def test_grader_of_the_source_string(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"question": "price?", "answer": "$5"})
    assert load_problems(path).problems[0].answer == "5"
    text = load_problems(path + "?grader=text").problems[0]
    assert (text.grader, text.answer) == ("text", "$5")
    assert load_problems(path + "?grader=my.module:grade").problems[0].grader == "my.module:grade"


# ------------------------------------------------------------------------------------------------------------------ gold


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        (27.0, "27"),
        (0.5, "0.5"),
        (True, "True"),
        ("  x+1 ", "x+1"),
        ("so\n#### 1,234,567", "1234567"),
        ("so\n#### (1,234)", "(1,234)"),
        ("a #### b", "a #### b"),
        ("$\\frac{1}{2}$", "\\frac{1}{2}"),
        ("\\$5", "\\$5"),
        (["$1$", "$2$"], "1, 2"),
        ([3, 4.0], "3, 4"),
        ("['$69$,$84$']", "69,84"),
        ('["a", "b"]', "a, b"),
        ("[1,2]", "[1,2]"),
        ("thus \\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("", None),
        (None, None),
        ([], None),
        (["a", None], None),
        ({"a": 1}, None),
        (float("nan"), None),
        (float("-inf"), None),
        ([1, float("nan")], None),
    ],
)
def test_gold_text(value, gold):
    assert gold_text(value) == gold


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{2", "1"),
        ("\\boxed{a\\}b}", "a\\}b"),
        ("\\boxed{\\boxed{3}}", "\\boxed{3}"),
        ("} \\boxed {7}", "7"),
        ("\\framebox{204}", "204"),
        ("so \\boxed 7.", "7"),
        ("\\boxed{}", ""),
        ("boxed{1} {2}", None),
        ("", None),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


def test_last_boxed_takes_linear_time():
    assert last_boxed("\\boxed{" * 300_000) is None  # a quadratic scan would take minutes


balanced = st.recursive(st.text("ab \\"), lambda inner: st.lists(inner.map(lambda t: "{" + t.replace("\\", "") + "}")).map("".join), max_leaves=8)


@given(balanced.map(lambda t: t.rstrip("\\")), st.text(alphabet="xyz 0"))
def test_last_boxed_finds_what_was_boxed(content, before):
    assert last_boxed(f"{before}\\boxed{{{content}}} and so on") == content


# ------------------------------------------------------------------------------------------------------------------- ids


def test_ids_are_stable():
    assert content_id("1+1?", "2", "math") == "adbee63458ad818b"
    assert content_id("1+1?", "2", "math", {"b": [1, 2], "a": "ä"}) == content_id("1+1?", "2", "math", {"a": "ä", "b": (1, 2)}) == "8e11658887e2a0d4"
    assert content_id("1+1?", "2", "text") != "adbee63458ad818b"


@given(st.text(), st.text())
def test_ids_do_not_run_question_and_answer_together(a, b):
    assert len(content_id(a, b, "math")) == 16
    assert content_id(a, b, "math") != content_id(a + b, "", "math") or not b


def test_ids_do_not_depend_on_the_source(tmp_path):
    one, two = (load_problems(write_lines(tmp_path / name, *ROWS)) for name in ("a.jsonl", "b.jsonl"))
    assert [p.id for p in one] == [p.id for p in two]
    assert one.problems[0].source != two.problems[0].source


# ---------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("lines", "query", "parts"),
    [
        ([ROWS[0], "{not json"], "", ["line 2 is not valid JSON", "column 2"]),
        ([ROWS[0], "[1]"], "", ["line 2 holds a JSON list, not an object; write one {...} per line"]),
        ([[ROWS[0]]], "", ["line 1 holds a JSON list, not an object; write one {...} per line, or name the file .json"]),
        ([ROWS[0], {"question": "a \ud800 b", "answer": 1}], "", ["line 2 has half of a character in its question (a \\ud800 to \\udfff alone)"]),
        ([ROWS[0], {"question": "a", "answer": "\udfff"}], "", ["line 2 has half of a character in its answer"]),
        ([ROWS[0], {"question": "x?", "answer": ""}], "", ["line 2 has no answer (column 'answer')"]),
        ([ROWS[0], {"question": "x?"}], "", ["line 2 has no answer"]),
        ([ROWS[0], {"question": "x?", "answer": float("nan")}], "", ["line 2 has no answer (column 'answer')"]),
        ([ROWS[0], {"question": "x?", "answer": float("inf")}], "", ["line 2 has no answer (column 'answer')"]),
        ([ROWS[0], {"question": " ", "answer": 1}], "", ["line 2 has no question (column 'question')"]),
        ([{"question": "x?", "solution": "no box here"}], "", ["line 1 has no answer (column 'solution')", "?answer=COLUMN"]),
        ([ROWS[0]], "?question=qestion", ["no column 'qestion'", "did you mean 'question'?", "columns: question, answer"]),
        ([{"a": 1, "b": 2}], "", ["looks like the question", "?question=COLUMN", "columns: a, b"]),
        ([{"question": "x?", "b": 2}], "", ["looks like the answer", "columns: question, b"]),
        ([], "", ["no problems in it"]),
        (["", " "], "", ["no problems in it"]),
    ],
)
def test_broken_files(tmp_path, lines, query, parts):
    path = write_lines(tmp_path / "a.jsonl", *lines)
    with pytest.raises(DataError) as error:
        load_problems(path + query)
    assert all(part in str(error.value) for part in [str(path), *parts]), error.value
    assert "\n" not in str(error.value)


def test_an_explicit_answer_column_takes_unmarked_text(tmp_path):
    assert (
        load_problems(write_lines(tmp_path / "a.jsonl", {"question": "x?", "solution": "forty"}) + "?answer=solution").problems[0].answer == "forty"
    )


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.json", b"{", "not valid JSON at line 1"),
        ("a.json", b"3", "holds a JSON int"),
        ("a.json", b"[3]", "entry 1 is a JSON int"),
        ("a.csv", b"question,answer\na,b,c\n", "line 2 has more fields"),
        ("a.csv", b'question,answer\n"a,b\n', "not valid CSV"),
        ("a.parquet", b"nonsense", "not a readable Parquet file"),
        ("a.jsonl", b'{"question": "\xff"}', "not UTF-8"),
        ("a.txt", b"x", "suffix '.txt'"),
    ],
)
def test_broken_formats(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=part):
        load_problems(str(tmp_path / name))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_problems(str(tmp_path / "nope.jsonl"))
    with pytest.raises(DataError, match="is a folder"):
        load_problems(str(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        load_problems("x" * 5000 + ".jsonl")


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("", "names no problems"),
        ("guym:chain_sum", "did you mean 'gym'"),
        ("a.jsonl?qestion=x", "unknown key 'qestion'; did you mean 'question'"),
        ("a.jsonl?question", "is not key=value"),
        ("a.jsonl?limit=1&limit=2", "given twice"),
        ("a.jsonl?limit=0", "limit=0 must be at least 1"),
        ("a.jsonl?limit=few", "limit='few' must be a whole number"),
        ("a.jsonl?grader=maths", "unknown grader 'maths'"),
        ("hub:openai/gsm8k", "names no split"),
        ("hub:a/b:test?confg=main", "did you mean 'config'"),
    ],
)
def test_wrong_source_strings(source, part):
    with pytest.raises(ConfigError, match=part.replace("(", "\\(")):
        load_problems(source)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ConfigError, match="limit=0"):
        load_problems("builtin:guess", limit=0)


# ------------------------------------------------------------------------------------------------------------------- hub


def test_hub_arguments(monkeypatch):
    datasets = pytest.importorskip("datasets")
    seen = {}

    def load_dataset(path, name=None, *, split=None, revision=None):
        seen.update(path=path, name=name, split=split, revision=revision)
        return [{"question": "Q", "answer": "work\n#### 1,000"}, {"question": "Q", "answer": "other\n#### 1,000"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = load_problems("hub:openai/gsm8k:test?config=main&revision=abc")
    assert seen == {"path": "openai/gsm8k", "name": "main", "split": "test", "revision": "abc"}
    assert [(p.question, p.answer) for p in found] == [("Q", "1000")]
    assert found.set_aside[0].reason == "duplicate of row 1"
    assert isinstance(found.set_aside[0].problem, Problem)


def test_hub_failure_is_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*args, **kwargs):
        raise FileNotFoundError("no such data set\nwith a long story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as error:
        load_problems("hub:a/b:test")
    assert "hub:a/b: cannot be loaded (FileNotFoundError: no such data set)" in str(error.value)
    assert "\n" not in str(error.value)


def test_hub_reads_a_local_dataset_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set" / "test.jsonl", *ROWS)
    found = load_problems(f"hub:{tmp_path / 'set'}:test")
    assert [p.answer for p in found] == ["2", "4"]
    with pytest.raises(DataError, match="cannot be loaded"):
        load_problems(f"hub:{tmp_path / 'set'}:validation")


# --------------------------------------------------------------------------------------------------------------- mixtures


def test_the_sources_of_a_mixture_take_turns(tmp_path):
    one = write_lines(tmp_path / "one.jsonl", *({"question": f"q{i}?", "answer": i} for i in range(3)))
    mixture = f"{one} + builtin:guess?split=test&n=1"
    found = load_problems(mixture)
    assert [p.question for p in found] == ["q0?", "guess 1 15", "q1?", "q2?"]
    assert [p.source for p in found] == [one, "builtin:guess?split=test&n=1", one, one]
    assert found.source == mixture
    assert [p.question for p in load_problems(mixture, limit=3)] == ["q0?", "guess 1 15", "q1?"]


def test_a_mixture_shows_each_problem_as_its_own_source_does(tmp_path):
    one = write_lines(tmp_path / "one.jsonl", {"question": "a?", "answer": "gold"})
    mixture = f"{one} + builtin:guess?split=test&n=1&style=words"
    gold, guess = (demonstrator(mixture)(p, random.Random(0)) for p in load_problems(mixture))
    assert gold == "\\boxed{gold}"
    assert guess == demonstrator("builtin:guess?style=words")(load_problems("builtin:guess?split=test&n=1").problems[0], random.Random(0))


def test_a_file_whose_name_looks_like_a_mixture(tmp_path):
    assert len(load_problems(write_lines(tmp_path / "a + b.jsonl", {"question": "a?", "answer": 1}))) == 1


def test_a_wrong_part_of_a_mixture_is_named():
    with pytest.raises(ConfigError, match=r"^builtin:gess: "):
        load_problems("builtin:guess + builtin:gess")
