"""`evaluate` against dialogues scripted by hand: every figure is known exactly."""

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass, replace

import pyarrow.parquet as pq
import pytest
from fake_dialogues import FakePlayer, problem, rollout
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.errors import ConfigError, DataError, GraderError, RunError
from mulligan.evaluation import Interval, evaluate, num_dialogues, parse_attempts, read_evaluation, write_evaluation
from mulligan.evaluation.attempts import normalise_answer, repeats_of
from mulligan.sampling import SamplingParams
from mulligan.types import Problem


def ends_at(solved_at: int | None, k: int) -> list[str]:
    """Wrong until the attempt that solves it."""
    return ["w"] * k if solved_at is None or solved_at > k else ["w"] * (solved_at - 1) + ["c"]


SOLVED_AT = [1, 1, 2, 2, 2, 3, None, None, None, None]
PROBLEMS = [problem(i) for i in range(10)]


def scripted(i, k, g):
    return ends_at(SOLVED_AT[i], k)


def means(intervals):
    return {k: interval.mean for k, interval in intervals.items()}


# ------------------------------------------------------------------------------------------------------------ the figures


def test_accuracy_for_each_budget_is_its_own_dialogue():
    player = FakePlayer(scripted)
    done = []
    result = evaluate(player, PROBLEMS, name="ten", attempts=(3, 1, 2, 2), seed=5, temperature=0.7, top_p=0.9, on_done=done.append)
    assert means(result.accuracy) == {1: 0.2, 2: 0.5, 3: 0.6}
    assert [(c["step"], c["budget"], c["group_size"], c["seed"], c["stage"]) for c in player.calls] == [(k, k, 1, 5, "eval") for k in (1, 2, 3)]
    assert all(c["params"] == SamplingParams(0.7, 0.9) for c in player.calls)
    assert len(done) == num_dialogues(10, (3, 1, 2, 2), 0) == 30
    assert result.mode == "per_budget"
    assert result.pass_at_k == {}
    assert result.gain == {}
    assert result.tokens_per_sample is None
    assert result.source == "fake:set"


def test_budgets_may_differ_in_what_they_bring():
    # told of one attempt it solves all, told of two none: no dialogue may stand in for another
    result = evaluate(FakePlayer(lambda i, k, g: ["c"] if k == 1 else ["w", "w"]), PROBLEMS, name="odd", attempts=(1, 2))
    assert means(result.accuracy) == {1: 1.0, 2: 0.0}
    one = evaluate(FakePlayer(lambda i, k, g: ["c"] if k == 1 else ["w", "w"]), PROBLEMS, name="odd", attempts=(1, 2), one_pass=True)
    assert means(one.accuracy) == {1: 0.0, 2: 0.0}


def test_one_pass_counts_up_to_k_and_is_named():
    player = FakePlayer(scripted)
    result = evaluate(player, PROBLEMS, name="ten", attempts=(1, 2, 4), one_pass=True)
    assert [c["budget"] for c in player.calls] == [4]
    assert result.mode == result.to_json()["mode"] == "one_pass"
    assert means(result.accuracy) == {1: 0.2, 2: 0.5, 4: 0.6}
    # attempt t has t + 1 tokens: up to attempt 2 a problem costs 2, or 2 + 3
    assert result.tokens_per_problem[1].mean == 2
    assert result.tokens_per_problem[2].mean == pytest.approx((2 * 2 + 8 * 5) / 10)
    assert num_dialogues(10, (1, 2, 4), 6, one_pass=True) == 70


@given(st.lists(st.one_of(st.none(), st.integers(1, 6)), min_size=1, max_size=25), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_one_pass_accuracy_never_falls_with_k(solved_at, largest):
    result = evaluate(
        FakePlayer(lambda i, k, g: ends_at(solved_at[i], k)),
        [problem(i) for i in range(len(solved_at))],
        name="x",
        attempts=range(1, largest + 1),
        one_pass=True,
    )
    curve = [result.accuracy[k].mean for k in range(1, largest + 1)]
    assert all(b >= a for a, b in itertools.pairwise(curve))
    assert curve[-1] == pytest.approx(sum(s is not None and s <= largest for s in solved_at) / len(solved_at))
    reached = [rate.total for rate in result.figures.conditional_success.values()]
    assert reached[0] == len(solved_at)
    assert sum(r.count for r in result.figures.conditional_success.values()) == round(curve[-1] * len(solved_at))
    for t in range(1, largest):
        assert reached[t] == reached[t - 1] - result.figures.conditional_success[t].count


def test_pass_at_k_beside_accuracy():
    correct = [0, 1, 2, 4, 4, 0, 0, 0, 1, 0]  # of 4 samples
    player = FakePlayer(lambda i, k, g: (["c"] if g < correct[i] else ["w"]) if k == 1 and is_samples(player) else scripted(i, k, g))

    def is_samples(p):
        return p.calls[-1]["group_size"] == 4

    result = evaluate(player, PROBLEMS, name="ten", attempts=(1, 2, 3), samples=4, temperatures=(0.8,), seed=1)
    last = player.calls[-1]
    assert (last["budget"], last["group_size"], last["step"], last["params"]) == (1, 4, 0, SamplingParams(0.8, 1.0))
    expected = {k: sum(1 - math.comb(4 - c, k) / math.comb(4, k) for c in correct) / 10 for k in (1, 2, 3)}
    assert means(result.pass_at_k) == pytest.approx(expected)
    assert expected[1] == pytest.approx(0.3)
    assert {k: g.mean for k, g in result.gain.items()} == pytest.approx({k: result.accuracy[k].mean - expected[k] for k in (1, 2, 3)})
    assert result.gain[3].low < result.gain[3].mean < result.gain[3].high
    assert result.tokens_per_sample.mean == 2


def test_pass_at_k_stops_at_the_number_of_samples_and_says_so():
    result = evaluate(FakePlayer(scripted), PROBLEMS, name="ten", attempts=(1, 5), samples=3)
    assert sorted(result.pass_at_k) == [1, 2, 3]
    assert sorted(result.gain) == [1]
    assert any("pass@k stops at k = 3" in w and "draw 5 or more" in w for w in result.warnings)
    assert not any("pass@k stops" in w for w in evaluate(FakePlayer(scripted), PROBLEMS, name="t", attempts=(1, 3), samples=3).warnings)


def test_conditional_success_tokens_and_attempts_used():
    result = evaluate(FakePlayer(scripted), PROBLEMS, name="ten", attempts=(1, 2, 3))
    success = result.figures.conditional_success
    assert {t: (r.count, r.total) for t, r in success.items()} == {1: (2, 10), 2: (3, 8), 3: (1, 5)}
    assert success[2].interval.mean == pytest.approx(3 / 8)
    assert success[2].interval.n == 8
    # tokens by dialogue: solved at 1: 2, at 2: 2 + 3, at 3 or never: 2 + 3 + 4
    assert result.tokens_per_problem[3].mean == pytest.approx((2 * 2 + 3 * 5 + 5 * 9) / 10)
    assert (solved := result.tokens_per_solved[3]) and solved.mean == pytest.approx((2 * 2 + 3 * 5 + 5 * 9) / 6)
    assert solved.low < 8 and 14 < solved.high < 40  # of ten problems: those unsolved cost too, unlike in a mean over the solved
    assert result.attempts_used[3].mean == pytest.approx((2 * 1 + 3 * 2 + 5 * 3) / 10)


def beyond(i, k, g):
    """With as many attempts as training gave, up to three, half are solved at the second attempt; with more all is repeated or missing."""
    return (["w:1", "c"] if i < 5 else ["w:1", "w:2", "t"])[:k] if k <= 3 else ["w:1", "w:1", "n", "n", "w:1"]


def test_rates_by_attempt_are_those_of_the_trained_budget(tmp_path):
    """With two attempts more the model does something else, which accuracy with the trained budget does not speak of."""
    result = evaluate(FakePlayer(beyond), PROBLEMS, name="ten", attempts=(1, 2, 3, 5), trained_attempts=3)
    figures = result.figures
    assert {t: (r.count, r.total) for t, r in figures.conditional_success.items()} == {1: (0, 10), 2: (5, 10), 3: (0, 5)}
    assert (figures.repeats_overall.count, figures.repeats_overall.total) == (0, 10)
    assert (figures.no_answer_overall.count, figures.truncated_overall.count, figures.truncated_overall.total) == (0, 5, 25)
    unsolved = math.prod(1 - r.interval.mean for r in figures.conditional_success.values())
    assert 1 - unsolved == pytest.approx(result.accuracy[3].mean)
    assert result.attempts_budget == 3
    assert {name: list(by_t) for name, by_t in result.values.quantities.items() if name.startswith("attempts:")}["attempts:correct"] == [1, 2, 3]
    write_evaluation(tmp_path, [result], model="m")
    table = read_evaluation(tmp_path)["problem_sets"]["ten"]
    assert (table["trained_attempts"], table["attempts_budget"]) == (3, 3)
    assert table["repeat_rate"]["by_budget"]["5"]["mean"] == 1.0, "what it does beyond training stays to be seen"


def test_rates_of_one_pass_are_those_of_the_first_attempts_up_to_the_trained_budget():
    result = evaluate(FakePlayer(beyond), PROBLEMS, name="ten", attempts=(1, 2, 3, 5), trained_attempts=3, one_pass=True)
    assert {t: r.total for t, r in result.figures.no_answer.items()} == {1: 10, 2: 10, 3: 10}
    assert (result.figures.no_answer_overall.count, result.figures.no_answer_overall.total) == (10, 30)
    assert result.figures.repeats_overall == result.repeats[3]


@pytest.mark.parametrize(("trained", "attempts", "budget"), [(None, (1, 3), 3), (1, (1, 3), 3), (2, (1, 3), 3), (3, (1, 3), 3), (3, (3, 5), 3), (1, (1,), 1)])
def test_the_budget_of_single_figures_is_that_of_training_where_it_was_evaluated(trained, attempts, budget):
    """As in a report's headline: else the largest, and for a model trained with one attempt too."""
    result = evaluate(FakePlayer(scripted), PROBLEMS, name="ten", attempts=attempts, trained_attempts=trained)
    assert result.to_json()["attempts_budget"] == budget
    assert list(result.figures.conditional_success) == list(range(1, budget + 1))


def test_an_attempt_that_nobody_reached_has_no_rate():
    result = evaluate(FakePlayer(lambda i, k, g: ["c"]), PROBLEMS, name="easy", attempts=(1, 2))
    table = result.to_json()["conditional_success"]["2"]
    assert table == {"solved": 0, "reached": 0, "mean": None, "low": None, "high": None, "n": 0}
    none = evaluate(FakePlayer(lambda i, k, g: ["w"] * k), PROBLEMS, name="hard", attempts=(1,))
    assert none.tokens_per_solved == {1: None}
    seldom = evaluate(FakePlayer(lambda i, k, g: ["c"] if i == 0 else ["w"] * k), PROBLEMS, name="seldom", attempts=(1,))
    one = seldom.to_json()["tokens_per_solved"]["1"]
    assert one["mean"] == pytest.approx(20) and one["low"] < 10 and one["high"] is None  # a resample may have none solved
    assert one["n"] == 10
    with pytest.raises(ValueError, match="not JSON compliant"):
        json.dumps(dataclasses.replace(Interval.from_json(one), high=math.nan).to_json(), allow_nan=False)
    assert Interval.from_json(one).high == math.inf


def test_repeats_are_counted_within_each_budget():
    """With two attempts two problems answer again, one of them as before; with three there are two more answers, of which one repeats the first."""
    scripts = [["w:1", "w: 1 ", "w:2"], ["w:1", "n", "w:1"], ["n", "t", "t"], ["w:5", "c"]]
    for one_pass in (False, True):
        result = evaluate(FakePlayer(lambda i, k, g: scripts[i][:k]), PROBLEMS[:4], name="four", attempts=(1, 2, 3), one_pass=one_pass)
        assert {k: (r.count, r.total) for k, r in result.repeats.items()} == {2: (1, 2), 3: (2, 4)}
        assert result.values.quantities["again:repeated"][3].tolist() == [1, 1, 0, 0]
        assert result.values.quantities["again:answered"][3].tolist() == [2, 1, 0, 1]
        assert result.to_json()["repeat_rate"]["by_budget"]["3"]["mean"] == 0.5


def test_repeats_missing_and_truncated():
    scripts = [["w:1", "w: 1 ", "w:2"], ["w:1", "n", "w:1"], ["n", "t", "t"], ["w:5", "c"]]
    result = evaluate(FakePlayer(lambda i, k, g: scripts[i]), PROBLEMS[:4], name="four", attempts=(3,))
    figures = result.figures
    # answers given at attempt 2: "1" (again), "7"; at attempt 3: "2", "1" (again)
    assert {t: (r.count, r.total) for t, r in figures.repeats.items()} == {2: (1, 2), 3: (1, 2)}
    assert (figures.repeats_overall.count, figures.repeats_overall.total) == (2, 4)
    assert {t: (r.count, r.total) for t, r in figures.no_answer.items()} == {1: (1, 4), 2: (1, 4), 3: (0, 3)}
    assert {t: (r.count, r.total) for t, r in figures.truncated.items()} == {1: (0, 4), 2: (1, 4), 3: (1, 3)}
    assert (figures.no_answer_overall.count, figures.truncated_overall.count, figures.truncated_overall.total) == (2, 2, 11)


def test_repeats_compare_normalised_answers():
    assert repeats_of(rollout(problem(0), ["w:\\frac{1}{2}", "w:$\\frac{1} {2}$", "w:\\frac{1}{2}.", "w:\\frac13", "c"]).attempts) == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert repeats_of(rollout(problem(0), ["n", "t", "n"]).attempts) == [False, False, False]
    assert normalise_answer("\\left( 3, \\, 4 \\right)") == "(3,4)"
    assert normalise_answer("\\leftarrow") == "\\leftarrow"
    assert normalise_answer("A") != normalise_answer("a")
    assert normalise_answer(".") == "."
    assert normalise_answer(" x  +\n1 . ") == normalise_answer("$x+1$") == "x+1"
    assert normalise_answer("1 23") != normalise_answer("12 3")
    assert normalise_answer(" red \n blue") == normalise_answer("red blue") == "red blue"


def test_ungradable_dialogues_are_left_out_and_counted():
    scripts = [["c"], ["w", "c"], ["w", "u"], ["u"]]
    result = evaluate(FakePlayer(lambda i, k, g: scripts[i][:k]), PROBLEMS[:4], name="four", attempts=(1, 2))
    assert (result.accuracy[1].mean, result.accuracy[1].n) == (pytest.approx(1 / 3), 3)
    assert (result.accuracy[2].mean, result.accuracy[2].n) == (1.0, 2)
    assert result.ungradable == {"1": 1, "2": 2, "samples": 0}
    assert any("3 dialogues could not be graded" in w for w in result.warnings)
    assert {t: (r.count, r.total) for t, r in result.figures.conditional_success.items()} == {1: (1, 3), 2: (1, 1)}
    one = evaluate(FakePlayer(lambda i, k, g: scripts[i]), PROBLEMS[:4], name="four", attempts=(1, 2), one_pass=True)
    assert (one.accuracy[1].n, one.accuracy[2].n) == (3, 2)
    assert one.ungradable == {"2": 2, "samples": 0}


def test_ungradable_samples_shrink_n_of_their_problem():
    def script(i, k, g):
        return ["u"] if i == 0 and g < 2 else ["c"] if g == 2 else ["w"]

    result = evaluate(FakePlayer(script), PROBLEMS[1:3], name="two", attempts=(1,), samples=3)
    assert result.pass_at_k[1].mean == pytest.approx((1 / 1 + 1 / 3) / 2)
    more = evaluate(FakePlayer(lambda i, k, g: script(i, 1, g) if k == 1 else ["w", "w"]), PROBLEMS[:2], name="two", attempts=(2,), samples=3)
    assert more.pass_at_k[2].n == 1
    assert more.pass_at_k[2].mean == pytest.approx(2 / 3)


def test_broken_dialogues_count_as_unsolved():
    result = evaluate(FakePlayer(lambda i, k, g: [] if i == 0 else ["c"], errors=[0]), PROBLEMS[:4], name="four", attempts=(1,))
    assert (result.accuracy[1].mean, result.accuracy[1].n) == (0.75, 4)
    assert result.errors["1"] == 1
    assert any("1 dialogue broke and counts as unsolved" in w for w in result.warnings)


def test_dialogues_that_the_token_cap_ended_are_warned_of():
    class Short(FakePlayer):
        """Ends every unsolved dialogue of more than two attempts after the second."""

        def play(self, *arguments, **more):
            groups = super().play(*arguments, **more)
            cut = [replace(r, attempts=r.attempts[:2], rewards=r.rewards[:2], cut=True) if len(r.attempts) > 2 else r for g in groups for r in g.rollouts]
            return [replace(g, rollouts=(r,)) for g, r in zip(groups, cut, strict=True)]

    result = evaluate(Short(scripted), PROBLEMS, name="ten", attempts=(1, 3))
    assert dict(result.starved) == {"1": 0, "3": 5, "samples": 0}
    assert result.accuracy[3].mean == 0.5
    assert any("5 dialogues were ended by the token cap with attempts left and count as unsolved" in w for w in result.warnings)
    assert result.to_json()["starved"]["3"] == 5


def test_answers_that_a_cap_cut_are_warned_of():
    """Else a model that was given no room looks like one that knows nothing."""
    hundred = [problem(i) for i in range(100)]

    def warned(share: int) -> list[str]:
        return [w for w in evaluate(FakePlayer(lambda i, k, g: ["t"] if i < share else ["c"]), hundred, name="x", attempts=(1,)).warnings if "cut" in w]

    assert warned(51) == ["x: most attempts were cut by a token cap before they gave an answer: raise protocol.max_attempt_tokens, or ask for the answer's format (protocol.system)"]
    assert warned(50) == []


def test_small_sets_are_warned_of():
    few = evaluate(FakePlayer(lambda i, k, g: ["c"] if i % 2 else ["w"]), [problem(i) for i in range(30)], name="AIME", attempts=(1,))
    width = round(100 * few.accuracy[1].width)
    assert few.warnings[0].startswith("AIME: 30 problems are few")
    assert f"{width} points wide" in few.warnings[0]
    assert 30 <= width <= 40
    assert evaluate(FakePlayer(lambda i, k, g: ["c"] if i % 2 else ["w"]), [problem(i) for i in range(100)], name="x", attempts=(1,)).warnings == ()


def test_a_problem_set_brings_source_and_set_aside():
    @dataclass(frozen=True)
    class Loaded:
        problems: tuple[Problem, ...]
        source: str
        set_aside: tuple[Problem, ...]

    result = evaluate(FakePlayer(scripted), Loaded(tuple(PROBLEMS), "file.jsonl", (problem(98), problem(99))), name="s", attempts=(1,))
    table = result.to_json()
    assert (table["source"], table["problems"], table["set_aside"]) == ("file.jsonl", 10, 2)
    with pytest.raises(DataError, match="2 were set aside"):
        evaluate(FakePlayer(scripted), Loaded((), "file.jsonl", (problem(98), problem(99))), name="s", attempts=(1,))


def test_bad_settings_are_all_named_before_anything_is_played():
    player = FakePlayer(scripted)
    with pytest.raises(ConfigError) as caught:
        evaluate(player, PROBLEMS, name="x", attempts=(0, 1), samples=4, temperatures=(0.0,), temperature=-1, top_p=0.0)
    assert len(caught.value.faults) == 4
    assert "temperatures" in str(caught.value)
    with pytest.raises(ConfigError, match="no number of attempts"):
        evaluate(player, PROBLEMS, name="x", attempts=(), samples=-1)
    with pytest.raises(DataError, match="no problems"):
        evaluate(player, [], name="x", attempts=(1,))
    assert player.calls == []
    player = FakePlayer(lambda i, k, g: ["u"])
    with pytest.raises(GraderError, match="accuracy with 1 attempts"):
        evaluate(player, PROBLEMS, name="x", attempts=(1, 2), samples=8, controls=("history_blind",))
    assert len(player.calls) == 1, "nothing more is played once it is known"


# ------------------------------------------------------------------------------------------------------------ attempts text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1-7", (1, 2, 3, 4, 5, 6, 7)), ("1,2,5", (1, 2, 5)), ("3", (3,)), (" 5, 1 - 3 ,2", (1, 2, 3, 5)), ("4-4", (4,)), ("1000", (1000,))],
)
def test_parse_attempts(text, expected):
    assert parse_attempts(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "start at 1"),
        ("0-3", "start at 1"),
        ("5-2", "write '2-5'"),
        ("two", "not a list"),
        ("1,,2", "not a list"),
        ("", "not a list"),
        ("1.5", "not a list"),
        ("-3", "not a list"),
        ("²", "not a list"),
        ("1-1001", "at most 1000"),
    ],
)
def test_parse_attempts_names_the_fault(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_attempts(text)
    assert repr(text) in str(caught.value)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_parse_attempts_reads_any_list(numbers):
    assert parse_attempts(",".join(map(str, numbers))) == tuple(sorted(set(numbers)))


# ------------------------------------------------------------------------------------------------------------ on disk


def test_eval_json_and_dialogues_on_disk(tmp_path):
    result = evaluate(FakePlayer(scripted), PROBLEMS, name="ten", attempts=(1, 2), samples=3, seed=9)
    path = write_evaluation(tmp_path / "out", [result], model="tiny")
    table = json.loads(path.read_text())
    assert path.name == "eval.json"
    assert list(table) == ["model", "version", "seed", "settings", "problem_sets"]
    assert (table["model"], table["seed"]) == ("tiny", 9)
    entry = table["problem_sets"]["ten"]
    assert entry["accuracy"]["2"] == {"mean": 0.5, "low": result.accuracy[2].low, "high": result.accuracy[2].high, "n": 10}
    assert set(entry["accuracy"]["1"]) == set(entry["pass_at_k"]["1"]) == {"mean", "low", "high", "n"}
    assert sorted(entry["pass_at_k"]) == ["1", "2"]
    assert entry["samples"] == 3
    assert read_evaluation(tmp_path / "out") == table == read_evaluation(path)
    rows = pq.read_table(tmp_path / "out" / "dialogues.parquet").to_pylist()
    assert len(rows) == 10 + 10 + 30
    assert {(r["stage"], r["k"], r["step"]) for r in rows} == {("attempts", 1, 1), ("attempts", 2, 2), ("samples", 1, 0)}
    assert sum(r["solved"] for r in rows if (r["stage"], r["k"]) == ("attempts", 2)) == 5
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dialogues.parquet", "eval.json", "values.parquet"]


def test_eval_json_rejects_what_it_cannot_hold(tmp_path):
    a = evaluate(FakePlayer(scripted), PROBLEMS, name="ten", attempts=(1,))
    b = evaluate(FakePlayer(scripted), PROBLEMS, name="other", attempts=(1,), seed=1)
    with pytest.raises(ConfigError, match="'ten' was given twice"):
        write_evaluation(tmp_path / "a", [a, a], model="m")
    with pytest.raises(ConfigError, match="different seeds"):
        write_evaluation(tmp_path / "a", [a, b], model="m")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        write_evaluation(tmp_path / "file", [a], model="m")


def test_read_evaluation_says_what_is_wrong(tmp_path):
    with pytest.raises(RunError, match="no such file"):
        read_evaluation(tmp_path)
    (tmp_path / "eval.json").write_text("{")
    with pytest.raises(RunError, match="not readable as JSON"):
        read_evaluation(tmp_path)
    (tmp_path / "eval.json").write_text("[]")
    with pytest.raises(RunError, match=r"not an eval\.json"):
        read_evaluation(tmp_path)
    for number in ("NaN", "-Infinity", "1e999"):
        (tmp_path / "eval.json").write_text(f'{{"problem_sets": {{"s": {{"accuracy": {{"1": {{"mean": {number}}}}}}}}}}}')
        with pytest.raises(RunError, match=rf"eval\.json: not readable as JSON \({number} is no finite number\)"):
            read_evaluation(tmp_path)
