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
from mulligan.evaluation.arms import Member, model_of, read_member
from mulligan.evaluation.evaluation import RivalFigures
from mulligan.evaluation.results import unlike_settings
from mulligan.evaluation.values import ProblemValues, Values, aligned, differences_of, in_common, means_of, read_values

_OF_LATER_ATTEMPTS = ("protocol.feedback", "protocol.feedback_role", "protocol.hidden_feedback", "protocol.history", "protocol.budget_per", "grader.hints")
"""Settings that a sample, which is a single attempt, does not depend on."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another evaluation, by problem set."""

    label: str
    member: Member

    @property
    def folder(self) -> Path:
        return self.member.folder

    @property
    def sets(self) -> Mapping[str, ProblemValues]:
        return self.member.values or {}

    def is_model(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is an evaluation of the model that these settings name."""
        return bool(self.member.model) and self.member.model == model_of({"model": settings.get("model", {}).get("path"), "settings": settings})

    def drawn_unlike(self, name: str, problem_ids: Sequence[str], settings: Mapping[str, Any], top_p: float) -> list[tuple[str, Any, Any]]:
        """What single samples depend on and this evaluation and the rival's differ in: (setting, value here, the rival's). `settings`: those here
        (`settings_of`); of those that one of the two does not know, nothing is said."""
        figures = self.member.problem_sets.get(self._set_of(name, problem_ids) or "", {})
        unlike = [one for one in unlike_settings(settings, self.member.settings) if one[0].startswith(("protocol.", "grader.")) or one[0] == "model.dtype"]
        idle = set[str](_OF_LATER_ATTEMPTS)
        if not any(one.get("protocol", {}).get("state_budget", True) for one in (settings, self.member.settings)):
            idle.add("protocol.budget_text")
        if figures.get("starved", {}).get("samples") == 0:  # no sample of the rival's was ended by the dialogue's cap: a single attempt has its own
            idle.add("protocol.max_dialogue_tokens")
        if figures.get("top_p", top_p) != top_p:
            unlike.append(("top_p", top_p, figures["top_p"]))
        return [one for one in unlike if one[0] not in idle]

    def on(self, name: str, problem_ids: Sequence[str]) -> ProblemValues:
        """Its values on these problems, in their order. A set of the same name comes first, then any with the same problems.

        Raises:
            ConfigError: it was not evaluated on these problems, or without pass@k; says how many it has in common.
        """
        if (found := self._set_of(name, problem_ids)) is not None:
            values = self.sets[found]
            rows_P = aligned(problem_ids, values.problem_ids)
            if "passed" not in values.quantities:
                raise ConfigError(f"--rival {self.label}={self.folder} has no pass@k on {name}: evaluate it with --samples")
            return ProblemValues(tuple(problem_ids), {q: {k: v[rows_P] for k, v in by_k.items()} for q, by_k in values.quantities.items()})
        nearest = max([self.sets[one] for one in self._from(name)], key=lambda v: in_common(problem_ids, v.problem_ids), default=None)
        shared = in_common(problem_ids, nearest.problem_ids) if nearest else 0
        count = f"{len(nearest.problem_ids)}" if nearest else "0"
        raise ConfigError(
            f"--rival {self.label}={self.folder} was evaluated on other problems than {name}: {shared} in common, of {len(problem_ids)} here and {count} there; "
            "evaluate both with the same --problems, --limit and --seed"
        )

    def _set_of(self, name: str, problem_ids: Sequence[str]) -> str | None:
        return next((one for one in self._from(name) if aligned(problem_ids, self.sets[one].problem_ids) is not None), None)

    def _from(self, name: str) -> list[str]:
        """The rival's sets, that of this name first."""
        return sorted(self.sets, key=lambda one: one != name)


def read_rivals(texts: Sequence[str]) -> tuple[Rival, ...]:
    """Rivals written `LABEL=FOLDER`.

    Raises:
        ConfigError: not of this form, or a label given twice.
        RunError: the folder holds no evaluation, or one without values.parquet.
    """
    pairs = [text.partition("=") for text in texts]
    faults = [f"--rival {text}: write LABEL=FOLDER, with the folder of its evaluation" for text, (label, _, folder) in zip(texts, pairs, strict=True) if not label.strip() or not folder]
    labels = [label.strip() for label, _, _ in pairs]
    faults += [f"--rival {label}=... is given twice: give each its own label" for label in dict.fromkeys(labels) if label and labels.count(label) > 1]
    if faults:
        raise ConfigError(faults)
    rivals = [Rival(label.strip(), read_member(folder)) for label, _, folder in pairs]
    for rival in rivals:
        if rival.member.values is None:
            read_values(rival.folder)  # says what to do
    return tuple(rivals)


def rival_figures(solved: Mapping[int, Values], rival: Rival, values: ProblemValues) -> RivalFigures:
    """`values`: the rival's, on the same problems in the same order."""
    quantities, own = values.quantities, rival.member.figures
    return RivalFigures(own.get("model") or None, own.get("settings") or {}, means_of(quantities.get("solved", {})), means_of(quantities["passed"]), differences_of(solved, quantities["passed"]))
