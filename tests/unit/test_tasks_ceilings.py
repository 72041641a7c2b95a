"""Ceilings of the built-in tasks: literal values, slow references, and what they depend on."""

import itertools
import json
import random
from collections import defaultdict
from dataclasses import replace

import pytest

from mulligan.tasks import ceilings, load_problems
from mulligan.tasks.builtin import codes, guess, readings
from mulligan.tasks.builtin.codebreaking import Codes

BEST, INDEPENDENT = "best possible", "best independent sampling"
LIST, BLIND = "best fixed list of answers", "best sampling blind to the question"
HINT = frozenset({"hint"})


def rounded(found):
    return {label: [round(x, 3) for x in by_k.values()] for label, by_k in found.items()}


# --------------------------------------------------------------------------------------------------------------- readings


@pytest.mark.parametrize("source", ["builtin:readings?split=test", "builtin:readings?split=test&values=natural", "builtin:readings?split=test&style=words"])
def test_readings_on_the_whole_test_split(source):
    found = ceilings(load_problems(source), range(1, 8))
    assert rounded(found) == {BEST: [0.4, 0.7, 0.9, 1, 1, 1, 1], INDEPENDENT: [0.4, 0.531, 0.649, 0.733, 0.797, 0.847, 0.884]}
    assert found[INDEPENDENT] == pytest.approx({k: readings.best_independent(k) for k in range(1, 8)})
    assert ceilings(load_problems(source), (1, 2), shown=HINT) == ceilings(load_problems(source), (1, 2), shown=None)


def test_readings_of_which_only_some_are_evaluated():
    """The strategies are those of the whole task, their score that on these very problems."""
    problems = load_problems("builtin:readings?split=test", limit=50)
    found = ceilings(problems, (1, 2, 5))
    for k in (1, 2, 5):
        assert found[BEST][k] == sum(p.meta["reading"] in readings.READINGS[:k] for p in problems) / 50
    assert found[INDEPENDENT][1] == found[BEST][1] != 0.4
    assert found[INDEPENDENT][2] < found[BEST][2]


# ------------------------------------------------------------------------------------------------------------------ guess


def test_guess_follows_what_the_feedback_shows():
    problems = load_problems("builtin:guess?split=test")
    shown, bare = ceilings(problems, (1, 2, 3, 4, 5), shown=HINT), ceilings(problems, (1, 2, 3, 4, 5))
    bisection, exclusion = [1 / 15, 3 / 15, 7 / 15, 1, 1], [k / 15 for k in range(1, 6)]
    assert list(shown[BEST].values()) == list(bare["bisection, with the hint"].values()) == pytest.approx(bisection)
    assert list(bare[BEST].values()) == list(shown["exclusion, with the verdict alone"].values()) == pytest.approx(exclusion)
    assert set(shown) == {BEST, INDEPENDENT, "random among the numbers that fit", "exclusion, with the verdict alone"}
    assert set(bare) == {BEST, INDEPENDENT, "bisection, with the hint"}
    assert shown[INDEPENDENT][2] == bare[INDEPENDENT][2] == pytest.approx(1 - (14 / 15) ** 2)
    assert ceilings(problems, (2,), shown=None)[BEST] == {2: 3 / 15}
    assert ceilings(problems, (2,), shown={"answer"})[BEST] == {2: 2 / 15}


def test_guess_takes_its_range_from_the_source():
    found = ceilings(load_problems("builtin:guess?split=test&low=3&high=5"), (1, 2, 3), shown=HINT)
    assert found[BEST] == {1: 1 / 3, 2: 1.0, 3: 1.0}
    assert found[INDEPENDENT][1] == pytest.approx(1 / 3)


def test_guess_in_several_ranges_has_the_ceilings_of_one():
    one, several = (load_problems(f"builtin:guess?split=test&low=1&high=7{more}") for more in ("", "&ranges=3&step=40"))
    assert ceilings(several, (1, 2, 3), shown=HINT) == ceilings(one, (1, 2, 3), shown=HINT)
    assert ceilings(several, (1, 2, 3), shown=HINT)[BEST] == {1: 1 / 7, 2: 3 / 7, 3: 1.0}
    some = load_problems("builtin:guess?split=test&low=1&high=7&ranges=3&step=40&n=20")
    assert ceilings(some, (1, 2, 3), shown=HINT) == {}, "a number of the last range is missing"


def test_random_guesses_that_fit_are_those_of_a_player():
    """Literal values for three numbers, a simulated player for fifteen."""
    three = ceilings(load_problems("builtin:guess?split=test&low=3&high=5"), (1, 2, 3), shown=HINT)["random among the numbers that fit"]
    assert three == pytest.approx({1: 1 / 3, 2: 7 / 9, 3: 1.0})  # 2 of 3 are solved after the end numbers, 3 of 3 after the middle one
    rng, rounds, solved = random.Random(0), 20_000, [0] * 5
    for _ in range(rounds):
        low, high, hidden = 1, 15, rng.randint(1, 15)
        for attempt in range(5):
            number = rng.randint(low, high)
            if number == hidden:
                solved[attempt] += 1
                break
            low, high = (number + 1, high) if hidden > number else (low, number - 1)
    played = [sum(solved[:k]) / rounds for k in range(1, 6)]
    found = ceilings(load_problems("builtin:guess?split=test"), range(1, 6), shown=HINT)["random among the numbers that fit"]
    assert list(found.values()) == pytest.approx(played, abs=0.012)
    assert all(found[k] <= guess.oracle_accuracy(k) for k in found)


@pytest.mark.parametrize("source", ["builtin:guess?split=test&n=10", "builtin:guess?n=200", "builtin:codes?split=test&n=10", "builtin:codes?n=120"])
def test_where_not_everything_is_hidden_once_nothing_is_known(source):
    assert ceilings(load_problems(source), (1, 2), shown=HINT) == {}


# ------------------------------------------------------------------------------------------------------------------ codes


def every_code(pegs, colours, distinct):
    letters = codes.LETTERS[:colours]
    made = itertools.permutations(letters, pegs) if distinct else itertools.product(letters, repeat=pegs)
    return ["".join(c) for c in made], ["".join(g) for g in itertools.product(letters, repeat=pegs)]


def classes(guess, left):
    found = defaultdict(list)
    for code in left:
        found[codes.bulls_and_cows(code, guess)].append(code)
    return [(rest, rest == [guess]) for rest in found.values()]


def best_slowly(left, guesses, k):
    if k == 0 or not left:
        return 0
    return max(sum(1 if won else best_slowly(rest, guesses, k - 1) for rest, won in classes(g, left)) for g in guesses)


def fitting_slowly(left, k):
    if k == 0:
        return 0.0
    return sum(sum(1.0 if won else fitting_slowly(rest, k - 1) for rest, won in classes(g, left)) for g in left) / len(left)


@pytest.mark.parametrize(("pegs", "colours", "distinct"), [(2, 3, False), (2, 3, True), (2, 4, True), (3, 2, False), (1, 5, True)])
def test_codes_against_a_slow_search(pegs, colours, distinct):
    every, guesses = every_code(pegs, colours, distinct)
    task = Codes.of(pegs, colours, distinct)
    for k in (1, 2, 3):
        assert task.best(k) == best_slowly(every, guesses, k)
        assert task.fitting(k) == pytest.approx(fitting_slowly(every, k))


@pytest.mark.parametrize(("distinct", "expected"), [(1, [0.34, 0.88, 0.999]), (0, [0.21, 0.60, 0.92])])
def test_random_guessing_among_the_codes_that_fit(distinct, expected):
    """The figures of the task's description, which were found by playing."""
    found = ceilings(load_problems(f"builtin:codes?split=test&distinct={distinct}"), (3, 4, 5), shown=HINT)
    assert list(found["random among the codes that fit"].values()) == pytest.approx(expected, abs=0.012)


def test_codes_by_played_dialogues():
    """What `fitting` computes is what a player gets who guesses at random among the codes that fit."""
    every, _ = every_code(2, 4, True)
    rng, solved, rounds = random.Random(3), 0, 4000
    for _ in range(rounds):
        code, left = rng.choice(every), every
        for _ in range(3):
            tried = rng.choice(left)
            if tried == code:
                solved += 1
                break
            left = [c for c in left if codes.bulls_and_cows(c, tried) == codes.bulls_and_cows(code, tried)]
    assert Codes.of(2, 4, True).fitting(3) / 12 == pytest.approx(solved / rounds, abs=0.025)


BEST_IN_TWO = 9
"""A guess of three different letters has nine answers, each of which leaves at least one code to name."""


def test_ceilings_of_codes():
    found = ceilings(load_problems("builtin:codes?split=test"), range(1, 8), shown=HINT)
    best, fits = found[BEST], found["random among the codes that fit"]
    assert list(best.values())[:2] == pytest.approx([1 / 120, BEST_IN_TWO / 120])
    assert best[7] == 1.0, "a plain strategy solves every code, so the best does"
    assert all(fits[k] <= best[k] + 1e-12 for k in best)
    assert all(found["exclusion, with the verdict alone"][k] == pytest.approx(k / 120) for k in range(1, 8))
    assert found[INDEPENDENT][3] == pytest.approx(1 - (119 / 120) ** 3)
    values = list(best.values())
    assert all(b >= a for a, b in itertools.pairwise(values))
    assert ceilings(load_problems("builtin:codes?split=test"), (2,), shown={"bulls", "cows"})[BEST] == {2: best[2]}


def test_codes_without_the_hint_are_found_by_exclusion():
    problems = load_problems("builtin:codes?split=test&distinct=0")
    assert ceilings(problems, (1, 4)) == {INDEPENDENT: pytest.approx({1: 1 / 216, 4: 1 - (215 / 216) ** 4}), BEST: {1: 1 / 216, 4: 4 / 216}}
    assert BEST not in ceilings(problems, (1, 4), shown={"bulls"}), "half a hint: nobody has computed that"


def test_large_codes_have_what_can_be_computed():
    found = ceilings(load_problems("builtin:codes?split=test&pegs=4&distinct=0"), (1, 2, 3, 4, 7), shown=HINT)
    assert set(found[BEST]) == {1, 2, 3, 7}
    assert found[BEST][2] == 14 / 1296  # no guess has more than 14 answers
    assert set(found["random among the codes that fit"]) == {1, 2, 3}
    assert set(ceilings(load_problems("builtin:codes?split=test&pegs=5&distinct=0"), (1, 2), shown=HINT)) == {INDEPENDENT, "exclusion, with the verdict alone"}


# ----------------------------------------------------------------------------------------------------------------- others


def with_answers(folder, *answers):
    """A file of problems with these gold answers."""
    folder.mkdir(exist_ok=True)
    (folder / "p.jsonl").write_text("".join(json.dumps({"question": f"Q{i}?", "answer": answer}) + "\n" for i, answer in enumerate(answers)))
    return str(folder / "p.jsonl")


def test_other_sources_are_beside_those_who_do_not_read_the_question(tmp_path):
    found = ceilings(load_problems(with_answers(tmp_path, "Two", "7", "two ", "5", "two", "5", "1", "two", "3", "5")), (1, 2, 3, 9))
    assert list(found) == [LIST, BLIND]
    assert found[LIST] == pytest.approx({1: 0.4, 2: 0.7, 3: 0.8, 9: 1.0})  # two four times, 5 three times, then three once each
    assert found[BLIND][1] == pytest.approx(0.4)
    shares, steps = [0.4, 0.3, 0.1, 0.1, 0.1], 20  # the best of all distributions in steps of a twentieth
    tried = (q for q in itertools.product(range(steps + 1), repeat=5) if sum(q) == steps and q[2] >= q[3] >= q[4])
    slow = max(sum(p * (1 - (1 - n / steps) ** 3) for p, n in zip(shares, q, strict=True)) for q in tried)
    assert slow <= found[BLIND][3] <= slow + 0.002
    assert found[BLIND][3] < found[LIST][3]


def test_a_mixture_of_other_sources_has_a_list_for_each(tmp_path):
    """The question says which part it is from."""
    one, two = with_answers(tmp_path / "a", "1", "1", "1", "2"), with_answers(tmp_path / "b", "9", "9", "8", "7", "6", "5")
    assert ceilings(load_problems(f"{one} + {two}"), (1, 2))[LIST] == pytest.approx({1: 5 / 10, 2: 7 / 10})


def test_where_nothing_is_known(tmp_path):
    assert ceilings(load_problems("builtin:product?split=test"), (1, 2), shown=HINT) == {}
    assert ceilings(load_problems("gym:graph_color?size=5"), (1, 2)) == {}  # no gold answers
    assert ceilings(replace(load_problems("builtin:guess?split=test"), problems=()), (1,)) == {}
    assert guess.oracle_accuracy(4) == 1.0


# ---------------------------------------------------------------------------------------------------------------- mixtures


def test_a_mixture_of_tasks_weighs_their_ceilings_by_their_problems():
    mixed = load_problems("builtin:guess?split=test + builtin:codes?split=test&pegs=2&colours=3&distinct=0")
    parts = [load_problems(source) for source in ("builtin:guess?split=test", "builtin:codes?split=test&pegs=2&colours=3&distinct=0")]
    assert [len(p.problems) for p in parts] == [15, 9]
    found, (a, b) = ceilings(mixed, (1, 2, 3), shown=HINT), (ceilings(p, (1, 2, 3), shown=HINT) for p in parts)
    assert set(found) == {BEST, INDEPENDENT, "exclusion, with the verdict alone"}  # what only one of them has says nothing of both
    for label, by_k in found.items():
        assert by_k == pytest.approx({k: (15 * a[label][k] + 9 * b[label][k]) / 24 for k in (1, 2, 3)})
    assert found[BEST][3] == pytest.approx((7 + 9) / 24)


def test_a_mixture_with_a_part_of_which_nothing_is_known_has_none():
    mixed = load_problems("builtin:guess?split=test + builtin:product?split=test&n=5")
    assert ceilings(mixed, (1, 2), shown=HINT) == {}
    assert ceilings(replace(mixed, problems=()), (1, 2), shown=HINT) == {}
    by_hand = tuple(replace(p, source=mixed.source) for p in mixed.problems)
    assert ceilings(replace(mixed, problems=by_hand), (1, 2), shown=HINT) == {}
