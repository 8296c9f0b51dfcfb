"""Grow a model folder in depth."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solar.config.growth_plan import GrowthPlan, Init, PlanName, SeamInit
from solar.errors import ArtifactError, PlanError
from solar.growth.files.recipes import Recipe
from solar.growth.files.surgery import Writers, check_layers_alike, grown_tensors
from solar.growth.files.verify import Verify, check_files, expected_parameters
from solar.growth.files.writer import Link, Shard, plan_shards, write_shards
from solar.growth.plans import LayerPlan, resolve
from solar.growth.process import ask
from solar.growth.provenance import PROVENANCE_KEY, grown_config, provenance
from solar.growth.remap.decoder import Decoder, find_decoder
from solar.growth.remap.families import PROVEN
from solar.growth.remap.layer_config import unknown_patterns
from solar.growth.remap.layer_refusals import refuse_moved_vision_inputs
from solar.growth.remap.quantised_layers import layer_mentions, remap_quantisation
from solar.growth.remap.residual_writers import find_writers
from solar.growth.remap.transformers_config import DecoderConfigs, grow_config
from solar.weights.folder import CONFIG_FILE, ModelFolder, open_folder
from solar.weights.json_file import write_json
from solar.weights.publish import published
from solar.weights.quantised import quantisation, refuse_packed, refuse_quantised
from solar.weights.tied import check_tied_head
from solar.weights.travelling import copy_travelling_files, left_out

SMALL_MODEL_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class GrowthReport:
    """What was grown."""

    layers: LayerPlan
    base_parameters: int
    parameters: int
    base_bytes: int
    bytes: int
    files: int
    linked_bytes: int
    """Bytes of files that are second names of the base's."""
    verified: Verify
    notes: tuple[str, ...]
    """What the user should know: things left out, seams scaled."""
    wall_seconds: float


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
        own = self.decoder.configuration(self.base.config)
        return str(own.get("model_type", self.base.config.get("model_type")))


def grow(
    source: Path,
    target: Path,
    plan: LayerPlan | GrowthPlan,
    *,
    link: Link = Link.never,
    verify: Verify | None = None,
    max_shard_bytes: int | None = None,
    threads: int = 2,
    seam_scales: Mapping[int, float] | None = None,
) -> GrowthReport:
    """Grow the model of folder `source` into the new folder `target`, which appears whole or not at all.

    `verify`: by default `logits` for models under 1 B parameters of a family that our tests have not proven, `bytes`
    else. `seam_scales`: what `seam: rms_match` measured (`solar.diagnosis.seams`), position -> factor. Raises
    `PlanError` for a plan or a model that cannot be right, `ArtifactError` for damaged files or a failed verification.
    """
    start = time.perf_counter()
    job = work_out(source, plan, max_shard_bytes=max_shard_bytes, seam_scales=seam_scales)
    level = verify if verify is not None else default_verification(job)
    refuse_what_only_logits_could_prove(job, level)
    with published(target, [source]) as partial:
        written = write_shards(job.shards, partial, link, threads)
        write_json(partial / CONFIG_FILE, job.config)
        notes = copy_travelling_files(source, partial)
        if level is not Verify.none:
            check_files(partial, job.base, job.decoder, job.layers, job.recipes, written)
            check_model(job, partial, level)
        linked = sum(shard.nbytes for shard in job.shards if (partial / shard.name).stat().st_nlink > 1)
    return GrowthReport(
        layers=job.layers,
        base_parameters=job.base.parameters,
        parameters=job.parameters,
        base_bytes=job.base.nbytes,
        bytes=job.nbytes,
        files=len(job.shards),
        linked_bytes=linked,
        verified=level,
        notes=(*job.notes, *notes, *_unproven(job, level)),
        wall_seconds=time.perf_counter() - start,
    )


def work_out(
    source: Path,
    plan: LayerPlan | GrowthPlan,
    *,
    max_shard_bytes: int | None = None,
    seam_scales: Mapping[int, float] | None = None,
) -> Job:
    """Everything about a growth but the writing. Reads headers and configuration only; raises as `grow` does."""
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
    recipes = grown_tensors(base, decoder, layers, growth, _writers(base, decoder, configs, growth, seam_scales))
    shards = plan_shards(base, recipes, max_shard_bytes)
    notes = (*left_out(CONFIG_FILE, base.config), *_left_out_layers(decoder))
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
    """Quantised weights can be copied, not computed with."""
    if growth.init is not Init.copy or growth.seam is not SeamInit.none or growth.dtype is not None:
        refuse_quantised(base.folder, base.config)
        refuse_packed(base)


def check_model(job: Job, folder: Path, level: Verify) -> None:
    """What `load` and `logits` ask of a folder that `transformers` builds the model from, in a process of its own."""
    if level in (Verify.load, Verify.logits):
        request = {
            "base": str(job.base.folder),
            "grown": str(folder),
            "layers": job.layers.sources,
            "base_layers": job.layers.base_layers,
            "level": level.value,
            "same_function": all(recipe.is_copy for recipe in job.recipes.values()),
            "lossless": job.layers.keeps_base and _new_layers_are_silent(job),
        }
        ask("solar.diagnosis.verify_logits", request, ArtifactError)


def _writers(
    base: ModelFolder,
    decoder: Decoder,
    configs: DecoderConfigs,
    growth: GrowthPlan,
    seam_scales: Mapping[int, float] | None,
) -> Writers:
    """The tensors that zero_out and rms_match change; looked for only where one of them is asked for."""
    if growth.seam is SeamInit.rms_match and seam_scales is None:
        raise PlanError("seam: rms_match found, but nothing was measured; give seam_scales (solar.diagnosis.seams)")
    if growth.init is not Init.zero_out and growth.seam is SeamInit.none:
        return Writers()
    residual = find_writers(base, decoder, configs)
    if growth.seam is SeamInit.rms_match and not residual.linear:
        raise PlanError("seam: rms_match found, but a norm comes after what the layers write; choose seam none")
    return Writers(residual.writers, seam_scales or {})


def _new_layers_are_silent(job: Job) -> bool:
    """Whether all was copied but what was set to zero, in the base's number format."""
    if job.config[PROVENANCE_KEY]["init"] != Init.zero_out:
        return False
    exact = (recipe.is_copy or recipe == Recipe.copy(recipe.sources[0]).zeroed() for recipe in job.recipes.values())
    return all(exact)


def default_verification(job: Job) -> Verify:
    small = job.parameters < SMALL_MODEL_PARAMETERS and quantisation(job.base.config) is None
    return Verify.logits if small and job.model_type not in PROVEN else Verify.bytes


def _unproven(job: Job, level: Verify) -> list[str]:
    if job.model_type in PROVEN or level is Verify.logits:
        return []
    return [f"model_type {job.model_type} is in none of our tests; verify=logits would prove the result"]


def refuse_what_only_logits_could_prove(job: Job, level: Verify) -> None:
    if level is not Verify.logits and job.model_type not in PROVEN and not job.layers.is_identity:
        own = job.decoder.configuration(job.base.config)
        for key in unknown_patterns(own):
            raise PlanError(
                f"{key}: {own[key]} found, which may say something of single layers that solar does not know; "
                f"prove the result with verify=logits"
            )


def _left_out_layers(decoder: Decoder) -> list[str]:
    if not decoder.beyond:
        return []
    return [f"{min(decoder.beyond)} and others left out: they lie above the decoder (multi-token prediction)"]


def _without_extra_layers(config: dict[str, Any], decoder: Decoder) -> dict[str, Any]:
    """Says of a model that its multi-token prediction layers are gone."""
    keys = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers")
    if not decoder.beyond:
        return config
    if not any(config.get(key) for key in keys):
        raise PlanError(
            f"{min(decoder.beyond)}: above the {decoder.num_hidden_layers} layers that config.json gives, and no key "
            f"says what it is; such a model cannot be grown in depth"
        )
    return {**config, **{key: 0 for key in keys if key in config}}
