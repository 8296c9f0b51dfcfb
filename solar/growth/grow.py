"""Grow a model folder in depth."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from solar.config.growth_plan import GrowthPlan, Init
from solar.errors import ArtifactError, PlanError
from solar.growth.files.recipes import Recipe
from solar.growth.files.verify import Verify, check_files
from solar.growth.files.writer import Link, write_shards
from solar.growth.job import Job, work_out
from solar.growth.plans import LayerPlan
from solar.growth.process import ask
from solar.growth.provenance import PROVENANCE_KEY
from solar.growth.remap.families import PROVEN
from solar.growth.remap.layer_config import unknown_patterns
from solar.models.llama import LLAMA_SHAPED
from solar.weights.folder import CONFIG_FILE
from solar.weights.json_file import write_json
from solar.weights.publish import published
from solar.weights.quantised import quantisation
from solar.weights.travelling import copy_travelling_files

SMALL_MODEL_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class GrowthReport:
    """What was written."""

    layers: LayerPlan
    base_parameters: int
    parameters: int
    base_bytes: int
    bytes: int
    files: int
    linked_bytes: int
    """Bytes in files that are second names of the base's files."""
    verified: Verify
    notes: tuple[str, ...]
    """What the user should know: things left out, seams scaled."""
    wall_seconds: float


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
    device: str = "cpu",
) -> GrowthReport:
    """Grow the model of folder `source` into the new folder `target`, which appears whole or not at all.

    `verify`: by default `bytes` for a Llama or a Mistral, `logits` for models under 1 B parameters of a family that our
    tests have not proven, otherwise `load`. `seam_scales`: what `seam: rms_match` measured (`solar.diagnosis.seams`),
    position -> factor. `device`: where `logits` are computed.

    Raises:
        PlanError: the plan or the model cannot be right.
        StageError: a Llama lacks a tensor.
        ArtifactError: damaged files, or a failed verification.
    """
    start = time.perf_counter()
    job = work_out(source, plan, max_shard_bytes=max_shard_bytes, seam_scales=seam_scales)
    level = verify if verify is not None else default_verification(job)
    refuse_what_only_logits_could_prove(job, level)
    with published(target, [source]) as partial:
        written = write_shards(job.shards, partial, link, threads)
        write_json(partial / CONFIG_FILE, job.config)
        copy_travelling_files(source, partial)
        if level is not Verify.none:
            check_files(partial, job.base, job.decoder, job.layers, job.recipes, written)
            check_model(job, partial, level, device)
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
        notes=(*job.notes, *_unproven(job, level)),
        wall_seconds=time.perf_counter() - start,
    )


def check_model(job: Job, folder: Path, level: Verify, device: str = "cpu") -> None:
    """Verify at the levels `load` and `logits`: `transformers` builds the model, in a process of its own."""
    if level in (Verify.load, Verify.logits):
        request = {
            "base": str(job.base.folder),
            "grown": str(folder),
            "layers": job.layers.sources,
            "base_layers": job.layers.base_layers,
            "level": level.value,
            "device": device,
            "same_function": all(recipe.is_copy for recipe in job.recipes.values()),
            "lossless": job.layers.keeps_base and _new_layers_are_silent(job),
        }
        ask("solar.diagnosis.verify_logits", request, ArtifactError)


def _new_layers_are_silent(job: Job) -> bool:
    """Whether every tensor is a copy or zero, in the base's number format."""
    if job.config[PROVENANCE_KEY]["init"] != Init.zero_out:
        return False
    exact = (recipe.is_copy or recipe == Recipe.copy(recipe.sources[0]).zeroed() for recipe in job.recipes.values())
    return all(exact)


def default_verification(job: Job) -> Verify:
    """The level that finds a missing tensor: a Llama's names are known here, those of other families to `transformers`.

    Quantised weights are copied without being run.
    """
    if quantisation(job.base.config) is not None or job.model_type in LLAMA_SHAPED:
        return Verify.bytes
    small = job.parameters < SMALL_MODEL_PARAMETERS
    return Verify.logits if small and job.model_type not in PROVEN else Verify.load


def _unproven(job: Job, level: Verify) -> list[str]:
    if job.model_type in PROVEN or level is Verify.logits:
        return []
    return [f"model_type {job.model_type} is in none of our tests; verify=logits would prove the result"]


def refuse_what_only_logits_could_prove(job: Job, level: Verify) -> None:
    if level is not Verify.logits and job.model_type not in PROVEN and not job.layers.is_identity:
        settings = job.decoder.configuration(job.base.config)
        for key in unknown_patterns(settings):
            raise PlanError(
                f"{key}: {settings[key]} found, which may say something of single layers that solar does not know; "
                f"prove the result with verify=logits"
            )
