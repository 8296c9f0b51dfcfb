"""Which parameters move, and how fast."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama, llama_folder, row, settings, train_rows
from transformers import AutoModelForCausalLM, GptOssConfig

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.training import PretrainConfig, Trainable
from solar.errors import StageError
from solar.growth.roles import roles
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.optim.optimizers import build_optimizers, freeze, parameter_groups, set_learning_rate

GROWN = {"solar": {"layers": [0, 1, 1, 2], "new": [2], "seams": [[2, 1, 0]], "stack": "model.layers."}}
ROWS = [row(9, 6, seed=n) for n in range(8)]


def _config(**changes):
    return PretrainConfig(**settings(**changes))


def _names(groups, network):
    of = {id(parameter): name for name, parameter in network.named_parameters()}
    return [{of[id(parameter)] for parameter in group["params"]} for group in groups]


@pytest.mark.parametrize("tied", [True, False])
def test_each_parameter_is_in_one_group_and_norms_biases_and_embeddings_are_not_decayed(tied):
    """T-B4."""
    network = llama(tie_word_embeddings=tied, attention_bias=True)
    groups = parameter_groups(network, _config(), roles({}))
    names = _names(groups, network)
    assert sum(len(part) for part in names) == len(list(network.parameters()))
    for group, part in zip(groups, names, strict=True):
        spared = {name for name in part if "norm" in name or "bias" in name or "embed" in name}
        assert (group["weight_decay"] == 0) == bool(spared) and spared in (set(), part)


@pytest.mark.parametrize("name", [OptimizerName.adamw, OptimizerName.muon])
def test_biases_of_experts_are_biases_though_they_have_two_dimensions(name):
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
    network = AutoModelForCausalLM.from_config(GptOssConfig(**sizes, **heads))
    config = _config()
    config.optimizer.name = name
    groups = parameter_groups(network, config, roles({}))
    spared = {
        n
        for group, part in zip(groups, _names(groups, network), strict=True)
        if not group["weight_decay"]
        for n in part
    }
    moved = {n for group, part in zip(groups, _names(groups, network), strict=True) if group["hidden"] for n in part}
    biases = {n for n, parameter in network.named_parameters() if n.endswith("_bias")}
    assert len(biases) == 2 and biases <= spared and not biases & moved


def test_each_role_has_its_own_rate():
    network = llama(num_hidden_layers=4)
    config = _config(lr_factors={"old": 0.1, "seam": 0.5, "embed": 0.0, "norm": 2.0})
    freeze(network, config, roles(GROWN))
    groups = parameter_groups(network, config, roles(GROWN))
    rates = {name: group["lr"] for group, part in zip(groups, _names(groups, network), strict=True) for name in part}
    assert rates["model.layers.0.mlp.up_proj.weight"] == pytest.approx(0.1e-2)
    assert rates["model.layers.1.mlp.up_proj.weight"] == pytest.approx(0.5e-2)
    assert rates["model.layers.2.mlp.up_proj.weight"] == pytest.approx(1e-2)
    assert rates["model.norm.weight"] == pytest.approx(2e-2)
    assert "model.embed_tokens.weight" not in rates and "lm_head.weight" not in rates


def test_the_schedule_scales_each_group_from_its_own_peak():
    network = llama(num_hidden_layers=4)
    config = _config(lr_factors={"old": 0.1})
    (optimizer,) = build_optimizers(parameter_groups(network, config, roles(GROWN)), config.optimizer)
    set_learning_rate([optimizer], 0.5)
    set_learning_rate([optimizer], 0.25)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.25e-3, 0.25e-2])


def _grown_folder(tmp_path):
    folder = llama_folder(tmp_path / "base", num_hidden_layers=4)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | GROWN))
    return folder


def _trained(folder, output, config):
    def frozen(network, config, *rest):
        freeze(network, config, roles(GROWN))
        return ContinuedPretraining(network, config, rest[0], roles(GROWN))

    train_rows(ROWS, config, folder, output, module=frozen)
    return load_file(folder / "model.safetensors"), load_file(output / "model/model.safetensors")


def test_with_new_layers_alone_trainable_every_other_byte_stays(tmp_path):
    """T-B4."""
    before, after = _trained(_grown_folder(tmp_path), tmp_path / "out", _config(trainable=Trainable.new))
    for name, tensor in before.items():
        moved = not torch.equal(tensor.view(torch.uint8), after[name].view(torch.uint8))
        assert moved == name.startswith("model.layers.2."), name


def test_a_factor_of_zero_freezes_to_the_last_bit(tmp_path):
    """T-B4."""
    config = _config(lr_factors={"embed": 0.0, "old": 0.0})
    before, after = _trained(_grown_folder(tmp_path), tmp_path / "out", config)
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved and all(name.startswith(("model.layers.1.", "model.layers.2.", "model.norm")) for name in moved)


def test_provenance_stays_in_the_trained_model(tmp_path):
    _trained(_grown_folder(tmp_path), tmp_path / "out", _config())
    assert json.loads((tmp_path / "out/model/config.json").read_text())["solar"] == GROWN["solar"]


def test_nothing_to_train_is_refused():
    with pytest.raises(StageError, match="trainable: found new, but the model has no new layers"):
        freeze(llama(), _config(trainable=Trainable.new), roles({}))
    with pytest.raises(StageError, match="every weight is frozen"):
        freeze(llama(), _config(lr_factors={"old": 0.0, "embed": 0.0, "norm": 0.0}), roles({}))


PACKAGES = {OptimizerName.adamw_8bit: "bitsandbytes", OptimizerName.schedule_free: "schedulefree"}


@pytest.mark.parametrize("name", list(OptimizerName))
def test_every_optimizer_lowers_the_loss_and_resumes(tmp_path, name):
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    folder = llama_folder(tmp_path / "base")
    optimizer = OptimizerConfig(name, 1e-2, [0.9, 0.95], 1e-8, 0.1, 1.0)
    metrics, _ = train_rows(ROWS, _config(optimizer=optimizer, duration="20 steps"), folder, tmp_path / "out")
    assert metrics["loss_last"] < metrics["loss_first"] - 0.5
