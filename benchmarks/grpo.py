"""Suite `grpo`: one single-attempt GRPO step, mulligan beside TRL: 8 prompts x 8 completions of full length, KL to the initial model."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limits import Rates
from benchmarks.table import Result, Settings, Table, failed_rows, ratio, spread
from benchmarks.task import DISCOUNT, SYSTEM, WRONG_REWARD, CoinGrader, messages, problems
from benchmarks.worker import Channel, Contest, Worker, column
from mulligan.config import Recipe, parse_recipe
from mulligan.learning.batch import pack
from mulligan.learning.experience import make_experience
from mulligan.runtime.local import LocalWorkers
from mulligan.types import Group

OURS = "mulligan"
RATES_JOB = {"limits": {"rows": [32, 64, 512, 1024], "kinds": ["packed"]}}
PARTS = ("sampling", "reference", "update")


# ----------------------------------------------------------------------------------------------------------------------- ours


def recipe_of(model: str, *, attempts: int, new: int, kl: float, precision: str = "exact", max_rows: int = 64) -> Recipe:
    table: dict[str, Any] = {
        "model": {"path": model},
        "problems": {"train": "builtin:guess"},  # required, and not read: the suites bring their own problems
        "attempts": f"fixed({attempts})",
        "protocol": {"system": SYSTEM, "state_budget": False, "stop": "end_of_turn", "max_attempt_tokens": new, "max_dialogue_tokens": 800},
        "reward": {"wrong": WRONG_REWARD, "discount": DISCOUNT},
        "sampling": {"max_rows": max_rows},
        "advantage": {"name": "grpo"},
        "loss": {"kl": kl},
        "optimizer": {"lr": 1e-6},
        "train": {"micro_batch_tokens": 1024},
    }
    if precision != "exact":
        table["sampling"]["rollout_precision"] = precision
    return parse_recipe(table)


def serve_ours(channel: Channel, *, model: str, groups: int, group_size: int, right: float, **recipe: Any) -> None:
    """Steps through mulligan's own parts. Jobs: `step`; optionally `budget`, and `pull`: train on advantages of 1, whatever the verdicts."""
    settings = recipe_of(model, **recipe)
    with tempfile.TemporaryDirectory() as folder:
        workers = LocalWorkers(settings, Path(folder))
        workers.player.chat.end_ids = frozenset()  # every attempt has its full length
        workers.player.grader = grader = CoinGrader()

        def run(job: dict[str, Any]) -> dict[str, Any]:
            grader.coin = type(grader.coin)(right)
            began = time.perf_counter()
            found = workers.player.play(problems(job["step"], groups), seed=0, step=job["step"], group_size=group_size, budget=job.get("budget"))
            sampled = time.perf_counter()
            experience = make_experience(found, workers.learner, settings)
            sequences = experience.sequences
            if job.get("pull"):
                sequences = [dataclasses.replace(s, columns=s.columns | {"advantages": np.ones(s.num_actions, np.float32)}) for s in sequences]
            valued = time.perf_counter()
            metrics = workers.learner.update(sequences, step=job["step"], lr_scale=1.0)
            ended = time.perf_counter()
            trained = [s for s in sequences if settings.loss.kl or np.any(s.columns["advantages"])]
            return {
                "seconds": ended - began,
                "sampling": sampled - began,
                "reference": valued - sampled,
                "trained_tokens": sum(len(batch.ids_T) for batch in pack(trained, settings.train.micro_batch_tokens)),
                "trained_actions": sum(s.num_actions for s in trained),
                "update": ended - valued,
                "dialogue_tokens": sum(s.length for s in sequences),
                "without_gradient": metrics["sequences_without_gradient"],
                "drift_max": metrics["drift_max"],
            } | counts(found)

        channel.serve(run)


def counts(groups: Sequence[Group]) -> dict[str, Any]:
    """Tokens sampled, tokens read besides (the prompt once per group), dialogues, and the mean number of attempts."""
    rollouts = [r for g in groups for r in g.rollouts]
    prompts = [g.rollouts[0].attempts[0].start for g in groups]
    forced = sum(r.transcript.sampled.count(False) - r.attempts[0].start for r in rollouts)
    return {
        "tokens": sum(r.num_sampled for r in rollouts),
        "read": sum(prompts) + forced,
        "prompt": max(prompts),
        "dialogues": len(rollouts),
        "attempts": sum(len(r.attempts) for r in rollouts) / len(rollouts),
        "solved": sum(r.solved for r in rollouts) / len(rollouts),
    }


# ------------------------------------------------------------------------------------------------------------------------ TRL


class _Done(Exception):
    """The driver has no more jobs."""


def serve_trl(channel: Channel, *, model: str, groups: int, group_size: int, new: int, kl: float, batch: int, steps: int) -> None:
    """TRL's trainer drives its own loop: a callback holds it at the beginning of each step until a job comes."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    clock = {"generation": 0.0, "scoring": 0.0}
    seen = {"tokens": 0}

    def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
        seen["tokens"] = sum(map(len, completion_ids))
        return [float(np.mean([token % 2 == 0 for token in ids])) for ids in completion_ids]

    class Gate(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if channel.receive() is None:
                raise _Done
            clock.update(generation=0.0, scoring=0.0, began=time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds = time.perf_counter() - clock["began"]
            reference = clock["scoring"] - clock["generation"]
            parts = {"sampling": clock["generation"], "reference": reference, "update": seconds - clock["scoring"]}
            channel.send({"seconds": seconds, **parts, "tokens": seen["tokens"]})

    rows = [{"prompt": messages(p)} for step in range(steps) for p in problems(step, groups)]
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            model_init_kwargs={"dtype": "float32"},
            gradient_checkpointing=False,  # there is memory enough; on by default, and slower
            learning_rate=1e-6,
            beta=kl,
            num_generations=group_size,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=groups * group_size // batch,
            max_completion_length=new,
            temperature=1.0,
            generation_kwargs={"eos_token_id": None},  # nothing ends a turn
            shuffle_dataset=False,
            max_steps=steps,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(model=model, reward_funcs=even_share, args=config, train_dataset=Dataset.from_list(rows), callbacks=[Gate()])
        trainer.eos_token_ids = [-1]  # nor cuts it afterwards
        _time(trainer, "_generate", clock, "generation")
        _time(trainer, "_generate_and_score_completions", clock, "scoring")
        channel.send({"ready": True})
        with contextlib.suppress(_Done):
            trainer.train()


def _time(owner: Any, name: str, clock: dict[str, float], key: str) -> None:
    """Add up the time that a method takes."""
    method = getattr(owner, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            clock[key] += time.perf_counter() - began

    setattr(owner, name, timed)


# ---------------------------------------------------------------------------------------------------------------------- suite


def run(settings: Settings) -> Result:
    shape: dict[str, Any] = {"model": settings.model, "groups": 8, "group_size": 8, "new": 32, "kl": 0.01}
    if settings.tiny:
        shape |= {"groups": 2, "group_size": 4, "new": 8}
    start = partial(Worker, out=settings.out, threads=settings.threads)
    starts: dict[str, Any] = {"limits": partial(start, "limits", "benchmarks.limits:serve", {"model": settings.model})}
    starts |= ours_starts(settings, shape | {"right": 0.5, "attempts": 1})
    dialogues = shape["groups"] * shape["group_size"]
    for batch in dict.fromkeys(min(b, dialogues) for b in settings.trl_batches):
        name = f"TRL, {batch} per pass"
        starts[name] = partial(start, name, "benchmarks.grpo:serve_trl", shape | {"batch": batch, "steps": settings.rounds + 1})
    with Contest(starts) as contest:
        rounds = step_rounds(contest, settings.rounds)
        idle = contest.idle_shares()
    caption = f"One GRPO step, {shape['groups']} prompts x {shape['group_size']} completions of {shape['new']} tokens"
    notes = [
        "KL to the initial model with coefficient 0.01, float32, AdamW, temperature 1; no attempt is ended by the model. Reference: log-probs under the initial model, and rewards.",
        "Rewards cost nothing on either side: a seeded coin (mulligan), the share of even tokens (TRL, which has activation checkpointing switched off).",
        LIMIT_NOTE,
    ]
    table = step_table(contest, rounds, caption, passes=4)
    return Result("Single-attempt GRPO step", [table], notes, {"rounds": rounds, "idle": idle, "info": contest.info, "failures": contest.failures})


LIMIT_NOTE = (
    "Limit: prompts and feedback read once, every sampled token decoded, and for training, common beginnings read once and dialogues without advantage left out, forward, backward (twice a forward pass) and, with a KL, the "
    "reference's forward pass, at the rate of packed float32 products measured in the same round, attention and the optimiser free."
)


def ours_starts(settings: Settings, arguments: dict[str, Any]) -> dict[str, Any]:
    starts = {}
    for precision in settings.precisions:
        name = OURS if precision == "exact" else f"{OURS}, {precision} rollouts"
        worker = partial(Worker, name, "benchmarks.grpo:serve_ours", arguments | {"precision": precision}, out=settings.out, threads=settings.threads)
        starts[name] = worker
    return starts


def step_rounds(contest: Contest, count: int) -> list[dict[str, Any]]:
    """Step 0 warms up."""
    rounds = []
    for step in range(count + 1):
        rounds.append(contest.round({"step": step}, RATES_JOB))
        print(f"  round {step} of {count}", flush=True)
    return rounds[1:]


def step_table(contest: Contest, rounds: list[dict[str, Any]], caption: str, *, passes: int) -> Table:
    """Seconds per step of each contender, its parts, and the share of what the products alone allow."""
    ours = column(rounds, OURS, "seconds")
    limits = []
    if ours and all("limits" in answers for answers in rounds):
        for answers in rounds:
            rates, did = Rates(answers["limits"], contest.info["limits"]), answers[OURS]
            sampling = rates.sampling_seconds(read=did["read"], sampled=did["tokens"], dialogues=did["dialogues"], rows=min(64, did["dialogues"]))
            limits.append(sampling + rates.training_seconds(tokens=did["trained_tokens"], sampled=did["trained_actions"], passes=passes))
    table = Table(caption, ["contender", "seconds per step", *PARTS, "sampled tokens", "share of the limit", f"{OURS} is faster by"])
    for name in contest.starts:
        seconds = column(rounds, name, "seconds")
        if not seconds:
            continue
        parts = [spread(column(rounds, name, part), 2) for part in PARTS]
        faster = spread(ratio(seconds, ours), 2) if name != OURS else ""
        table.add(name, spread(seconds, 2), *parts, spread(column(rounds, name, "tokens"), 0), spread(ratio(limits, seconds), 2), faster)
    if limits:
        gflops = [Rates(answers["limits"], contest.info["limits"]).best_gflops(512) for answers in rounds]
        table.add(f"limit of float32 products, {spread(gflops, 0)} GFLOP/s at 512 rows", spread(limits, 2))
    failed_rows(table, contest.failures)
    return table
