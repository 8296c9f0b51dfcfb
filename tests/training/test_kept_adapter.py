"""An adapter is kept beside the model that it is folded into."""

import pytest
import torch
from tiny import llama_folder, row, settings, train_rows
from transformers import AutoModelForCausalLM

from solar.config.training import AdapterConfig, PretrainConfig
from solar.network.adapter import add_adapter
from solar.training.modules.next_token import ContinuedPretraining

peft = pytest.importorskip("peft")


def _trained(tmp_path, adapter):
    base = llama_folder(tmp_path / "base")

    def adapted(network, config, *rest):
        add_adapter(network, config.adapter, config.seed)
        return ContinuedPretraining(network, config, *rest)

    rows = [row(9, 4, seed=n, sample=n) for n in range(8)]
    config = PretrainConfig(**settings(duration="4 steps", adapter=adapter))
    train_rows(rows, config, base, tmp_path / "out", module=adapted)
    return base, tmp_path / "out"


def test_peft_on_the_base_gives_the_logits_of_the_folded_model(tmp_path):
    base, output = _trained(tmp_path, AdapterConfig(rank=2, targets=["q_proj", "down_proj"], keep=True))
    folded = AutoModelForCausalLM.from_pretrained(output / "model").eval()
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected, before = folded(ids).logits, plain(ids).logits
        actual = peft.PeftModel.from_pretrained(plain, output / "adapter").eval()(ids).logits
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert (actual - before).abs().max() > 1e-3
    modes = {path.name: path.stat().st_mode for path in (output / "adapter").iterdir()}
    assert modes["adapter_model.safetensors"] == modes["adapter_config.json"]


def test_an_adapter_is_not_kept_unasked(tmp_path):
    _, output = _trained(tmp_path, AdapterConfig(rank=2))
    assert (output / "model").is_dir() and not (output / "adapter").exists()


def test_to_keep_an_adapter_needs_an_adapter():
    assert list(AdapterConfig(keep=True).problems()) == ["keep: given, but there is no adapter; remove it, or set rank"]
