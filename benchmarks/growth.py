"""Suite `growth`: what mulligan's cost grows with: attempts, dialogues at once, context, vocabulary, the length of a run."""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.grpo import recipe_of
from benchmarks.limits import Rates
from benchmarks.sampling import PROMPT, play
from benchmarks.table import Result, Settings, Table, failed_rows, spread
from benchmarks.worker import ROOT, Channel, Contest, Worker
from mulligan.config import ModelConfig, load_recipe
from mulligan.display import Display
from mulligan.learning.batch import TrainSequence
from mulligan.learning.learner import Learner
from mulligan.model import load_policy
from mulligan.runlog import RunFolder
from mulligan.sampling import SamplingParams
from mulligan.sampling.local import LocalSampler
from mulligan.train import train

CONTEXT_ROWS = 4


# --------------------------------------------------------------------------------------------------------------------- workers


def serve_sampler(channel: Channel, *, model: str) -> None:
    """Jobs: `rows` dialogues at once of `new` tokens; or the decoding of `new` tokens by 4 dialogues on a `context` of so many."""
    policy = load_policy(ModelConfig(path=model))
    vocabulary = policy.model.config.vocab_size
    rng = random.Random("growth")

    def ids(count: int) -> list[int]:
        return [rng.randrange(vocabulary // 10, vocabulary * 4 // 5) for _ in range(count)]

    async def decode(context: int, new: int) -> float:
        """Seconds of the steps after the first token, which pays for reading the context: all of it in one pass, since the sampler
        waits for dialogues that are open and ask for nothing."""
        sampler = LocalSampler(policy, max_rows=CONTEXT_ROWS, prefill_tokens=CONTEXT_ROWS * context)
        dialogues = [sampler.open(key=i, params=SamplingParams()) for i in range(CONTEXT_ROWS)]
        ask = {"stop": None, "end_ids": frozenset()}
        await asyncio.gather(*(d.sample(ids(context), max_tokens=1, **ask) for d in dialogues))
        began = time.perf_counter()
        await asyncio.gather(*(d.sample([], max_tokens=new, **ask) for d in dialogues))
        seconds = time.perf_counter() - began
        for dialogue in dialogues:
            dialogue.close()
        return seconds

    sampler = LocalSampler(policy, max_rows=256)

    def run(job: dict[str, Any]) -> dict[str, Any]:
        if "context" in job:
            return {"seconds": asyncio.run(decode(job["context"], job["new"])), "tokens": CONTEXT_ROWS * job["new"]}
        prompts = [ids(PROMPT) for _ in range(job["rows"])]
        began = time.perf_counter()
        found = asyncio.run(play(sampler, prompts, 1, job["new"]))
        return {"seconds": time.perf_counter() - began, "tokens": sum(len(c.token_ids) for c in found)}

    channel.serve(run)


def serve_peak(channel: Channel, *, model: str, length: int, actions: int) -> None:
    """Peak memory of one update on one sequence, above that of an update on a very short one (which brings gradients and moments)."""
    policy = load_policy(ModelConfig(path=model))
    learner = Learner(policy, recipe_of(model, attempts=1, new=32, kl=0.0))

    def peak(length: int, actions: int) -> int:
        ids = [i % policy.model.config.vocab_size for i in range(length)]
        columns = {name: np.full(actions, value, np.float32) for name, value in (("advantages", 1), ("old_logprobs", -5), ("sampler_logprobs", -5))}
        learner.update([TrainSequence(ids, np.arange(length - actions, length), columns)], step=0, lr_scale=0.0)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = peak(9, 8)
    channel.send({"ready": True, "bytes": peak(length, actions) - before})


def serve_run(channel: Channel, *, steps: int) -> None:
    """Seconds of each step of one training run of the quickstart's small model, which learns next to nothing: every step is to be the
    same work."""
    changes = ("problems.eval=[]", "warmup.steps=0", "optimizer.lr=1e-12", f"train.steps={steps}", "train.max_tokens=null", "train.problems_per_step=32", "log.checkpoint_every=100000")
    with tempfile.TemporaryDirectory() as folder:
        path = train(load_recipe(ROOT / "recipes/quickstart.toml", changes), Path(folder) / "run", display=Display(quiet=True))
        lines = RunFolder.open(path).metrics()
    channel.send({"ready": True, "seconds": [line["seconds"] for line in lines], "tokens": [line["tokens_sampled"] for line in lines]})


# ----------------------------------------------------------------------------------------------------------------------- suite


def run(settings: Settings) -> Result:
    tiny = settings.tiny
    result = Result("Growth", [], [], {"failures": {}})
    _attempts(settings, result, (1, 2, 3) if tiny else (1, 4, 7))
    _rows_and_context(settings, result, (4, 8) if tiny else (16, 64, 256), (100, 200) if tiny else (500, 1000, 4000))
    _memory(settings, result, (64, 128) if tiny else (512, 1024, 2048), 16 if tiny else 64)
    _long_run(settings, result, 10 if tiny else 100)
    return result


def _rounds(settings: Settings, result: Result, name: str, target: str, arguments: Mapping[str, Any], jobs: Mapping[int, Mapping[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Every job once per round, in turn; a first round warms up. Answers by job; empty if the worker failed."""
    worker = partial(Worker, name, target, arguments, out=settings.out, threads=settings.threads)
    found: dict[int, list[dict[str, Any]]] = {key: [] for key in jobs}
    with Contest({name: worker}) as contest:
        for number in range(settings.rounds + 1):
            for key, job in jobs.items():
                answer = contest.round({"step": number, **job}).get(name)
                if answer is not None and number:
                    found[key].append(answer)
            print(f"  {name}, round {number} of {settings.rounds}", flush=True)
        result.raw["failures"] |= contest.failures
    result.raw[name] = {str(key): answers for key, answers in found.items()}
    return {} if name in contest.failures else found


def _attempts(settings: Settings, result: Result, budgets: Sequence[int]) -> None:
    groups, group_size, new = (2, 4, 8) if settings.tiny else (2, 4, 32)
    arguments = {"model": settings.model, "groups": groups, "group_size": group_size, "new": new, "right": 0.0, "attempts": max(budgets), "kl": 0.0}
    jobs = {budget: {"budget": budget, "pull": True} for budget in budgets}
    found = _rounds(settings, result, "attempts", "benchmarks.grpo:serve_ours", arguments, jobs)
    table = Table(f"Attempts per dialogue, all wrong, {groups * group_size} rows, {new} tokens each: milliseconds per sampled token", ["attempts", "sampling", "update", "sampled tokens"])
    curves: dict[str, list[tuple[float, list[float]]]] = {"sampling": [], "update": []}
    for budget, answers in found.items():
        parts = {part: [1000 * a[part] / a["tokens"] for a in answers] for part in curves}
        table.add(str(budget), spread(parts["sampling"], 3), spread(parts["update"], 3), str(answers[0]["tokens"]))
        for part, values in parts.items():
            curves[part].append((budget, values))
    _finish(settings, result, table, curves, "attempts per dialogue", "growth_attempts.png")


def _rows_and_context(settings: Settings, result: Result, rows: Sequence[int], contexts: Sequence[int]) -> None:
    new = 8 if settings.tiny else 16
    arguments = {"model": settings.model}
    found = _rounds(settings, result, "dialogues", "benchmarks.growth:serve_sampler", arguments, {r: {"rows": r, "new": new} for r in rows})
    table = Table(f"Dialogues at once, prompts of {PROMPT} tokens, {new} new tokens: milliseconds per sampled token", ["dialogues", "milliseconds"])
    curves: dict[str, list[tuple[float, list[float]]]] = {"measured": []}
    for count, answers in found.items():
        values = [1000 * a["seconds"] / a["tokens"] for a in answers]
        table.add(str(count), spread(values, 3))
        curves["measured"].append((count, values))
    _finish(settings, result, table, curves, "dialogues at once", "growth_dialogues.png")

    found = _rounds(settings, result, "context", "benchmarks.growth:serve_sampler", arguments, {c: {"context": c, "new": 16} for c in contexts})
    expected = _context_limits(settings, result, contexts)
    table = Table(f"Context, {CONTEXT_ROWS} dialogues: milliseconds per decoded token", ["tokens of context", "measured", "products, and reading keys and values"])
    curves = {"measured": [], "products, and reading keys and values": []}
    for context, answers in found.items():
        values = [1000 * a["seconds"] / a["tokens"] for a in answers]
        table.add(str(context), spread(values, 3), f"{expected[context]:.3f}" if expected else "")
        curves["measured"].append((context, values))
        if expected:
            curves["products, and reading keys and values"].append((context, [expected[context]]))
    _finish(settings, result, table, curves, "tokens of context", "growth_context.png")


def _context_limits(settings: Settings, result: Result, contexts: Sequence[int]) -> dict[int, float]:
    """Milliseconds per token: products at the rate for so few rows, and every key and value read once at the memory's bandwidth."""
    start = partial(Worker, "limits", "benchmarks.limits:serve", {"model": settings.model}, out=settings.out, threads=settings.threads)
    with Contest({"limits": start}) as contest:
        answer = contest.round({"rows": [CONTEXT_ROWS], "kinds": ["packed"], "bandwidth": True}).get("limits")
        if answer is None:
            return {}
        info = contest.info["limits"]
    result.raw["context_limits"] = answer | info
    rates = Rates(answer, info)
    products = rates.sampling_seconds(read=CONTEXT_ROWS, sampled=CONTEXT_ROWS, dialogues=CONTEXT_ROWS, rows=CONTEXT_ROWS) / CONTEXT_ROWS
    result.notes.append(f"Context: {rates.best_gflops(CONTEXT_ROWS):.0f} GFLOP/s at {CONTEXT_ROWS} rows, {answer['bandwidth'] / 1e9:.1f} GB/s read from memory.")
    return {context: 1000 * (products + context * info["cache_bytes_per_token"] / answer["bandwidth"]) for context in contexts}


def _memory(settings: Settings, result: Result, lengths: Sequence[int], few: int) -> None:
    table = Table("Peak memory of an update on one sequence, above that of weights, gradients and moments, MB", ["tokens", f"{few} sampled", "all sampled"])
    raw: dict[str, float] = {}
    for length in lengths:
        cells = []
        for actions in (few, length - 1):
            start = partial(Worker, "memory", "benchmarks.growth:serve_peak", {"model": settings.model, "length": length, "actions": actions}, out=settings.out, threads=settings.threads)
            with Contest({"memory": start}) as contest:  # a process of its own: a peak never goes down
                raw[f"{length} {actions}"] = contest.info["memory"]["bytes"] if contest.info else float("nan")
                result.raw["failures"] |= contest.failures
            cells.append(f"{raw[f'{length} {actions}'] / 1e6:,.0f}")
        table.add(str(length), *cells)
    result.tables.append(table)
    result.raw["memory"] = raw
    result.notes.append("Memory: logits exist for sampled tokens alone, so that the first column does not hold sequence x vocabulary. One measurement each.")


def _long_run(settings: Settings, result: Result, steps: int) -> None:
    start = partial(Worker, "long run", "benchmarks.growth:serve_run", {"steps": steps}, out=settings.out, threads=1)
    with Contest({"long run": start}) as contest:
        result.raw["failures"] |= contest.failures
        info = contest.info.get("long run")
    table = Table(f"A run of {steps} steps of the quickstart's model: milliseconds per step", ["steps", "median", "per sampled token"])
    if info:
        result.raw["long run"] = info
        edge = max(steps // 5, 1)
        for label, part in ((f"first {edge}", slice(0, edge)), (f"last {edge}", slice(-edge, None))):
            times, tokens = info["seconds"][part], info["tokens"][part]
            table.add(label, spread([1000 * s for s in times], 1), f"{1000 * statistics.median(s / max(t, 1) for s, t in zip(times, tokens, strict=True)):.3f}")
    failed_rows(table, contest.failures)
    result.tables.append(table)


def _finish(settings: Settings, result: Result, table: Table, curves: Mapping[str, Sequence[tuple[float, list[float]]]], label: str, name: str) -> None:
    """Keep the table, and draw its curves with their spread."""
    result.tables.append(table)
    if not any(curves.values()):
        failed_rows(table, result.raw["failures"])
        return
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for curve, points in curves.items():
        x, values = [p[0] for p in points], [p[1] for p in points]
        (line,) = axes.plot(x, [statistics.median(v) for v in values], marker="o", label=curve)
        axes.fill_between(x, [min(v) for v in values], [max(v) for v in values], color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel=label, ylabel="milliseconds per token", ylim=(0, None))
    axes.legend()
    figure.savefig(settings.out / name, dpi=120)
    plt.close(figure)
    result.plots.append(name)
