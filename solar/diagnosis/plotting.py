"""Draw a diagnosis: the influence of layers, the distance between them, and the loss each candidate adds."""

from pathlib import Path
from typing import Any


def plot(content: dict[str, Any], path: Path) -> None:
    """Three panels as a PNG: block influence, the angular-distance triangle, and step-0 gap by plan."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    influence, distance, gaps = figure.subplots(1, 3)
    _influence(influence, content["block_influence"])
    _distance(figure, distance, content["angular_distance"])
    _gaps(gaps, content["plans"])
    figure.savefig(path, dpi=110)


def _influence(axes: Any, influence: list[float]) -> None:
    axes.bar(range(len(influence)), influence, color="#4477aa")
    axes.set(title="Block influence: 1 - cos(in, out)", xlabel="layer", ylabel="block influence")


def _distance(figure: Any, axes: Any, triangle: list[list[float]]) -> None:
    size = len(triangle)
    square = [[row[column] if column < len(row) else float("nan") for column in range(size)] for row in triangle]
    image = axes.imshow(
        square, aspect="auto", cmap="viridis", origin="lower", extent=(-0.5, size - 0.5, 0.5, size + 0.5)
    )
    figure.colorbar(image, ax=axes)
    axes.set(title="Angular distance over a block of layers", xlabel="first layer", ylabel="layers in the block")


def _gaps(axes: Any, plans: list[dict[str, Any]]) -> None:
    names = [plan["name"] for plan in reversed(plans)]
    axes.barh(names, [plan["step0_gap"] for plan in reversed(plans)], color="#cc6677")
    axes.set(title="Loss added before training", xlabel="nats a token")
