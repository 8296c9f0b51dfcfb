"""A configuration as JSON types."""

from enum import Enum
from typing import Any


def as_plain(config: Any) -> Any:
    """Dictionaries, lists, strings and numbers; enums by their value.

    >>> from solar.config.training import AverageConfig, AverageKind
    >>> as_plain((AverageConfig(AverageKind.ema, 0.9), {1: None}))
    [{'kind': 'ema', 'decay': 0.9, 'window_fraction': 0.2, 'every_steps': 1}, {'1': None}]
    """
    if isinstance(config, Enum):
        return config.value
    if hasattr(config, "__dataclass_fields__"):
        return {name: as_plain(getattr(config, name)) for name in config.__dataclass_fields__}
    if isinstance(config, dict):
        return {str(key): as_plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [as_plain(value) for value in config]
    return config
