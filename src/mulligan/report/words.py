"""From token ids back to words, for showing: which tokenizer made a run's tokens, what each token says, which turns a prompt holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import try_to_load_from_cache

from mulligan.errors import ModelError, RunError
from mulligan.evaluation import read_evaluation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TRIED = 20  # attempts whose text a tokenizer must give back
_MARK = "[[mulligan:{}]]"

Turn = tuple[str, str]
"""Role and text."""


@dataclass(slots=True)
class Words:
    """What a tokenizer says of ids; without one (`name` None, and `reason` says why), ids stay ids."""

    name: str | None = None
    reason: str | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    control: frozenset[int] = frozenset()
    """Ids of special tokens, which the text of an attempt leaves out."""
    _shapes: list[re.Pattern[str]] = field(default_factory=list)
    _anchor: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> Words:
        control = {int(i) for i in tokenizer.all_special_ids} | {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        anchor = [i for i in tokenizer.encode("1", add_special_tokens=False) if i not in control][-1:]
        return cls(name, None, tokenizer, frozenset(control), _prompt_shapes(tokenizer), anchor)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str | None:
        """The text of ids, spaces as they are; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        return self.tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)  # type: ignore[return-value]

    def piece(self, token_id: int) -> str | None:
        """The text of one token as it stands inside a sentence ("" if it has none); None without a tokenizer."""
        alone = self.decode([token_id], special=True)
        if alone is None or token_id in self.control or not self._anchor:
            return alone
        # Decoders may treat the first token of a text in another way (SentencePiece drops its space): hence the anchor.
        head, text = self.decode(self._anchor, special=True) or "", self.decode([*self._anchor, token_id], special=True) or ""
        return text[len(head) :] if text.startswith(head) else alone

    def turns(self, prompt_ids: Sequence[int]) -> list[Turn] | None:
        """The turns of a prompt, by what the chat template writes around them; the whole as one turn of role `prompt` where it does not look
        like the template's. None without a tokenizer."""
        whole = self.decode(prompt_ids, special=True)
        if whole is None:
            return None
        for shape in self._shapes:
            if found := shape.fullmatch(whole.strip()):
                contents = [content.strip() for content in found.groups()]
                return list(zip(("system", "user")[-len(contents) :], contents, strict=True))
        return [("prompt", whole)]

    def gives_back(self, rows: Sequence[dict[str, Any]]) -> bool:
        """Whether the first attempts' ids decode to their recorded texts (or there is nothing to compare)."""
        pairs = _attempts_of(rows)
        return all(self.decode(ids) == text for ids, text in pairs)


def find_words(path: Path, rows: Sequence[dict[str, Any]], tokenizer: str | None = None) -> Words:
    """The tokenizer that made these dialogues: the one named, or that of the run around `path` or of the model that its eval.json names.

    Each is tried on recorded attempts; one that reads their ids otherwise is not used.

    Raises:
        ModelError: the one named cannot be loaded, or is not the right one.
    """
    from mulligan.model import load_tokenizer  # torch: not for a folder that holds no dialogues

    if tokenizer is not None:
        words = Words.of(load_tokenizer(tokenizer), tokenizer)
        if not words.gives_back(rows):
            raise ModelError(f"--tokenizer {tokenizer}: it reads the recorded tokens otherwise than they were meant; give the tokenizer of the model that wrote them")
        return words
    others = 0
    for candidate in filter(_at_hand, dict.fromkeys(_candidates(path))):
        with suppress(ModelError):
            words = Words.of(load_tokenizer(candidate), candidate)
            if words.gives_back(rows):
                return words
            others += 1
    why = "the tokenizers found near it read these tokens otherwise" if others else "no tokenizer was found near it"
    return Words(reason=f"{why}: tokens are shown by their numbers. Make the page with --tokenizer MODEL to see their texts.")


def _candidates(path: Path) -> Iterator[str]:
    """Folders and names, the likeliest first."""
    path = path.resolve()
    folders = [folder for folder in (path, *path.parents) if folder.is_dir()][:3]
    for folder in folders:
        yield from _of_run(folder)
    for folder in folders[:2]:
        with suppress(RunError):
            if model := str(read_evaluation(folder).get("model") or ""):
                for place in (Path(model), folder / model, folder.parent / model):  # it may have been named from another working folder
                    yield from _of_run(place)
                yield model


def _at_hand(name: str) -> bool:
    """Whether it is on this machine: looking at dialogues asks the Hub for nothing."""
    if Path(name).expanduser().exists() or name.startswith("package:"):
        return True
    with suppress(ValueError):  # not a name that the Hub could have
        return isinstance(try_to_load_from_cache(name, "tokenizer_config.json"), str)
    return False


def _of_run(folder: Path) -> Iterator[str]:
    for place in (folder / "model", folder / "initial_model", folder):
        if (place / "tokenizer_config.json").is_file() or (place / "tokenizer.json").is_file():
            yield str(place)
    with suppress(OSError, ValueError, AttributeError):
        model = json.loads((folder / "recipe.json").read_text(encoding="utf-8")).get("model") or {}
        yield from (str(model[key]) for key in ("tokenizer", "path") if model.get(key) and not str(model[key]).startswith("tiny:"))


def _attempts_of(rows: Sequence[dict[str, Any]]) -> list[tuple[list[int], str]]:
    found = []
    for row in rows:
        for attempt in row["attempts"] or ():
            if len(found) == _TRIED:
                return found
            if attempt["text"] and "?" not in attempt["text"]:  # a question mark may stand for what was no text
                found.append((row["token_ids"][attempt["start"] : attempt["end"]], attempt["text"]))
    return found


# -------------------------------------------------------------------------------------------------------- the turns of a prompt


def _prompt_shapes(tokenizer: PreTrainedTokenizerBase) -> list[re.Pattern[str]]:
    """Patterns of a whole prompt with the contents of (system, user), or of (user) alone, as groups: what the template writes around them."""
    shapes = []
    for roles in (("system", "user"), ("user",)):
        marks = [_MARK.format(i) for i in range(len(roles))]
        messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        try:
            text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception:  # the template is somebody's program: it may fail in any way, and takes no system turn perhaps
            continue
        pieces = []
        for mark in marks:
            before, found, text = text.partition(mark)
            pieces.append(before if found else "")
        pieces = [_loosely(piece) for piece in (*pieces, text)]
        if all(pieces):  # contents with nothing between them cannot be told apart
            first, *rest = pieces
            # the first end of the first content, the last end of the last
            contents = ["(.*?)"] * (len(roles) - 1) + ["(.*)"]
            shapes.append(re.compile(first + "".join(content + piece for content, piece in zip(contents, rest, strict=True)), re.DOTALL))
    return shapes


def _loosely(text: str) -> str:
    """A pattern of `text` with any white space for its white space: control tokens may swallow it, and decoders add some."""
    return r"\s*".join(re.escape(word) for word in text.split())
