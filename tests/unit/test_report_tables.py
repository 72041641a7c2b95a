"""Tables and the quickstart's sentences: what is printed is what was measured."""

import io
import json

import pytest
from fake_dialogues import FakePlayer, problem
from rich.console import Console

from mulligan.evaluation import evaluate
from mulligan.report import TextTable, comparison_table, evaluation_table, quickstart_sentences

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
    assert (second["p_k"], second["repeats"], second["missing"], second["cut"], second["tokens"]) == ("37.5", "0.0", "0.0", "0.0", "4")
    assert table.rows[0][table.headers.index("repeats")] == "–"
    assert any("4 samples a problem at temperature 1.0" in note for note in table.notes)
    assert any(note.startswith("Warning: ten: 10 problems are few") for note in table.notes)


def test_figures_read_back_give_the_same_table(ten):
    assert evaluation_table(json.loads(json.dumps(ten.to_json()))) == evaluation_table(ten)


def test_one_pass_and_missing_parts_are_said():
    result = evaluate(FakePlayer(script), PROBLEMS, name="ten", attempts=(1, 3), one_pass=True)
    table = evaluation_table(result)
    assert any(note.startswith("One pass") for note in table.notes)
    assert [row[0] for row in table.rows] == ["1", "2", "3"]  # attempt 2 has rates, though k = 2 was not asked for
    assert table.rows[1][1:4] == ("–", "–", "–")
    assert table.rows[1][4] == "37.5"


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


def test_a_narrow_terminal_gets_intervals_below_their_values(ten):
    narrow = render(evaluation_table(ten), width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    interval = ten.accuracy[2]
    assert "50.0" in narrow
    assert f"{100 * interval.low:.1f}…{100 * interval.high:.1f}" in narrow
    wide = render(evaluation_table(ten), width=150)
    assert evaluation_table(ten).rows[0][1] in wide
    assert evaluation_table(ten).rows[0][1] not in narrow


def test_markup_in_names_stays_text():
    table = TextTable("[red]x[/red]", ("a|b", "c"), (("[bold]1", "p|q"),), ("[link=x]note",), labels=1)
    assert "[red]x[/red]" in render(table)
    assert "[bold]1" in render(table)
    assert "[link=x]note" in render(table)
    assert "| [bold]1 | p\\|q |" in table.to_markdown()
    assert "|---|---:|" in table.to_markdown()


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
        "only that it was wrong did not rise (from 7.0 % to 7.0 %, intervals overlap); at 2 attempts the first is 86.0 points above the second, so what the feedback "
        "says is used, beyond merely drawing again."
    )


def test_sentences_when_nothing_was_shown():
    first, second = quickstart_sentences(summary(arm([0.39, 0.42]), arm([0.39, 0.41]), feedback=(0.07, 0.08)))
    assert "the multi-attempt model did not rise (from 39.0 % to 42.0 %, intervals overlap)" in first
    assert "not clearly different from the single-turn model" in first
    assert "34.0 points below the warm-up model's pass@2 from independent samples (76.0 %)" in first
    assert "not clearly different from the second, so this run does not show that the feedback is used" in second


def test_sentences_when_it_went_wrong():
    first, second = quickstart_sentences(summary(arm([0.39, 0.30]), arm([0.39, 0.60]), feedback=(0.3, 0.07), verdict=(0.3, 0.6)))
    assert "the multi-attempt model fell from 39.0 % to 30.0 % (-9.0 points)" in first
    assert "30.0 points below the single-turn model" in first
    assert "the first is 53.0 points below the second, so the feedback did harm here" in second


def test_sentences_name_its_own_pass_at_k_when_that_is_the_best_rival():
    first, _ = quickstart_sentences(summary(arm([0.39, 0.80], passed=[0.39, 0.79]), arm([0.39, 0.46])))
    assert "not clearly different from its own pass@2 from independent samples (79.0 %, the best of the 2 models')" in first
    with pytest.raises(ValueError, match="multi_attempt: no accuracy"):
        quickstart_sentences(summary(arm([]), arm([0.39, 0.46])))
