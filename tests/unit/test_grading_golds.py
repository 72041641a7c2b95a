r"""Gold answers of public question sets: each accepts itself however it is written, and none accepts another's.

The folder with the sets is named by MULLIGAN_DATA.
"""

import asyncio
import os
import random
import re
from functools import cache
from pathlib import Path

import pytest

from mulligan.config import GraderConfig
from mulligan.grading import grade_answer, make_grader
from mulligan.tasks import load_problems
from mulligan.types import Problem, VerdictKind

SIZES = {"aime24": 30, "amc23": 40, "math500": 500, "minerva_math": 272, "olympiadbench": 675, "gsm8k": 1319}

_LETTERS_APART = re.compile(r"(?<![A-Za-z\\])\s+(?!\d{3})|(?<!\\)\s+(?![A-Za-z\d])")


def without_spaces(gold):
    r"""Spaces that mean nothing in LaTeX removed: not `\pi r`, not `no solutions`, not `\ `, not `32, 349`."""
    return _LETTERS_APART.sub("", gold)


FORMS = {
    "as written": lambda gold: gold,
    "a full stop added": lambda gold: gold if gold.endswith(".") else gold + ".",
    "\\dfrac for \\frac": lambda gold: gold.replace(r"\frac", r"\dfrac"),
    "\\left and \\right removed": lambda gold: re.sub(r"\\(?:left|right)(?![a-zA-Z])\.?", "", gold),
    "spaces added": lambda gold: f"  {gold.replace('=', ' = ').replace('+', ' + ')} ",
    "spaces removed": without_spaces,
    "dollar signs around": lambda gold: f"${gold}$",
}

EQUAL_BY_CHANCE: set[frozenset[str]] = set()
"""Different golds of two questions that are equal all the same, beside those of the same value or the same letters (`same_by_rule`)."""


@cache
def golds(name):
    folder = os.environ.get("MULLIGAN_DATA")
    if not folder:
        pytest.skip("MULLIGAN_DATA is not set: it names the folder with the question sets")
    found = [problem.answer for problem in load_problems(str(Path(folder) / f"{name}.jsonl")).problems]
    assert len(found) == SIZES[name]
    return found


def grade_pairs(pairs):
    """Verdicts of (gold, text) pairs, all at once."""

    async def main():
        grader = make_grader(GraderConfig(workers=2, deadline=10.0))
        try:
            return await asyncio.gather(*(grader.grade(Problem(id="", question="", answer=gold), text) for gold, text in pairs))
        finally:
            grader.close()

    return asyncio.run(main())


@pytest.mark.parametrize("name", SIZES)
def test_every_gold_accepts_itself_in_a_box(name):
    pairs = [(gold, rf"So it is \boxed{{{form(gold)}}}", label) for gold in golds(name) for label, form in FORMS.items()]
    verdicts = grade_pairs([(gold, text) for gold, text, _ in pairs])
    refused = [f"{label}: {text} {v.kind.value} {v.reason}" for (_, text, label), v in zip(pairs, verdicts, strict=True) if not v.correct]
    assert not refused, f"{len(refused)} of {len(pairs)}:\n" + "\n".join(refused)


@pytest.mark.parametrize("name", SIZES)
def test_every_gold_accepts_itself_without_a_box(name):
    distinct = dict.fromkeys(golds(name))
    refused = [f"{label}: {gold}" for gold in distinct for label, form in FORMS.items() if not grade_answer(gold, form(gold), deadline=10.0).correct]
    assert not refused, f"{len(refused)}:\n" + "\n".join(refused)


# --------------------------------------------------------------------------------------------------------------- wrong pairs

_NOISE = re.compile(
    r"\s|\\left|\\right|\\[!,;: ]|\$|\\(?:text|mbox|mathrm)\s*\{[^{}]*(?:degree|inche|cm|cent|hour)[^{}]*\}(?:\^2)?|\^\{?\\circ\}?|\\?%|^[A-Za-z](?:\([a-z]\)|_\{?[a-z0-9\\ ]+\}?)?=(?![^=]*=)"
)
_BRACED = re.compile(r"\{(\w)\}")


def bare(gold):
    """The letters that are left of a gold without spacing, signs of unit, braces around single signs, and `x=` in front."""
    gold = _NOISE.sub("", gold).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    return _BRACED.sub(r"\1", gold)


def value(gold):
    """The value of a number in digits or a fraction of such, as an exact pair; None for anything else."""
    gold = bare(gold).replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+", bare(gold)) else bare(gold)
    if match := re.fullmatch(r"(-?)(\d+)\.?(\d*)", gold):
        top, bottom = int(match[2] + match[3]), 10 ** len(match[3])
    elif match := re.fullmatch(r"(-?)(?:\\frac\{?(\d+)\}?\{?(\d+)\}?|(\d+)/(\d+))", gold):
        top, bottom = (int(part) for part in match.groups()[1:] if part)
    else:
        return None
    return (-top if match[1] else top, bottom)


def same_by_rule(one, other):
    """Equality by rules of this file alone: the same letters, the same number, or the same list in another order."""
    if bare(one) == bare(other):
        return True
    a, b = value(one), value(other)
    if a and b:
        first, second = a[0] * b[1], b[0] * a[1]
        return first == second or ("%" in one and first == 100 * second) or ("%" in other and second == 100 * first)
    return sorted(bare(one).split(",")) == sorted(bare(other).split(",")) and "(" not in one + other


def falsely_accepted(pairs):
    verdicts = grade_pairs([(gold, rf"\boxed{{{answer}}}") for gold, answer in pairs])
    assert all(v.kind is not VerdictKind.UNGRADABLE for v in verdicts), [v for v in verdicts if v.kind is VerdictKind.UNGRADABLE]
    return sorted({(g, a) for (g, a), v in zip(pairs, verdicts, strict=True) if v.correct and not same_by_rule(g, a) and frozenset((g, a)) not in EQUAL_BY_CHANCE})


@pytest.mark.parametrize("seed", [0, 1])
def test_a_thousand_shuffled_pairs_are_wrong(seed):
    everything = [gold for name in SIZES for gold in dict.fromkeys(golds(name))]
    if seed:
        everything = [gold for gold in everything if not gold.isdigit()]
    draw = random.Random(seed)
    pairs = [(draw.choice(everything), draw.choice(everything)) for _ in range(1000)]
    found = falsely_accepted(pairs)
    assert not found, f"{len(found)}:\n" + "\n".join(map(str, found))


def test_golds_that_look_alike_are_told_apart():
    """Each gold against the two that follow it in order of spelling."""
    everything = sorted({gold for name in SIZES for gold in golds(name) if not gold.isdigit()})
    pairs = [(gold, other) for ahead in (1, 2) for gold, other in zip(everything, everything[ahead:], strict=False)]
    found = falsely_accepted(pairs)
    assert len(pairs) > 1000
    assert not found, f"{len(found)}:\n" + "\n".join(map(str, found))
