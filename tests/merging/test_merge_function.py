"""Models whose configurations, vocabularies or layers differ; and tensors that say nothing."""

import json

import numpy as np
import pytest
from small_models import read_model
from test_merge_refusals import refused
from transformers import AutoConfig

from solar.config.merging import MergeConfig, MergeMethod
from solar.errors import ArtifactError
from solar.merging.function import differing_key
from solar.merging.merge import merge

EMBEDDINGS = np.array([[1.0, 2.0], [3.0, 4.0]])
TIED = {"model_type": "x", "tie_word_embeddings": True}
AVERAGE = MergeConfig("merge", ["a", "b"], MergeMethod.average)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"sliding_window": 16}, {"sliding_window": None}, "sliding_window is 16 in {}, null"),
        ({"sliding_window": None}, {"sliding_window": 16}, "sliding_window is null in {}, 16"),
        ({"residual_multiplier": 0.22}, {"residual_multiplier": 1.0}, "residual_multiplier is 0.22 in {}, 1.0"),
        ({"attention_multiplier": 0.5}, {"attention_multiplier": 1.0}, "attention_multiplier is 0.5 in {}, 1.0"),
        ({"embedding_multiplier": 12.0}, {}, "embedding_multiplier is 12.0 in {}, not set"),
        ({}, {"logits_scaling": 8.0}, "logits_scaling is not set in {}, 8.0"),
        ({"a_key_of_next_year": [1, 2]}, {"a_key_of_next_year": [1, 3]}, "a_key_of_next_year is [1, 2] in {}, [1, 3]"),
        ({"vision_config": {"patch": 4}}, {"vision_config": {"patch": 8}}, "vision_config.patch is 4 in {}, 8"),
        (
            {"max_position_embeddings": 64, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}},
            {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}},
            "max_position_embeddings is 64 in {}, 128",
        ),
    ],
)
def test_any_key_that_changes_the_function_is_refused(first, second, message, model, tmp_path):
    models = [model({"a": [1.0]}, config={"model_type": "x", **config}) for config in (first, second)]
    assert f"config.json: {message.format(models[0])} in {models[1]}" in refused(models, tmp_path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"attention_dropout": 0.1, "resid_pdrop": 0.0}, {"attention_dropout": 0.0, "resid_pdrop": 0.1}),
        ({"dtype": "bfloat16", "architectures": ["A"]}, {"torch_dtype": "float32", "transformers_version": "4.40"}),
        ({"head_dim": None, "num_key_value_heads": None}, {"head_dim": 8, "num_key_value_heads": 4}),
        ({"eos_token_id": 2, "max_position_embeddings": 64}, {"eos_token_id": [2, 3], "max_position_embeddings": 512}),
        ({"residual_multiplier": 1.0, "sliding_window": None}, {}),
        (
            {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 3},
            {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 8},
        ),
    ],
)
def test_keys_that_leave_the_function_alone_are_no_obstacle(first, second, model, tmp_path):
    models = [model({"a": [1.0]}, config={"model_type": "x", **config}) for config in (first, second)]
    merge(models, tmp_path / "out", AVERAGE)


def sentencepiece(*pieces):
    """A SentencePiece model by hand: field 1 holds a piece, whose field 1 is its text and field 2 a score."""
    encoded = [piece.encode() for piece in pieces]
    bodies = [b"\x0a" + bytes([len(text)]) + text + b"\x15" + bytes(4) for text in encoded]
    return b"".join(b"\x0a" + bytes([len(body)]) + body for body in bodies) + b"\x12\x02\x18\x02"


def with_vocabulary(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("_dot_", ".")
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def vocabularies(model):
    models = [model({"model.embed_tokens.weight": np.ones((3, 2))}, config={"vocab_size": 3}) for _ in range(2)]
    return models


@pytest.mark.parametrize("rows", [{"<s>": 0, "▁b": 1, "▁a": 2}, {"<s>": 0, "▁a": 1, "▁c": 2}])
def test_a_sentencepiece_model_is_compared_with_another_kind_of_file(rows, model, tmp_path):
    models = vocabularies(model)
    with_vocabulary(models[0], tokenizer_dot_model=sentencepiece("<s>", "▁a", "▁b"))
    with_vocabulary(models[1], tokenizer_dot_json={"model": {"vocab": rows}})
    message = refused(models, tmp_path)
    assert "model.embed_tokens.weight: token" in message and "vocabularies differ" in message


def test_the_same_tokens_in_two_kinds_of_files_are_no_obstacle(model, tmp_path):
    models = vocabularies(model)
    with_vocabulary(models[0], tokenizer_dot_model=sentencepiece("<s>", "▁a", "▁b"), added_tokens_dot_json={"<x>": 3})
    added = [{"content": "<x>", "id": 3}, {"content": "<extra>", "id": 4}]
    with_vocabulary(
        models[1], tokenizer_dot_json={"model": {"vocab": {"<s>": 0, "▁a": 1, "▁b": 2}}, "added_tokens": added}
    )
    merge(models, tmp_path / "out", AVERAGE)


def test_two_sentencepiece_models_with_other_pieces_are_refused(model, tmp_path):
    models = vocabularies(model)
    for folder, pieces in zip(models, (("<s>", "▁a"), ("<s>", "▁b")), strict=True):
        with_vocabulary(folder, tokenizer_dot_model=sentencepiece(*pieces))
    assert 'token "▁a" is row 1' in refused(models, tmp_path)


@pytest.mark.parametrize("content", [b"\x0a\xff", b"\x0a\x05\x0a\x09ab", b"\x0b", b"\xff" * 20, b"\x0a\x02\x15\x00"])
def test_a_damaged_sentencepiece_model_is_one_line(content, model, tmp_path):
    models = vocabularies(model)
    with_vocabulary(models[0], tokenizer_dot_model=content)
    with_vocabulary(models[1], tokenizer_dot_model=sentencepiece("<s>"))
    assert "tokenizer.model: not a SentencePiece model, or cut short" in refused(models, tmp_path, ArtifactError)


def deep(model, stored, **config):
    tensors = {f"model.layers.{layer}.norm.weight": [1.0] for layer in range(stored)}
    return model(tensors, config={"model_type": "x", **config})


@pytest.mark.parametrize("said", [3, 5, 100_000])
def test_another_number_of_layers_than_in_the_files_is_refused(said, model, tmp_path):
    models = [deep(model, 4, num_hidden_layers=said)] * 2
    message = refused(models, tmp_path, ArtifactError)
    assert f"model.layers.3 is the last layer in the files, but config.json says {said} layers" in message


def test_layers_for_multi_token_prediction_may_lie_above(model, tmp_path):
    models = [deep(model, 5, num_hidden_layers=4, num_nextn_predict_layers=1) for _ in range(2)]
    merge(models, tmp_path / "out", AVERAGE)


def test_a_plan_of_growth_that_names_layers_of_no_base_is_not_followed(model, tmp_path):
    grown = {"solar": {"layers": [0, 1, 7], "grown_from": {"layers": [0, 0]}}}
    models = [deep(model, 3, num_hidden_layers=3, **grown) for _ in range(2)]
    merge(models, tmp_path / "out", AVERAGE)


@pytest.mark.parametrize("stores_head", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize(("method", "settings"), [("average", {}), ("dare", {"density": 0.5, "seed": 3})])
def test_a_tied_head_stored_a_second_time_is_no_obstacle_and_stays_the_embeddings(
    method, settings, stores_head, model, merged
):
    values = [EMBEDDINGS, 3 * EMBEDDINGS]
    tensors = [
        {"model.embed_tokens.weight": each} | ({"lm_head.weight": each} if stores else {})
        for each, stores in zip(values, stores_head, strict=True)
    ]
    base = None if method == "average" else model({"model.embed_tokens.weight": 0 * EMBEDDINGS}, config=TIED)
    result = merged([model(each, config=TIED) for each in tensors], method, base, **settings)
    result = {"model.embed_tokens.weight": result} if isinstance(result, np.ndarray) else result
    assert ("lm_head.weight" in result) == stores_head[0]
    for weights in result.values():
        np.testing.assert_array_equal(weights, result["model.embed_tokens.weight"])
    if method == "average":
        np.testing.assert_array_equal(result["model.embed_tokens.weight"], 2 * EMBEDDINGS)


def test_a_tied_head_with_other_numbers_is_refused(model, tmp_path):
    both = {"model.embed_tokens.weight": EMBEDDINGS, "lm_head.weight": EMBEDDINGS + 1}
    assert "the files hold different numbers" in refused([model(both, config=TIED)] * 2, tmp_path, ArtifactError)


@pytest.mark.parametrize("which", [0, 1])
def test_rotary_buffers_that_one_model_stores_are_no_obstacle(which, model, tmp_path):
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": [1.0, 0.01]}
    plain = {"model.layers.0.w": [2.0]}
    models = [model(plain | (buffer if place == which else {})) for place in range(2)]
    merge(models, tmp_path / "out", AVERAGE)
    result = read_model(tmp_path / "out")
    assert len(result) == (2 if which == 0 else 1) and result["model.layers.0.w"].tolist() == [2.0]
    if which == 0:
        assert result["model.layers.0.self_attn.rotary_emb.inv_freq"].tolist() == pytest.approx([1.0, 0.01])


def test_quantised_models_are_refused_with_the_way_out(model, tmp_path):
    models = [model({"a": [1.0]}, config={"quantization_config": {"quant_method": "fp8"}}) for _ in range(2)]
    assert "quantised with fp8; dequantise first: python -m solar.grow convert" in refused(
        models, tmp_path, ArtifactError
    )


VERSION_4 = [
    {
        **{"model_type": "qwen2", "max_window_layers": 21, "sliding_window": 32768, "use_sliding_window": False},
        **{"rope_theta": 1e6, "torch_dtype": "bfloat16", "tie_word_embeddings": True, "attention_dropout": 0.0},
    },
    {
        **{"model_type": "llama", "head_dim": 64, "pretraining_tp": 1, "rope_theta": 5e5},
        "rope_scaling": {
            **{"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3"},
            "original_max_position_embeddings": 8192,
        },
    },
    {"model_type": "mistral", "sliding_window": 4096, "rope_theta": 1e4, "num_key_value_heads": 8},
    {"model_type": "gemma2", "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid", "rope_theta": 1e4},
    {"model_type": "granite", "embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22},
    {"model_type": "gpt2", "n_ctx": 1024, "task_specific_params": {"text-generation": {"do_sample": True}}},
]


@pytest.mark.parametrize("config", VERSION_4, ids=lambda config: config["model_type"])
def test_a_configuration_of_version_4_equals_what_version_5_makes_of_it(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "5")
    assert differing_key(config, json.loads((tmp_path / "5" / "config.json").read_text())) is None
