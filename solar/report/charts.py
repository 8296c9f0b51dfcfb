"""Line charts as SVG that takes its colours from the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from solar.report.numbers import compact, is_finite

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 40
MOST_POINTS = 240

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve. `style` is a class of the page's style sheet: a, b or c, each a colour. `dots` marks the points."""

    name: str
    points: Sequence[Point]
    style: str = "a"
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes."""

    lines: list[Line]
    x_label: str
    y_label: str
    levels: list[tuple[str, float]] = field(default_factory=list)
    """Horizontal lines: label and height."""
    marks: list[tuple[str, Point]] = field(default_factory=list)
    """Marked points: label and place."""

    def svg(self) -> Markup:
        """The picture; empty if there is nothing to draw."""
        thin = [Line(line.name, thinned(line.points), line.style, line.dots) for line in self.lines]
        lines = [line for line in thin if line.points]
        if not lines:
            return Markup("")
        xs = [x for line in lines for x, _ in line.points]
        ys = [y for line in lines for _, y in line.points] + [level for _, level in self.levels if is_finite(level)]
        axes = _Axes(ticks(min(xs), max(xs)), ticks(min(ys), max(ys)))
        parts = [self._grid(axes)]
        crowded = any(axes.x(x) > WIDTH / 2 for _, (x, _) in self.marks)
        parts += [_level(axes, words, value, crowded) for words, value in self.levels if is_finite(value)]
        parts += [_line(axes, line) for line in lines]
        parts += [_mark(axes, words, point) for words, point in self.marks]
        label = f"{', '.join(line.name for line in lines)} over {self.x_label}"
        head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
        legend = _legend(lines) if len(lines) > 1 else Markup("")
        return head.format(WIDTH, HEIGHT, label) + Markup("").join(parts) + legend + Markup("</svg>")

    def _grid(self, axes: "_Axes") -> Markup:
        parts = []
        for tick in axes.y_ticks:
            y = axes.y(tick)
            parts.append(
                Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y)
            )
            parts.append(_text(LEFT - 6, y + 4, f"{tick:g}", "end"))
        for tick in axes.x_ticks:
            parts.append(_text(axes.x(tick), HEIGHT - BOTTOM + 16, compact(tick), "middle"))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x_label, "middle"))
        parts.append(_text(8, 14, self.y_label, "start"))
        return Markup("").join(parts)


@dataclass(frozen=True)
class _Axes:
    """Maps values to places in the picture; the first and last ticks are the edges."""

    x_ticks: list[float]
    y_ticks: list[float]

    def x(self, value: float) -> float:
        share = (value - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, evenly spaced, that enclose a range.

    >>> ticks(0.0, 9.2)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    >>> ticks(3.0, 3.0)
    [2.0, 3.0, 4.0]
    """
    if not high > low:
        margin = abs(low) / 3 or 1.0
        return ticks(low - margin, low + margin, 2)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Means of neighbouring points, so that a long log makes a small picture; the first and last points stay.

    >>> thinned([(0, 4.0), (1, 1.0), (2, 3.0), (3, 5.0), (4, 2.0)], most=4)
    [(0, 4.0), (1.5, 2.0), (3.0, 5.0), (4, 2.0)]
    """
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(points) <= most:
        return list(points)
    inner, size = points[1:-1], math.ceil((len(points) - 2) / (most - 2))
    groups = [inner[start : start + size] for start in range(0, len(inner), size)]
    means = [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
    return [points[0], *means, points[-1]]


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(style, x, y, anchor, words)


def _line(axes: _Axes, line: Line) -> Markup:
    places = [(axes.x(x), axes.y(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    drawn = Markup('<path class="line {}" d="{}"/>').format(line.style, path)
    if not line.dots:
        return drawn
    dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"><title>{}: {}, {}</title></circle>')
    dots = [
        dot.format(line.style, *place, line.name, compact(x), f"{y:.4f}")
        for place, (x, y) in zip(places, line.points, strict=True)
    ]
    return drawn + Markup("").join(dots)


def _level(axes: _Axes, words: str, value: float, crowded: bool) -> Markup:
    """`crowded`: marks are on the right, so the label stands on the left, below the line."""
    y = axes.y(value)
    line = Markup('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y)
    if crowded:
        return line + _text(LEFT + 4, y + 15, words, "start", "level")
    return line + _text(WIDTH - RIGHT - 2, y - 5, words, "end", "level")


def _mark(axes: _Axes, words: str, point: Point) -> Markup:
    x, y = axes.x(point[0]), axes.y(point[1])
    right = x > (LEFT + WIDTH) / 2
    circle = Markup('<circle class="mark" cx="{}" cy="{}" r="4.5"/>').format(x, y)
    return circle + _text(x - 9 if right else x + 9, y - 7, words, "end" if right else "start", "mark")


def _legend(lines: list[Line]) -> Markup:
    parts, x = [], float(WIDTH - RIGHT)
    for line in reversed(lines):
        parts.append(_text(x, 14, line.name, "end"))
        x -= 6.6 * len(line.name) + 8
        parts.append(
            Markup('<line class="line {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(line.style, x - 14, x, 10, 10)
        )
        x -= 28
    return Markup("").join(parts)
