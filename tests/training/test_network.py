"""A model that would be computed differently from what it is, is refused by name."""

from pathlib import Path

import pytest
from transformers import CohereConfig, GptOssConfig, GptOssForCausalLM, Lfm2Config

from solar.config.training import Precision
from solar.errors import StageError
from solar.training.network import check_architecture, load_network


def test_scaled_logits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"logit_scale is set"):
        check_architecture(CohereConfig(logit_scale=0.0625), tmp_path)


def test_layers_that_carry_state_across_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"layer_types has conv, whose state would run on"):
        check_architecture(Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), tmp_path)


def test_attention_sinks_are_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 64}
    config = GptOssConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, num_local_experts=2)
    GptOssForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(StageError, match=r"self_attn\.sinks is an attention sink"):
        load_network(tmp_path, Precision.fp32)
