"""reasoning-gym's own scorers. Runs in a worker process only: some of them parse the answer with SymPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import reasoning_gym


def run(payload: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Score `payload["answer"]` by the data set `payload["name"]` on `payload["entry"]`; 1.0 and more is correct.

    A scorer that raises is broken only if it raises on the entry's own answer too; else the answer is unreadable, hence wrong.
    """
    score = _scorer(payload["name"])
    entry = payload["entry"]
    progress("gold")
    try:
        value = float(score(payload["answer"], entry))
    except MemoryError:
        raise
    except Exception as error:
        score(entry.get("answer"), entry)
        return {"equal": False, "reason": f"the answer cannot be read ({type(error).__name__})"}
    return {"equal": value >= 1.0, "reason": None, "score": value}


@lru_cache(maxsize=64)
def _scorer(name: str) -> Callable[[Any, dict[str, Any]], float]:
    scorer: Any = reasoning_gym.get_score_answer_fn(name)  # annotated upstream as taking nothing
    return scorer
