"""What only a GPU can tell. Elsewhere these tests are skipped; `make test-gpu` runs them."""

import copy
import warnings

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from solar.network.attention import NAME, Segment
from solar.network.decoder import Decoder
from solar.network.head import body_of
from solar.network.isolation import family_of, in_one_pass, layout_of
from solar.network.kernels.choice import Way

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees"),
]
SIZES = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 1024, "initializer_range": 0.1,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "llama": SIZES,
    "mistral": SIZES | {"sliding_window": 37},
    "gemma2": SIZES | {"sliding_window": 37, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 64},
    "gpt_oss": SIZES | {"sliding_window": 37, "num_local_experts": 2, "num_experts_per_tok": 1},
}
LENGTHS = [300, 70, 1, 129, 12]
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Error relative to the largest number, in all layers together."""


def _network(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    network: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=NAME).double().eval()
    return network


def _row() -> tuple[Tensor, Tensor, list[Segment]]:
    ids = torch.randint(3, 512, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    return ids, torch.cat([torch.arange(n) for n in LENGTHS]), [Segment(n) for n in LENGTHS]


def _states(network: PreTrainedModel, way: Way, ids: Tensor, positions: Tensor, segments: list[Segment]) -> Tensor:
    layout = layout_of(way, segments, network, family_of(network))
    return in_one_pass(body_of(network), ids.to(network.device), positions.to(network.device), layout)[0]


def _with_gradient(network: PreTrainedModel, way: Way) -> tuple[Tensor, Tensor]:
    """Hidden states and the gradient of the first layer's keys, in float64 on the host."""
    states_TD = _states(network, way, *_row())
    weights_TD = torch.randn(states_TD.shape, generator=torch.Generator().manual_seed(2))
    (states_TD * weights_TD.to(states_TD)).sum().backward()
    gradient = body_of(network).layers[0].self_attn.k_proj.weight.grad
    return states_TD.detach().cpu().double(), gradient.cpu().double()


@pytest.mark.parametrize(
    "family,way,dtype",
    [(family, Way.flex, dtype) for family in FAMILIES for dtype in ROUNDING]
    + [(family, Way.varlen, torch.bfloat16) for family in ("llama", "mistral")],
)
def test_states_and_gradients_are_those_of_float64_on_the_host(family: str, way: Way, dtype: torch.dtype) -> None:
    network = _network(family)
    exact = _with_gradient(copy.deepcopy(network), Way.segments)
    rounded = _with_gradient(network.to("cuda", dtype), way)
    for value, expected in zip(rounded, exact, strict=True):
        assert float((value - expected).abs().max() / expected.abs().max()) < ROUNDING[dtype]


@pytest.mark.parametrize(
    "family,way", [("llama", Way.varlen), ("mistral", Way.varlen), *((f, Way.flex) for f in FAMILIES)]
)
def test_changing_a_document_changes_no_other_by_a_bit(family: str, way: Way) -> None:
    network = _network(family).to("cuda", torch.bfloat16)
    ids, positions, segments = _row()
    other = ids.clone()
    other[300:370] = (other[300:370] + 1) % 512
    with torch.no_grad():
        before, after = (_states(network, way, row, positions, segments) for row in (ids, other))
    assert torch.equal(before[:300], after[:300]) and torch.equal(before[370:], after[370:])
    assert not torch.equal(before[300:370], after[300:370])


def test_a_document_has_the_same_bits_whatever_row_it_stands_in() -> None:
    """The longest document of the row must not decide how the sums of the others are split."""
    network = _network("llama").to("cuda", torch.bfloat16)
    ids, positions, segments = _row()
    with torch.no_grad():
        packed = _states(network, Way.varlen, ids, positions, segments)
        alone = _states(network, Way.varlen, ids[300:370], positions[300:370], segments[1:2])
    torch.testing.assert_close(packed[300:370], alone, rtol=0.02, atol=0.02)  # matrix products may round by their size


def test_a_row_waits_for_the_device_nowhere() -> None:
    network = _network("llama").to("cuda", torch.bfloat16)
    ids, positions, segments = _row()
    ids, positions = ids.cuda(), positions.cuda()
    decoder = Decoder(network)
    with torch.no_grad():
        decoder(ids, positions, segments)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                decoder(ids, positions, segments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert list(decoder.choices) == ["varlen (bfloat16 on cuda)"]


def test_compiled_layers_have_no_graph_break_and_serve_rows_of_any_length() -> None:
    network = _network("llama").to("cuda", torch.bfloat16)
    ids, positions, segments = _row()
    with torch.no_grad():
        expected = _states(network, Way.varlen, ids, positions, segments)
        body_of(network).compile(dynamic=True, fullgraph=True)
        compiled = _states(network, Way.varlen, ids, positions, segments)
        _states(network, Way.varlen, ids[:370], positions[:370], segments[:2])
    torch.testing.assert_close(compiled, expected, rtol=0.05, atol=0.05)
