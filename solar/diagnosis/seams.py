"""Measure how much louder the stream is above a seam than the layers there are used to, and by how much to make up.

A pre-norm layer reads a normalised stream, so a louder stream only drowns what the layer writes. Scaling its writes by
the same factor restores the balance it was trained in, and the final norm takes the common factor out again.

Run as a module it answers `solar.grow`, in a process of its own.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solar.config.growth_plan import GrowthPlan, PlanName
from solar.diagnosis.virtual import VirtualModel
from solar.errors import DataError
from solar.growth.plans import LayerPlan, resolve
from solar.growth.process import answer

_TOKENS = 4096
_SEQUENCE_LENGTH = 512


def seam_scales(virtual: VirtualModel, layers: LayerPlan, input_ids_BT: Tensor) -> dict[int, float]:
    """Position -> factor on what the layer there writes; 1 below the first seam, and nowhere where there is none.

    From each seam on: the stream's loudness there (median over tokens of the ratio of root mean squares) against what
    the layer above the seam read in the base on the same tokens, with the seams below already made up for.
    """
    base = virtual.record(input_ids_BT)
    seams = {seam.position for seam in layers.seams}
    hidden_BTH, scale, scales = base.stream[0], 1.0, {}
    for position, source in enumerate(layers.sources):
        if position in seams and position > 0:
            scale = loudness(hidden_BTH, base.stream[source])
        scales[position] = scale
        with torch.no_grad():
            hidden_BTH = virtual.step(source, hidden_BTH, scale)
    return scales


def loudness(hidden_BTH: Tensor, usual_BTH: Tensor) -> float:
    """Median over tokens of the ratio of root mean squares; single tokens that are very loud do not sway it."""
    ratio_BT = hidden_BTH.float().norm(dim=-1) / usual_BTH.float().norm(dim=-1).clamp_min(1e-12)
    return float(ratio_BT.median())


def tokenized(folder: Path, text: Path, tokens: int = _TOKENS, sequence_length: int = _SEQUENCE_LENGTH) -> Tensor:
    """The start of a text as rows of tokens, BT. Raises `DataError` if it is shorter than one row of 16 tokens."""
    from solar.data.encode import tokenizer
    from solar.data.encode.encode import Encoder

    if not text.is_file():
        raise DataError(f"{text}: no such file, expected a text to measure on")
    with text.open(encoding="utf-8", errors="replace") as file:
        sample = file.read(16 * tokens)
    ids = Encoder(tokenizer.read(folder)).plain_text(sample)[:tokens]
    length = min(sequence_length, len(ids))
    if length < 16:
        raise DataError(f"{text}: {len(ids)} tokens found, expected at least 16")
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)


def _work(request: dict[str, Any]) -> dict[int, float]:
    from solar.network.loading import load_model

    folder = Path(request["model"])
    model = load_model(folder)
    growth = GrowthPlan(**{**request["plan"], "plan": PlanName(request["plan"]["plan"])})
    n = model.config.get_text_config(decoder=True).num_hidden_layers
    return seam_scales(VirtualModel(model, n), resolve(growth, n), tokenized(folder, Path(request["text"])))


if __name__ == "__main__":
    sys.exit(answer(_work))
