"""Tiny models from scratch: a Llama and a word-level tokenizer over the words of the built-in tasks, saved as a normal Hugging Face folder.

One word, digit or symbol is one token, and a turn costs one token more than its words::

    <user> 3 + 8 - 5 * 2 <answer> @1 ... \\boxed{ 6 } <end> <user> wrong <answer> ...
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mulligan.config import TinyModel
from mulligan.errors import ConfigError
from mulligan.tasks.builtin.vocabulary import WORDS

UNKNOWN, PAD, USER, ANSWER, END = "<unk>", "<pad>", "<user>", "<answer>", "<end>"

# Every turn that is not the model's opens alike, so that feedback may have any role.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<answer>' + message['content'] + '<end>' }}{% else %}{{ '<user>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<answer>' }}{% endif %}"
)


def tiny_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: text is cut at white space and into words, the longest first; what is no word becomes `<unk>`.

    Decoding puts one space between words, but none inside a box's braces and none around `+ - * =`: `@1 3+8 \\boxed{7}`. Encoding
    the decoded text gives the same ids.
    """
    # The special tokens are no part of the word list, so that `<end>` written in a question is unknown text, not the end of a turn.
    vocabulary = {token: i for i, token in enumerate((UNKNOWN, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    alternatives = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Split(Regex(alternatives), "isolated")]
    )
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # one space between tokens
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=\{) | (?=\})|(?<=[-+*=]) | (?=[-+*=])"), ""),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[USER, ANSWER],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_tokenizer(folder: Path, max_length: int | None = None) -> None:
    """Save the tokenizer to `folder`, which is made if need be; `max_length` is what it says of the model's context."""
    tokenizer = tiny_tokenizer()
    if max_length is not None:
        tokenizer.model_max_length = max_length
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder, save_jinja_files=False)  # the template inside tokenizer_config.json, where older loaders look


def tiny_config(config: TinyModel) -> LlamaConfig:
    """The Llama configuration that a `[model.tiny]` table describes.

    Raises:
        ConfigError: widths and numbers of heads that do not divide.
    """
    _check(config)
    tokenizer = tiny_tokenizer()
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        max_position_embeddings=config.max_position_embeddings,
        tie_word_embeddings=config.tie_word_embeddings,
        initializer_range=0.5 * config.hidden_size**-0.5,
        rms_norm_eps=1e-5,
        pad_token_id=int(tokenizer.pad_token_id),  # type: ignore[arg-type]
        eos_token_id=int(tokenizer.eos_token_id),  # type: ignore[arg-type]
        bos_token_id=None,
    )


def build_tiny(config: TinyModel, folder: Path, seed: int) -> None:
    """Write a freshly initialised model with its tokenizer to `folder`, as any Hugging Face loader takes it.

    Matrices are normal with standard deviation 0.5 / sqrt(width); those that write to the residual stream are further divided by
    sqrt(2 x layers), so that its variance does not grow with depth (Radford et al. 2019, GPT-2, section 2.3). The seed alone decides the weights;
    torch's global generator is left as it was. `config.json` comes last: where it stands, the rest does, whenever the process was killed.

    Raises:
        ConfigError: widths and numbers of heads that do not divide.
    """
    llama = tiny_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(llama)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_((2 * config.layers) ** -0.5)
    model.generation_config = GenerationConfig(eos_token_id=llama.eos_token_id, pad_token_id=llama.pad_token_id)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as fresh:
        build_tokenizer(Path(fresh), config.max_position_embeddings)
        model.save_pretrained(fresh)
        for path in sorted(Path(fresh).iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)


def _check(config: TinyModel) -> None:
    faults = []
    kv_heads = config.kv_heads or config.heads
    if config.hidden_size % config.heads or config.hidden_size // config.heads % 2:
        faults.append(f"model.tiny: hidden_size = {config.hidden_size} must be an even multiple of heads = {config.heads}")
    if config.heads % kv_heads:
        faults.append(f"model.tiny: heads = {config.heads} must be a multiple of kv_heads = {kv_heads}")
    if faults:
        raise ConfigError(faults)
