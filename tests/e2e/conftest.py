"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import launched_chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One headless Chromium for the tests of a module (playwright's `Browser`); pages open in profiles of their own with `browser.opened`.

    While it is open, playwright's event loop counts as running in this thread: `asyncio.run`, and so every rollout, fails. Train or
    evaluate in an autouse fixture of the module, which comes first.
    """
    with launched_chromium() as browser:
        yield browser
