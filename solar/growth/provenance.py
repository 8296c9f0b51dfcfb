"""The grown model's config.json: the base's, remapped, with a note of how the model was grown."""

from typing import Any

from solar.config.growth_plan import GrowthPlan
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import Decoder

PROVENANCE_KEY = "solar"
"""Where in config.json a grown model says how it was grown; `transformers` keeps it on load and save."""


def provenance(
    decoder: Decoder, layers: LayerPlan, growth: GrowthPlan | None, before: dict[str, Any]
) -> dict[str, Any]:
    """How a model was grown, as config.json keeps it. `before`: the base's config.json."""
    settings = {"plan": "explicit", "init": "copy", "seam": "none"}
    if growth is not None and growth.plan is not None:
        settings = {"plan": growth.plan.value, "init": growth.init.value, "seam": growth.seam.value}
        settings |= {
            name: getattr(growth, name) for name in growth.given_parameters() if name not in ("layers", "slices")
        }
    grown: dict[str, Any] = {
        **settings,
        "base_layers": layers.base_layers,
        "layers": list(layers.sources),
        "new": list(layers.new_positions),
        "seams": [[seam.position, seam.below, seam.above] for seam in layers.seams],
        "stack": decoder.prefixes[0],
    }
    return grown | ({"grown_from": before[PROVENANCE_KEY]} if PROVENANCE_KEY in before else {})


def grown_config(
    config: dict[str, Any], decoder: Decoder, decoder_config: dict[str, Any], grown: dict[str, Any]
) -> dict[str, Any]:
    """The whole config.json: with the grown decoder's part and provenance."""
    return {**_exchanged(config, decoder.config_path, decoder_config), PROVENANCE_KEY: grown}


def _exchanged(config: dict[str, Any], path: tuple[str, ...], part: dict[str, Any]) -> dict[str, Any]:
    if not path:
        return part
    return {**config, path[0]: _exchanged(config[path[0]], path[1:], part)}
