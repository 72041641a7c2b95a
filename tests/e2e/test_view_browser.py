"""The viewer in a real browser: filters, tokens, following a problem, links, keys, print, many dialogues."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import READY, OpenedPage, opened
from made_dialogues import FEEDBACK, RIGHT, SYSTEM, WRONG, play, problem, table_of, write_many, write_run
from tiny_runs import tiny

from mulligan.cli import main
from mulligan.display import Display
from mulligan.report.view import write_view
from mulligan.train import train
from mulligan.transcripts import read_rollouts, write_table
from mulligan.types import Outcome


@pytest.fixture(scope="module", autouse=True)
def trained(tmp_path_factory) -> Path:
    """A real run; made before the browser opens."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "tiny", display=Display(quiet=True))


@pytest.fixture(scope="module")
def made(chat, tmp_path_factory) -> tuple[Path, Path]:
    """A run made by hand, and its page."""
    folder = tmp_path_factory.mktemp("made")
    run = write_run(folder / "made", chat)
    write_view(run, folder / "view.html")
    return run, folder / "view.html"


@pytest.fixture
def view(chromium, made) -> Iterator[OpenedPage]:
    with opened(chromium, made[1], wait_for=READY) as seen:
        yield seen
        seen.assert_quiet()


def heading(page: Any) -> str:
    return page.inner_text("#dialogue h2")


def count(page: Any) -> int:
    """Dialogues that pass the filters."""
    return int(re.match(r"[\d,]+", page.inner_text("#count"))[0].replace(",", ""))  # type: ignore[index]


def chip(page: Any, facet: str, text: str) -> Any:
    return page.locator(f'fieldset[data-facet="{facet}"] .chip', has=page.locator(".chip-text", has_text=re.compile(rf"(^|\s){re.escape(text)}$")))


def choose_filter(page: Any, facet: str, text: str) -> None:
    chip(page, facet, text).click()


# ------------------------------------------------------------------------------------------------------------ a real run


def test_a_trained_run_is_shown_whole(chromium, trained, tmp_path, capsys):
    assert main(["view", str(trained), "--out", str(tmp_path / "v.html")]) == 0
    rows = [row for file in (trained / "rollouts", trained / "dialogues.parquet") for row in read_rollouts(file)]
    assert f"({len(rows):,} dialogues" in capsys.readouterr().out
    with opened(chromium, tmp_path / "v.html", wait_for=READY) as seen:
        assert count(seen.page) == len(rows)
        first = rows[0]
        assert first["question"] in seen.page.inner_text(".turn.user")
        assert len(seen.page.query_selector_all(".turn.model")) == len(first["attempts"])
        seen.page.keyboard.press("t")
        seen.page.wait_for_selector(".token-view")
        tokens = seen.page.query_selector_all(".token[data-n]")
        assert len(tokens) == len(first["token_ids"])
        drawn = seen.page.query_selector_all(".token.drawn[data-n]")
        assert len(drawn) == sum(first["sampled"])
        seen.assert_quiet()


# ------------------------------------------------------------------------------------------------------------- filters, search


def test_filters_by_outcome(view):
    page = view.page
    assert count(page) == 27
    for text, expected in (("truncated", 1), ("no answer", 1), ("ungradable", 1), ("broken", 1), ("unsolved", 1)):
        choose_filter(page, "outcome", text)
        assert count(page) == expected
        assert page.inner_text("#list .row-outcome") == text
        page.click("#clear")
    choose_filter(page, "outcome", "truncated")
    choose_filter(page, "outcome", "broken")
    assert count(page) == 2, "values of one filter add up"
    assert heading(page).startswith("✂ Ended by a token limit at attempt 1 of 3")
    assert chip(page, "outcome", "broken").locator("input").is_checked()
    page.click("#clear")
    assert count(page) == 27


def test_filters_by_attempts_step_stage_and_set_together(view):
    page = view.page
    choose_filter(page, "used", "2")
    choose_filter(page, "stage", "training")
    assert count(page) == 4, "step 0: the ungradable one; step 1: the first of each problem"
    page.fill("#from", "1")
    assert count(page) == 3
    choose_filter(page, "outcome", "unsolved")
    assert count(page) == 0
    assert page.is_visible(".empty")
    page.click("#clear")
    choose_filter(page, "set", "held-out")
    assert count(page) == 3
    assert "evaluation" in page.inner_text("#list .row-when")
    # the numbers beside the values are what choosing them would give
    assert chip(page, "set", "sums").locator(".chip-count").inner_text() == "24"
    assert chip(page, "used", "2").locator(".chip-count").inner_text() == "3"


def test_search_reaches_questions_answers_and_attempts(view):
    page = view.page
    for text, expected in (("WHAT IS 2 + 2", 9), ("nor now", 1), ("KeyError: 'hint'", 1), ("so we begin", 1), ("problem0001", 9), ("nowhere", 0)):
        page.fill("#search", text)
        page.wait_for_function("(n) => { const text = document.querySelector('#count').textContent; return text.startsWith(`${n} of`) && !text.includes('searching'); }", arg=expected)
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.id") == "list"


def test_a_search_shows_what_it_finds(view):
    """What is found in the attempts' texts alone, which are unpacked after the list was filtered."""
    page = view.page
    page.fill("#search", "KeyError: 'hint'")
    page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('1 of') && !document.querySelector('#count').textContent.includes('searching')")
    page.wait_for_function("() => document.querySelector('.place').textContent.startsWith('1 of 1')")
    assert page.locator("#list .row[aria-selected=true]").count() == 1


# ------------------------------------------------------------------------------------------------------------------------ chat


def test_a_dialogue_reads_as_a_chat_with_verdicts(view):
    page = view.page
    assert heading(page) == "✗ Not solved: 3 attempts of 3 allowed"
    assert page.inner_text("#gold") == "0"
    turns = [turn.inner_text() for turn in page.query_selector_all(".turns > li .bubble")]
    assert [turn.split("\n", 1)[1] for turn in turns] == [SYSTEM, "What is 0 + 0?", "one", FEEDBACK, "two", FEEDBACK, "three"]
    assert [turn.split("\n", 1)[0] for turn in turns] == ["Instructions", "Question", "Model · attempt 1", "Feedback", "Model · attempt 2", "Feedback", "Model · attempt 3"]
    verdicts = [verdict.inner_text() for verdict in page.query_selector_all(".verdict")]
    assert len(verdicts) == 3
    assert "Wrong" in verdicts[0] and "answer read: one" in verdicts[0] and "right answer: 0" in verdicts[0]
    page.keyboard.press("j")
    page.wait_for_selector("h2:has-text('Not gradable')")
    assert "grader: hm" in page.inner_text(".verdict >> nth=1")
    choose_filter(page, "outcome", "broken")
    page.wait_for_selector("h2:has-text('Broken')")
    assert "feedback: KeyError: 'hint'" in page.inner_text(".trouble")


def test_a_control_says_what_it_told_and_where_it_began_anew(chromium, chat, tmp_path):
    rollout = play(chat, problem(1), [("one", WRONG), ("it is 2", RIGHT), ("so 2", RIGHT)])
    rollout.transcript.context_starts.append(rollout.attempts[0].end)
    told = dataclasses.replace(rollout.attempts[1], told=Outcome.WRONG)
    rollout = dataclasses.replace(rollout, attempts=(rollout.attempts[0], told, rollout.attempts[2]))
    write_table(tmp_path / "control.parquet", table_of([rollout], stage="false_wrong"))
    write_view(tmp_path / "control.parquet", tmp_path / "control.html")
    with opened(chromium, tmp_path / "control.html", wait_for=READY) as view:
        page = view.page
        page.wait_for_selector(".turns")
        names = [turn.inner_text().split("\n", 1)[0] for turn in page.query_selector_all(".turns > li .bubble")]
        assert names[-4:] == ["Begins anew, without sight of the above", "Model · attempt 2", "Feedback", "Model · attempt 3"]
        verdicts = [verdict.inner_text() for verdict in page.query_selector_all(".verdict")]
        assert "told instead (a control): Wrong" in verdicts[1] and not any("told instead" in v for v in (verdicts[0], verdicts[2]))
        page.keyboard.press("t")
        page.wait_for_selector(".token-view")
        names = [turn.inner_text().split(" ·", 1)[0] for turn in page.query_selector_all(".token-view h3")]
        assert names == ["Prompt", "Attempt 1", "Prompt anew", "Attempt 2", "Feedback", "Attempt 3"]


# ---------------------------------------------------------------------------------------------------------------------- tokens


def test_tokens_show_what_was_trained_and_their_values(view, made):
    page, row = view.page, read_rollouts(made[0] / "rollouts")[5]
    assert row["solved_at"] == 3
    page.evaluate("() => { location.hash = 'view=tokens&outcome=solved'; }")
    page.wait_for_selector(".token-view")
    tokens = page.query_selector_all(".token[data-n]")
    kinds = [["drawn" in t.get_attribute("class").split(), "forced" in t.get_attribute("class").split()] for t in tokens]
    assert kinds == [[sampled, not sampled] for sampled in row["sampled"]]
    assert page.get_attribute("#colour-advantage", "aria-pressed") == "true"
    for n, (token, sampled, advantage) in enumerate(zip(tokens, row["sampled"], row["advantages"], strict=True)):
        classes = token.get_attribute("class").split()
        expected = {1.0: "p4", -0.5: "m2"}[advantage] if sampled else None
        assert [c for c in classes if re.fullmatch("[pm][1-4]|a0", c)] == ([expected] if expected else []), n
    at = row["sampled"].index(True)
    tokens[at].hover()
    told = page.inner_text("#inspector")
    assert f"id {row['token_ids'][at]}" in told and f"place {at + 1} of {len(tokens)}" in told
    assert f"log-prob −{-row['logprobs'][at]:.3f}" in told and "advantage −0.5000" in told and "drawn, trained" in told
    tokens[at - 1].click()
    assert "given: prompt, not trained" in page.inner_text("#inspector")
    page.keyboard.press("ArrowRight")
    assert f"place {at + 1} of" in page.inner_text("#inspector")
    assert page.evaluate("() => document.activeElement.dataset.n") == str(at)
    page.click("#colour-logprob")
    page.wait_for_selector(".by-logprob .legend")
    bins = [t.get_attribute("class").split() for t in page.query_selector_all(".token.drawn[data-n]")]
    edges = (0.1054, 0.6931, 2.3026, 4.6052, 6.9078)
    expected = [f"l{sum(-x > edge for edge in edges)}" for x, s in zip(row["logprobs"], row["sampled"], strict=True) if s]
    assert [next(c for c in classes if re.fullmatch(r"l\d", c)) for classes in bins] == expected
    assert page.inner_text(".tokens >> nth=0").replace("↵", "").startswith("<|im_start|>system\n" + SYSTEM)


def test_an_evaluation_has_no_advantage_to_show(view):
    page = view.page
    page.keyboard.press("t")
    choose_filter(page, "stage", "evaluation")
    page.wait_for_selector(".by-logprob .legend")
    assert page.is_disabled("#colour-advantage")
    assert "nothing was trained on this dialogue" in page.inner_text(".legend")
    assert "drawn, not trained" in page.inner_text(".turn.model h3 >> nth=0")


def test_without_a_tokenizer_attempts_are_shown_and_tokens_are_numbers(chromium, made, tmp_path):
    rows = read_rollouts(made[0] / "rollouts" / "step_000003.parquet")
    (tmp_path / "alone.parquet").write_bytes((made[0] / "rollouts" / "step_000003.parquet").read_bytes())
    write_view(tmp_path / "alone.parquet", tmp_path / "v.html")
    with opened(chromium, tmp_path / "v.html", wait_for=READY) as seen:
        assert rows[0]["attempts"][0]["text"] in seen.page.inner_text(".turn.model .text")
        assert rows[0]["question"] in seen.page.inner_text(".turn.user .text")
        seen.page.keyboard.press("t")
        seen.page.wait_for_selector(".token-view")
        assert "--tokenizer" in seen.page.inner_text("#no-tokenizer")
        assert [t.inner_text() for t in seen.page.query_selector_all(".token[data-n]")] == [f"#{i}" for i in rows[0]["token_ids"]]
        seen.assert_quiet()


# ----------------------------------------------------------------------------------------------------------- following a problem


def test_one_problem_is_followed_from_step_to_step(view):
    page = view.page
    assert [s.inner_text() for s in page.query_selector_all(".strip-step")] == ["0", "1", "2", "3", "evaluation end, k = 2"]
    cells = page.query_selector_all("#strip .cell")
    outcomes = [next(c for c in cell.get_attribute("class").split() if c.startswith("o-")) for cell in cells]
    assert outcomes == ["o-unsolved", "o-ungradable", *["o-solved"] * 7]
    assert [cell.inner_text() for cell in cells] == ["✗", "?", "✓2", "✓", "✓", "✓", "✓", "✓", "✓2"]
    cells[2].click()
    page.wait_for_selector("h2:has-text('Solved at attempt 2 of 3')")
    assert page.get_attribute("#strip .cell[aria-current]", "data-i") == "6"
    page.keyboard.press("]")
    page.wait_for_selector("h2:has-text('Solved at the first attempt')")
    page.keyboard.press("[")
    page.wait_for_selector("h2:has-text('Solved at attempt 2 of 3')")
    page.click("#follow")
    assert count(page) == 9
    page.click("#count .drop")
    assert count(page) == 27


# ----------------------------------------------------------------------------------------------------------------- links, keys


def test_a_link_brings_back_what_was_seen(chromium, made):
    with opened(chromium, made[1], wait_for=READY) as seen:
        choose_filter(seen.page, "outcome", "solved")
        seen.page.fill("#to", "1")
        seen.page.click("#list .row >> nth=2")
        seen.page.keyboard.press("t")
        seen.page.wait_for_selector(".token-view")
        fragment = seen.page.evaluate("() => location.hash.slice(1)")
        before = (count(seen.page), heading(seen.page), seen.page.inner_text(".place"))
    with opened(chromium, made[1], fragment=fragment, wait_for=READY) as seen:
        seen.page.wait_for_selector(".token-view")
        assert (count(seen.page), heading(seen.page), seen.page.inner_text(".place")) == before
        assert seen.page.input_value("#to") == "1"
        seen.page.click("#list .row >> nth=0")
        seen.page.wait_for_selector(".place:has-text('1 of')")
        seen.page.go_back()
        seen.page.wait_for_selector(f".place:has-text('{before[2]}')")
        seen.assert_quiet()


def test_the_keyboard_is_enough(view):
    page = view.page
    page.focus("#list")
    page.keyboard.press("End")
    page.wait_for_selector(".place:has-text('27 of 27')")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-26"
    assert page.get_attribute("#row-26", "aria-selected") == "true"
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(".place:has-text('26 of 27')")
    page.keyboard.press("Home")
    page.keyboard.press("k")
    page.wait_for_selector(".place:has-text('1 of 27')")
    assert page.is_disabled("#previous")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "dialogue"
    page.focus("#next")
    page.keyboard.press("Enter")
    page.wait_for_selector(".place:has-text('2 of 27')")
    assert page.evaluate("() => document.activeElement.id") == "next", "the focus stays though the bar is new"
    page.keyboard.press("/")
    page.keyboard.type("jt")
    assert page.input_value("#search") == "jt", "letters are letters in a field"


def test_everything_that_can_be_pressed_has_a_name(view):
    page = view.page
    page.keyboard.press("t")
    page.wait_for_selector(".token-view")
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, [role=listbox], main, section')].filter((node) =>
        !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.textContent.trim() || node.closest('label')?.textContent.trim())).map((n) => n.outerHTML)""")
    assert nameless == []
    assert page.evaluate("() => document.documentElement.lang") == "en"


# ------------------------------------------------------------------------------------------------------------- sizes and media


def test_print_shows_the_dialogue_alone(view):
    view.page.emulate_media(media="print")
    assert not view.page.is_visible("#browse") and not view.page.is_visible(".bar")
    assert view.page.is_visible(".turns")
    assert view.page.evaluate("() => getComputedStyle(document.querySelector('#dialogue')).overflowY") == "visible"


def test_light_and_dark(chromium, made):
    def lightness(scheme: str) -> list[float]:
        with opened(chromium, made[1], scheme=scheme, wait_for=READY) as seen:  # type: ignore[arg-type]
            colours = seen.page.evaluate("() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }")
            return [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in colours]

    paper, ink = lightness("light")
    assert paper > 0.9 and ink < 0.2
    paper, ink = lightness("dark")
    assert paper < 0.2 and ink > 0.8


def test_five_thousand_dialogues_keep_a_short_list(chromium, chat, tmp_path):
    write_many(tmp_path / "many.parquet", chat, 5000)
    done = write_view(tmp_path / "many.parquet", tmp_path / "v.html")
    assert done["dialogues"] == 5000
    with opened(chromium, tmp_path / "v.html", wait_for=READY) as seen:
        page = seen.page
        assert count(page) == 5000
        assert 5 < len(page.query_selector_all("#list .row")) < 60
        page.evaluate("() => { const list = document.querySelector('#list'); list.scrollTop = list.scrollHeight; }")
        page.wait_for_selector("#row-4999")
        page.click("#row-4999")
        page.wait_for_selector(".place:has-text('5,000 of 5,000')")
        page.fill("#search", "p499")
        page.wait_for_selector("#count:has-text('10 of 5,000')")
        assert page.inner_text("#strip").count("\n") > 5
        seen.assert_quiet()


def test_a_damaged_page_says_so(chromium, made, tmp_path):
    text = made[1].read_text(encoding="utf-8")
    found = re.search(r'id="page-data">([^<]+)<', text)
    assert found is not None
    (tmp_path / "v.html").write_text(text.replace(found[1], found[1][:400]), encoding="utf-8")
    with opened(chromium, tmp_path / "v.html", wait_for=".trouble") as seen:
        assert "could not be shown" in seen.page.inner_text(".trouble")


def test_the_command_says_what_it_did_and_what_it_lacks(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["view", str(made[0]), "--steps", "0", "--limit", "2"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("written: view.html (2 dialogues, ") and said.err == ""
    assert main(["view", str(made[0]), "--steps", "x"]) == 2
    assert json.dumps(capsys.readouterr().err).count("error: ") == 1
