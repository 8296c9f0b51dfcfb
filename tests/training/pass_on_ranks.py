"""One rank of the reference pass: `torchrun pass_on_ranks.py FOLDER OUTPUT`, with `base` and `data` in FOLDER."""

import os
import sys
from pathlib import Path

from tiny import Place

from solar.config.preference import ReferenceLogpsConfig
from solar.config.training import Precision
from solar.engine.worker import leave
from solar.training.preference.reference_pass import reference_pass

if __name__ == "__main__":
    folder, output = map(Path, sys.argv[1:])
    trainer = Place(output, devices=int(os.environ["WORLD_SIZE"]), threads=1).trainer
    config = ReferenceLogpsConfig(kind="reference_logps", model="base", data="data", precision=Precision.fp32)
    reference_pass(config, folder / "base", folder / "data", output, trainer, 3)
    leave(0)
