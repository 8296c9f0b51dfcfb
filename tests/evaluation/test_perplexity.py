"""Held-out loss is the mean over tokens that `transformers` itself would give, each document on its own."""

import json
import math

import numpy as np
import pytest
import torch

from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
from solar.data.prepare import prepare
from solar.data.store.dataset import TokenDataset
from solar.errors import DataError
from solar.evaluation import perplexity
from solar.evaluation.perplexity import held_out_loss

TEXTS = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "Tom had a big red ball.",
    "One day, a small dog went to the shop to buy some bread for his friend the cat, who was sick.",
    "The end.",
]


def write_tokens(folder, tokenizer, texts=TEXTS, packing="none"):
    """A tokens artifact whose `valid` split holds these texts."""
    rows = [{"text": text, "split": "valid"} for text in texts] + [{"text": "He was happy.", "split": "train"}]
    folder.joinpath("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.joinpath("base").mkdir()
    folder.joinpath("base", "model").symlink_to(tokenizer.name_or_path)
    config = PrepareDataConfig(
        kind="prepare_data",
        sources={"texts": SourceConfig(path=str(folder / "texts.jsonl"), format=Format.text)},
        tokenizer="base",
        task=Task.pretrain,
        sequence_length=48,
        packing=Packing(packing),
        held_out_fraction=0,
        seed=0,
    )
    prepare(config, {}, folder / "base", folder)
    return folder


def change_header(folder, **changes):
    path = folder / "tokens.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def documents_of(folder):
    """Token ids of each piece of each row."""
    dataset = TokenDataset(folder, "valid")
    rows = [dataset[index] for index in range(len(dataset))]
    return [np.split(row.input_ids, np.cumsum(row.document_lengths)[:-1]) for row in rows]


def loss_by_transformers(model, documents):
    """Mean over all predicted tokens of the loss that the model computes itself, a document at a time."""
    nats, tokens = 0.0, 0
    for ids in documents:
        with torch.no_grad():
            nats += float(model(torch.tensor([ids]), labels=torch.tensor([ids])).loss) * (len(ids) - 1)
        tokens += len(ids) - 1
    return nats / tokens, tokens


def test_the_loss_is_that_of_transformers_on_each_document_alone(stories, plain_stories, tmp_path):
    decoder, tokenizer = stories
    expected, tokens = loss_by_transformers(
        plain_stories, [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in TEXTS]
    )
    found = held_out_loss(decoder, write_tokens(tmp_path, tokenizer))
    assert found["nats_per_token"] == pytest.approx(expected, abs=1e-5)
    assert found["tokens"] == tokens
    size = sum(len(text.encode()) for text in TEXTS)
    assert found["bits_per_byte"] == pytest.approx(expected * tokens / math.log(2) / size, abs=1e-5)


def test_documents_that_share_a_row_do_not_see_each_other(stories, plain_stories, tmp_path):
    decoder, tokenizer = stories
    rows = documents_of(write_tokens(tmp_path, tokenizer, packing="concatenate"))
    assert any(len(row) > 1 for row in rows)
    pieces = [piece.tolist() for row in rows for piece in row if len(piece) > 1]
    expected, tokens = loss_by_transformers(plain_stories, pieces)
    found = held_out_loss(decoder, tmp_path)
    assert (found["nats_per_token"], found["tokens"]) == (pytest.approx(expected, abs=1e-5), tokens)


def test_the_number_of_rows_in_a_pass_does_not_matter_and_a_repetition_is_exact(stories, tmp_path, monkeypatch):
    decoder, tokenizer = stories
    folder = write_tokens(tmp_path, tokenizer)
    first = held_out_loss(decoder, folder)
    assert held_out_loss(decoder, folder) == first
    monkeypatch.setitem(perplexity.TOKENS_AT_ONCE, "cpu", 1)
    assert held_out_loss(decoder, folder)["nats_per_token"] == pytest.approx(first["nats_per_token"], abs=1e-6)


def test_reading_stops_after_the_row_that_reaches_the_bound(stories, tmp_path):
    decoder, tokenizer = stories
    folder = write_tokens(tmp_path, tokenizer, packing="concatenate")
    first, second = ([sum(len(piece) - 1 for piece in row), sum(map(len, row))] for row in documents_of(folder)[:2])
    assert held_out_loss(decoder, folder, 1)["tokens"] == first[0]
    assert held_out_loss(decoder, folder, first[1])["tokens"] == first[0]
    assert held_out_loss(decoder, folder, first[1] + 1)["tokens"] == first[0] + second[0]
    assert held_out_loss(decoder, folder, 10_000)["tokens"] == held_out_loss(decoder, folder)["tokens"]


def test_an_empty_split_is_refused_with_a_way_out(stories, tmp_path):
    decoder, tokenizer = stories
    with pytest.raises(DataError, match="empty valid split; raise its held_out_fraction"):
        held_out_loss(decoder, write_tokens(tmp_path, tokenizer, texts=[]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "preference"}, "holds preference pairs, expected documents"),
        ({"vocab_size": 600}, "tokens of a vocabulary of 600, but .* embeds 512"),
    ],
)
def test_data_that_this_model_cannot_read_is_refused(stories, tmp_path, changes, message):
    decoder, tokenizer = stories
    change_header(write_tokens(tmp_path, tokenizer), **changes)
    with pytest.raises(DataError, match=message):
        held_out_loss(decoder, tmp_path)
