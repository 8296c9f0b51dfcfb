"""The two pictures at the top of a report: how the models descend from each other, and how the layers were grown."""

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from solar.report.entries import Entry, Run

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 168, 46, 18, 26


def family(run: Run, words: Callable[[Entry], str]) -> Markup:
    """Models as boxes, each below the models it was made of; `words` gives the line under a name."""
    rows: list[list[Entry]] = []
    level: dict[str, int] = {}
    for entry in run.models():
        parents = run.parents(entry)
        level[entry.stage] = 1 + max((level.get(parent.stage, -1) for parent in parents), default=-1)
        rows += [[] for _ in range(level[entry.stage] + 1 - len(rows))]
        rows[level[entry.stage]].append(entry)
    widest = max((len(row) for row in rows), default=0)
    width, height = widest * (BOX_WIDTH + GAP_X) + GAP_X, len(rows) * (BOX_HEIGHT + GAP_Y)
    place: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        for column, entry in enumerate(row):
            x = width / 2 + (column - (len(row) - 1) / 2) * (BOX_WIDTH + GAP_X)
            place[entry.stage] = (x, number * (BOX_HEIGHT + GAP_Y) + 2)
    arrows = [
        _arrow(place[parent.stage], place[entry.stage]) for entry in run.models() for parent in run.parents(entry)
    ]
    boxes = [_box(entry, *place[entry.stage], words(entry)) for entry in run.models()]
    head = Markup('<svg class="family" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">')
    label = "Models: " + ", ".join(entry.stage for entry in run.models())
    return head.format(width, height, width, label) + Markup("").join(arrows + boxes) + Markup("</svg>")


def _box(entry: Entry, x: float, y: float, words: str) -> Markup:
    box = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="8"/>')
    name = Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>')
    under = Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>')
    return (
        box.format(f"box {entry.kind}", x - BOX_WIDTH / 2, y, BOX_WIDTH, BOX_HEIGHT)
        + name.format(x, y + 19, entry.stage)
        + under.format(x, y + 36, words)
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    (x0, y0), (x1, y1) = (start[0], start[1] + BOX_HEIGHT), end
    middle = (y0 + y1) / 2
    curve = f"M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {y1 - 5}"
    head = f"M{x1 - 4} {y1 - 7}L{x1} {y1 - 1}L{x1 + 4} {y1 - 7}Z"
    return Markup('<path class="arrow" d="{}"/><path class="head" d="{}"/>').format(curve, head)


def layer_map(grown: dict[str, Any]) -> Markup:
    """Base layers left, grown ones right, a line from each layer to its copies; input at the bottom, seams marked."""
    base, layers, new = grown["base_layers"], grown["layers"], set(grown["new"])
    pitch = max(9, min(22, 560 // len(layers)))
    height, width = pitch * len(layers) + 44, 340
    middle = (len(layers) - base) * pitch / 2

    def y(position: int, offset: float) -> float:
        return height - 22 - offset - (position + 1) * pitch

    parts = []
    for position, source in enumerate(layers):
        start, end = y(source, middle) + pitch / 2, y(position, 0) + pitch / 2
        path = f"M92 {start}C150 {start} 150 {end} 196 {end}"
        parts.append(Markup('<path class="wire {}" d="{}"/>').format("new" if position in new else "old", path))
    parts += [_layer(16, y(layer, middle), pitch, str(layer), "base") for layer in range(base)]
    for position, source in enumerate(layers):
        parts.append(_layer(196, y(position, 0), pitch, str(source), "new" if position in new else "old"))
    for position, below, above in grown["seams"]:
        if 0 < position < len(layers):
            line = y(position - 1, 0)
            parts.append(Markup('<line class="seam" x1="188" x2="280" y1="{}" y2="{}"/>').format(line, line))
            parts.append(Markup('<text class="seam" x="284" y="{}">{}</text>').format(line + 4, f"{below} | {above}"))
    captions = ((54, f"{base} layers"), (234, f"{len(layers)} layers"))
    parts += [
        Markup('<text class="name" x="{}" y="14" text-anchor="middle">{}</text>').format(x, words)
        for x, words in captions
    ]
    head = Markup('<svg class="layers" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">')
    label = f"{base} base layers become {len(layers)}: {', '.join(map(str, layers))}"
    return head.format(width, height, width, label) + Markup("").join(parts) + Markup("</svg>")


def _layer(x: float, y: float, pitch: float, words: str, style: str) -> Markup:
    box = Markup('<rect class="layer {}" x="{}" y="{}" width="76" height="{}" rx="3"/>')
    text = Markup('<text class="number" x="{}" y="{}" text-anchor="middle" style="font-size:{}px">{}</text>')
    size = min(12, pitch - 1)
    return box.format(style, x, y + 1, pitch - 2) + text.format(x + 38, y + pitch / 2 + size * 0.36, size, words)
