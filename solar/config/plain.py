"""A configuration as data that any program can read."""

from enum import Enum
from typing import Any


def as_plain(config: Any) -> Any:
    """Dictionaries, lists, strings and numbers; enums by their value.

    >>> from solar.config.training import ScheduleConfig, ScheduleName
    >>> as_plain(ScheduleConfig(ScheduleName.wsd, 0.1, 0.0, 0.2))
    {'name': 'wsd', 'warmup_fraction': 0.1, 'final_fraction': 0.0, 'decay_fraction': 0.2, 'warmup': None, 'decay': None}
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
