"""Tensors of every kind come back as they were, and of sharded ones never more than one is whole."""

import weakref

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from solar.training.checkpoint import tensor_file
from solar.training.checkpoint.tensor_file import DTYPE_NAMES, save_file


def test_every_number_format_shape_and_layout_comes_back(tmp_path):
    tensors = {str(dtype): torch.arange(7).to(dtype) for dtype in DTYPE_NAMES}
    tensors |= {"none": torch.zeros(0, 3), "one": torch.tensor(2.5), "turned": torch.arange(6.0).view(2, 3).T}
    tensors["a part"] = torch.arange(10, dtype=torch.bfloat16)[3:6]
    save_file(tensors, tmp_path / "t.safetensors")
    actual = load_file(tmp_path / "t.safetensors")
    assert actual.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor), name


@pytest.fixture
def mesh():
    dist.init_process_group("fake", rank=0, world_size=1, store=FakeStore())  # gloo's threads would outlive the test
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("writes", [True, False])
def test_sharded_tensors_are_gathered_one_after_the_other(tmp_path, mesh, monkeypatch, writes):
    gathered, alive = [], []

    def watched(tensor):
        actual = tensor.full_tensor().clone()
        gathered.append(weakref.ref(actual))
        alive.append(sum(one() is not None for one in gathered))
        return actual

    monkeypatch.setattr(tensor_file, "whole", watched)
    expected = {f"w{number}": torch.full((4, 3), float(number)) for number in range(5)}
    sharded = {name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in expected.items()}
    file = tmp_path / "t.safetensors"
    save_file(sharded, file if writes else None)
    assert len(gathered) == 5 and max(alive) <= 2, "the last one goes when the next is there"
    assert file.exists() == writes
    if writes:
        assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(file).items())
