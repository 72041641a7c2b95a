"""Accuracy against the number of attempts allowed, beside pass@k of the same model from independent samples.

Suffix: `_P` problem. A value that does not exist for a problem (the grader failed) is NaN and takes no part: a broken grader is
never a wrong answer. A dialogue that broke (context overflow) *is* unsolved: the policy gave no correct answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mulligan.errors import ConfigError, DataError, GraderError
from mulligan.evaluation.attempts import AttemptFigures, attempt_figures
from mulligan.evaluation.intervals import Interval, bootstrap_mean, paired_difference
from mulligan.evaluation.passk import pass_at_k
from mulligan.sampling import SamplingParams
from mulligan.types import Group, Outcome, Problem, Rollout

SMALL_SET = 100
"""Problem sets below this size get a warning: their intervals are about 20 points wide."""

Values = NDArray[np.float64]
OnDone = Callable[[Rollout], None]


class Player(Protocol):
    """Plays dialogues; `mulligan.rollout.Player` is one. Returns one group per problem, in the order of `problems`."""

    def play(
        self,
        problems: Sequence[Problem],
        *,
        seed: int,
        step: int,
        group_size: int = 1,
        budget: int | None = None,
        params: SamplingParams,
        stage: str = "train",
        on_done: OnDone | None = None,
    ) -> list[Group]: ...


class ProblemSet(Protocol):
    """What a loaded problem source offers; `mulligan.tasks.ProblemSet` is one."""

    @property
    def problems(self) -> tuple[Problem, ...]: ...

    @property
    def source(self) -> str: ...

    @property
    def set_aside(self) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Play:
    """The dialogues behind the figures: `stage` is `attempts` or `samples`, `k` the budget of attempts."""

    stage: Literal["attempts", "samples"]
    k: int
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One model on one problem set. Figures are fractions in [0, 1], keyed by the number k of attempts (or samples) allowed.

    `mode` is `per_budget` (each k is its own dialogue with that budget stated) or `one_pass` (one dialogue with the largest
    budget, counted up to attempt k: cheaper, and the model was told a larger budget than k). Rates by attempt come from the
    dialogues with the largest budget. `gain` is accuracy minus pass@k at equal k, paired over problems.
    """

    name: str
    source: str
    mode: Literal["per_budget", "one_pass"]
    temperature: float
    sample_temperature: float
    top_p: float
    samples: int
    seed: int
    problem_ids: tuple[str, ...]
    set_aside: int
    accuracy: Mapping[int, Interval]
    pass_at_k: Mapping[int, Interval]
    gain: Mapping[int, Interval]
    figures: AttemptFigures
    attempts_used: Mapping[int, Interval]
    tokens_per_problem: Mapping[int, Interval]
    tokens_per_solved: Mapping[int, float | None]
    tokens_per_sample: Interval | None
    ungradable: Mapping[str, int]
    errors: Mapping[str, int]
    starved: Mapping[str, int]
    """Dialogues that the token cap ended with attempts left: they count as unsolved."""
    warnings: tuple[str, ...]
    solved: Mapping[int, Values] = field(repr=False)
    """k -> `_P`: 1 solved, 0 not, NaN ungradable."""
    passed: Mapping[int, Values] = field(repr=False)
    """k -> `_P`: the problem's estimate of pass@k, NaN where too few samples could be graded."""
    plays: tuple[Play, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """JSON-able; keys of k are strings, as JSON wants them."""
        figures = self.figures
        return {
            "name": self.name,
            "source": self.source,
            "mode": self.mode,
            "temperature": self.temperature,
            "sample_temperature": self.sample_temperature,
            "top_p": self.top_p,
            "samples": self.samples,
            "seed": self.seed,
            "problems": len(self.problem_ids),
            "set_aside": self.set_aside,
            "accuracy": _intervals_json(self.accuracy),
            "pass_at_k": _intervals_json(self.pass_at_k),
            "gain": _intervals_json(self.gain),
            "conditional_success": {str(t): rate.to_json("solved", "reached") for t, rate in figures.conditional_success.items()},
            "repeat_rate": {"overall": figures.repeats_overall.to_json(), "by_attempt": {str(t): r.to_json() for t, r in figures.repeats.items()}},
            "no_answer": {"overall": figures.no_answer_overall.to_json(), "by_attempt": {str(t): r.to_json() for t, r in figures.no_answer.items()}},
            "truncated": {"overall": figures.truncated_overall.to_json(), "by_attempt": {str(t): r.to_json() for t, r in figures.truncated.items()}},
            "attempts_used": _intervals_json(self.attempts_used),
            "tokens_per_problem": _intervals_json(self.tokens_per_problem),
            "tokens_per_solved": {str(k): value for k, value in self.tokens_per_solved.items()},
            "tokens_per_sample": self.tokens_per_sample.to_json() if self.tokens_per_sample else None,
            "ungradable": dict(self.ungradable),
            "errors": dict(self.errors),
            "starved": dict(self.starved),
            "warnings": list(self.warnings),
        }


def num_dialogues(problems: int, attempts: Sequence[int], samples: int, one_pass: bool = False) -> int:
    """How many dialogues `evaluate` will play: the length of its progress bar."""
    return problems * ((1 if one_pass else len(set(attempts))) + samples)


def evaluate(
    player: Player,
    problems: ProblemSet | Sequence[Problem],
    *,
    name: str,
    attempts: Sequence[int],
    samples: int = 0,
    temperature: float = 0.0,
    sample_temperature: float = 1.0,
    top_p: float = 1.0,
    one_pass: bool = False,
    seed: int = 0,
    on_done: OnDone | None = None,
) -> Evaluation:
    """Play every problem with each number of attempts, and `samples` times with one attempt for pass@k.

    Args:
        name: of the problem set, in tables and files.
        attempts: budgets k to evaluate with.
        samples: independent single-attempt samples per problem; 0: no pass@k. pass@k is given for k up to the smaller of
            `samples` and the largest budget.
        temperature: of the dialogues (0: greedy); `sample_temperature` is that of the samples, which cannot be greedy.
        on_done: called once per finished dialogue.

    Raises:
        ConfigError: a budget below 1, samples below 0, samples drawn greedily, top_p of 0.
        DataError: no problems.
        GraderError: not one dialogue could be graded with some number of attempts.
    """
    budgets = _checked_settings(attempts, samples, temperature, sample_temperature, top_p)
    chosen, source, set_aside = _unpack(problems, name)
    largest = budgets[-1]

    def play(k: int, *, step: int, group_size: int, heat: float) -> tuple[Group, ...]:
        groups = player.play(
            chosen, seed=seed, step=step, group_size=group_size, budget=k, params=SamplingParams(heat, top_p), stage="eval", on_done=on_done
        )
        assert [g.problem.id for g in groups] == [p.id for p in chosen], "a player returns one group per problem, in order"
        return tuple(groups)

    dialogues = {k: play(k, step=k, group_size=1, heat=temperature) for k in ((largest,) if one_pass else budgets)}
    rollouts = {k: [g.rollouts[0] for g in dialogues[largest if one_pass else k]] for k in budgets}
    solved = {k: np.array([_solved_within(r, k) for r in rollouts[k]]) for k in budgets}
    accuracy = {k: _mean(solved[k], f"{name}: accuracy with {k} attempts") for k in budgets}
    # step 0 keys the samples apart from every dialogue, so that pass@1 is not the same draw as one attempt
    drawn = play(1, step=0, group_size=samples, heat=sample_temperature) if samples else ()
    passed = _pass_values(drawn, min(largest, samples))
    tokens = {k: np.array([float(sum(a.num_tokens for a in r.attempts if a.index <= k)) for r in rollouts[k]]) for k in budgets}
    used = {k: np.array([float(min(len(r.attempts), k)) for r in rollouts[k]]) for k in budgets}
    faults = {
        kind: {**{str(k): sum(map(test, rollouts[k])) for k in dialogues}, "samples": sum(test(r) for g in drawn for r in g.rollouts)}
        for kind, test in (("ungradable", lambda r: r.ungradable), ("errors", lambda r: r.error is not None), ("starved", _starved))
    }
    return Evaluation(
        name=name,
        source=source,
        mode="one_pass" if one_pass else "per_budget",
        temperature=temperature,
        sample_temperature=sample_temperature,
        top_p=top_p,
        samples=samples,
        seed=seed,
        problem_ids=tuple(p.id for p in chosen),
        set_aside=set_aside,
        accuracy=accuracy,
        pass_at_k={k: _mean(values_P, f"{name}: pass@{k}") for k, values_P in passed.items() if not np.isnan(values_P).all()},
        gain={k: difference for k in budgets if k in passed and (difference := _paired(solved[k], passed[k])) is not None},
        figures=attempt_figures(rollouts[largest], largest),
        attempts_used={k: bootstrap_mean(v, bounds=None) for k, v in used.items()},
        tokens_per_problem={k: bootstrap_mean(v, bounds=None) for k, v in tokens.items()},
        tokens_per_solved={k: float(tokens[k].sum() / np.nansum(solved[k])) if np.nansum(solved[k]) else None for k in budgets},
        tokens_per_sample=bootstrap_mean([np.mean([r.num_sampled for r in g.rollouts]) for g in drawn], bounds=None) if drawn else None,
        ungradable=faults["ungradable"],
        errors=faults["errors"],
        starved=faults["starved"],
        warnings=tuple(_warnings(name, accuracy, samples, largest, faults)),
        solved=solved,
        passed=passed,
        plays=(*(Play("attempts", k, g) for k, g in dialogues.items()), *((Play("samples", 1, drawn),) if drawn else ())),
    )


def compare_accuracy(a: Evaluation, b: Evaluation) -> dict[int, Interval]:
    """accuracy(a) - accuracy(b) at each k that both have, paired over the problems that both saw.

    Raises:
        ConfigError: the two saw no problem in common.
    """
    place_b = {problem_id: i for i, problem_id in enumerate(b.problem_ids)}
    pairs = [(i, place_b[problem_id]) for i, problem_id in enumerate(a.problem_ids) if problem_id in place_b]
    if not pairs:
        raise ConfigError(f"{a.name} and {b.name} have no problem in common: evaluate both on the same source, limit and seed")
    rows_a, rows_b = (list(rows) for rows in zip(*pairs, strict=True))
    shared = [k for k in a.solved if k in b.solved]
    return {k: d for k in shared if (d := _paired(a.solved[k][rows_a], b.solved[k][rows_b])) is not None}


def _checked_settings(attempts: Sequence[int], samples: int, temperature: float, sample_temperature: float, top_p: float) -> tuple[int, ...]:
    faults = []
    if not attempts:
        faults.append("attempts: no number of attempts to evaluate with; write e.g. '1-5'")
    if any(k < 1 for k in attempts):
        faults.append(f"attempts: a budget of {min(attempts)} attempts allows no answer; start at 1")
    if samples < 0:
        faults.append(f"samples = {samples}: give 0 (no pass@k) or more")
    if temperature < 0:
        faults.append(f"temperature = {temperature}: give 0 (greedy) or more")
    if samples > 0 and sample_temperature <= 0:
        faults.append(f"sample_temperature = {sample_temperature}: greedy samples are all alike and say nothing of pass@k; set it above 0")
    if not 0 < top_p <= 1:
        faults.append(f"top_p = {top_p}: give a probability above 0, and 1 for the whole distribution")
    if faults:
        raise ConfigError(faults)
    return tuple(sorted(set(attempts)))


def _unpack(problems: ProblemSet | Sequence[Problem], name: str) -> tuple[tuple[Problem, ...], str, int]:
    if isinstance(problems, Sequence):
        chosen, source, set_aside = tuple(problems), next((p.source for p in problems), ""), 0
    else:
        chosen, source, set_aside = tuple(problems.problems), problems.source, len(problems.set_aside)
    if not chosen:
        rest = f" ({set_aside} were set aside because their gold answer could not be graded)" if set_aside else ""
        raise DataError(f"{name}: no problems to evaluate{rest}; choose a source that has some")
    return chosen, source, set_aside


def _starved(rollout: Rollout) -> bool:
    """Whether the dialogue's token cap, or the context, took attempts away that the budget allowed."""
    return rollout.truncated and not rollout.solved and (rollout.cut or len(rollout.attempts) < rollout.budget)


def _solved_within(rollout: Rollout, k: int) -> float:
    """1 if solved by attempt k, else 0; NaN if the grader failed at one of the first k attempts."""
    if any(a.outcome is Outcome.UNGRADABLE and a.index <= k for a in rollout.attempts):
        return float("nan")
    return float(rollout.solved_at is not None and rollout.solved_at <= k)


def _pass_values(drawn: Sequence[Group], largest: int) -> dict[int, Values]:
    """k -> `_P` estimates of pass@k; a problem with fewer than k graded samples has none."""
    graded_P = np.array([sum(not r.ungradable for r in g.rollouts) for g in drawn], dtype=np.int64)
    correct_P = np.array([sum(r.solved for r in g.rollouts) for g in drawn], dtype=np.int64)
    passed = {}
    for k in range(1, largest + 1):
        enough_P = graded_P >= k
        values_P = np.full(len(drawn), np.nan)
        values_P[enough_P] = pass_at_k(graded_P[enough_P], correct_P[enough_P], k)
        passed[k] = values_P
    return passed


def _mean(values_P: Values, what: str) -> Interval:
    known_P = values_P[~np.isnan(values_P)]
    if not len(known_P):
        raise GraderError(f"{what}: the grader failed on every problem; check the grader and its deadline (mulligan grade --gold ... --text ...)")
    return bootstrap_mean(known_P)


def _paired(a_P: Values, b_P: Values) -> Interval | None:
    both_P = ~(np.isnan(a_P) | np.isnan(b_P))
    return paired_difference(a_P[both_P], b_P[both_P]) if both_P.any() else None


def _warnings(name: str, accuracy: Mapping[int, Interval], samples: int, largest: int, faults: Mapping[str, Mapping[str, int]]) -> list[str]:
    found = []
    widest = max(accuracy, key=lambda k: accuracy[k].width)
    interval = accuracy[widest]
    if interval.n < SMALL_SET:
        found.append(
            f"{name}: {interval.n} problems are few: the 95 % interval at k = {widest} is {100 * interval.width:.0f} points wide, "
            f"so smaller differences cannot be seen; use {SMALL_SET} problems or more"
        )
    if 0 < samples < largest:
        found.append(
            f"{name}: pass@k stops at k = {samples}, the number of samples; draw {largest} or more (better {4 * largest}) to reach k = {largest}"
        )
    if count := sum(faults["ungradable"].values()):
        found.append(
            f"{name}: {count} dialogues could not be graded and are left out of the figures; raise the grader's deadline or check its answers"
        )
    if count := sum(faults["errors"].values()):
        found.append(f"{name}: {count} dialogues broke and count as unsolved; see column error of the dialogues (often: too long for the context)")
    if count := sum(faults["starved"].values()):
        found.append(
            f"{name}: {count} dialogues were ended by the token cap with attempts left and count as unsolved: raise protocol.max_dialogue_tokens "
            "(up to the model's context), or lower protocol.max_attempt_tokens"
        )
    return found


def _intervals_json(intervals: Mapping[int, Interval]) -> dict[str, dict[str, float | int]]:
    return {str(k): interval.to_json() for k, interval in intervals.items()}
