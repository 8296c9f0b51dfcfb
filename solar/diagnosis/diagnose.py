"""What a model's layers do, and how much loss each candidate plan adds, measured on text before any training.

Candidate plans are run virtually: the same modules in another order; nothing is copied or written.

Shapes: B sequences, T tokens.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solar.config.growth import Select
from solar.config.growth_plan import GrowthPlan, Init, PlanName, SeamInit
from solar.diagnosis.measures import BaseSums, PlanSums
from solar.diagnosis.plotting import plot
from solar.diagnosis.seams import seam_scales
from solar.diagnosis.virtual import Pass, VirtualModel
from solar.errors import DataError, PlanError, StageError
from solar.growth.plans import LayerPlan, resolve
from solar.network.loading import load_model

DIAGNOSIS_FILE = "diagnosis.json"
PLOT_FILE = "diagnosis.png"


def diagnose(
    model_folder: Path,
    batches_BT: Iterable[Tensor],
    plans: Mapping[str, GrowthPlan],
    output: Path,
    select: Select = Select.step0_loss,
    progress: Callable[[str], None] = lambda line: None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure the base and each candidate plan; write `diagnosis.json` and `diagnosis.png` into folder `output`.

    `batches_BT`: token ids, without padding. Returns the content of the JSON file; its `plans` are ranked, best first.
    Raises `PlanError` for a plan that the base is too shallow for, or whose new layers are neither copies nor silent,
    and `StageError` for a base whose loss is not finite.
    """
    batches = [torch.as_tensor(batch_BT, dtype=torch.long, device=device) for batch_BT in batches_BT]
    if not batches or batches[0].shape[-1] < 2:
        raise DataError("diagnose: no text of at least 2 tokens found, expected rows of token ids to measure on")
    model = load_model(model_folder, device=device)
    n = model.config.get_text_config(decoder=True).num_hidden_layers
    resolved = {name: _candidate(name, plan, n) for name, plan in plans.items()}
    content = measure(VirtualModel(model, n), batches, plans, resolved, select, progress)
    output.mkdir(parents=True, exist_ok=True)
    (output / DIAGNOSIS_FILE).write_text(json.dumps(content, indent=2) + "\n")
    plot(content, output / PLOT_FILE)
    return content


def measure(
    virtual: VirtualModel,
    batches: Sequence[Tensor],
    plans: Mapping[str, GrowthPlan],
    resolved: Mapping[str, LayerPlan],
    select: Select,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """All measures as plain data; means over batches are weighted by tokens."""
    base = BaseSums()
    scales = {
        name: seam_scales(virtual, resolved[name], batches[0]) if plan.seam is SeamInit.rms_match else {}
        for name, plan in plans.items()
    }
    sums = {name: PlanSums(layers, scales[name]) for name, layers in resolved.items()}
    for number, batch_BT in enumerate(batches, start=1):
        run = virtual.record(batch_BT)
        base.add(run, batch_BT)
        for name, layers in resolved.items():
            progress(f"batch {number}/{len(batches)}  {name}")
            sums[name].add(_run(virtual, plans[name], layers, scales[name]), run, batch_BT)
    if not math.isfinite(base.loss()):
        raise StageError(
            f"diagnose: the base's loss is {base.loss()}, expected a finite number; its weights are damaged"
        )
    influence = base.influence()
    measures = [plan_sums.measure(name, base.loss(), influence) for name, plan_sums in sums.items()]
    by = "step0_loss" if select is Select.step0_loss else "repeated_influence"
    ranked = sorted(measures, key=lambda measure: (getattr(measure, by), measure.name))
    return {
        "tokens": base.tokens,
        "base_loss": base.loss(),
        "select": select.value,
        "best": ranked[0].name if ranked else None,
        "selected": _explicit(plans[ranked[0].name], resolved[ranked[0].name]) if ranked else None,
        "block_influence": influence,
        "angular_distance": base.angular_distance(),
        "residual_rms": base.residual_rms(),
        "plans": [asdict(measure) for measure in ranked],
    }


def _candidate(name: str, plan: GrowthPlan, num_hidden_layers: int) -> LayerPlan:
    if plan.init not in (Init.copy, Init.zero_out):
        raise PlanError(
            f"plans.{name}.init: {plan.init.value} found, expected copy or zero_out: other values make new weights, "
            "and candidates are run with the base's; grow this plan and evaluate the result"
        )
    try:
        return resolve(plan, num_hidden_layers)
    except PlanError as error:
        raise PlanError(f"plans.{name}.{error}") from error


def _explicit(plan: GrowthPlan, layers: LayerPlan) -> dict[str, Any]:
    """The plan as a list of layers, with its other settings."""
    explicit = asdict(plan) | dict.fromkeys(plan.given_parameters())
    explicit |= {"plan": PlanName.explicit, "layers": list(layers.sources)}
    return {name: value for name, value in explicit.items() if value is not None}


def _run(virtual: VirtualModel, plan: GrowthPlan, layers: LayerPlan, scales: dict[int, float]) -> Pass:
    silent = dict.fromkeys(layers.new_positions, 0.0) if plan.init is Init.zero_out else {}
    return virtual.run(layers.sources, {**scales, **silent})
