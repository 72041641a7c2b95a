"""An evaluation on disk: `eval.json` (figures), `values.parquet` (each problem's values) and `dialogues.parquet` (every dialogue behind them)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mulligan import __version__
from mulligan.config import Recipe, dump_recipe
from mulligan.errors import ConfigError, RunError
from mulligan.evaluation.evaluation import Evaluation
from mulligan.evaluation.values import EVAL_JSON, VALUES, values_table
from mulligan.transcripts import rollout_table, write_table, written_whole

DIALOGUES = "dialogues.parquet"
OF_NO_WEIGHT = ("grader.workers", "grader.max_failure_rate")
"""Settings of an evaluation that no figure depends on. (A deadline decides what could be graded.)"""


def eval_json(evaluations: Sequence[Evaluation], *, model: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """{"model", "version", "seed", "settings", "problem_sets": {name: figures}}; see `Evaluation.to_json` for the figures, `settings_of` for the settings.

    Raises:
        ConfigError: two problem sets under one name, or evaluations with different seeds.
    """
    names = [e.name for e in evaluations]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError(f"problem set {twice[0]!r} was given twice: give each one once, or files with different names")
    if len({e.seed for e in evaluations}) > 1:
        raise ConfigError("evaluations with different seeds cannot stand in one eval.json: write one file per seed")
    return {
        "model": model,
        "version": __version__,
        "seed": evaluations[0].seed if evaluations else None,
        "settings": dict(settings or {}),
        "problem_sets": {e.name: e.to_json() for e in evaluations},
    }


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The sections of a recipe that say how an evaluation was played and graded."""
    table = dump_recipe(recipe)
    model = {key: table["model"][key] for key in ("path", "revision", "dtype")}
    return {"model": model, **{section: table[section] for section in ("protocol", "grader", "eval")}}


def unlike_settings(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(section.key, value here, value there) of all settings (`settings_of`) that both know, that figures depend on, and that differ."""
    both = [(f"{section}.{key}", value, there[section][key]) for section, values in here.items() for key, value in values.items() if key in there.get(section, {})]
    return [(key, x, y) for key, x, y in both if x != y and key not in OF_NO_WEIGHT]


def dialogue_table(evaluation: Evaluation) -> pa.Table:
    """Every dialogue of the evaluation, one a row; `stage` is `attempts` (a dialogue with budget k), `samples` (for pass@k) or a control's name;
    `step` is k, and for samples the place of their temperature in rising order, from 0."""
    tables = [rollout_table(p.groups, stage=p.stage, step=p.index if p.stage == "samples" else p.k, problem_set=evaluation.name) for p in evaluation.plays]
    return pa.concat_tables(tables)


def write_evaluation(folder: str | Path, evaluations: Sequence[Evaluation], *, model: str, settings: Mapping[str, Any] | None = None) -> Path:
    """Write the three files into the folder (made if need be), each whole or not at all; returns the path of eval.json.

    Raises:
        ConfigError: as `eval_json`.
        RunError: the folder cannot be written.
    """
    folder = Path(folder)
    table = eval_json(evaluations, model=model, settings=settings)
    if evaluations:
        write_table(folder / DIALOGUES, pa.concat_tables([dialogue_table(e) for e in evaluations]))
        with written_whole(folder / VALUES, "the values") as temporary:
            pq.write_table(pa.concat_tables([values_table(e.name, e.values) for e in evaluations]), temporary, compression="zstd")
    path = folder / EVAL_JSON
    with written_whole(path, "the figures") as temporary:
        temporary.write_text(json.dumps(table, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def remove_evaluation(folder: Path) -> None:
    """Remove what `write_evaluation` wrote into the folder; the figures first, without which the rest counts as none."""
    for name in (EVAL_JSON, VALUES, DIALOGUES):
        (folder / name).unlink(missing_ok=True)


def read_evaluation(path: str | Path) -> dict[str, Any]:
    """The content of an eval.json, given the file or its folder.

    Raises:
        RunError: no such file, not an eval.json, or a figure in it that is no finite number.
    """
    path = Path(path)
    path = path / EVAL_JSON if path.is_dir() else path
    try:
        table = json.loads(path.read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; run mulligan eval with --out first") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not readable as JSON ({error}); run mulligan eval again") from None
    if not isinstance(table, dict) or "problem_sets" not in table:
        raise RunError(f"{path}: no 'problem_sets' in it, so this is not an eval.json; give one that mulligan eval wrote")
    return table


def _finite(text: str) -> float:
    """A number of JSON; Python's reader lets NaN and Infinity pass, which no evaluation writes and no report could."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number
