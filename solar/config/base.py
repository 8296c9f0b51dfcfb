"""What every stage's configuration is made of: references to stages, pointers to content, pace."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def reference(product: str, default: Any = MISSING) -> Any:
    """A field that names the stage (or, as a list, the stages) whose `product` is read.

    The plan turns the name into an edge of the graph; the id hashes the id of that stage instead of its name.
    A list may be `["*"]`: every stage of the plan that leaves this product.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"reference": product})
    return field(default=default, metadata={"reference": product})


def content(what: str, default: Any = MISSING) -> Any:
    """A field whose value points outside the configuration; the id hashes the content behind it.

    `what` is `path` (a file or folder: names and contents), `source` (a file, folder or glob: the content of the files
    that a reader of rows takes), `package` (an installed distribution: its version) or `documentation` (the same, and
    the version of Python).
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"content": what})
    return field(default=default, metadata={"content": what})


def pace(default: Any) -> Any:
    """A field that sets how fast work is done and changes no result; it is not part of the id."""
    return field(default=default, metadata={"pace": True})


@dataclass
class StageConfig:
    """The configuration of one stage. All of it, except fields of `pace`, is part of the stage's id."""

    kind: str = MISSING
    """Row of `solar.config.kinds.STAGES`."""

    def code_revision(self) -> int | None:
        """Part of the id where the code came to make something else of a few configurations; None: not of this one.

        A kind's `version` says the same of all its configurations, and renames all artifacts of the kind.
        """
        return None

    def problems(self) -> Iterator[str]:
        """Each problem with the values, as `key: what was found, what was expected`."""
        yield from ()
