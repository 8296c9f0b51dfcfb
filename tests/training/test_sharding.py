"""Sharding without the devices: a plan for 10.7 billion parameters, and shards read straight from files."""

import json

import pytest
import torch
import torch.distributed as dist
from tiny import llama, llama_folder
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import ApertusConfig, AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen3Config

from solar.config.training import Precision
from solar.errors import ArtifactError, StageError
from solar.network.decoder import Decoder
from solar.training.distributed.sharded_loading import empty_network, fill
from solar.training.distributed.sharding import shard

GIB = 2**30


@pytest.fixture
def ranks():
    """Pretends that so many processes exist, this being the given one."""

    def pretend(world_size, rank=0, tensor_parallel=1):
        _clear_sharding_prop_cache()  # holds the shapes of the rank before
        dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
        shape = (world_size // tensor_parallel, tensor_parallel)
        return init_device_mesh("cpu", shape, mesh_dim_names=("data_parallel", "tensor_parallel"))

    yield pretend
    dist.destroy_process_group()


def _local_bytes(network):
    return sum(parameter.to_local().numel() * parameter.element_size() for parameter in network.parameters())


# 16 bytes a parameter over all ranks; pairs that share layers hold the two 32,000 x 4,096 matrices twice.
@pytest.mark.parametrize(
    "world_size,tensor_parallel,expected_gib", [(8, 1, 19.99), (64, 1, 2.50), (8, 2, 20.48), (64, 2, 2.56)]
)
def test_the_plan_for_10_7_billion_parameters_fits(ranks, world_size, tensor_parallel, expected_gib):
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 48, "num_attention_heads": 32}
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, num_key_value_heads=8, vocab_size=32000))
    assert sum(parameter.numel() for parameter in network.parameters()) == 10_731_524_096
    mesh = ranks(world_size, tensor_parallel=tensor_parallel)
    shard(Decoder(network), network, mesh, Precision.bf16_mixed)
    state = 4 * _local_bytes(network)  # weights, gradients and two moments, all float32
    assert state / GIB == pytest.approx(expected_gib, rel=0.01)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("world_size,tensor_parallel", [(3, 1), (4, 2), (2, 2)])
def test_the_shards_of_all_ranks_are_the_tensors_of_the_files(tmp_path, ranks, tied, world_size, tensor_parallel):
    folder = llama_folder(tmp_path / "base", tie_word_embeddings=tied)
    expected = dict(llama(tie_word_embeddings=tied).named_parameters())
    found = {name: torch.full_like(parameter, torch.nan) for name, parameter in expected.items()}
    for rank in range(world_size):
        if rank:
            dist.destroy_process_group()
        mesh = ranks(world_size, rank, tensor_parallel)
        network = empty_network(folder, Precision.fp32)
        assert next(network.parameters()).is_meta
        shard(Decoder(network), network, mesh, Precision.fp32)
        fill(network, folder, torch.device("cpu"))
        for name, parameter in network.named_parameters():
            place = parameter.device_mesh, parameter.placements
            shape, offset = compute_local_shape_and_global_offset(parameter.shape, *place)
            part = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
            found[name][part] = parameter.to_local().detach()
        buffers = dict(network.named_buffers())
    for name, parameter in expected.items():
        assert torch.equal(found[name], parameter), name
    for name, buffer in llama(tie_word_embeddings=tied).named_buffers():
        assert torch.equal(buffers[name], buffer)


SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
OTHERS = {
    "layers of one kind": Qwen3Config(**SIZES),
    "layers of two kinds": Gemma3TextConfig(**SIZES, layer_types=["sliding_attention", "full_attention"] * 2),
    "buffers in the files": ApertusConfig(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_no_parameter_holds_is_read_or_computed_for_families_that_tell_layers_apart(tmp_path, ranks, kind):
    whole = AutoModelForCausalLM.from_config(OTHERS[kind])
    for name, buffer in whole.named_buffers():
        if name in whole.state_dict():
            buffer.fill_(0.25)  # not what a fresh network would have
    whole.save_pretrained(tmp_path)
    mesh = ranks(1)
    network = empty_network(tmp_path, Precision.fp32)
    shard(Decoder(network), network, mesh, Precision.fp32)
    fill(network, tmp_path, torch.device("cpu"))
    buffers = dict(network.named_buffers())
    assert buffers.keys() == dict(whole.named_buffers()).keys()
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffers[name], buffer), name


def test_layers_shared_by_two_devices_hold_half_of_every_matrix(tmp_path, ranks):
    network = empty_network(llama_folder(tmp_path / "base"), Precision.fp32)
    shard(Decoder(network), network, ranks(2, tensor_parallel=2), Precision.fp32)
    local = {name: tuple(parameter.to_local().shape) for name, parameter in network.named_parameters()}
    assert local["model.layers.0.self_attn.q_proj.weight"] == (16, 32)  # of 4 heads of 8: 2
    assert local["model.layers.0.self_attn.k_proj.weight"] == (8, 32)  # of 2 heads of 8: 1
    assert local["model.layers.0.self_attn.o_proj.weight"] == (32, 16)
    assert local["model.layers.0.mlp.down_proj.weight"] == (32, 32)
    assert local["model.layers.0.input_layernorm.weight"] == (32,)
    assert local["model.embed_tokens.weight"] == (97, 32)


def test_heads_that_cannot_be_shared_evenly_are_refused_by_name(tmp_path, ranks):
    network = empty_network(llama_folder(tmp_path / "base", num_key_value_heads=1), Precision.fp32)
    with pytest.raises(StageError, match="num_key_value_heads is 1, expected a multiple of 2"):
        shard(Decoder(network), network, ranks(2, tensor_parallel=2), Precision.fp32)


def test_a_family_without_a_plan_is_refused_by_name(ranks):
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16))
    with pytest.raises(StageError, match="no plan for model type gpt2"):
        shard(Decoder(network), network, ranks(2, tensor_parallel=2), Precision.fp32)


def test_a_file_outside_the_folder_is_not_read(tmp_path, ranks):
    folder = llama_folder(tmp_path / "base")
    names = dict.fromkeys((name for name, _ in llama().named_parameters()), "../elsewhere.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    network = empty_network(llama_folder(tmp_path / "whole"), Precision.fp32)
    shard(Decoder(network), network, ranks(2), Precision.fp32)
    with pytest.raises(ArtifactError, match="expected a plain name in this folder"):
        fill(network, folder, torch.device("cpu"))


def test_a_missing_tensor_is_named(tmp_path, ranks):
    """T-B6."""
    folder = llama_folder(tmp_path / "base", num_hidden_layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2, "layer_types": None}))
    network = empty_network(folder, Precision.fp32)
    shard(Decoder(network), network, ranks(2), Precision.fp32)
    with pytest.raises(StageError, match=r"no tensor model\.layers\.1\."):
        fill(network, folder, torch.device("cpu"))
