"""Held-out loss is one number: in training's validation, in evaluation, and from plain transformers."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from solar.config.training import PretrainConfig
from solar.data.store.dataset import TokenDataset
from solar.errors import DataError, StageError
from solar.evaluation import perplexity
from solar.evaluation.perplexity import held_out_loss
from solar.growth.remap.families import PROVEN
from solar.network.loading import load_decoder
from solar.network.microbatch import from_rows
from tests.growth.tiny import FAMILIES, make_tiny
from tests.training.tiny import TinyRow, settings, train_rows

from .tokens import write_rows

IN_TRAINING = [name for name in FAMILIES if name != "modernbert-decoder"]
"""That family's head is refused by name: see tests/training/test_head.py."""
GENERATOR = np.random.default_rng(0)
ROWS = [[GENERATOR.integers(3, 96, size).tolist() for size in sizes] for sizes in ((9, 14, 3), (20, 5), (7, 7, 11))]
"""Documents longer than the windows of the tiny models, which span 4 tokens."""


def alone(folder):
    """Mean loss of all documents, each run by itself by plain transformers."""
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    nats, tokens = 0.0, 0
    for ids in (document for row in ROWS for document in row):
        with torch.no_grad():
            logps = network(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
        nats -= sum(float(logps[place, token]) for place, token in enumerate(ids[1:]))
        tokens += len(ids) - 1
    return nats / tokens


def test_every_proven_family_is_tested_here():
    assert {FAMILIES[name][0] for name in IN_TRAINING} >= PROVEN


@pytest.mark.parametrize("name", IN_TRAINING)
def test_held_out_loss_is_the_same_in_training_in_evaluation_and_for_each_document_alone(name, tmp_path):
    folder, data = make_tiny(name, tmp_path / "model"), write_rows(tmp_path / "data", ROWS, 96)
    rows = TokenDataset(data, "valid")
    in_evaluation = held_out_loss(load_decoder(folder), data)
    config = PretrainConfig(**settings(duration="1 steps"))
    trained = [TinyRow(np.array([5, 6, 7]), np.array([-100, 6, 7]), [3], [0])]
    held_out = [rows[number] for number in range(len(rows))]
    in_training, _ = train_rows(trained, config, folder, tmp_path / "out", held_out=held_out)
    assert in_evaluation["tokens"] == sum(len(ids) - 1 for row in ROWS for ids in row)
    assert in_evaluation["nats_per_token"] == pytest.approx(alone(folder), rel=2e-6)
    assert in_evaluation["nats_per_token"] == pytest.approx(in_training["valid_loss_first"], rel=1e-6)


@pytest.mark.parametrize("name", ["opt", "qwen3_next", "mamba", "bloom", "llama"])
def test_another_document_in_the_row_leaves_a_documents_loss_alone_bit_for_bit(name, tmp_path):
    decoder = load_decoder(make_tiny(name, tmp_path / "model"))
    b = ROWS[1][0]
    losses = []
    for number, a in enumerate(([5] * 12, list(range(20, 32)))):
        both, first = (
            write_rows(tmp_path / f"both{number}", [[a, b]], 96),
            write_rows(tmp_path / f"a{number}", [[a]], 96),
        )
        row_nats, first_nats = (held_out_loss(decoder, data) for data in (both, first))
        losses.append([total["nats_per_token"] * total["tokens"] for total in (row_nats, first_nats)])
        batch = from_rows([TokenDataset(both, "valid")[0]])
        with torch.inference_mode():
            logps_N = decoder.head.logps(decoder.trained_states(batch), batch.targets_N)
        losses[-1].append(logps_N[batch.answers_N == 1])
    assert torch.equal(losses[0][2], losses[1][2])
    for row_nats, first_nats, logps_of_b in losses:
        assert row_nats - first_nats == pytest.approx(-float(logps_of_b.double().sum()), rel=1e-5)


def test_passes_of_few_and_of_many_tokens_count_by_their_tokens(tmp_path, monkeypatch):
    """A mean of the means of passes would be another number: the rows have 23, 23 and 22 targets, and 5, 10 and 60."""
    rows = [*ROWS, *([list(range(5, 6 + size))] for size in (5, 10, 60))]
    folder, data = make_tiny("llama", tmp_path / "model"), write_rows(tmp_path / "data", rows, 96)
    at_once = held_out_loss(load_decoder(folder), data)
    monkeypatch.setitem(perplexity.TOKENS_AT_ONCE, "cpu", 96)
    row_by_row = held_out_loss(load_decoder(folder), data)
    assert row_by_row["tokens"] == at_once["tokens"] == 23 + 23 + 22 + 5 + 10 + 60
    assert row_by_row["nats_per_token"] == pytest.approx(at_once["nats_per_token"], rel=1e-6)


def test_a_loss_that_is_not_finite_is_refused_in_words(tmp_path):
    folder, data = make_tiny("llama", tmp_path / "model"), write_rows(tmp_path / "data", ROWS, 96)
    decoder = load_decoder(folder)
    with torch.no_grad():
        decoder.network.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(StageError, match=r"model: the held-out loss on .*data is nan, expected a finite number"):
        held_out_loss(decoder, data)


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_a_document_longer_than_the_table_of_positions_is_refused(name, tmp_path):
    folder, data = make_tiny(name, tmp_path / "model"), write_rows(tmp_path / "data", [[[5] * 65]], 96)
    with pytest.raises(DataError, match=r"a document of 65 tokens in a row, but .*model has 64 positions"):
        held_out_loss(load_decoder(folder), data)
