"""What a machine lacks is found before work starts, from formulas that can be checked by hand."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from solar.config.data import Deduplicate, PrepareDataConfig
from solar.config.model import ArchitectureConfig, ImportModelConfig
from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.preference import ReferenceLogpsConfig
from solar.config.root import LoggerConfig, LoggerName, PathsConfig, SolarConfig, Strategy, TrainerConfig
from solar.config.synthesis import SynthesizeConfig
from solar.config.training import AdapterConfig, FrozenBase, Precision, SftConfig, Trainable
from solar.plan.cost import cost, trainable_parameters
from solar.plan.facts import ModelFacts
from solar.plan.plan import Plan, PlannedStage
from solar.plan.preflight import resources
from solar.plan.preflight.packages import missing_packages
from solar.plan.preflight.resources import missing_resources

MISTRAL = ArchitectureConfig(32, 4096, 14336, 32, 8, 32000, 4096, False, 1e4, 1e-5)
PARAMETERS = 7_241_732_096
LAYER, EMBEDDINGS, NORM = 218_112_000, 2 * 32000 * 4096, 4096
TRAINER = TrainerConfig(accelerator="gpu", devices=1, num_nodes=1, keep_checkpoints=1, strategy=Strategy.single)


def _sft(**changed: object) -> SftConfig:
    settings = {"model": "base", "data": "tokens", "duration": "10 steps", "global_batch_size": 8}
    settings |= {"precision": Precision.fp32, "optimizer": OptimizerConfig(OptimizerName.adamw, 1e-3)}
    return SftConfig(kind="sft", **(settings | changed))


def _cost(config: SftConfig, facts: ModelFacts, trainer: TrainerConfig = TRAINER):
    data = PlannedStage("tokens", PrepareDataConfig(kind="prepare_data", sequence_length=64), "0", {}, None, None)
    stage = PlannedStage("sft", config, "1", {}, None, facts)
    return cost(stage, {"tokens": data, "sft": stage}, trainer)


FACTS = ModelFacts(MISTRAL, 32, 2)


def test_full_training_takes_weights_gradients_and_two_moments() -> None:
    assert MISTRAL.layer_parameters == LAYER and MISTRAL.parameters() == PARAMETERS
    assert _cost(_sft(), FACTS).gpu_bytes == 16 * PARAMETERS
    assert _cost(_sft(precision=Precision.bf16_true), FACTS).gpu_bytes == 8 * PARAMETERS
    eight_bit = OptimizerConfig(OptimizerName.adamw_8bit, 1e-3)
    assert _cost(_sft(optimizer=eight_bit), FACTS).gpu_bytes == (4 + 4 + 2) * PARAMETERS
    split = OptimizerConfig(OptimizerName.adamw, 1e-3, split_weights=True)
    assert _cost(_sft(precision=Precision.bf16_true, optimizer=split), FACTS).gpu_bytes == 10 * PARAMETERS
    sharded = replace(TRAINER, devices=4, strategy=Strategy.fsdp)
    assert _cost(_sft(), FACTS, sharded).gpu_bytes == 4 * PARAMETERS


def test_adapters_alone_get_gradients_and_moments() -> None:
    # inputs + outputs of a layer: q and o 2 x 8192, k and v 2 x (4096 + 1024), three of 4096 + 14336
    adapters = 32 * 8 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    assert _cost(_sft(adapter=AdapterConfig(rank=8)), FACTS).gpu_bytes == 4 * PARAMETERS + 12 * adapters
    two = AdapterConfig(rank=8, targets=["q_proj", "v_proj"])
    assert trainable_parameters(_sft(adapter=two), FACTS) == 32 * 8 * (8192 + 5120)


def test_a_base_in_few_bits_takes_half_a_byte_a_weight_and_its_scales() -> None:
    trained = 12 * 32 * 8 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    floats = 4 * (EMBEDDINGS + NORM)
    nf4, int8 = (_sft(adapter=AdapterConfig(rank=8, base=base)) for base in FrozenBase)
    assert _cost(int8, FACTS).gpu_bytes == floats + 32 * LAYER + trained
    # blocks of 64 weights have a scale of one byte, and 256 scales a float
    assert _cost(nf4, FACTS).gpu_bytes == floats + 32 * LAYER // 2 + 32 * LAYER // 64 + 32 * LAYER // 4096 + trained


def test_frozen_layers_get_no_gradients_and_no_moments() -> None:
    grown = ModelFacts(MISTRAL, 48, 2, new_layers=16)
    assert trainable_parameters(_sft(trainable=Trainable.new), grown) == 16 * LAYER
    assert trainable_parameters(_sft(lr_factors={"old": 0.0}), grown) == 16 * LAYER + EMBEDDINGS + NORM
    assert trainable_parameters(_sft(lr_factors={"embed": 0.0, "norm": 0.0}), grown) == 48 * LAYER
    thawing = _sft(trainable=Trainable.new, unfreeze_at="5 steps")
    assert trainable_parameters(thawing, grown) == MISTRAL.parameters(48)


def test_disk_holds_the_model_every_kept_checkpoint_and_the_next() -> None:
    checkpoint = (4 + 8) * PARAMETERS  # weights and moments in float32, whatever the stored format
    assert _cost(_sft(), FACTS).disk_bytes == 2 * PARAMETERS + 2 * checkpoint
    assert _cost(_sft(), FACTS, replace(TRAINER, keep_checkpoints=3)).disk_bytes == 2 * PARAMETERS + 4 * checkpoint


def _missing(monkeypatch: pytest.MonkeyPatch, root: Path, free: int, gpus: list[int], **trainer: object) -> list[str]:
    """What a machine lacks for one training of Mistral-7B."""
    data = PlannedStage(
        "tokens", PrepareDataConfig(kind="prepare_data", sequence_length=64), "0", {}, None, None, False
    )
    stage = PlannedStage("sft", _sft(), "1", {}, None, FACTS)
    config = SolarConfig(trainer=replace(TRAINER, **trainer), paths=PathsConfig(str(root / "not" / "there" / "yet")))
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    monkeypatch.setattr(resources, "gpu_memories", lambda: gpus)
    return list(resources.missing_resources(Plan("p", {"tokens": data, "sft": stage}, ()), config))


def test_a_disk_that_is_too_small_by_one_byte_is_found_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * PARAMETERS + 2 * 12 * PARAMETERS  # the model in bfloat16, a kept checkpoint and the next
    assert _missing(monkeypatch, tmp_path, needed, [16 * PARAMETERS]) == []
    (line,) = _missing(monkeypatch, tmp_path, needed - 1, [16 * PARAMETERS])
    assert line.startswith("paths.root: 188 GB free in ") and "the plan needs up to 188 GB; give another" in line


def test_a_gpu_that_is_too_small_or_missing_is_found_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough, needed = 10**15, 16 * PARAMETERS  # weights, gradients and two moments in float32
    (line,) = _missing(monkeypatch, tmp_path, enough, [needed, needed - 1], devices=2)
    assert line.startswith("stages.sft: weights, gradients and optimizer take 116 GB a GPU, which has 116 GB; shard")
    assert _missing(monkeypatch, tmp_path, enough, [needed], devices=2) == [
        "trainer.devices: found 1 GPUs on this machine, expected 2"
    ]
    assert _missing(monkeypatch, tmp_path, enough, [], accelerator="cpu") == []


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            PrepareDataConfig(kind="prepare_data", deduplicate=Deduplicate.minhash),
            "stages.s.deduplicate: needs rensa, which is not installed; pip install 'solar[dedup]'",
        ),
        (
            SynthesizeConfig(kind="synthesize", base_url="http://x/v1"),
            "stages.s.base_url: needs openai, which is not installed; pip install 'solar[synthesize]'",
        ),
        (
            ImportModelConfig(kind="import_model", path="model.gguf"),
            "stages.s.path: needs gguf, which is not installed; pip install 'solar[gguf]'",
        ),
        (
            _sft(adapter=AdapterConfig(rank=8)),
            "stages.s.adapter.rank: needs peft, which is not installed; pip install 'solar[lora]'",
        ),
        (
            _sft(float8=True),
            "stages.s.float8: needs torchao, which is not installed; pip install 'solar[float8]'",
        ),
        (
            ReferenceLogpsConfig(kind="reference_logps", base=FrozenBase.nf4),
            "stages.s.base: needs bitsandbytes, which is not installed; pip install 'solar[qlora]'",
        ),
        (
            _sft(optimizer=OptimizerConfig(OptimizerName.schedule_free)),
            "stages.s.optimizer.name: needs schedulefree, which is not installed; pip install 'solar[schedule_free]'",
        ),
        (_sft(), "logger.name: tensorboard is not installed; pip install tensorboard, or choose logger=none"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_an_optional_package_is_asked_for_before_work_starts(
    config, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = PlannedStage("s", config, "0", {}, None, None)
    whole = SolarConfig(logger=LoggerConfig(LoggerName.tensorboard if line.startswith("logger") else LoggerName.none))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert list(missing_packages([stage], whole)) == [line]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert list(missing_packages([stage], whole)) == []


def test_float8_on_a_cpu_is_refused_before_work_starts(tmp_path: Path) -> None:
    stage = PlannedStage("s", _sft(float8=True), "0", {}, None, None)
    plan = Plan("x", {"s": stage}, ())
    lines = {}
    for accelerator in ("cpu", "gpu"):
        trainer = replace(TRAINER, accelerator=accelerator)
        config = SolarConfig(name="x", trainer=trainer, paths=PathsConfig(root=str(tmp_path)))
        lines[accelerator] = [line for line in missing_resources(plan, config) if "float8" in line]
    assert lines == {"cpu": ["stages.s.float8: found trainer.accelerator cpu, expected gpu"], "gpu": []}


def test_a_base_in_few_bits_asks_for_bitsandbytes_beside_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = PlannedStage("s", _sft(adapter=AdapterConfig(rank=8, base=FrozenBase.nf4)), "0", {}, None, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lines = missing_packages([stage], SolarConfig(logger=LoggerConfig(LoggerName.none)))
    assert [line.partition(",")[0] for line in lines] == [
        "stages.s.adapter.rank: needs peft",
        "stages.s.adapter.base: needs bitsandbytes",
    ]
