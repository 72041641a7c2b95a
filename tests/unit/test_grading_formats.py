"""Answer formats: what is cut out, where an attempt ends, and that recipe, sampler and grader agree on it."""

import asyncio
import re
import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulligan.answer_marks import answer_stop
from mulligan.chat import Chat
from mulligan.config import ANSWER_FORMATS, EXACT_FORMATS, GraderConfig, load_recipe, parse_recipe
from mulligan.errors import ConfigError
from mulligan.grading import make_grader
from mulligan.grading.extract import MAX_TEXT
from mulligan.grading.formats import extract
from mulligan.tasks import grade_answer, self_check
from mulligan.tasks.problems import ProblemSet
from mulligan.types import Problem, VerdictKind

MARKED = EXACT_FORMATS[1:]
WRITTEN = {"boxed": "\\boxed{%s}", "####": "#### %s", "Answer:": "Answer: %s", "<answer>": "<answer>%s</answer>", "last number": "%s"}


@pytest.mark.parametrize(
    ("answer_format", "text", "answer"),
    [
        ("####", "so\n#### 18", "18"),
        ("####", "#### 1\n#### 2\nmore", "2"),
        ("####", "#### $1,800.50\n", "$1,800.50"),
        ("####", "####\n\n 18 \n19", "18"),
        ("####", "####18", "18"),
        ("####", r"#### \boxed{18}", "18"),
        ("####", "it is #### 18", None),
        ("####", "####\n", None),
        ("####", "### 18", None),
        ("####", "#### 1\n####", "1"),
        ("Answer:", "Answer: 7", "7"),
        ("Answer:", "ANSWER: 7\nAnswer: 8", "8"),
        ("Answer:", "**Final Answer:** $7$\n", "$7$"),
        ("Answer:", "**Answer: 7**", "7"),
        ("Answer:", "> Answer : 7", "7"),
        ("Answer:", "### Answer:\n\n7", "7"),
        ("Answer:", r"Answer: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("Answer:", "The answer: 7", None),
        ("Answer:", "Anſwer: 7", None),
        ("<answer>", "<answer>7</answer>", "7"),
        ("<answer>", "<ANSWER> 7 </Answer>", "7"),
        ("<answer>", "<answer>1</answer> <answer>2", "1"),
        ("<answer>", "<answer>1</answer> or <answer>2</answer>", "2"),
        ("<answer>", "<answer>1 <answer>2</answer>", "1 <answer>2"),
        ("<answer>", "</answer>7<answer>", None),
        ("<answer>", "<answer></answer>", ""),
        ("last number", "first 3, then 1,234.5.", "1,234.5"),
        ("last number", "it is -2/3, x2", "-2/3"),
        ("last number", r"it is \frac{2}{3} metres", r"\frac{2}{3}"),
        ("last number", "50% of it", "50%"),
        ("last number", "none", None),
    ],
)
def test_extract(answer_format, text, answer):
    assert extract(text, answer_format) == answer


@pytest.mark.parametrize("answer_format", ANSWER_FORMATS)
@pytest.mark.parametrize("answer", ["7", "1,234", "-3/4"])
def test_what_is_written_is_read(answer_format, answer):
    assert extract("Let me see.\n" + WRITTEN[answer_format] % answer, answer_format) == answer


@pytest.mark.parametrize("answer_format", ANSWER_FORMATS)
@pytest.mark.parametrize("piece", ["#### ", "####\n", "Answer:", "answer: \n", "<answer>", "</answer>", "7,", "1" * 50, " ", "\n", "*_#>", "<", "final ", "-", r"\frac{1}{"])
def test_extraction_is_linear(answer_format, piece):
    text = (piece * (200_000 // len(piece) + 1))[:200_000]
    start = time.perf_counter()
    extract(text, answer_format)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize("answer_format", ANSWER_FORMATS)
def test_only_the_end_of_a_long_text_counts(answer_format):
    text = WRITTEN[answer_format] % "7"
    assert extract(text + "\n" + "x" * MAX_TEXT, answer_format) is None


# ------------------------------------------------------------------------------------------------------------------------ stop

parts = st.sampled_from(["####", "#### ", "\n", "7", " ", "Answer:", "answer: ", "Final ", "**", ">", "<answer>", "</answer>", "<", "/answer>", "answer", "#", "é", "so ", "\n\n", "\t", "_", "<ANSWER>"])
texts = st.lists(parts, max_size=14).map("".join)



def fires_at(text, answer_format, cuts=None):
    """Index into `text` behind the token at which the check fires; tokens are cut at `cuts` (every character, by default)."""
    bounds = sorted({0, len(text), *(range(len(text)) if cuts is None else [c % (len(text) + 1) for c in cuts])})
    pieces = {i: text[a:b] for i, (a, b) in enumerate(pairwise(bounds))}
    stop = answer_stop(pieces, answer_format)
    return next((bounds[i + 1] for i in range(len(pieces)) if stop.push(i)), None)


def complete(text, answer_format):
    """Whether an answer stands complete in `text`, by the grader's own extraction: for lines, only those that have ended."""
    if answer_format != "<answer>":
        text = text[: text.rfind("\n") + 1]
    found = extract(text, answer_format)
    return found is not None


@pytest.mark.parametrize(
    ("answer_format", "text", "end"),
    [
        ("####", "so #### 1\n#### 18\nmore", "so #### 1\n#### 18\n"),
        ("####", "####\n\n18\nmore\n", "####\n\n18\n"),
        ("Answer:", "The answer: 7\n**Final answer:** 7\nmore", "The answer: 7\n**Final answer:** 7\n"),
        ("<answer>", "</answer> <answer>7</answer> more", "</answer> <answer>7</answer>"),
    ],
)
def test_fires_where_the_answer_ends(answer_format, text, end):
    assert fires_at(text, answer_format) == len(end)


@pytest.mark.parametrize(("answer_format", "text"), [("####", "#### 18"), ("####", "####\n \n"), ("Answer:", "answer 7\n"), ("<answer>", "<answer>7</answer"), ("<answer>", "7</answer>")])
def test_does_not_fire(answer_format, text):
    assert fires_at(text, answer_format) is None


@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=12))
def test_fires_at_the_first_token_with_a_complete_answer(text, cuts):
    for answer_format in MARKED:
        at = fires_at(text, answer_format)
        slow = next((i for i in range(len(text) + 1) if complete(text[:i], answer_format)), None)
        assert at == slow, (answer_format, text)
        coarse = fires_at(text, answer_format, cuts)
        if at is None:
            assert coarse is None
        else:
            bounds = sorted({len(text), *(c % (len(text) + 1) for c in cuts)})
            assert coarse == next(b for b in bounds if b >= at)


@given(text=texts)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_by_the_tokens_of_a_tokenizer(tokenizers, text):
    chat = CHATS.setdefault("chatml", Chat(tokenizers["chatml"]))
    ids = chat.encode_text(text)
    for answer_format in MARKED:
        stop = chat.stop("answer", answer_format)
        assert stop is not None
        at = next((i for i, token_id in enumerate(ids) if stop.push(token_id)), None)
        assert at == next((i for i in range(len(ids)) if complete(chat.decode(ids[: i + 1]), answer_format)), None)


CHATS: dict[str, Chat] = {}


@pytest.mark.parametrize("answer_format", ["last number", "regex:x"])
def test_formats_without_an_end(tokenizers, answer_format):
    chat = Chat(tokenizers["chatml"])
    assert chat.stop("end_of_turn", answer_format) is None
    with pytest.raises(ConfigError, match="end_of_turn"):
        chat.stop("answer", answer_format)


# -------------------------------------------------------------------------------------------------------------- recipe, grader


def table(**changes):
    base = {"model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}, "protocol": {"system": "Think.", "stop": "end_of_turn"}, "grader": {}}
    return {**base, **{section: {**base.get(section, {}), **values} for section, values in changes.items()}}


@pytest.mark.parametrize("answer_format", [*ANSWER_FORMATS, r"regex:is (\d+)"])
def test_recipes_take_formats(answer_format):
    assert parse_recipe(table(grader={"format": answer_format})).grader.format == answer_format


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grader": {"format": "boxd"}}, "did you mean 'boxed'"),
        ({"grader": {"format": "regex:("}}, "not a regular expression"),
        ({"grader": {"format": "last number"}, "protocol": {"stop": "answer"}}, "protocol.stop = 'end_of_turn'"),
        ({"grader": {"format": "regex:x"}, "protocol": {"stop": "answer"}}, "protocol.stop = 'end_of_turn'"),
        ({"grader": {"format": "####"}, "protocol": {"system": r"Use \boxed{}."}}, "protocol.system"),
    ],
)
def test_recipes_that_contradict_themselves(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_recipe(table(**changes))


def test_the_format_stands_in_a_recipe_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('[model]\npath = "tiny:"\n[problems]\ntrain = "builtin:guess"\n[protocol]\nsystem = "End with a line: #### ANSWER"\n[grader]\nformat = "####"\n')
    assert load_recipe(path).grader.format == "####"


def grade(config, gold, text, **meta):
    grader = make_grader(config)
    try:
        return asyncio.run(grader.grade(Problem("p", "?", gold, meta=meta), text))
    finally:
        grader.close()


def test_the_grader_reads_the_format_of_the_recipe():
    text = "\\boxed{1}\n<answer>3</answer>\nAnswer: 4\n#### 2\n 5"
    found = {answer_format: grade(GraderConfig(format=answer_format), "9", text).answer for answer_format in (*ANSWER_FORMATS, r"regex:\\boxed\{(\d+)\}")}
    assert found == {"boxed": "1", "####": "2", "Answer:": "4", "<answer>": "3", "last number": "5", r"regex:\\boxed\{(\d+)\}": "1"}
    assert grade(GraderConfig(format="<answer>"), "3", text).correct
    assert grade(GraderConfig(format="####"), "3", "\\boxed{3}").reason == "no line that begins with ####"
    assert grade(GraderConfig(format="regex:x(.)x"), "3", "\\boxed{3}").kind is VerdictKind.NO_ANSWER
    assert grade(GraderConfig(format="regex:[0-9]+"), "3", "1 2 3").correct


def test_a_pattern_that_takes_for_ever_is_the_recipes_fault():
    start = time.monotonic()
    verdict = grade(GraderConfig(format="regex:(a+)+b", deadline=0.3), "3", "a" * 60)
    assert verdict.kind is VerdictKind.UNGRADABLE and "grader.format" in (verdict.reason or "") and time.monotonic() - start < 30


@pytest.mark.parametrize("answer_format", [*ANSWER_FORMATS, r"regex:is (\d+)"])
def test_golds_are_checked_whatever_the_format(answer_format):
    grader = make_grader(GraderConfig(format=answer_format))
    good, empty = Problem("a", "?", r"\sqrt{2}"), Problem("b", "?", "a thousand", grader="numeric")
    checked = asyncio.run(self_check(ProblemSet((good, empty), "here"), grader))
    assert checked.problems == (good,) and checked.set_aside[0].problem is empty
    assert asyncio.run(grade_answer(grader, good, r"\sqrt{3}")).kind is VerdictKind.WRONG
    grader.close()
