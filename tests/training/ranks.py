"""One rank of a training on several processes: `torchrun ranks.py KIND STRATEGY FOLDER [STOP_AT]`, rows in memory."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import InOrder, MemoryRows, Place, pair, row, settings

from solar.config.duration import Duration
from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.root import Strategy
from solar.config.training import Precision, PretrainConfig
from solar.engine.worker import leave
from solar.errors import Interrupted
from solar.network.loading import load_network
from solar.training.batches.steps import Budget, StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.training.distributed.sharded_loading import empty_network
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.modules.step import TrainingModule
from solar.training.preference.module import PreferenceOptimization
from solar.training.trainer import train

ROWS = {
    "cpt": [row(3 + 2 * (n % 5), 6, seed=n, sample=n) for n in range(10)],
    "dpo": [pair(4 + n % 3, 5, 3 + n % 4, seed=n, sample=n) for n in range(10)],
}
ROWS |= {"kto": ROWS["dpo"], "nan": ROWS["cpt"], "stopped-in-validation": ROWS["cpt"]}
ROWS |= {"mixed": ROWS["cpt"], "split": ROWS["cpt"], "deterministic": ROWS["cpt"], "compiled": ROWS["cpt"]}
SAID = {"duration": "2 epochs", "global_batch_size": 4}


def watch_formats(module: TrainingModule, path: Path) -> None:
    """Write the number formats of the weights that are kept, and of what the layers compute with."""
    layer, found = module.network.model.layers[0], {}
    found["kept"] = sorted({str(parameter.dtype) for parameter in module.network.parameters()})
    found["moments"] = sorted({str(s["exp_avg"].dtype) for o in module.trainer.optimizers for s in o.state.values()})

    def write(linear, inputs, output):
        found["weight"], found["output"] = str(linear.weight.dtype), str(output.dtype)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found))

    layer.mlp.up_proj.register_forward_hook(write)


def main(kind: str, strategy: str, folder: Path, stop_at: int | None) -> None:
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(1)
    pairs = kind in ("dpo", "kto")
    more = {"reference": "base", "loss": PreferenceLoss("kto" if kind == "kto" else "sigmoid"), "beta": 0.1}
    config = DpoConfig(**settings(**SAID, **more)) if pairs else PretrainConfig(**settings(**SAID))
    if kind == "stopped-in-validation":
        config.validate_every_steps = 2
    if kind == "mixed":
        config.precision = Precision.bf16_mixed
    if kind == "split":
        config.precision, config.optimizer.split_weights = Precision.bf16_true, True
    data, base, output = MemoryRows(ROWS[kind]), folder / "base", folder / strategy
    reference = folder / "reference" if kind == "kto" else base
    order = InOrder(data)
    budget = Budget.of(Duration.parse(config.duration), order, config.global_batch_size)
    stop = StopRequest()
    dirs = {"model_dir": base, "reference_dir": reference, "data_dir": folder / "data"} if pairs else {}
    parent = PreferenceOptimization if pairs else ContinuedPretraining

    class Stopping(parent):
        def loss_sum(self, batch):
            if kind == "mixed" and self.steps_done == 1 and self.network.training:
                watch_formats(self, output / f"formats-{rank}.json")
            if kind == "deterministic":
                found = [torch.are_deterministic_algorithms_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"]]
                (output / f"deterministic-{rank}.json").write_text(json.dumps(found))
            loss, others = super().loss_sum(batch)
            last = self.steps_done == 2 and rank == world_size - 1
            poisoned = kind == "nan" and last and self.network.training
            if kind == "stopped-in-validation" and last and not self.network.training:
                stop.received = signal.SIGTERM
            return loss * float("nan") if poisoned else loss, others

        def _clip(self):  # gradients of the first step, before anything has drifted
            if self.steps_done == 0 and strategy in ("single", "ddp") and rank == 0:
                output.mkdir(exist_ok=True)
                save_file({n: p.grad.clone() for n, p in self.network.named_parameters()}, output / "grads.safetensors")
            return super()._clip()

        def training_step(self, step, batch_idx):
            super().training_step(step, batch_idx)
            if self.steps_done == stop_at and rank == world_size - 1:
                stop.received = signal.SIGTERM

    sharded = strategy in ("fsdp", "tp")
    parallel = 2 if strategy == "tp" else 1
    replica, replicas = rank // parallel, world_size // parallel
    load = empty_network if sharded else load_network
    network, schedule = load(base, config.precision), budget.schedule(config.schedule, order)
    if kind == "compiled" and strategy != "single":
        for layer in network.model.layers:
            layer.compile(dynamic=True, backend="eager")
    module = partial(Stopping, **dirs)(network, config, schedule, lambda name: "old")
    module.source = base
    steps = StepDataset(data, order, module.assemble, budget, 1, replica, replicas)
    held_out = ValidationRows(MemoryRows(ROWS[kind][:3]), module.assemble, 1, None, replica, replicas)
    engine = Strategy.fsdp if sharded else Strategy(strategy)
    where = Place(
        output, devices=world_size, strategy=engine, tensor_parallel=parallel, deterministic=kind == "deterministic"
    )
    try:
        metrics = train(module, steps, held_out, base, output, where, stop)
    except Interrupted:
        leave(75)
    if rank == 0:
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        (output / "metrics.json").write_text(json.dumps(metrics | {"graphs": graphs}))
    leave(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
