"""Documents that share a row never see each other, and positions start anew in each."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from solar.data.store.dataset import IGNORED, Row, TokenDataset, collate


def _model(attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, attn_implementation=attention,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def _row(*documents: list[int]) -> Row:
    ids = np.array([i for document in documents for i in document])
    return Row(ids, ids.copy(), [len(document) for document in documents], list(range(len(documents))))


def _logits(model: LlamaForCausalLM, *rows: Row) -> torch.Tensor:
    batch = collate(rows, pad_id=0)
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_changing_document_a_leaves_document_b_bit_equal(attention):
    model = _model(attention)
    rng = np.random.default_rng(0)
    a, other, b, c = (rng.integers(3, 600, size).tolist() for size in (20, 20, 30, 9))
    before, after = _logits(model, _row(a, b), _row(c)), _logits(model, _row(other, b), _row(c))
    assert torch.equal(before[0, 20:], after[0, 20:])
    assert not torch.equal(before[0, :20], after[0, :20])
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_document_in_a_row_has_the_logits_it_has_alone(attention):
    model = _model(attention)
    rng = np.random.default_rng(1)
    a, b = (rng.integers(3, 600, size).tolist() for size in (20, 30))
    packed = _logits(model, _row(a, b), _row(a))
    torch.testing.assert_close(packed[0, 20:50], _logits(model, _row(b))[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(packed[1, :20], _logits(model, _row(a))[0], atol=1e-5, rtol=1e-4)


SIZES = {
    "vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 200, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
FAMILIES = {
    "gpt2": GPT2 | {"bos_token_id": 1, "eos_token_id": 1},
    "gpt_neox": SIZES,
    "mistral": SIZES | {"sliding_window": 16},
    "qwen2": SIZES | {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "qwen3": SIZES | {"head_dim": 8},
    "gemma2": SIZES | {"sliding_window": 16, "head_dim": 8},
    "gemma3_text": SIZES | {"sliding_window": 16, "head_dim": 8},
    "phi3": SIZES,
    "mixtral": SIZES | {"num_local_experts": 2},
    "olmo2": SIZES,
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families_with_and_without_sliding_windows_isolate(family, attention):
    if (family, attention) == ("gemma2", "sdpa"):
        pytest.skip("transformers has no sdpa for Gemma 2")
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    rng = np.random.default_rng(0)
    a, other, b = (rng.integers(3, 200, size).tolist() for size in (20, 20, 30))
    before, after = _logits(model, _row(a, b)), _logits(model, _row(other, b))
    assert torch.equal(before[0, 20:], after[0, 20:]) and not torch.equal(before[0, :20], after[0, :20])
    torch.testing.assert_close(before[0, 20:], _logits(model, _row(b))[0], atol=1e-5, rtol=1e-4)


def test_the_same_row_with_a_mask_of_ones_would_leak():
    """Why no mask is ever given: this is what the test above protects from."""
    model = _model("sdpa")
    rng = np.random.default_rng(0)
    a, other, b = (rng.integers(3, 600, size).tolist() for size in (20, 20, 30))
    found = []
    for first in (a, other):
        batch = collate([_row(first, b)], pad_id=0)
        with torch.no_grad():
            mask = torch.ones_like(batch["input_ids"])
            output = model(batch["input_ids"], attention_mask=mask, position_ids=batch["position_ids"], use_cache=False)
        found.append(output.logits[0, 20:])
    assert not torch.equal(*found)


def test_a_batch_by_hand():
    first = Row(np.array([1, 5, 6, 1, 7]), np.array([-100, 5, 6, -100, 7]), [3, 2], [4, 9])
    second = Row(np.array([1, 8]), np.array([-100, 8]), [2], [2])
    batch = collate([first, second], pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 5, 6, 1, 7], [1, 8, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 5, 6, -100, 7], [-100, 8, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert batch["document_ids"].tolist() == [[0, 0, 0, 1, 1], [0, 0, -1, -1, -1]]
    assert batch["document_lengths"] == [[3, 2], [2]] and batch["sample_ids"] == [[4, 9], [2]]


def test_no_label_crosses_from_one_document_into_the_next(prepared, topics):
    folder = prepared([{"text": text[:150]} for text in topics]).folder
    data = TokenDataset(folder, "train")
    loader = torch.utils.data.DataLoader(data, 4, collate_fn=partial(collate, pad_id=data.header.pad_id))
    labels = 0
    for batch in loader:
        assert (batch["labels"][batch["position_ids"] == 0] == IGNORED).all()
        assert (batch["labels"][batch["document_ids"] < 0] == IGNORED).all()
        kept = batch["labels"] != IGNORED
        assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])
        labels += int(kept.sum())
    assert labels == data.split.trained_tokens == int(data.row_trained_tokens.sum())


@pytest.mark.slow
def test_flex_attention_isolates_too_where_it_runs():
    """In a process of its own: on CPUs it only runs forward, and has been seen to abort beside other models."""
    program = """
import sys
sys.path[:0] = [sys.argv[1]]
import numpy as np, torch
from test_isolation import _logits, _model, _row
model, rng = _model("flex_attention"), np.random.default_rng(0)
a, other, b = (rng.integers(3, 600, size).tolist() for size in (20, 20, 30))
before, after = _logits(model, _row(a, b)), _logits(model, _row(other, b))
print(torch.equal(before[0, 20:], after[0, 20:]), torch.equal(before[0, :20], after[0, :20]))
"""
    folder = str(Path(__file__).parent)
    found = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"flex_attention does not run here: {found.stderr.strip().splitlines()[-1:]}")
    assert found.stdout.split() == ["True", "False"]
