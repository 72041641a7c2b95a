r"""Sets of real numbers as intervals: `[0, 1)`, `x < 1 \text{ or } x > 2`, `0 \le |z| \le 3`, `\{1\} \cup (2, \infty)`, `x \ne 3`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from mulligan.grading.answers import Answer, is_name, negated

_INFINITE = {r"\infty": 1, r"+\infty": 1, r"-\infty": -1}
_ABSOLUTE = re.compile(r"\|([a-z])\|")
WHOLE_LINE = frozenset({r"\mathbb{R}", r"\R"})


@dataclass(frozen=True, slots=True)
class Region:
    """One interval. `low`, `high`: its ends, None for infinity."""

    low: Answer | None
    high: Answer | None
    closed_low: bool = False
    closed_high: bool = False


def covers(region: Region) -> tuple[bool, bool, bool, bool]:
    """What of a region is plain to see: which ends there are, and which belong to it."""
    return region.low is None, region.high is None, region.closed_low, region.closed_high


def regions_of(answer: Answer) -> list[Region] | None:
    """The intervals that make up a set of numbers, in the order written; None if it is something else."""
    kind, parts = answer.kind, answer.parts
    if kind == "interval" or (kind == "tuple" and len(parts) == 2):
        closed = (answer.signs[0] == "[", answer.signs[1] == "]") if kind == "interval" else (False, False)
        return [_between(parts[0], parts[1], *closed)]
    if kind == "set" and all(part.kind in ("number", "expression") for part in parts):
        return [Region(part, part, True, True) for part in parts]
    if kind == "union" or (kind == "list" and all(part.kind == "relation" and "!=" not in part.signs for part in parts)):
        found = [regions_of(part) for part in parts]
        if any(f is None for f in found):
            return None
        flat = [region for f in found for region in f or ()]
        # Inequalities that overlap are meant to hold together (`x > 1, x < 3`), not one or the other.
        together = kind == "list" and "or" not in answer.signs and ("and" in answer.signs or len(exact(flat) or flat) < len(flat))
        return _both(flat) if together else flat
    if kind == "difference" and len(parts) == 2 and parts[0].text in WHOLE_LINE and parts[1].kind == "set":
        return _line_without(parts[1].parts)
    if kind == "relation":
        return _of_relation(answer)
    if kind == "expression" and answer.text in WHOLE_LINE:
        return [Region(None, None)]
    return None


def variable_of(answer: Answer) -> str | None:
    """The variable that a set of numbers is given for: of an inequality, or before `\\in`; None if none is named."""
    if answer.name is not None:
        return answer.name
    if answer.kind == "list":
        names = {variable_of(part) for part in answer.parts}
        return names.pop() if len(names) == 1 else None
    names = [part.text for part in answer.parts if _is_variable(part)] if answer.kind == "relation" else []
    return names[0].strip("|") if len(names) == 1 else None


def _both(regions: list[Region]) -> list[Region] | None:
    """`x > 1` and `x < 3`: what both allow, if one bounds below and the other above."""
    low, high = [r for r in regions if r.low is not None], [r for r in regions if r.high is not None]
    if len(regions) != 2 or len(low) != 1 or len(high) != 1:
        return None
    return [Region(low[0].low, high[0].high, low[0].closed_low, high[0].closed_high)]


def _line_without(points: tuple[Answer, ...]) -> list[Region] | None:
    if not points or any(point.number is None for point in points):
        return None
    ends = [None, *sorted(points, key=lambda point: point.number.value), None]  # type: ignore[union-attr]
    return [Region(low, high) for low, high in pairwise(ends)]


def _between(low: Answer, high: Answer, closed_low: bool, closed_high: bool) -> Region:
    left, right = _INFINITE.get(low.text) == -1, _INFINITE.get(high.text) == 1
    return Region(None if left else low, None if right else high, closed_low and not left, closed_high and not right)


def _of_relation(answer: Answer) -> list[Region] | None:
    parts, signs = list(answer.parts), list(answer.signs)
    if signs and all(sign in (">", ">=") for sign in signs):  # turn round: `5 > x` is `x < 5`
        parts, signs = parts[::-1], [sign.replace(">", "<") for sign in signs[::-1]]
    variables = [i for i, part in enumerate(parts) if _is_variable(part)]
    if len(variables) != 1 or len(parts) not in (2, 3) or (len(parts) == 3 and variables != [1]):
        return None
    at = variables[0]
    if signs == ["!="]:
        other = parts[1 - at]
        return [Region(None, other), Region(other, None)]
    if not all(sign in ("<", "<=") for sign in signs):
        return None
    low, closed_low = (parts[at - 1], signs[at - 1] == "<=") if at > 0 else (None, False)
    high, closed_high = (parts[at + 1], signs[at] == "<=") if at + 1 < len(parts) else (None, False)
    low, high = _finite(low), _finite(high)
    region = Region(low, high, closed_low and low is not None, closed_high and high is not None)
    return _of_absolute(region) if _ABSOLUTE.fullmatch(parts[at].text) else [region]


def _is_variable(part: Answer) -> bool:
    return part.kind in ("expression", "text") and part.name is None and part.text not in _INFINITE and is_name(part.text)


def _finite(end: Answer | None) -> Answer | None:
    return None if end is None or end.text in _INFINITE else end


def _of_absolute(region: Region) -> list[Region] | None:
    r"""`a \le |z| \le b` for a number a of at least 0."""
    low, high = region.low, region.high
    if low is not None and (low.number is None or low.number.value < 0):
        return None
    left = None if high is None else negated(high)
    if low is None:
        return [Region(left, high, region.closed_high, region.closed_high)]
    return [Region(left, negated(low), region.closed_high, region.closed_low), Region(low, high, region.closed_low, region.closed_high)]


Ends = tuple[bool, Fraction | int, bool, bool, Fraction | int, bool]


def exact(regions: list[Region]) -> list[tuple[object, ...]] | None:
    """The set in one form, if all its ends are plain numbers: disjoint intervals in ascending order, those that touch joined."""
    found: list[Ends] = []
    for region in regions:
        low, high = _value(region.low), _value(region.high)
        if low is False or high is False:
            return None
        a, b = (Fraction(0) if low is None else low), (Fraction(0) if high is None else high)
        if low is not None and high is not None and (a > b or (a == b and not (region.closed_low and region.closed_high))):
            continue  # empty
        found.append((low is not None, a, not region.closed_low, high is None, b, region.closed_high))
    joined: list[Ends] = []
    for one in sorted(found):
        if joined and _touch(joined[-1], one):
            last = joined[-1]
            joined[-1] = (*last[:3], *max(last[3:], one[3:]))
        else:
            joined.append(one)
    return list(joined)


def _touch(left: Ends, right: Ends) -> bool:
    if left[3] or not right[0]:
        return True
    return right[1] < left[4] or (right[1] == left[4] and (left[5] or not right[2]))


def _value(end: Answer | None) -> Fraction | int | bool | None:
    if end is None:
        return None
    return False if end.number is None or end.number.percent else end.number.value
