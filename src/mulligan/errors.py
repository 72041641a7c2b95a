"""The errors a user can meet.

Every one of them names what is wrong *and* what to change, in one line; the command line prints the message alone and exits
with status 2. `assert` is kept for invariants that no input can break.
"""

from __future__ import annotations


class MulliganError(Exception):
    """Base class: anything a user can cause and mend. The message is complete by itself."""


class ConfigError(MulliganError, ValueError):
    """A recipe or an option is wrong. Carries every fault that was found, one per line."""

    def __init__(self, faults: str | list[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.faults,)  # so that the faults stay apart on their way out of another process


class DataError(MulliganError, ValueError):
    """A problem source cannot be read: names the file, and the line or the column."""


class ModelError(MulliganError, ValueError):
    """A model or tokenizer cannot be loaded or cannot be used: names the folder and what it lacks."""


class ContextOverflow(MulliganError, ValueError):
    """A prompt does not fit the model's context or the recipe's token cap."""


class GraderError(MulliganError, RuntimeError):
    """The grader itself is broken (not the answer it was given)."""


class RunError(MulliganError, RuntimeError):
    """A run folder cannot be written, resumed or read."""
