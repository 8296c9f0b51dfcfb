"""Measure how much louder the stream is above a seam than in the base, and the factors that compensate for it.

A pre-norm layer reads a normalised stream, so a louder stream does not change what the layer writes, but drowns it.
Scaling what the layer writes by the same factor restores the balance of its training; the final norm removes the common
factor.

Run as a module, in a process of its own, it answers `solar.grow`.
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
    """Position -> factor on what the layer there writes; 1 below the first seam.

    The factor from a seam up to the next: the stream's loudness at the seam, relative to the input of the same layer in
    the base on the same tokens, after the factors below the seam were applied.
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
    """Median over tokens of the ratio of root mean squares; a few very loud tokens do not change a median."""
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
    from solar.network.device import device_for
    from solar.network.loading import load_model

    folder, device = Path(request["model"]), device_for(request["device"])
    model = load_model(folder, device=device)
    growth = GrowthPlan(**{**request["plan"], "plan": PlanName(request["plan"]["plan"])})
    n = model.config.get_text_config(decoder=True).num_hidden_layers
    rows_BT = tokenized(folder, Path(request["text"])).to(device)
    return seam_scales(VirtualModel(model, n), resolve(growth, n), rows_BT)


if __name__ == "__main__":
    sys.exit(answer(_work))
