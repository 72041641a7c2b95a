"""Figures of several seeds or problem sets that come without values per problem: their mean, and how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mulligan.evaluation import Interval


def over_seeds(found: Sequence[Interval]) -> Interval | None:
    """Of one seed its interval; of several their mean, with the lowest and the highest in the interval's place. None of none."""
    if len(found) < 2:
        return found[0] if found else None
    values = [one.mean for one in found]
    return Interval(sum(values) / len(values), min(values), max(values), found[0].n)


def over_tables(found: Sequence[Mapping[str, Any] | None]) -> Interval | None:
    """`over_seeds` of intervals as they stand in eval.json; those without a mean take no part."""
    return over_seeds([Interval.from_json(table) for table in found if table and table.get("mean") is not None])


def hulls(seeds: Sequence[Mapping[int, Interval]]) -> dict[int, Interval]:
    """By k: the mean over seeds, from the lowest lower bound to the highest upper one."""
    shared = sorted(set.intersection(*(set(by_k) for by_k in seeds)))
    return {k: Interval(sum(s[k].mean for s in seeds) / len(seeds), min(s[k].low for s in seeds), max(s[k].high for s in seeds), seeds[0][k].n) for k in shared}


def without_bounds(found: Sequence[Interval]) -> Interval:
    """The mean over problem sets of figures of which no joint interval is known."""
    mean = sum(one.mean for one in found) / len(found)
    return Interval(mean, math.nan, math.nan, sum(one.n for one in found))
