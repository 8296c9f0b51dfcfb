"""JSON files of a model folder: limits, and keys that choose code."""

import os

import pytest

from solar.errors import ArtifactError
from solar.weights import json_file
from solar.weights.json_file import code_keys, huge_counts, read_json, write_json


def nested(levels):
    return '{"a":' * levels + "{}" + "}" * levels


def test_a_hundred_levels_are_read_and_one_more_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(nested(99))
    read_json(path)
    path.write_text(nested(100))
    with pytest.raises(ArtifactError, match=r"config\.json: nested more than 100 deep"):
        read_json(path)


@pytest.mark.parametrize("text", [nested(100_000), "[" * 100_000])
def test_nesting_beyond_the_parsers_stack_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match="not valid JSON") as refusal:
        read_json(tmp_path / "config.json")
    assert "\n" not in str(refusal.value)


def test_a_file_larger_than_the_limit_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    (tmp_path / "a.json").write_text('{"a": 1}  ')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text('{"a": 1}   ')
    with pytest.raises(ArtifactError, match="11 bytes found, expected at most 10"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(("text", "reason"), [("[1]", "list found"), ("3", "int found"), ("{", "not valid JSON")])
def test_what_is_no_object_is_refused(text, reason, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArtifactError, match=reason):
        read_json(tmp_path / "a.json")


def test_a_pipe_and_a_device_are_refused_and_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("/dev/zero")
    for name in ("a.json", "b.json"):
        with pytest.raises(ArtifactError, match=rf"{name}: not a regular file"):
            read_json(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"gone\.json: no such file"):
        read_json(tmp_path / "gone.json")


def test_text_is_written_as_it_is_and_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"end": "</s> Ω"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "end": "</s> Ω"\n}\n'
    assert read_json(tmp_path / "a.json") == {"end": "</s> Ω"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModel": "modeling.M"}),
        ("trust_remote_code", True),
        ("attn_implementation", "owner/kernel"),
        ("attn_implementation", {"text_config": "owner/kernel"}),
        ("_attn_implementation", "owner/kernel@v1"),
        ("_attn_implementation", "paged|owner/kernel"),
        ("_attn_implementation_internal", "sdpa"),
        ("experts_implementation", "owner/kernel"),
        ("custom_pipelines", {"text-generation": {"impl": "a.B"}}),
        ("custom_generate", "owner/code"),
        ("kernel_config", {"RMSNorm": "owner/kernel:Norm"}),
    ],
)
@pytest.mark.parametrize("levels", [0, 1, 5])
def test_keys_that_choose_code_are_found_at_every_depth(key, value, levels):
    config, path = {key: value, "n": 1}, key
    for _ in range(levels):
        config, path = {"inner": [0, config]}, f"inner.1.{path}"
    assert code_keys(config) == [path]


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "sdpa"},
        {"_attn_implementation": None},
        {"attn_implementation": {"text_config": "eager"}},
        {"map": "a/b"},
        {"auto_map": {}},
        {"trust_remote_code": False},
    ],
)
def test_keys_that_choose_none_are_none(config):
    assert code_keys(config) == []


def test_a_file_of_too_many_values_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('{"a": [[],[],[]]}')  # one object, four lists, two commas
    assert read_json(tmp_path / "a.json", most_values=7) == {"a": [[], [], []]}
    monkeypatch.setattr(json_file.json, "loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(ArtifactError, match=r"7 values found, expected at most 6"):
        read_json(tmp_path / "a.json", most_values=6)


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_local_experts", "num_labels", "depths"])
def test_counts_beyond_every_model_are_found_at_every_depth(key):
    config = {"vision_config": [{key: 100_001, "vocab_size": 10**12, "layer_norm_eps": 1e30}]}
    assert list(huge_counts(config)) == [(f"vision_config.{key}", 100_001)]
    assert list(huge_counts({key: 100_000})) == [] and list(huge_counts({key: 100}, most=99)) == [(key, 100)]
    assert list(huge_counts({key: [1, 100_001]})) == [(key, 100_001)]
