"""Reading on in the viewer, in a real browser: where the focus and the page stand after every change, what a screen reader is told, and texts
that would leave their boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, READY, OpenedPage, opened
from made_dialogues import RIGHT, WRONG, play, problem, table_of, write_run

from mulligan.report.view import write_view
from mulligan.transcripts import write_table


@pytest.fixture(scope="module")
def made(chat, tmp_path_factory) -> Path:
    """The page of a run made by hand."""
    folder = tmp_path_factory.mktemp("made")
    write_view(write_run(folder / "made", chat), folder / "view.html")
    return folder / "view.html"


@pytest.fixture
def view(chromium, made) -> Iterator[OpenedPage]:
    with opened(chromium, made, wait_for=READY) as seen:
        seen.page.wait_for_selector(".turns")
        yield seen
        seen.assert_quiet()


def focused(page: Any) -> str:
    """The id of the focused element, or its class."""
    return page.evaluate("() => document.activeElement.id || document.activeElement.className.split(' ')[0] || document.activeElement.tagName")


def press(page: Any, selector: str, then: str) -> None:
    """As by the keyboard; `then` is a selector of what this leads to."""
    page.focus(selector)
    page.keyboard.press("Enter")
    page.wait_for_selector(then)


# ------------------------------------------------------------------------------------------------------------------- the focus


def test_the_focus_survives_what_is_drawn_anew(view):
    page = view.page
    press(page, "#strip .cell[aria-current]", ".place:has-text('1 of 27')")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(".place:has-text('2 of 27')")
    assert focused(page) == "cell" and page.evaluate("() => document.activeElement.ariaCurrent") == "true", "the cell of what is now shown"
    press(page, "#follow", ".place:has-text('2 of 9')")
    assert focused(page) == "dialogue", "the button has done its work"
    press(page, "#count .drop", "#count:has-text('27 dialogues')")
    assert focused(page) == "list", "the button is gone"
    page.fill("#search", "2 + 2")
    page.wait_for_selector("#count:has-text('9 of 27')")
    press(page, "#clear", "#count:has-text('27 dialogues')")
    assert focused(page) == "list", "nothing is left to be cleared"


def test_where_the_list_gives_way_the_focus_goes_along(chromium, made):
    with opened(chromium, made, size=PHONE, touch=True, wait_for=READY) as seen:
        seen.page.tap("#list .row >> nth=1")
        seen.page.wait_for_selector("#dialogue h2")
        assert focused(seen.page) == "dialogue"
        seen.page.tap("#back")
        assert focused(seen.page) == "list"
        seen.page.keyboard.press("ArrowDown")
        seen.page.wait_for_selector("#dialogue h2")
        assert focused(seen.page) == "dialogue"
        seen.assert_quiet()


def test_a_strip_is_one_stop_of_the_tab_key(view):
    page = view.page
    assert page.locator("#strip .cell").count() == 9
    page.focus("#follow")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.dataset.i") == "0"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("() => document.activeElement.dataset.i") == "0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.dataset.i") == "6"
    page.keyboard.press("Tab")
    assert focused(page) != "cell"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("() => document.activeElement.dataset.i") == "6"


def test_arrow_keys_reach_the_tokens_from_wherever_one_reads(view):
    page = view.page
    page.keyboard.press("t")
    page.wait_for_selector(".token-view")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.dataset.n") == "0"
    page.keyboard.press("ArrowRight")
    assert "place 2 of" in page.inner_text("#inspector")
    page.focus("#colour-logprob")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("() => document.activeElement.dataset.n") == "1", "back to where it was"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("() => document.activeElement.dataset.n") == "0"


def test_a_screen_reader_is_told_evaluations_apart(view):
    page = view.page
    assert page.get_attribute("#strip .cell >> nth=0", "aria-label") == "step 0, unsolved, 3 attempts: What is 0 + 0?"
    assert page.get_attribute("#strip .cell >> nth=8", "aria-label") == "evaluation end, k = 2, solved, 2 attempts: What is 0 + 0?"
    page.focus("#list")
    page.keyboard.press("End")
    page.wait_for_selector("#row-26")
    assert page.get_attribute("#row-26", "aria-label") == "evaluation end, k = 2, solved, 2 attempts: What is 2 + 2?"


# --------------------------------------------------------------------------------------------------------------- what scrolls


def test_a_phone_shows_every_dialogue_from_its_beginning(chromium, chat, tmp_path):
    long = [("so it may be\n" * 80, WRONG), ("it is 2", RIGHT)]
    write_table(tmp_path / "long.parquet", table_of([play(chat, problem(n), long) for n in range(3)]))
    write_view(tmp_path / "long.parquet", tmp_path / "v.html")
    with opened(chromium, tmp_path / "v.html", size=PHONE, touch=True, wait_for=READY) as seen:
        page = seen.page
        page.tap("#list .row >> nth=0")
        page.wait_for_selector("#dialogue h2")
        for act in ("tap next", "tap tokens"):
            page.evaluate("() => scrollTo(0, 1e6)")
            assert page.evaluate("() => scrollY") > 500
            page.tap("#next" if act == "tap next" else "#view-tokens")
            page.wait_for_selector(".place:has-text('2 of 3')" if act == "tap next" else ".token-view")
            assert page.evaluate("() => scrollY") == 0, act
        page.evaluate("() => scrollTo(0, 100)")
        page.evaluate("() => document.querySelector('#colour-logprob').click()")
        page.wait_for_selector(".by-logprob .legend")
        assert page.evaluate("() => scrollY") == 100, "another colour of the same is no other page"


# ------------------------------------------------------------------------------------------------- texts that leave their boxes


def test_piled_marks_stay_in_their_box(chromium, chat, tmp_path):
    pile = "e" + "\u0301" * 300
    write_table(tmp_path / "pile.parquet", table_of([play(chat, problem(1), [("first", WRONG), (pile, RIGHT)])]))
    write_view(tmp_path / "pile.parquet", tmp_path / "v.html")
    with opened(chromium, tmp_path / "v.html", wait_for=READY) as seen:
        page = seen.page
        page.wait_for_selector(".turns")
        boxes = [box.bounding_box() for box in page.query_selector_all(".turn .bubble")]
        above, holding = boxes[-2], boxes[-1]
        # between the two bubbles there is paper, and nothing else
        gap = {"x": holding["x"], "y": above["y"] + above["height"] + 1, "width": holding["width"] / 2, "height": holding["y"] - above["y"] - above["height"] - 2}
        blank = {**gap, "y": boxes[0]["y"] + boxes[0]["height"] + 1}
        assert gap["height"] > 5
        assert page.screenshot(clip=gap) == page.screenshot(clip=blank)


def test_an_answer_that_is_a_program_keeps_its_lines(chromium, chat, tmp_path):
    program = "def f(x):\n    if x:\n        return 1\n    return 2\n" * 40
    write_table(tmp_path / "code.parquet", table_of([play(chat, problem(1, answer=program), [(program, WRONG), ("no", WRONG)])]))
    write_view(tmp_path / "code.parquet", tmp_path / "v.html")
    with opened(chromium, tmp_path / "v.html", wait_for=READY) as seen:
        page = seen.page
        page.wait_for_selector(".turns")
        for selector in ("#gold", ".verdict code >> nth=0"):
            assert page.inner_text(selector).startswith("def f(x):\n    if x:\n        return 1"), selector
        assert page.locator(".turn >> nth=0").bounding_box()["y"] < 900, "a long right answer does not push the dialogue off the screen"
        page.emulate_media(media="print")
        assert page.evaluate("() => { const gold = document.querySelector('#gold'); return gold.scrollHeight - gold.clientHeight; }") <= 1, "on paper it is whole"


def test_a_button_over_the_choices_hides_them(chromium, made):
    with opened(chromium, made, size=(1280, 420), wait_for=READY) as seen:
        assert seen.page.is_disabled("#clear")
        assert seen.page.evaluate("() => getComputedStyle(document.querySelector('#clear')).opacity") == "1", "choices that scroll below it would show through"
