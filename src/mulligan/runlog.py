"""A run on disk: what was asked, on what machine, what happened. Torch-free until something asks for torch's version.

::

    RUN/recipe.json            the resolved recipe
    RUN/manifest.json          versions, machine, seed, commit, data hashes, command, and every time it was resumed
    RUN/set_aside.jsonl        problems that are not used, and why, if there are any
    RUN/metrics.jsonl          one object a line, in order of steps
    RUN/curves.jsonl           of an experiment's run: what of them is published
    RUN/rollouts/step_*.parquet
    RUN/checkpoints/step_*     see checkpoint.py
    RUN/model/                 the trained model, a normal Hugging Face folder
    RUN/.lock                  held by the process that trains here, so that no second one does
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import numbers
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from mulligan import __version__, locks
from mulligan.config import Recipe, dump_recipe, parse_recipe
from mulligan.errors import ConfigError, RunError

RECIPE, MANIFEST, METRICS = "recipe.json", "manifest.json", "metrics.jsonl"
CURVES = "curves.jsonl"
"""Of a run that is published: its metrics, thinned (`report.training`)."""
MODEL = "model"
_PARTS = (RECIPE, MANIFEST, METRICS, "rollouts", "checkpoints", MODEL)
_ROLLOUTS = re.compile(r"step_(\d+)\.parquet")

RESUMABLE = (
    *("log.", "eval.", "train.threads", "train.eval_every", "model.device", "grader.workers", "grader.deadline", "grader.max_failure_rate"),
    *("train.steps", "train.max_tokens"),
)
"""Keys that may differ when a run goes on: none of them changes what a step does, but for a deadline that was too short for the grader. A run may become
longer or shorter; the learning rate follows the share done, so one whose fall has not begun goes on as if it had been begun with the new length."""


class RunFolder:
    """One run folder. Writing is append-only except for `truncate_after`; nothing in a run reads its own metrics."""

    def __init__(self, path: Path, recipe: Recipe):
        """Use `create` or `open`."""
        self.path = path
        self.recipe = recipe
        self._file: BinaryIO | None = None
        self._lock: BinaryIO | None = None
        self._board: Any = None
        self._purge_step: int | None = None
        self.changes: dict[str, list[Any]] = {}
        """Of a run that goes on: what is not as it was when it began, as [before, now]."""

    # ---------------------------------------------------------------------------------------------------- open and create

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe, *, data_hashes: Mapping[str, str] | None = None, command: Sequence[str] | None = None) -> RunFolder:
        """Begin a run in `path` (made if missing). `data_hashes` maps a source to its content hash; `command` defaults to sys.argv.

        Raises:
            RunError: the folder already holds a run, another process trains there, or it cannot be written.
            ConfigError: `log.tensorboard` without the package.
        """
        path = Path(path)
        if recipe.log.tensorboard:
            require_tensorboard()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with locks.alone_in(path):
                if not _is_free(path):
                    raise RunError(f"{path} already holds a run: go on with it by --resume, or choose another --out")
                if (path / "eval.json").exists():  # this run's own would take its place
                    raise RunError(f"{path} holds an evaluation: choose another --out")
                lock = locks.hold(path)
                (path / "rollouts").mkdir(exist_ok=True)
                (path / "checkpoints").mkdir(exist_ok=True)
                _write_json(path / MANIFEST, make_manifest(recipe, data_hashes or {}, command))
                _write_json(path / RECIPE, dump_recipe(recipe))  # the last: from here on the folder holds a run
        except OSError as error:
            raise RunError(f"{path}: the run folder cannot be written ({error.strerror or error}): choose another --out") from error
        run = cls(path, recipe)
        run._lock = lock
        return run

    @classmethod
    def open(cls, path: str | Path, recipe: Recipe | None = None) -> RunFolder:
        """Open a run that exists: to read it, or with a `recipe` to go on with it.

        Raises:
            RunError: no run there, or its recipe is not readable by this version; or, to go on with it, another process trains there.
            ConfigError: `recipe` would train differently from the run's own; or wants TensorBoard, which is not installed.
        """
        path = Path(path)
        if not cls.holds_run(path):
            raise RunError(f"{path} holds no run ({RECIPE} is missing): name the folder that `mulligan train --out` made")
        try:
            run = cls(path, parse_recipe(json.loads((path / RECIPE).read_text(encoding="utf-8")), str(path / RECIPE)))
        except ConfigError as error:
            raise RunError(f"the run was made by another version of mulligan: {'; '.join(error.faults)}") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{path / RECIPE} cannot be read ({error}): restore it or start again with another --out") from error
        if recipe is not None:
            run.require_same(recipe)
            if recipe.log.tensorboard:
                require_tensorboard()
            try:
                run._lock = locks.hold(path)
            except OSError as error:
                raise RunError(f"{path}: the run folder cannot be written ({error.strerror or error})") from error
            run.changes = {key: [before, now] for key, before, now in recipe_differences(run.recipe, recipe)}
            run.recipe = recipe
        return run

    @staticmethod
    def holds_run(path: str | Path) -> bool:
        return (Path(path) / RECIPE).is_file()

    @classmethod
    def of_model(cls, path: str | Path) -> Path | None:
        """The folder of the run that ended with this model folder; None for any other model."""
        folder = Path(path).absolute()
        return folder.parent if folder.name == MODEL and cls.holds_run(folder.parent) else None

    def require_same(self, recipe: Recipe, *, but: tuple[str, ...] = ()) -> None:
        """Check that `recipe` may go on with this run; keys that begin like one of `but` may differ.

        Raises:
            ConfigError: it would train differently; one line per key that differs.
        """
        faults = [
            f"{key}: {ours!r} in {self.path}, {theirs!r} now: a run goes on with the recipe that it began with; drop the change or choose another --out"
            for key, ours, theirs in recipe_differences(self.recipe, recipe)
            if not key.startswith(RESUMABLE + but)
        ]
        if faults:
            raise ConfigError(faults)

    # -------------------------------------------------------------------------------------------------------------- paths

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / MODEL

    def rollout_path(self, step: int) -> Path:
        return self.rollouts / f"step_{step:06d}.parquet"

    def manifest(self) -> dict[str, Any]:
        """The manifest as written.

        Raises:
            RunError: it is missing or unreadable.
        """
        try:
            return json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / MANIFEST} cannot be read ({error})") from error

    # ------------------------------------------------------------------------------------------------------------ metrics

    def log_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line: `step` (counted from 0 through the whole run, warm-up included), time, then `metrics` (numbers,
        strings, lists and dicts of them).

        JSON has no NaN and no infinity: they are written as "NaN", "Infinity", "-Infinity", and `nonfinite` lists their keys.
        """
        if clash := {"step", "time", "nonfinite"} & metrics.keys():
            raise ValueError(f"metrics may not hold {sorted(clash)}: the log writes these itself")
        bad: list[str] = []
        line: dict[str, Any] = {"step": step, "time": round(time.time(), 3)}
        line |= {key: _plain(value, key, bad) for key, value in metrics.items()}
        if bad:
            line["nonfinite"] = bad
        file = self._metrics_file()
        file.write(json.dumps(line, allow_nan=False).encode("ascii") + b"\n")
        file.flush()
        if self.recipe.log.tensorboard:
            self._log_tensorboard(step, line)

    def metrics(self) -> list[dict[str, Any]]:
        """Every whole line. A half-written last one (the writer was killed, or is writing) is left out.

        Raises:
            RunError: another line is broken; gives its number.
        """
        return [entry for _, entry in self._lines()]

    def curves(self) -> list[dict[str, Any]]:
        """What was published of the metrics; nothing where there is no such file.

        Raises:
            RunError: it is broken.
        """
        path = self.path / CURVES
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}): delete it, or take it from the archive again") from error

    def write_curves(self, lines: Iterable[Mapping[str, Any]]) -> None:
        _write_atomic(self.path / CURVES, "".join(json.dumps(line) + "\n" for line in lines).encode("ascii"))

    def truncate_after(self, steps: int, train_steps: int) -> None:
        """Go back to where `steps` steps were done, as the checkpoint has it, and note in the manifest that the run goes on there,
        with the keys of the recipe that changed as `[before, now]`.

        Metrics of later steps are dropped, what was published of them, and rollouts of training steps from `train_steps` on (0 or less: all of them).
        """
        self._close_files()
        (self.path / CURVES).unlink(missing_ok=True)
        path = self.path / METRICS
        if path.exists():
            _write_atomic(path, b"".join(raw for raw, entry in self._lines() if entry["step"] < steps))
        for file in self.rollouts.iterdir() if self.rollouts.is_dir() else ():
            match = _ROLLOUTS.fullmatch(file.name)
            if (match and int(match[1]) >= train_steps) or file.suffix == ".tmp":  # .tmp: of a writer that was killed
                file.unlink()
        self._purge_step = steps
        manifest, now = self.manifest(), make_manifest(self.recipe, {})
        again = {key: now[key] for key in ("created", "command", "mulligan", "python", "packages", "machine", "git")}
        manifest.setdefault("resumed", []).append({"after_steps": steps, "changed": self.changes, **again})
        _write_json(self.path / MANIFEST, manifest)
        _write_json(self.path / RECIPE, dump_recipe(self.recipe))

    def remove_model(self) -> None:
        """Remove the trained model, its card first: half a model does not count as trained."""
        for name in ("README.md", "config.json"):
            (self.model / name).unlink(missing_ok=True)
        shutil.rmtree(self.model, ignore_errors=True)

    def write_model_card(self, problems: str) -> Path:
        """Write model/README.md, the card that the Hub shows. `problems` says in words what was trained on."""
        self.model.mkdir(exist_ok=True)
        path = self.model / "README.md"
        path.write_text(_model_card(self.recipe, problems), encoding="utf-8")
        return path

    def close(self) -> None:
        """Close the files, which `log` opens again, and let another process train here."""
        try:
            self._close_files()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _close_files(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()  # writes what is left, which a full disk refuses
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _metrics_file(self) -> BinaryIO:
        if self._file is None:
            path = self.path / METRICS
            if path.exists():
                data = path.read_bytes()
                if not data.endswith(b"\n"):  # half a line of a writer that was killed
                    os.truncate(path, data.rfind(b"\n") + 1)
            self._file = path.open("ab")
        return self._file

    def _lines(self) -> list[tuple[bytes, dict[str, Any]]]:
        path = self.path / METRICS
        if not path.exists():
            return []
        *whole, _ = path.read_bytes().split(b"\n")
        found = []
        for number, raw in enumerate(whole, start=1):
            try:
                entry = json.loads(raw)
                if not isinstance(entry["step"], int):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                raise RunError(f"{path}, line {number}: not a line of metrics: delete it, or start again with another --out") from None
            found.append((raw + b"\n", entry))
        return found

    def _log_tensorboard(self, step: int, line: Mapping[str, Any]) -> None:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=self._purge_step)
        for key, value in line.items():
            if value in ("NaN", "Infinity", "-Infinity"):
                value = float(value)
            if key not in ("step", "time") and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add_scalar(f"{line.get('stage', 'run')}/{key}", value, step)
        self._board.flush()


# --------------------------------------------------------------------------------------------------------------- manifest


def is_trained(run: Path) -> bool:
    """Whether a run left its model, whose card is written last."""
    return (run / MODEL / "README.md").exists()


def make_manifest(recipe: Recipe, data_hashes: Mapping[str, str], command: Sequence[str] | None = None) -> dict[str, Any]:
    """What a reader needs to know to repeat the run, JSON-able. `created` is UTC."""
    return {
        "name": recipe.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv if command is None else command),
        "seed": recipe.seed,
        "mulligan": __version__,
        "python": platform.python_version(),
        "packages": dict(sorted((d.name, d.version) for d in importlib.metadata.distributions())),
        "machine": {"platform": platform.platform(), "cpu": _cpu_model(), "cores": os.cpu_count(), **_torch_facts()},
        "git": _git_state(),
        "data": dict(data_hashes),
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _torch_facts() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {"torch_threads": torch.get_num_threads(), "gpus": gpus}


def _git_state() -> dict[str, Any] | None:
    """Commit of mulligan's own source and whether it has changes; None if it is installed from a package, or without git."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(source), *arguments], capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def recipe_differences(one: Recipe, other: Recipe) -> list[tuple[str, Any, Any]]:
    """Dotted keys at which two recipes differ, with both values."""

    def walk(a: Any, b: Any, where: str) -> list[tuple[str, Any, Any]]:
        if isinstance(a, dict) and isinstance(b, dict):
            return [d for key in a | b for d in walk(a.get(key), b.get(key), f"{where}.{key}" if where else key)]
        return [] if a == b else [(where, a, b)]

    return walk(dump_recipe(one), dump_recipe(other), "")


def _model_card(recipe: Recipe, problems: str) -> str:
    base = recipe.model.path
    on_hub = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", base) is not None and not Path(base).exists()
    head = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [mulligan, multi-attempt, reinforcement-learning]"]
    if on_hub:
        head.append(f"base_model: {base}")
    origin = "a small Llama trained from scratch" if base.startswith("tiny:") else f"`{base}`"
    stated = "The prompt states how many attempts there are." if recipe.protocol.state_budget else "The prompt does not state how many attempts there are."
    return "\n".join(
        [
            "---",
            *head,
            "---",
            "",
            f"# {recipe.name}",
            "",
            f"{origin[0].upper()}{origin[1:]}, trained with mulligan {__version__} by multi-attempt reinforcement learning on {problems}.",
            "",
            f"- Attempts per question: `{recipe.attempts}`. {stated}",
            f"- Feedback after a failed attempt: `{recipe.protocol.feedback}`, in a turn of role `{recipe.protocol.feedback_role}`; an attempt stops at its `{recipe.protocol.stop}`.",
            f"- Reward: {recipe.reward.correct:+g} correct, {recipe.reward.wrong:+g} wrong, {recipe.reward.no_answer:+g} without an answer.",
            f"- Advantages: `{recipe.advantage.name}`; {recipe.train.problems_per_step} problems a step, {recipe.train.group_size} dialogues each; seed {recipe.seed}.",
            "",
            "The exact recipe, versions, metrics and every training dialogue stand in the run folder that this model comes from. The method is that of",
            "Chung, Du and Fu, *Learning from Failures in Multi-Attempt Reinforcement Learning* (2025).",
            "",
        ]
    )


# ----------------------------------------------------------------------------------------------------------------- helpers


def require_tensorboard() -> None:
    """Raises ConfigError if TensorBoard is asked for and missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("log.tensorboard = true needs a package that is not installed: pip install 'mulligan[tensorboard]', or set log.tensorboard to false")


def _plain(value: Any, key: str, bad: list[str]) -> Any:
    """JSON-able twin of a metric; keys of what is not finite go to `bad`."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{key}.{k}", bad) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{key}[{i}]", bad) for i, v in enumerate(value)]
    if not isinstance(value, (int, float)) and hasattr(value, "item"):  # a 0-d tensor, a numpy scalar
        return _plain(value.item(), key, bad)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isfinite(number):
            return number
        bad.append(key)
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    raise TypeError(f"metric {key!r} is a {type(value).__name__}: log numbers, strings, lists or dicts")


def _is_free(path: Path) -> bool:
    """Whether a run may begin in `path`: nothing of a run is there, or no more than `RunFolder.create` leaves when it is killed."""
    parts = {part for part in _PARTS if (path / part).exists()}
    if MANIFEST in parts and parts != {MANIFEST, "rollouts", "checkpoints"}:
        return False
    return parts <= {MANIFEST, "rollouts", "checkpoints"} and all((path / part).is_dir() and not any((path / part).iterdir()) for part in parts - {MANIFEST})


def _write_json(path: Path, data: Any) -> None:
    _write_atomic(path, (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))


def _write_atomic(path: Path, data: bytes) -> None:
    """Replace the file as a whole: a reader, or a kill, sees the old one or the new one."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
