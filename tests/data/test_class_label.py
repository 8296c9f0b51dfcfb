"""The tokenizer is the one in `tokenizer.json`, whatever class its folder is labelled with."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from solar.config.model import ImportModelConfig
from solar.data.encode import class_label, tokenizer
from solar.data.encode.encode import Encoder
from solar.errors import DataError
from solar.stages.import_model import run
from tests.growth.tiny import make_tiny

TEXTS = [
    "In 2023, x != y and 650841823 + 12.5",
    "1.  2 apples\n2.  3 pears",
    "don't  stop",
    "\ufb01ne \u2167 Cafe\u0301",
]


def folder_of(path: Path, label: str | None, model_type: str = "llama", **settings: str | None) -> Path:
    """A model folder (without weights) whose tokenizer splits every digit, under a label."""
    path.mkdir()
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([f"  {number}  apples don't stop {2 * number}." for number in range(400)], trainer)
    backend.save(str(path / "tokenizer.json"))
    written = {"tokenizer_class": label, "eos_token": "<|endoftext|>", **settings}
    written = {key: value for key, value in written.items() if value is not None}
    (path / "tokenizer_config.json").write_text(json.dumps(written))
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


def ids_of_file(folder: Path) -> list[list[int]]:
    return [Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids for text in TEXTS]


def ids_of_transformers(folder: Path) -> list[list[int]]:
    return [AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids for text in TEXTS]


@pytest.mark.parametrize(
    ("label", "model_type"),
    [("GPT2Tokenizer", "llama"), ("Qwen2TokenizerFast", "llama"), ("PreTrainedTokenizerFast", "qwen2"), (None, "gpt2")],
)
def test_ids_are_those_of_the_file_under_any_label(tmp_path, label, model_type):
    folder = folder_of(tmp_path / "model", label, model_type)
    assert ids_of_transformers(folder) != ids_of_file(folder)
    with pytest.warns(UserWarning, match=r"plain transformers does not use its tokenizer\.json as it is, but a \w+"):
        encoder = Encoder(tokenizer.load(folder))
    assert [encoder.plain_text(text) for text in TEXTS] == ids_of_file(folder)


@pytest.mark.parametrize("label", ["PreTrainedTokenizerFast", "TokenizersBackend", "NoSuchTokenizer"])
def test_a_label_that_changes_nothing_gives_no_warning_and_stays(tmp_path, label):
    folder = folder_of(tmp_path / "model", label)
    before = (folder / "tokenizer_config.json").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.load(folder)
    assert class_label.relabel(folder) == ""
    assert (folder / "tokenizer_config.json").read_bytes() == before
    assert ids_of_transformers(folder) == ids_of_file(folder)


def test_a_new_label_makes_plain_transformers_use_the_file_and_keeps_the_roles_of_the_old_one(tmp_path):
    folder = folder_of(tmp_path / "model", "GPT2Tokenizer", eos_token=None)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|endoftext|>"  # known to the class alone
    with pytest.warns(UserWarning, match="plain transformers"):
        assert tokenizer.load(folder).eos_token == "<|endoftext|>"
    class_label.relabel(folder)
    made = AutoTokenizer.from_pretrained(folder)
    assert ids_of_transformers(folder) == ids_of_file(folder) and made.eos_token == "<|endoftext|>"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.load(folder).eos_token == "<|endoftext|>"


def test_an_imported_model_is_relabelled_and_its_stage_says_so(tmp_path):
    base = make_tiny("llama", tmp_path / "base")
    label = folder_of(tmp_path / "labelled", "GPT2Tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(label / name, base / name)
    metrics = run(ImportModelConfig(path=str(base)), {}, tmp_path / "out", None)
    assert metrics["summary"].endswith(
        ", tokenizer relabelled from GPT2Tokenizer to PreTrainedTokenizerFast, so that tokenizer.json is used as it is"
    )
    assert ids_of_transformers(tmp_path / "out/model") == ids_of_file(base)
    assert (tmp_path / "out/model/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_where_no_label_helps_the_old_one_stays(tmp_path):
    folder = folder_of(tmp_path / "model", "PreTrainedTokenizerFast", "qwen2")
    before = (folder / "tokenizer_config.json").read_bytes()
    class_label.relabel(folder)
    assert (folder / "tokenizer_config.json").read_bytes() == before


def test_a_sentencepiece_file_alone_is_refused_with_the_way_to_convert_it(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e")
    with pytest.raises(
        DataError, match=r"found tokenizer\.model, expected tokenizer\.json; make it where sentencepiece"
    ):
        tokenizer.load(tmp_path)


def test_a_damaged_file_is_one_line(tmp_path):
    folder = folder_of(tmp_path / "model", None)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be read \(.*\); fetch the tokenizer again"):
        tokenizer.load(folder)
