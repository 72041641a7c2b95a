"""Source strings: `PATH.jsonl?...`, `hub:ORG/NAME:SPLIT?...`, `gym:NAME?...`, `builtin:NAME?...`, several with ` + ` between; the same everywhere."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from mulligan.errors import ConfigError, DataError
from mulligan.tasks import builtin, gym, tables
from mulligan.tasks.builtin.strategies import BLIND, LIST, best_shares, drawn_within
from mulligan.tasks.problems import ProblemSet
from mulligan.tasks.query import nearest, parse_query, positive
from mulligan.types import Problem

_SCHEMES = ("builtin", "gym", "hub")
_FORMS = "write PATH.jsonl (or .json, .csv, .parquet), hub:ORG/NAME:SPLIT, gym:NAME or builtin:NAME"


def split_source(source: str) -> tuple[str, str, dict[str, str]]:
    """Cut a source string into its scheme (`file` for a path), name and query.

    Raises:
        ConfigError: it is empty, its scheme is unknown, or its query is malformed.
    """
    name, _, query = source.partition("?")
    scheme = "file"
    match = re.match(r"([a-zA-Z_-]{2,}):", name)
    if match and not Path(name).exists():
        scheme, name = match[1], name[match.end() :]
        if scheme not in _SCHEMES:
            raise ConfigError(f"{source}: unknown kind of source {scheme!r}; {nearest(scheme, _SCHEMES)} ({_FORMS})")
    if not name:
        raise ConfigError(f"{source!r} names no problems; {_FORMS}")
    return scheme, name, parse_query(query, source)


def parts_of(source: str) -> list[str]:
    """The sources of a mixture, `A + B + C`; a source alone is its own only part. A ` + ` inside a query is written `%20+%20`."""
    return source.split(" + ") if " + " in source and not Path(source.partition("?")[0]).exists() else [source]


def load_problems(source: str, *, limit: int | None = None, seed: int = 0) -> ProblemSet:
    """Load the problems that a source string names.

    Files and the Hub: `question`, `answer`, `context` (columns; found by themselves where not given; `a.b` reaches into a
    struct), `grader` (math, numeric, text or module:function), `limit`; the Hub also `config` and `revision`. A question may be chat
    messages with one user turn; system turns are left out, which a remark says. Exact duplicates are set aside. `gym:` takes its
    generator's own configuration, `size` and `seed` among it; `builtin:` the keyword arguments of the generator's `generate`. Their streams may repeat a problem. The sources of a mixture take turns,
    one problem each, until each is used up; one that is to weigh more is given more problems, or named twice with two seeds.

    Args:
        source: the source string.
        limit: keep the first so many; the smaller of this and the source's own `limit` holds.
        seed: of generated training streams whose source string gives none of its own. Test splits of `builtin:` do not
            depend on it: they are the same for every run.

    Raises:
        ConfigError: the source string is wrong: unknown kind, name or key (with the nearest known one), bad value.
        DataError: what it names cannot be read, is empty, or has a broken line (with its number).
    """
    parts = parts_of(source)
    if len(parts) > 1:
        sets = [load_problems(part, limit=limit, seed=seed) for part in parts]
        turns = (p for row in itertools.zip_longest(*(s.problems for s in sets)) for p in row if p is not None)
        aside, remarks = tuple(one for s in sets for one in s.set_aside), tuple(text for s in sets for text in s.remarks)
        return ProblemSet(tuple(itertools.islice(turns, limit)), source, aside, remarks)
    scheme, name, query = split_source(source)
    own = positive(query.pop("limit"), "limit", source) if "limit" in query else None
    if limit is not None and limit < 1:
        raise ConfigError(f"{source}: limit={limit} must be at least 1")
    limit = min((n for n in (own, limit) if n is not None), default=None)
    if scheme == "gym":
        found = ProblemSet(tuple(gym.load(name, query, source=source, limit=limit, seed=seed)), source)
    elif scheme == "builtin":
        found = ProblemSet(tuple(builtin.load(name, query, source=source, limit=limit, seed=seed)), source)
    else:
        found = tables.load(scheme, name, query, source=source, limit=limit)
    if not found.problems:
        raise DataError(f"{source}: no problems in it; check the file, the split or the size asked for")
    return found


def demonstrator(source: str) -> Callable[[Problem, random.Random], str]:
    r"""The function that writes one attempt at a problem of this source, for the supervised warm-up.

    A `builtin:` task shows its format under a random strategy. Any other source shows the gold answer in a box, which teaches the
    format (`\boxed{7}` and nothing else) and, with many steps, the task. In a mixture each problem is shown as its own source shows it.
    """
    parts = parts_of(source)
    if len(parts) > 1:
        of_part = {part: demonstrator(part) for part in parts}
        return lambda problem, rng: of_part[problem.source](problem, rng)
    scheme, name, query = split_source(source)
    if scheme == "builtin":
        return builtin.demonstrator(name, query, source=source)
    return lambda problem, _: f"\\boxed{{{problem.answer}}}"


def ceilings(problems: ProblemSet, attempts: Sequence[int], *, shown: Collection[str] | None = frozenset()) -> dict[str, dict[int, float]]:
    """What is known exactly of a problem set: label -> number of attempts -> accuracy in [0, 1].

    Of a built-in task `best possible` is the best accuracy under the feedback that is shown, `best independent sampling` that of as many draws from one
    distribution; a task may have further labels. A number whose value cannot be computed is left out. Values hold on exactly these
    problems, for policies that cannot know a single problem's hidden part (its reading, number or code) beforehand. Of any other source, whose
    gold answers are all known: what those solve who do not read the question (`blind_baselines`). Of a mixture it is known what is known of all its parts: the question says which part a problem is from.

    Args:
        shown: fields of the verdict that the feedback shows; None: any of them (a function writes the feedback).
    """
    if not problems.problems:
        return {}
    if len(parts_of(problems.source)) > 1:
        of_source: dict[str, list[Problem]] = {}
        for problem in problems.problems:
            of_source.setdefault(problem.source, []).append(problem)
        if problems.source in of_source:  # problems made by hand, which name the mixture and not their part
            return {}
        parts = [(len(some), ceilings(ProblemSet(tuple(some), source), attempts, shown=shown)) for source, some in of_source.items()]
        labels = [label for label in parts[0][1] if all(label in found for _, found in parts)]
        return {label: _mean_by_size([(size, found[label]) for size, found in parts]) for label in labels}
    scheme, name, _ = split_source(problems.source)
    ks = sorted(set(attempts))
    return builtin.ceilings(name, problems.problems, ks, shown) if scheme == "builtin" else blind_baselines([p.answer for p in problems.problems], ks)


def blind_baselines(golds: Sequence[str], attempts: Sequence[int]) -> dict[str, dict[int, float]]:
    """What can be solved by knowing how often each gold answer comes, and nothing of the question: by naming the commonest ones in turn, and by
    drawing independently from the best distribution. List and distribution are fitted to these answers: on others they do no better, and few
    problems with different answers flatter them (k of n). Answers are one where their texts are, but for case and spaces at the ends: where a
    grader takes several for right, a list could do better. Empty if an answer is not known.
    """
    if not all(golds):
        return {}
    counts = [count for _, count in Counter(gold.strip().casefold() for gold in golds).most_common()]
    shares = [count / len(golds) for count in counts]
    return {
        LIST: {k: sum(counts[:k]) / len(golds) for k in attempts},
        BLIND: {k: drawn_within(shares, best_shares(shares, k), k) for k in attempts},
    }


def _mean_by_size(parts: Sequence[tuple[int, dict[int, float]]]) -> dict[int, float]:
    """Mean over parts of so many problems each, for the numbers of attempts that all of them have."""
    total = sum(size for size, _ in parts)
    return {k: sum(size * by_k[k] for size, by_k in parts) / total for k in parts[0][1] if all(k in by_k for _, by_k in parts)}
