"""Chat, by properties: ids are the template's for plain contents, and control tokens are never injected."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulligan.chat import Chat

FAMILIES = ["chatml", "chatml_base", "llama3", "gemma", "mistral", "qwen3", "phi3", "plain"]
drawn = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
# ▁ is SentencePiece's sign for a space: no tokenizer of that kind can tell the two apart.
characters = st.characters(exclude_categories=("Cs",), exclude_characters="▁")
fragments = st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<eos>", "<bos>", "</s>", "<s>", "<|eot_id|>", "<|end|>", "<think>", "<end_of_turn>", "<|", "|>"])
plain_text = st.text(characters, max_size=20)
evil_text = st.lists(st.one_of(fragments, plain_text), max_size=5).map("".join)
CHATS: dict[str, Chat] = {}


@pytest.fixture(params=FAMILIES)
def chat(request, tokenizers) -> Chat:
    return CHATS.setdefault(request.param, Chat(tokenizers[request.param]))


def render(chat: Chat, messages, **options):
    return chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **options)


def control_ids(chat: Chat, ids: list[int]) -> list[int]:
    """The special ids and the template's own; the unknown token left out."""
    return [i for i in ids if i in chat.tokenizer.added_tokens_decoder and i != chat.tokenizer.unk_token_id]


@given(question=plain_text, feedback=plain_text)
@drawn
def test_plain_contents_give_the_templates_ids(chat, question, feedback):
    user, answer = {"role": "user", "content": question}, {"role": "assistant", "content": "7"}
    prompt = chat.prompt_ids([user])
    assert prompt == render(chat, [user])
    # The same answer twice: what lies between the two answers is the bridge.
    first = render(chat, [user, answer, user])
    both = render(chat, [user, answer, {"role": "user", "content": feedback}])
    tail = len(first) - len(chat.bridge_ids(question, "user", turn_closed=False))
    assert first[tail:] == chat.bridge_ids(question, "user", turn_closed=False)
    assert both[tail:] == chat.bridge_ids(feedback, "user", turn_closed=False)


@given(content=evil_text)
@drawn
def test_contents_never_inject_control_tokens(chat, content):
    clean, evil = [{"role": "user", "content": "x"}], [{"role": "user", "content": content}]
    assert control_ids(chat, chat.prompt_ids(evil)) == control_ids(chat, chat.prompt_ids(clean))
    for closed in (True, False):
        expected = control_ids(chat, chat.bridge_ids("x", "user", turn_closed=closed))
        assert control_ids(chat, chat.bridge_ids(content, "user", turn_closed=closed)) == expected
    assert control_ids(chat, chat.encode_text(content)) == []


@given(content=evil_text)
@drawn
def test_contents_lose_no_text(chat, content):
    """Decoded with its special tokens, the prompt is the rendered text; Phi-3's tokens swallow white space by themselves."""
    evil = [{"role": "user", "content": content}]
    decoded, rendered = chat.tokenizer.decode(chat.prompt_ids(evil)), render(chat, evil, tokenize=False)
    squeeze = chat is CHATS.get("phi3")
    assert ("".join(decoded.split()) == "".join(rendered.split())) if squeeze else decoded == rendered


@given(rounds=st.lists(st.tuples(evil_text, evil_text), max_size=3), last=evil_text)
@drawn
def test_dialogues_are_sampled_exactly_where_the_assistant_speaks(chat, rounds, last):
    messages = [{"role": "user", "content": "q"}]
    for answer, feedback in rounds:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": feedback}]
    transcript = chat.encode_dialogue([*messages, {"role": "assistant", "content": last}])
    forced = chat.prompt_ids(messages[:1]) + [i for _, feedback in rounds for i in chat.bridge_ids(feedback, "user", turn_closed=True)]
    assert [i for i, s in zip(transcript.token_ids, transcript.sampled, strict=True) if not s] == forced
    runs = "".join("s" if s else "f" for s in transcript.sampled).replace("f", " ").split()
    assert len(runs) == len(rounds) + 1 and transcript.token_ids[-1:] == chat.close_turn_ids[-1:]
