"""What a user did, found or lacks that solar cannot work with.

Every message says where (the key or file:line), what was found, what was expected and a way out, in one line.
`solar.run` prints them as `error: ...` and exits 1; any other exception is a bug and shows its traceback.
"""

import difflib
from collections.abc import Iterable


class SolarError(Exception):
    """The family; the command-line tools catch this and nothing else."""


class ConfigError(SolarError):
    """A key or value of the configuration."""


class PlanError(SolarError):
    """Stages that do not fit together: a missing reference, a cycle, an impossible layer plan."""


class DataError(SolarError):
    """Text or tokens that cannot be used."""


class ArtifactError(SolarError):
    """A stage's directory that is incomplete, damaged or in use."""


class ArtifactInUse(ArtifactError):
    """A stage's directory that another process is building."""


class StageError(SolarError):
    """A stage that could not do its work."""


class Interrupted(SolarError):
    """A signal asked to stop; what was done is saved, and the same command goes on from there (exit code 75)."""


def one_line(told: object) -> str:
    """What a library says, as part of a line of ours.

    >>> one_line("no such\\n  layer")
    'no such layer'
    """
    return " ".join(str(told).split())[:200]


def hint(name: str, known: Iterable[str]) -> str:
    """What may have been meant.

    >>> hint("upscal", ["upscale", "sft"])
    "; did you mean 'upscale'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(sorted(known)) or 'none'}"
