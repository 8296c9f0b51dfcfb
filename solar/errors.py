"""Errors that a user can correct.

Every message is one line: where (key or file:line), what was found, what was expected, a way out. The commands print it
as `error: ...` and exit 1. Any other exception is a bug and shows its traceback.
"""

import difflib
from collections.abc import Iterable


class SolarError(Exception):
    """Base class; the commands catch it."""


class ConfigError(SolarError):
    """A wrong key or value in the configuration."""


class PlanError(SolarError):
    """Stages that do not fit together: a missing reference, a cycle, an impossible layer plan."""


class DataError(SolarError):
    """Text or tokens that cannot be used."""


class ArtifactError(SolarError):
    """An artifact folder that is incomplete, damaged or in use."""


class ArtifactInUse(ArtifactError):
    """An artifact folder that another process is building."""


class StageError(SolarError):
    """A stage that could not do its work."""


class Interrupted(SolarError):
    """A signal stopped the run; finished work is saved, and the same command resumes (exit code 75)."""


def one_line(message: object) -> str:
    """A library's message as part of one line, 200 characters at most.

    >>> one_line("no such\\n  layer")
    'no such layer'
    """
    return " ".join(str(message).split())[:200]


def hint(name: str, known: Iterable[str]) -> str:
    """End of a message: the known name that is closest, or all known names.

    >>> hint("upscal", ["upscale", "sft"])
    "; did you mean 'upscale'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(sorted(known)) or 'none'}"
