"""An answer by a recipe's own regular expression. Runs in a worker process only: on some texts a pattern may take for ever."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def run(payload: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """`{"answer": ...}`: the first group (the whole, if there is none) of the last match of `payload["pattern"]`; None if nothing matches."""
    found = None
    for match in re.finditer(payload["pattern"], payload["text"], re.MULTILINE):
        found = match[1] if match.re.groups else match[0]
    return {"answer": None if found is None else found.strip()}
