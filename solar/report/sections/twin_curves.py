"""Distance between copies of a layer over training."""

from collections.abc import Sequence

from solar.report.charts import Chart, Line
from solar.report.entries import Run
from solar.report.numbers import is_finite
from solar.report.sections.curves import Curve

TWINS = "twin_divergence/"


def twin_curves(run: Run) -> list[Curve]:
    """For each stage that trained a grown model: the distance of copied layers from their originals, over steps."""
    curves = []
    for entry in run.entries:
        log = entry.log()
        layers = sorted({name.removeprefix(TWINS) for line in log for name in line if name.startswith(TWINS)})
        if not layers:
            continue
        points = {
            layer: [(line["step"], line[TWINS + layer]) for line in log if is_finite(line.get(TWINS + layer))]
            for layer in spread(layers)
        }
        styles = zip(points, "abc", strict=False)
        lines = [Line(f"layer {int(layer)}", points[layer], style) for layer, style in styles]
        words = "1 - cosine between the matrices of an added layer and of the layer it is a copy of"
        svg = Chart(lines, "steps", "distance from the twin").svg()
        curves.append(Curve(f"{entry.stage}: copied layers", words, svg))
    return curves


def spread(layers: Sequence[str]) -> list[str]:
    """The lowest, the middle and the highest layer: a chart shows three.

    >>> spread(["04", "05", "06", "07"]), spread(["04"])
    (['04', '06', '07'], ['04'])
    """
    return [layers[place] for place in sorted({0, len(layers) // 2, len(layers) - 1})]
