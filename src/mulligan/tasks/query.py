"""The `?key=value&...` part of a source string: parsing, known keys, typed values."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import unquote

from mulligan.errors import ConfigError


def parse_query(text: str, source: str) -> dict[str, str]:
    """`a=1&b=x%20y` as a dict. `+` stays `+`; `%xx` is decoded. Raises ConfigError on a missing `=` or a key given twice."""
    query: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        key, equals, value = part.partition("=")
        key = unquote(key).strip()
        if not equals or not key:
            raise ConfigError(f"{source}: {part!r} is not key=value; write NAME?key=value&key=value")
        if key in query:
            raise ConfigError(f"{source}: key {key!r} is given twice; keep one")
        query[key] = unquote(value)
    return query


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the nearest known name, else the list of all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(names)


def check_keys(query: Iterable[str], known: Iterable[str], source: str) -> None:
    """Raise ConfigError, with every fault, if a key is not among the known ones."""
    names = sorted(known)
    faults = []
    for key in query:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            guess = f"did you mean {near[0]!r}? " if near else ""
            faults.append(f"{source}: unknown key {key!r}; {guess}Known keys: {', '.join(names)}")
    if faults:
        raise ConfigError(faults)


def positive(text: str, key: str, source: str) -> int:
    """A whole number of at least 1, or ConfigError."""
    value = typed(text, int, key, source)
    if value < 1:
        raise ConfigError(f"{source}: {key}={text} must be at least 1")
    return value


def typed(text: str, kind: Any, key: str, source: str) -> Any:
    """A query value as `kind`: int, float, bool, str, a Literal of strings, or one of these or None.

    Raises:
        ConfigError: the text is not of that kind; names the values allowed.
    """
    if get_origin(kind) in (Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        (kind,) = (k for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if text not in choices:
            raise ConfigError(f"{source}: {key}={text!r} is not one of {', '.join(choices)}")
        return text
    if kind is str:
        return text
    try:
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        names = {int: "a whole number", float: "a number", bool: "true or false"}
        raise ConfigError(f"{source}: {key}={text!r} must be {names.get(kind, kind)}") from None


def keyword_types(function: Any) -> dict[str, Any]:
    """The keyword-only parameters of a function, with their types."""
    hints = typing.get_type_hints(function)
    return {name: hints[name] for name in function.__kwdefaults__ or {}}
