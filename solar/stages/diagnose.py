"""Stage `diagnose`: measure a model's layers and candidate growth plans on held-out text."""

from pathlib import Path

import torch

from solar.config.growth import DiagnoseConfig
from solar.data.held_out import held_out_rows
from solar.diagnosis.diagnose import diagnose
from solar.engine.context import Inputs, Metrics, RunContext

ROWS_AT_ONCE = 8


def run(config: DiagnoseConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `diagnosis.json`, whose plans stand from best to worst, and `diagnosis.png`."""
    rows_BT = torch.from_numpy(held_out_rows(inputs[config.data].path, config.tokens, config.sequence_length))
    model = inputs[config.model].path / "model"
    batches_BT, device = torch.split(rows_BT, ROWS_AT_ONCE), context.trainer.device_type
    diagnosis = diagnose(model, batches_BT, config.plans, output, config.select, context.progress, device)
    gaps = {plan["name"]: plan["step0_gap"] for plan in diagnosis["plans"]}
    summary = ", ".join(f"{name} {gap:+.3f}" for name, gap in gaps.items())
    return {
        "base_loss": diagnosis["base_loss"],
        "best": diagnosis["best"],
        "step0_gaps": gaps,
        "summary": f"gaps {summary}",
    }
