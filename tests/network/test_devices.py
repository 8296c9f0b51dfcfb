"""Where things run: the accelerator of the trainer, the device of a conversation, and what travels to a GPU."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from solar import diagnose as diagnose_command
from solar import grow as grow_command
from solar.chat import Options
from solar.config.evaluation import EvaluateConfig
from solar.config.growth import DiagnoseConfig, UpscaleConfig
from solar.config.growth_plan import GrowthPlan, PlanName, SeamInit
from solar.config.root import TrainerConfig
from solar.config.synthesis import SynthesizeConfig
from solar.data.encode import encode, tokenizer
from solar.diagnosis import seams, verify_logits
from solar.errors import ConfigError
from solar.evaluation import harness
from solar.growth.files.verify import Verify
from solar.growth.grow import grow
from solar.network import isolation, loading
from solar.network.attention import Segment
from solar.network.device import device_for, format_of_sums
from solar.network.microbatch import assemble
from solar.plan.preflight import accelerator
from solar.stages import diagnose, evaluate, synthesize, upscale
from solar.training.batches.steps import Step
from solar.training.modules import step
from tests.growth.tiny import LAYERS, make_tiny


def _batch():
    return assemble([np.arange(5)], [np.array([1, 2, -100, 4, -100])], [Segment(5)], [np.arange(5)], [5], [7])


def test_auto_becomes_the_gpu_of_this_machine_and_says_so(monkeypatch):
    monkeypatch.setattr(accelerator, "gpu_memories", lambda: [2**37])
    monkeypatch.setattr(accelerator, "version", lambda _: "2.13.0+cu130")
    trainer = TrainerConfig(accelerator="auto")
    assert accelerator.resolve_accelerator(trainer) == "trainer.accelerator: auto is gpu here (1 GPU)"
    assert trainer.accelerator == "gpu" and trainer.device_type == "cuda"


def test_an_accelerator_that_is_named_stays():
    trainer = TrainerConfig(accelerator="cpu")
    assert accelerator.resolve_accelerator(trainer) is None and trainer.device_type == "cpu"


def test_every_tensor_of_a_step_is_pinned_and_the_counts_stay(monkeypatch):
    pinned = []

    def pin_memory(tensor):
        pinned.append(tensor.tolist())
        return tensor.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    batch = _batch()
    step = Step([batch], 1, 5, 3).pin_memory()
    assert pinned == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 3], [1, 2, 4], [0, 0, 0]]
    assert (step.rows, step.tokens, step.trained_tokens) == (1, 5, 3)
    assert step.micro_batches[0].segments == batch.segments and step.micro_batches[0] is not batch


def test_a_conversation_takes_the_device_that_torch_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_for("auto") == "cuda" and device_for("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_for("auto") == "cpu"
    with pytest.raises(ConfigError, match="device: found cuda, which torch does not see here"):
        device_for("cuda")


@pytest.fixture
def on_cuda(monkeypatch):
    """torch sees a GPU, which is this CPU; the devices that models are asked for are recorded."""
    asked = []
    plain = loading.load_model

    def load_model(folder, dtype=torch.float32, window=None, device="cpu"):
        asked.append(device)
        return plain(folder, dtype, window, "cpu")

    for module in (loading, verify_logits):
        monkeypatch.setattr(module, "load_model", load_model)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plain_to = Tensor.to

    def to(tensor, *where, **options):
        if where[:1] != ("cuda",):
            return plain_to(tensor, *where, **options)
        asked.append("input")
        return tensor

    monkeypatch.setattr(Tensor, "to", to)
    return asked


def test_grown_logits_are_compared_on_the_device_of_the_trainer(on_cuda, tmp_path):
    base = make_tiny("llama", tmp_path / "base")
    grow(base, tmp_path / "grown", GrowthPlan(PlanName.dus, p=1, q=2), verify=Verify.none)
    request = {"base": str(base), "grown": str(tmp_path / "grown"), "level": "logits", "device": "auto"}
    request |= {"base_layers": LAYERS, "layers": [*range(LAYERS - 1), *range(2, LAYERS)]}
    on_cuda.clear()
    verify_logits.judge(request | {"same_function": True, "lossless": False})
    assert on_cuda == ["cuda", "cuda", "input"]


def test_seams_are_measured_on_the_device_that_is_asked_for(on_cuda, tmp_path, monkeypatch):
    base = make_tiny("llama", tmp_path / "base")
    monkeypatch.setattr(seams, "tokenized", lambda *_: torch.arange(32)[None] % 50)
    request = {"model": str(base), "text": "", "plan": {"plan": "dus", "p": 1, "q": 2}, "device": "cuda"}
    assert seams._work(request)[0] == 1.0 and on_cuda == ["cuda", "input"]


def test_the_commands_that_measure_and_grow_take_a_device(tmp_path, capsys):
    for command in (diagnose_command, grow_command):
        words = [str(tmp_path), *([str(tmp_path / "out"), "m=2"] if command is grow_command else ["text=t"])]
        assert command.main([*words, "device=tpu"]) == 1
        assert "device: found 'tpu', expected one of auto, cpu, cuda, mps" in capsys.readouterr().err


@pytest.mark.parametrize(
    "dtype,settings", [(torch.float32, {"mixed_precision_dtype": "bfloat16"}), (torch.bfloat16, {})]
)
def test_the_harness_finds_its_own_batch_size_in_bfloat16_on_a_gpu_alone(dtype, settings):
    cuda, cpu = (SimpleNamespace(device=torch.device(kind), dtype=dtype) for kind in ("cuda", "cpu"))
    assert harness._speed(cuda) == {"batch_size": "auto"} | settings and harness._speed(cpu) == {"batch_size": 1}


def test_an_unknown_device_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="device: found 'tpu', expected one of auto, cpu, cuda, mps"):
        Options(device="tpu").check()


@pytest.mark.parametrize("accelerator_name,device", [("cpu", "cpu"), ("gpu", "cuda"), ("mps", "mps")])
def test_stages_without_training_run_on_the_device_of_the_trainer(accelerator_name, device, tmp_path, monkeypatch):
    devices = {}

    def score(*_):
        devices["evaluate"] = _[-1]
        return {}

    def measured(*arguments):
        devices["diagnose"] = arguments[-1]
        return {"plans": [], "base_loss": 1.0, "best": None}

    monkeypatch.setattr(evaluate, "score", score)
    monkeypatch.setattr(diagnose, "diagnose", measured)
    monkeypatch.setattr(diagnose, "held_out_rows", lambda *_: np.zeros((2, 4), np.int64))

    def decoder(_, device):
        devices["synthesize"] = device
        return SimpleNamespace(network=None)

    monkeypatch.setattr(loading, "load_decoder", decoder)
    monkeypatch.setattr(isolation, "own_attention", lambda _: nullcontext())
    monkeypatch.setattr(tokenizer, "load", lambda _: None)
    monkeypatch.setattr(encode, "Encoder", lambda _: None)

    def grown(*_, device, **__):
        devices["upscale"] = device
        return SimpleNamespace(base_parameters=1, parameters=1, layers=SimpleNamespace(sources=[0]), bytes=1)

    def seam_scales(*arguments):
        devices["rms_match"] = arguments[-1]

    monkeypatch.setattr(upscale, "grow", grown)
    monkeypatch.setattr(upscale, "_seam_scales", seam_scales)
    monkeypatch.setattr(upscale.class_label, "relabel", lambda _: "")
    trainer = TrainerConfig(accelerator=accelerator_name)
    context = SimpleNamespace(trainer=trainer, progress=lambda line: None)
    folder = SimpleNamespace(path=tmp_path, manifest=SimpleNamespace(stage="base"))
    inputs = {"base": folder, "text": folder}
    evaluate.run(EvaluateConfig(kind="evaluate", models=["base"], data="text"), inputs, tmp_path, context)
    config = DiagnoseConfig(kind="diagnose", model="base", data="text", tokens=8, sequence_length=4)
    diagnose.run(config, inputs, tmp_path, context)
    growth = UpscaleConfig(kind="upscale", model="base", plan=PlanName.dus, m=1, seam=SeamInit.rms_match, data="text")
    upscale.run(growth, inputs, tmp_path, context)
    local = SynthesizeConfig(kind="synthesize", model="base", temperature=0.0, max_new_tokens=4)
    with synthesize._answerer(local, inputs, context):
        pass
    assert devices == dict.fromkeys(["evaluate", "diagnose", "upscale", "rms_match", "synthesize"], device)


def test_losses_are_added_up_in_float32_on_a_device_without_float64():
    assert {kind: format_of_sums(kind) for kind in ("cpu", "cuda", "mps")} == {
        "cpu": torch.float64,
        "cuda": torch.float64,
        "mps": torch.float32,
    }


def test_the_draws_of_a_step_are_seeded_on_every_kind_of_device(monkeypatch):
    seeds = {}
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeds.update(cuda=seed))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: seeds.update(mps=seed))
    for kind in ("cuda", "mps", "cpu"):
        step._seed_draws(5, 7, 0, torch.device(kind))
    assert seeds == {"cuda": torch.initial_seed(), "mps": torch.initial_seed()}


@pytest.mark.parametrize("name,asked,processes", [("gpu", None, 2), ("cpu", None, 0), ("gpu", 0, 0), ("cpu", 3, 3)])
def test_two_processes_load_data_beside_a_gpu_unless_the_trainer_says_how_many(name, asked, processes):
    assert TrainerConfig(accelerator=name, num_workers=asked).loading_processes == processes
