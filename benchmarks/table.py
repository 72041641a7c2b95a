"""What a suite hands back, and how it is written: one section of the report, one entry of results.json."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.worker import ROOT


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for. `model` is a plain Hugging Face folder in float32."""

    out: Path
    model: str
    rounds: int
    threads: int
    tiny: bool
    vllm_python: str | None
    vllm_wait_policy: str
    trl_batches: tuple[int, ...]
    precisions: tuple[str, ...]
    quickstarts: tuple[Path, ...]


@dataclass(slots=True)
class Table:
    caption: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        self.rows.append([*cells, *[""] * (len(self.header) - len(cells))])

    def markdown(self) -> str:
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return f"**{self.caption}**\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(slots=True)
class Result:
    """One suite: tables and notes for the reader, `raw` (every round's numbers) for results.json, `plots` by file name."""

    title: str
    tables: list[Table]
    notes: list[str]
    raw: dict[str, Any] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)


# --------------------------------------------------------------------------------------------------------------------- numbers


def spread(values: Sequence[float], digits: int) -> str:
    """`median (min..max)`."""
    if not values:
        return ""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def ratio(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """Round by round: both sides of a round saw the same state of the machine."""
    return [a / b for a, b in zip(these, those, strict=True)] if these and those else []


def failed_rows(table: Table, failures: Mapping[str, str], missing: str | None = None) -> None:
    """A row for each contender that did not finish, and for one that is not installed."""
    for name, reason in failures.items():
        table.add(name, f"{'not installed' if name == missing else 'failed'} ({reason.replace('|', '/')})")
    if missing and missing not in failures:
        table.add(missing, "not installed")


# --------------------------------------------------------------------------------------------------------------------- writing


def facts(settings: Settings) -> dict[str, Any]:
    """What a reader needs to know to repeat the measurement."""
    packages = {}
    for name in ("torch", "transformers", "trl"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "commit": _git("rev-parse", "--short", "HEAD") + (" with changes" if _git("status", "--porcelain") else ""),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": packages,
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items() if key != "quickstarts"},
    }


def save(settings: Settings, suite: str, result: Result, about: dict[str, Any]) -> None:
    """Put the suite into results.json beside those that stand there already, and write report.md anew from all of them."""
    path = settings.out / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    elsewhere = {name: version for info in result.raw.get("info", {}).values() for name, version in info.items() if name == "vllm"}
    results[suite] = {"about": about | {"packages": about["packages"] | elsewhere}, **asdict(result)}
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    (settings.out / "report.md").write_text("\n\n".join(["# Benchmarks", *map(_section, results.values())]) + "\n", encoding="utf-8")


def _section(entry: Mapping[str, Any]) -> str:
    about = entry["about"]
    made = (
        f"{about['date']}, commit {about['commit']}, {about['cpu']} with {about['cores']} cores, {about['settings']['threads']} threads, "
        f"load before {about['load_before']:.2f}, Python {about['python']}, {', '.join(f'{k} {v}' for k, v in about['packages'].items())}. "
        f"Medians of {about['settings']['rounds']} rounds (min..max). `{about['command']}`"
    )
    notes = "\n".join(f"- {note}" for note in entry["notes"])
    tables = [Table(**table).markdown() for table in entry["tables"]]
    return "\n\n".join([f"## {entry['title']}", *tables, *[f"![{name}]({name})" for name in entry["plots"]], *([notes] if notes else []), made])


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
