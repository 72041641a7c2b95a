"""Run folders and evaluation folders written by hand, as `mulligan train` and `mulligan eval` leave them: for the tests of comparisons and reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from mulligan.config import parse_recipe
from mulligan.evaluation import bootstrap_mean
from mulligan.evaluation.values import difference_of
from mulligan.runlog import RunFolder

N = 120
"""Problems of a set of `arm_data`."""

Quantities = Mapping[str, Mapping[int, ArrayLike]]
"""quantity -> k -> one value per problem; None or NaN: ungradable."""


def write_evaluation(
    folder: Path, sets: Mapping[str, Quantities], *, ids: Mapping[str, Sequence[str]] | None = None, more: Mapping[str, Any] | None = None, **top: Any
) -> Path:
    """eval.json and values.parquet. `more`: further keys of every problem set; `top`: of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {name: {**set_figures(name, quantities), **(more or {})} for name, quantities in sets.items()}
    (folder / "eval.json").write_text(json.dumps({"model": "m", "version": "0.1.0", "seed": 0, "problem_sets": figures, **top}))
    columns: dict[str, list[Any]] = {"problem_set": [], "quantity": [], "k": [], "problem_id": [], "value": []}
    for name, quantities in sets.items():
        for quantity, by_k in quantities.items():
            for k, values in by_k.items():
                array = np.asarray(values, dtype=float)
                known = (ids or {}).get(name) or [f"p{i}" for i in range(len(array))]
                for key, value in zip(known, array, strict=True):
                    for column, cell in zip(columns.values(), (name, quantity, k, key, None if np.isnan(value) else float(value)), strict=True):
                        column.append(cell)
    schema = pa.schema([("problem_set", pa.string()), ("quantity", pa.string()), ("k", pa.int32()), ("problem_id", pa.string()), ("value", pa.float64())])
    pq.write_table(pa.table(columns, schema=schema), folder / "values.parquet")
    return folder


def set_figures(name: str, quantities: Quantities) -> dict[str, Any]:
    solved = {k: np.asarray(v, dtype=float) for k, v in quantities["solved"].items()}
    passed = {k: np.asarray(v, dtype=float) for k, v in quantities.get("passed", {}).items()}
    tokens = {k: np.asarray(v, dtype=float) for k, v in quantities.get("tokens", {}).items()}

    def mean(values: np.ndarray, bounds: tuple[float, float] | None = (0.0, 1.0)) -> dict[str, Any]:
        return bootstrap_mean(values[~np.isnan(values)], bounds=bounds).to_json()

    return {
        "name": name,
        "source": name,
        "mode": "per_budget",
        "temperature": 0.0,
        "top_p": 1.0,
        "samples": 20 if passed else 0,
        "seed": 0,
        "problems": len(next(iter(solved.values()))),
        "set_aside": 0,
        "accuracy": {str(k): mean(v) for k, v in solved.items()},
        "pass_at_k": {str(k): mean(v) for k, v in passed.items()},
        "gain": {str(k): difference.to_json() for k in solved if k in passed and (difference := difference_of(solved[k], passed[k]))},
        "tokens_per_problem": {str(k): mean(v, None) for k, v in tokens.items()},
        "warnings": [],
    }


RECIPE: dict[str, Any] = {
    "name": "small",
    "attempts": "uniform(1,3)",
    "model": {"path": "tiny:"},
    "problems": {"train": "builtin:guess", "eval": ["builtin:guess?split=test"]},
}


def write_run(folder: Path, *, metrics: Sequence[Mapping[str, Any]] = (), command: Sequence[str] = ("mulligan", "train", "r.toml"), **changes: Any) -> RunFolder:
    """A run folder; `changes` to RECIPE with `__` for the dot."""
    table = json.loads(json.dumps(RECIPE))
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = table
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    run = RunFolder.create(folder, parse_recipe(table), command=command)
    for step, line in enumerate(metrics):
        run.log_metrics(step, line)
    run.close()
    return run


def training(steps: int, *, reward: float = 0.5, warm_up: int = 2) -> list[dict[str, Any]]:
    """Lines of metrics as training writes them: a warm-up, then rewards that rise to `reward`."""
    lines: list[dict[str, Any]] = [{"stage": "warmup", "train_step": step - warm_up, "loss": 2.0, "seconds": 0.5, "tokens_total": 0} for step in range(warm_up)]
    for step in range(steps):
        share = (step + 1) / steps
        lines.append(
            {
                "stage": "train", "train_step": step, "reward": reward * share, "accuracy": 0.5 * share, "accuracy_first": 0.3 * share, "attempts_used": 2.0,
                "tokens_per_attempt": 5.0, "share_no_answer": 0.1, "share_truncated": 0.05, "entropy": 1.5 - share, "approx_kl": 1e-4, "seconds": 1.0, "tokens_total": 100 * (step + 1),
            }
        )  # fmt: skip
    return lines


def solved_with(rng: np.random.Generator, n: int, rates: Sequence[float]) -> dict[int, np.ndarray]:
    """k -> solved or not; a problem that is solved with k attempts is solved with more."""
    draws = rng.random(n)
    return {k: (draws < rate).astype(float) for k, rate in enumerate(rates, 1)}


def interval(mean: float, half: float = 0.04, n: int = 200) -> dict[str, float | int]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def full_evaluation(folder: Path, *, seed: int = 0, sets: Sequence[str] = ("one",), n: int = 200, rates: Sequence[float] = (0.4, 0.6, 0.7, 0.72, 0.73), keeps: float = 0.3, **top: Any) -> Path:
    """An evaluation with everything that one can leave: pass@k, controls (the history-blind one keeps `keeps` of the rise), rivals, ceilings, equal tokens, power."""
    rng = np.random.default_rng(seed)
    ks = range(1, len(rates) + 1)
    quantities: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for name in sets:
        draws = rng.random(n)
        solved = {k: (draws < rate).astype(float) for k, rate in zip(ks, rates, strict=True)}
        blind = {k: (draws < rates[0] + keeps * (rate - rates[0])).astype(float) for k, rate in zip(ks, rates, strict=True)}
        quantities[name] = {
            "solved": solved,
            "passed": {k: np.clip(solved[1] * 0.9 + 0.02 * k, 0, 1) for k in ks},
            "tokens": {k: 6.0 + 4 * k * (1 - solved[k]) for k in ks},
            "solved:history_blind": blind,
            "solved:verdict_hidden": solved,
        }
    by_attempt = {str(k): {"count": 5, "total": 50, **interval(0.1 / k)} for k in ks}
    more = {
        "trained_attempts": 3,
        "rise": [1, min(3, len(rates))],
        "conditional_success": {str(k): {"solved": 5, "reached": 50, **interval(0.4 / k)} for k in ks},
        "repeat_rate": {"overall": {"count": 5, "total": 50, **interval(0.1)}, "by_attempt": {k: v for k, v in by_attempt.items() if k != "1"}},
        "no_answer": {"overall": {"count": 5, "total": 50, **interval(0.05)}, "by_attempt": by_attempt},
        "truncated": {"overall": {"count": 0, "total": 50, **interval(0.0, 0.0)}, "by_attempt": {}},
        "attempts_used": {str(k): interval(1 + 0.3 * k) for k in ks},
        "tokens_per_solved": {str(k): interval(20.0) for k in ks},
        "equal_tokens": {str(k): {"tokens": 10.0 * k, "samples": 2.5 * k, "pass": interval(0.45), "gain": interval(0.1)} for k in ks},
        "ceilings": {"best possible": {str(k): min(1.0, 0.4 + 0.2 * (k - 1)) for k in ks}, "best independent sampling": {str(k): 0.5 for k in ks}},
        "controls": {
            "history_blind": {"accuracy": {str(k): interval(0.4 + 0.02 * k) for k in ks}, "difference": {str(k): interval(-0.1 * (k > 1)) for k in ks}, "gain_kept": interval(keeps, 0.1), "tokens_per_problem": {}},
            "verdict_hidden": {"accuracy": {str(k): interval(0.5) for k in ks}, "difference": {str(k): interval(-0.02) for k in ks}, "gain_kept": None, "tokens_per_problem": {}},
        },
        "false_wrong": {"kept": {"count": 40, "total": 80, **interval(0.5)}, "returned": {"count": 60, "total": 80, **interval(0.75)}},
        "power": {"deviation": 0.5, "problems_for": {"3": 2181, "5": 785}, "detectable": 0.099},
        "gain_power": {"deviation": 0.25, "problems_for": {"3": 546, "5": 197}, "detectable": 0.0495},
        "rivals": {"untrained": {"pass_at_k": {str(k): interval(0.5) for k in ks}, "gain": {str(k): interval(0.12) for k in ks}, "accuracy": {str(k): interval(0.2) for k in ks}}},
        "warnings": ["one: a warning of the evaluation"],
    }  # fmt: skip
    return write_evaluation(folder, quantities, more=more, **top)


def arm_data(seed, rates=(0.3, 0.5, 0.6), n=N, sets=("one",)):
    rng = np.random.default_rng(seed)
    found = {}
    for name in sets:
        solved = solved_with(rng, n, rates)
        found[name] = {"solved": solved, "passed": {k: v * 0.8 for k, v in solved.items()}, "tokens": {k: np.full(n, 10.0 * k) for k in solved}}
    return found


def multi_and_single(folder):
    """Two seeds of a multi-attempt arm, one of a single-turn arm; the first is also evaluated in a folder of its own."""
    for seed in (0, 1):
        write_run(folder / f"multi-seed{seed}", seed=seed, metrics=training(3))
        write_evaluation(folder / f"multi-seed{seed}", arm_data(seed))
    write_run(folder / "single", attempts="fixed(1)", seed=0)
    write_evaluation(folder / "single", arm_data(9, (0.35, 0.36, 0.37)))
    return folder
