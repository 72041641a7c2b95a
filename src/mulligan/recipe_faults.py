"""What pydantic finds wrong with a recipe, in sentences that name the key and say what to write. Torch-free."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel


def explain(error: Any, recipe: type[BaseModel]) -> list[str]:
    """One pydantic error of a recipe as sentences that name the key and the fix."""
    where = ".".join(str(part) for part in error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        known = _known_keys(recipe, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        # lr=1e-5 means optimizer.lr: a key of another section is meant before one that only looks like it.
        if elsewhere := [key for key in _all_keys(recipe) if key.rpartition(".")[2] == error["loc"][-1]]:
            return [f"unknown key {where!r}; did you mean {' or '.join(map(repr, elsewhere[:3]))}?"]
        hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(sorted(known))
        return [f"unknown key {where!r}; {hint}"]
    if kind == "missing":
        if isinstance(error["loc"][-1], int):  # a place in a list
            key = ".".join(map(str, error["loc"][:-1]))
            return [f"{key}: {error['input']!r} has too few values: write as many as the default has (mulligan settings {key})"]
        return [f"{where!r} is missing: set it in the recipe"]
    if kind == "model_type":
        known = _known_keys(recipe, error["loc"])
        first = next((key for key in ("path", "train", "steps") if key in known), known[0] if known else "KEY")
        return [f"{where}: {error['input']!r} is no section: set its keys one by one, e.g. {where}.{first}=..."]
    if kind == "tuple_type":
        return [f"{where}: {error['input']!r} is no list: write it in brackets, e.g. [{error['input']!r}]"]
    message = str(error["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        near = difflib.get_close_matches(str(error["input"]), [w.strip("'") for w in re.findall(r"'[^']*'", message)], n=1)
        message = f"{error['input']!r} is not known; " + message.replace("Input should be", "use") + (f" (did you mean {near[0]!r}?)" if near else "")
    lines = message.split("\n")
    return [f"{where}: {line}" if where and not line.startswith(where) else line for line in lines]


def _all_keys(section: type[BaseModel], where: str = "") -> Iterator[str]:
    """The dotted keys of all settings below a section."""
    for name in section.model_fields:
        inner = _section_of(section, name)
        if inner is None or name == "attempts":  # written as one value: uniform(1,5)
            yield f"{where}{name}"
        else:
            yield from _all_keys(inner, f"{where}{name}.")


def _section_of(section: type[BaseModel], name: Any) -> type[BaseModel] | None:
    field = section.model_fields.get(name)
    candidates = [field.annotation, *get_args(field.annotation)] if field else []
    return next((a for a in candidates if isinstance(a, type) and issubclass(a, BaseModel)), None)


def _known_keys(recipe: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    model: Any = recipe
    for part in loc:
        model = _section_of(model, part)
        if model is None:
            return []
    return list(model.model_fields)
