"""Drawing tokens: keyed uniforms, the distribution drawn from, and the log-probs reported, against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mulligan.errors import ModelError
from mulligan.model.kernels import Kernels, compiled
from mulligan.sampling import SamplingParams
from mulligan.sampling.draw import draw, keyed_uniforms


@pytest.fixture(params=["torch", "compiled"])
def kernels(request) -> Kernels | None:
    if request.param == "torch":
        return None
    found = compiled()
    if found is None:
        pytest.skip("no C++ compiler with OpenMP on this machine")
    return found


RECIPES = [(1.0, 1.0), (0.7, 1.0), (1.8, 1.0), (1.0, 0.8), (0.6, 0.5), (1.3, 0.95)]


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def slow_distribution(logits_V: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """Temper, then keep the most likely tokens one by one until their mass reaches top_p, then renormalise. In float64."""
    probs = softmax(logits_V.astype(np.float64) / temperature)
    kept, mass = np.zeros_like(probs), 0.0
    for token in sorted(range(len(probs)), key=lambda t: -probs[t]):
        kept[token] = probs[token]
        mass += probs[token]
        if mass >= top_p:
            break
    return kept / kept.sum()


def slow_draw(probs_V: np.ndarray, uniform: float) -> int:
    total = 0.0
    for token, p in enumerate(probs_V):
        total += p
        if uniform < total:
            return token
    return int(np.flatnonzero(probs_V)[-1])


@pytest.mark.parametrize(("temperature", "top_p"), RECIPES)
def test_draw_against_the_slow_reference(temperature, top_p, kernels):
    rng = np.random.default_rng(3)
    logits_RV = (rng.standard_normal((200, 37)) * 2.5).astype(np.float32)
    uniforms_R = rng.random(200)
    ids, logprobs, full = draw(torch.from_numpy(logits_RV), uniforms_R, SamplingParams(temperature, top_p), kernels)
    slow = [slow_distribution(row, temperature, top_p) for row in logits_RV]
    assert ids.tolist() == [slow_draw(probs, u) for probs, u in zip(slow, uniforms_R, strict=True)]
    np.testing.assert_allclose(logprobs, [np.log(probs[i]) for probs, i in zip(slow, ids, strict=True)], atol=2e-5)
    np.testing.assert_allclose(full, [np.log(softmax(row.astype(np.float64))[i]) for row, i in zip(logits_RV, ids, strict=True)], atol=2e-5)
    assert (top_p == 1 and temperature == 1) == torch.equal(logprobs, full)


# 99.9 % points of chi-square, by degrees of freedom.
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32, 8: 26.12, 9: 27.88}


@pytest.mark.parametrize(("temperature", "top_p"), RECIPES)
def test_frequencies(temperature, top_p, kernels):
    count, logits_V = 40_000, np.array([1.5, -1.0, 0.3, 0.0, 2.0, -2.0, 0.9, 1.1, -0.4, 0.6], dtype=np.float32)
    uniforms = keyed_uniforms(np.arange(count, dtype=np.uint64), np.full(count, 17))
    ids, _, _ = draw(torch.from_numpy(logits_V).expand(count, -1), uniforms, SamplingParams(temperature, top_p), kernels)
    seen = np.bincount(ids.numpy(), minlength=10)
    expected = count * slow_distribution(logits_V, temperature, top_p)
    support = expected > 0
    assert not seen[~support].any()
    assert (top_p < 1) == (not support.all())
    assert ((seen - expected)[support] ** 2 / expected[support]).sum() < CHI_SQUARE[int(support.sum()) - 1]


def test_greedy(kernels):
    logits_RV = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    ids, logprobs, full = draw(logits_RV, np.random.default_rng(0).random(50), SamplingParams(temperature=0), kernels)
    assert torch.equal(ids, logits_RV.argmax(-1))
    assert not logprobs.any()
    torch.testing.assert_close(full, logits_RV.log_softmax(-1).amax(-1))


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0.5), SamplingParams(1.0, 0.9)])
def test_impossible_tokens_are_never_drawn(params, kernels):
    """At both ends of the interval, and where most of a large vocabulary has no mass."""
    logits_V = torch.full((50_000,), -torch.inf)
    logits_V[[10, 40_000]] = torch.tensor([0.0, 0.1])
    ids, logprobs, _ = draw(logits_V.expand(3, -1), np.array([0.0, 0.5, 1 - 2.0**-53]), params, kernels)
    assert ids[0] == 10
    assert ids[2] == 40_000
    assert torch.isfinite(logprobs).all()


def test_rare_tokens_of_a_large_vocabulary(kernels):
    """A float32 running sum over 150,000 tokens would misplace the last ones."""
    logits_V = torch.zeros(150_000)
    uniforms = (np.arange(149_950, 150_000) + 0.5) / 150_000
    ids, _, _ = draw(logits_V.expand(50, -1), uniforms, SamplingParams(), kernels)
    assert ids.tolist() == list(range(149_950, 150_000))


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0.7), SamplingParams(0.7, 0.9), SamplingParams(0)])
def test_a_row_alone_and_in_a_batch_is_the_same_to_the_bit(params, kernels):
    """With any number of threads."""
    logits_RV, uniforms_R = 3 * torch.randn(9, 1000, generator=torch.Generator().manual_seed(2)), np.random.default_rng(2).random(9)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            together = draw(logits_RV, uniforms_R, params, kernels)
            alone = [draw(logits_RV[i : i + 1], uniforms_R[i : i + 1], params, kernels) for i in range(9)]
            for found, expected in zip(zip(*alone, strict=True), together, strict=True):
                assert torch.equal(torch.cat(found), expected)
    finally:
        torch.set_num_threads(threads)


def test_the_end_of_the_interval_finds_a_token(kernels):
    """The last block is a part of one; its sum and the running sum inside it, which are rounded differently, may end at different places."""
    logits_RV = 3 * torch.randn(2000, 300, generator=torch.Generator().manual_seed(1))
    ids, _, _ = draw(logits_RV, np.full(2000, 1 - 2.0**-53), SamplingParams(), kernels)
    assert ids.max() == 299
    assert (300 - ids).float().mean() < 1.01  # some weigh nothing beside the sum


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0.7), SamplingParams(1.0, 0.9), SamplingParams(0)])
@pytest.mark.parametrize("place", [0, 130, 299])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_refused(bad, place, params, kernels):
    logits_RV = torch.randn(3, 300, generator=torch.Generator().manual_seed(3))
    logits_RV[1, place] = bad
    with pytest.raises(ModelError, match="not finite"):
        draw(logits_RV, np.array([0.1, 0.5, 0.9]), params, kernels)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0)])
def test_a_row_in_which_nothing_is_possible_is_refused(params, kernels):
    logits_RV = torch.zeros(2, 300)
    logits_RV[0] = -torch.inf
    with pytest.raises(ModelError, match="not finite"):
        draw(logits_RV, np.array([0.1, 0.5]), params, kernels)


# --------------------------------------------------------------------------------------------------------------- uniforms


def test_uniforms_are_splitmix64():
    """The published first outputs of SplitMix64 for the seeds 0 and 1234567."""
    for seed, outputs in [(0, [0xE220A8397B1DCDAF]), (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431])]:
        got = keyed_uniforms(np.full(len(outputs), seed, dtype=np.uint64), np.arange(len(outputs)))
        assert got.tolist() == [(x >> 11) / 2**53 for x in outputs]


@pytest.mark.parametrize("keys", ["near", "far"])
def test_uniforms_are_uniform(keys):
    """Kolmogorov-Smirnov at 99.9 %, over keys and over positions; and neighbours (next key, next position) do not correlate."""
    rng = np.random.default_rng(0)
    keys_R = np.arange(300, dtype=np.uint64) if keys == "near" else rng.integers(0, 2**64, 300, dtype=np.uint64)
    grid = np.stack([keyed_uniforms(keys_R, np.full(300, position)) for position in range(200)])
    for sample in (grid.ravel(), grid[7], grid[:, 11]):
        ordered, n = np.sort(sample), len(sample)
        distance = max((ordered - np.arange(n) / n).max(), (np.arange(1, n + 1) / n - ordered).max())
        assert distance * n**0.5 < 1.95
    assert grid.min() >= 0
    assert grid.max() < 1
    assert len(np.unique(grid)) == grid.size
    for one, other in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 3.3 / one.size**0.5


def test_uniforms_do_not_depend_on_the_batch():
    keys = np.array([2**64 - 1, 0, 5, 2**63, 5], dtype=np.uint64)
    positions = np.array([3, 3, 100_000, 0, 3])
    together = keyed_uniforms(keys, positions)
    assert together.tolist() == [keyed_uniforms(keys[i : i + 1], positions[i : i + 1])[0] for i in range(5)]
    assert together[::-1].tolist() == keyed_uniforms(keys[::-1], positions[::-1]).tolist()
