"""Stage `upscale`: grow a model in depth."""

import json
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from solar.artifacts.store import Artifact
from solar.config.growth import UpscaleConfig
from solar.config.growth_plan import GrowthPlan, SeamInit
from solar.data.encode import class_label
from solar.diagnosis.diagnose import DIAGNOSIS_FILE
from solar.engine.context import Inputs, Metrics, RunContext
from solar.growth.grow import grow
from solar.growth.unmaterialized import keep_plan

MEASURED_TOKENS = 4096


def run(config: UpscaleConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `model/`, with the plan in its `config.json`, and without weights if `materialize` is false."""
    base = inputs[config.model].path / "model"
    plan: GrowthPlan = config if config.diagnosis is None else selected(inputs[config.diagnosis])
    plan = replace(plan, dtype=config.dtype or plan.dtype)
    scales, device = None, context.trainer.device_type
    if plan.seam is SeamInit.rms_match and config.data is not None:
        scales = _seam_scales(base, inputs[config.data].path, plan, device)
    context.progress(f"grow {inputs[config.model].manifest.stage}")
    if not config.materialize:
        job, built_from = keep_plan(base, output / "model", plan, scales, device), inputs[config.model].path.name
        return {
            "parameters_before": job.base.parameters,
            "parameters": job.parameters,
            "layers": list(job.layers.sources),
            "bytes": 0,
            "weights_built_from": built_from,
            "summary": f"{job.layers}, {job.parameters:,} parameters, built from {built_from} when they are loaded",
        }
    report = grow(base, output / "model", plan, seam_scales=scales, device=device)
    relabelled = class_label.relabel(output / "model")
    return {
        "parameters_before": report.base_parameters,
        "parameters": report.parameters,
        "layers": list(report.layers.sources),
        "bytes": report.bytes,
        "summary": f"{report.layers}, {report.parameters:,} parameters{relabelled}",
    }


def selected(diagnosis: Artifact) -> GrowthPlan:
    """The explicit plan that a diagnosis selected."""
    settings = json.loads((diagnosis.path / DIAGNOSIS_FILE).read_text(encoding="utf-8"))["selected"]
    plan = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(GrowthPlan), settings))
    assert isinstance(plan, GrowthPlan)
    return plan


def _seam_scales(base: Path, data: Path, plan: GrowthPlan, device: str) -> dict[int, float]:
    import torch

    from solar.data.held_out import held_out_rows
    from solar.diagnosis.seams import seam_scales
    from solar.diagnosis.virtual import VirtualModel
    from solar.growth.plans import resolve
    from solar.network.loading import load_model

    model = load_model(base, device=device)
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    rows_BT = torch.from_numpy(held_out_rows(data, MEASURED_TOKENS, min(512, model.config.max_position_embeddings)))
    return seam_scales(VirtualModel(model, depth), resolve(plan, depth), rows_BT.to(device))
