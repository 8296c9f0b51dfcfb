"""Matrix products in float8, emulated: rounded to float8 and multiplied in float32, as no CPU multiplies float8."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import Place, llama, llama_folder, row, settings, train_rows
from transformers import MixtralConfig, MixtralForCausalLM

from solar.config.training import AdapterConfig, Precision, PretrainConfig
from solar.errors import StageError
from solar.network.attention import NAME
from solar.network.decoder import Decoder
from solar.network.microbatch import from_rows
from solar.training.modules.float8 import check_float8, compute_in_float8
from solar.training.modules.next_token import ContinuedPretraining

pytest.importorskip("torchao")
ROWS = [row(60, 41, seed=n) for n in range(4)]


def _converted(network):
    return {name for name, module in network.named_modules() if type(module).__name__ == "Float8Linear"}


def test_the_matrices_of_the_layers_are_taken_and_nothing_else():
    network = llama(num_hidden_layers=1)
    weights = dict(network.named_parameters())
    compute_in_float8(network, emulate=True)
    projections = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    assert _converted(network) == {f"model.layers.0.{name}" for name in projections}
    assert dict(network.named_parameters()) == weights and type(network.lm_head) is torch.nn.Linear


def test_sides_that_are_no_multiples_of_16_and_routers_stay():
    """Two key/value heads of 12 make 24 rows; a feed-forward layer of 40 fits neither way."""
    odd = llama(num_hidden_layers=1, hidden_size=48, num_attention_heads=4, head_dim=12, intermediate_size=40)
    compute_in_float8(odd, emulate=True)
    assert _converted(odd) == {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj"}
    with pytest.raises(StageError, match=r"float8: no linear layer of the model has sides that are multiples of 16"):
        compute_in_float8(llama(hidden_size=24, num_attention_heads=2, intermediate_size=40), emulate=True)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_local_experts": 16}
    experts = MixtralForCausalLM(MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, vocab_size=32))
    experts.model.layers[0].mlp.gate = torch.nn.Linear(32, 16, bias=False)  # as families have it that call it Linear
    compute_in_float8(experts, emulate=True)
    assert _converted(experts) == {f"model.layers.0.self_attn.{x}_proj" for x in "qkvo"}


def test_a_product_is_off_by_what_three_bits_lose():
    """An e4m3 number has three bits behind the first, so rounding is off by at most 1/16, in both factors."""
    network = llama(hidden_size=64).to(torch.bfloat16)
    exact = network.model.layers[0].mlp.up_proj
    inputs = torch.randn(47, 64, dtype=torch.bfloat16)  # rows that are no multiple of 16
    expected = exact(inputs).float()
    compute_in_float8(network, emulate=True)
    found = network.model.layers[0].mlp.up_proj(inputs).float()
    assert 0.01 < float((found - expected).norm() / expected.norm()) < 2 / 16


def test_no_document_changes_the_rounding_of_another():
    network = llama(hidden_size=64).to(torch.bfloat16)
    network.set_attn_implementation(NAME)
    compute_in_float8(network, emulate=True)
    batch, other = from_rows(ROWS[:1]), from_rows(ROWS[:1])
    other.input_ids_T[60:] = (other.input_ids_T[60:] + 1) % 97
    with torch.no_grad():
        decoder = Decoder(network.eval())
        found, changed = (decoder(b.input_ids_T, b.position_ids_T, b.segments)[0] for b in (batch, other))
    assert torch.equal(found[:60], changed[:60]) and not torch.equal(found[60:], changed[60:])


def test_training_follows_bfloat16_and_leaves_the_same_tensors(tmp_path):
    folder = llama_folder(tmp_path / "base", hidden_size=64, initializer_range=0.05)
    config = PretrainConfig(**settings(precision=Precision.bf16_mixed, duration="15 steps"))

    def in_float8(network, *rest):
        compute_in_float8(network, emulate=True)
        return ContinuedPretraining(network, *rest)

    metrics = {}
    for name, module in (("bf16", ContinuedPretraining), ("float8", in_float8)):
        metrics[name], _ = train_rows(ROWS, config, folder, tmp_path / name, module=module)
    assert metrics["float8"]["loss_last"] < 0.8 * metrics["float8"]["loss_first"]
    assert metrics["float8"]["loss_first"] == pytest.approx(metrics["bf16"]["loss_first"], rel=0.02)
    assert metrics["float8"]["loss_last"] == pytest.approx(metrics["bf16"]["loss_last"], rel=0.05)
    assert metrics["float8"]["loss_last"] != metrics["bf16"]["loss_last"]
    one, two = (load_file(tmp_path / name / "model/model.safetensors") for name in ("bf16", "float8"))
    assert {n: (t.shape, t.dtype) for n, t in one.items()} == {n: (t.shape, t.dtype) for n, t in two.items()}


def test_devices_that_cannot_multiply_float8_are_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(StageError, match=r"^float8: found trainer\.accelerator cpu, expected gpu; remove float8$"):
        check_float8(Place(tmp_path).trainer)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with pytest.raises(StageError, match=r"^float8: found a GPU of compute capability 8\.0, expected at least 8\.9"):
        check_float8(Place(tmp_path, accelerator="gpu").trainer)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    check_float8(Place(tmp_path, accelerator="gpu").trainer)


@pytest.mark.parametrize(
    "changes,found",
    [({"precision": Precision.fp32}, "precision fp32"), ({"adapter": AdapterConfig(rank=2)}, "an adapter")],
)
def test_float8_needs_bfloat16_beside_it_and_no_adapter(changes, found):
    config = PretrainConfig(**settings(**({"float8": True, "precision": Precision.bf16_true} | changes)))
    expected = f"float8: found true with {found}, expected bf16_true or bf16_mixed, and no adapter"
    assert list(config.problems()) == [expected]
