"""`python -m solar.data show STAGE`: print prepared samples, trained tokens in green.

STAGE is a prepare_data stage of the last run, or the folder of a tokens artifact.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from solar.arguments import run
from solar.artifacts.damage import refuse_damaged
from solar.artifacts.last_run import last_run
from solar.data.store.header import HEADER
from solar.errors import DataError


def find_tokens(name: str, root: Path) -> Path:
    """The tokens artifact that a path, or the name of a stage of the last run under `root`, stands for.

    Raises `DataError` if there is none.
    """
    if (Path(name) / HEADER).is_file():
        return Path(name)
    latest = last_run(root)
    folders = {} if latest is None else latest.folders
    tokens = {stage: folder for stage, folder in folders.items() if (folder / HEADER).is_file()}
    if name not in tokens:
        known = (
            f"there is no run under {root / 'runs'}"
            if latest is None
            else f"the last run ({latest.record}) has {', '.join(tokens) or 'none'}"
        )
        raise DataError(f"{name}: no folder with {HEADER} and no stage that left one; {known}")
    return tokens[name]


@dataclass
class ShowOptions:
    """Options of the command line."""

    root: Path = Path("outputs")
    """Where the runs are (`paths.root`)."""
    split: str = "train"
    count: int = 3
    """Rows to print."""
    start: int = 0
    """Position of the first row."""
    seed: int = 0
    """The training stage's seed: it decides the order of rows."""


def _show(names: list[str], options: ShowOptions) -> None:
    if names[0] != "show":
        raise DataError(f"{names[0]}: no such command, expected: python -m solar.data show STAGE")
    if options.start < 0 or options.count < 0:
        raise DataError(f"start, count: found {options.start} and {options.count}, expected 0 or more")
    folder = find_tokens(names[1], options.root)
    refuse_damaged(folder)
    from solar.data.show import show as parts  # imports torch and transformers, which `--help` does not need

    console = Console()
    for part in parts(folder, options.split, options.count, options.start, options.seed):
        console.print(part)


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run(words, __doc__ or "", ShowOptions, ("show", "STAGE"), _show)


if __name__ == "__main__":
    sys.exit(main())
