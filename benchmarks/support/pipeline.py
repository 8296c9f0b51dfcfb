"""`dus_10b` on random weights: grow, pretrain, DPO, merge, with files on the disk as in a run."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from support.accelerated import Shape, free, full_rows, pair_row, synchronise, token_row

Rows = Iterator[tuple[str, dict[str, Any]]]
MISTRAL_7B = Shape("Mistral 7B", 32, 4096, 14336, 32, 8, 32000, 2, 4096, recompute=True)


def dus(device: torch.device, tiny: bool, deadline: float) -> Rows:
    """Each part is begun before `deadline` (of `time.monotonic`) and where the disk has room, or says why not."""
    shape = Shape("tiny", 4, 64, 128, 2, 1, 256, 2, 64, recompute=True) if tiny else MISTRAL_7B
    steps = {"pretrain": 4, "dpo": 2} if tiny else {"pretrain": 20, "dpo": 5}
    with tempfile.TemporaryDirectory(prefix="accelerator-") as name:
        folder = Path(name)
        parts = {
            "base": lambda: _base(shape, device, folder / "base"),
            "grow": lambda: _grown(folder, shape.layers // 4),
            "pretrain": lambda: _trained("pretrain", shape, steps["pretrain"], device, folder, "grown", "cpt"),
            "dpo": lambda: _trained("dpo", shape, steps["dpo"], device, folder, "cpt", "dpo"),
            "merge": lambda: _merged(folder),
        }
        size = 0
        for part, work in parts.items():
            room = shutil.disk_usage(folder).free
            if time.monotonic() > deadline or room < 1.1 * size:
                yield (
                    part,
                    {"not_run": "out of time" if room >= 1.1 * size else f"{room / 1e9:.0f} GB of disk are free"},
                )
                return
            began = time.perf_counter()
            figures = work()
            synchronise(device)
            yield part, {"seconds": time.perf_counter() - began, **figures}
            size = max(size, _bytes(folder / "grown"), _bytes(folder / "base") * 3 // 2)
            free(device)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _base(shape: Shape, device: torch.device, folder: Path) -> dict[str, Any]:
    network = shape.network(device, torch.bfloat16, "sdpa")
    network.save_pretrained(folder, max_shard_size="5GB")
    (folder / "tokenizer.json").write_text("{}")
    return {"parameters": network.num_parameters(), "gb": _bytes(folder) / 1e9}


def _grown(folder: Path, dropped: int) -> dict[str, Any]:
    """The base goes, to make room."""
    from solar.config.growth_plan import GrowthPlan, PlanName
    from solar.growth.grow import grow

    report = grow(folder / "base", folder / "grown", GrowthPlan(PlanName.dus, m=dropped))
    shutil.rmtree(folder / "base")
    return {"parameters": report.parameters, "gb": report.bytes / 1e9, "layers": report.layers.num_hidden_layers}


def _trained(
    kind: str, shape: Shape, steps: int, device: torch.device, folder: Path, start: str, end: str
) -> dict[str, Any]:
    """From the folder `start` to the folder `end`, in bf16_true with recomputed activations."""
    from tiny import Place, train_rows

    from solar.training.modules.compilation import compile_layers
    from solar.training.modules.next_token import ContinuedPretraining
    from solar.training.modules.recomputation import recompute_activations
    from solar.training.preference.module import PreferenceOptimization

    wide = replace(shape, rows=1) if kind == "dpo" else shape
    rows = [
        (pair_row if kind == "dpo" else token_row)(ids, n) for n, ids in enumerate(full_rows(wide, wide.rows * steps))
    ]
    (folder / "data").mkdir(exist_ok=True)
    places = {"model_dir": folder / start, "reference_dir": folder / start, "data_dir": folder / "data"}

    place: dict[str, Any] = {
        "accelerator": "cpu" if device.type == "cpu" else "gpu",
        "micro_batch_size": wide.rows,
    }

    def module(network: Any, config: Any, *rest: Any) -> Any:
        recompute_activations(network, False)
        compile_layers(network, Place(folder, **place).trainer)
        if kind == "dpo":
            return PreferenceOptimization(network, config, *rest, **places)
        return ContinuedPretraining(network, config, *rest)

    metrics, _ = train_rows(
        rows, _config(kind, steps, wide.rows), folder / start, folder / "out", module=module, **place
    )
    (folder / "out" / "model").rename(folder / end)
    if start == "grown":
        shutil.rmtree(folder / start)  # to make room
    names = ("loss_first", "loss_last", "tokens_per_second", "peak_memory_bytes", "margin_first", "attention")
    return {name: metrics[name] for name in names if name in metrics}


def _config(kind: str, steps: int, rows: int) -> Any:
    from tiny import settings

    from solar.config.optimizer import OptimizerConfig, OptimizerName
    from solar.config.preference import DpoConfig, PreferenceLoss
    from solar.config.training import Precision, PretrainConfig

    common = settings(
        duration=f"{steps} steps",
        global_batch_size=rows,
        precision=Precision.bf16_true,
        optimizer=OptimizerConfig(OptimizerName.adamw, 1e-5, [0.9, 0.95], 1e-8, 0.1, 1.0),
    )
    if kind == "dpo":
        preference: dict[str, Any] = {"kind": "dpo", "reference": "base", "loss": PreferenceLoss.sigmoid, "beta": 0.1}
        return DpoConfig(**(common | preference))  # type: ignore[arg-type]
    return PretrainConfig(**common)  # type: ignore[arg-type]


def _merged(folder: Path) -> dict[str, Any]:
    from solar.config.merging import MergeConfig, MergeMethod
    from solar.merging.merge import merge

    config = MergeConfig(kind="merge", models=["cpt", "dpo"], method=MergeMethod.average)
    merge([folder / "cpt", folder / "dpo"], folder / "merged", config)
    return {"gb": _bytes(folder / "merged") / 1e9}
