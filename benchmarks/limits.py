"""What the arithmetic allows: measured rates of matrix products with the model's own weights, and the time that a job needs at them.

Only the products with weights are counted, not attention, norms or the draw, so that a share of 1 cannot be reached.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.worker import Channel

RATE_ROWS = (16, 64, 128, 256, 512, 1024)
"""Rows of a product for the table of rates; 1024 is what the sampler reads in one pass."""
KINDS = ("plain", "packed")


@torch.inference_mode()
def serve(channel: Channel, *, model: str) -> None:
    """Jobs: `rows`, a list, and `kinds`; answers seconds of all products of the body, and of the output layer, per kind and rows.
    With `bandwidth`, bytes per second read from memory as well."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    head = network.get_output_embeddings()
    body = [module for module in network.modules() if isinstance(module, nn.Linear) and module is not head]

    def run(job: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {
            kind: {str(rows): [_seconds(body, rows, kind), _seconds([head], rows, kind)] for rows in job["rows"]} for kind in job["kinds"]
        }
        return answer | ({"bandwidth": _bandwidth()} if job.get("bandwidth") else {})

    config = network.config
    channel.serve(
        run,
        body=sum(m.weight.numel() for m in body),
        head=head.weight.numel(),
        vocabulary=config.vocab_size,
        cache_bytes_per_token=2 * 4 * config.num_hidden_layers * config.num_key_value_heads * (config.head_dim or config.hidden_size // config.num_attention_heads),
        torch=torch.__version__,
    )


def _seconds(linears: list[nn.Linear], rows: int, kind: str) -> float:
    """Time of one product with every weight in turn, as in a pass: a weight is out of the cache when it is used again."""
    inputs = {width: torch.randn(rows, width) for width in {m.in_features for m in linears}}
    products: list[Callable[[], Tensor]] = []
    for linear in linears:
        x, weight = inputs[linear.in_features], linear.weight
        if kind == "packed":
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.clone(), rows)
            products.append(lambda x=x, packed=packed: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))
        else:
            products.append(lambda x=x, weight=weight: F.linear(x, weight))

    def run() -> None:
        for product in products:
            product()

    return measure(run)


def _bandwidth() -> float:
    """Bytes per second that all threads read from memory."""
    numbers = torch.ones(1 << 27)  # 512 MB: no cache holds them
    return numbers.numel() * numbers.element_size() / measure(lambda: numbers.sum())


def measure(function: Callable[[], object], seconds: float = 0.4, most: int = 15) -> float:
    """Median time of a call, after one that warms up."""
    function()
    times: list[float] = []
    while sum(times) < seconds and len(times) < most:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


# ------------------------------------------------------------------------------------------------------------------ arithmetic


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds per row at the best rate measured, for the nearest number of rows. `answer` is the worker's, `info` what it said at start."""

    answer: Mapping[str, Any]
    info: Mapping[str, Any]

    def gflops(self, kind: str, rows: int) -> float:
        """GFLOP/s of one product with every weight, output layer included."""
        return 2e-9 * rows * (self.info["body"] + self.info["head"]) / sum(self.answer[kind][str(rows)])

    def best_gflops(self, rows: int) -> float:
        return max(self.gflops(kind, rows) for kind in KINDS if kind in self.answer)

    def _per_row(self, part: int, rows: int) -> float:
        measured = [{int(r): seconds[part] for r, seconds in self.answer[kind].items()} for kind in KINDS if kind in self.answer]
        nearest = min(measured[0], key=lambda r: abs(r / rows - 1) if r > rows else rows / r - 1)
        return min(found[nearest] for found in measured) / nearest

    def sampling_seconds(self, *, read: int, sampled: int, dialogues: int, rows: int) -> float:
        """`read` tokens of prompts and feedback without the output layer; every sampled token with it, and read again unless it is the
        last of its dialogue, `rows` at a time."""
        return read * self._per_row(0, read) + (sampled - dialogues) * self._per_row(0, rows) + sampled * self._per_row(1, rows)

    def training_seconds(self, *, tokens: int, sampled: int, passes: int) -> float:
        """`passes` times a forward pass over `tokens`, with the output layer where a token was sampled: 3 for forward and backward."""
        return passes * (tokens * self._per_row(0, tokens) + sampled * self._per_row(1, sampled))
