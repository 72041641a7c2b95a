"""`mulligan settings`."""

from __future__ import annotations

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
        sections = dict.fromkeys(one.key.partition(".")[0] for one in list_settings())
        raise ConfigError(f"no setting begins with {prefix!r}: use {', '.join(sections)}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for header in ("setting", "default", "meaning"):
        table.add_column(header, overflow="fold", no_wrap=header == "setting")
    for one in found:
        values = "" if one.values == ("true", "false") else " | ".join(one.values)
        meaning = "; ".join(part for part in (one.meaning, values if values not in one.meaning else "") if part)
        table.add_row(Text(one.key), Text("has to be set" if one.default is None else one.default), Text(meaning))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
