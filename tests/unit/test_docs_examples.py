"""The examples of the documentation, run as they stand there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from mulligan.config import AttemptBudget, ProtocolConfig, RewardConfig
from mulligan.grading.entry_points import call_entry_point, resolve
from mulligan.protocol import Protocol
from mulligan.types import Attempt, Problem, StopReason, Verdict, VerdictKind

DOCS = Path(__file__).parents[2] / "docs"
PROBLEM = Problem(id="p", question="4 + 3 = ?", answer="7", grader="my_task:grade")


@pytest.fixture
def protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """One with the feedback of docs/grading.md; its grader resolves as well."""
    (example,) = re.findall(r"```python\n(# my_task\.py.*?)```", (DOCS / "grading.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "my_task.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Protocol(ProtocolConfig(feedback="my_task:feedback"), AttemptBudget.parse("fixed(3)"), RewardConfig())


@pytest.mark.parametrize(
    ("text", "kind", "answer", "feedback"),
    [
        ("It is 7.", VerdictKind.CORRECT, "7", None),
        ("First 7, then 8", VerdictKind.WRONG, "8", "8 is close. Attempts left: 2."),
        ("-20", VerdictKind.WRONG, "-20", "-20 is far off. Attempts left: 2."),
        ("I do not know", VerdictKind.NO_ANSWER, None, "That is no answer. Attempts left: 2."),
    ],
)
def test_a_grader_and_a_feedback_of_ones_own(protocol: Protocol, text: str, kind: VerdictKind, answer: str | None, feedback: str | None):
    verdict: Verdict = asyncio.run(call_entry_point(resolve("my_task:grade"), PROBLEM, text, deadline=10))
    assert (verdict.kind, verdict.answer) == (kind, answer)
    if feedback is None:
        return  # right: nothing more is said
    attempt = Attempt(index=1, start=0, end=1, text=text, stop=StopReason.END_OF_TURN, verdict=verdict)
    assert protocol.feedback(PROBLEM, [attempt], attempts_left=2) == feedback
