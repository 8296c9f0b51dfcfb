"""Errors that a user can correct.

Every message is one line: where (key or file:line), what was found, what was expected, a way out. The commands print it
as `error: ...` and exit 1. Any other exception is a bug and shows its traceback.

Messages hold names from files that nobody vouches for. `printable` is the one door from such text to a terminal.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MOST_CHARACTERS = 2000
"""Of a line that is printed; a longer one loses its middle."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, clears the screen, begins a line, turns text around, or cannot be encoded."""


def printable(text: str, keep: str = "") -> str:
    r"""The text with control characters as escapes, except those of `keep`.

    >>> printable("a\x1b[2J\nerror: b")
    'a\\x1b[2J\\nerror: b'
    """
    return _CONTROL.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def printable_line(text: str) -> str:
    """The text as one line of at most `MOST_CHARACTERS`: control characters as escapes, a long middle left out."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS * 2 // 3]} ... {text[-MOST_CHARACTERS // 4 :]}"
    return printable(text)


class SolarError(Exception):
    """Base class; the commands catch it. Several arguments are several problems, a line each."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """A line for each problem, fit for a terminal."""
        return [printable_line(str(problem)) for problem in self.args]


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


@contextmanager
def library_errors(where: object, way_out: str, kind: type[SolarError]) -> Iterator[None]:
    """Around a call of a library that reads a foreign file: whatever it raises becomes a `kind` in one line.

    No list of exceptions is complete: tokenizers raises plain `Exception`, and a panic in Rust is not even one. Keep
    the block as small as the call, so that it hides no mistake of ours.
    """
    try:
        yield
    except (SolarError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        name = "" if isinstance(error, (OSError, ValueError)) and str(error) else f"{type(error).__name__}: "
        raise kind(f"{where}: cannot be read ({name}{one_line(error)}); {way_out}") from error


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
