"""Work out a growth: the layers, the configuration, and what each tensor is made of. Nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from solar.config.growth_plan import GrowthPlan, Init, PlanName, SeamInit
from solar.errors import PlanError
from solar.growth.files.recipes import Recipe
from solar.growth.files.shards import Shard, plan_shards
from solar.growth.files.surgery import Writers, check_layers_alike, grown_tensors
from solar.growth.files.verify import expected_parameters
from solar.growth.plans import LayerPlan, resolve
from solar.growth.provenance import grown_config, provenance
from solar.growth.remap.decoder import Decoder, find_decoder
from solar.growth.remap.layer_refusals import refuse_moved_vision_inputs
from solar.growth.remap.quantised_layers import layer_mentions, remap_quantisation
from solar.growth.remap.residual_writers import find_writers
from solar.growth.remap.transformers_config import DecoderConfigs, grow_config
from solar.models.checks import check_tensors
from solar.weights.agreement import check_tied_head
from solar.weights.folder import ModelFolder, open_folder
from solar.weights.quantised import refuse_packed, refuse_quantised


@dataclass(frozen=True)
class Job:
    """A growth, worked out and not yet written."""

    base: ModelFolder
    decoder: Decoder
    layers: LayerPlan
    config: dict[str, Any]
    """The grown model's config.json."""
    recipes: dict[str, Recipe]
    shards: list[Shard]
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return expected_parameters(self.base, self.decoder, self.layers)

    @property
    def nbytes(self) -> int:
        return sum(shard.nbytes for shard in self.shards)

    @property
    def model_type(self) -> str:
        decoder_config = self.decoder.configuration(self.base.config)
        return str(decoder_config.get("model_type", self.base.config.get("model_type")))


def work_out(
    source: Path,
    plan: LayerPlan | GrowthPlan,
    *,
    max_shard_bytes: int | None = None,
    seam_scales: Mapping[int, float] | None = None,
) -> Job:
    """Everything about a growth except the writing, from headers and configuration alone. Raises as `grow` does."""
    base = open_folder(source)
    check_tied_head(base)
    decoder = find_decoder(base.config, {name: tensor.shape for name, tensor in base.tensors.items()})
    growth = plan if isinstance(plan, GrowthPlan) else GrowthPlan(PlanName.explicit, layers=list(plan.sources))
    layers = resolve(growth, decoder.num_hidden_layers)
    if isinstance(plan, LayerPlan) and plan.base_layers != decoder.num_hidden_layers:
        raise PlanError(
            f"plan: made for {plan.base_layers} layers, but {source} has {decoder.num_hidden_layers}; resolve it anew"
        )
    refuse_moved_vision_inputs(base.config, layers)
    configs = grow_config(base.config, decoder, layers)
    _check_quantisation(base, growth)
    config = _grown_config(base, decoder, layers, growth, configs)
    kinds = zip(configs.layer_kinds(layers.base_layers), layer_mentions(base.config, decoder), strict=True)
    check_layers_alike(base, decoder, list(kinds), layers)
    used = {name: tensor for name, tensor in base.tensors.items() if name not in decoder.beyond}
    check_tensors(base.config, replace(base, tensors=used))
    recipes = grown_tensors(base, decoder, layers, growth, _writers(base, decoder, configs, growth, seam_scales))
    shards = plan_shards(base, recipes, max_shard_bytes)
    notes = tuple(_left_out_layers(decoder))
    return Job(base, decoder, layers, config, recipes, shards, notes)


def _grown_config(
    base: ModelFolder, decoder: Decoder, layers: LayerPlan, growth: GrowthPlan, configs: DecoderConfigs
) -> dict[str, Any]:
    grown = provenance(decoder, layers, growth, base.config)
    config = grown_config(base.config, decoder, _without_extra_layers(configs.grown, decoder), grown)
    config = remap_quantisation(config, decoder, layers)
    if growth.dtype is not None:
        config = {**config, **{key: growth.dtype.value for key in ("dtype", "torch_dtype") if key in config}}
    return config


def _check_quantisation(base: ModelFolder, growth: GrowthPlan) -> None:
    """Quantised weights can be copied, but not computed with."""
    if growth.init is not Init.copy or growth.seam is not SeamInit.none or growth.dtype is not None:
        refuse_quantised(base.folder, base.config)
        refuse_packed(base)


def _writers(
    base: ModelFolder,
    decoder: Decoder,
    configs: DecoderConfigs,
    growth: GrowthPlan,
    seam_scales: Mapping[int, float] | None,
) -> Writers:
    """The tensors that zero_out and rms_match change. Finding them takes a second process, so others do not look."""
    if growth.seam is SeamInit.rms_match and seam_scales is None:
        raise PlanError("seam: rms_match found, but nothing was measured; give seam_scales (solar.diagnosis.seams)")
    if growth.init is not Init.zero_out and growth.seam is SeamInit.none:
        return Writers()
    residual = find_writers(base, decoder, configs)
    if growth.seam is SeamInit.rms_match and not residual.linear:
        raise PlanError("seam: rms_match found, but a norm comes after what the layers write; choose seam none")
    return Writers(residual.writers, seam_scales or {})


def _left_out_layers(decoder: Decoder) -> list[str]:
    if not decoder.beyond:
        return []
    return [f"{min(decoder.beyond)} and others left out: they lie above the decoder (multi-token prediction)"]


def _without_extra_layers(config: dict[str, Any], decoder: Decoder) -> dict[str, Any]:
    """The configuration without layers for multi-token prediction."""
    keys = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers")
    if not decoder.beyond:
        return config
    if not any(config.get(key) for key in keys):
        raise PlanError(
            f"{min(decoder.beyond)}: above the {decoder.num_hidden_layers} layers that config.json gives, and no key "
            f"says what it is; such a model cannot be grown in depth"
        )
    return {**config, **{key: 0 for key in keys if key in config}}
