"""Judge a grown model by loading and running it, in a process of its own."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solar.diagnosis.virtual import VirtualModel, find_layers
from solar.errors import ArtifactError, SolarError
from solar.growth.process import answer
from solar.network.device import device_for
from solar.network.loading import load_model

TOLERANCE = 1e-5
"""Largest difference of logits, relative to their scale, that the order of additions may explain."""
_BATCH, _TOKENS, _WINDOW = 2, 24, 5


def judge(request: dict[str, Any]) -> dict[str, float]:
    """The difference of logits. Raises `ArtifactError` for a folder that does not load, or for logits that differ."""
    compares, device = request["level"] == "logits", device_for(request["device"])
    try:
        grown = load_model(Path(request["grown"]), window=_WINDOW, device=device if compares else "meta")
    except SolarError as error:
        raise ArtifactError(f"verification failed: {error}") from error
    if not compares:
        return {}
    base = load_model(Path(request["base"]), window=_WINDOW, device=device)
    vocab_size = base.config.get_text_config(decoder=True).vocab_size
    draw = torch.Generator().manual_seed(0)
    input_ids_BT = torch.randint(0, vocab_size, (_BATCH, _TOKENS), generator=draw).to(device)
    virtual = VirtualModel(base, request["base_layers"])
    if request["same_function"] or request["lossless"]:
        expected_BTV = virtual.record(input_ids_BT).logits_BTV
        if request["same_function"]:
            expected_BTV = virtual.run(request["layers"]).logits_BTV
    else:
        expected_BTV = _with_made_weights(virtual, grown, request["layers"], input_ids_BT)
    with torch.no_grad():
        grown_BTV = grown(input_ids=input_ids_BT, use_cache=False).logits
    difference = float((grown_BTV - expected_BTV).abs().max())
    allowed = 0.0 if request["lossless"] else TOLERANCE * float(expected_BTV.abs().max())
    if not difference <= allowed:
        raise ArtifactError(
            f"verification failed: logits differ by {difference:.3g} from those of the base with its layers in the new "
            f"order, expected at most {allowed:.3g}; this model cannot be grown in depth"
        )
    return {"logits_difference": difference}


def _with_made_weights(virtual: VirtualModel, grown: Any, sources: list[int], input_ids_BT: Tensor) -> Tensor:
    """Logits of the base with its layers in the new order, where new weights were computed instead of copied.

    The base's layers take on the grown model's weights, whose bytes were verified when they were written. Everything
    else that a layer's output depends on is the base's.
    """
    made = find_layers(grown, len(sources))
    in_layers = {id(tensor) for tensor in (*made.parameters(), *made.buffers())}
    weights = grown.state_dict(keep_vars=True).items()
    outside = {name: tensor for name, tensor in weights if id(tensor) not in in_layers}
    virtual.model.load_state_dict(outside, strict=False)
    virtual.record(input_ids_BT)
    return virtual.run(sources, weights=made).logits_BTV


if __name__ == "__main__":
    sys.exit(answer(judge))
