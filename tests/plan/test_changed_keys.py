"""T-A9. A training resumes what has its id: which keys of a configuration change the id, and which do not."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from solar.artifacts.store import Store
from solar.config.optimizer import OptimizerName, ScheduleName
from solar.config.root import LoggerName, SolarConfig, Strategy, Verification, typed
from solar.config.store import register
from solar.config.training import Precision, Trainable
from solar.plan.expansion.expand import expand
from solar.plan.plan import make_plan
from solar.run import conf_folder

HARMFUL: dict[str, Any] = {
    "stages.sft.duration": "41 steps",
    "stages.sft.global_batch_size": 4,
    "stages.sft.seed": 1,
    "stages.sft.precision": Precision.bf16_mixed,
    "stages.sft.trainable": Trainable.new,
    "stages.sft.optimizer.name": OptimizerName.muon,
    "stages.sft.optimizer.lr": 1.5e-3,
    "stages.sft.optimizer.betas": [0.9, 0.99],
    "stages.sft.optimizer.weight_decay": 0.2,
    "stages.sft.optimizer.max_grad_norm": 0.5,
    "stages.sft.schedule.name": ScheduleName.wsd,
    "stages.sft.schedule.warmup_fraction": 0.3,
    "stages.sft.guard.patience": 3,
    "stages.sft.average.decay": 0.5,
    "stages.sft.validate_every_steps": 3,
    "stages.sft_data.template": "chatml",
    "stages.sft_data.sequence_length": 96,
    "stages.sft_data.seed": 9,
    "stages.tokenizer.vocab_size": 500,
    "stages.upscale.m": 1,
    "stages.base.optimizer.lr": 1.5e-3,
    "stages.docs.held_out_fraction": 0.11,
}
"""Key -> another value, with which the training would be another."""
HARMLESS: dict[str, Any] = {
    "name": "again",
    "until": "sft",
    "stages.dpo_a.beta": 0.3,
    "stages.evaluation.max_choices": 3,
    "trainer.micro_batch_size": 2,
    "trainer.num_workers": 2,
    "trainer.threads": 1,
    "trainer.log_every_steps": 1,
    "trainer.checkpoint_every_seconds": 1.0,
    "trainer.keep_checkpoints": 3,
    "trainer.telemetry_every_steps": 2,
    "trainer.strategy": Strategy.ddp,
    "trainer.devices": 2,
    "logger.name": LoggerName.tensorboard,
    "verify": Verification.always,
}


@cache
def _quickstart() -> SolarConfig:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return typed(compose("config", overrides=["+experiment=quickstart", "logger=none"]))


def _id(key: str | None = None, value: Any = None) -> str:
    """The id of the stage `sft` with another value of one key."""
    config = copy.deepcopy(_quickstart())
    if key is not None:
        *parents, name = key.split(".")
        node: Any = config
        for parent in parents:
            node = node[parent] if isinstance(node, dict) else getattr(node, parent)
        assert hasattr(node, name) and getattr(node, name) != value, key
        setattr(node, name, value)
    return make_plan(expand(config), Store(Path("/nowhere"))).stages["sft"].id


@pytest.mark.parametrize("key", HARMFUL)
def test_another_training_has_another_id_and_so_no_checkpoint(key: str) -> None:
    assert _id(key, HARMFUL[key]) != _id()


@pytest.mark.parametrize("key", HARMLESS)
def test_what_changes_no_result_resumes(key: str) -> None:
    assert _id(key, HARMLESS[key]) == _id()


def test_no_two_changes_have_the_same_id() -> None:
    ids = [_id(key, value) for key, value in HARMFUL.items()]
    assert len(set(ids)) == len(ids)
