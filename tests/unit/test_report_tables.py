"""Tables and the quickstart's sentences: what is printed is what was measured."""

import dataclasses
import io
import json

import numpy as np
import pytest
from fake_dialogues import FakePlayer, problem
from rich.console import Console

from mulligan.evaluation import evaluate, read_rivals, write_evaluation
from mulligan.evaluation.values import ProblemValues
from mulligan.report import (
    TextTable,
    attempts_table,
    comparison_table,
    controls_table,
    equal_tokens_table,
    evaluation_table,
    evaluation_tables,
    quickstart_sentences,
    references_table,
)
from mulligan.report.summary import paired_differences

SOLVED_AT = [1, 1, 2, 2, 2, 3, None, None, None, None]
PROBLEMS = [problem(i) for i in range(10)]


def script(i, k, g):
    return ["w"] * k if SOLVED_AT[i] is None or SOLVED_AT[i] > k else ["w"] * (SOLVED_AT[i] - 1) + ["c"]


@pytest.fixture(scope="module")
def ten():
    return evaluate(FakePlayer(script), PROBLEMS, name="ten", attempts=(1, 2, 3), samples=4)


def render(table: TextTable, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def test_one_row_per_k(ten):
    table = evaluation_table(ten)
    assert table.title == "ten (10 problems)"
    assert [row[0] for row in table.rows] == ["1", "2", "3"]
    second = dict(zip(table.headers, table.rows[1], strict=True))
    a, g = ten.accuracy[2], ten.gain[2]
    assert second["accuracy"] == f"50.0 [{100 * a.low:.1f}, {100 * a.high:.1f}]"
    assert second["gain"] == f"+30.0 [{100 * g.low:+.1f}, {100 * g.high:+.1f}]".replace("+0.0,", "0.0,")
    assert second["repeats"].startswith("0.0 [0.0, ") and second["tokens"].startswith("4.4 [")
    assert table.rows[0][table.headers.index("repeats")] == "–"
    assert any("4 samples a problem at temperature 1.0" in note for note in table.notes)
    assert any(note.startswith("Warning: ten: 10 problems are few") for note in table.notes)


def test_figures_read_back_give_the_same_table(ten):
    for table in (evaluation_table, attempts_table):
        assert table(json.loads(json.dumps(ten.to_json()))) == table(ten)


def test_one_row_per_attempt_with_intervals(ten):
    """Of ten problems two are solved at once, of the eight left three, of the five left one."""
    table = attempts_table(ten)
    assert [row[0] for row in table.rows] == ["1", "2", "3"]
    assert [row[1].split(" [")[0] for row in table.rows] == ["20.0", "37.5", "20.0"]
    rate = ten.figures.conditional_success[2].interval
    assert table.rows[1][1] == f"37.5 [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    assert table.rows[0][2] == "–", "nothing can be repeated yet"
    assert all(cell.startswith("0.0 [0.0, ") for cell in table.rows[1][2:])


def test_the_table_of_attempts_says_which_dialogues_it_is_of(ten):
    trained = evaluate(FakePlayer(script), PROBLEMS, name="ten", attempts=(1, 2, 3), trained_attempts=2)
    assert [row[0] for row in attempts_table(trained).rows] == ["1", "2"]
    assert "out of the dialogues with 2 attempts. " in attempts_table(trained).notes[0]
    one_pass = evaluate(FakePlayer(script), PROBLEMS, name="ten", attempts=(1, 2, 3), trained_attempts=2, one_pass=True)
    assert "out of the first 2 attempts of each dialogue. " in attempts_table(one_pass).notes[0]
    earlier = {key: value for key, value in ten.to_json().items() if key != "attempts_budget"}
    assert "out of the dialogues with the largest budget. " in attempts_table(earlier).notes[0]


def test_one_pass_and_missing_parts_are_said():
    result = evaluate(FakePlayer(script), PROBLEMS, name="ten", attempts=(1, 3), one_pass=True)
    table = evaluation_table(result)
    assert any(note.startswith("One pass") for note in table.notes)
    assert [row[0] for row in table.rows] == ["1", "3"]
    assert [row[0] for row in attempts_table(result).rows] == ["1", "2", "3"]  # attempt 2 has rates, though k = 2 was not asked for


def test_rich_and_markdown_hold_every_cell(ten):
    table = evaluation_table(ten)
    shown, markdown = render(table), table.to_markdown()
    for row in table.rows:
        for cell in row:
            assert cell in shown
            assert cell in markdown
    lines = markdown.splitlines()
    assert lines[0] == "**ten (10 problems)**"
    assert lines[3].count("---:") == len(table.headers)
    assert all(line.count("|") == len(table.headers) + 1 for line in lines[2:7] if line.startswith("|"))


def test_tokens_per_solved_problem_are_told_and_the_gain_over_the_best_sampler(ten):
    table = {**ten.to_json(), "ceilings": {"best possible": {"2": 0.9}, "best independent sampling": {"2": 0.4}, "best fixed list of answers": {"2": 0.3}, "best sampling blind to the question": {"2": 0.2}}}
    (note,) = [n for n in evaluation_table(table).notes if n.startswith("Tokens per solved problem: ")]
    assert note.count("(k = ") == note.count(" [") == sum(v is not None for v in ten.tokens_per_solved.values()) > 0
    earlier = {**table, "tokens_per_solved": {"1": 6.5, "2": None}}  # of before there were intervals
    assert "Tokens per solved problem: 6.5 (k = 1)." in evaluation_table(earlier).notes
    rows = references_table(table).rows
    at = [row[0] for row in rows].index("best independent sampling")
    assert rows[at + 1][0] == "gain over it (points)" and rows[at + 1][1] == "–"
    assert rows[at + 1][2].startswith("+10.0 [")  # 50 % - 40 %
    assert [row[0] for row in rows[at + 2 :]] == ["best fixed list of answers", "best sampling blind to the question", "gain over it (points)"]
    assert rows[-1][2].startswith("+30.0 [")


def test_a_narrow_terminal_gets_intervals_below_their_values(ten):
    narrow = render(evaluation_table(ten), width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    interval = ten.accuracy[2]
    assert "50.0" in narrow
    assert f"{100 * interval.low:.1f}…{100 * interval.high:.1f}" in narrow
    wide = render(evaluation_table(ten), width=150)
    assert evaluation_table(ten).rows[0][1] in wide
    assert evaluation_table(ten).rows[0][1] not in narrow


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_figure_is_cut_in_two_by_a_narrow_terminal(width: int):
    rows = tuple((f"an arm with a long name, {i}", *(f"-{i}{k}.5 [-20.5, -0.5]" for k in range(1, 8))) for i in range(2))
    text = render(TextTable("much", ("arm", *(f"k = {k}" for k in range(1, 8))), rows, labels=1), width=width)
    assert max(map(len, text.splitlines())) <= width
    for i in range(2):
        for k in range(1, 8):
            assert f"-{i}{k}.5" in text.split()
    assert text.split().count("-20.5…-0.5") == 14
    assert text.count("much") == 1


def test_what_would_act_on_a_terminal_is_shown_in_tables():
    text = render(TextTable("a\x1b[31m", ("\u202eb",), (("c\x07" + 30 * "-",),), ("d\x9b",)))
    assert all(shown in text for shown in ("a⟨U+001B⟩[31m", "⟨U+202E⟩b", "c⟨U+0007⟩", "d⟨U+009B⟩"))
    assert not {*text} & {*"\x1b\u202e\x07\x9b"}


def test_markup_in_names_stays_text():
    table = TextTable("[red]x[/red]", ("a|b", "c"), (("[bold]1", "p|q"),), ("[link=x]note",), labels=1)
    assert "[red]x[/red]" in render(table)
    assert "[bold]1" in render(table)
    assert "[link=x]note" in render(table)
    assert "| [bold]1 | p\\|q |" in table.to_markdown()
    assert "|---|---:|" in table.to_markdown()


def test_markdown_shows_every_name_on_its_line():
    """What looks like a tag is not taken for one, and what would end the line, or act, is shown."""
    text = TextTable("<a>\nb", ("c",), (("<untrained>\r\u202eno\u2028",),), ("<i>",), labels=1).to_markdown()
    assert text.splitlines()[0] == "**\\<a> b**"
    assert "| \\<untrained>⟨U+000D⟩⟨U+202E⟩no⟨U+2028⟩ |" in text
    assert text.endswith("\n\\<i>\n")


def test_comparison_has_a_row_per_arm(ten):
    flat = evaluate(FakePlayer(lambda i, k, g: ["c"] if i < 2 else ["w"] * k), PROBLEMS, name="ten", attempts=(1, 2))
    table = comparison_table({"multi": ten, "single": flat}, title="arms", bounds={"best": {1: 0.4, 2: 0.7}}, with_pass=True)
    assert table.headers == ("", "k = 1", "k = 2", "k = 3")
    assert [row[0] for row in table.rows] == ["multi", "multi: pass@k", "single", "best"]
    assert table.rows[0][2].startswith("50.0 [")
    assert table.rows[2][2].startswith("20.0 [")
    assert table.rows[2][3] == "–"
    assert table.rows[3] == ("best", "40.0", "70.0", "–")
    gains = comparison_table({"multi": ten}, title="gain", quantity="gain")
    assert gains.rows[0][2].startswith("+30.0 [")
    assert "points" in gains.notes[0]
    tokens = comparison_table({"multi": ten}, title="cost", quantity="tokens_per_problem")
    assert tokens.rows[0][1].startswith("2 [")
    assert "| multi |" in table.to_markdown()




# --------------------------------------------------------------------------------------------------- tables beside the first


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    many = [problem(i) for i in range(200)]
    solved = [SOLVED_AT[i % 10] for i in range(200)]
    folder = tmp_path_factory.mktemp("rival")

    def dialogue(i, k, g):
        return ["w"] * k if solved[i] is None or solved[i] > k else ["w"] * (solved[i] - 1) + ["c"]

    rival = evaluate(FakePlayer(lambda i, k, g: ["c"] if g == 0 else ["w"]), many, name="many", attempts=(1, 2, 3), samples=12)
    write_evaluation(folder, [rival], model="r")
    conditions = {"history_blind": lambda i, k, g: dialogue(i, k, g) if i % 2 else ["c"] if solved[i] == 1 else ["w"] * k, "false_wrong": lambda i, k, g: ["c", "w", "c"][:k]}
    return evaluate(
        FakePlayer(dialogue, conditions=conditions),
        many,
        name="many",
        attempts=(1, 2, 3),
        samples=12,
        temperatures=(0.6, 1.0),
        controls=("history_blind", "false_wrong"),
        trained_attempts=2,
        ceilings={"best possible": {1: 0.25, 3: 0.75}},
        rivals=read_rivals([f"warm-up={folder}"]),
    )


def test_all_tables_of_an_evaluation(full, ten):
    assert [table.title for table in evaluation_tables(full)] == ["many (200 problems)", "attempt by attempt", "at equal tokens", "controls", "beside"]
    assert [table.title for table in evaluation_tables(ten)] == ["ten (10 problems)", "attempt by attempt", "at equal tokens"]
    plain = evaluate(FakePlayer(script), PROBLEMS, name="ten", attempts=(1,))
    assert [table.title for table in evaluation_tables(plain)] == ["ten (10 problems)", "attempt by attempt"]
    assert evaluation_tables(json.loads(json.dumps(full.to_json()))) == evaluation_tables(full)


def test_the_notes_say_how_and_what_it_can_show(full):
    notes = evaluation_table(full).notes
    assert "Trained with up to 2 attempts: k = 3 is beyond training." in notes
    assert any("12 samples a problem at each of temperatures 0.6, 1.0, taken at the best on the other half of the problems (for k = 3: 1.0 and 1.0)" in n for n in notes)
    power = full.power
    expected = f"this set shows paired differences from {100 * power.detectable:.1f} points on (80 % power, 5 % level); it takes {power.problems_for[3]:,} for 3 points and {power.problems_for[5]:,} for 5 points."
    gain = full.gain_power
    of_gain = f"Power of the gain: by the spread between accuracy and pass@2 here, this set shows gains from {100 * gain.detectable:.1f} points on; it takes {gain.problems_for[3]:,} for 3 points and {gain.problems_for[5]:,} for 5 points."
    assert any(n.startswith("Power: by the spread between 1 and 2 attempts here") and n.endswith(expected) for n in notes)
    assert of_gain in notes
    without_first = evaluation_table(evaluate(FakePlayer(lambda i, k, g: ["c"] if (i % 2 and g % 3 == 0) or i % 5 == 0 else ["w"] * k), PROBLEMS, name="t", attempts=(2, 3), samples=12)).notes
    assert any(n.startswith("Power of the gain: by the spread between accuracy and pass@3 here") for n in without_first)
    flat = evaluate(FakePlayer(lambda i, k, g: ["c"] if i % 2 == g % 2 else ["w"] * k), PROBLEMS, name="t", attempts=(1, 2), samples=4)
    assumed, gain = (n for n in evaluation_table(flat).notes if n.startswith("Power"))
    assert assumed.startswith("Power: between 1 and 2 attempts the problems do not differ here") and gain.startswith("Power of the gain")
    # 2.80 * 0.5 / sqrt(10), (2.80 * 0.5 / 0.03)^2 and (2.80 * 0.5 / 0.05)^2
    assert "from 44.3 points on" in assumed and assumed.endswith("it takes 2,181 for 3 points and 785 for 5 points.")
    assert not any("beyond training" in n or n.startswith("Power") for n in evaluation_table(evaluate(FakePlayer(script), PROBLEMS, name="t", attempts=(1,))).notes)


def test_the_table_at_equal_tokens(full):
    table = equal_tokens_table(full)
    equal = full.equal_tokens[2]
    row = dict(zip(table.headers, table.rows[1], strict=True))
    assert row["k"] == "2"
    assert row["tokens"] == f"{equal.tokens:.1f}" == f"{full.tokens_per_problem[2].mean:.1f}"
    assert row["samples"] == f"{equal.samples:.2f}"
    assert row["accuracy"] == evaluation_table(full).rows[1][1]
    assert row["gain"].startswith(f"{100 * equal.gain.mean:+.1f} [")


def test_the_table_of_controls(full):
    table = controls_table(full)
    assert table.headers == ("", "k = 1", "k = 2", "k = 3", "gain kept")
    (row,) = table.rows
    assert row[0] == "history blind"
    assert row[1].startswith("0.0 [")
    assert row[2].startswith("-20.0 [")  # of 10 problems, 2 and 4 are solved at the second attempt and lost under the control
    assert row[4].startswith("33.3 [")
    assert table.notes[-1].startswith('Told "wrong" after a right answer (200 of them within 2 attempts): 0.0 [')


def test_what_became_of_right_answers_that_were_called_wrong():
    told = {"false_wrong": lambda i, k, g: ["c", "w", "c"][:k]}
    result = evaluate(FakePlayer(script, conditions=told), PROBLEMS, name="ten", attempts=(1, 2, 3), controls=("false_wrong",))
    (note,) = controls_table(result).notes
    assert note.startswith('Told "wrong" after a right answer (10 of them within 3 attempts): 0.0 [')
    assert "100.0 [" in note
    earlier = {key: value for key, value in result.to_json().items() if key != "attempts_budget"}
    assert "(10 of them): 0.0 [" in controls_table(earlier).notes[0]


def test_the_table_of_what_stands_beside(full):
    table = references_table(full)
    assert [row[0] for row in table.rows] == ["accuracy", "warm-up: pass@k", "gain over it (points)", "best possible"]
    assert table.rows[1][1].startswith("8.3 [")
    assert table.rows[2][1].startswith("+11.7 [")
    assert table.rows[3] == ("best possible", "25.0", "–", "75.0")


# ------------------------------------------------------------------------------------------------------------ sentences


def arm(means, half=0.02, passed=None):
    def curve(values):
        return {str(k): {"mean": v, "low": v - half, "high": v + half, "n": 1500} for k, v in enumerate(values, 1)}

    return {"accuracy": curve(means), "pass_at_k": curve(passed or [])}


def summary(multi, single, feedback=(0.07, 0.93), verdict=(0.07, 0.07)):
    return {"readings": {"multi_attempt": multi, "single_turn": single, "warm_up": arm([0.25, 0.4], passed=[0.25, 0.76])},
            "guess": {"feedback": arm(feedback), "verdict_only": arm(verdict)}, "seconds": 1.0}  # fmt: skip


def test_sentences_when_it_worked():
    first, second = quickstart_sentences(summary(arm([0.39, 0.99], passed=[0.36, 0.67]), arm([0.39, 0.46], passed=[0.385, 0.465])))
    assert first == (
        "readings (trying again): with 2 attempts instead of 1, the multi-attempt model rose from 39.0 % to 99.0 % (+60.0 points), the single-turn model rose "
        "from 39.0 % to 46.0 % (+7.0 points); at 2 attempts the multi-attempt model is 53.0 points above the single-turn model and 23.0 points above the warm-up "
        "model's pass@2 from independent samples (76.0 %, the best of the 3 models')."
    )
    assert second == (
        'guess (learning from feedback): with 2 attempts instead of 1, the model told "higher" or "lower" rose from 7.0 % to 93.0 % (+86.0 points), the model told '
        "only that it was wrong did not clearly rise (from 7.0 % to 7.0 %, intervals overlap); at 2 attempts the first is 86.0 points above the second, so what the feedback "
        "says is used, beyond merely drawing again."
    )


def test_sentences_when_nothing_was_shown():
    first, second = quickstart_sentences(summary(arm([0.39, 0.42]), arm([0.39, 0.41]), feedback=(0.07, 0.08)))
    assert "the multi-attempt model did not clearly rise (from 39.0 % to 42.0 %, intervals overlap)" in first
    assert "not clearly different from the single-turn model" in first
    assert "34.0 points below the warm-up model's pass@2 from independent samples (76.0 %)" in first
    assert "not clearly different from the second, so this run does not show that the feedback is used" in second


def test_sentences_when_it_went_wrong():
    first, second = quickstart_sentences(summary(arm([0.39, 0.30]), arm([0.39, 0.60]), feedback=(0.3, 0.07), verdict=(0.3, 0.6)))
    assert "the multi-attempt model fell from 39.0 % to 30.0 % (-9.0 points)" in first
    assert "30.0 points below the single-turn model" in first
    assert "the first is 53.0 points below the second, so the feedback did harm here" in second


def test_sentences_go_by_paired_differences_where_they_are_known():
    """Intervals that overlap may hide a difference that every problem shows; and one that is known brings its interval."""

    def values(solved, passed=None):
        quantities = {"solved": {k: np.array(v, dtype=float) for k, v in solved.items()}}
        return ProblemValues(tuple(f"p{i}" for i in range(40)), quantities | ({"passed": {k: np.array(v) for k, v in passed.items()}} if passed else {}))

    some, more, most = [1] * 10 + [0] * 30, [1] * 22 + [0] * 18, [1] * 30 + [0] * 10
    multi = values({1: some, 2: most}, {1: [0.25] * 40, 2: [0.5] * 40})
    single = values({1: some, 2: some}, {1: [0.25] * 40, 2: [0.3] * 40})
    readings = paired_differences({"multi_attempt": multi, "single_turn": single, "warm_up": values({1: some, 2: more}, {1: [0.4] * 40, 2: [0.75] * 40})}, "multi_attempt")
    reversed_ids = dataclasses.replace(values({1: some, 2: more[::-1]}), problem_ids=tuple(f"p{i}" for i in range(39, -1, -1)))
    guess = paired_differences({"feedback": multi, "verdict_only": reversed_ids}, "feedback")
    assert {name: one["mean"] for name, one in readings["rises"].items()} == {"multi_attempt": 0.5, "single_turn": 0.0, "warm_up": pytest.approx(0.3)}
    assert {name: one["mean"] for name, one in readings["over_pass"].items()} == {"multi_attempt": 0.25, "single_turn": pytest.approx(0.45), "warm_up": 0.0}
    assert guess["over"]["verdict_only"]["mean"] == pytest.approx(0.2), "problem by problem, in whatever order"

    told = summary(arm([0.25, 0.75], 0.15, [0.25, 0.5]), arm([0.25, 0.25], 0.15, [0.25, 0.3]), (0.25, 0.75), (0.25, 0.55)) | {"paired": {"readings": readings, "guess": guess}}
    told["guess"] = {"feedback": arm((0.25, 0.75), 0.15), "verdict_only": arm((0.25, 0.55), 0.15)}
    told["readings"]["warm_up"] = arm((0.25, 0.55), 0.15, (0.4, 0.75))
    first, second = quickstart_sentences(told)
    assert "rose from 25.0 % to 75.0 % (+50.0 points [+35.0, +65.0])" in first
    assert "the single-turn model did not clearly rise (from 25.0 % to 25.0 %: 0.0 points [" in first
    assert "is 50.0 points [35.0, 65.0] above the single-turn model and not clearly different (0.0 points [" in first
    assert "the first is 20.0 points [" in second and "] above the second, so what the feedback says is used" in second
    turned = {"guess": {"over": {"verdict_only": {"mean": -0.2, "low": -0.3, "high": -0.1, "n": 40}}}}
    assert "20.0 points [10.0, 30.0] below the second, so the feedback did harm here" in quickstart_sentences(told | {"guess": {"feedback": arm((0.25, 0.55)), "verdict_only": arm((0.25, 0.75))}, "paired": turned})[1]


def test_sentences_name_its_own_pass_at_k_when_that_is_the_best_rival():
    first, _ = quickstart_sentences(summary(arm([0.39, 0.80], passed=[0.39, 0.79]), arm([0.39, 0.46])))
    assert "not clearly different from its own pass@2 from independent samples (79.0 %, the best of the 2 models')" in first
    with pytest.raises(ValueError, match="multi_attempt: no accuracy"):
        quickstart_sentences(summary(arm([]), arm([0.39, 0.46])))
