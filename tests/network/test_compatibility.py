"""Data and model that do not fit together are refused before the first pass."""

import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
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
    check_vocabulary(LLAMA, 50, *PLACES)
    with pytest.raises(DataError, match="data: tokens of a vocabulary of 51, but model embeds 50"):
        check_vocabulary(LLAMA, 51, *PLACES)
