"""Chat template to token ids, the ids that lie between two attempts, and the check that stops an attempt at its answer.

A dialogue is rendered once, as a prompt. What follows an attempt is appended as forced ids that were read off the template when
it was loaded::

    prompt_ids   <|im_start|>user\\n QUESTION <|im_end|>\\n<|im_start|>assistant\\n
    (sampled)    ...the attempt, as it was drawn...
    bridge_ids   <|im_end|>\\n<|im_start|>user\\n FEEDBACK <|im_end|>\\n<|im_start|>assistant\\n
                 (close_turn_ids come first; left out if the policy drew an end-of-turn token itself)

So sampled ids are never encoded again and history is never rendered again: a template that rewrites earlier turns (Qwen3's strips
`<think>` blocks) cannot change what was sampled.

Control tokens are the tokenizer's special tokens and those added tokens that its template writes. Their strings inside a question,
a feedback or an attempt's text stay text. No id is ever used for padding here, so a missing pad token, or pad = eos, is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mulligan.answer_marks import AnswerStop, LineStop, TagStop, answer_stop
from mulligan.errors import ConfigError, DataError, ModelError
from mulligan.types import Message, Transcript

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PAD = " \n "  # put around a placeholder to see whether the template trims contents
_CACHED = 4096  # feedbacks, and prompts
# Unicode's White_Space, which is what tokenizers strip around added tokens; Python's strip() takes \x1c to \x1f as well.
_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_PROMPT_FIX = 'if it takes no system turn, set protocol.system = "" and say it all in protocol.question'
_OTHER_TEMPLATE = "set model.tokenizer to one whose template takes user and assistant turns in alternation"


def _keep(cache: dict[Any, list[int]], key: Any, ids: list[int]) -> list[int]:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = ids
    return ids


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a message's content stands in a rendered template, and whether the template trims it there."""

    message: int
    start: int
    end: int
    trim_left: bool
    trim_right: bool

    def trimmed(self, content: str) -> str:
        content = content.lstrip() if self.trim_left else content
        return content.rstrip() if self.trim_right else content


@dataclass(frozen=True, slots=True)
class _Bridge:
    """The template's text around a feedback, from the end of the assistant's content to the next generation prompt."""

    before: str
    after: str
    slot: _Slot


class Chat:
    """One tokenizer with its chat template.

    Args:
        tokenizer: any Hugging Face tokenizer that has a chat template.
        extra_end_ids: further ids that end a turn, e.g. the model's `generation_config.eos_token_id`.

    Attributes:
        end_ids: drawing one of them ends an attempt: the tokenizer's eos, `extra_end_ids`, and the token with which the template
            closes an assistant turn (a Qwen base model has eos `<|endoftext|>`, but its turns close with `<|im_end|>`).
        close_turn_ids: what ends an assistant turn in the template; eos where the template writes no control token there.

    Raises:
        ModelError: no chat template, or one that ignores `add_generation_prompt` or cannot take a user turn after an assistant turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, extra_end_ids: Iterable[int] = ()):
        self.tokenizer = tokenizer
        self.name = str(getattr(tokenizer, "name_or_path", "") or "the tokenizer")
        if not tokenizer.chat_template:
            raise ModelError(
                f"{self.name} has no chat template: set model.tokenizer to the tokenizer of a chat model with the same vocabulary, "
                "or put a `chat_template` into its tokenizer_config.json"
            )
        self._read_control_tokens()
        self._prefixed = self._adds_prefix()
        self._bridges: dict[str, _Bridge | ModelError] = {"user": self._read_bridge("user")}
        self._bridge_cache: dict[tuple[str, str], list[int]] = {}
        self._prompt_cache: dict[tuple[tuple[str, str], ...], list[int]] = {}
        self._read_turn_end(extra_end_ids)
        self._pieces = _Pieces(self)

    # ---------------------------------------------------------------------------------------------------------- interface

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a prompt with the generation prompt behind it; equal to `apply_chat_template` unless a content holds control tokens.

        Raises:
            ModelError: the template refuses these turns (say, a system turn).
        """
        key = tuple((message["role"], message["content"]) for message in messages)
        ids = self._prompt_cache.get(key)
        if ids is None:  # the rollouts of a group, and a set's few questions, come again and again
            ids = _keep(self._prompt_cache, key, self._prompt(messages))
        return list(ids)

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        if not any(self._control.search(message["content"]) for message in messages):
            return self._apply(messages, _PROMPT_FIX, tokenize=True, add_generation_prompt=True)
        text, slots = self._probe([message["role"] for message in messages], _PROMPT_FIX, padded=range(len(messages)))
        parts: list[tuple[str, bool]] = []
        position = 0
        for slot in slots:
            parts += [(text[position : slot.start], True), (slot.trimmed(messages[slot.message]["content"]), False)]
            position = slot.end
        return self._encode_parts([*parts, (text[position:], True)], anchored=False)

    def bridge_ids(self, feedback: str, role: str, *, turn_closed: bool) -> list[int]:
        """Ids between two attempts: end of turn, feedback turn, generation prompt.

        `turn_closed`: the policy drew one of `end_ids` itself, so none is repeated (even if it was another than the template's).

        Raises:
            ModelError: the template has no place for a turn of this role after an assistant turn.
        """
        ids = self._bridge_cache.get((feedback, role))
        if ids is None:
            bridge = self._bridge(role)
            parts = [(bridge.before, True), (bridge.slot.trimmed(feedback), False), (bridge.after, True)]
            ids = self._encode_parts(parts, anchored=True)
            _keep(self._bridge_cache, (feedback, role), ids)
        return ids[self._close_length :] if turn_closed else list(ids)

    def check_role(self, role: str) -> None:
        """Raise ModelError now if the template cannot take feedback turns of this role."""
        self._bridge(role)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens skipped and spaces as they are."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)  # type: ignore[return-value]

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text: no BOS or EOS is added, and strings of control tokens inside stay text."""
        return self._encode_parts([(text, False)], anchored=False)

    def encode_dialogue(self, messages: Sequence[Message]) -> Transcript:
        """A given dialogue as a transcript for supervised learning: every assistant turn and its end is "sampled" (log-probs 0).

        The turns are (system) user assistant (feedback assistant)...; what is not the assistant's is forced. The loss mask is
        `Transcript.sampled`. An assistant's content is encoded as it stands, `<think>` and the like included; only special
        tokens inside stay text.

        Raises:
            DataError: the turns do not alternate as above, or the dialogue does not end with the assistant.
        """
        first = _check_turns(messages)
        transcript = Transcript()
        transcript.append_forced(self.prompt_ids(messages[:first]))
        for i in range(first, len(messages), 2):
            if i > first:
                transcript.append_forced(self.bridge_ids(messages[i - 1]["content"], messages[i - 1]["role"], turn_closed=True))
            ids = self._encode_plain(self._assistant_prefix + messages[i]["content"], anchored=True, keep_added=True)
            ids += self.close_turn_ids
            transcript.append_sampled(ids, [0.0] * len(ids))
        return transcript

    def stop(self, rule: str, answer_format: str = "boxed") -> AnswerStop | LineStop | TagStop | None:
        """A fresh checker for one attempt under a stop rule; None for `end_of_turn`, which the sampler sees by `end_ids`.

        Raises:
            ConfigError: an unknown rule, or answers of a format that shows no end.
        """
        if rule == "end_of_turn":
            return None
        if rule == "answer":
            return answer_stop(self._pieces, answer_format)
        raise ConfigError(f"stop rule {rule!r} is not known: use 'answer' or 'end_of_turn'")

    # ------------------------------------------------------------------------------------------------ reading the template

    def _read_control_tokens(self) -> None:
        tokenizer = self.tokenizer
        template = str(tokenizer.chat_template)
        control = {str(text): int(tokenizer.convert_tokens_to_ids(text)) for text in tokenizer.all_special_tokens}  # type: ignore[arg-type]
        self._strips: dict[int, tuple[bool, bool]] = {}
        for token_id, token in tokenizer.added_tokens_decoder.items():
            if token.special or token.content in template:
                control[token.content] = token_id
                self._strips[token_id] = (token.lstrip, token.rstrip)
        control.pop("", None)
        self._control_ids = control
        # The unknown token stands for text that the vocabulary lacks, wherever that text comes from.
        self._forbidden = frozenset(i for i in control.values() if i != tokenizer.unk_token_id)
        longest_first = sorted(control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _adds_prefix(self) -> bool:
        """Whether text at the very start of an input is encoded unlike text after a control token (SentencePiece's first space)."""
        control = next((text for text, token_id in self._control_ids.items() if token_id in self._forbidden), None)
        return control is not None and self._encode(control + "a")[1:] != self._encode("a")

    def _apply(self, messages: Sequence[Message], fix: str, **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template([dict(m) for m in messages], return_dict=False, **options)
        except Exception as error:  # the template is somebody's program: it may fail in any way
            raise ModelError(f"the chat template of {self.name} refuses the turns {[m['role'] for m in messages]} ({error}): {fix}") from None

    def _probe(self, roles: Sequence[str], fix: str, *, padded: Iterable[int], generation: bool = True) -> tuple[str, list[_Slot]]:
        """Render placeholders in place of contents; returns the text and the contents' places in order of appearance."""
        padded = frozenset(padded)
        marks = [f"[[mulligan:{i}]]" for i in range(len(roles))]
        contents = [_PAD + mark + _PAD if i in padded else mark for i, mark in enumerate(marks)]
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        text = self._apply(messages, fix, tokenize=False, add_generation_prompt=generation)
        slots = []
        for i, mark in enumerate(marks):
            if text.count(mark) != 1:
                what = "repeats" if mark in text else "drops"
                raise ModelError(f"the chat template of {self.name} {what} the {roles[i]} turn among {list(roles)}: {fix}")
            start, end, kept = text.index(mark), text.index(mark) + len(mark), i in padded
            left, right = kept and text.endswith(_PAD, 0, start), kept and text.startswith(_PAD, end)
            slots.append(_Slot(i, start - len(_PAD) * left, end + len(_PAD) * right, kept and not left, kept and not right))
        return text, sorted(slots, key=lambda slot: slot.start)

    def _bridge(self, role: str) -> _Bridge:
        """The bridge for a role: read once; an error is kept and raised again."""
        if role not in self._bridges:
            try:
                self._bridges[role] = self._read_bridge(role)
            except ModelError as error:
                self._bridges[role] = error
        bridge = self._bridges[role]
        if isinstance(bridge, ModelError):
            raise bridge
        return bridge

    def _read_bridge(self, role: str) -> _Bridge:
        """What follows an assistant's content, by difference; checked to be the same after a second attempt."""
        fix = _OTHER_TEMPLATE if role == "user" else 'set protocol.feedback_role = "user"'
        found, openings = [], []
        for roles in (["user", "assistant", role], ["user", "assistant", role, "assistant", role]):
            last = len(roles) - 1
            text, slots = self._probe(roles, fix, padded=[last])
            by_message = {slot.message: slot for slot in slots}
            answer, slot = by_message[last - 1], by_message[last]
            if slot.start < answer.end:
                raise ModelError(f"the chat template of {self.name} moves a late {role} turn to the front: {fix}")
            found.append(_Bridge(text[answer.end : slot.start], text[slot.end :], slot))
            openings.append(text[: answer.start])
        first, second = found
        if (first.before, first.after) != (second.before, second.after):
            raise ModelError(f"the chat template of {self.name} writes a second {role} turn of feedback unlike the first: {fix}")
        self._assistant_prefix = self._prefix_of_answers(openings[0])
        return first

    def _prefix_of_answers(self, rendered: str) -> str:
        """White space that the template puts between generation prompt and an assistant's content: the policy would write it.

        Raises:
            ModelError: the template opens an assistant's turn, but not for the generation prompt: the policy would answer in the user's turn.
        """
        prompt, _ = self._probe(["user"], _OTHER_TEMPLATE, padded=[])
        rest = rendered.removeprefix(prompt)
        if not rendered.startswith(prompt) or not rest:
            return ""
        if rest.isspace():
            return rest
        if prompt == self._probe(["user"], _OTHER_TEMPLATE, padded=[], generation=False)[0]:
            opening = f"{{% if add_generation_prompt %}}{{{{ {rest!r} }}}}{{% endif %}}"
            raise ModelError(f"the chat template of {self.name} ignores add_generation_prompt: end it with {opening}, or {_OTHER_TEMPLATE}")
        return ""  # more than the prompt opens (a channel, an empty thought): the policy writes it, or leaves it out

    def _read_turn_end(self, extra_end_ids: Iterable[int]) -> None:
        text, slots = self._probe(["user", "assistant"], _OTHER_TEMPLATE, padded=[], generation=False)
        tail = text[slots[-1].end :]
        bridge = self._bridge("user")
        eos = self.tokenizer.eos_token_id
        ends = {int(i) for i in extra_end_ids} | (set() if eos is None else {int(eos)})  # type: ignore[arg-type]
        match = self._control.search(tail)
        if match is None:
            # Nothing but the next turn's opening ends this one; some models draw that opening as their end of turn (GLM-4).
            match = self._control.match(bridge.before)
            match = match if match and self._control_ids[match[0]] in ends else None
            tail = bridge.before
        if match is not None and bridge.before.startswith(tail[: match.end()]):
            self.close_turn_ids = self._encode_parts([(tail[: match.end()], True)], anchored=True)
            self._close_length = len(self.close_turn_ids)
            ends.add(self._control_ids[match[0]])
        else:
            self.close_turn_ids = [] if eos is None else [int(eos)]  # type: ignore[arg-type]
            self._close_length = 0  # the template's own text does not hold it, so there is nothing to leave out
        self.end_ids = frozenset(ends)

    # ----------------------------------------------------------------------------------------------------------- encoding

    def _encode(self, text: str, *, split: bool = False) -> list[int]:
        if not text:
            return []
        options: dict[str, Any] = {"split_special_tokens": True} if split else {}
        return list(self.tokenizer.encode(text, add_special_tokens=False, **options))

    def _encode_parts(self, parts: Iterable[tuple[str, bool]], *, anchored: bool) -> list[int]:
        """Encode (text, is_template) parts: control tokens of the template become ids, all text between two of them is encoded in one piece
        (so a content merges with the template's text around it as in `apply_chat_template`) and its control strings stay text."""
        ids: list[int] = []
        text, strip_next = "", False
        for part, is_template in parts:
            position = 0
            for match in self._control.finditer(part) if is_template else ():
                token_id = self._control_ids[match[0]]
                lstrip, rstrip = self._strips.get(token_id, (False, False))
                text += part[position : match.start()]
                text = text.lstrip(_WHITE_SPACE) if strip_next else text
                ids += self._encode_plain(text.rstrip(_WHITE_SPACE) if lstrip else text, anchored=anchored or bool(ids))
                ids.append(token_id)
                text, strip_next, position = "", rstrip, match.end()
            text += part[position:]
        return ids + self._encode_plain(text.lstrip(_WHITE_SPACE) if strip_next else text, anchored=anchored or bool(ids))

    def _encode_plain(self, text: str, *, anchored: bool, keep_added: bool = False) -> list[int]:
        """Encode text that holds no control token by intention. `anchored`: it follows other tokens. `keep_added`: added tokens that are not
        special (`<think>`) become their ids."""
        forbidden = self._forbidden
        if keep_added:
            forbidden = forbidden & {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        ids = self._encode_anchored(text, anchored)
        if forbidden.isdisjoint(ids):
            return ids
        # The tokenizer takes a string even so (an added token that is not special): cut each behind its first character. What it should
        # still find, say after normalising the text, is dropped: no content may bring a control token.
        cuts = [match.start() + 1 for match in self._control.finditer(text) if self._control_ids[match[0]] in forbidden]
        ids = []
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            ids += self._encode_anchored(text[start:end], anchored or bool(ids))
        return [i for i in ids if i not in forbidden]

    def _encode_anchored(self, text: str, anchored: bool) -> list[int]:
        """Encode text; `anchored`: as it would be after other tokens, behind an anchor whose ids are then cut off."""
        for anchor in ("\n", "a", ".") if anchored and self._prefixed and text else ():
            head, ids = self._encode(anchor, split=True), self._encode(anchor + text, split=True)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        return self._encode(text, split=True)


def _check_turns(messages: Sequence[Message]) -> int:
    """Index of the first assistant turn of a dialogue that alternates; DataError otherwise."""
    roles = [message.get("role") for message in messages]
    for i, message in enumerate(messages):
        if not isinstance(message.get("content"), str):
            raise DataError(f"messages[{i}] has no text: give it a \"content\" string")
    first = 2 if roles[:1] == ["system"] else 1
    if len(messages) <= first or roles[first - 1] != "user" or (len(messages) - first) % 2 == 0:
        raise DataError(f"a dialogue of roles {roles} cannot be learned from: write (system) user assistant, then pairs of feedback (user or system) and assistant")
    for i in range(first, len(messages)):
        expected = ("assistant",) if (i - first) % 2 == 0 else ("user", "system")
        if roles[i] not in expected:
            raise DataError(f"messages[{i}] has role {roles[i]!r}: it must be {' or '.join(expected)} there")
    return first


# ------------------------------------------------------------------------------------------------------------------------ stop


class _Pieces(dict[int, str]):
    """The text of each token id as it stands inside a sentence, looked up once per id. Special tokens have none.

    A token that holds part of a character decodes to a replacement mark for that part; its ASCII bytes, the only ones that matter to
    AnswerStop, come out whole.
    """

    def __init__(self, chat: Chat):
        super().__init__()
        self._chat = chat
        anchor = [i for i in chat.encode_text("a") + chat.encode_text("1") if chat.decode([i]).strip()]
        self._anchor = anchor[:1]
        self._anchor_text = chat.decode(self._anchor)

    def __missing__(self, token_id: int) -> str:
        text = self._chat.decode([*self._anchor, token_id])
        # Decoders may treat the first token of a text in another way (SentencePiece drops its space): hence the anchor.
        piece = text[len(self._anchor_text) :] if text.startswith(self._anchor_text) else self._chat.decode([token_id])
        self[token_id] = piece
        return piece
