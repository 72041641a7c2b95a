"""pass@k at the best of several temperatures: the choice is made on other problems, and nothing else decides it."""

import math

import numpy as np
import pytest
from fake_dialogues import FakePlayer, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.evaluation import evaluate, fold_of
from mulligan.evaluation.samples import by_nearness, choose
from mulligan.sampling import SamplingParams

PROBLEMS = [problem(i) for i in range(40)]
FOLDS = np.array([fold_of(p.id) for p in PROBLEMS])

PINNED = [1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0]
"""Of p0 to p11. Figures of different versions stay comparable only as long as these do not change."""


def test_a_problems_fold_is_pinned():
    assert [fold_of(f"p{i}") for i in range(12)] == PINNED
    assert 440 < sum(fold_of(f"id {i}") for i in range(1000)) < 560


def test_the_choice_by_hand():
    folds = np.array([0, 0, 1, 1])
    low, high = np.array([0.9, 0.9, 0.2, 0.2]), np.array([0.1, 0.1, 0.6, 0.6])
    # fold 0 is taken where fold 1 does best, and the other way round: each the worse for its own problems
    assert choose({0.6: low, 1.2: high}, folds) == (1.2, 0.6)


def test_ties_and_folds_without_others_go_to_the_temperature_nearest_one():
    assert by_nearness([0.6, 1.2, 0.8, 1.0, 1.2]) == (1.0, 0.8, 1.2, 0.6)
    same = np.array([0.5, 0.25])
    assert choose({0.6: same, 1.2: same, 0.9: same}, np.array([0, 1])) == (0.9, 0.9)
    assert choose({0.6: np.array([0.0, 0.95]), 1.1: np.array([0.9, 0.0])}, np.array([0, 0])) == (1.1, 0.6)


def test_temperatures_are_compared_on_the_problems_that_all_of_them_have():
    folds = np.array([1, 1, 0])
    some = np.array([np.nan, 0.2, 0.0])
    assert choose({1.0: np.array([0.9, 0.1, 0.0]), 0.6: some}, folds)[0] == 0.6
    assert choose({1.0: np.array([0.9, 0.1, 0.0]), 0.6: np.array([np.nan, np.nan, 0.0])}, folds)[0] == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_no_problem_has_a_say_in_its_own_temperature(seed, count):
    rng = np.random.default_rng(seed)
    heats = [0.6, 0.8, 1.0, 1.2][:count]
    values = {t: rng.random(len(FOLDS)) for t in heats}
    before = choose(values, FOLDS)
    for fold in (0, 1):
        other = {t: np.where(fold == FOLDS, rng.random(len(FOLDS)), v) for t, v in values.items()}
        assert choose(other, FOLDS)[fold] == before[fold], "values of its own fold moved its temperature"
        best = max(heats, key=lambda t: values[t][fold != FOLDS].mean())
        assert before[fold] == best


def sampled(probability, n=8, attempts=(1, 2), seed=0, temperatures=(0.6, 1.2), problems=PROBLEMS):
    """An evaluation whose samples are right with `probability(problem, temperature)`."""
    rng = np.random.default_rng(seed)
    player = FakePlayer(lambda i, k, g: ["c"] if len(player.calls) > len(attempts) and rng.random() < probability(i, player.temperature) else ["w"] * k)
    return player, evaluate(player, problems, name="x", attempts=attempts, samples=n, temperatures=temperatures)


def test_every_temperature_is_sampled_and_shown():
    player, result = sampled(lambda i, t: t - 0.4, temperatures=(1.2, 0.6, 1.2))
    calls = [c for c in player.calls if c["group_size"] == 8]
    assert [(c["params"], c["step"], c["budget"]) for c in calls] == [(SamplingParams(0.6, 1.0), 0, 1), (SamplingParams(1.2, 1.0), 0, 1)]
    table = result.to_json()
    assert list(table["pass_temperatures"]) == ["0.6", "1.2"]
    assert table["chosen_temperatures"] == {"1": ["1.2", "1.2"], "2": ["1.2", "1.2"]}
    assert table["pass_at_k"] == table["pass_temperatures"]["1.2"]
    assert table["pass_at_k"]["1"]["mean"] > 0.6 > 0.4 > table["pass_temperatures"]["0.6"]["1"]["mean"]
    assert {play.index for play in result.plays if play.stage == "samples"} == {0, 1}


def test_values_and_gain_are_those_of_the_chosen_temperatures():
    # fold 1 does best at 0.6, which fold 0 is therefore taken at, and the other way round
    _, result = sampled(lambda i, t: 1.0 if (t == 0.6) == bool(FOLDS[i]) else 0.0)
    assert result.to_json()["chosen_temperatures"]["1"] == ["0.6", "1.2"]
    assert result.pass_at_k[1].mean == 0.0, "each fold is the other's worst guide here"
    own = {t: result.sampled.passed_at[t][1] for t in (0.6, 1.2)}
    assert np.array_equal(result.passed[1], np.where(FOLDS == 0, own[0.6], own[1.2]))
    assert result.gain[1].mean == result.accuracy[1].mean - result.pass_at_k[1].mean


def test_each_k_has_its_own_temperature():
    """A sharp policy is right at once or never; a broad one needs more draws and gets further."""
    place = [int((FOLDS[:i] == FOLDS[i]).sum()) for i in range(40)]
    _, result = sampled(lambda i, t: float(place[i] % 5 < 3) if t == 0.6 else 0.35, n=40, attempts=(1, 4))
    chosen = result.to_json()["chosen_temperatures"]
    assert chosen["1"] == ["0.6", "0.6"]
    assert chosen["4"] == ["1.2", "1.2"]
    assert result.pass_at_k[4].mean == pytest.approx(1 - 0.65**4, abs=0.03)


def test_choosing_on_the_same_problems_would_flatter_and_this_does_not():
    """Four temperatures of one and the same policy: the best of them is above the truth, the cross-fitted one is not."""
    truth, flattered, fitted = 0.3, [], []
    for seed in range(150):
        _, result = sampled(lambda i, t: truth, n=2, attempts=(1,), seed=seed, temperatures=(0.6, 0.8, 1.0, 1.2), problems=PROBLEMS[:30])
        flattered.append(max(by_k[1].mean for by_k in result.sampled.by_temperature.values()))
        fitted.append(result.pass_at_k[1].mean)
    error = math.sqrt(truth * (1 - truth) / (2 * 30 * 150))
    assert np.mean(flattered) > truth + 8 * error
    assert abs(np.mean(fitted) - truth) < 3 * error


def test_intervals_of_the_gain_cover_the_truth():
    """Accuracy 0.5 against a pass@1 of 0.3 at either temperature, 40 problems with a difficulty of their own."""
    covered, trials = 0, 200
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        easy = rng.random(40) < 0.5
        player = FakePlayer(
            lambda i, k, g: ["c"] if rng.random() < ((0.9 if easy[i] else 0.1) if len(player.calls) == 1 else (0.5 if easy[i] else 0.1)) else ["w"]  # noqa: B023
        )
        result = evaluate(player, PROBLEMS, name="x", attempts=(1,), samples=4, temperatures=(0.8, 1.2))
        covered += result.gain[1].low <= 0.2 <= result.gain[1].high
    assert 0.88 <= covered / trials <= 0.99


def test_too_few_samples_are_warned_of():
    def warnings(samples, attempts):
        return sampled(lambda i, t: 0.5, n=samples, attempts=attempts)[1].warnings

    assert any("pass@2 from 7 samples a problem is rough" in w and "draw 8 or more" in w for w in warnings(7, (1, 2)))
    assert not any("rough" in w for w in warnings(8, (1, 2)))
    assert any("pass@k stops at k = 3" in w for w in warnings(3, (1, 4)))


def test_a_grid_of_temperatures_that_may_be_too_small_is_warned_of():
    def warnings(best, temperatures):
        return "\n".join(sampled(lambda i, t: 0.9 if t == best else 0.1, temperatures=temperatures)[1].warnings)

    assert "all samples were drawn at temperature 0.8" in warnings(0.8, (0.8,))
    assert "the hottest temperature that was sampled, 1.2, is the best for pass@2" in warnings(1.2, (0.6, 0.9, 1.2))
    assert "the coldest temperature that was sampled, 0.6, is the best for pass@2: a colder one may do better still" in warnings(0.6, (0.6, 0.9, 1.2))
    inside = warnings(0.9, (0.6, 0.9, 1.2))
    assert not any(word in inside for word in ("hottest", "coldest", "all samples"))
    tie = "\n".join(evaluate(FakePlayer(lambda i, k, g: ["w"]), PROBLEMS, name="x", attempts=(1, 2), samples=8, temperatures=(0.6, 1.0)).warnings)
    assert "hottest" not in tie  # nothing is solved at either, and ties go to the one nearest 1
    without = evaluate(FakePlayer(lambda i, k, g: ["c"]), PROBLEMS, name="x", attempts=(1, 2), temperatures=(0.8,)).warnings
    assert not any("temperature" in text for text in without)


def test_samples_of_which_none_could_be_graded_are_said_to_be_so():
    """And not that more should be drawn."""
    player = FakePlayer(lambda i, k, g: ["u"] if player.calls[-1]["group_size"] > 1 else ["w"] * (i % 3) + ["c"] if i % 3 < k else ["w"] * k)
    result = evaluate(player, [problem(i) for i in range(12)], name="t", attempts=(1, 2), samples=8)
    assert result.gain == {} and not any("equal tokens" in text for text in result.warnings)
    assert "t: none of the samples could be graded, so that nothing is said of drawing again; check the grader and its deadline" in result.warnings
