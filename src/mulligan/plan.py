"""Everything that can be found wrong with a recipe before a model's weights are loaded, and what a run of it will need."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mulligan.chat import Chat
from mulligan.config import EvalConfig, Recipe
from mulligan.errors import ConfigError, ContextOverflow, DataError, ModelError, MulliganError
from mulligan.evaluation import (
    Evaluation,
    KeptPlays,
    Rival,
    control_faults,
    evaluate,
    parse_attempts,
    settings_of,
    write_evaluation,
)
from mulligan.grading import Grader, make_grader
from mulligan.learning.logits import most_logits
from mulligan.model import autocast_of, check_int8, context_and_parameters, load_tokenizer, resolve_device
from mulligan.model.tiny import tiny_tokenizer
from mulligan.protocol import Protocol
from mulligan.rollout import Player
from mulligan.seen import Seen, seen_by_run
from mulligan.tasks import ProblemSet, SetAside, ceilings, demonstrator, grade_answer, load_problems, self_check
from mulligan.types import Attempt, Problem, Rollout, StopReason, VerdictKind
from mulligan.warmup import read_dialogues

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe that can run: its problems are loaded, checked against their own gold answers, and fit the context."""

    recipe: Recipe
    train_set: ProblemSet
    eval_sets: tuple[ProblemSet, ...]
    parameters: int
    longest_prompt: int
    doubts: tuple[str, ...] = ()
    """On what made-up answers the feedback function failed."""
    seen: Seen = field(default_factory=Seen)
    """What its model will have been trained on; nothing where nothing is evaluated."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.train_set.problems

    @property
    def set_aside(self) -> dict[str, tuple[SetAside, ...]]:
        return {s.source: s.set_aside for s in (self.train_set, *self.eval_sets)}

    @property
    def remarks(self) -> list[str]:
        """What a careful reader of the results would want to know about the problems."""
        sets = (self.train_set, *self.eval_sets)
        found = [f"{s.source}: {s.unchecked} problems have no gold answer to check" for s in sets if s.unchecked]
        shared = [text for s in self.eval_sets if (text := self.seen.warning(s.source, s.problems))]
        return [*self.doubts, *self.seen.doubts, *found, *(text for s in sets for text in s.remarks), *shared]

    @property
    def data_hashes(self) -> dict[str, str]:
        """A hash of every problem set's ids, in order."""
        from hashlib import blake2b

        return {s.source: blake2b("".join(p.id for p in s.problems).encode(), digest_size=16).hexdigest() for s in (self.train_set, *self.eval_sets)}

    @property
    def problems_described(self) -> str:
        return f"{len(self.problems)} problems from `{self.recipe.problems.train}`"

    @property
    def tokens_per_step(self) -> int:
        """Most tokens that one step can sample and read."""
        train = self.recipe.train
        return train.problems_per_step * train.group_size * self.recipe.protocol.max_dialogue_tokens

    @property
    def memory_bytes(self) -> int:
        """Estimate of a run's memory: float32 weights, their copy packed for the sampler, gradients and Adam's two moments, critic and
        reference (packed as well), one chunk of logits (four copies) and one pass's activations, and the cache of all rows. Upper estimates: every
        dialogue at its token cap, every pass full."""
        recipe = self.recipe
        copies = 5 + (4 if recipe.advantage.name == "gae" and recipe.critic.kind == "separate" else 0) + (2 if recipe.loss.kl > 0 else 0)
        shape = context_and_parameters(recipe.model)
        logits = 4 * min(recipe.train.micro_batch_tokens * shape.vocabulary, max(most_logits(resolve_device(recipe.model.device)), shape.vocabulary))
        rows = min(recipe.sampling.max_rows, recipe.train.problems_per_step * recipe.train.group_size)
        cache = rows * recipe.protocol.max_dialogue_tokens * shape.cache_per_token
        activations = recipe.train.micro_batch_tokens * shape.activations_per_token // (8 if recipe.model.gradient_checkpointing else 1)
        return 4 * (copies * self.parameters + logits + activations + cache)

    def evaluate(
        self, player: Player, folder: Path, *, model: str, fingerprint: str | None = None, on_done: Callable[[Rollout], None] | None = None
    ) -> dict[str, float]:
        """Evaluate on the recipe's eval sets, write `eval.json`, the problems' values and the dialogues; returns the accuracies for the
        metrics. `model` is what eval.json calls it; with the model's `fingerprint` an evaluation that was stopped goes on where it was."""
        recipe = self.recipe
        kept = KeptPlays(player, folder, model=fingerprint, recipe=recipe) if fingerprint else None
        budgets = parse_attempts(recipe.eval_attempts)
        evaluations = [
            evaluate_set(
                player, s, recipe.eval, budgets, seed=recipe.seed, trained_attempts=recipe.attempts.max_attempts, seen=self.seen, kept=kept, on_done=on_done
            )
            for s in self.eval_sets
        ]  # fmt: skip
        write_evaluation(folder, evaluations, model=model, settings=settings_of(recipe))
        if kept is not None:
            kept.forget()
        return {f"{e.name}/accuracy@{k}": interval.mean for e in evaluations for k, interval in e.accuracy.items()}


def evaluate_set(
    player: Player,
    problems: ProblemSet,
    config: EvalConfig,
    budgets: Sequence[int],
    *,
    seed: int,
    top_p: float = 1.0,
    one_pass: bool = False,
    trained_attempts: int | None = None,
    seen: Seen | None = None,
    rivals: Sequence[Rival] = (),
    settings: Mapping[str, Any] | None = None,
    kept: KeptPlays | None = None,
    on_done: Callable[[Rollout], None] | None = None,
) -> Evaluation:
    """Evaluate on one problem set with `budgets` attempts, beside the ceilings that its task has under the player's feedback, and warn of problems of
    it that were `seen` in training, and of what was remarked when it was read. `kept`: the player that keeps what this one plays, to go on from there."""
    done = evaluate(
        kept or player,
        problems,
        name=problems.source,
        attempts=budgets,
        samples=config.samples,
        temperature=config.temperature,
        temperatures=config.temperatures,
        top_p=top_p,
        one_pass=one_pass,
        controls=config.controls,
        seed=seed,
        trained_attempts=trained_attempts,
        ceilings=ceilings(problems, budgets, shown=shown_fields(player.protocol)),
        rivals=rivals,
        settings=settings,
        on_done=on_done,
    )
    shared = seen.warning(problems.source, problems.problems) if seen else None
    return replace(done, warnings=(*done.warnings, *problems.remarks, *([shared] if shared else [])))


def check_evaluation(recipe: Recipe) -> None:
    """Raises ConfigError: the numbers of attempts cannot be read, or are too few for the controls."""
    if faults := control_faults(recipe.eval.controls, parse_attempts(recipe.eval_attempts)):
        raise ConfigError([f"eval: {fault}" for fault in faults])


def shown_fields(protocol: Protocol) -> frozenset[str] | None:
    """The verdict's fields that feedback can show; None where a function writes it, which may show any. Attempts without a history see no feedback."""
    if protocol.config.history == "none":
        return frozenset()
    return None if protocol.feedback_is_function else frozenset(protocol.feedback_fields)


def make_plan(recipe: Recipe) -> Plan:
    """Load and check everything light: problems, gold answers, tokenizer and template, prompt lengths, feedback, evaluation.

    Raises:
        ConfigError: with all faults that were found, if there are several.
        DataError, ModelError, ContextOverflow: a single fault, as it is.
    """
    faults: list[MulliganError] = []

    def attempt(function: Callable[[], T]) -> T | None:
        try:
            return function()
        except MulliganError as error:
            faults.append(error)
            return None

    protocol = attempt(lambda: Protocol(recipe.protocol, recipe.attempts, recipe.reward))
    grader = attempt(lambda: make_grader(recipe.grader))
    attempt(lambda: check_evaluation(recipe))
    shape = attempt(lambda: context_and_parameters(recipe.model))
    # Where there is no usable model there is no tokenizer to look for, unless it has a place of its own.
    chat = attempt(lambda: light_chat(recipe)) if shape or recipe.model.tokenizer else None
    device = attempt(lambda: resolve_device(recipe.model.device))
    if recipe.sampling.rollout_precision == "int8" and device is not None:
        attempt(lambda: check_int8(device, autocast_of(recipe.model)))
    if recipe.warmup.steps and not recipe.warmup.data:
        attempt(lambda: demonstrator(recipe.problems.train))
        if recipe.grader.format != "boxed":
            faults.append(ConfigError(f"the built-in task's own dialogues box their answers, but grader.format = {recipe.grader.format!r}: set warmup.data, or grader.format = 'boxed'"))
    if recipe.warmup.data and not Path(recipe.warmup.data).is_file():
        faults.append(DataError(f"{recipe.warmup.data}: no such file (warmup.data)"))
    elif recipe.warmup.steps and recipe.warmup.data and chat and shape:
        attempt(lambda: check_dialogues(recipe.warmup.data, chat, shape.context, shape.vocabulary))  # type: ignore[arg-type]
    train_set = attempt(lambda: load_checked(recipe.problems.train, recipe.problems.limit, recipe.seed, grader)) if grader else None
    eval_sets = [attempt(lambda s=s: load_checked(s, recipe.eval.limit or None, recipe.seed, grader)) for s in recipe.problems.eval] if grader else []
    faults += [ConfigError(f"problems.eval: {s} is given twice: drop one") for s, n in Counter(recipe.problems.eval).items() if n > 1]
    doubts: list[str] = []
    for problems in [train_set, *eval_sets]:
        if protocol and grader and problems:
            doubts += attempt(lambda p=problems: check_feedback(protocol, p, grader)) or []  # type: ignore[misc]
    longest = 0
    if protocol and chat and shape and not faults:
        for problems in [train_set, *eval_sets]:
            limit = min(recipe.protocol.max_dialogue_tokens, shape.context)
            got = attempt(lambda p=problems, most=limit: longest_prompt(p, protocol, chat, most, shape.vocabulary))  # type: ignore[misc]
            longest = max(longest, got or 0)
    if grader:
        grader.close()
    faults = list({str(fault): fault for fault in faults}.values())  # a missing folder is missed by model and tokenizer alike
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ConfigError([line for fault in faults for line in str(fault).splitlines()])
    assert train_set is not None and shape is not None
    seen = seen_by_run(recipe, train_set.problems) if eval_sets else Seen()
    return Plan(recipe, train_set, tuple(s for s in eval_sets if s is not None), shape.parameters, longest, tuple(dict.fromkeys(doubts)), seen)


def load_checked(source: str, limit: int | None, seed: int, grader: object) -> ProblemSet:
    """Load problems and set aside those whose gold answer fails against itself.

    Raises:
        DataError: the set is empty, or every problem was set aside.
    """
    problems = asyncio.run(self_check(load_problems(source, limit=limit, seed=seed), grader))  # type: ignore[arg-type]
    if not problems.problems:
        first = f", the first because {problems.set_aside[0].reason}" if problems.set_aside else ""
        raise DataError(f"{source}: no usable problem ({len(problems.set_aside)} set aside{first})")
    return problems


def check_play(recipe: Recipe, sets: Sequence[ProblemSet], grader: Grader) -> list[str]:
    """What can be found out, before weights are loaded, of playing these problems by a recipe's protocol with a model that is there already.

    Returns what will go wrong with some dialogues: prompts that leave no room for an answer, a feedback function that failed.

    Raises:
        ConfigError: as `check_feedback`.
        ModelError: as `check_ids`.
    """
    shape = context_and_parameters(recipe.model)  # first: a folder without weights may lack a tokenizer as well, which is not what to tell of it
    protocol, chat = Protocol(recipe.protocol, recipe.attempts, recipe.reward), light_chat(recipe)
    doubts: list[str] = []
    for problems in sets:
        doubts += check_feedback(protocol, problems, grader)
        try:
            longest_prompt(problems, protocol, chat, min(recipe.protocol.max_dialogue_tokens, shape.context), shape.vocabulary)
        except ContextOverflow as error:
            doubts.append(f"{error}: until then it counts as unsolved")
    return list(dict.fromkeys(doubts))


def check_feedback(protocol: Protocol, problems: ProblemSet, grader: Grader) -> list[str]:
    """Try the feedback template, or function, on a real wrong verdict of each source: only the grader knows which fields its verdicts have.

    Returns what the function failed with. That is no fault yet: a made-up answer may lack what it finds in every real attempt.

    Raises:
        ConfigError: the template names a field that they do not have.
    """
    doubts: list[str] = []
    called = protocol.feedback_is_function and protocol.config.history != "none"
    if not protocol.feedback_fields and not called:
        return doubts
    for source in dict.fromkeys(p.source for p in problems):
        problem, *others = (p for p in problems if p.source == source)
        wrong = list(dict.fromkeys(p.answer for p in others if p.answer and p.answer != problem.answer))[:20]
        for answer in [*wrong, "0", "1"]:
            verdict = asyncio.run(grade_answer(grader, problem, answer))
            if verdict.kind is VerdictKind.WRONG:
                made_up = Attempt(1, 0, 0, f"\\boxed{{{answer}}}", StopReason.END_OF_TURN, verdict)
                if not called:
                    protocol.check_feedback_fields(verdict.fields)
                elif failure := feedback_failure(protocol, problem, made_up):
                    doubts.append(failure)
                break
    return doubts


def feedback_failure(protocol: Protocol, problem: Problem, attempt: Attempt) -> str | None:
    """What the feedback function failed with after a made-up first attempt of two; None if it did not."""
    try:
        protocol.feedback(problem, [attempt], 1)
    except MulliganError as error:  # it returned no text
        return f"{error} (tried on the made-up answer {attempt.text!r})"
    except Exception as error:  # a user's function may fail in any way
        return (
            f"protocol.feedback = {protocol.config.feedback!r} raised {type(error).__name__}: {error} on the made-up answer {attempt.text!r}: "
            "a dialogue where it raises is broken, and too many of them stop the run"
        )
    return None


def write_set_aside(folder: Path, sets: Sequence[ProblemSet]) -> None:
    """List the problems that are not used in `set_aside.jsonl`: source, id, question, gold answer, reason. No file if there are none."""
    path = folder / "set_aside.jsonl"
    path.unlink(missing_ok=True)
    rows = [
        {"source": s.source, "id": one.problem.id, "question": one.problem.question, "answer": one.problem.answer, "reason": one.reason}
        for s in sets
        for one in s.set_aside
    ]
    if rows:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def check_dialogues(path: str, chat: Chat, limit: int, vocabulary: int) -> None:
    """Read the warm-up's dialogues once. Raises DataError as `read_dialogues`, ModelError as `check_ids`, ContextOverflow for one longer than `limit`."""
    for number, transcript in enumerate(read_dialogues(path, chat), 1):
        if len(transcript) > limit:
            raise ContextOverflow(f"{path}: dialogue {number} has {len(transcript)} tokens and the model's context {limit}: shorten it or leave it out (warmup.data)")
        check_ids(transcript.token_ids, chat, vocabulary)


def light_chat(recipe: Recipe) -> Chat:
    """The recipe's tokenizer and template, without the model's weights."""
    model = recipe.model
    if model.path.startswith("tiny:") and model.tokenizer is None:
        chat = Chat(tiny_tokenizer())
    else:
        chat = Chat(load_tokenizer(model.tokenizer) if model.tokenizer else load_tokenizer(model.path, model.revision))
    chat.check_role(recipe.protocol.feedback_role)
    return chat


def check_ids(ids: Sequence[int], chat: Chat, vocabulary: int) -> None:
    """Raises ModelError if the model has no embedding of one of these tokens. Others that the tokenizer may have besides do no harm."""
    if max(ids, default=0) >= vocabulary:
        raise ModelError(f"{chat.name} writes tokens that the model, with a vocabulary of {vocabulary:,}, does not have: set model.tokenizer to one of the same vocabulary")


def longest_prompt(problems: ProblemSet, protocol: Protocol, chat: Chat, limit: int, vocabulary: int) -> int:
    """Tokens of the longest prompt. Raises ContextOverflow naming the problem whose prompt leaves no room for an answer; ModelError as `check_ids`, of prompts
    and of what stands between two attempts."""
    longest = 0
    n = protocol.attempts.max_attempts
    bridge = chat.bridge_ids(protocol.hidden_feedback(1), protocol.config.feedback_role, turn_closed=False)
    check_ids([*chat.close_turn_ids, *bridge], chat, vocabulary)
    for problem in _unlike(problems.problems):
        ids = chat.prompt_ids(protocol.prompt(problem, n))
        check_ids(ids, chat, vocabulary)
        length = len(ids)
        longest = max(longest, length)
        if length >= limit:
            raise ContextOverflow(
                f"{problems.source}: the prompt of problem {problem.id} has {length} tokens and a dialogue may have {limit}: "
                "raise protocol.max_dialogue_tokens (up to the model's context), or leave the problem out"
            )
    return longest


def _unlike(problems: Sequence[Problem]) -> Sequence[Problem]:
    """One problem per length of question among very many generated ones, which differ in symbols, not in tokens."""
    if len(problems) <= 5000 or not all(p.source.startswith(("gym:", "builtin:")) for p in problems):
        return problems
    return list({len(p.question): p for p in problems}.values())
