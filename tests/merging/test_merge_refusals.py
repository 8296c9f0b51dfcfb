"""Models that must not be merged, and what the user is told: always the tensor's name."""

import json

import numpy as np
import pytest
from small_models import write_model

from solar.config.merging import MergeConfig, MergeMethod
from solar.errors import ArtifactError, ConfigError, StageError
from solar.merging.merge import merge


def refused(models, tmp_path, error=StageError, base=None, **settings) -> str:
    """The message of the refusal; nothing may be left."""
    before = sorted(tmp_path.iterdir())
    names = [str(each) for each in models]
    config = MergeConfig("merge", names, **{"method": MergeMethod.average, **settings})
    with pytest.raises(error) as refusal:
        merge(models, tmp_path / "out", config, base)
    assert sorted(tmp_path.iterdir()) == before
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


LAYER = "model.layers.{}.mlp.up_proj.weight"


def test_a_tensor_only_one_has(model, tmp_path):
    message = refused([model({"a": [1.0], "b": [1.0]}), model({"a": [1.0]})], tmp_path)
    assert "b is there" in message
    assert "missing" in message


def test_other_depths(model, tmp_path):
    models = [model({LAYER.format(i): [1.0] for i in range(layers)}) for layers in (2, 3)]
    assert LAYER.format(2) in refused(models, tmp_path)


def test_other_shapes(model, tmp_path):
    message = refused([model({"a": [[1.0, 2.0]]}), model({"a": [[1.0], [2.0]]})], tmp_path)
    assert "a is [1, 2]" in message
    assert "[2, 1]" in message


@pytest.mark.parametrize("other", ["F16", "BF16"])
def test_other_dtypes(model, tmp_path, other):
    models = [model({"a": [1]}), model({"a": [1]}, other)]
    message = refused(models, tmp_path)
    assert message.startswith(f"a is F32 in {models[0]}, {other} in {models[1]}; convert")


def test_vocabularies_of_other_sizes(model, tmp_path):
    models = [model({"model.embed_tokens.weight": np.ones((n, 2))}, config={"vocab_size": n}) for n in (3, 4)]
    message = refused(models, tmp_path)
    assert "model.embed_tokens.weight is [3, 2]" in message
    assert "vocabularies differ" in message


def test_vocabularies_of_one_size_with_other_tokens(model, tmp_path):
    models = [model({"model.embed_tokens.weight": np.ones((3, 2))}, config={"vocab_size": 3}) for _ in range(2)]
    for folder, row in zip(models, (1, 2), strict=True):
        added = [{"content": "<end>", "id": row}]
        tokenizer = {"model": {"vocab": {"a": 0}}, "added_tokens": added}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    message = refused(models, tmp_path)
    assert 'model.embed_tokens.weight: token "<end>" is row 1' in message


def test_vocabularies_of_slow_tokenizers_with_other_tokens(model, tmp_path):
    models = [model({"wte.weight": np.ones((2, 2))}, config={"vocab_size": 2}) for _ in range(2)]
    for folder, words in zip(models, ("ab", "ba"), strict=True):
        (folder / "vocab.json").write_text(json.dumps({word: row for row, word in enumerate(words)}))
    assert 'wte.weight: token "a" is row 0' in refused(models, tmp_path)


def test_the_same_tokens_written_otherwise_are_no_obstacle(model, tmp_path):
    models = [model({"a": [1.0]}) for _ in range(2)]
    (models[0] / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 1}}}')
    (models[1] / "tokenizer.json").write_text('{"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}')
    merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))


def test_one_tied_one_untied_by_configuration(model, tmp_path):
    tensors = {"lm_head.weight": [[1.0]]}
    models = [model(tensors, config={"tie_word_embeddings": tied}) for tied in (True, False)]
    assert "lm_head.weight is tied and stored" in refused(models, tmp_path)


def test_one_tied_one_untied_by_its_tensors(model, tmp_path):
    models = [model({"e": [[1.0]]}), model({"e": [[1.0]], "lm_head.weight": [[1.0]]})]
    message = refused(models, tmp_path)
    assert "lm_head.weight" in message
    assert "not stored" in message


def test_models_grown_by_other_plans(model, tmp_path):
    tensors = {LAYER.format(i): [1.0] for i in range(4)}
    models = [model(tensors, config={"solar": {"layers": plan}}) for plan in ([0, 1, 0, 1], [0, 0, 1, 1])]
    message = refused(models, tmp_path)
    assert f"{LAYER.format(1)} is grown from layer 1" in message
    assert "from layer 0" in message


def test_models_grown_by_one_plan_can_be_merged(model, tmp_path):
    models = [model({"a": [1.0]}, config={"solar": {"layers": [0, 0]}}) for _ in range(2)]
    merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))


def test_other_architectures(model, tmp_path):
    models = [model({"a": [1.0]}, config={"model_type": kind}) for kind in ("llama", "qwen2")]
    assert "model_type is llama" in refused(models, tmp_path)


ROPE_5 = {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (ROPE_5, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta is 10000.0"),
        (ROPE_5, {"rope_theta": 5e5}, "rope_theta is 10000.0"),
        ({"rope_theta": 1e4}, {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2}}, "rope_type is def"),
        ({"text_config": {"hidden_act": "silu"}}, {"text_config": {"hidden_act": "gelu"}}, "hidden_act is silu"),
        ({"n_head": 4}, {"n_head": 8}, "n_head is 4"),
        ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-05"),
    ],
)
def test_configurations_that_compute_something_else(model, tmp_path, first, second, said):
    models = [model({"a": [1.0]}, config={"model_type": "x", **config}) for config in (first, second)]
    assert f"config.json: {said}" in refused(models, tmp_path)


@pytest.mark.parametrize(
    "second", [{"rope_theta": 10000, "rope_scaling": None}, {}, {**ROPE_5, "eos_token_id": 7, "use_cache": False}]
)
def test_the_same_function_said_otherwise_is_no_obstacle(model, tmp_path, second):
    """transformers 4 and 5 write rotary embeddings differently."""
    models = [model({"a": [1.0]}, config={"model_type": "x", **config}) for config in (ROPE_5, second)]
    merge(models, tmp_path / "out", MergeConfig("merge", ["a", "b"], MergeMethod.average))


def test_a_base_that_does_not_fit(model, tmp_path):
    models, base = [model({"a": [1.0]}), model({"a": [2.0]})], model({"a": [1.0, 2.0]})
    message = refused(models, tmp_path, base=base, method=MergeMethod.task_arithmetic)
    assert "a is [2]" in message


def test_formats_that_have_no_mean(model, tmp_path):
    assert "a is F64" in refused([model({"a": [1.0]}, "F64")] * 2, tmp_path)


def test_whole_numbers_that_differ(model, tmp_path):
    assert "ids: I64 differs" in refused([model({"ids": [1]}, "I64"), model({"ids": [2]}, "I64")], tmp_path)


@pytest.mark.parametrize(("dtype", "bad"), [("F32", np.nan), ("F32", np.inf), ("F16", -np.inf), ("BF16", 0x7FC0)])
def test_weights_that_are_not_finite(model, tmp_path, dtype, bad):
    models = [model({"good": [1], "bad": [1, 1]}, dtype), model({"good": [1], "bad": [1, bad]}, dtype)]
    assert refused(models, tmp_path).startswith(f"bad: found NaN or infinity in {models[1]}")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("slerp", {"t": 0.0}),
        ("task_arithmetic", {}),
        ("ties", {"density": 0.1}),
        ("dare", {"density": 0.001, "seed": 0}),
        ("dare_ties", {"density": 0.001, "seed": 0}),
        ("model_stock", {}),
    ],
)
@pytest.mark.parametrize("place", ["base", "model"])
def test_no_method_drops_what_is_not_finite(model, tmp_path, method, settings, place, bad):
    """Thinned out, or the whole tensor left at its base, the model's fault would not show in the merge."""
    rotten = model({"w": [*np.ones(50), bad]})
    whole = [model({"w": np.arange(51.0) + i}) for i in range(2)]
    base = None if method == "slerp" else rotten if place == "base" else whole.pop()
    models = whole if place == "base" and method != "slerp" else [whole[0], rotten]
    message = refused(models, tmp_path, base=base, method=MergeMethod(method), **settings)
    assert message == f"w: found NaN or infinity in {rotten}, expected finite weights"


def test_a_result_too_large_for_its_format(model, tmp_path):
    models, base = [model({"a": [60000.0]}, "F16")], model({"a": [0.0]}, "F16")
    message = refused(models, tmp_path, base=base, method=MergeMethod.task_arithmetic, scale=2.0)
    assert message.startswith("a: found numbers too large for F16")


def test_numbers_that_do_not_fit_the_method(model, tmp_path):
    models = [model({"a": [1.0]}) for _ in range(3)]
    assert "expected two for slerp" in refused(models, tmp_path, ConfigError, method=MergeMethod.slerp, t=0.5)
    assert "weights: found 2 for 3 models" in refused(models, tmp_path, ConfigError, weights=[0.5, 0.5])
    assert "base: not set" in refused(models, tmp_path, ConfigError, method=MergeMethod.ties, density=0.2)
    assert "t: found 0.5, but average takes only weights" in refused(models, tmp_path, ConfigError, t=0.5)
    assert "expected a finite sum" in refused(models, tmp_path, ConfigError, weights=[1e308, 1e308, 1.0])
    ties = {"method": MergeMethod.ties, "base": tmp_path}
    assert "density: not set" in refused(models, tmp_path, ConfigError, **ties)
    assert "densities: found 2 for 3" in refused(models, tmp_path, ConfigError, **ties, densities=[0.5, 0.5])
    both = {"density": 0.5, "densities": [0.5] * 3}
    assert "density: found beside densities" in refused(models, tmp_path, ConfigError, **ties, **both)
    assert "density: found 0.0" in refused(models, tmp_path, ConfigError, **ties, densities=[0.0, 1.0, 1.0])


def test_a_file_that_was_cut_short(model, tmp_path):
    models = [model({"a": np.ones(100)}) for _ in range(2)]
    file = models[1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert str(file) in refused(models, tmp_path, ArtifactError)


def test_an_index_that_does_not_fit_its_files(tmp_path):
    folder = write_model(tmp_path / "a", {"x.safetensors": {"u": [1.0]}, "y.safetensors": {"v": [1.0]}})
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"u": "y.safetensors", "v": "y.safetensors"}}')
    assert "u: not in y.safetensors, where the index says it is" in refused([folder] * 2, tmp_path, ArtifactError)


def test_an_index_that_points_outside_its_folder(tmp_path):
    folder = write_model(tmp_path / "a", {"x.safetensors": {"u": [1.0]}})
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"u": "../b.safetensors"}}')
    assert "'../b.safetensors' found, expected a plain name in this folder" in refused(
        [folder] * 2, tmp_path, ArtifactError
    )


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert "found neither model.safetensors nor model.safetensors.index.json" in refused(
        [tmp_path / "empty"] * 2, tmp_path, ArtifactError
    )


def test_a_folder_that_is_not_there(tmp_path):
    assert "nowhere: no such folder, expected a Hugging Face" in refused(
        [tmp_path / "nowhere"] * 2, tmp_path, ArtifactError
    )


def test_an_adapter_in_place_of_a_model(model, tmp_path):
    adapter = model({"a": [1.0]})
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text("{}")
    message = refused([model({"a": [1.0]}), adapter], tmp_path, ArtifactError)
    assert message.startswith(f"{adapter}: holds an adapter, expected a whole model")


def test_a_target_that_exists_is_never_touched(model, tmp_path):
    models = [model({"a": [1.0]}) for _ in range(2)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("kept")
    assert "exists" in refused(models, tmp_path, ArtifactError)
    assert (tmp_path / "out" / "precious").read_text() == "kept"
