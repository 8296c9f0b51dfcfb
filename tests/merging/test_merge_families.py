"""Models of families with odd weights (Conv1D, tied embeddings, experts, fused heads) are merged as any other."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from solar.merge import main

WIDE = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 97}
DEEP = WIDE | {"num_hidden_layers": 2, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=1, bos_token_id=1),
    "gemma2": Gemma2Config(**DEEP),
    "mixtral": MixtralConfig(**DEEP, num_local_experts=4),
    "bloom": BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4),
}


@pytest.fixture(params=FAMILIES)
def pair(request, tmp_path):
    """Two models of a family with other random weights, the second in many shards."""
    models = [_model(FAMILIES[request.param], seed) for seed in (0, 1)]
    folders = [str(tmp_path / name) for name in "ab"]
    for model, folder, size in zip(models, folders, ("5GB", "20KB"), strict=True):
        model.save_pretrained(folder, max_shard_size=size)
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 3
    return models, folders


def _model(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def _weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.double() for name, weight in model.named_parameters()}


def test_an_average_loads_and_every_weight_is_the_mean(pair, tmp_path):
    (a, b), folders = pair
    assert main([*folders, str(tmp_path / "out"), "method=average", "weights=[1,3]"]) == 0
    merged, said = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours, first, second = map(_weights, (merged, a, b))
    assert ours.keys() == first.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, (first[name] + 3 * second[name]) / 4, rtol=1e-7, atol=0)


@pytest.mark.parametrize("t", [0, 1])
def test_slerp_ends_at_its_models_bit_for_bit(pair, tmp_path, t):
    models, folders = pair
    assert main([*folders, str(tmp_path / "out"), "method=slerp", f"t={t}"]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for (name, weight), expected in zip(merged.named_parameters(), models[t].parameters(), strict=True):
        assert torch.equal(weight.view(torch.int32), expected.view(torch.int32)), name
