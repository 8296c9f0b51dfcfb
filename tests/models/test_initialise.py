"""A Llama with random weights is a Llama, and the same one each time."""

import hashlib
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from solar.config.model import ArchitectureConfig
from solar.errors import ConfigError
from solar.models.initialise import initialise

SIZES = ArchitectureConfig(
    num_hidden_layers=3,
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=300,
    max_position_embeddings=64,
    tie_word_embeddings=False,
    rope_theta=50000.0,
    rms_norm_eps=1e-5,
)


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocabulary = {"<s>": 0, "</s>": 1} | {f"w{index}": index for index in range(2, 300)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="<s>")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def make(output: Path, tokenizer: Path, seed: int = 0, **changes) -> dict:
    return initialise(ArchitectureConfig(**(vars(SIZES) | changes)), tokenizer, 0.02, seed, output)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_transformers_loads_every_tensor_and_counts_the_same_parameters(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    metrics = make(tmp_path / "model", tokenizer)
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(told.values())
    assert metrics["parameters"] == SIZES.parameters() == sum(p.numel() for p in model.parameters())
    assert model.config.rope_parameters["rope_theta"] == 50000.0
    assert (model.config.bos_token_id, model.config.eos_token_id) == (0, 1)


def test_the_weights_are_distributed_as_transformers_initialises_them(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    make(tmp_path / "model", tokenizer)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    theirs = AutoModelForCausalLM.from_config(ours.config).state_dict()
    for name, tensor in ours.state_dict().items():
        assert tensor.shape == theirs[name].shape
        if tensor.ndim == 1:
            assert tensor.eq(1).all() and theirs[name].eq(1).all()
        else:
            assert abs(float(tensor.std()) - 0.02) < 0.0025 and abs(float(tensor.mean())) < 0.002


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path, tokenizer):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        make(tmp_path / name, tokenizer, seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_a_deeper_model_begins_with_the_layers_of_a_shallower_one(tmp_path, tokenizer):
    from safetensors.numpy import load_file

    make(tmp_path / "shallow", tokenizer)
    make(tmp_path / "deep", tokenizer, num_hidden_layers=5)
    deep = load_file(tmp_path / "deep" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "shallow" / "model.safetensors").items():
        assert (tensor == deep[name]).all()


def test_no_two_matrices_begin_alike(tmp_path, tokenizer):
    from safetensors.numpy import load_file

    make(tmp_path / "model", tokenizer)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    beginnings = [tensor.ravel()[:8].tobytes() for tensor in weights.values() if tensor.ndim == 2]
    assert len(set(beginnings)) == len(beginnings) == 2 + 3 * 7


def test_the_tokenizer_travels_byte_by_byte(tmp_path, tokenizer):
    make(tmp_path / "model", tokenizer)
    for path in tokenizer.iterdir():
        assert (tmp_path / "model" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 299}, "architecture.vocab_size: found 299, expected 300"),
        ({"num_attention_heads": 5}, "expected a divisor of hidden_size 32"),
        ({"num_key_value_heads": 3}, "expected a divisor of num_attention_heads 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_their_key(tmp_path, tokenizer, changes, says):
    with pytest.raises(ConfigError, match=says):
        make(tmp_path / "model", tokenizer, **changes)
    assert not (tmp_path / "model").exists()
