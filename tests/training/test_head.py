"""Logits as each family makes them: bias, factor, soft cap; what is made in another way is refused by name."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from solar.config.training import Precision
from solar.errors import StageError
from solar.network.head import Head, body_of, read_head
from solar.network.loading import load_network
from solar.training.distributed.sharded_loading import empty_network
from tests.growth.tiny import FAMILIES, make_tiny, scramble

SAYS = {
    "phi": {},
    "gptj": {},
    "codegen": {},
    "gemma2": {"final_logit_softcapping": 3.0},
    "recurrent_gemma": {"logits_soft_cap": 3.0},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "granitemoe": {"logits_scaling": 4.0},
    "falcon_h1": {"lm_head_multiplier": 0.5},
    "llama4_text": {},
}
"""What each family says of its logits; Phi, GPT-J and CodeGen have a bias, and Llama 4 hides where its body is."""
IDS_BT = torch.randint(3, 90, (2, 24), generator=torch.Generator().manual_seed(0))


def _saved(name: str, folder: Path, **changes: float) -> Path:
    from transformers import CONFIG_MAPPING

    family, sizes = FAMILIES[name]
    network = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**sizes | changes))
    scramble(network.float())
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", SAYS)
def test_loss_and_gradients_of_the_head_are_those_of_the_models_own_logits(name: str, tmp_path: Path) -> None:
    load_network(_saved(name, tmp_path, **SAYS[name]), Precision.fp32)
    network = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    head, targets_N = read_head(network), IDS_BT[:, 1:].reshape(-1)
    said = (head.bias_V is not None, head.scale != 1, head.softcap is not None)
    assert said.count(True) == (name != "llama4_text")
    of = [network.get_output_embeddings().weight, network.get_input_embeddings().weight]
    logits_NV = network(input_ids=IDS_BT, use_cache=False).logits[:, :-1].flatten(0, 1)
    expected = cross_entropy(logits_NV.float(), targets_N, reduction="sum")
    wanted = torch.autograd.grad(expected, of)
    hidden_ND = body_of(network)(input_ids=IDS_BT, use_cache=False)[0][:, :-1].flatten(0, 1)
    found, _ = head.loss_sum(hidden_ND, targets_N)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert -head.logps(hidden_ND, targets_N).sum().item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, theirs in zip(torch.autograd.grad(found, of), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_a_factor_and_a_cap_worked_by_hand() -> None:
    """Logits 2 x (1, 3) + 2 x (0, 1) = (2, 8); under a cap of 8: 8 tanh(1/4), 8 tanh(1)."""
    head = Head(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]), scale=2.0, softcap=8.0)
    expected = [8 * math.tanh(0.25), 8 * math.tanh(1)]
    assert head.logits(torch.ones(1, 1))[0].tolist() == pytest.approx(expected)
    gap = expected[1] - expected[0]
    assert head.loss_sum(torch.ones(1, 1), torch.tensor([0]))[0].item() == pytest.approx(math.log1p(math.exp(gap)))


def test_logits_made_in_an_unknown_way_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_tiny("llama", tmp_path)
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(
        torch.nn.Linear, "forward", lambda layer, x: forward(layer, x) * (1.1 if layer.out_features == 96 else 1.0)
    )
    with pytest.raises(StageError, match="model type llama computes its logits in a way that solar does not know"):
        load_network(folder, Precision.fp32)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_a_model_that_also_sees_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Gemma 3's also counts as a language model in transformers."""
    with pytest.raises(StageError, match=f"model type {name} found, expected a decoder of text alone"):
        load_network(make_tiny(name, tmp_path), Precision.fp32)


def test_a_weight_between_body_and_output_layer_is_refused_before_there_are_numbers(tmp_path: Path) -> None:
    """ModernBERT's decoder has a dense layer and a norm there."""
    with pytest.raises(StageError, match="model type modernbert-decoder computes its logits in a way"):
        empty_network(make_tiny("modernbert-decoder", tmp_path / "modernbert"), Precision.fp32)
    empty_network(make_tiny("phi", tmp_path / "phi"), Precision.fp32)
