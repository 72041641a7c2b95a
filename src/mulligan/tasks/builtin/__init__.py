"""Our own small tasks. Each module has `generate(...) -> list[Problem]`, `grade(problem, text) -> Verdict` and
`demonstrate(problem, rng) -> str`; the keyword arguments of `generate` and `demonstrate` are the keys of its source string. Where
bounds are known it also has `ceilings(problems, attempts, shown)`."""

from __future__ import annotations

import functools
import importlib
import random
from collections.abc import Callable, Collection, Sequence
from types import ModuleType
from typing import Any

from mulligan.errors import ConfigError
from mulligan.tasks.query import check_keys, keyword_types, nearest, typed
from mulligan.types import Problem

GENERATORS = {
    "readings": "mulligan.tasks.builtin.readings",
    "guess": "mulligan.tasks.builtin.guess",
    "codes": "mulligan.tasks.builtin.codes",
    "product": "mulligan.tasks.builtin.product",
}


def load(name: str, query: dict[str, str], *, source: str, limit: int | None, seed: int) -> list[Problem]:
    """Generate the problems of `builtin:NAME?...`. The run's `seed` moves training streams only; test splits stay put.

    Raises:
        ConfigError: unknown name or key (with the nearest known one), or a bad value.
    """
    module, options = _options(name, query, source)
    accepted = keyword_types(module.generate)
    arguments = {key: value for key, value in options.items() if key in accepted}
    if options.get("split", "train") == "train":
        arguments.setdefault("seed", seed)
    try:
        problems = module.generate(source=source, **arguments)
    except ConfigError as error:
        raise ConfigError([f"{source}: {fault}" for fault in error.faults]) from None
    return problems[:limit]


def demonstrator(name: str, query: dict[str, str], *, source: str) -> Callable[[Problem, random.Random], str]:
    """`demonstrate` of the named task, with the options of the source string.

    Raises:
        ConfigError: unknown name or key, or a bad value.
    """
    module, options = _options(name, query, source)
    accepted = keyword_types(module.demonstrate)
    return functools.partial(module.demonstrate, **{key: value for key, value in options.items() if key in accepted})


def ceilings(name: str, problems: Sequence[Problem], attempts: Sequence[int], shown: Collection[str] | None) -> dict[str, dict[int, float]]:
    """`ceilings` of the named task, `best` and `independent` among its labels; empty for a task that has none."""
    known = getattr(importlib.import_module(GENERATORS[name]), "ceilings", None)
    return known(problems, attempts, shown) if known and problems else {}


def _options(name: str, query: dict[str, str], source: str) -> tuple[ModuleType, dict[str, Any]]:
    if name not in GENERATORS:
        raise ConfigError(f"{source}: there is no built-in task {name!r}; {nearest(name, GENERATORS)}")
    module = importlib.import_module(GENERATORS[name])
    kinds = keyword_types(module.generate) | keyword_types(module.demonstrate)
    kinds.pop("source", None)
    keys = {key: text for key, text in query.items() if key != "limit"}
    check_keys(keys, {*kinds, "limit"}, source)
    return module, {key: typed(text, kinds[key], key, source) for key, text in keys.items()}
