"""LoRA: only adapters move, and the folded model is the adapted one. Needs `peft`."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama, llama_folder, pair, row, settings, stopping_at, train_rows

from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.training import AdapterConfig, PretrainConfig
from solar.errors import Interrupted, StageError
from solar.network.adapter import add_adapter, folded, transposed_layers
from solar.network.microbatch import from_rows
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.preference.module import PreferenceOptimization

pytest.importorskip("peft", reason="peft is not installed")
ROWS = [row(9, 6, seed=n) for n in range(8)]
ADAPTER = AdapterConfig(rank=4, alpha=8.0)


def test_settings_of_an_adapter_without_one_are_refused():
    assert list(AdapterConfig(targets=["q_proj"]).problems()) == [
        "targets: given, but there is no adapter; remove it, or set rank"
    ]
    assert not list(AdapterConfig(rank=2, targets=["q_proj"], dropout=0.1).problems())


def _adapted(network, config, schedule, role_of):
    add_adapter(network, config.adapter, config.seed)
    return ContinuedPretraining(network, config, schedule, role_of)


def test_adapters_learn_and_fold_into_plain_weights(tmp_path):
    folder = llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="40 steps", adapter=ADAPTER))
    metrics, module = train_rows(ROWS, config, folder, tmp_path / "out", module=_adapted, held_out=ROWS)
    assert metrics["loss_last"] < metrics["loss_first"] - 0.5
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out/model/model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "proj" in name}
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out/model")
    item = ROWS[0]
    ids = torch.as_tensor(item.input_ids[:9])[None]
    expected = module.head().logits(module.hidden(from_rows([row(9, 6, seed=0)])))[:8]
    torch.testing.assert_close(plain(input_ids=ids).logits[0, :8], expected, rtol=1e-4, atol=1e-4)


def test_a_stopped_training_of_adapters_ends_with_the_same_bytes(tmp_path):
    folder, config = llama_folder(tmp_path / "base"), PretrainConfig(**settings(duration="5 steps", adapter=ADAPTER))
    stop = StopRequest()

    Stopping = stopping_at(stop, 2)

    def stopping(network, config, *rest):
        add_adapter(network, config.adapter, config.seed)
        return Stopping(network, config, *rest)

    with pytest.raises(Interrupted):
        train_rows(ROWS, config, folder, tmp_path / "stopped", module=stopping, stop=stop)
    for name in ("stopped", "straight"):
        train_rows(ROWS, config, folder, tmp_path / name, module=_adapted)
    files = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("stopped", "straight")]
    assert files[0] == files[1]


def test_checkpointed_activations_change_no_weight(tmp_path):
    folder, config = llama_folder(tmp_path / "base"), PretrainConfig(**settings(duration="3 steps", adapter=ADAPTER))

    def checkpointing(network, config, *rest):
        module = _adapted(network, config, *rest)
        network.activation_checkpointing_enable({"use_reentrant": False})
        return module

    for name, module in (("plain", _adapted), ("checkpointed", checkpointing)):
        train_rows(ROWS, config, folder, tmp_path / name, module=module)
    plain, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("plain", "checkpointed"))
    for name, weight in plain.items():
        torch.testing.assert_close(weight, other[name], rtol=1e-5, atol=1e-6)


def test_preference_starts_from_the_base_as_its_reference_and_moves_adapted_layers_alone(tmp_path):
    folder, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    said = settings(duration="8 steps", adapter=ADAPTER, reference="base", loss=PreferenceLoss.sigmoid, beta=0.1)
    places = {"model_dir": folder, "reference_dir": folder, "data_dir": data}

    def make(network, config, *rest):
        add_adapter(network, config.adapter, config.seed)
        return partial(PreferenceOptimization, **places)(network, config, *rest)

    pairs = [pair(4, 5, 6, seed=n, sample=n) for n in range(8)]
    metrics, _ = train_rows(pairs, DpoConfig(**said), folder, tmp_path / "out", module=make)
    assert metrics["margin_first"] == 0.0 and metrics["loss_first"] == pytest.approx(0.693147, abs=1e-6)
    assert metrics["loss_last"] < metrics["loss_first"]
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out/model/model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {n for n in before if "proj" in n}


def test_layers_that_are_stored_the_other_way_round_fold_into_the_adapted_model():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    adapted = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16)).eval()
    names = set(adapted.state_dict())
    add_adapter(adapted, ADAPTER, seed=1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    weights = folded(adapted.state_dict(), ADAPTER, transposed_layers(adapted))
    plain = GPT2LMHeadModel(adapted.config).eval()
    plain.load_state_dict(weights)
    assert set(weights) == names
    ids = torch.arange(12)[None]
    torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_target_that_is_not_there_is_named_even_beside_one_that_is():
    told = r"adapter\.targets: found v_prj, which is no layer of the model; did you mean 'v_proj'\?"
    with pytest.raises(StageError, match=told):
        add_adapter(llama(), AdapterConfig(rank=2, targets=["q_proj", "v_prj"]), seed=0)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_what_would_be_left_out_of_the_folded_model_is_refused(target):
    config = AdapterConfig(rank=2, targets=[target, "q_proj"])
    with pytest.raises(StageError, match=rf"adapter.targets: .*{target} .* takes no adapter here"):
        add_adapter(llama(), config, seed=0)
