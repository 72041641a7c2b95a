"""The local sampler as its callers meet it: stops, what is read, keyed draws, new weights, abandoned batches, slow graders."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from small_models import VOCABULARY, Script, as_policy, build, converse, converse_all, logprobs_of, play, random_ids, reference_logits

from mulligan.model import Policy
from mulligan.sampling import SamplingParams
from mulligan.sampling.draw import keyed_uniforms
from mulligan.sampling.local import LocalSampler
from mulligan.types import StopReason


@pytest.fixture
def policy():
    return as_policy(build("llama"))


def scripts(count: int = 6, attempts: int = 3, max_tokens: int = 5) -> list[Script]:
    return [Script(key=k, forced=[random_ids(4 + k, k), *(random_ids(3, 10 * k + t) for t in range(1, attempts))], max_tokens=max_tokens) for k in range(count)]


def tokens_of(transcripts) -> list[list[int]]:
    return [t.token_ids for t in transcripts]


# ------------------------------------------------------------------------------------------------------------------ stops


class StopAt:
    """Stops at the n-th token, and remembers what it was shown."""

    def __init__(self, count: int):
        self.count = count
        self.seen: list[int] = []

    def push(self, token_id: int) -> bool:
        self.seen.append(token_id)
        return len(self.seen) == self.count


def test_stops_at_the_exact_token(policy):
    free = Script(key=3, forced=[random_ids(6, 0)], max_tokens=12)
    drawn = play(LocalSampler(policy), [free])[0].token_ids[6:]
    assert free.completions[0].stop is StopReason.ATTEMPT_LENGTH
    assert len(drawn) == 12
    fourth = drawn.index(drawn[4]) + 1  # the first place where the token that ends the turn is drawn

    checker = StopAt(7)
    cases = [
        (Script(3, free.forced, 12, end_ids=frozenset({drawn[4], 60})), StopReason.END_OF_TURN, fourth),
        (Script(3, free.forced, 12, stop=lambda: checker), StopReason.ANSWER, 7),
        (Script(3, free.forced, 7, stop=lambda: StopAt(7)), StopReason.ANSWER, 7),  # the cap is reached with the answer: it stands
        (Script(3, free.forced, 4, stop=lambda: StopAt(7)), StopReason.ATTEMPT_LENGTH, 4),
        (Script(3, free.forced, 12, stop=lambda: StopAt(fourth), end_ids=frozenset({drawn[4]})), StopReason.END_OF_TURN, fourth),
        (Script(3, free.forced, 1), StopReason.ATTEMPT_LENGTH, 1),
    ]
    for script, reason, length in cases:
        play(LocalSampler(policy), [script])
        assert script.completions[0].stop is reason
        assert script.completions[0].token_ids == drawn[:length]
        assert len(script.completions[0].logprobs) == len(script.completions[0].full_logprobs) == length
    assert checker.seen == drawn[:7]


def test_a_stop_token_stays_in_the_dialogue(policy):
    """The token that ended an attempt is read with the feedback: the next attempt sees it."""
    free = Script(key=5, forced=[random_ids(6, 0)], max_tokens=3)
    last = play(LocalSampler(policy), [free])[0].token_ids[-1]
    script = Script(5, [free.forced[0], random_ids(4, 1)], 6, params=SamplingParams(0), end_ids=frozenset({last}))
    sampler = LocalSampler(policy)
    transcript = play(sampler, [script])[0]
    again = transcript.token_ids[: len(transcript) - len(script.completions[-1].token_ids)]
    assert play(LocalSampler(policy), [Script(5, [again], 6, params=SamplingParams(0), end_ids=frozenset({last}))])[0].token_ids == transcript.token_ids


def test_wrong_requests(policy):
    async def go() -> None:
        sampler = LocalSampler(policy)
        dialogue = sampler.open(key=0, params=SamplingParams())
        with pytest.raises(ValueError, match="at least one token"):
            await dialogue.sample([], max_tokens=3, stop=None, end_ids=frozenset())
        with pytest.raises(ValueError, match="at least one token"):
            await dialogue.sample([1], max_tokens=0, stop=None, end_ids=frozenset())
        dialogue.close()
        dialogue.close()
        with pytest.raises(RuntimeError, match="closed"):
            await dialogue.sample([1], max_tokens=3, stop=None, end_ids=frozenset())

    asyncio.run(go())


# ----------------------------------------------------------------------------------------------------------- what is read


def test_only_new_tokens_are_read(policy):
    """A prompt of 7 once for the group of four; then 4 drawn tokens, the fifth with 3 of feedback, and 4 more, per dialogue."""
    sampler = LocalSampler(policy)
    for batch in (1, 2):
        play(sampler, [Script(key=k, forced=[random_ids(7, 0), random_ids(3, k)], max_tokens=5) for k in range(4)])
        assert sampler.read_tokens == batch * (7 + 4 * (4 + 1 + 3 + 4))
        assert sampler.sampled_tokens == batch * 4 * 10


def test_a_groups_prompt_is_read_once_though_rows_are_few(policy):
    """Two rows for a group of six: who comes later takes the prompt from a row that holds it, and reads its last token."""
    forced = [random_ids(30, 0)]
    few, many = LocalSampler(policy, max_rows=2), LocalSampler(policy)
    played = [play(s, [Script(key=k, forced=forced, max_tokens=3 + k) for k in range(6)]) for s in (few, many)]
    drawn = sum(range(3, 9)) - 6  # the last token of each is not read
    assert many.read_tokens == 30 + drawn
    assert few.read_tokens == 30 + 4 + drawn
    assert [t.token_ids for t in played[0]] == [t.token_ids for t in played[1]]
    for one, other in zip(*played, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-5)


def test_prefill_is_bounded(policy, monkeypatch):
    """At most `prefill_tokens` beside the rows that decode; a longer prompt alone; each group's prompt still once."""
    passes: list[int] = []
    logits = Policy.logits
    monkeypatch.setattr(Policy, "logits", lambda self, ids_T, *rest: (passes.append(len(ids_T)), logits(self, ids_T, *rest))[1])
    sampler = LocalSampler(policy, prefill_tokens=16)
    play(sampler, [Script(key=i, forced=[random_ids(7, i // 3)], max_tokens=2) for i in range(12)])
    assert passes[:2] == [14, 6 + 14]  # two prompts; then their six dialogues draw beside the other two
    assert sampler.read_tokens == sum(passes) == 4 * 7 + 12

    passes.clear()
    play(LocalSampler(policy, prefill_tokens=16), [Script(key=i, forced=[random_ids(n, i)], max_tokens=1) for i, n in enumerate((5, 40, 6, 9))])
    assert passes == [5 + 6, 9, 40]


# ----------------------------------------------------------------------------------------------------------- keyed draws


def test_tokens_are_a_function_of_the_key(policy):
    prompt = random_ids(8, 0)
    keys = [11, 12, 11, 2**64 - 1, 13]
    drawn = [t.token_ids[8:] for t in play(LocalSampler(policy), [Script(key, [prompt], 16) for key in keys])]
    assert drawn[0] == drawn[2]
    assert len({tuple(ids) for ids in drawn}) == 4
    assert play(LocalSampler(policy, max_rows=1), [Script(12, [prompt], 16)])[0].token_ids[8:] == drawn[1]


def test_no_two_draws_of_a_dialogue_share_a_uniform(policy):
    """Where every token is equally likely, a token says its uniform: it is that of the key and of the position in the dialogue."""
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()
    script = Script(77, [random_ids(6, 0), random_ids(3, 1), random_ids(3, 2)], max_tokens=8)
    transcript = play(LocalSampler(policy), [script])[0]
    positions = np.flatnonzero(transcript.sampled)
    expected = np.floor(keyed_uniforms(np.full(24, 77, dtype=np.uint64), positions) * VOCABULARY)
    assert [transcript.token_ids[i] for i in positions] == expected.tolist()
    assert transcript.logprobs[-1] == pytest.approx(-np.log(VOCABULARY), abs=1e-5)


def test_distribution_drawn_from(policy):
    """Through the sampler: log-probs under temperature and nucleus, and under the full softmax, by a slow reference."""
    params = SamplingParams(temperature=0.8, top_p=0.7)
    transcript = play(LocalSampler(policy), [Script(k, [random_ids(5, k)], 30, params) for k in range(3)])[0]
    logits_TV = reference_logits(policy_reference(policy), transcript.token_ids)[:-1].double()
    full = logits_TV.log_softmax(-1)
    tempered = (logits_TV / 0.8).softmax(-1)
    for position in range(4, len(transcript) - 1):
        token, kept = transcript.token_ids[position + 1], []
        for candidate in tempered[position].argsort(descending=True).tolist():
            kept.append(candidate)
            if tempered[position, kept].sum() >= 0.7:
                break
        assert token in kept
        expected = float((tempered[position, token] / tempered[position, kept].sum()).log())
        assert transcript.logprobs[position + 1] == pytest.approx(expected, abs=1e-4)
        assert transcript.full_logprobs[position + 1] == pytest.approx(float(full[position, token]), abs=1e-4)


def policy_reference(policy):
    """transformers' own model with the policy's present weights."""
    model = build("llama")
    model.load_state_dict(policy.model.state_dict())
    return model


# ------------------------------------------------------------------------------------------------------------ new weights


def test_new_weights_are_seen(policy):
    sampler = LocalSampler(policy)
    before = play(sampler, scripts(3))
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(0.8)
    policy.version += 1
    play_scripts = scripts(3)
    after = play(sampler, play_scripts)
    assert tokens_of(before) != tokens_of(after)
    assert {c.policy_version for s in play_scripts for c in s.completions} == {1}
    reference = policy_reference(policy)
    for transcript in after:
        sampled = torch.tensor(transcript.sampled)[1:]
        expected = logprobs_of(reference_logits(reference, transcript.token_ids), transcript.token_ids)
        torch.testing.assert_close(torch.tensor(transcript.logprobs)[1:][sampled], expected[sampled], atol=1e-4, rtol=0)


def test_new_weights_under_open_dialogues(policy):
    """Keys and values of two policies must not mix: that is a fault of the program, not of a user."""

    async def update(script: Script, attempt: int) -> None:
        policy.version += 1

    sampler = LocalSampler(policy)
    with pytest.raises(ExceptionGroup) as caught:
        play(sampler, scripts(2), update)
    assert all(isinstance(e, AssertionError) and "the weights changed" in str(e) for e in caught.value.exceptions)
    play(sampler, scripts(2))


# ------------------------------------------------------------------------------------------------------ abandoned batches


class Broken(Exception):
    pass


def break_one(kind: type[BaseException]):
    async def pause(script: Script, attempt: int) -> None:
        if script.key == 2 and attempt == 2:
            raise kind

    return pause


@pytest.mark.parametrize("release", [True, False], ids=["released", "not-released"])
@pytest.mark.parametrize("kind", [Broken, KeyboardInterrupt, SystemExit])
def test_an_exception_in_one_dialogue(policy, kind, release):
    """It ends the batch (a task group cancels the others); the next batch on the same sampler is as on a new one."""
    sampler = LocalSampler(policy, max_rows=4)
    expected = tokens_of(play(LocalSampler(policy, max_rows=4), scripts()))
    with pytest.raises((ExceptionGroup, kind)):
        play(sampler, scripts(), break_one(kind))
    if release:
        sampler.release()
        assert sampler.read_tokens == 0
    assert tokens_of(play(sampler, scripts())) == expected


@pytest.mark.parametrize("release", [True, False], ids=["released", "not-released"])
@pytest.mark.parametrize("kind", [Broken, KeyboardInterrupt])
def test_an_exception_in_the_step(policy, kind, release):
    """A stop checker that raises, in the driver's own task."""

    class Breaks:
        def push(self, token_id: int) -> bool:
            raise kind

    sampler = LocalSampler(policy, max_rows=4)
    broken = scripts()
    broken[3].stop = Breaks
    with pytest.raises((ExceptionGroup, kind)):
        play(sampler, broken)
    if release:
        sampler.release()
    assert tokens_of(play(sampler, scripts())) == tokens_of(play(LocalSampler(policy, max_rows=4), scripts()))


@pytest.mark.parametrize("when", ["before the first attempt", "in an attempt", "with its answer on the way"])
def test_one_dialogue_is_cancelled(policy, when):
    """The others go on, and what they draw does not change."""
    expected = tokens_of(play(LocalSampler(policy, max_rows=4), scripts()))
    sampler = LocalSampler(policy, max_rows=4)

    async def go() -> list:
        async def cancel_victim(script: Script, attempt: int) -> None:
            # Dialogue 0 and its victim end their first attempt in the same step: the victim's answer is there, but not yet taken.
            if when == "with its answer on the way" and script.key == 0 and attempt == 1:
                tasks[2].cancel()

        async with asyncio.timeout(30):
            tasks = [asyncio.create_task(converse(sampler, script, cancel_victim)) for script in scripts()]
            if when != "with its answer on the way":
                for _ in range(1 if when == "before the first attempt" else 5):
                    await asyncio.sleep(0)
                tasks[2].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    done = asyncio.run(go())
    assert isinstance(done[2], asyncio.CancelledError)
    assert [t.token_ids for i, t in enumerate(done) if i != 2] == [ids for i, ids in enumerate(expected) if i != 2]
    assert tokens_of(play(sampler, scripts())) == expected


def test_a_batch_is_cancelled_from_outside(policy):
    """What Ctrl-C does: asyncio cancels the main task in mid-step."""
    sampler = LocalSampler(policy)

    async def go() -> None:
        batch = asyncio.create_task(converse_all(sampler, scripts(max_tokens=50)))
        while sampler.sampled_tokens < 30:
            await asyncio.sleep(0)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch

    asyncio.run(go())
    sampler.release()
    assert tokens_of(play(sampler, scripts())) == tokens_of(play(LocalSampler(policy), scripts()))


def test_dialogues_closed_after_release(policy):
    """Dialogues that nobody closed (a dropped task, say) are closed by release; closing them later changes nothing."""
    sampler = LocalSampler(policy)
    left = [sampler.open(key=k, params=SamplingParams()) for k in range(3)]
    sampler.release()
    expected = tokens_of(play(LocalSampler(policy), scripts()))

    async def close_late(script: Script, attempt: int) -> None:
        left[script.key % 3].close()

    assert tokens_of(play(sampler, scripts(), close_late)) == expected
    assert tokens_of(play(sampler, scripts())) == expected


def test_successive_loops_and_dialogues_one_after_the_other(policy):
    sampler = LocalSampler(policy, max_rows=2)
    expected = tokens_of(play(sampler, scripts()))
    assert tokens_of(play(sampler, scripts())) == expected

    async def one_by_one() -> list:
        found = []
        for script in scripts():
            found.append(await converse(sampler, script, lambda *_: asyncio.sleep(0)))
            dialogue = sampler.open(key=0, params=SamplingParams())  # opened in the moment in which nothing was open, and never used
            await asyncio.sleep(0.001)
            dialogue.close()
        return found

    assert tokens_of(asyncio.run(one_by_one())) == expected


# ------------------------------------------------------------------------------------------------------------ slow graders


@pytest.mark.parametrize("max_rows", [3, 8])
def test_slow_graders_leave_no_trace(policy, max_rows):
    """Graders that answer in any order change no token and no bit of a log-prob: the batches are the same."""

    def varied() -> list[Script]:
        made = scripts(count=8)
        for script in made:
            script.forced = script.forced[: 1 + script.key % 3]
            script.max_tokens = 3 + script.key // 2
        return made

    def delays(seed: int):
        async def pause(script: Script, attempt: int) -> None:
            await asyncio.sleep(0.002 * ((seed * (script.key + 3) * (attempt + 1)) % 7))

        return pause

    plain = play(LocalSampler(policy, max_rows=max_rows), varied())
    for seed in (1, 2, 5):
        slow = play(LocalSampler(policy, max_rows=max_rows), varied(), delays(seed))
        assert [(t.token_ids, t.logprobs, t.full_logprobs) for t in slow] == [(t.token_ids, t.logprobs, t.full_logprobs) for t in plain]


def test_rows_do_not_depend_on_the_order_of_closing(policy):
    """The same dialogues leave in another order: those that stay are in the same rows."""

    async def rows_left(order: list[int]) -> list[int]:
        sampler = LocalSampler(policy)
        dialogues = [sampler.open(key=k, params=SamplingParams()) for k in range(6)]
        async with asyncio.timeout(30):
            await asyncio.gather(*(d.sample([1, d.key], max_tokens=2, stop=None, end_ids=frozenset()) for d in dialogues))
            for i in order:
                dialogues[i].close()
            await asyncio.gather(*(d.sample([1], max_tokens=2, stop=None, end_ids=frozenset()) for d in dialogues if not d.closed))
        return [d.key for d in sampler._rows]

    first = asyncio.run(rows_left([0, 4, 2]))
    assert sorted(first) == [1, 3, 5]
    assert asyncio.run(rows_left([4, 2, 0])) == asyncio.run(rows_left([2, 0, 4])) == first
