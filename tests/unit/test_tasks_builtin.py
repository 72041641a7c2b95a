"""The built-in generators: counts, splits, quotas, grading, demonstrations, ceilings, vocabulary."""

import itertools
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulligan.errors import ConfigError
from mulligan.tasks import demonstrator, load_problems
from mulligan.tasks.builtin import codes, guess, product, readings
from mulligan.tasks.builtin.vocabulary import WORDS, spaced
from mulligan.types import Problem, VerdictKind

TOKEN_SOURCES = (
    "builtin:readings", "builtin:readings?working=rewrite", "builtin:readings?values=natural", "builtin:readings?split=test",
    "builtin:guess", "builtin:guess?split=test", "builtin:codes", "builtin:codes?pegs=4&distinct=1", "builtin:codes?pegs=2&colours=4&split=test",
    "builtin:product", "builtin:product?split=test",
)  # fmt: skip


def tokens(text: str) -> list[str]:
    """Greedy, longest item first, spaces ignored; fails on anything outside the vocabulary."""
    item = "|".join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True))
    assert re.fullmatch(rf"(?:{item}|\s)*", text), f"not in the vocabulary: {text!r}"
    return re.findall(item, text)


def grade_of(problem):
    """The problem's own grader, looked up by its entry point."""
    return {"readings": readings, "guess": guess, "codes": codes, "product": product}[problem.grader.split(":")[0].rsplit(".", 1)[1]].grade


# ------------------------------------------------------------------------------------------------------------- everywhere


@pytest.mark.parametrize("source", TOKEN_SOURCES)
def test_every_text_is_in_the_small_vocabulary(source):
    rng, demonstrate = random.Random(0), demonstrator(source)
    for problem in load_problems(source, limit=200):
        tokens(f"5 {problem.question}")
        attempt = demonstrate(problem, rng)
        verdict = grade_of(problem)(problem, attempt)
        assert tokens(attempt)[-1] == "}"
        assert tokens(f"{verdict.fields.get('hint', 'wrong')} 4")
        assert verdict.kind in (VerdictKind.CORRECT, VerdictKind.WRONG)
        assert verdict.fields.get("hint") != "invalid"


def test_the_vocabulary_is_small_and_has_no_doubles():
    assert 32 <= len(WORDS) <= 48
    assert len(set(WORDS)) == len(WORDS)
    assert tokens("guess 1 15") == ["guess", "1", "15"]
    assert tokens("@2 3+8-5\\boxed{7}") == ["@2", "3", "+", "8", "-", "5", "\\boxed{", "7", "}"]


@pytest.mark.parametrize("source", TOKEN_SOURCES)
def test_every_gold_passes_its_own_grader_and_gives_no_hint_away(source):
    for problem in load_problems(source, limit=300):
        assert grade_of(problem)(problem, f"\\boxed{{{problem.answer}}}").correct
        assert grade_of(problem)(problem, f"\\boxed{{{spaced(problem.answer)}}}").correct
        assert grade_of(problem)(problem, "no box").kind is VerdictKind.NO_ANSWER
        assert grade_of(problem)(problem, "\\boxed{ }").kind is VerdictKind.NO_ANSWER
        assert grade_of(problem)(problem, "\\boxed{x}").kind is VerdictKind.WRONG


@pytest.mark.parametrize("name", ["readings", "guess", "codes", "product"])
def test_streams_are_deterministic_and_move_with_the_seed(name):
    first, again, other = (load_problems(f"builtin:{name}?n=300", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [p.id for p in first] != [p.id for p in other]
    assert load_problems(f"builtin:{name}?n=300&seed=1", seed=2).problems[0].id == first.problems[0].id
    assert len({p.id for p in first}) == 300  # draws of the same content stay apart


@pytest.mark.parametrize("name", ["readings", "guess", "codes", "product"])
def test_test_splits_do_not_move_with_the_run(name):
    assert load_problems(f"builtin:{name}?split=test", seed=1) == load_problems(f"builtin:{name}?split=test", seed=2)


def test_the_held_out_problems_are_pinned():
    """Results of earlier runs stay comparable only as long as these do not change."""
    test = load_problems("builtin:readings?split=test").problems
    assert [(p.id, p.question, p.meta["reading"]) for p in test[:2]] == [
        ("614d32d0288f5ae0", "8*7+6*8", "standard"),
        ("d6b70abc1fb5b2cd", "2-5*3-8", "left"),
    ]
    assert load_problems("builtin:guess?split=test").problems[0].id == "410070fdc2b051ca"
    assert load_problems("builtin:codes?split=test").problems[0].answer == "BFC"
    assert load_problems("builtin:product?split=test").problems[0].question == "4 6 * 8 6"


@pytest.mark.parametrize("name", ["readings", "guess", "codes", "product"])
def test_words_are_for_language_models(name):
    words = load_problems(f"builtin:{name}?style=words&split=test").problems[0]
    plain = load_problems(f"builtin:{name}?split=test").problems[0]
    assert len(words.question) > len(plain.question) + 3
    assert (words.answer, words.meta) == (plain.answer, plain.meta)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("builtin:reading", "did you mean 'readings'"),
        ("builtin:guess?hihg=9", "unknown key 'hihg'; did you mean 'high'"),
        ("builtin:guess?high=many", "high='many' must be a whole number"),
        ("builtin:guess?low=5&high=5", "low must be"),
        ("builtin:guess?n=0", "builtin:guess[?]n=0: n=0 must be at least 1"),
        ("builtin:readings?split=tests", "'tests' is not one of train, test"),
        ("builtin:codes?colours=7", "from 2 to 6"),
        ("builtin:codes?pegs=5&colours=4&distinct=yes", "raise colours=4"),
        ("builtin:codes?pegs=0", "at least 1 peg"),
        ("builtin:codes?distinct=perhaps", "must be true or false"),
    ],
)
def test_wrong_builtin_sources(source, part):
    with pytest.raises(ConfigError, match=part):
        load_problems(source)


@pytest.mark.parametrize("source", ["gym:chain_sum", "a.jsonl"])
def test_other_sources_demonstrate_the_gold_answer_in_a_box(source):
    problem = Problem(id="x", question="3 + 4 =", answer="7")
    assert demonstrator(source)(problem, random.Random(0)) == "\\boxed{7}"


# --------------------------------------------------------------------------------------------------------------- readings


def test_there_are_12072_expressions_with_four_different_values():
    table = readings.expressions()
    assert len(table) == 12_072
    assert all(len(set(four)) == 4 and all(0 <= value < 10 for value in four) for four in table.values())
    train, test = readings.split_expressions()
    assert (len(train), len(test)) == (10_572, 1_500)
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(table)


def test_the_four_readings_by_hand():
    # 3+(4*2)-6 = 5; ((3+4)*2)-6 = 8; 3+(4*(2-6)) = -13; (3+4)*(2-6) = -28
    assert [readings.evaluate("3+4*2-6", r, None) for r in readings.READINGS] == [5, 8, -13, -28]
    assert [readings.evaluate("3+4*2-6", r) for r in readings.READINGS] == [5, 8, 7, 2]
    assert readings.expressions()["3+4*2-6"] == (5, 8, 7, 2)
    assert "3+4*2-5" not in readings.expressions()  # 6, 9, 1, 9
    # sums first: (2*(3+4))*5 = 70; standard 2*3+4*5 = 26; left ((2*3)+4)*5 = 50; right 2*(3+(4*5)) = 46
    assert [readings.evaluate("2*3+4*5", r, None) for r in readings.READINGS] == [26, 50, 46, 70]


@given(st.tuples(*[st.integers(1, 9)] * 4), st.tuples(*[st.sampled_from("+-*")] * 3))
def test_standard_and_left_to_right_agree_with_python(digits, operators):
    expression = "".join(itertools.chain(*itertools.zip_longest(map(str, digits), operators, fillvalue="")))
    a, b, c, d = digits
    o1, o2, o3 = operators
    assert readings.evaluate(expression, "standard") == eval(expression) % 10
    assert readings.evaluate(expression, "left") == eval(f"(({a}{o1}{b}){o2}{c}){o3}{d}") % 10
    assert readings.evaluate(expression, "right") == eval(f"{a}{o1}({b}{o2}({c}{o3}{d}))") % 10


def test_held_out_readings_hold_exact_quotas():
    test = load_problems("builtin:readings?split=test")
    assert Counter(p.meta["reading"] for p in test) == {"standard": 600, "left": 450, "right": 300, "sums": 150}
    for problem in test:
        assert int(problem.answer) == readings.evaluate(problem.question, problem.meta["reading"])
    # The schedule of readings by likelihood therefore scores its ceiling to the last question.
    for k in (1, 2, 3, 4):
        solved = sum(any(readings.evaluate(p.question, r) == int(p.answer) for r in readings.READINGS[:k]) for p in test)
        assert solved == round(1500 * readings.oracle_accuracy(k))
    assert sorted(readings.quotas(7, random.Random(0))) == [0, 0, 0, 1, 1, 2, 3]


def test_training_draws_cycle_over_the_training_expressions():
    train, test = readings.split_expressions()
    drawn = load_problems("builtin:readings?n=21144")
    assert Counter(p.question for p in drawn) == dict.fromkeys(train, 2)
    assert not {p.question for p in drawn} & set(test)
    shares = Counter(p.meta["reading"] for p in drawn)
    assert [round(shares[r] / len(drawn), 2) for r in readings.READINGS] == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.011)
    assert len(load_problems("builtin:readings")) == 60_000


def test_natural_numbers():
    table = readings.expressions("natural")
    assert all(min(four) >= 0 and len(set(four)) == 4 for four in table.values())
    assert max(map(max, table.values())) > 100
    problem = load_problems("builtin:readings?values=natural&split=test").problems[0]
    assert int(problem.answer) == readings.evaluate(problem.question, problem.meta["reading"], None)


def test_readings_are_graded_as_whole_numbers():
    problem = next(p for p in load_problems("builtin:readings?split=test") if p.answer == "7")
    kinds = {text: readings.grade(problem, text).kind for text in ("\\boxed{7}", "\\boxed{ 7 }", "\\boxed{17}", "\\boxed{-3}", "\\boxed{7.0}", "7")}
    assert list(kinds.values()) == [
        VerdictKind.CORRECT,
        VerdictKind.CORRECT,
        VerdictKind.WRONG,
        VerdictKind.WRONG,
        VerdictKind.WRONG,
        VerdictKind.NO_ANSWER,
    ]


def test_demonstrations_show_every_reading_alike():
    problem = load_problems("builtin:readings").problems[0]
    expected = {str(readings.evaluate(problem.question, r)) for r in readings.READINGS}
    rng = random.Random(0)
    seen = Counter(readings.boxed_answer(readings.demonstrate(problem, rng)) for _ in range(2000))
    assert set(seen) == expected
    assert all(420 < times < 580 for times in seen.values())


class _First:
    """An rng whose choice is fixed, to read a demonstration under a known reading."""

    def __init__(self, reading):
        self.reading = reading

    def choice(self, options):
        return self.reading


@pytest.mark.parametrize(
    ("reading", "rewrite", "results"),
    [
        ("standard", "@2 3+8-6 @1 1-6 @3 \\boxed{5}", "@2 8 @1 1 @3 \\boxed{5}"),
        ("left", "@1 7*2-6 @2 4-6 @3 \\boxed{8}", "@1 7 @2 4 @3 \\boxed{8}"),
        ("right", "@3 3+4*6 @2 3+4 @1 \\boxed{7}", "@3 6 @2 4 @1 \\boxed{7}"),
        ("sums", "@1 7*2-6 @3 7*6 @2 \\boxed{2}", "@1 7 @3 6 @2 \\boxed{2}"),
    ],
)
def test_the_working_by_hand(reading, rewrite, results):
    problem = load_problems("builtin:readings").problems[0]
    problem = replace(problem, meta={"expression": "3+4*2-6"})
    assert readings.demonstrate(problem, _First(reading)) == results
    assert readings.demonstrate(problem, _First(reading), working="rewrite") == rewrite
    assert (len(tokens(rewrite)), len(tokens(results))) == (14, 8)


def test_ceilings_of_readings():
    assert [readings.oracle_accuracy(k) for k in range(1, 6)] == [0.4, 0.7, 0.9, 1.0, 1.0]
    assert [round(readings.best_independent(k), 2) for k in range(1, 6)] == [0.40, 0.53, 0.65, 0.73, 0.80]
    assert readings.best_independent(2) == pytest.approx(0.9 - 4 / (10 / 4 + 10 / 3 + 10 / 2))  # by hand, the fourth reading left out
    with pytest.raises(ConfigError):
        readings.oracle_accuracy(0)


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda w: sum(w) > 0.01), st.integers(1, 8))
def test_no_distribution_beats_the_best_independent_sampling(weights, k):
    q = [w / sum(weights) for w in weights]
    assert sum(p * (1 - (1 - x) ** k) for p, x in zip(readings.WEIGHTS, q, strict=True)) <= readings.best_independent(k) + 1e-12


# ------------------------------------------------------------------------------------------------------------------ guess


def test_guess_test_split_is_every_number_once():
    assert [p.answer for p in load_problems("builtin:guess?split=test")] == [str(i) for i in range(1, 16)]
    assert [p.answer for p in load_problems("builtin:guess?split=test&low=3&high=5")] == ["3", "4", "5"]
    assert {p.question for p in load_problems("builtin:guess?n=500")} == {"guess 1 15"}
    assert set(Counter(p.answer for p in load_problems("builtin:guess?n=2000"))) == {str(i) for i in range(1, 16)}


def test_guess_in_several_ranges():
    problems = load_problems("builtin:guess?split=test&low=1&high=3&ranges=2&step=20&style=words").problems
    assert [p.answer for p in problems] == ["1", "2", "3", "21", "22", "23"]
    assert len({p.id for p in problems}) == 6
    assert problems[0].question == "I am thinking of a whole number from 1 to 3. Which number is it?"
    assert problems[3].question == "I am thinking of a whole number from 21 to 23. Which number is it?"
    assert [guess.grade(problems[4], f"\\boxed{{{x}}}").fields.get("hint") for x in (21, 22, 23, 2)] == ["higher", None, "lower", "invalid"]
    drawn = load_problems("builtin:guess?split=train&low=1&high=3&ranges=2&step=20&n=600").problems
    counts = Counter((p.question, p.answer) for p in drawn)
    assert set(counts) == {("guess 1 3", x) for x in "123"} | {("guess 21 23", f"2{x}") for x in "123"}
    assert min(counts.values()) > 60, "each about as often"
    assert all(int(x) in range(21, 24) for x in re.findall(r"\d+", " ".join(guess.demonstrate(problems[3], random.Random(i)) for i in range(20))))


@pytest.mark.parametrize("settings", ["ranges=0", "low=1&high=7&ranges=2&step=6"])
def test_guess_ranges_that_overlap_are_refused(settings):
    with pytest.raises(ConfigError, match="at least one range is needed, and a step above"):
        load_problems(f"builtin:guess?{settings}")


def test_guess_hints():
    seven = load_problems("builtin:guess?split=test").problems[6]
    hints = {
        text: (v.kind.value, v.fields.get("hint")) for text in ("3", "15", "0", "16", "x", "7") for v in [guess.grade(seven, f"\\boxed{{{text}}}")]
    }
    assert hints == {
        "3": ("wrong", "higher"),
        "15": ("wrong", "lower"),
        "0": ("wrong", "invalid"),
        "16": ("wrong", "invalid"),
        "x": ("wrong", "invalid"),
        "7": ("correct", None),
    }
    assert guess.grade(seven, "7").fields["hint"] == "invalid"


def test_bisection_on_the_hints_reaches_the_ceiling():
    solved = Counter()
    for problem in load_problems("builtin:guess?split=test"):
        low, high = 1, 15
        for k in range(1, 5):
            middle = (low + high) // 2
            verdict = guess.grade(problem, f"\\boxed{{{middle}}}")
            if verdict.correct:
                solved.update(range(k, 5))
                break
            low, high = (middle + 1, high) if verdict.fields["hint"] == "higher" else (low, middle - 1)
    assert [solved[k] / 15 for k in (1, 2, 3, 4)] == [guess.oracle_accuracy(k) for k in (1, 2, 3, 4)] == [1 / 15, 3 / 15, 7 / 15, 1.0]
    assert [guess.oracle_accuracy(k, feedback="verdict") for k in (1, 4, 15, 20)] == [1 / 15, 4 / 15, 1.0, 1.0]


# ------------------------------------------------------------------------------------------------------------------ codes


def test_codes_test_split_is_every_code_once():
    assert len({p.answer for p in load_problems("builtin:codes?split=test&distinct=0")}) == 216
    assert len({p.answer for p in load_problems("builtin:codes?split=test&distinct=0")}) == 216
    assert len(load_problems("builtin:codes?split=test&pegs=2&colours=4&distinct=0")) == 16
    assert len(load_problems("builtin:codes?split=test&n=50")) == 50
    assert all(len(set(p.answer)) == 3 for p in load_problems("builtin:codes?n=200&distinct=true"))


def test_codes_that_are_held_out_are_never_hidden_in_training():
    size = "pegs=2&colours=4&distinct=0"
    every = {p.answer for p in load_problems(f"builtin:codes?split=test&{size}")}
    train, seen, held_out = ([p.answer for p in load_problems(f"builtin:codes?split={split}&{size}&held_out=4")] for split in ("train", "seen", "test"))
    assert len(seen) == len(set(seen)) == 12 and len(held_out) == len(set(held_out)) == 4
    assert set(train) == set(seen) and set(train) | set(held_out) == every and not set(train) & set(held_out)
    assert len(train) == 20_000 and min(Counter(train).values()) > 1_400  # 1,667 each, on average
    assert [p.answer for p in load_problems(f"builtin:codes?split=seen&{size}&held_out=4&n=3")] == seen[:3]
    assert {len(set(p.answer)) for p in load_problems("builtin:codes?pegs=2&colours=3&held_out=2&n=200")} == {2}, "distinct: no letter twice"
    for wrong in (16, -1):
        with pytest.raises(ConfigError, match=f"held_out={wrong}: give from 0 to 15 of the 16 codes"):
            load_problems(f"builtin:codes?{size}&held_out={wrong}")


def test_without_held_out_codes_all_are_seen():
    every, seen = (load_problems(f"builtin:codes?split={split}&pegs=2&colours=4").problems for split in ("test", "seen"))
    assert [p.answer for p in every] == [p.answer for p in seen]


@pytest.mark.parametrize(
    ("code", "tried", "bulls", "cows"),
    [("ABC", "ABC", 3, 0), ("ABC", "CAB", 0, 3), ("ABC", "ADB", 1, 1), ("AAB", "ACA", 1, 1), ("ABB", "BAA", 0, 2), ("ABC", "DEF", 0, 0)],
)
def test_bulls_and_cows(code, tried, bulls, cows):
    assert codes.bulls_and_cows(code, tried) == (bulls, cows)
    problem = next(p for p in load_problems("builtin:codes?split=test&distinct=0") if p.answer == code)
    verdict = codes.grade(problem, f"\\boxed{{{spaced(tried.lower())}}}")
    assert verdict.fields == {"bulls": str(bulls), "cows": str(cows), "hint": f"{bulls} bulls {cows} cows"}
    assert verdict.correct == (bulls == 3)


@pytest.mark.parametrize("tried", ["AB", "ABCD", "ABG", "123"])
def test_codes_that_are_none(tried):
    problem = load_problems("builtin:codes?split=test").problems[0]
    verdict = codes.grade(problem, f"\\boxed{{{tried}}}")
    assert (verdict.kind, verdict.fields) == (VerdictKind.WRONG, {"bulls": "0", "cows": "0", "hint": "invalid"})


@pytest.mark.parametrize(("distinct", "expected"), [("1", [0.34, 0.88, 0.999]), ("0", [0.205, 0.60, 0.917])])
def test_consistent_guessing_solves_codes_at_the_known_rate(distinct, expected):
    """Guessing at random among the codes that fit every hint so far, at 3, 4 and 5 attempts; means of many runs."""
    rng = random.Random(0)
    every = [p.answer for p in load_problems(f"builtin:codes?split=test&distinct={distinct}")]
    said = {(a, b): codes.bulls_and_cows(a, b) for a in every for b in every}
    solved = Counter()
    for code in every * 4:
        left = every
        for k in range(1, 6):
            tried = rng.choice(left)
            if tried == code:
                solved.update(range(k, 6))
                break
            left = [c for c in left if said[c, tried] == said[code, tried]]
    assert [solved[k] / len(every) / 4 for k in (3, 4, 5)] == pytest.approx(expected, abs=0.05)


# ---------------------------------------------------------------------------------------------------------------- product


def test_product_splits_are_disjoint_as_unordered_pairs():
    pairs = [{frozenset((p.meta["a"], p.meta["b"])) for p in load_problems(f"builtin:product?split={split}")} for split in ("train", "test")]
    assert len(pairs[1]) == 500
    assert not pairs[0] & pairs[1]
    assert [len(part) for part in product.split_pairs()] == [3595, 500]


def test_product_hints():
    problem = load_problems("builtin:product?split=test").problems[0]
    problem = replace(problem, answer="1735")
    fields = [
        product.grade(problem, f"\\boxed{{{a}}}").fields.get("hint")
        for a in ("1735", "1,735", "1 7 3 5", "1725", "2735", "735", "17350", "-1735", "1.5", "x")
    ]
    assert fields == [None, None, None, "digit 3", "digit 1", "length", "length", "invalid", "invalid", "invalid"]


def test_product_demonstrations_are_right_about_half_the_time():
    rng = random.Random(0)
    verdicts = [product.grade(p, product.demonstrate(p, rng)) for p in load_problems("builtin:product?n=1000")]
    assert 420 < sum(v.correct for v in verdicts) < 580
