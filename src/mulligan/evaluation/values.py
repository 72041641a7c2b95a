"""One value per problem behind every figure: means and paired differences of them, and `values.parquet`.

Suffix: `_P` problem. A value that does not exist for a problem (the grader failed) is NaN, on disk null, and takes no part: a
broken grader is never a wrong answer.

`values.parquet` has one row per (problem_set, quantity, k, problem_id), in the order of the problems. Quantities: `solved` (1 or 0) and
`tokens` (sampled) of the dialogue with budget k; `passed` (the problem's estimate of pass@k at the chosen temperature) and
`passed@T` at each temperature T; `samples:graded@T`, ... the samples themselves, counted (`samples.Tally`; k = 1); `solved:CONTROL` and
`tokens:CONTROL` of each control's dialogues; with budget k `attempts_used`, `again:answered` and `again:repeated` (`attempts.repeat_counts`);
of the dialogues with one budget (`attempts_budget` in eval.json; in those of earlier versions the largest) what is counted at attempt k
(`attempts.RATES`): `attempts:made`, `attempts:correct`, ...; and `false_wrong:told`, ... (`controls.FalseWrong`) with that budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mulligan.errors import RunError
from mulligan.evaluation.intervals import Interval, bootstrap_mean, paired_difference
from mulligan.runlog import RunFolder
from mulligan.transcripts import as_utf8

VALUES = "values.parquet"
EVAL_JSON = "eval.json"
UNFINISHED = ".unfinished"
"""A folder in that of an evaluation that is not whole yet: what it has played (`evaluation.kept`)."""

Values = NDArray[np.float64]
"""One value per problem, `_P`; NaN where there is none."""

SCHEMA = pa.schema([("problem_set", pa.string()), ("quantity", pa.string()), ("k", pa.int32()), ("problem_id", pa.string()), ("value", pa.float64())])


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What dialogues of one kind brought: k -> `_P`, 1 solved or 0, tokens sampled, and attempts made."""

    solved: Mapping[int, Values]
    tokens: Mapping[int, Values]
    attempts: Mapping[int, Values]


@dataclass(frozen=True, slots=True, eq=False)
class ProblemValues:
    """The values of one problem set: `quantities[quantity][k]` in the order of `problem_ids`."""

    problem_ids: tuple[str, ...]
    quantities: Mapping[str, Mapping[int, Values]] = field(repr=False)


def mean_of(values_P: Values, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Interval | None:
    """Mean of the known values with its interval over problems; None if none is known."""
    known_P = values_P[~np.isnan(values_P)]
    return bootstrap_mean(known_P, bounds=bounds) if len(known_P) else None


def difference_of(a_P: Values, b_P: Values) -> Interval | None:
    """Mean of a - b over the problems where both are known, paired; None if there is no such problem."""
    both_P = ~(np.isnan(a_P) | np.isnan(b_P))
    return paired_difference(a_P[both_P], b_P[both_P]) if both_P.any() else None


def means_of(values: Mapping[int, Values], bounds: tuple[float, float] | None = (0.0, 1.0)) -> dict[int, Interval]:
    """`mean_of` for each k; a k without a known value is left out."""
    return {k: mean for k, values_P in values.items() if (mean := mean_of(values_P, bounds)) is not None}


def differences_of(a: Mapping[int, Values], b: Mapping[int, Values]) -> dict[int, Interval]:
    """`difference_of` for each k that both have."""
    return {k: d for k in a if k in b and (d := difference_of(a[k], b[k])) is not None}


def aligned(ids: Sequence[str], others: Sequence[str]) -> NDArray[np.int64] | None:
    """Where each of `ids` stands in `others`; None unless both hold the same problems. A problem that a stream holds several times is
    matched to its namesakes in their order."""
    place = {key: i for i, key in enumerate(numbered(others))}
    found = [place.get(key) for key in numbered(ids)]
    if len(ids) != len(others) or any(i is None for i in found):
        return None
    return np.array(found, dtype=np.int64)


def in_common(ids: Sequence[str], others: Sequence[str]) -> int:
    """How many problems two sets share."""
    return (Counter(ids) & Counter(others)).total()


def numbered(ids: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Each id with how many namesakes stand before it: a stream may hold a problem several times."""
    seen: Counter[str] = Counter()
    for problem_id in ids:
        yield problem_id, seen[problem_id]
        seen[problem_id] += 1


# ---------------------------------------------------------------------------------------------------------------- on disk


def values_table(name: str, values: ProblemValues) -> pa.Table:
    """The rows of problem set `name`."""
    count = len(values.problem_ids)
    parts = []
    for quantity, by_k in values.quantities.items():
        for k, values_P in by_k.items():
            columns = [
                pa.array([name] * count, pa.string()),
                pa.array([quantity] * count, pa.string()),
                pa.array([k] * count, pa.int32()),
                pa.array(list(map(as_utf8, values.problem_ids)), pa.string()),
                pa.array(values_P, pa.float64(), from_pandas=True),  # NaN becomes null
            ]
            parts.append(pa.Table.from_arrays(columns, schema=SCHEMA))
    return pa.concat_tables(parts) if parts else SCHEMA.empty_table()


def folder_of_evaluation(folder: str | Path) -> Path:
    """Where the evaluation lies that a folder stands for: of a run RUN/eval (`mulligan eval`) if it is there, else the run's own, in RUN itself."""
    folder = Path(folder)
    return folder / "eval" if RunFolder.holds_run(folder) and (folder / "eval" / EVAL_JSON).is_file() else folder


def begun_evaluation(run: Path) -> Path | None:
    """RUN/eval where an evaluation was begun and stopped before it was whole, so that the run's own, which training left, stands in its place; else None."""
    begun = run / "eval"
    return begun if (begun / UNFINISHED).is_dir() and not (begun / EVAL_JSON).is_file() else None


def read_values(folder: str | Path) -> dict[str, ProblemValues]:
    """Problem set -> values, from the folder of an evaluation or the file itself.

    Raises:
        RunError: no such file, or not one that an evaluation wrote.
    """
    path = Path(folder)
    path = path / VALUES if path.is_dir() else path
    if not path.exists():
        raise RunError(f"{path}: no such file; evaluate with this version first (mulligan eval ... --out FOLDER)")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}); evaluate again") from None
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise RunError(f"{path}: column {missing[0]!r} is missing, so this is not a values.parquet; give one that mulligan eval wrote")
    sets, quantities, ks, ids = (table.column(name).to_pylist() for name in SCHEMA.names[:4])
    values = table.column("value").cast(pa.float64()).to_numpy(zero_copy_only=False)  # null becomes NaN
    rows: dict[str, dict[str, dict[int, list[int]]]] = {}
    for row, (name, quantity, k) in enumerate(zip(sets, quantities, ks, strict=True)):
        rows.setdefault(name, {}).setdefault(quantity, {}).setdefault(k, []).append(row)
    return {name: _gathered(path, name, by_quantity, ids, values) for name, by_quantity in rows.items()}


def _gathered(path: Path, name: str, rows: Mapping[str, Mapping[int, Sequence[int]]], ids: Sequence[str], values: Values) -> ProblemValues:
    every = [tuple(ids[row] for row in chosen) for by_k in rows.values() for chosen in by_k.values()]
    if any(one != every[0] for one in every):
        raise RunError(f"{path}: the quantities of {name!r} are not of the same problems, so the file is damaged; evaluate again")
    return ProblemValues(every[0], {quantity: {k: values[list(chosen)] for k, chosen in by_k.items()} for quantity, by_k in rows.items()})
