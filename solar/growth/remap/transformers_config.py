"""Ask `transformers`, in a second process, for the lists of layers that it derives when it loads a configuration.

Many config.json files omit `layer_types` and similar lists. Families that derive nothing are known by name, so that
growing them starts no second process.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solar.errors import PlanError, library_errors
from solar.growth.plans import LayerPlan
from solar.growth.process import answer, ask
from solar.growth.remap.decoder import Decoder
from solar.growth.remap.families import DERIVE_NOTHING
from solar.growth.remap.layer_config import is_index_list, is_per_layer, layer_kinds, remap
from solar.weights.folder import CONFIG_FILE

Configuration = dict[str, Any]


@dataclass(frozen=True)
class DecoderConfigs:
    """A decoder's part of config.json, before and after."""

    base: Configuration
    """With every list that `transformers` derives when it loads the configuration."""
    computed: Configuration
    """Lists with an item for each layer that are computed and cannot be written."""
    grown: Configuration

    def layer_kinds(self, num_hidden_layers: int) -> list[tuple[Any, ...]]:
        """What the configuration says of each layer of the base. Layers of the same kind must have the same tensors."""
        return layer_kinds({**self.computed, **self.base}, num_hidden_layers)


def grow_config(config: Configuration, decoder: Decoder, layers: LayerPlan) -> DecoderConfigs:
    """Raises `PlanError` where the configuration cannot say what the plan asks for."""
    own = decoder.configuration(config)
    if own.get("model_type", config.get("model_type")) in DERIVE_NOTHING:
        return DecoderConfigs(own, {}, remap(own, layers))
    request = {
        "config": config,
        "path": decoder.config_path,
        "base_layers": layers.base_layers,
        "layers": layers.sources,
    }
    return DecoderConfigs(**ask("solar.growth.remap.transformers_config", request, PlanError))


def spelled_out(own: Configuration, loaded: Configuration, num_hidden_layers: int) -> Configuration:
    """A decoder's configuration with the lists that `transformers` derives when it loads it."""
    derived = {
        key: value
        for key, value in loaded.items()
        if own.get(key) is None
        and (is_per_layer(key, value, num_hidden_layers) or is_index_list(key, value, num_hidden_layers))
    }
    return {**own, **derived}


def check_as_loaded(base: Configuration, grown: Configuration, written: Configuration, layers: LayerPlan) -> None:
    """Each grown layer, as `transformers` loads it, must equal what was written, or what was loaded for its source."""
    for key, value in base.items():
        if is_index_list(key, value, layers.base_layers):
            expected: list[Any] = [k for k, source in enumerate(layers.sources) if source in value]
        elif is_per_layer(key, value, layers.base_layers):
            expected = [value[source] for source in layers.sources]
        else:
            continue
        if grown.get(key) != written.get(key, expected):
            raise PlanError(
                f"{key}: {grown.get(key)} would be loaded, expected {expected}: the configuration cannot say this; "
                f"choose a plan in which each layer keeps its place in the pattern"
            )


def _as_loaded(config: Configuration, path: tuple[str, ...]) -> tuple[Configuration, Configuration]:
    """The decoder's configuration as `transformers` loads it, and the lists that are computed from it."""
    from tempfile import TemporaryDirectory

    from transformers import CONFIG_MAPPING, AutoConfig

    if config.get("model_type") not in CONFIG_MAPPING:
        model_type = config.get("model_type")
        raise PlanError(
            f"model_type: {model_type!r} found in config.json, expected a family that this transformers knows"
        )
    with TemporaryDirectory() as folder:
        (Path(folder) / CONFIG_FILE).write_text(json.dumps(config))
        with library_errors(CONFIG_FILE, "correct the configuration", PlanError):
            own: Any = AutoConfig.from_pretrained(folder)
    for key in path:
        own = getattr(own, key)
    computed = {name for name in dir(type(own)) if isinstance(getattr(type(own), name), property)}
    lists = {name: value for name in computed if isinstance(value := getattr(own, name, None), list)}
    loaded: Configuration = json.loads(json.dumps(own.to_dict(), default=str))
    return {key: value for key, value in loaded.items() if key not in computed}, lists


def _work(request: dict[str, Any]) -> dict[str, Configuration]:
    config, path = request["config"], tuple(request["path"])
    layers = LayerPlan(request["base_layers"], tuple(request["layers"]))
    loaded, computed = _as_loaded(config, path)
    base = spelled_out(_part(config, path), loaded, layers.base_layers)
    grown = remap(base, layers)
    grown_loaded, grown_computed = _as_loaded(_with(config, path, grown), path)
    check_as_loaded({**computed, **loaded}, {**grown_computed, **grown_loaded}, grown, layers)
    return {"base": base, "computed": computed, "grown": grown}


def _part(config: Configuration, path: tuple[str, ...]) -> Configuration:
    return config if not path else _part(config[path[0]], path[1:])


def _with(config: Configuration, path: tuple[str, ...], own: Configuration) -> Configuration:
    return own if not path else {**config, path[0]: _with(config[path[0]], path[1:], own)}


if __name__ == "__main__":
    sys.exit(answer(_work))
