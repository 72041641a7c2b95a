"""Problems of reasoning-gym, graded by its own `score_answer`.

A few generators (isomorphic_strings, knight_swap, polynomial_multiplication, ransom_note, word_ladder) iterate over sets: the
same seed gives other items, and other ids, in another process unless PYTHONHASHSEED is fixed. codeio ignores part of its seed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from mulligan.errors import ConfigError, DataError
from mulligan.tasks.problems import make_problem
from mulligan.tasks.query import check_keys, nearest, positive, typed
from mulligan.types import Problem

SEED_STRIDE = 1_000_003
"""reasoning-gym draws item i from seed + i, so that neighbouring seeds share all but one of their items. Our seed s is its
seed s * SEED_STRIDE: two seeds give two sets (of up to a million items) that do not overlap, as train and test must not."""

_DEFAULT_SIZE = 500


def load(name: str, query: dict[str, str], *, source: str, limit: int | None, seed: int) -> list[Problem]:
    """The first `size` items of one generator. `meta` holds what its scorer needs: `{"dataset": name, "entry": whole entry}`.

    A generator that gives no gold answer (graph_color, rush_hour, ...) yields problems with `answer = ""`.

    Raises:
        ConfigError: unknown generator or key, or a value that the generator's own validation refuses.
        DataError: an item cannot be generated.
    """
    datasets = _registry(source)
    if name not in datasets:
        raise ConfigError(f"{source}: reasoning-gym has no generator {name!r}; {nearest(name, datasets)}")
    if name == "composite":
        raise ConfigError(f"{source}: composite takes other generators, which a source string cannot hold; name one of them instead")
    config_class = datasets[name][1]
    fields = {f.name: f for f in dataclasses.fields(config_class) if f.init}
    check_keys(query, {*fields, "size", "seed", "limit"}, source)
    size = positive(query.pop("size"), "size", source) if "size" in query else _DEFAULT_SIZE
    seed = typed(query.pop("seed"), int, "seed", source) if "seed" in query else seed
    settings = {key: _value(text, fields[key]) for key, text in query.items()}
    settings |= {"size": size, "seed": seed * SEED_STRIDE % 2**31}
    dataset = _create(name, settings, source)
    return [_problem(name, dataset, i, source) for i in range(min(size, limit or size))]


def _registry(source: str) -> dict[str, tuple[Any, Any]]:
    try:
        import reasoning_gym.factory  # slow to import, and needed for this kind of source only
    except ImportError:
        raise ConfigError(f"{source}: needs the package reasoning-gym; install it") from None
    return reasoning_gym.factory.DATASETS


def _create(name: str, settings: dict[str, Any], source: str) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(name, **settings)
    except (AssertionError, ValueError, TypeError, AttributeError, KeyError) as error:
        # Generators validate with bare asserts; some have no message, and wrong types fail in the comparison itself.
        said = str(error) or "its validation failed"
        given = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k not in ("size", "seed")) or "the defaults"
        raise ConfigError(f"{source}: the generator refuses {given} ({said}); change the values") from None


def _problem(name: str, dataset: Any, index: int, source: str) -> Problem:
    try:
        entry = dataset[index]
        question, answer = str(entry["question"]), entry["answer"]
    except Exception as error:  # any fault inside a third-party generator, named with its item
        raise DataError(f"{source}: item {index} cannot be generated ({type(error).__name__}: {error}); change the settings") from error
    return make_problem(question, "" if answer is None else str(answer), "gym", source, {"dataset": name, "entry": entry})


def _value(text: str, field: dataclasses.Field) -> Any:
    """A query value as JSON (`3`, `true`, `[1,2]`), else text; `a,b` is a list where the setting's default is one."""
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory() if callable(field.default_factory) else None
    if isinstance(default, (list, tuple)) and not text.startswith("["):
        items = [_scalar(part) for part in text.split(",")]
        return tuple(items) if isinstance(default, tuple) else items
    value = _scalar(text)
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value


def _scalar(text: str) -> Any:
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value
