"""`mulligan reproduce TABLE`: the experiments behind docs/results, each arm with several seeds, resumable at any moment.

An experiment is a file of recipes/experiments: a recipe, a warm-up that the arms of a seed share, and the arms as overrides. Each arm of
each seed is one run of `mulligan train`, then evaluated like its rivals; what is finished is not done again.
"""

from __future__ import annotations

import itertools
import json
import lzma
import re
import shlex
import shutil
import sys
import tarfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pydantic import Field, ValidationError, field_validator, model_validator
from rich.console import Console

from mulligan.config import Section
from mulligan.errors import ConfigError, RunError
from mulligan.evaluation.values import EVAL_JSON, VALUES
from mulligan.jobs import (
    Job,
    OutOfTime,
    Task,
    evaluate_job,
    find_recipes,
    is_trained,
    require_same_evaluation,
    require_same_training,
    run_tasks,
    train_job,
    worker_pool,
)
from mulligan.runlog import CURVES, MANIFEST, RECIPE, RunFolder
from mulligan.visible import visible

WARM_UP = "warm-up"
ARCHIVE = "evaluations.tar.xz"
PUBLISHED = (EVAL_JSON, VALUES, RECIPE, MANIFEST, CURVES)
"""What is kept of a run beside its experiment's page: every figure of the page can be computed from it."""


class ExperimentArm(Section):
    """One row of the table."""

    overrides: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = Field(default=(), description="settings of this arm's evaluation alone, e.g. controls that would take too long for every arm")
    warm_up: bool = Field(default=True, description="start from the warm-up that the seed's arms share; false: from the recipe's own start, warm-up included")
    start: str | None = Field(default=None, description="start from this arm's trained model instead, e.g. with train = false to evaluate it under another wording")
    train: bool = Field(default=True, description="false: evaluated as it starts")
    seeds: int | None = Field(default=None, ge=1, description="the first so many seeds alone; None: all")


class Experiment(Section):
    """A file of recipes/experiments."""

    title: str
    caption: str = ""
    recipe: str
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    overrides: tuple[str, ...] = Field(default=(), description="of every run")
    warm_up: tuple[str, ...] | None = Field(default=(), description="further overrides of the shared warm-up; its own evaluation is the row `warm-up`")
    evaluation: tuple[str, ...] = Field(default=(), description="overrides of every evaluation, e.g. eval.attempts=1-7")
    headline: str = Field(description="the arm that the others are compared with")
    rivals: tuple[str, ...] = Field(default=(), description="arms whose pass@k the headline's accuracy is compared with, beside its own")
    drawn: tuple[str, ...] = Field(default=(), description="arms in the figures; empty: all")
    arms: dict[str, ExperimentArm]

    @field_validator("arms")
    @classmethod
    def _names(cls, arms: dict[str, ExperimentArm]) -> dict[str, ExperimentArm]:
        if faulty := [name for name in arms if not re.fullmatch(r"\w[\w.@+-]*", name) or name == WARM_UP]:
            raise ValueError(f"{faulty[0]!r} is a folder's name and one of --arms: begin with a letter or a digit and write it with these and . @ + - alone, and not {WARM_UP!r}")
        return arms

    @model_validator(mode="after")
    def _known_arms(self) -> Experiment:
        known = {*self.arms, *([WARM_UP] if self.warm_up is not None else [])}
        if unknown := {self.headline, *self.rivals, *self.drawn} - known:
            raise ValueError(f"no arm {sorted(unknown)[0]!r}: use {', '.join(sorted(known))}")
        if self.drawn and (missing := {self.headline, *self.rivals[:1]} - {*self.drawn}):
            raise ValueError(f"drawn lacks {sorted(missing)[0]!r}: the figures show the headline's arm against the first rival")
        trained = [name for name, arm in self.arms.items() if arm.train and arm.start is None]
        for name, arm in self.arms.items():
            if arm.start is not None and arm.start not in trained:
                raise ValueError(f"arms.{name}.start = {arm.start!r}: use an arm that is trained from no other ({', '.join(trained)})")
            if arm.start is not None and (self.arms[arm.start].seeds or len(self.seeds)) < (arm.seeds or len(self.seeds)):
                raise ValueError(f"arms.{name} has more seeds than {arm.start}, from which it starts: set arms.{name}.seeds = {self.arms[arm.start].seeds}")
        return self

    def with_starts(self, arms: Sequence[str]) -> set[str]:
        """These arms, the warm-up, and the arms whose models they start from."""
        return {*arms, WARM_UP, *(start for arm in arms if (start := self.arms[arm].start) is not None)}


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One arm of one seed: how it is trained, how its model is evaluated, and what has to be there before."""

    arm: str
    seed: int
    training: Job | None
    """None: nothing to train."""
    evaluation: Job
    after: Path | None
    """The folder whose model it starts from."""

    @property
    def name(self) -> str:
        return self.evaluation.name

    @property
    def finished(self) -> bool:
        return (self.evaluation.folder / EVAL_JSON).exists()

    def moved(self, folder: Path) -> ArmRun:
        """The same run, in another folder."""
        return replace(self, training=self.training and replace(self.training, folder=folder), evaluation=replace(self.evaluation, folder=folder))

    def check(self) -> None:
        """Raises ConfigError if what is finished was trained or evaluated with other settings: it would pass for a seed of this experiment."""
        if not self.finished:
            return
        if self.training is not None:
            require_same_training(self.training)
        require_same_evaluation(self.evaluation)


def reproduce(
    name: str,
    out: Path,
    *,
    seeds: int | None = None,
    arms: Sequence[str] | None = None,
    workers: int = 2,
    minutes: float | None = None,
    overrides: tuple[str, ...] = (),
    published: Path | None = None,
) -> bool:
    """Run an experiment in `out` and write its results, of whatever is finished; returns whether all is.

    Args:
        name: of a file of recipes/experiments, or its path.
        seeds: the first so many of the experiment's.
        arms: these alone, with what they start from.
        minutes: stop the work after so long; another call goes on.
        overrides: further settings of every run.
        published: `evaluations.tar.xz` of another `out`: what it holds is taken from there.

    Raises:
        ConfigError: an unknown experiment, arm or setting; `out` holds a run with other settings; `published` cannot be read.
    """
    experiment, recipe = load_experiment(name)
    if unknown := set(arms or ()) - set(experiment.arms):
        raise ConfigError(f"{name} has no arm {sorted(unknown)[0]!r}: use {', '.join(experiment.arms)}")
    if seeds is not None and seeds > len(experiment.seeds):
        raise ConfigError(f"--seeds {seeds}: {name} has {len(experiment.seeds)}; give fewer, or add to `seeds` in a copy of its file")
    settings = {"overrides": (*experiment.overrides, *overrides), "evaluation": (*experiment.evaluation, *overrides)}
    experiment = experiment.model_copy(update=settings)
    every = arm_runs(experiment, recipe, out, experiment.seeds[:seeds])
    wanted = experiment.with_starts(list(experiment.arms) if arms is None else arms)
    asked_for = [run for run in every if run.arm in wanted]
    if published is not None:
        unpack_evaluations(published, asked_for, out)
    for run in every:
        run.check()
    complete = run_experiment(asked_for, workers=workers, minutes=minutes)
    done = [run for run in every if run.finished]
    if done:
        write_results(experiment, name, done, out, overrides=overrides)
    if not complete:
        print(f"time is up: {len(done)} of {len(every)} runs are finished; the same command goes on from here")
    return complete


def list_experiments() -> dict[str, Path]:
    """Name -> file."""
    return {path.stem: path for path in sorted((find_recipes() / "experiments").glob("*.toml"))}


def load_experiment(name: str) -> tuple[Experiment, Path]:
    """An experiment by its name, or a file of one's own; with the path of its recipe.

    Raises:
        ConfigError: unknown name (with those that there are), or a faulty file.
    """
    known = list_experiments()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise ConfigError(f"no experiment {name!r}: use {', '.join(known)}, or the path of a file like those of recipes/experiments")
    try:
        experiment = Experiment.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc']))}: {str(e['msg']).removeprefix('Value error, ')}" for e in error.errors()]
        raise ConfigError(lines) from None
    return experiment, (path.parent / experiment.recipe).resolve()


def arm_runs(experiment: Experiment, recipe: Path, out: Path, seeds: tuple[int, ...]) -> list[ArmRun]:
    """All runs, in the order in which they are started: seed by seed, so that what is done first is a whole table of fewer seeds."""
    runs: list[ArmRun] = []
    for place, seed in enumerate(seeds):
        common = (*experiment.overrides, f"seed={seed}")
        folder = out / f"seed-{seed}"
        warm = folder / WARM_UP
        if experiment.warm_up is not None:
            settings = (*common, *experiment.warm_up)
            training = Job(f"{WARM_UP}, seed {seed}", recipe, (*settings, "train.steps=0"), warm)
            runs.append(ArmRun(WARM_UP, seed, training, Job(training.name, recipe, (*settings, *experiment.evaluation), warm), None))
        for name, arm in experiment.arms.items():
            if arm.seeds is not None and place >= arm.seeds:
                continue
            after = warm if arm.warm_up and experiment.warm_up is not None else None
            if arm.start is not None:
                after = folder / arm.start
            start = (f"model.path={after / 'model'}", "warmup.steps=0") if after is not None else ()
            settings = (*common, *arm.overrides, *start)
            label = f"{name}, seed {seed}"
            training = Job(label, recipe, settings, folder / name) if arm.train else None
            runs.append(ArmRun(name, seed, training, Job(label, recipe, (*settings, *experiment.evaluation, *arm.evaluation), folder / name), after))
    return runs


def run_experiment(runs: list[ArmRun], *, workers: int, minutes: float | None = None) -> bool:
    """Do what is not finished yet; returns whether all is. After `minutes` the work stops where it is, to be gone on with later.

    Raises:
        MulliganError: whatever a run raises; the others stop as well.
    """
    for run in runs:  # a faulty setting shows before anything runs
        for job in (run.training, run.evaluation):
            if job is not None:
                job.load()
    waiting = [run for run in runs if not run.finished]
    by_folder = {run.evaluation.folder: run for run in waiting}
    tasks: list[Task] = []
    for _, of_seed in itertools.groupby(waiting, key=lambda run: run.seed):
        pairs = [_tasks(run, by_folder) for run in of_seed]
        # Trainings, the longer ones, first: two cores end together.
        tasks += [task for task, _ in pairs if task is not None] + [task for _, task in pairs]
    try:
        with worker_pool(Console(stderr=True), [run.name for run in waiting], workers) as submit:
            run_tasks(tasks, submit, workers, until=None if minutes is None else time.monotonic() + 60 * minutes)
    except OutOfTime:
        return False
    return True


def _tasks(run: ArmRun, waiting: Mapping[Path, ArmRun]) -> tuple[Task | None, Task]:
    """Training (if there is any) and evaluation of one arm of one seed. The arms need a warm-up's model, not its evaluation.

    Raises:
        RunError: the model that it starts from is missing and nothing will make it.
    """
    before = waiting.get(run.after) if run.after is not None else None
    start = before.training.training if before is not None and before.training is not None else None
    if run.after is not None and start is None and not is_trained(run.after):
        raise RunError(f"{run.name} starts from the model in {run.after}, which is not there (published evaluations have none): choose another --out")
    if run.training is None:
        return None, Task(run.name, evaluate_job, (run.evaluation,), after=start)
    training = Task(run.training.training, train_job, (run.training,), after=start)
    return training, Task(run.name, evaluate_job, (run.evaluation,), after=training.name)


# -------------------------------------------------------------------------------------------------------------- the results


def write_results(experiment: Experiment, source: str, runs: Sequence[ArmRun], out: Path, *, overrides: Sequence[str] = ()) -> None:
    """NAME.md with its figures in NAME/ (as they stand in docs/results), results.json and report.html in `out`, of the runs that are finished.

    `source` (the experiment's name, or its file) and `overrides` are what `reproduce` was given.
    """
    from mulligan.evaluation.arms import Arm, read_member
    from mulligan.report.experiment import experiment_markdown, experiment_table
    from mulligan.report.html import write_report
    from mulligan.report.training import write_curves

    name = Path(source).stem
    by_arm: dict[str, list[ArmRun]] = {}
    for run in runs:
        by_arm.setdefault(run.arm, []).append(run)
    order = [a for a in (experiment.headline, *experiment.rivals, *experiment.arms, WARM_UP) if a in by_arm]
    arms = [Arm(arm, tuple(read_member(run.evaluation.folder) for run in by_arm[arm])) for arm in dict.fromkeys(order)]
    rivals = [r for r in experiment.rivals if r in by_arm]
    drawn = [arm for arm in arms if arm.label in experiment.drawn]
    shown = [arm.label for arm in drawn or arms]
    write_curves([RunFolder.open(run.training.folder) for run in runs if run.training is not None and RunFolder.holds_run(run.training.folder)])
    report = write_report(
        arms, out / "report.html", out / name, baseline=next((r for r in rivals if r in shown), None), title=experiment.title, drawn=drawn or None
    )  # fmt: skip
    headline, table = report.headline, experiment_table(report.evidence, order[0], rivals)
    command = _command(experiment, source, by_arm, overrides)
    data = f"[{ARCHIVE}]({name}/{ARCHIVE}): `{command} --from {ARCHIVE}` makes this page of it, and runs what it lacks"
    facts = {"command": f"`{command}`"} | _facts(by_arm) | {"evaluations": data}
    others = [arm.label for arm in arms if drawn and arm not in drawn]
    caption = experiment.caption + (f"\n\nThe figures show {', '.join(arm.label for arm in drawn)}; the tables show {', '.join(others)} as well." if others else "")
    training = [section for section in report.training if section.id == "training"]  # those of its folders and of evaluations on the way are in report.html
    text = experiment_markdown(experiment.title, caption, facts, headline, table, [*report.evaluation, *training], name)
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    pack_evaluations(out / name / ARCHIVE, runs, out)
    seeds = {arm: [run.seed for run in found] for arm, found in by_arm.items()}
    rows = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    (out / "results.json").write_text(json.dumps({"title": experiment.title, "seeds": seeds, "facts": facts, "headline": headline.to_json(), "arms": rows}, indent=1), encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table)
    for sentence in (headline.verdict + ".", *headline.sentences, *headline.caveats):
        console.print(visible(sentence), highlight=False, markup=False)
    console.print(f"\n{out / f'{name}.md'}  {out / 'report.html'}", highlight=False, markup=False, soft_wrap=True)


def _command(experiment: Experiment, source: str, by_arm: Mapping[str, Sequence[ArmRun]], overrides: Sequence[str]) -> str:
    """The one that runs what is on the page, and no more."""
    seeds = {run.seed for found in by_arm.values() for run in found}
    some_seeds = ["--seeds", str(len(seeds))] if seeds == {*experiment.seeds[: len(seeds)]} != {*experiment.seeds} else []
    arms = [arm for arm in experiment.arms if arm in by_arm]
    some_arms = ["--arms", ",".join(arms)] if arms and arms != list(experiment.arms) else []
    return shlex.join(["mulligan", "reproduce", source, *some_seeds, *some_arms, *overrides])


def pack_evaluations(archive: Path, runs: Sequence[ArmRun], out: Path) -> None:
    """The evaluations of these runs, values per problem, with the recipes and manifests: some 30 kB a run. The same runs, the same bytes."""
    with tarfile.open(archive, "w:xz") as tar:
        for run in runs:
            for file in (run.evaluation.folder / name for name in PUBLISHED):
                if file.exists():
                    entry = tarfile.TarInfo(file.relative_to(out).as_posix())
                    entry.size = file.stat().st_size
                    with file.open("rb") as content:
                        tar.addfile(entry, content)


def unpack_evaluations(archive: Path, runs: Sequence[ArmRun], out: Path) -> None:
    """Take seeds from an archive: those of which it has every one of `runs`, and `out` has nothing. (An arm that it lacks would need the
    warm-up's model, which no archive holds.)

    Raises:
        ConfigError: it cannot be read, holds no seed of these runs where `out` has none either, or one that was made with other settings.
    """
    by_folder: dict[Path, list[ArmRun]] = {}
    for run in runs:
        by_folder.setdefault(run.evaluation.folder.parent, []).append(run)
    lacking: list[str] = []
    try:
        with tarfile.open(archive) as tar:
            known = {PurePosixPath(member.name).as_posix(): member for member in tar.getmembers() if member.isfile()}
            for folder, of_seed in by_folder.items():
                if folder.exists():
                    if not all(run.finished for run in of_seed):
                        print(f"{folder} is there already: nothing of it is taken from {archive}")
                elif missing := [run.arm for run in of_seed if _published(run, EVAL_JSON, out) not in known]:
                    lacking.append(f"{', '.join(missing)} of {folder.name}")
                else:
                    _unpack_seed(tar, known, folder, of_seed, out)
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise ConfigError(f"--from {archive}: cannot be read as an archive of evaluations ({error}): name the {ARCHIVE} of an experiment's results") from error
    if lacking and not any(folder.exists() for folder in by_folder):
        raise ConfigError(f"--from {archive} has no whole seed of this experiment (it lacks {'; '.join(lacking)}): choose its own {ARCHIVE}, or with --arms what it has")


def _published(run: ArmRun, name: str, out: Path) -> str:
    """What a file of a run is called in an archive."""
    return (run.evaluation.folder / name).relative_to(out).as_posix()


def _unpack_seed(tar: tarfile.TarFile, known: Mapping[str, tarfile.TarInfo], folder: Path, of_seed: Sequence[ArmRun], out: Path) -> None:
    """Aside, checked there, and in place at once: half a seed, or another experiment's, would be gone on with as if it had been run here."""
    aside = folder.with_name(f".unpacking-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for run in of_seed:
            into = aside / run.evaluation.folder.name
            into.mkdir(parents=True)
            for name in PUBLISHED:
                if (member := known.get(_published(run, name, out))) is not None and (content := tar.extractfile(member)) is not None:
                    (into / name).write_bytes(content.read())
            run.moved(into).check()
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _facts(by_arm: dict[str, list[ArmRun]]) -> dict[str, str]:
    """Seeds, commit and machine, from the manifests of the runs."""
    paths = [run.evaluation.folder / "manifest.json" for found in by_arm.values() for run in found]
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    commits = dict.fromkeys(f"`{m['git']['commit'][:12]}`{' with changes' if m['git']['dirty'] else ''}" if m.get("git") else "installed package" for m in manifests)
    machines = dict.fromkeys(f"{m['machine']['cpu']}, {m['machine']['cores']} cores, {', '.join(m['machine']['gpus']) or 'no GPU'}; torch {m['packages'].get('torch', '?')}" for m in manifests)
    seeds = {tuple(run.seed for run in found) for found in by_arm.values()}
    listed = ", ".join(map(str, max(seeds, key=len))) + ("" if len(seeds) == 1 else " (some arms fewer: see the table)")
    return {"seeds": listed, "commit": ", ".join(commits), "machine": "; ".join(machines)}
