"""The device that a command runs on."""

from typing import TYPE_CHECKING

from solar.errors import ConfigError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
TOKENS_AT_ONCE = {"cpu": 2048, "mps": 2048, "cuda": 32768}
"""Rows and answers that are scored share a pass up to this many tokens. Constants, since the order of additions may
change a sum's last bits: scores depend on the kind of device alone."""


def format_of_sums(device_type: str) -> "torch.dtype":
    """The number format in which a loss is added up over documents and ranks: float64, which Apple's GPU lacks."""
    import torch

    return torch.float32 if device_type == "mps" else torch.float64


def check_device(name: str) -> None:
    """Raises `ConfigError` for a name that is none of `DEVICES`."""
    if name not in DEVICES:
        raise ConfigError(f"device: found {name!r}, expected one of {', '.join(DEVICES)}")


def device_for(name: str) -> str:
    """The device that `name` means on this machine. Raises `ConfigError` if torch does not see the device."""
    import torch

    check_device(name)
    seen = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, here in seen.items() if here)
    if not seen[name]:
        raise ConfigError(f"device: found {name}, which torch does not see here; expected auto or cpu")
    return name
