"""What an evaluation found: every figure of one model on one problem set, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mulligan.evaluation.attempts import AttemptFigures, Rate
from mulligan.evaluation.controls import ControlFigures, FalseWrong
from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.power import Power
from mulligan.evaluation.samples import SampleFigures, key_of
from mulligan.evaluation.tokens import EqualTokens
from mulligan.evaluation.values import Curves, ProblemValues, Values
from mulligan.types import Group


@dataclass(frozen=True, slots=True)
class Play:
    """The dialogues behind the figures: `stage` is `attempts`, `samples` or a control's name, `k` the budget of attempts. `index` counts
    the temperatures of the samples from 0 (in rising order)."""

    stage: str
    k: int
    groups: tuple[Group, ...]
    index: int = 0


@dataclass(frozen=True, slots=True)
class RivalFigures:
    """The rival's own accuracy and pass@k, and `gain`: this model's accuracy - the rival's pass@k, paired. `model` and `settings`: as its own
    eval.json has them, None and empty where that does not say."""

    model: str | None
    settings: Mapping[str, Any]
    accuracy: Mapping[int, Interval]
    pass_at_k: Mapping[int, Interval]
    gain: Mapping[int, Interval]

    def to_json(self) -> dict[str, Any]:
        figures = {"accuracy": self.accuracy, "pass_at_k": self.pass_at_k, "gain": self.gain}
        return {"model": self.model, "settings": dict(self.settings), **{key: _intervals_json(by_k) for key, by_k in figures.items()}}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One model on one problem set. Figures are fractions in [0, 1], keyed by the number k of attempts (or samples) allowed.

    `mode` is `per_budget` (each k is its own dialogue with that budget stated) or `one_pass` (one dialogue with the largest
    budget, counted up to attempt k: cheaper, and the model was told a larger budget than k). `gain` is accuracy minus pass@k of the
    same model at equal k, paired over problems. `trained_attempts` is the largest budget of training, None where it is not known;
    `attempts_budget` is K, that budget or else the largest evaluated: rates by attempt and the false "wrong" come from the dialogues with it.
    `rise` are the numbers of attempts, the fewest evaluated (nearly always 1) and K, between which the controls' shares and the power are counted, None without two of them.
    """

    name: str
    source: str
    mode: Literal["per_budget", "one_pass"]
    temperature: float
    top_p: float
    samples: int
    seed: int
    trained_attempts: int | None
    attempts_budget: int
    rise: tuple[int, int] | None
    problem_ids: tuple[str, ...]
    set_aside: int
    accuracy: Mapping[int, Interval]
    gain: Mapping[int, Interval]
    figures: AttemptFigures
    repeats: Mapping[int, Rate]
    """Of the later answers of the dialogues with budget k, those that repeat an earlier wrong one."""
    attempts_used: Mapping[int, Interval]
    tokens_per_problem: Mapping[int, Interval]
    tokens_per_solved: Mapping[int, Interval | None]
    """Tokens of all graded problems for each that was solved."""
    equal_tokens: Mapping[int, EqualTokens]
    ceilings: Mapping[str, Mapping[int, float]]
    """label -> k -> exactly known value."""
    controls: Mapping[str, ControlFigures]
    false_wrong: FalseWrong | None
    power: Power | None
    """Of `rise`."""
    gain_power: Power | None
    """Of the gain with K attempts, accuracy - pass@k."""
    rivals: Mapping[str, RivalFigures]
    ungradable: Mapping[str, int]
    errors: Mapping[str, int]
    starved: Mapping[str, int]
    """Dialogues that the token cap ended with attempts left: they count as unsolved."""
    warnings: tuple[str, ...]
    curves: Curves = field(repr=False)
    repeat_counts: Mapping[str, Mapping[int, Values]] = field(repr=False)
    sampled: SampleFigures | None = field(repr=False)
    plays: tuple[Play, ...] = field(repr=False)

    @property
    def solved(self) -> Mapping[int, Values]:
        """k -> `_P`: 1 solved, 0 not, NaN ungradable."""
        return self.curves.solved

    @property
    def passed(self) -> Mapping[int, Values]:
        """k -> `_P`: the problem's estimate of pass@k, NaN where too few samples could be graded."""
        return self.sampled.passed if self.sampled else {}

    @property
    def pass_at_k(self) -> Mapping[int, Interval]:
        return self.sampled.pass_at_k if self.sampled else {}

    @property
    def tokens_per_sample(self) -> Interval | None:
        return self.sampled.tokens_per_sample if self.sampled else None

    @property
    def values(self) -> ProblemValues:
        """What `values.parquet` holds."""
        quantities: dict[str, Mapping[int, Values]] = {"solved": self.curves.solved, "tokens": self.curves.tokens, "attempts_used": self.curves.attempts}
        if self.sampled:
            quantities["passed"] = self.sampled.passed
            quantities |= {f"passed@{key_of(t)}": by_k for t, by_k in self.sampled.passed_at.items()}
            quantities |= {f"{part}@{key_of(t)}": {1: values_P} for t, counts in self.sampled.tallies.items() for part, values_P in counts.quantities().items()}
        for name, control in self.controls.items():
            quantities |= {f"solved:{name}": control.curves.solved, f"tokens:{name}": control.curves.tokens}
        if self.false_wrong:
            quantities |= {quantity: {self.attempts_budget: values_P} for quantity, values_P in self.false_wrong.counts.items()}
        return ProblemValues(self.problem_ids, {**quantities, **self.figures.counts, **self.repeat_counts})

    def to_json(self) -> dict[str, Any]:
        """JSON-able; keys of k are strings, as JSON wants them."""
        return self._setting_json() | self._figures_json() | self._comparisons_json()

    def _setting_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "mode": self.mode,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "samples": self.samples,
            "seed": self.seed,
            "trained_attempts": self.trained_attempts,
            "attempts_budget": self.attempts_budget,
            "rise": list(self.rise) if self.rise else None,
            "problems": len(self.problem_ids),
            "set_aside": self.set_aside,
            "ungradable": dict(self.ungradable),
            "errors": dict(self.errors),
            "starved": dict(self.starved),
            "warnings": list(self.warnings),
        }

    def _figures_json(self) -> dict[str, Any]:
        figures = self.figures
        return {
            "accuracy": _intervals_json(self.accuracy),
            "conditional_success": {str(t): rate.to_json("solved", "reached") for t, rate in figures.conditional_success.items()},
            "repeat_rate": {
                "overall": figures.repeats_overall.to_json(),
                "by_attempt": {str(t): r.to_json() for t, r in figures.repeats.items()},
                "by_budget": {str(k): r.to_json() for k, r in self.repeats.items()},
            },
            "no_answer": {"overall": figures.no_answer_overall.to_json(), "by_attempt": {str(t): r.to_json() for t, r in figures.no_answer.items()}},
            "truncated": {"overall": figures.truncated_overall.to_json(), "by_attempt": {str(t): r.to_json() for t, r in figures.truncated.items()}},
            "attempts_used": _intervals_json(self.attempts_used),
            "tokens_per_problem": _intervals_json(self.tokens_per_problem),
            "tokens_per_solved": {str(k): value.to_json() if value else None for k, value in self.tokens_per_solved.items()},
            "tokens_per_sample": self.tokens_per_sample.to_json() if self.tokens_per_sample else None,
        }

    def _comparisons_json(self) -> dict[str, Any]:
        by_temperature = self.sampled.by_temperature if self.sampled else {}
        chosen = self.sampled.chosen if self.sampled else {}
        return {
            "pass_at_k": _intervals_json(self.pass_at_k),
            "pass_temperatures": {key_of(t): _intervals_json(by_k) for t, by_k in by_temperature.items()},
            "chosen_temperatures": {str(k): [key_of(t) for t in heats] for k, heats in chosen.items()},
            "gain": _intervals_json(self.gain),
            "equal_tokens": {str(k): equal.to_json() for k, equal in self.equal_tokens.items()},
            "ceilings": {label: {str(k): x for k, x in by_k.items()} for label, by_k in self.ceilings.items()},
            "controls": {name: control.to_json() for name, control in self.controls.items()},
            "false_wrong": self.false_wrong.to_json() if self.false_wrong else {},
            "power": self.power.to_json() if self.power else {},
            "gain_power": self.gain_power.to_json() if self.gain_power else {},
            "rivals": {label: rival.to_json() for label, rival in self.rivals.items()},
        }


def _intervals_json(intervals: Mapping[int, Interval]) -> dict[str, dict[str, float | int | None]]:
    return {str(k): interval.to_json() for k, interval in intervals.items()}
