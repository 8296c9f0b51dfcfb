"""Easy-to-hard chunks: worked by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_reference_pass import preference_tokens
from tiny import Place, llama_folder
from transformers import LlamaForCausalLM

from solar.config.preference import ChunkBy, ChunkPairsConfig, ReferenceLogpsConfig
from solar.config.training import Precision
from solar.data.store.dataset import TokenDataset
from solar.errors import ConfigError, DataError
from solar.training.preference import difficulty_chunks as chunks
from solar.training.preference.difficulty_chunks import answer_tokens, chunk_numbers, chunk_pairs
from solar.training.preference.reference_pass import reference_pass

MARGINS = np.array([-1.0, 3.0, 0.5, -2.0, 2.0, 0.5])
SOURCES = {"a": (0, 4), "b": (4, 6)}


def _chunks(by, shares, margins=MARGINS):
    return chunk_numbers(ChunkPairsConfig(by=by, shares=shares, data="pairs"), margins, SOURCES).tolist()


def test_the_largest_margins_come_first_and_every_pair_is_in_one_chunk():
    # easy to hard: 3 (row 1), 2 (4), 0.5 (2), 0.5 (5), -1 (0), -2 (3)
    assert _chunks(ChunkBy.margin, [1 / 3, 1 / 3, 1 / 3]) == [3, 1, 2, 3, 1, 2]
    assert _chunks(ChunkBy.margin, [0.5, 0.5]) == [2, 1, 1, 2, 1, 2]


def test_the_source_that_is_ranked_right_most_often_comes_first():
    # a: 2 of 4 are above 0, b: 2 of 2
    assert _chunks(ChunkBy.accuracy, [0.5, 0.5]) == [2, 2, 2, 2, 1, 1]


def test_the_number_of_steps_must_equal_that_of_the_sources_and_no_chunk_is_empty():
    with pytest.raises(ConfigError, match="found 3 for the 2 sources of pairs"):
        _chunks(ChunkBy.accuracy, [1 / 3] * 3)
    with pytest.raises(DataError, match="chunk 1 of 2 has no pair"):
        _chunks(ChunkBy.margin, [0.01, 0.99])


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """Fifty real pairs, a model, and its log-probabilities of them."""
    place = tmp_path_factory.mktemp("chunks")
    preference_tokens(place)
    llama_folder(place / "base", vocab_size=600)
    config = ReferenceLogpsConfig(kind="reference_logps", model="base", data="data", precision=Precision.fp32)
    (place / "logps").mkdir()
    reference_pass(config, place / "base", place / "data", place / "logps", Place(place, threads=1).trainer, 3)
    return place


@pytest.mark.parametrize("by", [ChunkBy.margin, ChunkBy.margin_per_token])
def test_pairs_are_ordered_by_the_log_probabilities_of_the_model_alone(passed, tmp_path, by):
    config = ChunkPairsConfig(by=by, shares=[0.25, 0.75], data="data")
    message = chunk_pairs(config, passed / "logps", passed / "data", tmp_path / "pairs.jsonl")
    model, data = LlamaForCausalLM.from_pretrained(passed / "base").eval(), TokenDataset(passed / "data", "train")
    margins = [_margin(model, data[row], per_token=by is ChunkBy.margin_per_token) for row in range(len(data))]
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [line["margin"] for line in lines] == pytest.approx(margins, rel=1e-3, abs=1e-3)
    easy, hard = ([margins[line["row"]] for line in lines if line["chunk"] == chunk] for chunk in (1, 2))
    assert len(easy) == round(0.25 * len(data)) and min(easy) > max(hard)
    assert message[0]["accuracy"] == np.mean(np.array(easy) > 0) and message[1]["hardest"] == pytest.approx(
        min(hard), rel=1e-3
    )


def _margin(model, row, *, per_token):
    """Chosen less rejected, each answer computed alone by the plain model."""
    values, start = [], 0
    for length in row.document_lengths:
        ids, labels = (torch.from_numpy(part[start : start + length].copy()) for part in (row.input_ids, row.labels))
        with torch.no_grad():
            logps = model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
        trained = torch.nonzero(labels != -100).flatten()
        own = logps[trained - 1, ids[trained]]
        values.append((own.mean() if per_token else own.sum()).item())
        start += length
    return values[0] - values[1]


def test_a_longer_chosen_answer_is_no_harder_per_token(monkeypatch, tmp_path):
    # per token -1 of both chosen and -2 of both rejected answers; the second chosen one is three times as long
    rows = [_row(2, 2), _row(6, 2)]
    source = SimpleNamespace(start=0, stop=2)
    data = SimpleNamespace(split=SimpleNamespace(sources={"x": source}))
    stub = type("Rows", (), {"__len__": lambda self: 2, "__getitem__": lambda self, row: rows[row], **vars(data)})()
    assert answer_tokens(stub).tolist() == [[2, 2], [6, 2]]
    monkeypatch.setattr(chunks, "TokenDataset", lambda *parts: stub)
    monkeypatch.setattr(chunks, "load_file", lambda path: {"train": torch.tensor([[-2.0, -4.0], [-6.0, -4.0]])})
    for by, expected in ((ChunkBy.margin, [2.0, -2.0]), (ChunkBy.margin_per_token, [1.0, 1.0])):
        chunk_pairs(ChunkPairsConfig(by=by, shares=[1.0], data="x"), tmp_path, tmp_path, tmp_path / "pairs.jsonl")
        lines = (tmp_path / "pairs.jsonl").read_text().splitlines()
        assert [json.loads(line)["margin"] for line in lines] == expected


def _row(chosen, rejected, number=iter(range(2))):
    """A prompt of one token before answers of these lengths."""
    labels = np.array([-100, *range(chosen), -100, *range(rejected)])
    lengths = [1 + chosen, 1 + rejected]
    return SimpleNamespace(labels=labels, document_lengths=lengths, sample_ids=[next(number)] * 2)
