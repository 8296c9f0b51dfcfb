"""Data and model that do not fit together are refused before the first pass."""

import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from solar.errors import DataError
from solar.network.compatibility import check_positions, check_vocabulary

PLACES = Path("model"), Path("data")
SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GPT2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=64))
OPT = OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=16, word_embed_proj_dim=16, max_position_embeddings=64))
LLAMA = LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=16, max_position_embeddings=64))


def _rows(longest_document: int) -> SimpleNamespace:
    return SimpleNamespace(longest_document=longest_document)


@pytest.mark.parametrize("network", [GPT2, OPT], ids=["gpt2", "opt"])
def test_a_document_longer_than_a_table_of_positions_is_refused(network):
    check_positions(network, _rows(64), *PLACES)
    message = "data: a document of 65 tokens in a row, but model has 64 positions; prepare the data"
    with pytest.raises(DataError, match=re.escape(message)):
        check_positions(network, _rows(65), *PLACES)


def test_beyond_rotary_positions_there_is_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_positions(LLAMA, _rows(64), *PLACES)
    with pytest.warns(UserWarning, match="but model has 64 positions; the model was not trained beyond them"):
        check_positions(LLAMA, _rows(65), *PLACES)


def test_more_tokens_than_are_embedded_are_refused():
    """T-C4."""
    check_vocabulary(LLAMA, 50, *PLACES)
    with pytest.raises(DataError, match="data: tokens of a vocabulary of 51, but model embeds 50"):
        check_vocabulary(LLAMA, 51, *PLACES)


def _tokenizer(folder: Path, *words: str) -> None:
    folder.mkdir(parents=True)
    Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "a")).save(str(folder / "tokenizer.json"))


def test_data_of_another_tokenizer_of_the_same_size_is_refused(tmp_path):
    """T-C4."""
    _tokenizer(tmp_path / "model", "a", "b", "c")
    _tokenizer(tmp_path / "same/tokenizer", "a", "b", "c", "d")
    _tokenizer(tmp_path / "other/tokenizer", "a", "c", "b")
    check_vocabulary(LLAMA, 4, tmp_path / "model", tmp_path / "same")
    with pytest.raises(
        DataError, match=r"made with another tokenizer .* token 1 is 'c' in the data and 'b' in the model"
    ):
        check_vocabulary(LLAMA, 3, tmp_path / "model", tmp_path / "other")
