"""The command line: arguments to calls, errors to one line each. A module for each kind of command.

Heavy imports stand inside the commands, so that `--help` and a faulty recipe answer at once.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence

import typer

from mulligan import __version__
from mulligan.cli import evaluating, grading, looking, settings, training
from mulligan.cli.app import app
from mulligan.errors import ConfigError, MulliganError
from mulligan.visible import visible

__all__ = ["app", "evaluating", "grading", "looking", "main", "settings", "training"]

# typer carries click within itself or beside itself, by version; this is the class of all its usage errors in either case.
UsageError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

USES_FUNCTIONS = ("check", "train", "eval", "grade", "reproduce")
"""Commands for which a recipe may name a function beside it: feedback = "my_task:hint". The others look at folders that may be another's, and run nothing that lies there."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for anything that the user can mend, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in USES_FUNCTIONS and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: a file of that name in the folder must not take the place of a library
    for stream in (sys.stdout, sys.stderr):  # what the terminal's encoding lacks is escaped; the work behind it is done
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # type: ignore[assignment]
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="mulligan", standalone_mode=False)
        if status == INTERRUPTED:  # typer makes an exit status of the exception, or lets it pass, by version
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except ConfigError as error:
        return _fail(error.faults)
    except MulliganError as error:
        return _fail([str(error)])
    except UsageError as error:
        error.show()  # type: ignore[attr-defined]
        return 2
    except (KeyboardInterrupt, typer.Abort):
        goes_on = {"eval": ": the same command goes on from the pieces that are finished", "train": ": the same command with --resume goes on from the last checkpoint", "quickstart": ": the same command goes on where it was", "reproduce": ": the same command goes on where it was"}
        print(f"interrupted{goes_on.get(arguments[0] if arguments else '', '')}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough (mulligan ... | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(faults: Sequence[str]) -> int:
    for fault in dict.fromkeys(faults):
        print("error: " + visible(" ".join(fault.split())), file=sys.stderr)
    return 2


@app.command()
def version() -> None:
    """Print the versions of mulligan and of what it stands on."""
    from importlib.metadata import version as version_of
    from platform import python_version

    others = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "transformers"))
    print(f"mulligan {__version__} (python {python_version()}, {others})")
