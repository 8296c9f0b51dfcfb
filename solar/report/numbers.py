"""Numbers as people read them."""

import math
from typing import Any, TypeGuard


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a measured value is a number: a loss that overflowed is `null`, `NaN` or `Infinity` in JSON.

    >>> [is_finite(value) for value in (1, 0.5, None, math.nan, math.inf, "1")]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and math.isfinite(value)


def compact(value: float) -> str:
    """A count in three digits.

    >>> [compact(count) for count in (0, 783.3, 2_148_480, 134_515_008, 10_731_524_096, 250_000)]
    ['0', '783', '2.15M', '135M', '10.7B', '250k']
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A span of time.

    >>> duration(0.42), duration(8.3), duration(187), duration(7_322)
    ('0.4 s', '8.3 s', '3 min 7 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def share(value: float) -> str:
    """A part of one.

    >>> share(0.3125)
    '31.2 %'
    """
    return f"{100 * value:.1f} %"


def signed(value: float) -> str:
    """A difference, with a true minus sign.

    >>> signed(0.1234), signed(-0.05)
    ('+0.123', '−0.050')
    """
    return f"{value:+.3f}".replace("-", "−")


def plain(value: Any) -> str:
    """Any value of a configuration in a few words."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return str(value)
