"""A trained model is a whole Hugging Face folder, however large it is."""

import json

import pytest
import torch
from tiny import llama, llama_folder
from transformers import AutoModelForCausalLM

from solar.training.checkpoint import export
from solar.training.checkpoint.export import save_model


def test_a_large_model_is_written_in_shards_that_load_as_one(tmp_path, monkeypatch):
    base, network = llama_folder(tmp_path / "base"), llama(seed=1)
    monkeypatch.setattr(export, "SHARD_BYTES", 30_000)
    weights = dict(network.state_dict())
    save_model(network, weights, base, tmp_path / "model")
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    assert len(shards) > 2 and set(index["weight_map"].values()) == {shard.name for shard in shards}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in network.state_dict().items())
    assert not weights, "memory of a tensor is free once it is in the stored format"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_keep_the_number_format_that_they_came_in(tmp_path, dtype):
    llama().to(dtype).save_pretrained(tmp_path / "base")
    network = llama(seed=1)
    save_model(network, dict(network.state_dict()), tmp_path / "base", tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto").state_dict()
    assert all(torch.equal(weight.to(dtype), loaded[name]) for name, weight in network.state_dict().items())
