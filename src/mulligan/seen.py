"""What a model has seen in training: the problems of its run, the dialogues of its own that its warm-up read, and those of the runs that it began from.

An evaluation counts the problems that are among them, since a figure on these says little of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mulligan.config import Recipe
from mulligan.errors import MulliganError
from mulligan.evaluation.faults import NOT_HELD_OUT
from mulligan.protocol import Protocol
from mulligan.runlog import RunFolder
from mulligan.tasks import load_problems
from mulligan.types import Problem
from mulligan.warmup import read_messages


@dataclass(frozen=True, slots=True)
class Seen:
    """What one model was trained on; nothing by default."""

    problems: frozenset[tuple[str, str]] = frozenset()
    """(question, gold answer)."""
    user_turns: frozenset[str] = frozenset()
    """Of the dialogues of `warmup.data`."""
    protocols: tuple[Protocol, ...] = ()
    """How the recipes with such dialogues write a question."""
    doubts: tuple[str, ...] = ()
    """What cannot be read any more."""

    def holds(self, problem: Problem) -> bool:
        return (problem.question, problem.answer) in self.problems or any(turn in self.user_turns for turn in self._turns(problem))

    def warning(self, source: str, problems: Sequence[Problem]) -> str | None:
        """What to say of a set to evaluate on; None where nothing of it was seen."""
        count = sum(map(self.holds, problems))
        return f"{source}: {count} of {len(problems)} problems are trained on as well: {NOT_HELD_OUT}" if count else None

    def _turns(self, problem: Problem) -> Iterator[str]:
        """The user turns that would show the problem: the question as it is, and in the words of each protocol; none without such dialogues."""
        if not self.protocols:
            return
        yield problem.question
        for protocol in self.protocols:
            for n in range(1, protocol.attempts.max_attempts + 1):
                yield protocol.prompt(problem, n)[-1]["content"]


def seen_by_run(recipe: Recipe, problems: Sequence[Problem] | None = None) -> Seen:
    """What the model of a run of `recipe` has seen at its end; `problems`: those of its training, where they are loaded already."""
    before, doubts = _runs_behind(recipe.model.path)
    return _seen_in([recipe, *before], doubts, {} if problems is None else {_source(recipe): problems})


def seen_by_model(path: str) -> Seen:
    """What a model folder has seen, if it is that of a run; of any other model nothing is known."""
    return _seen_in(*_runs_behind(path), {})


def _seen_in(runs: Sequence[Recipe], doubts: list[str], loaded: dict[tuple[str, int | None, int], Sequence[Problem]]) -> Seen:
    turns, protocols = set[str](), list[Protocol]()
    for one in runs:
        try:
            if _source(one) not in loaded:  # the arms of an experiment begin from a warm-up on the same problems
                loaded[_source(one)] = load_problems(one.problems.train, limit=one.problems.limit, seed=one.seed).problems
            if one.warmup.steps and one.warmup.data:
                turns.update(turn["content"] for _, dialogue in read_messages(one.warmup.data) for turn in dialogue if turn["role"] == "user")
                protocols.append(Protocol(one.protocol, one.attempts, one.reward))
        except (MulliganError, OSError) as error:
            doubts.append(_not_known(error))
    return Seen(frozenset((p.question, p.answer) for own in loaded.values() for p in own), frozenset(turns), tuple(protocols), tuple(doubts))


def _source(recipe: Recipe) -> tuple[str, int | None, int]:
    return recipe.problems.train, recipe.problems.limit, recipe.seed


def _runs_behind(model: str) -> tuple[list[Recipe], list[str]]:
    """The recipes of the run that ended with this model, of the one whose model that began from, and so on; and why they cannot be followed further."""
    found, models = list[Recipe](), set[str]()
    while model not in models and (run := RunFolder.of_model(model)):
        models.add(model)
        try:
            found.append(RunFolder.open(run).recipe)
        except MulliganError as error:
            return found, [_not_known(error)]
        model = found[-1].model.path
    return found, []


def _not_known(error: Exception) -> str:
    return f"whether the problems were trained on is not known: {error}"
