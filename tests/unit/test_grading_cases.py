"""The suite of answer pairs: `grading_cases/*.jsonl`, one pair a line, with the verdict that mathematics or docs/grading.md asks for.

A pair is `{"gold", "answer", "equal", "reason"}`, where a whole attempt may stand as `"text"` in the answer's place and `"kind"` names a
grader other than `math`. `limits.jsonl` holds what is equal and yet refused: it says what the grader cannot do, and has to shrink.
"""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from mulligan.config import GraderConfig
from mulligan.grading import grade_answer, make_grader
from mulligan.types import Problem, VerdictKind

FOLDER = Path(__file__).parent / "grading_cases"
LIMITS, BOMBS = "limits", "bombs"


def load(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


CASES = [{**case, "theme": path.stem} for path in sorted(FOLDER.glob("*.jsonl")) if path.stem not in (LIMITS, BOMBS) for case in load(path)]


def grade_all(cases):
    """Verdicts of all cases at once, each answer in a box of its own, through the grader that training uses."""

    async def main():
        grader = make_grader(GraderConfig(workers=2, deadline=10.0))
        try:
            return await asyncio.gather(
                *(
                    grader.grade(Problem(id="", question="", answer=case["gold"], grader=case.get("kind", "math")), case.get("text", rf"\boxed{{{case.get('answer')}}}"))
                    for case in cases
                )
            )
        finally:
            grader.close()

    return asyncio.run(main())


def disagreements(cases, verdicts):
    """One line for each verdict that is not the one asked for. An ungradable one never is."""
    return [
        f"{case.get('theme', LIMITS)}: gold {case['gold']!r}, answer {case.get('answer', case.get('text'))!r} must be {'right' if case['equal'] else 'wrong'}"
        f" ({case['reason']}), is {verdict.kind.value} ({verdict.reason})"
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict.correct != case["equal"] or verdict.kind is VerdictKind.UNGRADABLE
    ]


@pytest.fixture(scope="module")
def verdicts():
    return grade_all(CASES)


def listed(found):
    return f"{len(found)} of {len(CASES)} cases:\n" + "\n".join(found)


def test_no_wrong_answer_is_accepted(verdicts):
    pairs = [(case, verdict) for case, verdict in zip(CASES, verdicts, strict=True) if not case["equal"]]
    found = disagreements(*zip(*pairs, strict=True))
    assert not found, listed(found)


def test_no_right_answer_is_refused(verdicts):
    pairs = [(case, verdict) for case, verdict in zip(CASES, verdicts, strict=True) if case["equal"]]
    found = disagreements(*zip(*pairs, strict=True))
    assert not found, listed(found)


def test_answers_that_are_cut_out_already_get_the_same_verdict():
    cases = [case for case in CASES if "answer" in case and case["answer"].strip()]
    found = disagreements(cases, [grade_answer(case["gold"], case["answer"], kind=case.get("kind", "math"), deadline=10.0) for case in cases])
    assert not found, listed(found)


def test_what_the_grader_cannot_do():
    """Equal, and refused: never ungradable, and a case that is accepted by now belongs into a theme of its own."""
    cases = load(FOLDER / f"{LIMITS}.jsonl")
    verdicts = grade_all(cases)
    assert all(case["equal"] for case in cases)
    assert [case for case, verdict in zip(cases, verdicts, strict=True) if verdict.correct] == []
    assert all(verdict.kind in (VerdictKind.WRONG, VerdictKind.NO_ANSWER) for verdict in verdicts)


def test_the_suite_is_large_and_says_why():
    counts = Counter(case["equal"] for case in CASES)
    assert counts[True] >= 300 and counts[False] >= 300
    assert all(case["reason"].strip() for case in CASES)
    seen = Counter((case["gold"], case.get("answer"), case.get("text"), case.get("kind")) for case in CASES)
    assert [key for key, times in seen.items() if times > 1] == []


def test_the_suite_holds_what_other_graders_are_known_to_get_wrong():
    verdict_of = {(case["gold"], case["answer"]): case["equal"] for case in CASES if "answer" in case}
    for gold, answer in [("7", "8=7"), ("7", "x+y=7"), (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"), ("(2,1)", r"\{1,2\}"), ("abc", "cba"), ("10_2", "10")]:
        assert verdict_of[gold, answer] is False
    assert verdict_of[r"1-\frac{1}{e}", r"1+\frac{1}{e}"] is False
    for gold, answer in [("7", "7."), ("700", "7e2"), ("42", "４２"), (r"\frac{1}{2}", "½"), (r"\sqrt{3}", "√3"), ("[1,2]", "1≤x≤2")]:
        assert verdict_of[gold, answer] is True
