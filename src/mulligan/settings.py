"""Every setting of a recipe by its dotted key: default, what it may be, and what it means. `mulligan settings` prints them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mulligan.config import AttemptBudget, Recipe


@dataclass(frozen=True, slots=True)
class Setting:
    """`default` is None where a recipe has to set it; `values`: the ones allowed, where they are few."""

    key: str
    default: str | None
    values: tuple[str, ...]
    meaning: str


def list_settings(prefix: str = "") -> list[Setting]:
    """All settings, or those whose key begins with `prefix` (`loss`, `model.tiny`), in the order of a recipe."""
    return [one for one in _settings(Recipe, "") if not prefix or one.key == prefix or one.key.startswith(f"{prefix.rstrip('.')}.")]


def _settings(section: type[BaseModel], where: str, defaults: BaseModel | None = None) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        default = getattr(defaults, name) if defaults is not None else field.default
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not AttemptBudget:
            yield from _settings(inner, f"{where}{name}.", default if isinstance(default, inner) else None)
            continue
        literals = [one for part in (inner, *get_args(inner)) if get_origin(part) is Literal for one in get_args(part)]
        values = ("true", "false") if inner is bool else tuple(map(str, literals))
        yield Setting(f"{where}{name}", None if default is PydanticUndefined else _written(default), values, field.description or "")


def _written(value: Any) -> str:
    """A value as one writes it after KEY=."""
    if isinstance(value, NoneType):
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text and text == text.strip() else f'"{text}"'
