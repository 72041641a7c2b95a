"""Another model's pass@k as the rival: what multi-attempt training gained over drawing from a model that it did not sharpen.

Training lowers a model's own pass@k, so accuracy is also set against the pass@k of the untrained (or warm-up) model and of the single-turn
model, each read from the folder of its own evaluation and paired problem by problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mulligan.errors import ConfigError
from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.values import ProblemValues, Values, aligned, differences_of, folder_of_evaluation, in_common, means_of, read_values


@dataclass(frozen=True, slots=True)
class RivalFigures:
    """The rival's own accuracy and pass@k, and `gain`: this model's accuracy - the rival's pass@k, paired."""

    accuracy: Mapping[int, Interval]
    pass_at_k: Mapping[int, Interval]
    gain: Mapping[int, Interval]

    def to_json(self) -> dict[str, Any]:
        return {
            key: {str(k): interval.to_json() for k, interval in figures.items()}
            for key, figures in (("accuracy", self.accuracy), ("pass_at_k", self.pass_at_k), ("gain", self.gain))
        }


@dataclass(frozen=True, slots=True)
class Rival:
    """Another evaluation, by problem set."""

    label: str
    folder: Path
    sets: Mapping[str, ProblemValues]

    def on(self, name: str, problem_ids: Sequence[str]) -> ProblemValues:
        """Its values on these problems, in their order. A set of the same name comes first, then any with the same problems.

        Raises:
            ConfigError: it was not evaluated on these problems, or without pass@k; says how many it has in common.
        """
        named = [self.sets[name]] if name in self.sets else []
        for values in [*named, *self.sets.values()]:
            rows_P = aligned(problem_ids, values.problem_ids)
            if rows_P is not None:
                if "passed" not in values.quantities:
                    raise ConfigError(f"--rival {self.label}={self.folder} has no pass@k on {name}: evaluate it with --samples")
                return ProblemValues(tuple(problem_ids), {q: {k: v[rows_P] for k, v in by_k.items()} for q, by_k in values.quantities.items()})
        nearest = max([*named, *self.sets.values()], key=lambda v: in_common(problem_ids, v.problem_ids), default=None)
        shared = in_common(problem_ids, nearest.problem_ids) if nearest else 0
        count = f"{len(nearest.problem_ids)}" if nearest else "0"
        raise ConfigError(
            f"--rival {self.label}={self.folder} was evaluated on other problems than {name}: {shared} in common, of {len(problem_ids)} here and {count} there; "
            "evaluate both with the same --problems, --limit and --seed"
        )


def read_rivals(texts: Sequence[str]) -> tuple[Rival, ...]:
    """Rivals written `LABEL=FOLDER`.

    Raises:
        ConfigError: not of this form, or a label given twice.
        RunError: the folder holds no values.parquet.
    """
    pairs = [text.partition("=") for text in texts]
    faults = [f"--rival {text}: write LABEL=FOLDER, with the folder of its evaluation" for text, (label, _, folder) in zip(texts, pairs, strict=True) if not label.strip() or not folder]
    labels = [label.strip() for label, _, _ in pairs]
    faults += [f"--rival {label}=... is given twice: give each its own label" for label in dict.fromkeys(labels) if label and labels.count(label) > 1]
    if faults:
        raise ConfigError(faults)
    found = [(label.strip(), folder_of_evaluation(folder)) for label, _, folder in pairs]
    return tuple(Rival(label, folder, read_values(folder)) for label, folder in found)


def rival_figures(solved: Mapping[int, Values], rival: ProblemValues) -> RivalFigures:
    """Both on the same problems in the same order."""
    quantities = rival.quantities
    return RivalFigures(means_of(quantities.get("solved", {})), means_of(quantities["passed"]), differences_of(solved, quantities["passed"]))
