"""A trained model is a whole Hugging Face folder with its base's tensors, each in the base's number format."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import llama, llama_folder, row, settings, train_rows
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from solar.config.training import PretrainConfig
from solar.errors import StageError
from solar.network.loading import load_network
from solar.training.checkpoint import export
from solar.training.checkpoint.export import save_model, stored_dtypes, without_tied


def _export(network, base, target):
    dtypes = stored_dtypes(base)
    weights = without_tied(network, dict(network.state_dict()), dtypes)
    save_model(network, weights, dtypes, base, target)
    assert not weights, "memory of a tensor is free once the tensor is in its stored format"


def test_a_large_model_is_written_in_shards_that_load_as_one_model(tmp_path, monkeypatch):
    base, network = llama_folder(tmp_path / "base"), llama(seed=1)
    monkeypatch.setattr(export, "SHARD_BYTES", 30_000)
    _export(network, base, tmp_path / "model")
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    assert len(shards) > 2 and set(index["weight_map"].values()) == {shard.name for shard in shards}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_keep_the_number_format_of_the_base(tmp_path, dtype):
    """T-B5."""
    llama().to(dtype).save_pretrained(tmp_path / "base")
    network = llama(seed=1)
    _export(network, tmp_path / "base", tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto").state_dict()
    assert all(torch.equal(weight.to(dtype), loaded[name]) for name, weight in network.state_dict().items())


def test_a_weight_that_float16_cannot_hold_is_refused_by_name(tmp_path):
    llama().half().save_pretrained(tmp_path / "base")
    network = llama(seed=1)
    with torch.no_grad():
        network.model.norm.weight[0] = 1e5
    with pytest.raises(StageError, match=r"model\.norm\.weight: 1e\+05 found after training, too large for the base's"):
        _export(network, tmp_path / "base", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def _mixtral(folder, float32):
    """A bfloat16 mixture of experts whose tensors with `float32` in their name are stored in float32."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_local_experts": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 97}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(folder)
    file = folder / "model.safetensors"
    stored = {name: value if float32 in name else value.bfloat16() for name, value in load_file(file).items()}
    save_file(stored, file, metadata={"format": "pt"})
    return stored


@pytest.mark.parametrize("float32", [".gate.weight", "layernorm", "experts.2.w1"])
def test_tensors_that_the_base_stores_in_float32_are_not_rounded(tmp_path, float32):
    """Also where transformers joins the experts of a layer to one tensor in memory."""
    stored = _mixtral(tmp_path / "base", float32)
    assert sum(value.dtype == torch.float32 for value in stored.values()) == {"layernorm": 4}.get(float32, 2)
    config = settings()
    _export(load_network(tmp_path / "base", config["precision"]), tmp_path / "base", tmp_path / "model")
    exported = load_file(tmp_path / "model/model.safetensors")
    assert {name: value.dtype for name, value in exported.items()} == {n: v.dtype for n, v in stored.items()}
    assert all(torch.equal(exported[name], value) for name, value in stored.items())


def test_a_tied_base_and_its_children_store_the_same_tensors(tmp_path):
    """Trained in float32 from bfloat16: the embedding is the output layer, and is stored once."""
    base = tmp_path / "base"
    llama(tie_word_embeddings=True).bfloat16().save_pretrained(base)
    config = PretrainConfig(**settings(duration="2 steps"))
    train_rows([row(6, seed=n, sample=n) for n in range(8)], config, base, tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out/model"))
    assert "lm_head.weight" not in before and before.keys() == after.keys()
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_a_base_that_stores_its_tied_matrix_as_the_head_has_children_that_do_the_same(tmp_path):
    llama(tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    file = tmp_path / "base/model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, file, metadata={"format": "pt"})
    _export(llama(seed=1, tie_word_embeddings=True), tmp_path / "base", tmp_path / "model")
    assert load_file(tmp_path / "model/model.safetensors").keys() == weights.keys()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_colleagues_may_read_weights_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        _export(llama(), llama_folder(tmp_path / "base"), tmp_path / "model")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()} == {mode}


def test_the_card_of_the_base_stays_with_the_base(tmp_path):
    base = llama_folder(tmp_path / "base")
    (base / "README.md").write_text("# The base")
    (base / "LICENSE").write_text("Apache 2.0")
    _export(llama(seed=1), base, tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert "README.md" not in names and {"LICENSE", "tokenizer.json", "config.json"} <= names
