"""Stage `soup`: average the models that lower the held-out loss."""

from pathlib import Path

from solar.config.soup import SoupConfig
from solar.data.encode import class_label
from solar.engine.context import Inputs, Metrics, RunContext
from solar.evaluation.perplexity import held_out_loss
from solar.merging.soup import greedy_soup
from solar.network.loading import load_decoder


def run(config: SoupConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `model/`; the metrics hold every loss that was measured and the models that were kept."""
    device = context.trainer.device_type
    losses: list[float] = []

    def score(folder: Path) -> float:
        context.progress(f"judging merge {len(losses) + 1} of at most {2 * len(config.models) - 1}")
        decoder = load_decoder(folder, device)
        losses.append(float(held_out_loss(decoder, inputs[config.data].path, config.max_tokens)["nats_per_token"]))
        return -losses[-1]

    folders = {name: inputs[name].path / "model" for name in config.models}
    report = greedy_soup(folders, output / "model", score)
    kept = " and ".join(report.kept)
    relabelled = class_label.relabel(output / "model")
    return {
        "nats_per_token": -report.score,
        "kept": report.kept,
        "alone": {name: -value for name, value in report.alone.items()},
        "tried": [{"models": tried.models, "nats_per_token": -tried.score} for tried in report.tried],
        "summary": f"kept {kept}: {-report.score:.4f} nats a token, the best alone {-max(report.alone.values()):.4f}"
        + relabelled,
    }
