"""How many problems a difference needs: literal numbers, and the power itself on simulated evaluations."""

import math

import numpy as np
import pytest
from fake_dialogues import FakePlayer, problem

from mulligan.evaluation import detectable_difference, evaluate, paired_difference, problems_needed
from mulligan.evaluation.faults import size_warnings
from mulligan.evaluation.intervals import Interval
from mulligan.evaluation.power import assumed_power, power_of


def test_literal_numbers():
    # (1.959964 + 0.841621) 0.5 / 0.05 = 28.0159, squared 784.9
    assert problems_needed(0.5, 0.05) == 785
    assert problems_needed(0.5, 0.03) == 2181
    assert problems_needed(0.5, -0.05) == 785
    assert problems_needed(0.5, 0.05, power=0.9) == 1051  # (1.959964 + 1.281552) 10 = 32.4152
    assert problems_needed(0.5, 0.05, level=0.01) == 1168  # (2.575829 + 0.841621) 10 = 34.1745
    assert problems_needed(0.001, 0.9) == 2
    assert detectable_difference(0.5, 30) == pytest.approx(0.255748, abs=1e-6)  # AIME: a quarter of the scale
    assert detectable_difference(0.0, 10) == 0.0


@pytest.mark.parametrize("deviation", [0.2, 0.5, 0.9])
def test_the_two_are_each_others_inverse(deviation):
    for difference in (0.01, 0.05, 0.2):
        n = problems_needed(deviation, difference)
        assert detectable_difference(deviation, n) <= difference < detectable_difference(deviation, n - 1)


def test_four_of_five_evaluations_of_that_size_see_the_difference():
    """Of the problems, a share of 0.2 is gained and 0.12 lost: a difference of 8 points with a deviation of 0.56."""
    rng = np.random.default_rng(1)
    n = problems_needed(math.sqrt(0.32 - 0.08**2), 0.08)
    assert 370 < n < 400
    seen = 0
    for trial in range(400):
        drawn = rng.random(n)
        a, b = (drawn < 0.2).astype(float), (drawn > 0.88).astype(float)
        seen += paired_difference(a, b, resamples=400, seed=trial).low > 0
    assert 0.74 <= seen / 400 <= 0.86


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: problems_needed(0.5, 0), "difference = 0"),
        (lambda: problems_needed(-0.5, 0.1), "deviation = -0.5"),
        (lambda: problems_needed(math.nan, 0.1), "deviation = nan"),
        (lambda: problems_needed(0.5, 0.1, power=1.0), "power = 1.0"),
        (lambda: detectable_difference(0.5, 10, level=0), "level = 0"),
        (lambda: detectable_difference(0.5, 0), "problems = 0"),
    ],
)
def test_impossible_questions(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_power_of_an_evaluation():
    # with 2 attempts instead of 1, 3 of 10 problems are gained: s^2 = (3 - 0.9) / 9
    result = evaluate(FakePlayer(lambda i, k, g: ["c"] if i < 2 else ["w", "c"][:k] if i < 5 else ["w"] * k), [problem(i) for i in range(10)], name="x", attempts=(1, 2))
    s = math.sqrt(2.1 / 9)
    power = result.to_json()["power"]
    assert power["deviation"] == pytest.approx(s)
    assert power["problems_for"] == {"3": problems_needed(s, 0.03), "5": problems_needed(s, 0.05)}
    assert power["detectable"] == pytest.approx(detectable_difference(s, 10))
    assert result.to_json()["gain_power"] == {}, "nothing was sampled"


def test_power_of_the_gain():
    """Ten problems; with two attempts five are solved, and one of four samples of each is right: pass@2 is 1/2 everywhere, accuracy - pass@2 is 1/2 or -1/2."""
    player = FakePlayer(lambda i, k, g: (["c"] if g == 0 else ["w"]) if player.calls[-1]["group_size"] > 1 else ["w", "c"][:k] if i < 5 else ["w"] * k)
    result = evaluate(player, [problem(i) for i in range(10)], name="x", attempts=(1, 2), samples=4)
    s = 0.5 * (10 / 9) ** 0.5
    assert result.to_json()["gain_power"] == {
        "deviation": pytest.approx(s), "problems_for": {"3": problems_needed(s, 0.03), "5": problems_needed(s, 0.05)}, "detectable": pytest.approx(detectable_difference(s, 10)),
    }  # fmt: skip
    assert result.rise == (1, 2)


def test_without_two_budgets_or_variation_there_is_no_power():
    problems = [problem(i) for i in range(10)]
    assert evaluate(FakePlayer(lambda i, k, g: ["c"]), problems, name="x", attempts=(1, 2)).to_json()["power"] == {}
    assert evaluate(FakePlayer(lambda i, k, g: ["c"] if i else ["w"]), problems, name="x", attempts=(1,)).to_json()["power"] == {}
    assert evaluate(FakePlayer(lambda i, k, g: ["c"] if i else ["w"] * k), problems, name="x", attempts=(2, 3)).to_json()["power"] == {}
    assert power_of(np.array([1.0, np.nan]), np.array([0.0, 1.0])) is None


def test_the_rise_ends_at_the_trained_budget():
    def rise(attempts, trained):
        return evaluate(FakePlayer(lambda i, k, g: ["w"] * k), [problem(0)], name="x", attempts=attempts, trained_attempts=trained).rise

    assert rise((1, 2, 5, 7), 5) == (1, 5)
    assert rise((1, 2, 5, 7), None) == (1, 7)
    assert rise((1, 2, 5, 7), 3) == (1, 7)
    assert rise((1, 3), 1) == (1, 3)
    assert rise((1,), 5) is None
    assert rise((2, 3), 3) == (2, 3)  # from the fewest that were evaluated
    assert rise((2, 3), 2) is None  # trained with the fewest: nothing to rise from
    assert rise((3,), 3) is None


def test_a_small_set_says_what_it_could_show():
    few = [problem(i) for i in range(30)]
    assumed = evaluate(FakePlayer(lambda i, k, g: ["c"] if i % 2 else ["w"]), few, name="AIME", attempts=(1,)).warnings[0]
    assert "they show paired differences from 26 points on (if a quarter of them ends differently): 3 points take 2,181 problems, 5 points take 785 problems" in assumed
    measured = evaluate(FakePlayer(lambda i, k, g: ["c"] if i % 2 else ["w", "c"][:k] if i == 0 else ["w"] * k), few, name="AIME", attempts=(1, 2)).warnings[0]
    s = math.sqrt((1 - 1 / 30) / 29)
    assert f"from {100 * detectable_difference(s, 30):.0f} points on (by the spread measured here)" in measured


def test_a_set_that_is_too_small_for_five_points_is_warned_of():
    accuracy = {1: Interval(0.4, 0.3, 0.5, 120), 5: Interval(0.5, 0.4, 0.6, 120)}
    assert size_warnings("s", accuracy, assumed_power(120)) == ["s: 120 problems are few for small differences: 5 points take 785 (80 % power, by the spread measured here)"]
    assert size_warnings("s", {k: Interval(i.mean, i.low, i.high, 785) for k, i in accuracy.items()}, assumed_power(785)) == []
    assert size_warnings("s", accuracy, None) == []  # nothing was measured that could say so
    assert len(size_warnings("s", {1: Interval(0.4, 0.2, 0.6, 40)}, assumed_power(40))) == 1
