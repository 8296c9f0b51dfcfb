"""How long a stage trains: a number with its unit."""

import re
from dataclasses import dataclass
from enum import StrEnum

from solar.errors import ConfigError

_SCALE = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_MOST = 10**15
_PATTERN = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kMBT]?)\s*(tokens?|steps?|epochs?)\s*")


class Unit(StrEnum):
    """What a duration counts."""

    tokens = "tokens"
    """Tokens read by the model; padding is not counted."""
    steps = "steps"
    """Optimizer steps."""
    epochs = "epochs"
    """Passes over the data; may be a fraction."""


@dataclass(frozen=True)
class Duration:
    """An amount of training.

    >>> Duration.parse("1.5M tokens")
    Duration(amount=1500000.0, unit=<Unit.tokens: 'tokens'>)
    >>> str(Duration.parse("3 epochs"))
    '3 epochs'
    """

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Raises `ConfigError` unless the text is `<number>[k|M|B|T] <tokens|steps|epochs>`."""
        match = _PATTERN.fullmatch(str(text))
        if match is None:
            raise ConfigError(
                f"found '{text}', expected a number and a unit such as '200k tokens', '40 steps' or '3 epochs'"
            )
        number, scale, unit = match.groups()
        amount = float(number.replace("_", "")) * _SCALE[scale]
        if amount <= 0:
            raise ConfigError(f"found '{text}', expected more than nothing")
        if amount > _MOST:
            raise ConfigError(f"found '{text}', expected at most {_MOST / 10**12:,.0f}T")
        return cls(amount, Unit(unit if unit.endswith("s") else unit + "s"))

    def __str__(self) -> str:
        amount = f"{self.amount:,.0f}" if self.amount == int(self.amount) else f"{self.amount:g}"
        return f"{amount} {self.unit.value.removesuffix('s') if self.amount == 1 else self.unit.value}"
