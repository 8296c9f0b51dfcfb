"""The command that makes a run again."""

import re
import shlex
from collections.abc import Sequence

EXECUTION = ("paths", "trainer", "logger", "hydra", "objective", "sweep", "until", "dry_run", "preflight")
"""Groups and keys that say how and where, or how far: no number depends on them, and machines differ."""


def command(experiment: str, overrides: Sequence[str]) -> str:
    """What to type, from what was typed.

    >>> command("quickstart", ["stages.pretrain.duration=240 steps", "trainer.threads=2", "+experiment=quickstart"])
    "python -m solar.run +experiment=quickstart 'stages.pretrain.duration=240 steps'"
    >>> command("quickstart", [])
    'python -m solar.run +experiment=quickstart'
    """
    kept = [override for override in overrides if re.split(r"[.=@]", override.lstrip("+~"))[0] not in EXECUTION]
    chosen = [override for override in kept if override.lstrip("+").startswith("experiment")]
    rest = [override for override in kept if override not in chosen]
    return shlex.join(["python", "-m", "solar.run", *(chosen or [f"+experiment={experiment}"]), *rest])
