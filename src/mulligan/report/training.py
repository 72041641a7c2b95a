"""The parts of a report that come from run folders: training step by step, evaluations on the way, and the facts of each run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from mulligan.evaluation import Interval
from mulligan.evaluation.arms import Arm, evaluations_on_the_way
from mulligan.evaluation.comparison import ACCURACY
from mulligan.report.chart import Chart, Curve, Panel, Unit
from mulligan.report.evidence import Evidence
from mulligan.report.joining import over_seeds
from mulligan.report.sections import Section
from mulligan.report.tables import NOTHING, TextTable, intervals
from mulligan.runlog import RunFolder, recipe_differences

MOST_POINTS = 100
"""Where a run has more steps than this, curves show means over equal stretches of steps."""

_PANELS: tuple[tuple[str, str, tuple[str, ...], str, Unit], ...] = (
    ("reward", "Training reward", ("reward",), "mean of a step's dialogues", "number"),
    ("accuracy", "Solved in training", ("accuracy",), "share of dialogues", "percent"),
    ("accuracy_first", "Solved at the first attempt", ("accuracy_first",), "share of dialogues", "percent"),
    ("attempts", "Attempts used", ("attempts_used",), "per dialogue", "number"),
    ("length", "Length", ("tokens_per_attempt",), "tokens per attempt", "number"),
    ("missing", "Missing or cut answers", ("share_no_answer", "share_truncated"), "share of attempts", "percent"),
    ("entropy", "Entropy", ("entropy",), "nats per token", "number"),
    ("kl", "KL to the model before reinforcement learning", ("kl_to_reference",), "nats per token", "number"),
    ("step_kl", "KL of an update", ("approx_kl",), "nats per token", "number"),
    ("seconds", "Time per step", ("seconds",), "seconds", "number"),
)
"""Name, title, metrics that are added up, label of the y axis, unit."""


def training_sections(evidence: Evidence) -> list[Section]:
    makers = (training_section, progress_section, runs_section)
    return [section for make in makers if (section := make(evidence)) is not None]


def runs_of(arm: Arm) -> list[RunFolder]:
    """The arm's runs, each once."""
    return list({m.run.path.resolve(): m.run for m in arm.members if m.run}.values())


# --------------------------------------------------------------------------------------------------------------- training


def training_section(evidence: Evidence) -> Section | None:
    lines = stretches({run: _training_lines(run) for arm in evidence.trained for run in runs_of(arm)})
    of_arms = {arm.label: [lines[run] for run in runs_of(arm)] for arm in evidence.trained}
    panels = {}
    for name, title, metrics, ylabel, unit in _PANELS:
        curves = []
        for label, runs in of_arms.items():
            found = [values for run in runs if (values := _metric(run, metrics))]
            if found:
                curves.append(Curve(label, _over_seeds(found), "line", colour=evidence.colours[label]))
        if curves:
            panels[name] = Panel(title, curves, "training step", ylabel, unit, bounds=None)
    if not panels:
        return None
    seeds = any(len(runs) > 1 for runs in of_arms.values())
    caption = "Line: mean over seeds; band: from the lowest to the highest seed." if seeds else ""
    longest = max(line.get("steps", 1) for found in lines.values() for line in found)
    if longest > 1:
        caption += f" Means over {longest} steps each."
    first = Chart("training_reward", "Training reward against steps", [panels.pop("reward")], caption.strip()) if "reward" in panels else None
    rest = Chart("training", "What training did", list(panels.values()), caption.strip()) if panels else None
    text = ["Rewards of arms with different budgets of attempts are not comparable: more attempts earn more by themselves."] if len(evidence.trained) > 1 else []
    if unknown := [arm.label for arm in evidence.trained if any(run.recipe.train.steps and not lines[run] for run in runs_of(arm)) and not any(of_arms[arm.label])]:
        text.append(f"Not drawn, for want of metrics: {', '.join(unknown)}.")
    drawn = {arm.label: (sum(bool(lines[run]) for run in runs_of(arm)), len(runs_of(arm))) for arm in evidence.trained}
    if partly := [f"{label} ({some} of {every} seeds)" for label, (some, every) in drawn.items() if 0 < some < every]:
        text.append(f"Drawn in part, for want of the other seeds' metrics: {', '.join(partly)}.")
    return Section("training", "Training", tuple(text), tuple(chart for chart in (first, rest) if chart))


def _training_lines(run: RunFolder) -> list[dict[str, Any]]:
    """What an experiment has published of the run, else its metrics."""
    lines, published = _trained(run), run.curves()
    if published and (not lines or _step(published[-1]) == _step(lines[-1])):  # else the run has gone on since
        return published
    return lines


def _trained(run: RunFolder) -> list[dict[str, Any]]:
    return [line for line in run.metrics() if line.get("stage", "train") == "train"]


def _step(line: Mapping[str, Any]) -> int:
    return int(line["train_step"] if "train_step" in line else line["step"])


def write_curves(runs: Sequence[RunFolder]) -> None:
    """Write what is drawn of the training of these runs, those of one experiment, into their folders. A run without metrics keeps what it has."""
    lines = {run: found for run in runs if (found := _trained(run))}
    for run, found in stretches(lines).items():
        run.write_curves(found)


def stretches(lines: Mapping[RunFolder, Sequence[Mapping[str, Any]]]) -> dict[RunFolder, list[dict[str, Any]]]:
    """Every run's training lines as means over the same stretches of steps, so many steps each that the longest run has at most MOST_POINTS stretches.

    A line has the `train_step` of its last step, how many `steps` it is the mean of, and the metrics that are drawn, to five digits. The lines may be stretches
    themselves: the number of steps is a power of two, so that shorter ones make up longer ones.
    """
    size = max((line.get("steps", 1) for found in lines.values() for line in found), default=1)
    last = max((_step(line) for found in lines.values() for line in found), default=0)
    size = 1 << (max(size, -(-(last + 1) // MOST_POINTS)) - 1).bit_length()
    drawn = list(dict.fromkeys(metric for _, _, metrics, _, _ in _PANELS for metric in metrics))
    found: dict[RunFolder, list[dict[str, Any]]] = {}
    for run, of_run in lines.items():
        found[run] = []
        for _, group in itertools.groupby(of_run, key=lambda line: _step(line) // size):
            stretch = list(group)
            means: dict[str, float] = {}
            for metric in drawn:
                known = [(line[metric], line.get("steps", 1)) for line in stretch if isinstance(line.get(metric), (int, float))]
                if known:
                    means[metric] = float(f"{sum(value * steps for value, steps in known) / sum(steps for _, steps in known):.5g}")
            found[run].append({"stage": "train", "train_step": _step(stretch[-1]), "steps": sum(line.get("steps", 1) for line in stretch), **means})
    return found


def _metric(lines: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[int, float]:
    """Training step (from 1) -> the sum of these metrics, where all are there and finite."""
    return {line["train_step"] + 1: float(sum(line[metric] for metric in metrics)) for line in lines if all(metric in line for metric in metrics)}


def _over_seeds(runs: Sequence[Mapping[int, float]]) -> dict[int, Interval]:
    """Stretch of steps (its last one) -> mean over seeds, from the lowest to the highest seed. Steps that not every seed reached are left out."""
    steps = sorted(set.intersection(*(set(run) for run in runs))) or sorted(runs[0])
    runs = [run for run in runs if all(step in run for step in steps)]
    values = {step: [run[step] for run in runs] for step in steps}
    return {step: Interval(sum(found) / len(found), min(found), max(found), 0) for step, found in values.items()}


# ------------------------------------------------------------------------------------------------- evaluations on the way


def progress_section(evidence: Evidence) -> Section | None:
    """Accuracy against training steps, with one attempt and with as many as were trained."""
    found = {arm.label: _on_the_way(arm) for arm in evidence.arms}
    panels = []
    for name in dict.fromkeys(name for by_step in found.values() for arm in by_step.values() for name in arm.problem_sets):
        measured = {label: {step: _accuracy(arm, name) for step, arm in by_step.items()} for label, by_step in found.items()}
        ks = {k for by_step in measured.values() for by_k in by_step.values() for k in by_k}
        trained = evidence.head.trained_attempts
        last = trained if trained in ks else max(ks, default=1)
        for k in dict.fromkeys((min(ks, default=1), last)):
            curves = [
                Curve(label, {step: by_k[k] for step, by_k in by_step.items() if k in by_k}, colour=evidence.colours[label]) for label, by_step in measured.items()
            ]  # fmt: skip
            if curves := [curve for curve in curves if curve.points]:
                panels.append(Panel(f"{name}, {k} attempt{'s' if k > 1 else ''}", curves, "training step", "solved"))
    if not panels:
        trained = any(runs_of(arm) for arm in evidence.arms)
        return Section("progress", "Accuracy on the way", missing="No run was evaluated on the way: train.eval_every=50 does so every 50 steps.") if trained else None
    several = [arm for by_step in found.values() for arm in by_step.values() if len(arm.members) > 1]
    over = "seeds x problems" if several else "problems"
    ranges = " Where values per problem are missing (evaluations of earlier versions), of several seeds from the lowest to the highest." if not all(arm.has_values for arm in several) else ""
    chart = Chart("accuracy_by_step", "Evaluation accuracy against training steps", panels, f"Bars: 95 % intervals over {over}.{ranges}")
    return Section("progress", "Accuracy on the way", (), (chart,))


def _accuracy(arm: Arm, name: str) -> dict[int, Interval]:
    """Over seeds x problems; of several seeds without values per problem, with the lowest and the highest."""
    if name not in arm.problem_sets:
        return {}
    if arm.has_values or len(arm.members) == 1:
        return Evidence([arm]).values(arm, ACCURACY, name)
    tables = [intervals(member.problem_sets[name].get("accuracy")) for member in arm.members]
    return {k: value for k in sorted(set.intersection(*map(set, tables))) if (value := over_seeds([table[k] for table in tables]))}


def _on_the_way(arm: Arm) -> dict[int, Arm]:
    """Training step -> the seeds' evaluations after it; the steps after which each of the seeds was evaluated that was evaluated on the way."""
    runs = [found for run in runs_of(arm) if (found := evaluations_on_the_way(run))]
    steps = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    return {step: Arm(arm.label, tuple(run[step] for run in runs)) for step in steps}


# ------------------------------------------------------------------------------------------------------------------ facts


def runs_section(evidence: Evidence) -> Section | None:
    """What is needed to repeat the runs: commands, seeds, commits, machines, versions."""
    rows, machines, commands = [], {}, []
    for arm in evidence.trained:
        for i, run in enumerate(runs_of(arm)):
            manifest = run.manifest()
            rows.append((arm.label, str(run.recipe.seed), *_run_facts(run, manifest), str(run.path)))
            machines.setdefault(_machine(manifest), []).append(f"{arm.label}, seed {run.recipe.seed}")
            if i == 0:
                commands.append((arm.label, _command(manifest)))
    evaluations = [(arm.label, NOTHING if m.seed is None else str(m.seed), str(m.folder), _played(m.problem_sets)) for arm in evidence.trained for m in arm.members if m.problem_sets]
    tables = []
    if rows:
        headers = ("arm", "seed", "steps", "tokens sampled", "time", "commit", "begun (UTC)", "folder")
        tables.append(TextTable("Runs", headers, tuple(rows), labels=1))
        tables.append(TextTable("Commands (of each arm's first seed)", ("arm", "command"), tuple(commands), labels=2))
        facts = ("runs", "mulligan", "python", "torch", "transformers", "processor", "cores", "GPUs")
        tables.append(TextTable("Machines and versions", facts, tuple((_few(runs), *machine) for machine, runs in machines.items()), labels=8))
    if evaluations:
        tables.append(TextTable("Evaluations", ("arm", "seed", "folder", "played"), tuple(evaluations), labels=4))
    if settings := _settings(evidence.arms):
        tables.append(settings)
    return Section("runs", "Runs: how to repeat this", (), (), tuple(tables)) if tables else None


def _run_facts(run: RunFolder, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    lines = run.metrics()
    trained = [line for line in lines if line.get("stage", "train") == "train"]
    tokens = lines[-1].get("tokens_total") if lines else None
    seconds = round(sum(line["seconds"] for line in lines if isinstance(line.get("seconds"), (int, float))))
    git = manifest.get("git") or {}
    commit = f"{git['commit'][:10]}{' (changed)' if git.get('dirty') else ''}" if git.get("commit") else NOTHING
    times = len(manifest.get("resumed") or ())
    resumed = f", resumed {'once' if times == 1 else f'{times} times'}" if times else ""
    steps, took = (f"{len(trained):,}", str(timedelta(seconds=seconds))) if lines else (NOTHING, NOTHING)  # results are published without the metrics
    return (steps, NOTHING if tokens is None else f"{tokens:,}", took, commit, f"{manifest.get('created', NOTHING)[:16]}{resumed}")


def _machine(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    machine, packages = manifest.get("machine") or {}, manifest.get("packages") or {}
    gpus = ", ".join(machine.get("gpus") or []) or "none"
    versions = (str(manifest.get("mulligan", NOTHING)), str(manifest.get("python", NOTHING)), packages.get("torch", NOTHING), packages.get("transformers", NOTHING))
    return (*versions, str(machine.get("cpu", NOTHING)), str(machine.get("cores", NOTHING)), gpus)


def _command(manifest: Mapping[str, Any]) -> str:
    command = [str(part) for part in manifest.get("command") or []]
    return shlex.join([Path(command[0]).name, *command[1:]]) if command else NOTHING


def _played(problem_sets: Mapping[str, Mapping[str, Any]]) -> str:
    """How an evaluation was played, in words."""

    def words(s: Mapping[str, Any]) -> str:
        how = "greedy" if s.get("temperature") == 0 else f"temperature {s.get('temperature')}"
        samples = f", {s['samples']} samples{_temperatures(s)}" if s.get("samples") else ""
        one_pass = ", one pass" if s.get("mode") == "one_pass" else ""
        return f"{how}{samples}{one_pass}, seed {s.get('seed')}"

    found: dict[str, list[str]] = {}
    for name, figures in problem_sets.items():
        found.setdefault(words(figures), []).append(f"{name} ({figures.get('problems')})")
    return "; ".join(f"{', '.join(names)}: {how}" for how, names in found.items())


def _settings(arms: Sequence[Arm]) -> TextTable | None:
    """The settings in which the arms' recipes differ."""
    runs = [(arm.label, runs[0]) for arm in arms if (runs := runs_of(arm))]
    if len(runs) < 2:
        return None
    first = runs[0][1].recipe
    differing = {key: (a, b) for _, run in runs[1:] for key, a, b in recipe_differences(first, run.recipe) if key not in ("name", "seed")}
    rows = []
    for key in differing:
        values = [next((b for k, _, b in recipe_differences(first, run.recipe) if k == key), differing[key][0]) for _, run in runs]
        rows.append((key, *(str(value) for value in values)))
    return TextTable("Settings that differ between the arms", ("setting", *(label for label, _ in runs)), tuple(rows), labels=1 + len(runs)) if rows else None


def _few(names: Sequence[str]) -> str:
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def _temperatures(figures: Mapping[str, Any]) -> str:
    """Those that were sampled, and those that pass@k was taken at for the largest k: ` at temperatures 0.6, 1.0 (pass@5 at 1.0)`."""
    sampled, chosen = figures.get("pass_temperatures"), figures.get("chosen_temperatures")
    if not sampled:
        return ""
    largest = max(chosen, key=int, default="") if chosen else ""
    taken = f" (pass@{largest} at {' and '.join(dict.fromkeys(chosen[largest]))})" if chosen and len(sampled) > 1 else ""
    return f" at temperature{'s' * (len(sampled) > 1)} {', '.join(sampled)}{taken}"
