"""The device of this process, and the most memory that a training held at once."""

import os
import re
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def own_device(device_type: str) -> torch.device:
    """Of several GPUs, the one that torchrun's environment names."""
    index = os.environ.get("LOCAL_RANK", "0")
    return torch.device(f"{device_type}:{index}" if device_type == "cuda" else device_type)


def reset_peak(device: torch.device) -> None:
    """Forget what earlier stages of this process held."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # resets VmHWM: proc_pid_clear_refs(5)


def peak_bytes(device: torch.device) -> int | None:
    """Allocated memory of a CUDA device, or resident memory of this process; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _STATUS.exists():
        return None
    peak = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(peak[1]) * 1024 if peak else None
