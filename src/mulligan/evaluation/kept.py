"""What an unfinished evaluation has played, kept so that the same evaluation goes on from there.

An evaluation is some dozens of calls of `Player.play`: the dialogues with each budget, those of each control, the samples of each temperature.
Each call's dialogues become one file as soon as they are all there, named by a hash of everything that they depend on, so that nothing is ever
taken from another model, protocol or question. The folder is removed when the evaluation is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from mulligan import __version__
from mulligan.config import Recipe, dump_recipe
from mulligan.errors import RunError
from mulligan.evaluation.accuracy import OnDone, Player
from mulligan.sampling import SamplingParams
from mulligan.transcripts import read_rollouts, rollout_of, rollout_table, write_table
from mulligan.types import Group, Problem

UNFINISHED = ".unfinished"
"""The folder, in that of the evaluation."""


class KeptPlays:
    """A player that keeps what it plays in `folder`/.unfinished, and takes from there what was played before.

    Args:
        weights: `Policy.digest` of the model that plays.
        recipe: how it plays; what the calls themselves say (attempts, samples, temperatures, controls) may change from one evaluation to the next.
    """

    def __init__(self, player: Player, folder: Path, *, weights: str, recipe: Recipe):
        table = dump_recipe(recipe)
        self.player = player
        self.folder = folder / UNFINISHED
        self.made_of = {"version": __version__, "weights": weights, "tokenizer": table["model"]["tokenizer"], "dtype": table["model"]["dtype"]}
        self.made_of |= {section: table[section] for section in ("protocol", "grader", "reward")}
        self.taken = 0
        """Dialogues that did not have to be played again."""

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
    ) -> list[Group]:
        """As `Player.play`. The donors need not be told apart: they are dialogues of the same model on the same problems.

        Raises:
            RunError: the folder cannot be written.
        """
        call = {"seed": seed, "step": step, "group_size": group_size, "budget": budget, "temperature": params.temperature, "top_p": params.top_p}
        call |= {"stage": stage, "condition": condition, "donors": [len(donors), donors[0].rollouts[0].budget if donors else 0]}
        asked = [[p.id, p.question, p.answer, p.grader, dict(p.meta)] for p in problems]
        key = json.dumps([self.made_of, call, asked], sort_keys=True, default=repr)
        path = self.folder / f"{blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}.parquet"
        groups = _read(path, problems, group_size)
        if groups is None:
            groups = self.player.play(
                problems, seed=seed, step=step, group_size=group_size, budget=budget, params=params,
                stage=stage, on_done=on_done, condition=condition, donors=donors,
            )  # fmt: skip
            write_table(path, rollout_table(groups, stage=stage, step=step))
            return groups
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        self.taken += len(rollouts)
        if on_done is not None:
            for rollout in rollouts:
                on_done(rollout)
        return groups


def forget_unfinished(folder: Path) -> None:
    """The evaluation in `folder` is whole: what it had played is in its own files."""
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _read(path: Path, problems: Sequence[Problem], group_size: int) -> list[Group] | None:
    """The groups of a file; None where there is none, or it cannot be read: it is played again."""
    if not path.exists():
        return None
    try:
        rows = read_rollouts(path)
    except RunError:
        return None
    if [row["problem_id"] for row in rows] != [p.id for p in problems for _ in range(group_size)]:
        return None
    rollouts = [rollout_of(row, problems[i // group_size]) for i, row in enumerate(rows)]
    return [Group(p, tuple(rollouts[i * group_size : (i + 1) * group_size])) for i, p in enumerate(problems)]
