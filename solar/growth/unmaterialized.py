"""A grown model stored as a plan: loading builds its weights from the base's files.

The folder has the grown config.json and the files that travel; instead of weights it has a note of base and plan. The
weights equal those of the folder that `grow` would write, bit for bit.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solar.config.growth_plan import GrowthPlan, Init, PlanName, SeamInit, WeightDtype
from solar.errors import ArtifactError
from solar.growth.files.recipes import Recipe
from solar.growth.grow import check_model, default_verification, refuse_what_only_logits_could_prove
from solar.growth.job import Job, work_out
from solar.weights.folder import CONFIG_FILE, UNMATERIALIZED_FILE
from solar.weights.header import StoredTensor
from solar.weights.json_file import read_json, write_json
from solar.weights.publish import published
from solar.weights.travelling import copy_travelling_files

if TYPE_CHECKING:
    from torch import Tensor

_ENUMS = {"plan": PlanName, "init": Init, "seam": SeamInit, "dtype": WeightDtype}


def keep_plan(
    source: Path,
    target: Path,
    plan: GrowthPlan,
    seam_scales: Mapping[int, float] | None = None,
    device: str = "cpu",
) -> Job:
    """Write the new folder `target` without weights. Verifies and raises as `solar.growth.grow.grow` does."""
    job = work_out(source, plan, seam_scales=seam_scales)
    level = default_verification(job)
    refuse_what_only_logits_could_prove(job, level)
    growth = {item.name: getattr(plan, item.name) for item in fields(GrowthPlan)}
    note = {
        "base": os.path.relpath(source.resolve(), target.resolve()),
        "growth": growth,
        "seam_scales": {str(position): scale for position, scale in (seam_scales or {}).items()} or None,
        "files": {path.name: path.stat().st_size for path in job.base.files},
    }
    with published(target, [source]) as partial:
        write_json(partial / CONFIG_FILE, job.config)
        write_json(partial / UNMATERIALIZED_FILE, note)
        copy_travelling_files(source, partial)
        check_model(job, partial, level, device)
    return job


def is_unmaterialized(folder: Path) -> bool:
    """Whether a model folder holds a plan instead of weights."""
    return (folder / UNMATERIALIZED_FILE).is_file()


def weights(folder: Path) -> "dict[str, Tensor]":
    """The grown model's tensors by name; copies share the memory that the base's files are mapped to.

    Raises `ArtifactError` if the base is gone or its files have changed since the plan was stored.
    """
    note = read_json(folder / UNMATERIALIZED_FILE)
    base = (folder / note["base"]).resolve()
    for name, size in note["files"].items():
        if not (base / name).is_file() or (base / name).stat().st_size != size:
            raise ArtifactError(f"{base / name}: gone or changed, but {folder} is grown from it; grow it anew")
    growth: dict[str, Any] = {
        name: _ENUMS[name](value) if name in _ENUMS and value is not None else value
        for name, value in note["growth"].items()
    }
    scales = note["seam_scales"] and {int(position): scale for position, scale in note["seam_scales"].items()}
    job = work_out(base, GrowthPlan(**growth), seam_scales=scales)
    return _tensors(job.recipes)


def _tensors(recipes: Mapping[str, Recipe]) -> "dict[str, Tensor]":
    import torch
    from safetensors import safe_open

    files: dict[Path, Any] = {}

    def stored(tensor: StoredTensor) -> "Tensor":
        if tensor.path not in files:
            files[tensor.path] = safe_open(tensor.path, framework="pt")
        values: Tensor = files[tensor.path].get_tensor(tensor.name)
        return values

    def made(name: str, recipe: Recipe) -> "Tensor":
        dtype = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}[recipe.dtype]
        if recipe.zero:
            return torch.zeros(recipe.shape, dtype=dtype)
        return torch.frombuffer(bytearray(b"".join(recipe.slices(name))), dtype=dtype).reshape(recipe.shape)

    return {
        name: stored(recipe.sources[0]) if recipe.is_copy else made(name, recipe) for name, recipe in recipes.items()
    }
