"""Layers are compiled one by one, where it pays: layers of one kind and rows of any length share the code."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import Place
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from solar.config.root import Strategy
from solar.network.attention import NAME, Segment
from solar.network.head import body_of
from solar.network.isolation import family_of, in_one_pass, layout_of
from solar.network.kernels.choice import Way
from solar.training.modules.compilation import compile_layers, pays
from solar.training.modules.recomputation import recompute_activations

SIZES = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 8192}  # fmt: skip
EVERY_SECOND = ["sliding_attention", "full_attention"] * 2
KINDS = {
    "llama": (SIZES, 1),
    "mistral": (SIZES | {"sliding_window": 37}, 1),
    "qwen3": (SIZES | {"use_sliding_window": True, "sliding_window": 37, "layer_types": EVERY_SECOND}, 2),
}
"""Family -> its config, and the number of kinds of its layers."""
GPU = replace(Place(Path()).trainer, accelerator="gpu")


def _network(family, sizes, device="meta"):
    with torch.device(device):
        config = AutoConfig.for_model(family, **sizes)
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=NAME).train()


@pytest.fixture
def graphs(monkeypatch):
    """Every graph that is compiled, without being compiled further. A graph break is an error."""
    found, compile_module = [], nn.Module.compile

    def backend(graph, _):
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda m, **o: compile_module(m, backend=backend, fullgraph=True, **o))
    torch._dynamo.reset()
    return found


@pytest.mark.parametrize("recomputed", [None, "full", "selective"])
@pytest.mark.parametrize("family", KINDS)
def test_twenty_lengths_and_all_layers_of_a_kind_share_two_graphs(graphs, family, recomputed):
    """Forward and backward through `varlen`, on the meta device. The first row may be compiled with its own numbers."""
    sizes, kinds = KINDS[family]
    network, draw = _network(family, sizes), random.Random(0)
    if recomputed:
        recompute_activations(network, recomputed == "selective")
    compile_layers(network, GPU)
    for _ in range(20):
        lengths = [draw.randint(2, 700) for _ in range(draw.randint(1, 6))]
        ids_T = torch.zeros(sum(lengths), dtype=torch.long, device="meta")
        layout = layout_of(Way.varlen, [Segment(n) for n in lengths], network, family_of(network))
        in_one_pass(body_of(network), ids_T, ids_T, layout).sum().backward()
    assert kinds <= len(graphs) <= 2 * kinds
    assert all(any("varlen" in str(node.target) for node in _nodes(graph)) for graph in graphs)


class Attentions(TorchDispatchMode):
    """Counts forward passes of `varlen`."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function is torch.ops.torch_attn._varlen_attn.default
        return function(*arguments, **(keywords or {}))


def test_one_kernel_a_layer_computes_a_row_and_selective_recomputation_does_not_repeat_the_kernel():
    counts = {}
    for name, selective in (("none", None), ("selective", True), ("full", False)):
        network = _network("mistral", KINDS["mistral"][0])
        if selective is not None:
            recompute_activations(network, selective)
        ids_T = torch.zeros(50, dtype=torch.long, device="meta")
        layout = layout_of(Way.varlen, [Segment(n) for n in (20, 1, 29)], network, family_of(network))
        with Attentions() as counted:
            in_one_pass(body_of(network), ids_T, ids_T, layout).sum().backward()
        counts[name] = counted.count
    assert counts == {"none": 4, "selective": 4, "full": 8}


def _nodes(graph):
    return [node for part in graph.modules() if isinstance(part, torch.fx.GraphModule) for node in part.graph.nodes]


def test_by_default_layers_are_compiled_on_a_gpu_where_one_kernel_computes_attention():
    llama = _network("llama", SIZES)
    assert pays(llama, GPU)
    assert not pays(llama, Place(Path()).trainer)
    assert not pays(llama, replace(GPU, deterministic=True))
    assert pays(llama, replace(GPU, strategy=Strategy.ddp)) and not pays(llama, replace(GPU, strategy=Strategy.fsdp))
    assert not pays(_network("llama", SIZES | {"attention_dropout": 0.1}), GPU)
    mamba = AutoConfig.for_model("mamba", vocab_size=97, hidden_size=32, num_hidden_layers=2)
    with torch.device("meta"):
        assert not pays(AutoModelForCausalLM.from_config(mamba), GPU)
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "output_router_logits": True}
    assert not pays(_network("mixtral", SIZES | experts), GPU)


@pytest.mark.parametrize("asked,compiled", [(None, False), (False, False), (True, True)])
def test_on_a_cpu_layers_are_compiled_on_request_alone(graphs, asked, compiled):
    network = _network("llama", SIZES)
    compile_layers(network, replace(Place(Path()).trainer, compile=asked))
    assert {layer._compiled_call_impl is not None for layer in network.model.layers} == {compiled}


def test_compiling_in_deterministic_mode_is_refused():
    trainer = replace(GPU, deterministic=True, compile=True)
    expected = "compile: found true with deterministic, whose bytes compiled kernels would change; expected null"
    assert list(trainer.problems()) == [expected]
    assert list(replace(trainer, compile=None).problems()) == []
