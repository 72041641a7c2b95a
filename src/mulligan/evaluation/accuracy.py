"""Accuracy against the number of attempts allowed, beside pass@k of the same model from independent samples, and its controls.

`evaluate` plays all dialogues and hands them to the modules that know each figure. A dialogue that broke (context overflow) *is*
unsolved: the policy gave no correct answer; one that could not be graded takes no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mulligan.errors import ConfigError, DataError, GraderError
from mulligan.evaluation.attempts import ANSWERED_AGAIN, REPEATED, attempt_figures, headline_budget, rate_of, repeat_counts
from mulligan.evaluation.compare import ratios
from mulligan.evaluation.controls import COMPARED, FALSE_WRONG, budgets_played, control_faults, control_figures, curves_of, false_wrong
from mulligan.evaluation.evaluation import Evaluation, Play
from mulligan.evaluation.faults import count_faults, cut_warnings, fault_warnings, rival_warnings, sample_warnings, size_warnings
from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.power import power_of
from mulligan.evaluation.rivals import Rival, rival_figures
from mulligan.evaluation.samples import SampleFigures, sample_figures
from mulligan.evaluation.tokens import equal_tokens, left_out
from mulligan.evaluation.values import ProblemValues, Values, differences_of, means_of
from mulligan.rollout import require_unbroken
from mulligan.sampling import SamplingParams
from mulligan.transcripts import as_utf8
from mulligan.types import Group, Problem, Rollout

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
        condition: str = "normal",
        donors: Sequence[Group] = (),
    ) -> list[Group]: ...


class ProblemSet(Protocol):
    """What a loaded problem source offers; `mulligan.tasks.ProblemSet` is one."""

    @property
    def problems(self) -> tuple[Problem, ...]: ...

    @property
    def source(self) -> str: ...

    @property
    def set_aside(self) -> Sequence[Any]: ...


def num_dialogues(
    problems: int, attempts: Sequence[int], samples: int, one_pass: bool = False, *, temperatures: int = 1, controls: Sequence[str] = ()
) -> int:
    """How many dialogues `evaluate` will play: the length of its progress bar. `temperatures`: how many."""
    budgets = sorted(set(attempts))
    normal = 1 if one_pass else len(budgets)
    return problems * (normal + sum(len(budgets_played(name, budgets, one_pass, budgets[-1])) for name in dict.fromkeys(controls)) + samples * temperatures)


@dataclass(frozen=True, slots=True)
class _Settings:
    """How `evaluate` plays, checked."""

    budgets: tuple[int, ...]
    samples: int
    temperature: float
    temperatures: tuple[float, ...]
    top_p: float
    one_pass: bool
    controls: tuple[str, ...]
    seed: int

    @property
    def largest(self) -> int:
        return self.budgets[-1]


def evaluate(
    player: Player,
    problems: ProblemSet | Sequence[Problem],
    *,
    name: str,
    attempts: Sequence[int],
    samples: int = 0,
    temperature: float = 0.0,
    temperatures: Sequence[float] = (1.0,),
    top_p: float = 1.0,
    one_pass: bool = False,
    controls: Sequence[str] = (),
    seed: int = 0,
    trained_attempts: int | None = None,
    ceilings: Mapping[str, Mapping[int, float]] | None = None,
    rivals: Sequence[Rival] = (),
    settings: Mapping[str, Any] | None = None,
    on_done: OnDone | None = None,
) -> Evaluation:
    """Play every problem with each number of attempts, under each control, and `samples` times a temperature with one attempt for pass@k.

    Args:
        name: of the problem set, in tables and files.
        attempts: budgets k to evaluate with.
        samples: independent single-attempt samples per problem and temperature; 0: no pass@k. pass@k is given for k up to the smaller of
            `samples` and the largest budget, and wants four samples per k.
        temperature: of the dialogues (0: greedy).
        temperatures: of the samples, which cannot be greedy; each problem's is chosen on other problems (see `samples`).
        controls: names of `config.CONTROLS`.
        trained_attempts: largest budget of training, if known.
        ceilings: label -> k -> exactly known value, to stand beside the figures.
        rivals: other evaluations on the same problems.
        settings: what it is played by (`settings_of`), to warn of rivals whose samples were drawn otherwise or that are the same model.
        on_done: called once per finished dialogue.

    Raises:
        ConfigError: a budget below 1, samples below 0, samples drawn greedily, top_p of 0, an unknown control, controls with a single
            attempt, a rival with other problems or without pass@k.
        DataError: no problems.
        GraderError: not one dialogue could be graded with some number of attempts.
        RunError: every dialogue with some number of attempts, of a control, or every sample broke.
        ContextOverflow: a prompt leaves no room for an answer.
    """
    checked = _checked_settings(attempts, samples, temperature, temperatures, top_p, one_pass, controls, seed)
    name = as_utf8(name)  # in all files alike
    chosen, source, set_aside = _unpack(problems, name)
    ids = tuple(p.id for p in chosen)
    beside = [(rival, rival.on(name, ids)) for rival in rivals]
    budget = headline_budget(checked.budgets, trained_attempts)
    plays = _play_all(name, player, chosen, checked, budget, on_done)
    figures = _figures(name, checked, plays, budget, beside, settings or {})
    return Evaluation(
        name=name,
        source=source,
        mode="one_pass" if one_pass else "per_budget",
        temperature=temperature,
        top_p=top_p,
        samples=samples,
        seed=seed,
        trained_attempts=trained_attempts,
        attempts_budget=budget,
        problem_ids=ids,
        set_aside=set_aside,
        ceilings=ceilings or {},
        plays=plays,
        **figures,
    )


def _figures(
    name: str, settings: _Settings, plays: Sequence[Play], budget: int, beside: Sequence[tuple[Rival, ProblemValues]], played_by: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything of an `Evaluation` that is computed from its dialogues. `budget`: `headline_budget`; `beside`: the rivals, with their values on the same
    problems; `played_by`: `settings_of` the recipe, or empty."""
    budgets, largest = settings.budgets, settings.largest
    rise = (budgets[0], budget) if budget > budgets[0] else None
    normal = {play.k: play.groups for play in plays if play.stage == "attempts"}
    rollouts = {k: [g.rollouts[0] for g in normal.get(k, normal[largest])] for k in budgets}
    curves, repeats = curves_of(normal, budgets), repeat_counts(rollouts)
    solved, tokens = curves.solved, curves.tokens
    accuracy = means_of(solved)
    drawn = {settings.temperatures[play.index]: play.groups for play in plays if play.stage == "samples"}
    sampled = sample_figures(drawn, min(largest, settings.samples)) if drawn else None
    equal = equal_tokens(curves, sampled) if sampled else {}
    controlled = {c: {play.k: play.groups for play in plays if play.stage == c} for c in settings.controls}
    power = power_of(solved[rise[1]], solved[rise[0]]) if rise else None
    most = rise[1] if rise else largest
    gain_power = power_of(solved[most], sampled.passed[most]) if sampled and most in sampled.passed else None
    faults = count_faults(plays)
    warnings = [
        *size_warnings(name, accuracy, power),
        *sample_warnings(
            name, settings.samples, largest, left_out(equal, curves), temperatures=settings.temperatures, best=_best_temperature(sampled, most),
            ungraded=sampled is not None and not means_of(sampled.passed),
        ),
        *(text for rival, values in beside for text in _rival_warnings(name, rival, values, settings, played_by)),
        *fault_warnings(name, faults),
        *cut_warnings(name, rollouts[budget]),
    ]
    return {
        "rise": rise,
        "accuracy": accuracy,
        "gain": differences_of(solved, sampled.passed) if sampled else {},
        "figures": attempt_figures(rollouts[budget], budget),
        "repeats": {k: rate_of(repeats[REPEATED][k], repeats[ANSWERED_AGAIN][k]) for k in budgets if k > 1},
        "attempts_used": means_of(curves.attempts, bounds=None),
        "tokens_per_problem": means_of(tokens, bounds=None),
        "tokens_per_solved": {k: _per_solved(tokens[k], solved[k]) for k in budgets},
        "equal_tokens": equal,
        "controls": {c: control_figures(curves_of(groups, budgets), curves, rise) for c, groups in controlled.items() if c in COMPARED},
        "false_wrong": false_wrong([g.rollouts[0] for groups in controlled[FALSE_WRONG].values() for g in groups], budget) if FALSE_WRONG in controlled else None,
        "power": power,
        "gain_power": gain_power,
        "rivals": {rival.label: rival_figures(solved, rival, values) for rival, values in beside},
        **faults,
        "warnings": tuple(warnings),
        "curves": curves,
        "repeat_counts": repeats,
        "sampled": sampled,
    }


def _rival_warnings(name: str, rival: Rival, values: ProblemValues, settings: _Settings, played_by: Mapping[str, Any]) -> list[str]:
    unlike = rival.drawn_unlike(name, values.problem_ids, played_by, settings.top_p)
    return rival_warnings(name, rival.label, values, settings.largest, unlike=unlike, same_model=rival.is_model(played_by))


def _best_temperature(sampled: SampleFigures | None, most: int) -> tuple[int, float] | None:
    """The largest k up to `most`, and where pass@k is highest for it; None if nowhere alone."""
    if sampled is None or not (known := [k for k in sampled.chosen if k <= most]):
        return None
    k = max(known)
    by_heat = {t: by_k[k].mean for t, by_k in sampled.by_temperature.items() if k in by_k}
    highest = [t for t, mean in by_heat.items() if mean == max(by_heat.values())]
    return (k, highest[0]) if len(highest) == 1 else None


def _per_solved(tokens_P: Values, solved_P: Values) -> Interval | None:
    """Tokens of all graded problems for each that was solved; None where none was."""
    graded_P = ~np.isnan(solved_P)
    if not graded_P.any():
        return None
    tokens_SPC, solved_SPC = tokens_P[None, graded_P, None], solved_P[None, graded_P, None]
    (found,) = ratios([tokens_SPC], [solved_SPC], bounds=None)
    return replace(found, n=int(graded_P.sum())) if found else None  # all of them, not those alone that were solved


# -------------------------------------------------------------------------------------------------------------- before it


def _checked_settings(
    attempts: Sequence[int],
    samples: int,
    temperature: float,
    temperatures: Sequence[float],
    top_p: float,
    one_pass: bool,
    controls: Sequence[str],
    seed: int,
) -> _Settings:
    faults = []
    if not attempts:
        faults.append("attempts: no number of attempts to evaluate with; write e.g. '1-5'")
    if any(k < 1 for k in attempts):
        faults.append(f"attempts: a budget of {min(attempts)} attempts allows no answer; start at 1")
    if samples < 0:
        faults.append(f"samples = {samples}: give 0 (no pass@k) or more")
    if temperature < 0:
        faults.append(f"temperature = {temperature}: give 0 (greedy) or more")
    if samples > 0 and not temperatures:
        faults.append("temperatures: samples need at least one; write e.g. 1.0")
    if samples > 0 and any(heat <= 0 for heat in temperatures):
        faults.append(f"temperatures: {min(temperatures)}: greedy samples are all alike and say nothing of pass@k; set it above 0")
    if not 0 < top_p <= 1:
        faults.append(f"top_p = {top_p}: give a probability above 0, and 1 for the whole distribution")
    faults += control_faults(controls, attempts)
    if faults:
        raise ConfigError(faults)
    return _Settings(
        tuple(sorted(set(attempts))), samples, temperature, tuple(sorted({float(t) for t in temperatures})), top_p, one_pass, tuple(dict.fromkeys(controls)), seed
    )  # fmt: skip


def _unpack(problems: ProblemSet | Sequence[Problem], name: str) -> tuple[tuple[Problem, ...], str, int]:
    if isinstance(problems, Sequence):
        chosen, source, set_aside = tuple(problems), next((p.source for p in problems), ""), 0
    else:
        chosen, source, set_aside = tuple(problems.problems), problems.source, len(problems.set_aside)
    if not chosen:
        rest = f" ({set_aside} were set aside because their gold answer could not be graded)" if set_aside else ""
        raise DataError(f"{name}: no problems to evaluate{rest}; choose a source that has some")
    return chosen, source, set_aside


# ------------------------------------------------------------------------------------------------------------- the dialogues


def _play_all(name: str, player: Player, problems: tuple[Problem, ...], settings: _Settings, budget: int, on_done: OnDone | None) -> tuple[Play, ...]:
    """Every dialogue of the evaluation: the normal ones, the controls (which may borrow from them), the samples. `budget`: `headline_budget`.

    Raises:
        GraderError: after the dialogues with some number of attempts, if not one of them could be graded: before all that comes after them.
    """

    def play(k: int, *, step: int, heat: float, group_size: int = 1, **condition: Any) -> tuple[Group, ...]:
        groups = player.play(
            problems, seed=settings.seed, step=step, group_size=group_size, budget=k,
            params=SamplingParams(heat, settings.top_p), stage="eval", on_done=on_done, **condition,
        )  # fmt: skip
        require_unbroken(groups, step)
        assert [g.problem.id for g in groups] == [p.id for p in problems], "a player returns one group per problem, in order"
        return tuple(groups)

    largest = settings.largest
    normal: dict[int, tuple[Group, ...]] = {}
    for k in (largest,) if settings.one_pass else settings.budgets:
        normal[k] = play(k, step=k, heat=settings.temperature)
        if all(rollout.ungradable for group in normal[k] for rollout in group.rollouts):
            raise GraderError(
                f"{name}: accuracy with {k} attempts: the grader failed on every problem; check the grader and its deadline (mulligan grade --gold ... --text ...)"
            )
    plays = [Play("attempts", k, groups) for k, groups in normal.items()]
    for control in settings.controls:
        for k in budgets_played(control, settings.budgets, settings.one_pass, budget):
            donors = normal[k if control == FALSE_WRONG else largest]  # the others need attempts of every number
            plays.append(Play(control, k, play(k, step=k, heat=settings.temperature, condition=control, donors=donors)))
    if settings.samples:
        # step 0 keys the samples apart from every dialogue, so that pass@1 is not the same draw as one attempt; the temperatures share
        # their draws, which takes noise out of the choice between them
        for index, heat in enumerate(settings.temperatures):
            plays.append(Play("samples", 1, play(1, step=0, heat=heat, group_size=settings.samples), index))
    return tuple(plays)
