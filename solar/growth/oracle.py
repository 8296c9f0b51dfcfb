"""Judge a grown model by running it, in a process of its own: does it load, and does it compute what the plan says?"""

import sys
from pathlib import Path
from typing import Any

from solar.errors import ArtifactError
from solar.growth.process import answer

TOLERANCE = 1e-5
"""Largest difference of logits, relative to their scale, that the order of additions may explain."""
_BATCH, _TOKENS, _WINDOW = 2, 24, 5


def judge(request: dict[str, Any]) -> dict[str, float]:
    """Raises `ArtifactError` for keys missing or unexpected, and for logits that differ. Returns the difference."""
    import torch

    from solar.growth import models
    from solar.growth.virtual import VirtualModel

    grown, info = models.load(Path(request["grown"]), window=_WINDOW)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := info.get(kind):
            raise ArtifactError(f"verification failed: {kind.replace('_', ' ')} on loading: {min(map(str, keys))}")
    if request["level"] != "logits" or not (request["same_function"] or request["lossless"]):
        return {}
    base, _ = models.load(Path(request["base"]), window=_WINDOW)
    vocab_size = base.config.get_text_config(decoder=True).vocab_size
    input_ids_BT = torch.randint(0, vocab_size, (_BATCH, _TOKENS), generator=torch.Generator().manual_seed(0))
    virtual = VirtualModel(base, request["base_layers"])
    expected_BTV = virtual.record(input_ids_BT).logits_BTV
    if request["same_function"]:
        expected_BTV = virtual.run(request["layers"]).logits_BTV
    with torch.no_grad():
        found_BTV = grown(input_ids=input_ids_BT, use_cache=False).logits
    difference = float((found_BTV - expected_BTV).abs().max())
    allowed = 0.0 if request["lossless"] else TOLERANCE * float(expected_BTV.abs().max())
    if not difference <= allowed:
        raise ArtifactError(
            f"verification failed: logits differ by {difference:.3g} from those of the base with its layers in the new "
            f"order, expected at most {allowed:.3g}; such a model cannot be grown in depth"
        )
    return {"logits_difference": difference}


if __name__ == "__main__":
    sys.exit(answer(judge))
