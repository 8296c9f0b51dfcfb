"""A job file gives a rank the arguments of the stage."""

from pathlib import Path

from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Artifact
from solar.config.optimizer import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName
from solar.config.root import LoggerConfig, LoggerName, Strategy, TrainerConfig
from solar.config.training import Precision, PretrainConfig
from solar.engine.context import RunContext
from solar.engine.job import Job


def test_job_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "base-0"
    folder.mkdir()
    manifest = Manifest("base", "pretrain", "0" * 12, 1, {}, {}, {}, {}, {}, 0.0)
    manifest.write(folder)
    config = PretrainConfig(
        kind="pretrain",
        model="base",
        data="tokens",
        duration="10 steps",
        global_batch_size=8,
        precision=Precision.fp32,
        optimizer=OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.95], 1e-8, 0.1, 1.0),
        schedule=ScheduleConfig(ScheduleName.wsd, 0.1, 0.0, 0.2),
        lr_factors={"old": 0.5},
        seed=3,
    )
    trainer = TrainerConfig(
        accelerator="cpu",
        devices=2,
        num_nodes=1,
        strategy=Strategy.ddp,
        micro_batch_size=4,
        micro_batch_sizes={"sft": 2},
        log_every_steps=1,
        checkpoint_every_seconds=1.0,
    )
    context = RunContext("test", "heal", trainer, LoggerConfig(LoggerName.none), tmp_path, print)
    inputs = {"base": Artifact(folder, manifest)}
    file = tmp_path / "job.json"
    file.write_text(Job.of(config, inputs, tmp_path / "out", context).to_json())
    assert Job.read(file).arguments(print) == (config, inputs, tmp_path / "out", context)
