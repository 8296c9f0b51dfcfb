"""QLoRA: adapters beside a base in few bits, by bitsandbytes itself on the CPU. Needs `bitsandbytes` and `peft`."""

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny import MemoryRows, Place, llama, llama_folder, pair, row, settings, stopping_at, train_rows
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel

from solar.config.preference import DpoConfig, PreferenceLoss, ReferenceLogpsConfig
from solar.config.training import AdapterConfig, FrozenBase, Precision, PretrainConfig, Trainable
from solar.errors import Interrupted, StageError
from solar.network.adapter import add_adapter, folded, transposed_layers
from solar.network.quantised.base import dequantised, layers_of, quantise
from solar.training.fit import _network
from solar.training.interrupt import StopRequest
from solar.training.modules.flops import body_parameters
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.modules.recomputation import recompute_activations
from solar.training.preference import reference_pass
from solar.training.preference.module import PreferenceOptimization
from solar.training.preference.reference import ReferenceLogps

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
pytest.importorskip("peft", reason="peft is not installed")
CPU = torch.device("cpu")
ROWS = [row(9, 6, seed=n) for n in range(8)]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _config(base, kind=PretrainConfig, **changes):
    adapter = AdapterConfig(rank=4, alpha=8.0, base=base, keep=changes.pop("keep", None))
    return kind(**settings(**{"duration": "30 steps", "adapter": adapter} | changes))


def _adapted(network, config, *rest, module=ContinuedPretraining):
    """What `fit` does between loading the network and the first step."""
    quantise(network, config.adapter.base, config.precision, CPU)
    add_adapter(network, config.adapter, config.seed)
    return module(network, config, *rest)


@torch.no_grad()
def _held_out_loss(folder, rows):
    """Mean over trained tokens under plain transformers, each document on its own."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    nats, tokens = 0.0, 0
    for item in rows:
        start = 0
        for length in item.document_lengths:
            ids, labels = item.input_ids[start : start + length], item.labels[start : start + length]
            logits = network(torch.as_tensor(ids)[None]).logits[0, :-1]
            target = torch.as_tensor(labels)[1:]
            nats += float(torch.nn.functional.cross_entropy(logits, target, reduction="sum"))
            tokens += len(target)
            start += length
    return nats / tokens


@pytest.mark.parametrize("base", FrozenBase)
def test_adapters_learn_and_plain_transformers_measures_the_loss_of_training(base, tmp_path):
    folder = llama_folder(tmp_path / "base")
    metrics, _ = train_rows(ROWS, _config(base), folder, tmp_path / "out", module=_adapted, held_out=ROWS)
    assert metrics["valid_loss_last"] < metrics["valid_loss_first"] - 0.5
    assert _held_out_loss(tmp_path / "out/model", ROWS) == pytest.approx(metrics["valid_loss_last"], abs=1e-5)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out/model/model.safetensors")
    assert {name: weight.dtype for name, weight in before.items()} == {name: w.dtype for name, w in after.items()}
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if "proj" in name
    }
    assert "quantization_config" not in json.loads((tmp_path / "out/model/config.json").read_text())
    assert metrics["adapter_base"].startswith(f"{base}, ") and metrics["adapter_base"].endswith("saved dequantised")


@pytest.mark.parametrize("base", FrozenBase)
@pytest.mark.parametrize("precision", [Precision.bf16_true, Precision.bf16_mixed])
def test_in_bfloat16_plain_transformers_measures_the_loss_of_training_but_for_rounding(base, precision, tmp_path):
    folder, config = llama_folder(tmp_path / "base"), _config(base, precision=precision)
    metrics, _ = train_rows(ROWS, config, folder, tmp_path / "out", module=_adapted, held_out=ROWS)
    assert metrics["valid_loss_last"] < metrics["valid_loss_first"] - 0.5
    assert _held_out_loss(tmp_path / "out/model", ROWS) == pytest.approx(metrics["valid_loss_last"], abs=0.02)


def test_a_training_loads_its_base_in_few_bits(tmp_path):
    config = _config(FrozenBase.nf4)
    network = _network(llama_folder(tmp_path / "base"), config, Place(tmp_path).trainer, lambda name: "old")
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert len(layers_of(network)) == 14 and len(trained) == 28 and all("lora_" in name for name in trained)


@pytest.mark.parametrize("base", FrozenBase)
def test_the_saved_model_is_the_rounded_base_plus_the_adapter(base, tmp_path):
    """The base that `transformers` itself rounds, as floats, plus alpha / rank times B A from the kept adapter."""
    folder = llama_folder(tmp_path / "base")
    train_rows(ROWS, _config(base, keep=True), folder, tmp_path / "out", module=_adapted)
    few_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    how = BitsAndBytesConfig(**(few_bits if base is FrozenBase.nf4 else {"load_in_8bit": True}))
    rounded = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=how, dtype=torch.float32, device_map="cpu"
    ).dequantize()
    adapter = load_file(tmp_path / "out/adapter/adapter_model.safetensors")
    saved = load_file(tmp_path / "out/model/model.safetensors")
    for name in LINEAR:
        place = next(
            key for key in saved if key.endswith(f"1.{'mlp' if name in LINEAR[4:] else 'self_attn'}.{name}.weight")
        )
        down, up = (adapter[f"base_model.model.{place.removesuffix('.weight')}.lora_{part}.weight"] for part in "AB")
        expected = rounded.get_parameter(place).float() + 8.0 / 4 * up @ down
        torch.testing.assert_close(saved[place], expected, rtol=1e-6, atol=2e-4 if base is FrozenBase.int8 else 1e-6)


@pytest.mark.parametrize("base", FrozenBase)
def test_a_stopped_training_ends_with_the_same_bytes_and_its_checkpoint_holds_no_base(base, tmp_path):
    folder, config = llama_folder(tmp_path / "base"), _config(base, duration="5 steps")
    stop = StopRequest()

    Stopping = stopping_at(stop, 2)

    with pytest.raises(Interrupted):
        stopping = partial(_adapted, module=Stopping)
        train_rows(ROWS, config, folder, tmp_path / "stopped", module=stopping, stop=stop, held_out=ROWS)
    (checkpoint,) = (tmp_path / "stopped/checkpoints").glob("step-*")
    held = load_file(checkpoint / "tensors.safetensors")
    assert any("lora_A" in name for name in held) and not any("base_layer" in name for name in held)
    for name in ("stopped", "straight"):
        train_rows(ROWS, config, folder, tmp_path / name, module=_adapted, held_out=ROWS)
    files = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("stopped", "straight")]
    assert files[0] == files[1]


@pytest.mark.parametrize(("base", "bytes_a_weight"), [(FrozenBase.nf4, 0.52), (FrozenBase.int8, 1.02)])
def test_a_weight_takes_so_many_bytes(base, bytes_a_weight):
    """256 x 256 in nf4: half a byte, 1/64 for scales in 8 bits, and a float for 256 scales; int8: one float a row."""
    network = llama(hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=4)
    weights = 2 * 7 * 256 * 256
    count = body_parameters(network)
    quantise(network, base, Precision.fp32, CPU)
    layers = layers_of(network)
    assert len(layers) == 14 and {name.rpartition(".")[2] for name in layers} == set(LINEAR)
    assert sum(layer.bits for layer in layers.values()) / 8 / weights == pytest.approx(bytes_a_weight, abs=0.005)
    assert body_parameters(network) == count


def test_recomputed_activations_give_the_same_gradients():
    ids = torch.arange(12)[None]
    gradients = []
    for base in FrozenBase:
        for recomputed in (False, True):
            network = llama()
            quantise(network, base, Precision.fp32, CPU)
            add_adapter(network, AdapterConfig(rank=2), seed=0)
            if recomputed:
                network.activation_checkpointing_enable({"use_reentrant": False})
            network(ids, labels=ids).loss.backward()
            gradients.append(network.model.layers[0].self_attn.q_proj.lora_B.solar.weight.grad)
            assert gradients[-1].abs().max() > 0
    assert torch.equal(*gradients[:2]) and torch.equal(*gradients[2:])


def test_selective_recomputation_repeats_no_product_with_a_weight_in_nf4():
    """Seven linear layers in each of two layers; full recomputation stops before a layer's last product."""
    products = {}
    for name, selective in (("none", None), ("selective", True), ("full", False)):
        network = llama().train()
        quantise(network, FrozenBase.nf4, Precision.fp32, CPU)
        add_adapter(network, AdapterConfig(rank=2), seed=0)
        if selective is not None:
            recompute_activations(network, selective)
        with Products() as counted:
            network(torch.arange(12)[None], use_cache=False).logits.sum().backward()
        products[name] = counted.count
    assert products == {"none": 14, "selective": 14, "full": 28}


class Products(TorchDispatchMode):
    """Counts products with a weight in NF4."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function is torch.ops.bitsandbytes.gemm_4bit.default
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("base", FrozenBase)
def test_layers_that_are_stored_the_other_way_round_are_saved_as_they_were(base):
    torch.manual_seed(0)
    plain = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=64, n_layer=2, n_head=2, n_positions=16)).eval()
    shapes = {name: weight.shape for name, weight in plain.state_dict().items()}
    adapted = GPT2LMHeadModel(plain.config).eval()
    quantise(adapted, base, Precision.fp32, CPU)
    config = AdapterConfig(rank=4, alpha=8.0, base=base)
    add_adapter(adapted, config, seed=1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    weights = folded(adapted.state_dict() | dequantised(adapted), config, transposed_layers(adapted))
    assert {name: weight.shape for name, weight in weights.items()} == shapes
    plain.load_state_dict(weights)
    ids = torch.arange(12)[None]
    torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)


def test_preference_starts_at_a_margin_of_0_and_moves_adapted_layers_alone(tmp_path):
    folder, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    said = {"reference": "base", "loss": PreferenceLoss.sigmoid, "beta": 0.1, "duration": "8 steps"}
    places = {"model_dir": folder, "reference_dir": folder, "data_dir": data}
    make = partial(_adapted, module=partial(PreferenceOptimization, **places))
    pairs = [pair(4, 5, 6, seed=n, sample=n) for n in range(8)]
    config = _config(FrozenBase.nf4, DpoConfig, **said)
    metrics, _ = train_rows(pairs, config, folder, tmp_path / "out", module=make)
    assert metrics["margin_first"] == 0.0 and metrics["loss_last"] < metrics["loss_first"]


def test_the_reference_pass_rounds_its_model_as_the_base_and_says_so_in_its_key(tmp_path, monkeypatch):
    folder, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    pairs = MemoryRows([pair(4, 5, 6, seed=n, sample=n) for n in range(4)])
    pairs.header = SimpleNamespace(task="preference", splits=["train"])
    monkeypatch.setattr(reference_pass, "TokenDataset", lambda *_: pairs)
    tables = {}
    for base in (None, FrozenBase.nf4):
        settings = {"model": "base", "data": "data", "precision": Precision.fp32, "base": base}
        output = tmp_path / str(base)
        output.mkdir()
        config = ReferenceLogpsConfig(kind="reference_logps", **settings)
        reference_pass.reference_pass(config, folder, data, output, Place(tmp_path).trainer, 2)
        key = reference_pass.key_of(folder, data, Precision.fp32, base)
        tables[base] = ReferenceLogps.load(output / reference_pass.NAME, key).train
    with pytest.raises(StageError, match="fp32 with a base in nf4"):
        ReferenceLogps.load(tmp_path / "None" / reference_pass.NAME, key)
    assert 0.01 < (tables[None] - tables[FrozenBase.nf4]).abs().max() < 10
    network = llama()
    quantise(network, FrozenBase.nf4, Precision.fp32, CPU)
    item = pairs[0]
    logps = network(torch.as_tensor(item.input_ids[:9])[None]).logits[0].log_softmax(-1)
    expected = sum(float(logps[place - 1, item.input_ids[place]]) for place in range(4, 9))
    assert float(tables[FrozenBase.nf4][0, 0]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "changes,problem",
    [
        ({"trainable": Trainable.new}, "adapter.base: found nf4 with trainable new, expected trainable all"),
        ({"keep_optimizer": True}, "adapter.base: found nf4 with keep_optimizer, which needs floats; expected null"),
        ({"branch": True}, "adapter.base: found nf4 with branch, which needs floats; expected null"),
        (
            {"adapter": AdapterConfig(base=FrozenBase.nf4)},
            "adapter.base: given, but there is no adapter; remove it, or set rank",
        ),
    ],
)
def test_what_a_base_in_few_bits_does_not_go_with_is_refused(changes, problem):
    assert list(_config(FrozenBase.nf4, **changes).problems()) == [problem]


def test_without_bitsandbytes_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "solar.network.quantised.layers", raising=False)
    with pytest.raises(StageError, match=r"needs bitsandbytes, which is not installed; pip install 'solar\[qlora\]'"):
        quantise(llama(), FrozenBase.nf4, Precision.fp32, CPU)


def test_a_model_without_linear_layers_is_refused():
    network = llama(num_hidden_layers=0)
    with pytest.raises(StageError, match="found int8, but the model has no linear layer that takes it"):
        quantise(network, FrozenBase.int8, Precision.fp32, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")
@pytest.mark.parametrize("base", FrozenBase)
def test_on_a_gpu_a_layer_in_few_bits_is_the_map_of_its_floats(base):
    network = llama(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=4)
    cuda = torch.device("cuda")
    quantise(network.to(torch.bfloat16), base, Precision.bf16_true, cuda)
    layer = network.model.layers[0].mlp.up_proj
    assert layer.weight.device.type == "cuda" and layer.bits < 8.5 * 256 * 512
    x_TI = torch.randn(64, 256, dtype=torch.bfloat16, device=cuda, requires_grad=True)
    y_TO = layer(x_TI)
    y_TO.sum().backward()
    weight_OI = layer.dequantised().double()
    exact = x_TI.detach().double() @ weight_OI.T, weight_OI.sum(0).expand(64, -1)
    for value, expected in zip((y_TO.detach(), x_TI.grad), exact, strict=True):
        assert float((value.double() - expected).abs().max() / expected.abs().max()) < 0.02
