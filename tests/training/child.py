"""A training in a process of its own: `python child.py KIND FOLDER OUTPUT SECONDS_BETWEEN_SAVES WORKERS`."""

import sys
from functools import partial
from pathlib import Path

import torch
from tiny import Place, settings

from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.training import PretrainConfig, SftConfig
from solar.errors import Interrupted
from solar.training.fit import fit
from solar.training.modules.next_token import ContinuedPretraining, InstructionTuning
from solar.training.preference.module import PreferenceOptimization


def main(kind: str, folder: Path, output: Path, seconds: float, workers: int) -> None:
    torch.set_num_threads(1)
    fields = {"duration": "300 steps", "global_batch_size": 4}
    model, data = folder / "base", folder / kind.removesuffix("-read")
    where = Place(output, checkpoint_every_seconds=seconds, log_every_steps=10, num_workers=workers)
    where.progress = lambda line: print(line, flush=True)
    if kind.startswith("dpo"):
        config = DpoConfig(**settings(**fields, reference="base", loss=PreferenceLoss.sigmoid, beta=0.1))
        logps = folder / "logps" if kind == "dpo-read" else None
        module = partial(PreferenceOptimization, model_dir=model, reference_dir=model, data_dir=data, logps_dir=logps)
    elif kind.startswith("sft"):
        config, module = SftConfig(**settings(**fields)), InstructionTuning
    else:
        config, module = PretrainConfig(**settings(**fields)), ContinuedPretraining
    try:
        fit(module, config, model, data, output, where)
    except Interrupted as error:
        print(error, flush=True)
        sys.exit(75)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
