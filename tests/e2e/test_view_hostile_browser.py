"""The viewer in a real browser, given texts that would harm or hide: nothing acts, nothing is left out, no request leaves, and a phone shows it too."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, READY, opened
from made_dialogues import HOSTILE, RIGHT, WRONG, play, problem, table_of, write_run

from mulligan.report.view import write_view
from mulligan.transcripts import write_table


@pytest.fixture(scope="module")
def hostile_page(chat, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    rollouts = [
        play(chat, problem(n, id=text, question=text, answer=text, source=text), [(text, WRONG), (text, RIGHT)], feedback=text, error=text if n == 0 else None)
        for n, text in enumerate(HOSTILE)
    ]
    run = folder / "<img src=x onerror=alert(7)>\u202e"
    chat.tokenizer.save_pretrained(run / "model")
    write_table(run / "rollouts" / "step_000000.parquet", table_of(rollouts))
    strange = table_of(rollouts, stage=HOSTILE[0], step=1)
    write_table(run / "dialogues.parquet", strange)
    write_view(run, folder / "view.html")
    return folder / "view.html"


def test_hostile_texts_are_shown_and_do_nothing(chromium, hostile_page):
    with opened(chromium, hostile_page, wait_for=READY) as seen:
        title = seen.page.title()
        scripts = seen.page.evaluate("() => document.scripts.length")
        shown = []
        for n in range(2 * len(HOSTILE)):
            seen.page.wait_for_selector(f".place:has-text('{n + 1} of 12')")
            for view in ("chat", "tokens"):
                seen.page.click(f"#view-{view}")
                seen.page.wait_for_selector(".token-view" if view == "tokens" else "#dialogue > .turns")
                shown.append(seen.page.inner_text("#dialogue"))
            seen.page.keyboard.press("j")
        whole = "\n".join(shown)
        for text in HOSTILE[:4]:
            assert text in whole
        for mark in ("⟨LS⟩", "⟨PS⟩", "⟨RLO⟩", "⟨PDF⟩", "⟨LRI⟩", "⟨PDI⟩", "⟨BOM⟩", "⟨ZWSP⟩", "⟨NUL⟩", "⟨BEL⟩", "⟨ESC⟩", "⟨CR⟩", "⟨DEL⟩"):
            assert mark in whole, mark
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x07\x1b]", seen.page.inner_text("body")), "nothing that acts is left in the page"
        assert title == "Dialogues of <img src=x onerror=alert(7)>"
        assert seen.page.title() == title
        assert seen.page.evaluate("() => document.scripts.length") == scripts
        assert seen.page.evaluate("() => document.querySelectorAll('img, iframe, svg, object, embed, link, body style').length") == 0
        assert seen.page.evaluate("() => document.querySelectorAll('[style]:not(.row):not(#list-space), [onclick], [onerror], [onload]').length") == 0
        seen.assert_quiet()


def test_a_hostile_address_is_only_read(chromium, hostile_page):
    fragment = "d=__proto__&outcome=constructor&view=<img src=x onerror=alert(8)>&q=%00<script>&problem=toString&from=-1&to=1e999&stage=%FF"
    with opened(chromium, hostile_page, fragment=fragment, wait_for=READY) as seen:
        assert seen.page.inner_text("#count").startswith("0 "), "only the search is believed"
        seen.page.fill("#search", "")
        seen.page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('12')")
        seen.assert_quiet()


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and what reached it."""
    reached: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", reached
    server.shutdown()
    server.server_close()


ATTACK = """async (address) => {
  const refused = [];
  addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
  const attempt = async (act) => { try { await act(); } catch {} };
  await attempt(() => { const script = document.createElement("script"); script.append("document.title = 'owned'"); document.body.append(script); });
  await attempt(() => { const script = document.createElement("script"); script.src = address + "/script"; document.body.append(script); });
  await attempt(() => { const image = document.createElement("img"); image.src = address + "/image"; document.body.append(image); });
  await attempt(() => { const link = document.createElement("link"); link.rel = "stylesheet"; link.href = address + "/style"; document.head.append(link); });
  await attempt(() => { const frame = document.createElement("iframe"); frame.src = address + "/frame"; document.body.append(frame); });
  await attempt(() => { document.body.insertAdjacentHTML("beforeend", "<b id='made-of-a-string'>x</b>"); });
  await attempt(() => { document.body.setAttribute("onclick", "document.title = 'owned'"); document.body.click(); });
  await attempt(() => { const style = document.createElement("style"); style.append("body { display: none }"); document.head.append(style); });
  await attempt(() => fetch(address + "/fetch"));
  await attempt(() => { navigator.sendBeacon(address + "/beacon", "x"); });
  await attempt(() => new Promise((done) => { const socket = new WebSocket(address.replace("http", "ws")); socket.onerror = socket.onopen = done; }));
  await new Promise((done) => setTimeout(done, 500));
  return refused;
}"""
ATTACK_BY_FORM = """async (address) => {
  const refused = [];
  const told = new Promise((done) => addEventListener("securitypolicyviolation", (event) => { refused.push(event.effectiveDirective); done(); }));
  const form = document.createElement("form");
  form.action = address + "/form";
  document.body.append(form);
  form.submit();
  await Promise.race([told, new Promise((done) => setTimeout(done, 20_000))]);
  await new Promise((done) => setTimeout(done, 300));
  return refused;
}"""


def test_even_a_script_inside_cannot_reach_out(chromium, hostile_page, listener):
    """Were there a hole after all: the policy holds what gets through it."""
    address, reached = listener
    with opened(chromium, hostile_page, wait_for=READY) as seen:
        title = seen.page.title()
        refused = seen.page.evaluate(ATTACK, address)
        assert reached == []
        assert seen.page.title() == title
        assert seen.page.query_selector("#made-of-a-string") is None
        assert seen.page.is_visible("#dialogue h2"), "the style did not apply"
        for directive in ("img-src", "style-src-elem", "frame-src", "connect-src", "require-trusted-types-for"):
            assert directive in refused, directive
    with opened(chromium, hostile_page, wait_for=READY) as seen:  # a page of its own: Chromium puts the refusal in its place
        assert seen.page.evaluate(ATTACK_BY_FORM, address) == ["form-action"]
        assert reached == []


def test_a_phone_shows_list_then_dialogue_and_never_scrolls_sideways(chromium, hostile_page, chat, tmp_path):
    write_view(write_run(tmp_path / "made", chat), tmp_path / "view.html")
    for path in (hostile_page, tmp_path / "view.html"):
        with opened(chromium, path, size=PHONE, touch=True, wait_for=READY) as seen:
            page = seen.page
            assert page.is_visible("#list") and not page.is_visible("#dialogue")
            assert seen.width_of_content() <= PHONE[0]
            page.tap("#list .row >> nth=1")
            page.wait_for_selector("#dialogue h2")
            assert not page.is_visible("#list")
            assert seen.width_of_content() <= PHONE[0]
            page.tap("#view-tokens")
            page.wait_for_selector(".token-view")
            assert seen.width_of_content() <= PHONE[0]
            page.tap(".token.drawn[data-n]")
            assert "log-prob" in page.inner_text("#inspector")
            page.tap("#back")
            assert page.is_visible("#list") and not page.is_visible("#dialogue")
            page.go_back()
            page.wait_for_selector("#dialogue h2")
            seen.assert_quiet()
