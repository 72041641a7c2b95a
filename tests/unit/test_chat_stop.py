"""The stop rule `answer`: at the very token whose text closes the box, however the tokenizer cuts it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulligan.chat import Chat
from mulligan.errors import ConfigError
from mulligan.grading.extract import extract_boxed

FAMILIES = ["chatml", "mistral", "qwen3"]
# Hypothesis may draw from a session's tokenizers: they do not change.
drawn = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
pieces = st.sampled_from(["\\", "boxed", "\\boxed{", "\\boxed", "{", "}", "\\{", "\\}", "\\\\", " ", "\n", "7", "}.", "$", "é", "日本", "🙂", "\\frac{1}{2}", "box", "ed{"])
texts = st.lists(pieces, max_size=14).map("".join)


def closes(text: str) -> bool:
    """Slow reference: whether `text` holds a box that is opened and closed, read character by character from each `\\boxed`."""
    for start in range(len(text)):
        rest = text[start:]
        if not rest.startswith("\\boxed") or not rest[6:].lstrip().startswith("{"):
            continue
        depth, i = 0, rest.index("{")
        while i < len(rest):
            if rest[i] == "\\":
                i += 1
            elif rest[i] in "{}":
                depth += 1 if rest[i] == "{" else -1
                if depth == 0:
                    return True
            i += 1
        return False  # the outermost box is still open, and what stands inside it does not count
    return False


def fires_at(chat: Chat, ids: list[int]) -> int | None:
    stop = chat.stop("answer")
    assert stop is not None
    return next((i for i, token_id in enumerate(ids) if stop.push(token_id)), None)


def expected_at(chat: Chat, ids: list[int]) -> int | None:
    return next((i for i in range(len(ids)) if closes(chat.decode(ids[: i + 1]))), None)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("so \\boxed{7} and more", "\\boxed{7}"),
        ("\\boxed{\\frac{1}{2}}.", "\\boxed{\\frac{1}{2}}"),
        ("\\boxed{\\{1, 2\\}} }", "\\boxed{\\{1, 2\\}}"),
        ("\\boxed{a\\\\}b}", "\\boxed{a\\\\}"),
        ("{x} \\box{1} \\boxed {\n2} 3", "\\boxed {\n2}"),
        ("\\boxed{\\boxed{7}} }", "\\boxed{\\boxed{7}}"),
        ("\\boxed{日本é🙂} x", "\\boxed{日本é🙂}"),
        ("\\boxed{} x", "\\boxed{}"),
        ("\\\\boxed{1} x", "\\boxed{1}"),
        ("\\bo\\boxed{1} x", "\\boxed{1}"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_fires_at_the_token_that_closes_the_box(tokenizers, family, text, end):
    chat = Chat(tokenizers[family])
    ids = chat.encode_text(text)
    at = fires_at(chat, ids)
    assert at is not None
    assert chat.decode(ids[: at + 1]).startswith(text[: text.index(end) + len(end)]) and not closes(chat.decode(ids[:at]))


@pytest.mark.parametrize("text", ["", "7", "\\boxed", "\\boxed{7", "\\boxed{7\\}", "boxed{7}", "\\boxedx{7}", "\\boxed x{7}", "\\boxed{{7}", "\\bo xed{7}"])
@pytest.mark.parametrize("family", FAMILIES)
def test_does_not_fire(tokenizers, family, text):
    chat = Chat(tokenizers[family])
    assert fires_at(chat, chat.encode_text(text)) is None


def test_a_token_that_holds_more_than_the_closing_brace(smollm2_tokenizer):
    """SmolLM2 has `}$` and the like as one token; an attempt ends on it."""
    chat = Chat(smollm2_tokenizer)
    ids = chat.encode_text("It is $\\boxed{42}$.")
    at = fires_at(chat, ids)
    assert at is not None and smollm2_tokenizer.decode([ids[at]]) == "}$" and chat.decode(ids[: at + 1]) == "It is $\\boxed{42}$"


@given(text=texts)
@drawn
def test_encoded_text_by_the_slow_reference(tokenizers, text):
    for family in FAMILIES:
        chat = CHATS.setdefault(family, Chat(tokenizers[family]))
        ids = chat.encode_text(text)
        assert fires_at(chat, ids) == expected_at(chat, ids)


@given(text=texts)
@drawn
def test_smollm2_by_the_slow_reference(smollm2_tokenizer, text):
    chat = CHATS.setdefault("smollm2", Chat(smollm2_tokenizer))
    ids = chat.encode_text(text)
    assert fires_at(chat, ids) == expected_at(chat, ids)


@given(data=st.data())
@drawn
def test_any_ids_by_the_slow_reference(tokenizers, data):
    """Halves of characters, special tokens in the middle of a command: whatever a policy may draw."""
    chat = CHATS.setdefault("chatml", Chat(tokenizers["chatml"]))
    useful = sorted(set(chat.encode_text("\\boxed{7} é🙂 {}") + chat.encode_text("\\ b o x e d { }")))
    ids = data.draw(st.lists(st.one_of(st.sampled_from(useful), st.integers(0, len(chat.tokenizer) - 1)), max_size=30))
    assert fires_at(chat, ids) == expected_at(chat, ids)


@given(text=texts)
@drawn
def test_where_it_fires_the_grader_finds_a_box(tokenizers, text):
    chat = CHATS.setdefault("chatml", Chat(tokenizers["chatml"]))
    ids = chat.encode_text(text)
    at = fires_at(chat, ids)
    if at is not None:
        assert extract_boxed(chat.decode(ids[: at + 1])) is not None


CHATS: dict[str, Chat] = {}


def test_a_checker_is_fresh_for_each_attempt(tokenizers):
    chat = Chat(tokenizers["chatml"])
    opening, rest = chat.encode_text("\\boxed{"), chat.encode_text("7}")
    assert fires_at(chat, opening) is None and fires_at(chat, rest) is None
    assert fires_at(chat, opening + rest) is not None


def test_ids_beyond_the_tokenizer_have_no_text(tokenizers):
    """Models pad their embeddings: an id without a token can be drawn."""
    chat = Chat(tokenizers["chatml"])
    ids = chat.encode_text("\\boxed{7}")
    assert fires_at(chat, [10**6, *ids[:-1], 10**6, ids[-1]]) == len(ids) + 1


def test_other_rules(tokenizers):
    chat = Chat(tokenizers["chatml"])
    assert chat.stop("end_of_turn") is None
    with pytest.raises(ConfigError, match="stop rule 'box' is not known"):
        chat.stop("box")
