"""Suite `sampling`: random prompts, a fixed number of new tokens each, drawn at temperature 1 with their log-probs."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.limits import RATE_ROWS, Rates
from benchmarks.table import Result, Settings, Table, failed_rows, ratio, spread
from benchmarks.worker import Channel, Contest, Worker, column
from mulligan.config import ModelConfig
from mulligan.model import load_policy
from mulligan.sampling import Completion, SamplingParams
from mulligan.sampling.local import LocalSampler

OURS = "mulligan exact"
PROMPT = 37


# ------------------------------------------------------------------------------------------------------------------ contenders


async def play(sampler: LocalSampler, prompts: Sequence[Sequence[int]], samples: int, new: int) -> list[Completion]:
    """All dialogues at once, none of them ended by the model."""

    async def one(prompt: Sequence[int], key: int) -> Completion:
        dialogue = sampler.open(key=key, params=SamplingParams())
        completion = await dialogue.sample(prompt, max_tokens=new, stop=None, end_ids=frozenset())
        dialogue.close()
        return completion

    return await asyncio.gather(*(one(prompt, i * 1000 + j) for i, prompt in enumerate(prompts) for j in range(samples)))


def serve_ours(channel: Channel, *, model: str, precision: str) -> None:
    sampler = LocalSampler(load_policy(ModelConfig(path=model)), max_rows=128, precision=precision)  # type: ignore[arg-type]

    def run(job: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        found = asyncio.run(play(sampler, job["prompts"], job["samples"], job["new"]))
        return {
            "seconds": time.perf_counter() - began,
            "tokens": sum(len(c.token_ids) for c in found),
            "logprobs": sum(len(c.logprobs) for c in found),
        }

    channel.serve(run)


def serve_generate(channel: Channel, *, model: str) -> None:
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    network.generation_config.eos_token_id = None  # nothing ends a turn

    @torch.inference_mode()
    def run(job: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        ids = torch.tensor(job["prompts"])
        found = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=job["new"],
            num_return_sequences=job["samples"],
            use_cache=True,
            return_dict_in_generate=True,
            output_logits=True,
        )
        tokens = found.sequences[:, ids.shape[1] :]
        # Step by step: compute_transition_scores(normalize_logits=True) gives the same through a copy of all logits.
        logprobs = [step.gather(1, tokens[:, i : i + 1])[:, 0] - step.logsumexp(1) for i, step in enumerate(found.logits)]
        return {"seconds": time.perf_counter() - began, "tokens": tokens.numel(), "logprobs": sum(len(x) for x in logprobs)}

    channel.serve(run)


# ----------------------------------------------------------------------------------------------------------------------- suite


def run(settings: Settings) -> Result:
    cases = [(4, 2), (8, 1)] if settings.tiny else [(16, 8), (128, 1)]
    new = 8 if settings.tiny else 32
    rates_job = {"limits": {"rows": [16, 128, 512, 1024], "kinds": ["packed"]}}
    with Contest(_starts(settings)) as contest:
        table_of_rates = _rates(contest)
        vocabulary = contest.info["limits"]["vocabulary"] if "limits" in contest.info else 100
        tables, raw = [], {}
        for prompts, samples in cases:
            label = f"{prompts} prompts x {samples}" if samples > 1 else f"{prompts} different prompts"
            rng = random.Random(f"sampling {prompts} {samples}")
            rounds = []
            for number in range(-1, settings.rounds):  # -1: warms up
                drawn = [[rng.randrange(vocabulary // 10, vocabulary * 4 // 5) for _ in range(PROMPT)] for _ in range(prompts)]
                answers = contest.round({"prompts": drawn, "samples": samples, "new": new}, rates_job)
                if number >= 0:
                    rounds.append(answers)
                print(f"  {label}, round {number + 1} of {settings.rounds}", flush=True)
            tables.append(_table(contest, rounds, label, prompts, samples, new))
            raw[label] = rounds
        idle = contest.idle_shares()
    notes = [
        f"{PROMPT} random tokens per prompt, fresh each round and the same for all; {new} new tokens each; log-probs of the drawn tokens included.",
        "Limit: prompt reading and decoding at the rate of oneDNN's packed float32 products measured in the same round, attention and all else free.",
        "The 8-bit sampler draws from a slightly different policy; a share above 1 is one of the float32 limit.",
    ]
    if table_of_rates:
        tables.append(table_of_rates)
    return Result("Sampling", tables, notes, {"rounds": raw, "idle": idle, "info": contest.info, "failures": contest.failures})


def _starts(settings: Settings) -> dict[str, Any]:
    start = partial(Worker, out=settings.out, threads=settings.threads)
    ours = "benchmarks.sampling:serve_ours"
    starts: dict[str, Any] = {
        "limits": lambda: start("limits", "benchmarks.limits:serve", {"model": settings.model}),
        OURS: lambda: start(OURS, ours, {"model": settings.model, "precision": "exact"}),
        "mulligan int8": lambda: start("mulligan int8", ours, {"model": settings.model, "precision": "int8"}),
        "transformers generate()": lambda: start("transformers generate()", "benchmarks.sampling:serve_generate", {"model": settings.model}),
    }
    if settings.vllm_python:
        arguments = {"model": settings.model, "threads": settings.threads, "max_model_len": 512}
        # Passive: its threads sleep between two parallel regions. Set the variable yourself to compare.
        environment = {"OMP_WAIT_POLICY": settings.vllm_wait_policy}
        starts["vLLM"] = lambda: start("vLLM", "benchmarks.vllm_worker:serve", arguments, python=settings.vllm_python, environment=environment)
    return starts


def _table(contest: Contest, rounds: list[dict[str, Any]], label: str, prompts: int, samples: int, new: int) -> Table:
    rows_at_once, sampled = prompts * samples, prompts * samples * new
    limits = []
    if all("limits" in answers for answers in rounds):
        for answers in rounds:
            rates = Rates(answers["limits"], contest.info["limits"])
            limits.append(rates.sampling_seconds(read=prompts * PROMPT, sampled=sampled, dialogues=rows_at_once, rows=rows_at_once))
    ours = column(rounds, OURS, "seconds")
    table = Table(f"{label}, {new} tokens each", ["contender", "tokens/s", "share of the float32 limit", f"{OURS} is faster by"])
    for name in contest.starts:
        seconds = column(rounds, name, "seconds")
        if not seconds:
            continue
        drawn = column(rounds, name, "tokens")
        assert drawn == column(rounds, name, "logprobs") == [sampled] * len(rounds), f"{name} sampled another number of tokens"
        share = spread(ratio(limits, seconds), 2) if limits else ""
        table.add(name, spread([sampled / s for s in seconds], 0), share, spread(ratio(seconds, ours), 2) if ours and name != OURS else "")
    if limits:
        table.add("limit of float32 products", spread([sampled / s for s in limits], 0))
    failed_rows(table, contest.failures, None if "vLLM" in contest.info else "vLLM")
    return table


def _rates(contest: Contest) -> Table | None:
    """Rates of plain and packed products, measured once."""
    if "limits" not in contest.workers:
        return None
    rates = Rates(contest.workers["limits"].ask({"rows": RATE_ROWS, "kinds": ["plain", "packed"]}), contest.info["limits"])
    table = Table("Float32 matrix products with all of the model's weights, GFLOP/s", ["rows", "plain", "oneDNN, packed"])
    for rows in RATE_ROWS:
        table.add(str(rows), f"{rates.gflops('plain', rows):.0f}", f"{rates.gflops('packed', rows):.0f}")
    return table
