"""`python -m solar.merge A B OUT method=slerp t=0.5`: merge model folders into a new one.

Settings are those of the stage (`solar.config.merging`), written `name=value` as on Hydra's command line; `base` is a
folder. Besides: `threads=N`, and `dry_run=true`, which checks and tells but writes nothing.
"""

import difflib
import re
import signal
import sys
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from solar.config.merging import MergeConfig
from solar.errors import ConfigError, SolarError
from solar.merging.merge import MergeReport, merge, prepare

USAGE = "python -m solar.merge MODEL... OUT method=average|slerp|task_arithmetic|ties|dare|dare_ties|model_stock|window"
OWN = ("threads", "dry_run")
"""Settings of the command that are not the stage's."""
EXPECTED = {
    "weights": "expected a list, such as weights=[0.5,0.5]",
    "densities": "expected a list, such as densities=[0.5,0.5]",
    "t": "expected a number",
    "scale": "expected a number",
    "density": "expected a number",
    "seed": "expected a whole number",
}
"""What to say of a value of the wrong type; of other settings OmegaConf's own words."""


def parse(arguments: list[str]) -> tuple[MergeConfig, Path, dict[str, Any]]:
    """Command line -> what to merge and how, where to, and the command's own settings."""
    settings = [argument for argument in arguments if re.match(r"[a-z_]+=", argument)]
    folders = [argument for argument in arguments if argument not in settings]
    if len(folders) < 2:
        raise ConfigError(f"found {len(folders)} folders, expected models and a target; usage: {USAGE}")
    stage = OmegaConf.structured(MergeConfig(kind="merge", models=folders[:-1]))
    own: dict[str, Any] = {}
    for setting in settings:
        name, _, written = setting.partition("=")
        check_known(name)
        if not written or sum(other.startswith(f"{name}=") for other in settings) > 1:
            raise ConfigError(f"{name}: found {'it twice' if written else 'no value'}, expected one value")
        try:
            value = OmegaConf.from_dotlist([setting])
            if name in OWN:
                own[name] = value[name]
            else:
                stage = OmegaConf.merge(stage, value)
        except (OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"{setting}: {EXPECTED.get(name, str(error).splitlines()[0])}") from None
    if OmegaConf.is_missing(stage, "method"):
        raise ConfigError(f"method: not set; usage: {USAGE}")
    config: MergeConfig = OmegaConf.to_object(stage)  # type: ignore[assignment]
    return config, Path(folders[-1]), own


def check_known(name: str) -> None:
    """Refuse settings that nothing reads."""
    known = [field.name for field in fields(MergeConfig) if field.name not in ("kind", "models")] + list(OWN)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise ConfigError(f"{name}: unknown setting, expected {close[0] if close else ', '.join(known)}")


def run(arguments: list[str]) -> str:
    """Merge, or look; returns the line to print."""
    config, target, own = parse(arguments)
    threads, dry_run = own.get("threads"), own.get("dry_run", False)
    if not (threads is None or (type(threads) is int and threads > 0)):
        raise ConfigError(f"threads: found {threads}, expected a number of at least 1")
    if type(dry_run) is not bool:
        raise ConfigError(f"dry_run: found {dry_run}, expected true or false")
    models, base = [Path(model) for model in config.models], None if config.base is None else Path(config.base)
    if dry_run:
        return f"would write {told(prepare(models, target, config, base, threads).report, target)}; nothing written"
    report = merge(models, target, config, base, threads)
    return f"wrote {told(report, target)}, {report.wall_seconds:.1f} s"


def told(report: MergeReport, target: Path) -> str:
    """A report in words."""
    return (
        f"{target}: {report.models} models, {report.tensors} tensors, {report.parameters:,} parameters, "
        f"{report.size_bytes / 1e9:.2f} GB, {report.memory_bytes / 1e6:.0f} MB of memory"
    )


def stop(number: int, frame: FrameType | None) -> None:
    """A polite kill clears up as any error does."""
    sys.exit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 after one line that says what was wrong."""
    signal.signal(signal.SIGTERM, stop)
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(f"usage: {USAGE}\n\n{__doc__}")
        return 0
    try:
        line = run(arguments)
    except (SolarError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
