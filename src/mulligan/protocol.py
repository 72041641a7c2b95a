"""The attempt state machine: budget, prompt, feedback and reward. Pure, seeded, torch-free.

Everything here is a function of the problem, the verdicts so far and a key; nothing reads a clock, a file or a global generator,
so that a run can be replayed. The method is that of Chung, Du and Fu, "Learning from Failures in Multi-Attempt Reinforcement
Learning" (arXiv 2503.04808): an attempt budget is drawn and stated, a failed attempt is answered with feedback in the same
context, and the dialogue ends at the first success or when the budget is used up.

Templates. `{name}` of a known field is replaced, once (text that was filled in is not searched again). `{}` and lone braces stay,
so that `\\boxed{}` can be written as it is. `{{` and `}}` stand for single braces: write `\\text{{answer}}` for `\\text{answer}`.
A name in braces that is no known field is an error, not text.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

from mulligan.config import AttemptBudget, ProtocolConfig, RewardConfig
from mulligan.errors import ConfigError
from mulligan.types import Attempt, Message, Outcome, Problem

FEEDBACK_MODES = ("none", "verdict", "verdict and attempts left")

FeedbackFunction = Callable[[Problem, Sequence[Attempt], int], str]
"""What an entry point for feedback is: `function(problem, attempts, attempts_left) -> str`, called after `attempts[-1]` failed."""

_ASK_AGAIN = "Please give another answer."
_VERDICT_TEXTS = {
    Outcome.WRONG: "That answer is wrong. Please try again.",
    Outcome.NO_ANSWER: "No answer was found in your attempt. Try again, and end with an answer.",
    Outcome.TRUNCATED: "Your attempt was cut off at the length limit before an answer stood there. Try again, more briefly.",
}
_ATTEMPTS_LEFT = " You have {n} attempt{s} left."

_ENTRY_POINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_PIECE = re.compile(r"\{\}|\{\{|\}\}|\{([A-Za-z_]\w*)\}")
_WITHOUT_ANSWER = (Outcome.NO_ANSWER, Outcome.TRUNCATED)


def draw_key(seed: int | str, step: int, problem_id: str, rollout_index: int) -> int:
    """The 64-bit key from which every token of one rollout is drawn; a function of its arguments alone (blake2b)."""
    return _hash64("sampler", seed, step, problem_id, rollout_index)


_OWN_FIELDS = ("n", "s", "question", "attempt", "answer", "outcome", "reason")
"""Fields of a feedback template that the protocol fills itself."""


class Protocol:
    """How one dialogue goes: what is asked, what is said after a failure, when it ends and what it is worth.

    Raises:
        ConfigError: a template holds an unknown field, or the feedback is neither a mode, a template nor an importable function.
            Every fault is reported at once.
    """

    def __init__(self, config: ProtocolConfig, attempts: AttemptBudget, reward: RewardConfig):
        self.config = config
        self.attempts = attempts
        self.reward = reward
        self._hidden = _hidden_feedback(config)
        faults = _template_faults(config)
        self._feedback: FeedbackFunction | None = None
        try:
            self._feedback = self._feedback_function(config.feedback)
        except ConfigError as error:
            faults += error.faults
        if faults:
            raise ConfigError(faults)

    # ------------------------------------------------------------------------------------------------------------ budget

    def draw_budget(self, seed: int | str, step: int, problem_id: str, rollout_index: int) -> int:
        """The number of attempts N >= 1 of one dialogue, drawn from the recipe's distribution.

        Keyed, so that it depends neither on the order of calls nor on other problems. With `budget_per = "group"` every rollout
        of a problem in a step gets the same N.
        """
        shared = self.config.budget_per == "group"
        key = _hash64("budget", seed, step, problem_id, "group" if shared else rollout_index)
        u = (key >> 11) / 2.0**53  # 53 bits: every value is exact and below 1
        cumulative = 0.0
        for n, weight in enumerate(self.attempts.weights, start=1):
            cumulative += weight
            if u < cumulative:
                return n
        return self.attempts.max_attempts  # the weights' sum rounded to just below 1

    # ------------------------------------------------------------------------------------------------------------- turns

    def prompt(self, problem: Problem, n: int) -> list[Message]:
        """System turn (unless empty) and first user turn of a dialogue with `n` attempts allowed.

        With `state_budget`, `budget_text` is appended to the system turn, or to the user turn if there is no system turn; not
        if one of the two templates states {n} by itself.
        """
        _at_least_one(n, "n")
        config, fields = self.config, _counted(n)
        system = fill(config.system, fields, "protocol.system")
        user = fill(config.question, {**fields, "question": problem.question}, "protocol.question")
        if config.state_budget and not _states_budget(config):
            budget = fill(config.budget_text, fields, "protocol.budget_text")
            system, user = (system + budget, user) if system else (system, user + budget)
        turns = [{"role": "system", "content": system}] if system else []
        return [*turns, {"role": "user", "content": user}]

    def feedback(self, problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> str:
        """Text of the turn that follows the failed `attempts[-1]`, with `attempts_left` >= 1 still to come.

        Raises:
            ConfigError: a field of the template is not among the verdict's, or an entry point returned something else than text.
        """
        assert attempts and attempts[-1].outcome not in (Outcome.CORRECT, Outcome.UNGRADABLE), "feedback is for failed attempts"
        _at_least_one(attempts_left, "attempts_left")
        assert self._feedback is not None
        text = self._feedback(problem, attempts, attempts_left)
        if not isinstance(text, str):
            raise ConfigError(f"protocol.feedback = {self.config.feedback!r} returned {type(text).__name__}: it must return a str")
        return text

    def hidden_feedback(self, attempts_left: int) -> str:
        """Text of the turn that asks for another attempt without a word on the last one (a control of the evaluation)."""
        _at_least_one(attempts_left, "attempts_left")
        return fill(self._hidden, _counted(attempts_left), "protocol.hidden_feedback")

    def finished(self, outcomes: Sequence[Outcome], n: int) -> bool:
        """Whether a dialogue with `n` attempts allowed is over: solved, ungradable, or the budget is used up."""
        return len(outcomes) >= n or (bool(outcomes) and outcomes[-1] in (Outcome.CORRECT, Outcome.UNGRADABLE))

    # ------------------------------------------------------------------------------------------------------------ reward

    def rewards(self, outcomes: Sequence[Outcome]) -> tuple[float, ...]:
        """One reward per attempt, summing to the dialogue's.

        The paper's (section "Reward" of arXiv 2503.04808): +1 if an attempt was correct, -0.5 if none was but one held an answer,
        -1 if none did; it stands on the last attempt. Two options of ours: a success at attempt t is multiplied by
        discount^(t-1), and every attempt without an answer (cut off or not) pays `no_answer_cost` where it stands. A dialogue
        with an ungradable attempt is worth 0 throughout: a broken grader is not a failure of the policy.
        """
        config = self.reward
        if not outcomes or Outcome.UNGRADABLE in outcomes:
            return (0.0,) * len(outcomes)
        assert Outcome.CORRECT not in outcomes[:-1], "a dialogue ends at its first success"
        rewards = [-config.no_answer_cost if outcome in _WITHOUT_ANSWER else 0.0 for outcome in outcomes]
        if outcomes[-1] is Outcome.CORRECT:
            rewards[-1] += config.correct * config.discount ** (len(outcomes) - 1)
        else:
            rewards[-1] += config.wrong if Outcome.WRONG in outcomes else config.no_answer
        return tuple(rewards)

    # ---------------------------------------------------------------------------------------------------------- feedback

    @property
    def feedback_fields(self) -> frozenset[str]:
        """The fields that a feedback template names and that only a verdict can bring; empty for modes and entry points."""
        if self._feedback is None or self._feedback != self._fill_feedback:
            return frozenset()
        return _names(self.config.feedback).difference(_OWN_FIELDS)

    @property
    def feedback_is_function(self) -> bool:
        """Whether the feedback is written by an entry point."""
        return _ENTRY_POINT.fullmatch(self.config.feedback) is not None

    def check_feedback_fields(self, fields: Mapping[str, str]) -> None:
        """Raises ConfigError if the feedback template names a field that neither a verdict with `fields` nor the protocol has."""
        if faults := _unknown_fields(self.config.feedback, [*_OWN_FIELDS, *fields], "protocol.feedback"):
            raise ConfigError(faults)

    def _feedback_function(self, text: str) -> FeedbackFunction:
        """Decide what `protocol.feedback` is: a mode by its exact name, then `module:function` (no space, no brace), then a
        template (it holds a space or a brace). Anything else, and any near miss of a mode's name, is a fault."""
        if text in FEEDBACK_MODES:
            return {"none": _say_nothing, "verdict": _say_verdict}.get(text, _say_verdict_and_left)
        if _ENTRY_POINT.fullmatch(text):
            return _load_function(text)
        near = difflib.get_close_matches(text.lower(), FEEDBACK_MODES, n=1, cutoff=0.8)
        if near and "{" not in text:
            raise ConfigError(f"protocol.feedback = {text!r} is not a mode; did you mean {near[0]!r}?")
        if "{" in text or any(c.isspace() for c in text):
            return self._fill_feedback
        modes = ", ".join(repr(mode) for mode in FEEDBACK_MODES)
        raise ConfigError(f"protocol.feedback = {text!r} is not known; use {modes}, a template such as 'Wrong. {{n}} left.', or module:function")

    def _fill_feedback(self, problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> str:
        last = attempts[-1]
        own = {
            **_counted(attempts_left),
            "question": problem.question,
            "attempt": str(last.index),
            "answer": last.verdict.answer or "",
            "outcome": last.outcome.value.replace("_", " "),
            "reason": last.verdict.reason or "",
        }
        fields = {**last.verdict.fields, **own}
        if last.outcome in _WITHOUT_ANSWER and _names(self.config.feedback) - fields.keys():
            # There was nothing to say a hint about, so the verdict has no such field: say what happened instead.
            return _say_verdict_and_left(problem, attempts, attempts_left)
        return fill(self.config.feedback, fields, "protocol.feedback")


# ------------------------------------------------------------------------------------------------------------------ templates


def fill(template: str, fields: Mapping[str, str], where: str) -> str:
    """Fill a template (rules at the top of this module).

    Raises:
        ConfigError: a field is not among `fields`; names `where` and the fields at hand.
    """
    faults = _unknown_fields(template, fields, where)
    if faults:
        raise ConfigError(faults)

    def piece(match: re.Match[str]) -> str:
        if match[1] is not None:
            return str(fields[match[1]])
        return match[0] if match[0] == "{}" else match[0][0]

    return _PIECE.sub(piece, template)


@functools.lru_cache(maxsize=256)
def _names(template: str) -> frozenset[str]:
    return frozenset(match[1] for match in _PIECE.finditer(template) if match[1] is not None)


def _unknown_fields(template: str, fields: Mapping[str, str] | Sequence[str], where: str) -> list[str]:
    known = ", ".join(f"{{{name}}}" for name in sorted(fields))
    return [
        f"{where}: unknown field {{{name}}}; known fields: {known} (for plain braces write {{{{{name}}}}})"
        for name in sorted(_names(template).difference(fields))
    ]


def _template_faults(config: ProtocolConfig) -> list[str]:
    """What is wrong with the templates of the prompt; feedback is checked when the verdict's fields are known."""
    faults = _unknown_fields(config.system, ("n", "s"), "protocol.system")
    faults += _unknown_fields(config.question, ("question", "n", "s"), "protocol.question")
    faults += _unknown_fields(config.budget_text, ("n", "s"), "protocol.budget_text")
    faults += _unknown_fields(_hidden_feedback(config), ("n", "s"), "protocol.hidden_feedback")
    if "question" not in _names(config.question):
        faults.append("protocol.question never shows the question: put the field {question} into it")
    if not config.state_budget and _states_budget(config):
        faults.append("protocol.state_budget is false, but protocol.system or protocol.question states {n}: drop the field or set state_budget = true")
    return faults


def _hidden_feedback(config: ProtocolConfig) -> str:
    if config.hidden_feedback is not None:
        return config.hidden_feedback
    counts = config.feedback == "verdict and attempts left" or "n" in _names(config.feedback)
    return _ASK_AGAIN + (_ATTEMPTS_LEFT if counts else "")


def _states_budget(config: ProtocolConfig) -> bool:
    return "n" in _names(config.system) | _names(config.question)


def _counted(n: int) -> dict[str, str]:
    return {"n": str(n), "s": "" if n == 1 else "s"}


def _at_least_one(n: int, name: str) -> None:
    if n < 1:
        raise ValueError(f"{name} = {n}: there must be at least 1 attempt")


# ------------------------------------------------------------------------------------------------------------- feedback modes


def _say_nothing(problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> str:
    return _ASK_AGAIN


def _say_verdict(problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> str:
    return _VERDICT_TEXTS[attempts[-1].outcome]


def _say_verdict_and_left(problem: Problem, attempts: Sequence[Attempt], attempts_left: int) -> str:
    return _say_verdict(problem, attempts, attempts_left) + fill(_ATTEMPTS_LEFT, _counted(attempts_left), "feedback")


def _load_function(text: str) -> FeedbackFunction:
    module_name, _, path = text.partition(":")
    where = f"protocol.feedback = {text!r}"
    target: Any
    try:
        target = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ConfigError(f"{where}: module {module_name!r} cannot be imported ({type(error).__name__}: {error}); write module:function") from None
    for name in path.split("."):
        if not hasattr(target, name):
            raise ConfigError(f"{where}: {module_name!r} has no {path!r}; name a function(problem, attempts, attempts_left) that it defines")
        target = getattr(target, name)
    if not callable(target):
        raise ConfigError(f"{where} is a {type(target).__name__}, not a function; name a function(problem, attempts, attempts_left) -> str")
    try:
        inspect.signature(target).bind(None, None, None)
    except TypeError as error:
        raise ConfigError(f"{where} cannot be called with three arguments ({error}); name a function(problem, attempts, attempts_left) -> str") from None
    except ValueError:
        pass  # a built-in that does not tell its parameters
    return cast(FeedbackFunction, target)


def _hash64(purpose: str, *parts: str | int) -> int:
    """64 bits of blake2b; `purpose` keeps draws of different kinds apart, and repr keeps the parts apart from each other."""
    plain = tuple(part if isinstance(part, str) else int(part) for part in parts)  # a NumPy integer must give the same draw
    return int.from_bytes(blake2b(repr(plain).encode(), digest_size=8, person=purpose.encode()).digest(), "big")
