"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import launched_chromium


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One headless Chromium for the whole session (playwright's `Browser`); pages open in profiles of their own with `browser.opened`."""
    with launched_chromium() as browser:
        yield browser
