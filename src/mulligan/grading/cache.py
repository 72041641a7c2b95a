"""Verdicts that were worked out before. Only what depends on gold and answer alone is kept: no timeouts, no failures of ours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from mulligan.grading.normalize import clean

GRADER_VERSION = 2
"""Counted up whenever a rule changes, so that no verdict outlives the rule it was made by."""
MAX_CHARACTERS = 2_000
"""Gold and answer together; longer ones are not kept."""

V = TypeVar("V")


class VerdictCache(Generic[V]):
    """A bounded map that forgets what was not asked for longest (`size` entries). Used from one event loop or thread at a time."""

    def __init__(self, size: int = 16_384):
        self.size = size
        self.hits = 0
        self._entries: OrderedDict[Hashable, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> V | None:
        found = self._entries.get(key)
        if found is not None:
            self.hits += 1
            self._entries.move_to_end(key)
        return found

    def put(self, key: Hashable, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self.size:
            self._entries.popitem(last=False)


def cache_key(module: str, payload: dict[str, Any]) -> Hashable | None:
    """What a verdict depends on (the answer without what `clean` takes off), with the grader's version; None if it is too long to be kept (or not a question about gold and answer)."""
    gold, answer = payload.get("gold"), payload.get("answer")
    if not isinstance(gold, str) or not isinstance(answer, str) or len(gold) + len(answer) > MAX_CHARACTERS:
        return None
    return GRADER_VERSION, module, gold, " ".join(clean(answer).split()), payload.get("tolerance"), bool(payload.get("hints"))
