"""`python -m solar.merge MODEL... OUT method=slerp t=0.5`: merge model folders into a new one.

Settings are those of the stage (`solar.config.merging`), written `name=value`; `base` is a folder. Methods:
method=average|slerp|task_arithmetic|ties|dare|dare_ties|model_stock|window
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType

from omegaconf import MISSING

from solar import arguments
from solar.artifacts.damage import refuse_damaged
from solar.config.merging import MergeConfig
from solar.errors import ConfigError, printable
from solar.merging.merge import MergeReport, merge, prepare


@dataclass
class MergeOptions(MergeConfig):
    """Options of the command line."""

    threads: int | None = None
    dry_run: bool = False
    """Check and say what would be written, and write nothing."""


def _merge(names: list[str], options: MergeOptions) -> None:
    if options.method == MISSING:
        raise ConfigError("method: not set; --help names the methods")
    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"threads: found {options.threads}, expected at least 1")
    settings = {item.name: getattr(options, item.name) for item in fields(MergeConfig)}
    config = MergeConfig(**(settings | {"kind": "merge", "models": names[:-1]}))
    *models, target = (Path(name).expanduser() for name in names)
    base = None if config.base is None else Path(config.base).expanduser()
    if options.dry_run:
        report = prepare(models, target, config, base, options.threads).report
        line = f"would write {in_words(report, target)}; nothing written"
    else:
        for model in (*models, *([] if base is None else [base])):
            refuse_damaged(model)
        report = merge(models, target, config, base, options.threads)
        line = f"wrote {in_words(report, target)}, {report.wall_seconds:.1f} s"
    sys.stdout.writelines(f"{printable(text)}\n" for text in (line, *report.notes))


def in_words(report: MergeReport, target: Path) -> str:
    """The report, for people."""
    return (
        f"{target}: {report.models} models, {report.tensors} tensors, {report.parameters:,} parameters, "
        f"{report.size_bytes / 1e9:.2f} GB, {report.memory_bytes / 1e6:.0f} MB of memory"
    )


def stop(number: int, frame: FrameType | None) -> None:
    """End on SIGTERM as on an error: the unfinished folder is removed."""
    sys.exit(128 + number)


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    signal.signal(signal.SIGTERM, stop)
    return arguments.run(words, __doc__ or "", MergeOptions, ("MODEL...", "OUT"), _merge, hidden=("kind", "models"))


if __name__ == "__main__":
    sys.exit(main())
