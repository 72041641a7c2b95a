"""vLLM as a contender. Runs in vLLM's own environment: nothing but vLLM and the standard library is imported here."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.worker import Channel


def serve(channel: Channel, *, model: str, threads: int, max_model_len: int) -> None:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "2"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    import vllm  # reads the environment

    engine = vllm.LLM(
        model, dtype="float32", max_model_len=max_model_len, max_num_seqs=256, max_num_batched_tokens=8192, enable_prefix_caching=True, seed=0
    )

    def run(job: dict[str, Any]) -> dict[str, Any]:
        params = vllm.SamplingParams(n=job["samples"], max_tokens=job["new"], ignore_eos=True, temperature=1.0, logprobs=0)
        began = time.perf_counter()
        found = engine.generate([{"prompt_token_ids": ids} for ids in job["prompts"]], params, use_tqdm=False)
        seconds = time.perf_counter() - began
        completions = [completion for request in found for completion in request.outputs]
        return {
            "seconds": seconds,
            "tokens": sum(len(c.token_ids) for c in completions),
            "logprobs": sum(len(c.logprobs or ()) for c in completions),
        }

    channel.serve(run, vllm=vllm.__version__)
