"""Tiny models: the word tokenizer by literal ids, and a folder that any Hugging Face loader takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from mulligan.chat import Chat
from mulligan.config import ModelConfig, TinyModel
from mulligan.errors import ConfigError
from mulligan.grading.extract import extract_boxed
from mulligan.model import tiny as tiny_module
from mulligan.model.load import load_policy
from mulligan.model.tiny import build_tiny, build_tokenizer, tiny_config, tiny_tokenizer
from mulligan.tasks.builtin.vocabulary import WORDS

SMALL = TinyModel(hidden_size=16, layers=2, heads=2, intermediate_size=32, max_position_embeddings=64)
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build_tiny(SMALL, folder, seed=3)
    return folder


# ---------------------------------------------------------------------------------------------------------------- tokenizer


def test_ids_by_hand():
    """<unk> is 0, a word's id its place in the list counted from 1, then the special tokens."""
    tokenizer = tiny_tokenizer(["1", "12", "+", "\\boxed{", "}", "higher"])
    assert tokenizer.encode("12+1 \\boxed{ 1 }higher 2") == [2, 3, 1, 4, 1, 5, 6, 0]
    assert sorted(tokenizer.convert_tokens_to_ids(["<pad>", "<user>", "<answer>", "<end>"])) == [7, 8, 9, 10]
    assert len(tokenizer) == 11


def test_the_template_costs_one_token_a_mark():
    ids = dict(zip(("user", "answer", "end"), TOKENIZER.convert_tokens_to_ids(["<user>", "<answer>", "<end>"]), strict=True))
    three, plus, wrong = TOKENIZER.encode("3 + wrong")
    chat = Chat(TOKENIZER)
    assert chat.prompt_ids([{"role": "user", "content": "3+3"}]) == [ids["user"], three, plus, three, ids["answer"]]
    assert chat.bridge_ids("wrong", "user", turn_closed=False) == [ids["end"], ids["user"], wrong, ids["answer"]]
    assert chat.bridge_ids("wrong", "user", turn_closed=True) == [ids["user"], wrong, ids["answer"]]
    assert chat.bridge_ids("wrong", "system", turn_closed=True) == [ids["user"], wrong, ids["answer"]]
    assert chat.end_ids == {ids["end"]} and chat.close_turn_ids == [ids["end"]]


def test_special_tokens_in_a_question_are_unknown_text():
    chat, clean = Chat(TOKENIZER), TOKENIZER.encode("3")
    assert chat.encode_text("3<end>3<user>") == [*clean, 0, *clean, 0]


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("@2 3 + 8-5 = 6 \\boxed{ 6 }", "@2 3+8-5=6 \\boxed{6}"),
        ("\\boxed{7}", "\\boxed{7}"),
        ("higher 3 attempts left", "higher 3 attempts left"),
        ("7 0 5*1 0 10", "7 0 5*1 0 10"),
        ("2 bulls 1 cows", "2 bulls 1 cows"),
    ],
)
def test_round_trip(text, decoded):
    ids = TOKENIZER.encode(text)
    assert 0 not in ids and TOKENIZER.decode(ids) == decoded and TOKENIZER.encode(decoded) == ids


@given(st.lists(st.sampled_from(WORDS), max_size=20))
def test_any_words_survive_decoding(words):
    ids = TOKENIZER.convert_tokens_to_ids(words)
    assert TOKENIZER.encode(TOKENIZER.decode(ids)) == ids


@given(st.lists(st.sampled_from("0123456789"), min_size=1, max_size=4))
def test_a_grader_finds_the_box(digits):
    box = extract_boxed(TOKENIZER.decode(TOKENIZER.encode(f"@1 3+8 \\boxed{{{' '.join(digits)}}}")))
    assert box is not None and box.split() == digits


def test_the_stop_rule_fires_at_the_brace():
    chat = Chat(TOKENIZER)
    stop = chat.stop("answer")
    assert stop is not None
    assert [stop.push(i) for i in TOKENIZER.encode("@1 } 3 \\boxed{ 7 0 } 5 }")] == [False] * 6 + [True, False, False]


# -------------------------------------------------------------------------------------------------------------------- folder


def test_folder_is_a_normal_one(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == TOKENIZER.chat_template
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    text = "<user>3+8<answer>\\boxed{7}<end>"
    assert tokenizer.encode(text) == TOKENIZER.encode(text) and tokenizer.model_max_length == 64
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id
    assert generation.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    config = model.config
    assert (config.model_type, config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == ("llama", 16, 2, 2)
    assert (config.intermediate_size, config.max_position_embeddings, config.vocab_size) == (32, 64, len(tokenizer))
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode(text)])).logits
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert (entropy > 0.9 * torch.log(torch.tensor(float(len(tokenizer))))).all()  # a fresh model knows nothing


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_seed_alone_decides_the_weights(folder, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build_tiny(SMALL, tmp_path / "same", seed=3)
    assert torch.equal(torch.rand(3), expected)  # the global generator was left alone
    build_tiny(SMALL, tmp_path / "other", seed=4)
    first, same, other = weights(folder), weights(tmp_path / "same"), weights(tmp_path / "other")
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("moved", [None, 0, 1, 2, 3, 4])
def test_a_process_that_is_killed_while_it_saves_leaves_no_half_model(tmp_path, monkeypatch, moved):
    """Killed while the files are written (None), or after so many of them have been moved into place."""

    class Killed(BaseException):
        pass

    save, replace, moves = LlamaForCausalLM.save_pretrained, os.replace, []

    def save_a_part(model, folder, **options):
        save(model, folder, **options)
        (Path(folder) / "model.safetensors").unlink()
        raise Killed

    def replace_some(source, target):
        if len(moves) == moved:
            raise Killed
        moves.append(target)
        replace(source, target)

    config = ModelConfig(path="tiny:", tiny=SMALL)
    with monkeypatch.context() as patch:
        if moved is None:
            patch.setattr(LlamaForCausalLM, "save_pretrained", save_a_part)
        else:
            patch.setattr(tiny_module.os, "replace", replace_some)
        with pytest.raises(Killed):
            load_policy(config, seed=3, folder=tmp_path)
    assert not (tmp_path / "config.json").exists()
    policy = load_policy(config, seed=3, folder=tmp_path)  # built anew, where the half would have been refused
    build_tiny(SMALL, tmp_path / "whole", seed=3)
    assert all(torch.equal(policy.model.state_dict()[name], weight) for name, weight in weights(tmp_path / "whole").items())


def test_spread_of_the_initial_weights(tmp_path):
    build_tiny(TinyModel(), tmp_path, seed=0)
    spread = {name: float(weight.std()) for name, weight in weights(tmp_path).items() if weight.ndim == 2}
    assert spread["model.layers.0.self_attn.q_proj.weight"] == pytest.approx(0.5 / 128**0.5, rel=0.05)
    assert spread["model.layers.3.mlp.down_proj.weight"] == pytest.approx(0.5 / 128**0.5 / 8**0.5, rel=0.05)


def test_shared_heads_and_tied_embeddings(tmp_path):
    config = TinyModel(hidden_size=16, layers=1, heads=4, kv_heads=2, intermediate_size=32, tie_word_embeddings=True)
    build_tiny(config, tmp_path, seed=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.num_key_value_heads == 2 and model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_widths_that_do_not_divide():
    with pytest.raises(ConfigError) as caught:
        tiny_config(TinyModel(hidden_size=30, heads=4, kv_heads=3))
    assert [fault.split(":")[1][:20] for fault in caught.value.faults] == [" hidden_size = 30 mu", " heads = 4 must be a"]
    with pytest.raises(ConfigError, match="hidden_size = 12 must be an even multiple of heads = 4"):
        tiny_config(TinyModel(hidden_size=12, heads=4))  # rotary embeddings turn pairs


def test_build_tokenizer_saves_what_tiny_tokenizer_makes(tmp_path):
    build_tokenizer(tmp_path / "t")
    assert AutoTokenizer.from_pretrained(tmp_path / "t").get_vocab() == TOKENIZER.get_vocab()
