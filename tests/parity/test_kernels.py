"""The compiled kernels beside plain torch, and what happens where there is no compiler."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import CONFIGS, as_policy, build, random_ids

from mulligan.model import CachedLayout, KVCache, PackedLayout, PackedLinears
from mulligan.model import attention as attention_module
from mulligan.model.kernels import Kernels, _compiler, compiled
from mulligan.model.ops import (
    mix,
    mixed_group,
    quantize,
    rms_norm,
    rms_norm_beside,
    rotate,
    softmax_blocks,
    softmax_sums,
    softmax_sums_backward,
    swiglu,
)


@pytest.fixture
def kernels() -> Kernels:
    found = compiled()
    if found is None:
        pytest.skip("no C++ compiler with OpenMP on this machine")
    return found


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_norm_and_rotary_embedding(kernels: Kernels):
    x, weight = 30 * _random(2, 5, 37), _random(37, seed=1)
    torch.testing.assert_close(kernels.rms_norm(x, weight, 0.1), rms_norm(None, x, weight, 0.1), atol=1e-6, rtol=1e-6)
    for size in (10, 64):
        heads, cos, sin = _random(6, 3, size), _random(6, size, seed=1), _random(6, size, seed=2)
        expected = rotate(None, heads, cos, sin)
        torch.testing.assert_close(kernels.rotate(heads.clone(), cos, sin), expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(kernels.rotate(heads.transpose(0, 1).contiguous().transpose(0, 1), cos, sin), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("width", [51, 8, 64, 96, 576])
def test_rounding_to_eight_bits_is_the_same_to_the_bit(kernels: Kernels, width: int):
    x = _random(2, 40, width) * torch.tensor([1e-20, 1e-3, 1.0, 1e4]).repeat(10)[:, None]
    x[0, 3] = 0.0
    x[1, :, ::5] = x[1, :, :1] / 127 * 0.5  # half-way between two steps
    for found, expected in zip(kernels.quantize(x, mixed_group(width)), quantize(None, x), strict=True):
        assert torch.equal(found, expected)


INF = torch.inf


@pytest.mark.parametrize("compile_it", [False, True])
def test_entropy_literal(compile_it: bool, kernels: Kernels):
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -INF, -INF], [100.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -INF, -INF]])
    lse, entropy = softmax_sums(kernels if compile_it else None, logits, 1.0)
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert lse.tolist() == pytest.approx([math.log(4), math.log(2), 100.0, math.log(4)], abs=1e-6)
    assert entropy.tolist() == pytest.approx([math.log(4), math.log(2), 0.0, quarter], abs=1e-6)


@pytest.mark.parametrize("width", [2, 37, 256, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sums_of_a_softmax_and_their_gradients(kernels: Kernels, width: int, temperature: float):
    """Beside autograd in float64; an impossible token has no share in anything."""
    logits = 20 * _random(7, width)
    logits[1, 0] = -INF
    pulls = _random(7, seed=1), _random(7, seed=2)
    exact = logits.double().requires_grad_()
    logprobs = (exact / temperature).log_softmax(-1)
    lse, entropy = (exact / temperature).logsumexp(-1), -(logprobs.exp() * logprobs.masked_fill(logprobs == -INF, 0.0)).sum(-1)
    (lse @ pulls[0].double() + entropy @ pulls[1].double()).backward()
    expected = [lse.detach(), entropy.detach(), exact.grad.nan_to_num(0.0)]  # type: ignore[union-attr]
    for found_by in (kernels, None):
        sums = softmax_sums(found_by, logits, temperature)
        found = [*sums, softmax_sums_backward(found_by, logits, *sums, *pulls, temperature)]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)
        assert found[2][1, 0] == 0.0
        without_entropy = softmax_sums_backward(found_by, logits, *sums, pulls[0], torch.zeros(7), temperature)
        torch.testing.assert_close(without_entropy, (logits / temperature).softmax(-1) * pulls[0][:, None] / temperature, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [2, 37, 256, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_blocks_of_a_softmax(kernels: Kernels, width: int, temperature: float):
    """Beside float64; an impossible token weighs nothing, and a block of them is empty."""
    logits = 20 * _random(7, width)
    logits[1, 0], logits[2, :256] = -INF, -INF
    logits[2, -1] = -3.0
    weights = torch.exp((logits.double() - logits.double().amax(-1, keepdim=True)) / temperature)
    expected = torch.stack([part.sum(-1) for part in weights.split(256, -1)], -1)
    for found_by in (kernels, None):
        highest, blocks = softmax_blocks(found_by, logits, temperature)
        assert torch.equal(highest, logits.amax(-1, keepdim=True))
        torch.testing.assert_close(blocks, expected, atol=0.0, rtol=1e-5)
        assert width <= 256 or blocks[2, 0] == 0.0


@pytest.mark.parametrize("bad", [torch.nan, INF])
def test_what_is_no_number_shows_in_the_sums(kernels: Kernels, bad: float):
    logits = _random(3, 500)
    logits[1, 300] = bad
    for found in (softmax_sums(kernels, logits, 1.0), softmax_sums(None, logits, 1.0), *((softmax_blocks(by, logits, 1.0)[1].sum(-1),) for by in (kernels, None))):
        assert all(x.isfinite().tolist() == [True, False, True] for x in found)


@pytest.mark.parametrize(("width", "group"), [(51, 1), (96, 32), (64, 64), (576, 64), (1024, 64)])
def test_what_is_mixed_keeps_its_products(width: int, group: int):
    x, weight = _random(3, 5, width), _random(7, width, seed=1)
    assert mixed_group(width) == group
    torch.testing.assert_close(mix(x) @ mix(weight).T / group, x @ weight.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mix(mix(x)), group * x, atol=1e-4, rtol=1e-4)
    alone = torch.zeros(width)
    alone[width // 2] = 1.0
    assert int((mix(alone).abs() == 1.0).sum()) == group, "one large number becomes many small ones"


def _attention_by_hand(query_HD, keys_KLD, values_KLE, scale: float, softcap: float | None) -> torch.Tensor:
    """One token over what it may see, (H, E), in float64."""
    heads = []
    for h, query in enumerate(query_HD.double()):
        kv = h * len(keys_KLD) // len(query_HD)
        scores = keys_KLD[kv].double() @ query * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        heads.append(torch.softmax(scores, 0) @ values_KLE[kv].double())
    return torch.stack(heads).float()


@pytest.mark.parametrize(("size", "value_size"), [(64, 64), (128, 128), (24, 24), (24, 10)])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, None), (None, 2.0)])
def test_attention_by_hand(kernels: Kernels, size: int, value_size: int, window: int | None, softcap: float | None):
    """Rows of unlike lengths, one of them with three tokens at once; a token that is only written."""
    keys, values = _random(4, 2, 90, size), _random(4, 2, 90, value_size, seed=1)
    rows, positions = torch.tensor([2, 0, 3, 3, 3, 1]), torch.tensor([80, 0, 16, 17, 18, 7])
    query, key, value = _random(6, 6, size, seed=2), _random(6, 2, size, seed=3), _random(6, 2, value_size, seed=4)
    which = torch.tensor([0, 1, 2, 3, 4])
    before = keys.clone()
    found = kernels.attend(query, key, value, (keys, values), (rows, positions), which, 0.3, window, softcap)
    before[rows, :, positions] = key
    assert torch.equal(keys, before) and torch.equal(values[rows, :, positions], value)
    for t in which.tolist():
        row, end = rows[t], int(positions[t]) + 1
        start = 0 if window is None else max(0, end - window)
        expected = _attention_by_hand(query[t], keys[row, :, start:end], values[row, :, start:end], 0.3, softcap)
        torch.testing.assert_close(found[t], expected, atol=3e-6, rtol=1e-5)


def test_scores_of_any_size(kernels: Kernels):
    """Weights that are all but zero, and scores far out: no overflow."""
    keys, values = torch.zeros(1, 1, 4, 64), torch.ones(1, 1, 4, 64)
    keys[0, 0, :, 0] = torch.tensor([-1e4, 3e4, 2.9e4, 0.0])
    values[0, 0, 1] = 7.0
    query = torch.zeros(1, 1, 64)
    query[0, 0, 0] = 1.0
    out = kernels.attend(query, torch.zeros(1, 1, 64), torch.ones(1, 1, 64), (keys, values), (torch.tensor([0]), torch.tensor([3])), torch.tensor([0]), 1.0, None, None)
    torch.testing.assert_close(out, torch.full((1, 1, 64), 7.0))


def test_a_result_is_the_same_alone_and_with_any_number_of_threads(kernels: Kernels):
    size, lengths = 64, [70, 3, 41, 12, 55]
    query, key, value = (_random(5, heads, size, seed=heads) for heads in (6, 2, 2))
    store = _random(5, 2, 96, size, seed=8)
    rows, positions = torch.arange(5), torch.tensor(lengths)

    def attend(which: list[int]) -> torch.Tensor:
        part = torch.tensor(which)
        places = rows[part], positions[part]
        return kernels.attend(query[part], key[part], value[part], (store.clone(), store.clone()), places, torch.arange(len(which)), 0.2, None, None)

    threads = torch.get_num_threads()
    together = attend([0, 1, 2, 3, 4])
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert torch.equal(attend([0, 1, 2, 3, 4]), together)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.cat([attend([i]) for i in (4, 3, 2, 1, 0)]).flip(0), together)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_cached_pass_with_and_without(kernels: Kernels, name: str, monkeypatch: pytest.MonkeyPatch):
    """Prompts of unlike lengths, then short and long runs beside single tokens: as the plain path has it, which is tested against transformers."""
    monkeypatch.setattr(CachedLayout, "SHORT_RUN", 4)
    policy = as_policy(build(name))
    caches = {None: KVCache(4), kernels: KVCache(4)}
    starts = [0, 0, 0, 0]
    for turn, counts in enumerate(([3, 9, 4, 1], [1, 1, 1, 1], [4, 1, 12, 2])):
        ids = torch.tensor(random_ids(sum(counts), turn))
        found = []
        for given, cache in caches.items():
            layout = CachedLayout(cache, [0, 1, 2, 3], starts, counts, "cpu", given)
            with torch.inference_mode():
                found.append(policy.logits(ids, layout, layout.position_ids, torch.arange(len(ids))))
        torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=1e-5)
        starts = [a + b for a, b in zip(starts, counts, strict=True)]


# ------------------------------------------------------------------------------------------------------------- gradients


def _with_gradients(function: Callable[..., Any], *inputs: torch.Tensor, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """What it gives, and the gradients of a weighted sum of it towards all inputs."""
    inputs = tuple(x.detach().clone().to(dtype).requires_grad_() for x in inputs)
    out = function(*inputs)
    out = out if isinstance(out, tuple) else (out,)
    sum((x * _random(*x.shape, seed=77 + i).to(dtype)).sum() for i, x in enumerate(out)).backward()  # type: ignore[union-attr]
    return [x.detach() for x in out] + [x.grad for x in inputs]  # type: ignore[misc]


def _assert_near(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-6 * float(other.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("scale", [0.02, 5.0])
def test_gradients_of_norm_rotary_embedding_and_activation(kernels: Kernels, scale: float):
    """More rows than are added up at a time; beside plain torch in float64."""
    x, weight = scale * _random(2, 75, 37), _random(37, seed=1)
    cos, sin = _random(6, 10, seed=1), _random(6, 10, seed=2)
    functions: list[tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = [
        (lambda k, x, w: rms_norm(k, x, w, 1e-5), (x, weight)),
        (lambda k, x, w: rms_norm_beside(k, x, w, 1e-5), (x, weight)),
        (lambda k, x: rotate(k, x, cos.to(x.dtype), sin.to(x.dtype)), (_random(6, 3, 10),)),
        (swiglu, (scale * _random(3, 50), _random(3, 50, seed=3))),
    ]
    for function, inputs in functions:
        found = _with_gradients(functools.partial(function, kernels), *inputs)
        _assert_near(found, _with_gradients(functools.partial(function, None), *inputs, dtype=torch.float64))


TREE = [np.r_[0:40], np.r_[0:20, 40:130], np.r_[0:20, 40:60, 130:135], np.r_[135:136], np.r_[0:20, 40:60]]
"""Sequences that begin alike; the last one has no token of its own."""


@pytest.mark.parametrize(("size", "value_size"), [(64, 64), (16, 16), (24, 10)])
def test_attention_of_whole_sequences_and_its_gradients(kernels: Kernels, size: int, value_size: int):
    """Beside the padded form in float64, which is tested against transformers."""
    layout = PackedLayout([len(p) for p in TREE], places=TREE)
    inputs = _random(136, 6, size), _random(136, 2, size, seed=1), _random(136, 2, value_size, seed=2)
    attend = lambda q, k, v: layout.attend(0, q, k, v, 0.3, None, None)  # noqa: E731
    _assert_near(_with_gradients(attend, *inputs), _with_gradients(attend, *inputs, dtype=torch.float64))


def test_gradients_are_the_same_with_any_number_of_threads(kernels: Kernels):
    layout = PackedLayout([len(p) for p in TREE], places=TREE)
    weight, inputs = _random(32), [_random(136, heads, 32, seed=heads) for heads in (6, 2, 3)]

    def found() -> list[torch.Tensor]:
        attended = _with_gradients(lambda q, k, v: layout.attend(0, q, k, v, 0.3, None, None), inputs[0], inputs[1], inputs[1])
        return attended + _with_gradients(lambda x, w: rms_norm(kernels, x, w, 1e-5), inputs[2], weight) + _with_gradients(lambda x: swiglu(kernels, x, x), inputs[2])

    threads, together = torch.get_num_threads(), found()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert all(torch.equal(one, other) for one, other in zip(found(), together, strict=True))
    finally:
        torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------------------------------- compiling


@pytest.fixture
def compiles_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled.cache_clear()
    yield tmp_path
    compiled.cache_clear()


def test_without_a_compiler_torch_computes_and_the_log_says_so(compiles_anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    policy = as_policy(build("llama"))
    monkeypatch.setattr(attention_module, "compiled", lambda: None)
    plain = policy.packed_logits([random_ids(9, 1)])[0]
    for compiler in ("false", "no-such-compiler -v"):
        compiled.cache_clear()
        caplog.clear()
        monkeypatch.setenv("CXX", compiler)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                with torch.inference_mode(), PackedLinears(policy).in_use() as kernels:
                    assert kernels is None
                    torch.testing.assert_close(policy.packed_logits([random_ids(9, 1)])[0], plain, atol=2e-5, rtol=1e-5)
        assert len(caplog.messages) == 1 and compiler.split()[0] in caplog.messages[0]
    assert not list(compiles_anew.rglob("*.so"))


def test_a_folder_that_cannot_be_written(compiles_anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kernels: Kernels):
    (compiles_anew / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(compiles_anew / "file"))
    compiled.cache_clear()
    assert compiled() is None and len(caplog.messages) == 1


def test_compiles_once_per_source_and_compiler(compiles_anew: Path, kernels: Kernels, monkeypatch: pytest.MonkeyPatch):
    log, wrapper = compiles_anew / "log", compiles_anew / "compiler"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {_compiler()[0]} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    for _ in range(2):
        compiled.cache_clear()
        assert compiled() is not None
    calls = log.read_text().splitlines()
    assert [call == "--version" for call in calls] == [True, False, True]
    assert len(list((compiles_anew / "cache").rglob("*"))) == 3  # the folder, the fixture's library, and this compiler's
