"""The loss that balances experts: transformers' own, where a model's config asks for it."""

import pytest
import torch
from tiny import row, settings, train_rows
from transformers import AutoModelForCausalLM, GraniteMoeConfig, LlamaConfig, MixtralConfig, Qwen2MoeConfig

from solar.config.training import PretrainConfig
from solar.network.balance import balance_weight
from solar.training.modules.next_token import ContinuedPretraining

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "output_router_logits": True,
    "router_aux_loss_coef": 0.1,
}
MIXTURES = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    "granitemoe": GraniteMoeConfig(**SIZES, num_local_experts=4),
    "qwen2_moe": Qwen2MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16),
}


class Keeping(ContinuedPretraining):
    def _clip(self):
        self.kept = {name: p.grad.clone() for name, p in self.network.named_parameters() if p.grad is not None}
        return super()._clip()


def _model(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", MIXTURES)
def test_loss_and_gradient_are_those_of_transformers(tmp_path, family, recompute):
    model, one = _model(MIXTURES[family]), row(13, seed=1)
    model.save_pretrained(tmp_path / "base")
    config = PretrainConfig(**settings(duration="1 steps", global_batch_size=1, activation_checkpointing=recompute))
    call = {"module": Keeping, "micro_batch_size": 1, "held_out": [one]}
    metrics, module = train_rows([one], config, tmp_path / "base", tmp_path / "out", **call)
    ids = torch.tensor(one.input_ids)[None]
    expected = model.train()(input_ids=ids, labels=ids)
    expected.loss.backward()
    assert metrics["loss_first"] == pytest.approx(float(expected.loss), abs=1e-6)
    assert metrics["balance_loss_first"] == pytest.approx(float(expected.aux_loss), abs=1e-6)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert (module.kept[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm(), name
    without = float(expected.loss) - 0.1 * float(expected.aux_loss)
    assert metrics["valid_loss_first"] == pytest.approx(without, abs=1e-6)


def test_without_the_word_in_the_config_and_without_experts_there_is_none():
    quiet = {name: value for name, value in SIZES.items() if name != "output_router_logits"}
    assert balance_weight(_model(MixtralConfig(**quiet, num_local_experts=4))) == 0.0
    assert balance_weight(_model(LlamaConfig(**SIZES))) == 0.0
    assert balance_weight(_model(MIXTURES["mixtral"])) == 0.1
