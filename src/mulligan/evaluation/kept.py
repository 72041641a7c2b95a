"""What an unfinished evaluation has played, kept so that the same evaluation goes on from there.

An evaluation is some dozens of calls of `Player.play`: the dialogues with each budget, those of each control, the samples of each temperature.
They are played in pieces, and each piece becomes one file as soon as its dialogues are all there, named by a hash of what they depend on: the model, the
protocol, the grader, the problems, the draws. What could not come back as it was, or should be tried again (a grader or a feedback function
that failed), is not kept. The files are removed when the evaluation is whole.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from mulligan import __version__
from mulligan.conditions import NEED_DONORS
from mulligan.config import Recipe, dump_recipe
from mulligan.errors import RunError
from mulligan.evaluation.accuracy import OnDone, Player
from mulligan.evaluation.results import OF_NO_WEIGHT
from mulligan.evaluation.values import UNFINISHED
from mulligan.grading.cache import GRADER_VERSION
from mulligan.sampling import SamplingParams
from mulligan.transcripts import SCHEMA, read_rollouts, rollout_of, rollout_table, write_table
from mulligan.types import Group, Problem

WAVES = 16
"""How many times as many dialogues a piece has as are sampled at once: towards its end rows stand empty, which more pieces would make dear."""


class KeptPlays:
    """A player that keeps what it plays in `folder`/.unfinished, and takes from there what was played before.

    Args:
        model: `Policy.fingerprint` of the model that plays.
        recipe: how it plays; what the calls themselves say (attempts, samples, temperatures, controls) may change from one evaluation to the next.
    """

    def __init__(self, player: Player, folder: Path, *, model: str, recipe: Recipe):
        table = dump_recipe(recipe)
        self.player = player
        self.folder = folder / UNFINISHED
        self.piece = WAVES * recipe.sampling.max_rows
        """Most dialogues of a piece."""
        self.made_of = {"version": [__version__, GRADER_VERSION, str(SCHEMA)], "model": model, "feedback": _source_of(recipe.protocol.feedback)}
        for section in ("protocol", "grader", "reward"):
            self.made_of[section] = {key: value for key, value in table[section].items() if f"{section}.{key}" not in OF_NO_WEIGHT}
        self.kind = recipe.grader.kind
        self.taken = 0
        """Dialogues that did not have to be played again."""
        self._files: set[Path] = set()
        self._sources: dict[str, str] = {}
        self._keeps = True

    def play(self, problems: Sequence[Problem], *, group_size: int = 1, **call: Any) -> list[Group]:
        """As `Player.play`."""
        return [group for piece in self._pieces(problems, group_size) for group in self._play(piece, group_size=group_size, **call)]

    def forget(self) -> None:
        """The evaluation is whole, and what was kept stands in its own files. Another one that was begun in this folder keeps what it has."""
        for file in self._files:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not there, or not empty
            self.folder.rmdir()

    def _pieces(self, problems: Sequence[Problem], group_size: int) -> Iterator[Sequence[Problem]]:
        """Problems that occur twice are played together: a player tells their draws apart by which of them comes first."""
        unlike = len({p.id for p in problems}) == len(problems)
        each = max(1, self.piece // group_size if unlike else len(problems))
        return (problems[i : i + each] for i in range(0, len(problems), each))

    def _play(
        self,
        problems: Sequence[Problem],
        *,
        group_size: int,
        params: SamplingParams,
        condition: str = "normal",
        donors: Sequence[Group] = (),
        on_done: OnDone | None = None,
        **draws: Any,
    ) -> list[Group]:
        """`draws`: everything else that says which dialogues are asked for."""
        asked = {**draws, "group_size": group_size, "temperature": params.temperature, "top_p": params.top_p, "condition": condition}
        if condition in NEED_DONORS and donors:  # the same model's dialogues, which differ with the problems, the budget and what failed beside it
            asked["donors"] = [[[g.problem.id, *(r.trainable for r in g.rollouts)] for g in donors], donors[0].rollouts[0].budget]
        file = self._file(asked, problems)
        if (groups := _read(file, problems, group_size)) is None:
            groups = self.player.play(problems, group_size=group_size, params=params, condition=condition, donors=donors, on_done=on_done, **draws)
            if self._keeps and all(map(_can_be_kept, groups)):
                self._keep(file, rollout_table(groups, stage=draws["stage"], step=draws["step"]))
            return groups
        self._files.add(file)
        self.taken += len(problems) * group_size
        if on_done is not None:
            for group in groups:
                for rollout in group.rollouts:
                    on_done(rollout)
        return groups

    def _file(self, asked: dict[str, Any], problems: Sequence[Problem]) -> Path:
        questions = [[p.id, p.question, p.answer, self.kind or p.grader, dict(p.meta)] for p in problems]
        graders = {kind: self._source(kind) for kind in {self.kind or p.grader for p in problems}}
        key = json.dumps([self.made_of, graders, asked, questions], sort_keys=True, default=repr)
        return self.folder / f"{blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}.parquet"

    def _source(self, kind: str) -> str:
        """Looked up once: the function in use stays what it was when its file is changed in the middle of an evaluation."""
        if kind not in self._sources:
            self._sources[kind] = _source_of(kind)
        return self._sources[kind]

    def _keep(self, file: Path, table: pa.Table) -> None:
        try:
            write_table(file, table)
            self._files.add(file)
        except RunError as error:  # what is being evaluated is not lost by it
            self._keeps = False
            warnings.warn(f"{error}; if this evaluation is stopped, what it has played from here on is played again", RuntimeWarning, stacklevel=2)


def _source_of(entry: str) -> str:
    """A hash of the module's file behind `module:function`, which may be changed under the same name; empty for everything else. (What the module
    imports is not looked at.)"""
    module, colon, _ = entry.partition(":")
    if not colon or not all(part.isidentifier() for part in module.split(".")):
        return ""
    with suppress(ImportError, ValueError, OSError):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin:
            return blake2b(Path(spec.origin).read_bytes(), digest_size=16).hexdigest()
    return ""


def _can_be_kept(group: Group) -> bool:
    return not any(r.error or r.ungradable for r in group.rollouts) and all(
        isinstance(part, str) for r in group.rollouts for a in r.attempts for field in a.verdict.fields.items() for part in field
    )


def _read(file: Path, problems: Sequence[Problem], group_size: int) -> list[Group] | None:
    """The groups of a file; None where there is none, or it cannot be read: it is played again."""
    if not file.exists():
        return None
    try:
        rows = read_rollouts(file)
        if [row["problem_id"] for row in rows] != [p.id for p in problems for _ in range(group_size)]:
            return None
        rollouts = [rollout_of(row, problems[i // group_size]) for i, row in enumerate(rows)]
    except (RunError, KeyError, TypeError, ValueError):
        return None
    return [Group(p, tuple(rollouts[i * group_size : (i + 1) * group_size])) for i, p in enumerate(problems)]
