"""The command that repeats a run."""

import re
import shlex
from collections.abc import Sequence

EXECUTION = ("paths", "trainer", "logger", "hydra", "objective", "sweep", "until", "dry_run", "preflight", "verify")
"""Groups and keys that no result depends on: they decide how, where and how far a run goes."""


def command(experiment: str, overrides: Sequence[str]) -> str:
    """The command line of a run with the same results.

    >>> command("quickstart", ["stages.pretrain.duration=240 steps", "trainer.threads=2", "+experiment=quickstart"])
    "python -m solar.run +experiment=quickstart 'stages.pretrain.duration=240 steps'"
    >>> command("quickstart", [])
    'python -m solar.run +experiment=quickstart'
    """
    relevant = [override for override in overrides if re.split(r"[.=@]", override.lstrip("+~"))[0] not in EXECUTION]
    chosen = [override for override in relevant if override.lstrip("+").startswith("experiment")]
    rest = [override for override in relevant if override not in chosen]
    return shlex.join(["python", "-m", "solar.run", *(chosen or [f"+experiment={experiment}"]), *rest])
