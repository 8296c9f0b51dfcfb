"""Where things run: the accelerator of the trainer, the device of a conversation, and what travels to a GPU."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from solar import chat
from solar.chat import Options, device_for
from solar.config.evaluation import EvaluateConfig
from solar.config.growth import DiagnoseConfig
from solar.config.root import TrainerConfig
from solar.config.synthesis import SynthesizeConfig
from solar.data.encode import encode, tokenizer
from solar.errors import ConfigError
from solar.network import isolation, loading
from solar.network.attention import Segment
from solar.network.microbatch import assemble
from solar.plan.preflight import accelerator
from solar.stages import diagnose, evaluate, synthesize
from solar.training.batches.steps import Step


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


def test_an_unknown_device_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="device: found 'tpu', expected one of auto, cpu, cuda, mps"):
        Options(device="tpu").check()
    assert chat.DEVICES[0] == "auto"


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
    trainer = TrainerConfig(accelerator=accelerator_name)
    context = SimpleNamespace(trainer=trainer, progress=lambda line: None)
    folder = SimpleNamespace(path=tmp_path)
    inputs = {"base": folder, "text": folder}
    evaluate.run(EvaluateConfig(kind="evaluate", models=["base"], data="text"), inputs, tmp_path, context)
    config = DiagnoseConfig(kind="diagnose", model="base", data="text", tokens=8, sequence_length=4)
    diagnose.run(config, inputs, tmp_path, context)
    local = SynthesizeConfig(kind="synthesize", model="base", temperature=0.0, max_new_tokens=4)
    with synthesize._answerer(local, inputs, context):
        pass
    assert devices == {"evaluate": device, "diagnose": device, "synthesize": device}
