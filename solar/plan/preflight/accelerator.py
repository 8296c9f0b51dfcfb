"""`trainer.accelerator: auto`: what this machine has, without importing torch."""

import platform
from importlib.metadata import version

from solar.config.root import TrainerConfig
from solar.plan.preflight.resources import gpu_memories


def pick(gpus: int, torch_version: str, system: str, machine: str) -> tuple[str, str]:
    """Accelerator and reason.

    >>> pick(1, "2.13.0", "Linux", "x86_64")
    ('gpu', '1 GPU')
    >>> pick(1, "2.13.0+cpu", "Linux", "x86_64")
    ('cpu', 'torch 2.13.0+cpu runs on no GPU')
    >>> pick(0, "2.13.0", "Darwin", "arm64")
    ('mps', "Apple's GPU")
    >>> pick(0, "2.13.0", "Linux", "x86_64")
    ('cpu', 'no GPU')
    """
    if gpus and "+cpu" in torch_version:
        return "cpu", f"torch {torch_version} runs on no GPU"
    if gpus:
        return "gpu", f"{gpus} GPU" + "s" * (gpus > 1)
    if (system, machine) == ("Darwin", "arm64"):
        return "mps", "Apple's GPU"
    return "cpu", "no GPU"


def resolve_accelerator(trainer: TrainerConfig) -> str | None:
    """Replace `auto` by the accelerator of this machine; a line that says which, None where none was asked for."""
    if trainer.accelerator != "auto":
        return None
    accelerator, reason = pick(len(gpu_memories()), version("torch"), platform.system(), platform.machine())
    trainer.accelerator = accelerator
    return f"trainer.accelerator: auto is {accelerator} here ({reason})"
