"""Arms read from disk: runs and their evaluations, seeds of one recipe joined, values per problem ready to be paired.

An argument is a run folder, an evaluation folder, or `LABEL=FOLDER,FOLDER,...`, which joins the folders given.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulligan.config import dump_recipe
from mulligan.errors import ConfigError, RunError
from mulligan.evaluation.results import read_evaluation, settings_of
from mulligan.evaluation.values import EVAL_JSON, VALUES, ProblemValues, folder_of_evaluation, numbered, read_values
from mulligan.runlog import RunFolder

ON_THE_WAY = re.compile(r"eval_(\d{6,})")
"""A run's evaluation after so many steps."""

Key = tuple[str, int]
"""A problem's id, and which occurrence of it in its set: draws of a generator may repeat."""

_SAME_ARM = ("seed", "name", "log.", "eval.", "train.threads", "train.eval_every", "grader.workers", "model.device")
"""Settings by which runs of one arm may differ: none of them says what is learnt, but the seed."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One evaluation of one model; `run` is the run that made the model, if it is known. A run that was not evaluated has no figures."""

    folder: Path
    figures: Mapping[str, Any]
    run: RunFolder | None
    values: Mapping[str, ProblemValues] | None = field(repr=False)

    @property
    def seed(self) -> int | None:
        """That of the training; the evaluation's own where the run is not known (an experiment's are the same)."""
        return self.run.recipe.seed if self.run else self.figures.get("seed")

    @property
    def problem_sets(self) -> Mapping[str, Mapping[str, Any]]:
        return self.figures.get("problem_sets", {})

    @property
    def settings(self) -> Mapping[str, Any]:
        """Protocol, grader and more that it was evaluated by (`settings_of`); of evaluations of earlier versions, those of the run. Empty: not known."""
        return self.figures.get("settings") or (settings_of(self.run.recipe) if self.run else {})

    @property
    def trained_attempts(self) -> int | None:
        """The largest budget in training, if known."""
        if self.run:
            return self.run.recipe.attempts.max_attempts
        return next((figures["trained_attempts"] for figures in self.problem_sets.values() if figures.get("trained_attempts")), None)

    @property
    def model(self) -> str:
        """What was evaluated (`model_of`)."""
        return model_of(self.figures)


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """A method: one or several seeds of it."""

    label: str
    members: tuple[Member, ...]

    @property
    def problem_sets(self) -> list[str]:
        """The sets that every member was evaluated on, and of which they share a problem."""
        return [name for name in self.members[0].problem_sets if all(name in m.problem_sets for m in self.members) and self._shares(name)]

    def _shares(self, problem_set: str) -> bool:
        if len(self.members) == 1 or not self.has_values:
            return True
        first, *others = [v.problem_ids for v in self._values(problem_set)]
        return all(other == first for other in others) or bool(self.problems(problem_set))

    @property
    def trained_attempts(self) -> int | None:
        """The largest budget in training, if known; of members that a label joins though they differ in it (`trained_unlike`), the first one's."""
        return self.members[0].trained_attempts

    @property
    def trained_unlike(self) -> list[str]:
        """Settings by which members are no seeds of one arm, `attempts` first. A label joins whatever it is given; of a member without its run the
        budget alone may be known."""
        tables = [learnt_settings(m.run) for m in self.members if m.run]
        unlike = {key: None for table in tables for key in table if any(other.get(key) != table[key] for other in tables)}
        if len({m.trained_attempts for m in self.members} - {None}) > 1:
            unlike["attempts"] = None
        return sorted(unlike, key=lambda key: key != "attempts")

    def evaluated(self) -> Arm:
        """The arm without the members that were not evaluated; as it is where none was."""
        found = tuple(member for member in self.members if member.problem_sets)
        return Arm(self.label, found) if 0 < len(found) < len(self.members) else self

    def seeds(self) -> list[Arm]:
        """Each seed by itself."""
        return [Arm(self.label, (member,)) for member in self.members]

    @property
    def has_values(self) -> bool:
        """Whether there are values per problem, which pairing and joining seeds need."""
        return all(m.values is not None for m in self.members)

    def ks(self, problem_set: str, quantity: str) -> list[int]:
        """The numbers k for which every member has this quantity."""
        return sorted(set.intersection(*(set(v.quantities.get(quantity, ())) for v in self._values(problem_set))))

    def problems(self, problem_set: str) -> list[Key]:
        """The problems that every member saw, in the first one's order."""
        first, *others = [_keys(v) for v in self._values(problem_set)]
        return [key for key in first if all(key in other for other in others)]

    def problem_counts(self, problem_set: str) -> list[int]:
        """How many problems each member saw."""
        return [len(v.problem_ids) for v in self._values(problem_set)]

    def cells(self, problem_set: str, quantity: str, ks: Sequence[int], problems: Sequence[Key]) -> NDArray[np.float64]:
        """`_SPC`: seeds x problems x ks, NaN where a dialogue could not be graded. All must be there (`ks`, `problems`)."""
        found = []
        for values in self._values(problem_set):
            place = _keys(values)
            rows_P = [place[key] for key in problems]
            found.append(np.stack([values.quantities[quantity][k][rows_P] for k in ks], axis=1))
        return np.stack(found)

    def _values(self, problem_set: str) -> list[ProblemValues]:
        found = []
        for member in self.members:
            if member.values is None:
                raise RunError(
                    f"{member.folder} has no {VALUES}, the values per problem that comparisons are paired by: evaluate again "
                    f"(mulligan eval {member.run.path if member.run else 'MODEL'} --out {member.folder / 'eval' if member.run else member.folder})"
                )
            found.append(member.values.get(problem_set) or ProblemValues((), {}))
        return found


def model_of(figures: Mapping[str, Any]) -> str:
    """What was evaluated, by the `model` and `settings` of an eval.json, or of a rival in it: the same text however it was named; empty: not known."""
    named = figures.get("model")
    if not named:
        return ""
    path = Path(str(named))
    path = path.parent if path.name == "model" and (RunFolder.holds_run(path.parent) or not path.exists()) else path
    revision = (figures.get("settings") or {}).get("model", {}).get("revision")
    return (str(path.resolve()) if path.exists() else os.path.normpath(path)) + (f"@{revision}" if revision else "")


def require_own_place(out: Path, model: str, settings: Mapping[str, Any]) -> None:
    """An evaluation takes no other model's place: `RUN/eval` is read as the run's (`folder_of_evaluation`), whatever model its figures name.

    Raises:
        RunError: `out` is the place of another model's run, or holds another model's evaluation.
    """
    here = model_of({"model": model, "settings": settings})
    run = next((str(p) for p in (out, *([out.parent] if out.name == "eval" else [])) if RunFolder.holds_run(p)), None)
    if run is not None and here == model_of({"model": run}):
        return  # an older evaluation of the run may name it by the path that it had before it was moved
    if run is not None:
        raise RunError(f"--out {out} is read as the evaluation of the run {run}, and {model} is another model: choose another --out")
    if (out / EVAL_JSON).is_file() and model_of(before := read_evaluation(out)) not in ("", here):
        raise RunError(f"--out {out} holds the evaluation of {before['model']}, and {model} is another model: choose another --out")


def _keys(values: ProblemValues) -> dict[Key, int]:
    """Problem -> its row."""
    return {key: row for row, key in enumerate(numbered(values.problem_ids))}


# ---------------------------------------------------------------------------------------------------------------- reading


def read_arms(arguments: Sequence[str], *, need_evaluation: bool = True) -> list[Arm]:
    """Read runs and evaluations and join the seeds of one recipe, in the order given.

    Runs are joined when their recipes agree in all that is learnt but the seed, and their seeds differ; models that such runs
    began from may be different seeds of one arm as well. `LABEL=A,B` joins what is given, whatever it is.

    Raises:
        RunError: a folder without a run or an evaluation (with `need_evaluation`), or one that cannot be read.
        ConfigError: no folders, one given twice, or a label used twice.
    """
    groups: list[tuple[str | None, list[Member]]] = []
    prints: list[tuple[str | None, int]] = []
    for argument in arguments:
        label, folders = _parse(argument)
        members = [read_member(folder, need_evaluation=need_evaluation) for folder in folders]
        if label is not None:
            groups.append((label, members))
            continue
        (member,) = members
        fingerprint = arm_fingerprint(member.run) if member.run else None
        place = next((i for known, i in prints if fingerprint and known == fingerprint and member.seed not in {m.seed for m in groups[i][1]}), None)
        if place is None:
            prints.append((fingerprint, len(groups)))
            groups.append((None, [member]))
        else:
            groups[place][1].append(member)
    if not groups:
        raise ConfigError("no runs: name run folders, evaluation folders, or LABEL=FOLDER,FOLDER")
    folders = [m.folder.resolve() for _, members in groups for m in members]
    if twice := [str(f) for f in dict.fromkeys(folders) if folders.count(f) > 1]:
        raise ConfigError(f"{twice[0]} is given twice: drop one")
    labels = _labels(groups)
    if twice := [one for one in dict.fromkeys(labels) if labels.count(one) > 1]:
        raise ConfigError(f"two arms are called {twice[0]!r}: give each its own label (LABEL=FOLDER)")
    return [Arm(label, tuple(members)) for label, (_, members) in zip(labels, groups, strict=True)]


def read_member(folder: str | Path, *, need_evaluation: bool = True) -> Member:
    """Read one run folder or evaluation folder. A run's own evaluation is RUN/eval if it is there, else RUN itself.

    Raises:
        RunError: neither a run nor an evaluation there, or not readable.
    """
    folder = Path(folder)
    is_run = RunFolder.holds_run(folder)
    if not is_run and not (folder / EVAL_JSON).is_file():
        raise RunError(f"{folder} holds neither a run nor an evaluation: name a folder that mulligan train or mulligan eval wrote")
    place = folder_of_evaluation(folder)
    if not (place / EVAL_JSON).is_file():
        if need_evaluation:
            raise RunError(f"{folder} was not evaluated: {how_to_evaluate(RunFolder.open(folder))}")
        return Member(folder, {"problem_sets": {}}, RunFolder.open(folder), None)
    return _evaluation_of(RunFolder.open(folder) if is_run else None, place)


def how_to_evaluate(run: RunFolder) -> str:
    """The command that a run still needs: one that has not ended has no model yet, and is evaluated at its end."""
    if not (run.model / "config.json").exists():
        return f"its training has not ended; if it was stopped, mulligan train RECIPE --out {run.path} --resume goes on with it"
    return f"run mulligan eval {run.path} --out {run.path / 'eval'}"


def _evaluation_of(run: RunFolder | None, place: Path) -> Member:
    """The evaluation in a folder, of this run; None: of the one that can be found."""
    figures = read_evaluation(place)
    return Member(place, figures, run or _run_of(place, figures), read_values(place) if (place / VALUES).is_file() else None)


def find_arm(arms: Sequence[Arm], name: str) -> Arm:
    """The arm of this label, or the one that this folder belongs to.

    Raises:
        ConfigError: none.
    """
    for arm in arms:
        folders = {p.resolve() for m in arm.members for p in (m.folder, *((m.run.path,) if m.run else ()))}
        if arm.label == name or Path(name).resolve() in folders:
            return arm
    raise ConfigError(f"--baseline {name}: not one of the arms ({', '.join(arm.label for arm in arms)}): give one of these labels, or one of the folders given")


def evaluations_on_the_way(run: RunFolder) -> dict[int, Member]:
    """Training step -> evaluation, of a run that evaluated every so many steps; the one at its end is the last of them."""
    found = {int(m[1]): p for p in run.path.iterdir() if (m := ON_THE_WAY.fullmatch(p.name)) and (p / EVAL_JSON).is_file()}
    if found and (run.path / EVAL_JSON).is_file():
        steps = [line["train_step"] + 1 for line in run.metrics() if isinstance(line.get("train_step"), int)]
        found.setdefault(max(steps, default=max(found)), run.path)
    return {step: _evaluation_of(run, found[step]) for step in sorted(found)}


def arm_fingerprint(run: RunFolder) -> str:
    """The same text for two runs exactly if they are seeds of one arm."""
    return json.dumps(list(learnt_settings(run).items()), sort_keys=True)


def learnt_settings(run: RunFolder) -> dict[str, Any]:
    """Dotted key -> value of all that says what the run learns, but the seed; a model that another run made counts by its run's own fingerprint."""
    table = dump_recipe(run.recipe)
    model = Path(run.recipe.model.path)
    # The path may be relative to the folder that the training was started in, which lies above the run. Runs that were moved or unpacked elsewhere
    # still lie beside the one that they began from; where that is gone, its path tells seeds apart by their number alone.
    around = run.path.resolve().parents
    places = [*((place / model).parent for place in (Path(), *around)), *([] if model.exists() else [around[0] / model.parent.name])]
    before = next((one for one in places if RunFolder.holds_run(one) and one.resolve() != run.path.resolve()), None)
    if model.name == "model" and before:
        table["model"]["path"] = arm_fingerprint(RunFolder.open(before))
    elif model.name == "model" and not model.exists():
        table["model"]["path"] = re.sub(rf"(seed[-_]?){run.recipe.seed}(?!\d)", r"\1N", str(model))

    def flat(node: Any, where: str) -> Iterable[tuple[str, Any]]:
        if isinstance(node, dict):
            for key, value in node.items():
                yield from flat(value, f"{where}.{key}" if where else key)
        else:
            yield where, node

    return {key: value for key, value in flat(table, "") if not key.startswith(_SAME_ARM)}


def _parse(argument: str) -> tuple[str | None, list[str]]:
    label, equals, rest = argument.partition("=")
    if not equals or Path(argument).exists():
        return None, [argument]
    folders = [part for part in rest.split(",") if part]
    if not label.strip() or not folders:
        raise ConfigError(f"{argument!r}: write LABEL=FOLDER or LABEL=FOLDER,FOLDER,...")
    return label.strip(), folders


def _run_of(folder: Path, figures: Mapping[str, Any]) -> RunFolder | None:
    """The run whose model was evaluated: the one that the folder lies in, or the one that eval.json names."""
    model = figures.get("model")
    path = Path(model) if isinstance(model, str) and model else None
    named = [path, *([path.parent] if path.name == "model" else [])] if path else []
    # Where it names a model that is there and is no run's, the run around the folder has not made it (its start, say).
    another = path is not None and path.exists() and not any(RunFolder.holds_run(place) for place in named)
    inside = [folder.parent] if not ON_THE_WAY.fullmatch(folder.name) and not another else []
    for place in (*named, *inside):
        if RunFolder.holds_run(place):
            return RunFolder.open(place)
    return None


def _labels(groups: Sequence[tuple[str | None, list[Member]]]) -> list[str]:
    """The label given; else the shortest end of the folder's path that tells the arms apart, of several seeds what their paths have in common."""
    paths = [None if label else [_shown(m).parts for m in members] for label, members in groups]
    labels: list[str] = []
    for depth in range(1, 6):
        labels = [label or _common(["/".join(p[-depth:]) for p in parts or ()]) for (label, _), parts in zip(groups, paths, strict=True)]
        if all(labels) and len(set(labels)) == len(labels):
            return labels
    return [one or f"arm {i}" for i, one in enumerate(labels, 1)]


def _shown(member: Member) -> Path:
    place = Path(os.path.normpath(member.folder))
    return place.parent if member.run and place.name == "eval" and RunFolder.holds_run(place.parent) else place


def _common(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    common = "".join(letters[0] for letters in itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))
    if any(name[len(common) : len(common) + 1].isdigit() for name in names):  # seed1 and seed10: no number ends there
        common = common.rstrip("0123456789")
    return re.sub(r"(?:^|[\W_]+)(?:seeds?|s)[\W_]*$|[\W_]+$", "", common)
