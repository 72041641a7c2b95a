"""`mulligan settings`."""

from __future__ import annotations

import difflib
import sys
from typing import Annotated

import typer

from mulligan.cli.app import app
from mulligan.errors import ConfigError


@app.command("settings")
def settings(prefix: Annotated[str, typer.Argument(metavar="[KEY]", help="a section or a setting: protocol, loss.kl, ...; by default all")] = "") -> None:
    """What can be set in a recipe, or after it as KEY=VALUE: each setting with its default and its meaning."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mulligan.settings import list_settings

    found = list_settings(prefix)
    if not found:
        raise ConfigError(f"no setting begins with {prefix!r}: {_meant(prefix, [one.key for one in list_settings()])}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for header in ("setting", "default", "meaning"):
        table.add_column(header, overflow="fold", no_wrap=header == "setting")
    for one in found:
        values = "" if one.values == ("true", "false") else " | ".join(one.values)
        meaning = "; ".join(part for part in (one.meaning, values if values not in one.meaning else "") if part)
        table.add_row(Text(one.key), Text("has to be set" if one.default is None else one.default), Text(meaning))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _meant(name: str, keys: list[str]) -> str:
    """What may have been meant by a name that is none: settings called so in any section, else what is written nearly so, else the sections."""
    sections = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    near = [key for key in keys if key.rpartition(".")[2] == name] or difflib.get_close_matches(name, [*sections, *keys], n=1, cutoff=0.7)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"use {', '.join(sections)}"
