"""The application that every command registers with, and what several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="mulligan",
    help="Teach language models to learn from their failures: train, evaluate and look at several attempts per question.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="recipe (TOML)")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="settings of the recipe to change, e.g. optimizer.lr=1e-5")]


def quiet() -> None:
    """No bars of transformers' between ours: loading a model's shards is not what the user waits for."""
    from transformers.utils import logging

    logging.disable_progress_bar()
