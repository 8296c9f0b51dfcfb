"""The byte-level tokenizer: loses nothing, repeats exactly, is what it says."""

import os
import subprocess
import sys

import pytest
from conftest import write_rows
from transformers import AutoTokenizer

from solar.config.model import TrainTokenizerConfig
from solar.data.encode import tokenizer
from solar.errors import DataError


@pytest.mark.parametrize("text", ["plain", " spaces  and\n\n\ttabs ", "naïve 日本 🙂", "\x00\x7f\x85\u2028", "don't"])
def test_every_text_comes_back_unchanged(tokenizers, text):
    loaded = AutoTokenizer.from_pretrained(tokenizers["solar"] / "tokenizer")
    assert loaded.decode(loaded.encode(text, add_special_tokens=False)) == text
    assert loaded.unk_token is None


def test_the_folder_says_what_the_special_tokens_are_and_carries_the_template(tokenizers):
    loaded = AutoTokenizer.from_pretrained(tokenizers["chatml"] / "tokenizer")
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert len(loaded) == 600 and loaded("x").input_ids[0] == 1
    assert loaded.convert_tokens_to_ids("<|im_end|>") == 4
    assert "<|im_start|>" in loaded.chat_template


def test_the_same_text_gives_the_same_files_in_any_process(tmp_path, topics):
    (tmp_path / "text").mkdir()
    write_rows(tmp_path / "text/documents.jsonl", [{"text": text} for text in topics[:40]])
    program = (
        "import sys; from pathlib import Path; from solar.data.encode.tokenizer import train;"
        "train(Path(sys.argv[1]), 500, 'solar', Path(sys.argv[2]))"
    )
    for seed, threads in (("0", "1"), ("1", "4")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "text"), str(tmp_path / seed)], check=True, env=environment
        )
    files = [sorted((path.name, path.read_bytes()) for path in (tmp_path / seed).iterdir()) for seed in "01"]
    assert files[0] == files[1] and len(files[0]) == 3


def test_held_out_rows_are_not_learnt_from(tmp_path, topics):
    rows = [{"text": text, "split": "train"} for text in topics[:30]]
    (tmp_path / "text").mkdir()
    write_rows(tmp_path / "text/documents.jsonl", [*rows, {"text": "zqxj " * 5000, "split": "valid"}])
    write_rows(tmp_path / "text/other.jsonl", [{"messages": []}])
    tokenizer.train(tmp_path / "text", 500, "solar", tmp_path / "out")
    assert list(tokenizer.training_texts(tmp_path / "text")) == topics[:30]
    assert not any("zq" in token for token in AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab())


@pytest.mark.parametrize(("template", "least"), [("solar", 259), ("llama3", 262)])
def test_a_vocabulary_without_room_for_every_byte_is_told_before_any_work(template, least):
    config = TrainTokenizerConfig(kind="train_tokenizer", text="t", template=template, vocab_size=3)
    problem = f"vocab_size: found 3, expected at least {least}: every byte and the special tokens"
    assert list(config.problems()) == [problem]
    config.vocab_size = least
    assert list(config.problems()) == []


def test_sizes_and_texts_that_cannot_work_are_refused(tmp_path):
    (tmp_path / "text").mkdir()
    with pytest.raises(DataError, match=r"no \*.jsonl file with training rows"):
        tokenizer.train(tmp_path / "text", 500, "solar", tmp_path / "out")
    write_rows(tmp_path / "text/a.jsonl", [{"text": "a b"}])
    with pytest.raises(DataError, match=r"has text for 2[0-9]+ tokens only"):
        tokenizer.train(tmp_path / "text", 5000, "solar", tmp_path / "out")
    with pytest.raises(DataError, match="template: found 'nope', expected one of solar"):
        tokenizer.train(tmp_path / "text", 500, "nope", tmp_path / "out")
    with pytest.raises(DataError, match="no tokenizer files here"):
        tokenizer.load(tmp_path / "text")
