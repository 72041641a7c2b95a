"""The local sampler against transformers: cached decoding = full pass, a dialogue alone = in a batch, greedy = `generate()`."""

from __future__ import annotations

import copy

import pytest
import torch
from small_models import CONFIGS, WINDOWED, Script, as_policy, build, logprobs_of, play, random_ids, reference_logits
from transformers import AutoModelForCausalLM

from mulligan.model import CachedLayout, KVCache, Policy
from mulligan.sampling import SamplingParams
from mulligan.sampling.local import LocalSampler
from mulligan.types import Transcript

# transformers' SDPA has no soft cap, so it is no reference for Gemma 2.
REFERENCES = [(name, attention) for name in CONFIGS for attention in ("eager", "sdpa") if (name, attention) != ("gemma2", "sdpa")]


def two_attempts(count: int = 5) -> list[Script]:
    """Prompts of 9 to 13 tokens, attempts of 8, feedback of 5 (one of them: 1 token)."""
    return [Script(key=k, forced=[random_ids(9 + k, k), random_ids(5 if k else 1, k + 50)], max_tokens=8) for k in range(count)]


def assert_logprobs(transcript: Transcript, reference_T: torch.Tensor, atol: float = 1e-4) -> None:
    """`reference_T` (T - 1,) holds the log-prob of every token but the first."""
    sampled = torch.tensor(transcript.sampled)[1:]
    torch.testing.assert_close(torch.tensor(transcript.logprobs)[1:][sampled], reference_T[sampled], atol=atol, rtol=0)


# --------------------------------------------------------------------------------------------- cached decode = full pass


@pytest.mark.parametrize(("name", "attention"), REFERENCES)
def test_logprobs_are_those_of_transformers(name, attention):
    model = build(name, attention)
    for transcript in play(LocalSampler(as_policy(model), max_rows=3, prefill_tokens=32), two_attempts()):
        assert sum(transcript.sampled) == 16
        assert_logprobs(transcript, logprobs_of(reference_logits(model, transcript.token_ids), transcript.token_ids))


@pytest.mark.parametrize("name", CONFIGS)
def test_logprobs_are_those_of_one_packed_pass(name):
    policy = as_policy(build(name))
    transcripts = play(LocalSampler(policy, max_rows=5), two_attempts())
    with torch.no_grad():
        packed = policy.packed_logits([t.token_ids for t in transcripts])
    for transcript, logits_TV in zip(transcripts, packed, strict=True):
        assert_logprobs(transcript, logprobs_of(logits_TV, transcript.token_ids))


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_matter(name):
    """Without this the tests above would pass on models whose window is longer than the dialogue, or not read at all."""
    model = build(name)
    wide = as_policy(model).model
    for layer in wide.modules():
        if getattr(layer, "sliding_window", None) is not None:
            layer.sliding_window = None
    wide.config.sliding_window = None  # where Mistral's layers read it
    ids = random_ids(20, 0)
    with torch.no_grad():
        logits = Policy(model=wide, tokenizer=None).packed_logits([ids])[0]
    difference = (logits - reference_logits(model, ids)).abs().amax(-1)
    assert difference[:4].max() < 1e-4
    assert difference[10:].min() > 1e-2


def test_packed_lengths_do_not_mix():
    policy = as_policy(build("gemma3"))
    sequences = [random_ids(n, n) for n in (1, 17, 4, 4, 9)]
    with torch.no_grad():
        for ids, logits_TV in zip(sequences, policy.packed_logits(sequences), strict=True):
            torch.testing.assert_close(logits_TV, policy.packed_logits([ids])[0], atol=1e-4, rtol=0)


def test_long_prefill_in_chunks(monkeypatch):
    """Chunks of bounded area, and rows of very different length in one pass, read the same as one row after the other."""
    monkeypatch.setattr(CachedLayout, "MAX_AREA", 200)
    policy = as_policy(build("gemma2"))
    lengths = (40, 2, 17, 1, 6)
    prompts = [random_ids(n, n) for n in lengths]
    layout = CachedLayout(KVCache(8), range(5), [0] * 5, lengths)
    assert len(layout.chunks) == 4
    with torch.no_grad():
        ids_T = torch.tensor([t for ids in prompts for t in ids])
        logits = policy.logits(ids_T, layout, layout.position_ids, layout.last_T)
        for row, ids in enumerate(prompts):
            torch.testing.assert_close(logits[row], policy.packed_logits([ids])[0][-1], atol=1e-4, rtol=0)


def test_the_cache_grows_as_far_as_is_known_to_be_needed_and_keeps_what_it_holds():
    cache = KVCache(4)
    keys = torch.randn(4, 2, 40, 8, generator=torch.Generator().manual_seed(0))
    cache.reserve(2, 37, most=69)
    held, _ = cache.layer(0, keys[:, :, 0], keys[:, :, 0])
    assert held.shape == (2, 2, 96, 8)  # in steps of 32
    held[:, :, :40] = keys[:2]
    cache.reserve(2, 69, most=69)
    assert cache.layer(0, keys[:, :, 0], keys[:, :, 0])[0] is held
    cache.reserve(3, 100, most=5000)
    held, values = cache.layer(0, keys[:, :, 0], keys[:, :, 0])
    assert held.shape == values.shape == (4, 2, 224, 8)  # twice the length, and twice the rows
    assert torch.equal(held[:2, :, :40], keys[:2])
    assert not held[2:].any()
    assert not held[:, :, 40:].any()
    cache.reserve(4, 225)
    assert cache.capacity == 288  # five quarters of what there was
    cache.reserve(4, 290, most=291)
    assert cache.capacity == 384  # the same: or every attempt that begins would copy everything


def test_no_attempt_that_is_shorter_than_its_prompt_is_copied_in_its_middle(monkeypatch):
    """The room is known from the first pass on, also for dialogues that let another one read their prompt, or wait for their turn to read."""
    capacities = []
    reserve = KVCache.reserve
    monkeypatch.setattr(KVCache, "reserve", lambda cache, *given, **named: (reserve(cache, *given, **named), capacities.append(cache.capacity)))
    prompts = [random_ids(60, 1), random_ids(60, 1), random_ids(50, 2)]
    scripts = [Script(key=k, forced=[prompt], max_tokens=5 + 25 * k) for k, prompt in enumerate(prompts)]
    play(LocalSampler(as_policy(build("llama")), prefill_tokens=60), scripts)
    assert set(capacities) - {0} == {128}  # 50 + 55 tokens, in steps of 32


def test_bfloat16():
    """Sampler and transformers in bfloat16 stay near the float32 log-probs, which both sample from approximately."""
    for name in ("llama", "gemma2", "gpt2"):
        model = build(name)
        for transcript in play(LocalSampler(as_policy(model, autocast=torch.bfloat16), max_rows=3), two_attempts(3)):
            sampled = torch.tensor(transcript.sampled)[1:]
            exact = logprobs_of(reference_logits(model, transcript.token_ids), transcript.token_ids)
            error = (torch.tensor(transcript.logprobs)[1:] - exact)[sampled].abs()
            assert 1e-4 < error.mean() < 0.1, name


# ------------------------------------------------------------------------------------------------------ alone = in a batch


def crowd() -> list[Script]:
    """Twelve dialogues: three prompts shared by groups, others alone; short and long; one, two and three attempts; three ways to draw."""
    scripts = []
    for i in range(12):
        prompt = random_ids(12, 1) if i < 4 else random_ids(20, 2) if i < 7 else random_ids(12, 1)[:11] if i == 7 else random_ids(3 * i, i)
        feedback = [random_ids(1 + i % 4, 100 + i + t) for t in range(i % 3)]
        params = [SamplingParams(), SamplingParams(0.7, 0.9), SamplingParams(0)][i % 3 if i > 3 else 0]
        scripts.append(Script(key=1000 + i, forced=[prompt, *feedback], max_tokens=3 + 5 * (i % 4), params=params, end_ids=frozenset({i, i + 20})))
    return scripts


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize(("max_rows", "prefill_tokens"), [(12, 4096), (4, 4096), (4, 16), (12, 16), (2, 30)])
def test_alone_and_in_a_batch(name, max_rows, prefill_tokens, monkeypatch):
    policy = as_policy(build(name))
    alone = [play(LocalSampler(policy, max_rows=1), [script])[0] for script in crowd()]

    copies = []
    copy_rows = KVCache.copy
    monkeypatch.setattr(KVCache, "copy", lambda cache, source, targets, length: (copies.append((source, targets)), copy_rows(cache, source, targets, length)))
    together = play(LocalSampler(policy, max_rows=max_rows, prefill_tokens=prefill_tokens), crowd())

    assert any(min(targets) > source for source, targets in copies), "a prompt was shared"
    assert any(max(targets) < source for source, targets in copies), "a row moved"
    for one, other in zip(alone, together, strict=True):
        assert one.token_ids == other.token_ids
        torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=2e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(one.full_logprobs), torch.tensor(other.full_logprobs), atol=2e-5, rtol=0)


def test_one_token_prompts():
    scripts = [Script(key=k, forced=[[k]], max_tokens=4) for k in (7, 8)] + [Script(key=9, forced=[[7]], max_tokens=4)]
    policy = as_policy(build("qwen3"))
    together = play(LocalSampler(policy, max_rows=3), [copy.deepcopy(s) for s in scripts])
    for script, transcript in zip(scripts, together, strict=True):
        assert play(LocalSampler(policy, max_rows=1), [script])[0].token_ids == transcript.token_ids


# --------------------------------------------------------------------------------------------------- greedy = generate()


def assert_greedy_is_generate(model, policy: Policy, prompts: list[list[int]], count: int) -> None:
    scripts = [Script(key=k, forced=[ids], max_tokens=count, params=SamplingParams(temperature=0)) for k, ids in enumerate(prompts)]
    ours = play(LocalSampler(policy), scripts)
    for ids, transcript in zip(prompts, ours, strict=True):
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=count, do_sample=False,
            eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        best, second = torch.cat(out.logits).topk(2, -1).values.unbind(-1)
        assert (best - second).min() > 1e-4, "the argmax has a tie: choose other weights"
        assert transcript.token_ids == out.sequences[0].tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_generate(name):
    model = build(name)
    assert_greedy_is_generate(model, as_policy(model), [random_ids(n, n) for n in (5, 11, 23)], count=24)


@pytest.mark.slow
def test_greedy_is_generate_on_smollm2(smollm2_policy):
    config = copy.deepcopy(smollm2_policy.model.config)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    model.load_state_dict(smollm2_policy.model.state_dict(), assign=True)  # the same memory
    questions = ["What is 17 + 25?", "Name three colours of the rainbow.", "Write one sentence about a dog who likes to swim in the sea."]
    prompts = [
        smollm2_policy.tokenizer.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True, return_dict=False) for q in questions
    ]
    assert len({len(ids) for ids in prompts}) > 1
    assert_greedy_is_generate(model, smollm2_policy, prompts, count=24)
