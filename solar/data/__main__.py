"""`python -m solar.data show STAGE`: print prepared samples, trained tokens in colour."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from solar.artifacts.last_run import last_run
from solar.data.store.header import HEADER
from solar.errors import DataError, SolarError


def find_tokens(name: str, root: Path) -> Path:
    """The tokens artifact that a path, or the name of a stage of the last run under `root`, stands for.

    Raises `DataError` if there is none.
    """
    if (Path(name) / HEADER).is_file():
        return Path(name)
    run = last_run(root)
    folders = {} if run is None else run.folders
    tokens = {stage: folder for stage, folder in folders.items() if (folder / HEADER).is_file()}
    if name not in tokens:
        known = (
            f"there is no run under {root / 'runs'}"
            if run is None
            else f"the last run ({run.record}) has {', '.join(tokens) or 'none'}"
        )
        raise DataError(f"{name}: no folder with {HEADER} and no stage that left one; {known}")
    return tokens[name]


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 1 after one line about what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m solar.data", description="Look at prepared data.")
    show = parser.add_subparsers(required=True).add_parser("show", help="print samples, trained tokens in green")
    show.add_argument("stage", help="a prepare_data stage of the last run, or the folder of a tokens artifact")
    show.add_argument("--root", type=Path, default=Path("outputs"), help="where runs are (paths.root)")
    show.add_argument("--split", default="train")
    show.add_argument("--count", type=int, default=3, help="rows to print")
    show.add_argument("--start", type=int, default=0, help="position of the first")
    show.add_argument("--seed", type=int, default=0, help="the training stage's: decides the order of rows")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.start < 0 or chosen.count < 0:
            raise DataError(f"--start, --count: found {chosen.start} and {chosen.count}, expected 0 or more")
        folder = find_tokens(chosen.stage, chosen.root)
        from solar.data.show import show as parts  # takes torch and transformers, which `--help` does not

        console = Console()
        for part in parts(folder, chosen.split, chosen.count, chosen.start, chosen.seed):
            console.print(part)
    except SolarError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
