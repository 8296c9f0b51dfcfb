"""LoRA: only adapters move, and the folded model is the adapted one. Needs `peft`."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama_folder, row, settings, train_rows

from solar.config.training import AdapterConfig, PretrainConfig
from solar.training.adapter import add_adapter
from solar.training.language import ContinuedPretraining
from solar.training.microbatch import from_rows

pytest.importorskip("peft", reason="peft is not installed")
ROWS = [row(9, 6, seed=n) for n in range(8)]
ADAPTER = AdapterConfig(rank=4, alpha=8.0)


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
    expected = module.hidden(from_rows([row(9, 6, seed=0)]))[:8] @ module.head().T
    torch.testing.assert_close(plain(input_ids=ids).logits[0, :8], expected, rtol=1e-4, atol=1e-4)
