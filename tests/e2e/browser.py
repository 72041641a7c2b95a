"""A real headless Chromium for the tests of the HTML pages, and what a page did while it was open.

Chromium is the system's own (Debian's `chromium`, or any Chrome on the path; MULLIGAN_CHROMIUM names another); playwright drives it and
downloads nothing. Without either, the tests are skipped and say so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

READY = "body.ready"  # when the viewer has drawn its first dialogue
BINARIES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
DESKTOP, PHONE = (1280, 900), (360, 740)


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome; None if there is none."""
    return os.environ.get("MULLIGAN_CHROMIUM") or next((path for name in BINARIES if (path := shutil.which(name))), None)


@contextmanager
def launched_chromium() -> Iterator[Any]:
    """A playwright `Browser`; skips the test where playwright or Chromium is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed (it comes with mulligan[dev])")
    binary = find_chromium()
    if binary is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or set MULLIGAN_CHROMIUM to a Chrome")
    # Chromium's sandbox does not start for root, as in a container; a container's /dev/shm is small.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, headless=True, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class OpenedPage:
    """A page and everything that it did: `requests` (addresses, the file itself left out), `console` (warnings and errors), `errors` (exceptions
    of its script), `dialogs` (alert and the like)."""

    page: Any
    address: str
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def assert_quiet(self) -> None:
        """Nothing left the page, nothing failed, nothing popped up."""
        assert self.requests == []
        assert self.console == []
        assert self.errors == []
        assert self.dialogs == []

    def width_of_content(self) -> int:
        """In CSS pixels; above the window's width, the page scrolls sideways."""
        return self.page.evaluate("() => document.documentElement.scrollWidth")


@contextmanager
def opened(
    browser: Any,
    path: Path,
    *,
    fragment: str = "",
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["light", "dark"] = "light",
    touch: bool = False,
    wait_for: str | None = None,
) -> Iterator[OpenedPage]:
    """Open a file in a fresh profile. `fragment` goes behind `#`; `wait_for` is a selector that must be visible before the test goes on."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, has_touch=touch)
    context.set_default_timeout(20_000)
    try:
        page = context.new_page()
        address = path.resolve().as_uri()
        seen = OpenedPage(page, address)

        def refuse(dialog: Any) -> None:
            seen.dialogs.append(dialog.message)
            dialog.dismiss()

        context.on("request", lambda request: None if request.url.split("#")[0] == address else seen.requests.append(request.url))
        page.on("console", lambda message: seen.console.append(message.text) if message.type in ("warning", "error") else None)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("dialog", refuse)
        page.goto(address + (f"#{fragment}" if fragment else ""))
        if wait_for is not None:
            page.wait_for_selector(wait_for, state="visible")
        yield seen
    finally:
        context.close()
