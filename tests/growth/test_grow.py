"""Growth on disk: bytes, files, links, provenance, publication, verification."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from solar.config.growth_plan import GrowthPlan, Init, PlanName, SeamInit, WeightDtype
from solar.errors import ArtifactError, PlanError, SolarError
from solar.growth import grow as growing
from solar.growth.files.verify import Verify, check_files
from solar.growth.files.writer import Link, write_shards
from solar.growth.grow import grow
from solar.growth.job import work_out
from solar.growth.plans import LayerPlan
from solar.weights.folder import open_folder
from solar.weights.json_file import write_json

DUS = GrowthPlan(PlanName.dus, m=2)
SOURCES = [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]


def weights(folder):
    """All tensors of a folder, read by the official reader."""
    return {name: one for path in sorted(folder.glob("*.safetensors")) for name, one in load_file(path).items()}


@pytest.fixture
def sharded(tiny, tmp_path):
    """The tiny llama in shards of a few tensors, with the files that travel along."""
    folder = tmp_path / "sharded"
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama"))
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "LICENSE").write_text("free")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "README.md").write_text("about the base")
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    return folder


def reordered(base, sources):
    """A base's tensors by hand: those outside the layers, and each layer under its new numbers."""
    expected = {name: one for name, one in base.items() if ".layers." not in name}
    for position, source in enumerate(sources):
        old, new = f"model.layers.{source}.", f"model.layers.{position}."
        expected |= {name.replace(old, new): one for name, one in base.items() if name.startswith(old)}
    return expected


@pytest.mark.parametrize("max_shard_bytes", [None, 30_000, 1])
@pytest.mark.parametrize("link", list(Link))
def test_every_tensor_is_its_sources_bit_for_bit(link, max_shard_bytes, sharded, tmp_path):
    """T-B5."""
    report = grow(sharded, tmp_path / "out", DUS, link=link, max_shard_bytes=max_shard_bytes)
    expected, grown = reordered(weights(sharded), SOURCES), weights(tmp_path / "out")
    assert grown.keys() == expected.keys()
    assert all(torch.equal(grown[name], expected[name]) for name in expected)
    assert report.parameters == sum(one.numel() for one in expected.values())


@pytest.mark.parametrize("sources", [[0, 1, 2, 3, 1, 3, 7], [7, 0, 7, 0, 7], [5], [0, 2, 4, 6]])
def test_ranges_with_gaps_between_them_are_not_joined(sources, tiny, tmp_path):
    plan = GrowthPlan(PlanName.explicit, layers=sources)
    grow(tiny("llama"), tmp_path / "out", plan, verify=Verify.none)
    expected, grown = reordered(weights(tiny("llama")), sources), weights(tmp_path / "out")
    assert grown.keys() == expected.keys()
    assert all(torch.equal(grown[name], expected[name]) for name in expected)


def test_two_files_have_an_index_as_more_have(tiny, tmp_path):
    base = weights(tiny("llama"))
    whole = sum(tensor.nbytes for tensor in reordered(base, SOURCES).values())
    grow(tiny("llama"), tmp_path / "out", DUS, max_shard_bytes=round(0.6 * whole))
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 2 and index["metadata"]["total_size"] == whole
    assert index["weight_map"].keys() == reordered(base, SOURCES).keys()


def test_files_that_equal_the_bases_are_links_only_when_asked_for(sharded, tmp_path):
    linked = grow(sharded, tmp_path / "linked", DUS, link=Link.auto)
    copied = grow(sharded, tmp_path / "copied", DUS, link=Link.never)
    assert linked.linked_bytes > 0 and copied.linked_bytes == 0
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "copied").iterdir())
    for name, one in weights(tmp_path / "copied").items():
        assert torch.equal(one, weights(tmp_path / "linked")[name])


def test_the_result_does_not_depend_on_threads(sharded, tmp_path):
    """T-G1."""
    for threads in (1, 4):
        grow(sharded, tmp_path / str(threads), DUS, threads=threads, max_shard_bytes=30_000)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / str(threads)).iterdir()} for threads in (1, 4)
    )
    assert first == second


def test_what_a_model_needs_travels_along_and_nothing_else(sharded, tmp_path):
    grow(sharded, tmp_path / "out", DUS)
    others = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"}
    needed = {"config.json", "generation_config.json", "chat_template.jinja", "tokenizer_config.json", "LICENSE"}
    assert others == needed | {"model.safetensors.index.json"}


def test_provenance_survives_transformers(sharded, tmp_path):
    grow(sharded, tmp_path / "out", DUS)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model.save_pretrained(tmp_path / "again")
    for folder in ("out", "again"):
        said = json.loads((tmp_path / folder / "config.json").read_text())["solar"]
        assert said["layers"] == SOURCES and said["new"] == [6, 7, 8, 9] and said["seams"] == [[6, 5, 2]]
        assert (said["plan"], said["m"], said["base_layers"], said["init"]) == ("dus", 2, 8, "copy")


def test_a_grown_model_grows_again_and_remembers_both(sharded, tmp_path):
    grow(sharded, tmp_path / "once", DUS)
    grow(tmp_path / "once", tmp_path / "twice", GrowthPlan(PlanName.stack, times=2), verify=Verify.bytes)
    said = json.loads((tmp_path / "twice" / "config.json").read_text())["solar"]
    assert said["base_layers"] == 12 and said["grown_from"]["layers"] == SOURCES


def test_half_dropped_is_the_base_again(tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "out", GrowthPlan(PlanName.dus, m=4))
    base, grown = weights(tiny("llama")), weights(tmp_path / "out")
    assert base.keys() == grown.keys() and all(torch.equal(base[name], grown[name]) for name in base)


def test_the_base_is_left_as_it_was(sharded, tmp_path):
    """T-E10."""
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sharded.iterdir()}
    grow(sharded, tmp_path / "out", DUS, link=Link.auto)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sharded.iterdir()}


def test_a_target_that_exists_is_refused_and_kept(sharded, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(ArtifactError, match="exists already"):
        grow(sharded, tmp_path / "out", DUS)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="exists already"):
        grow(sharded, tmp_path / "link", DUS)
    assert (tmp_path / "out" / "mine").read_text() == "keep"


def test_a_target_inside_the_base_is_refused(sharded):
    with pytest.raises(ArtifactError, match="inside"):
        grow(sharded, sharded / "out", DUS)
    assert not (sharded / "out").exists()


def test_an_error_while_writing_leaves_nothing(sharded, tmp_path, monkeypatch):
    monkeypatch.setattr(growing, "write_shards", lambda *parts: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(ArtifactError, match="No space left"):
        grow(sharded, tmp_path / "new" / "out", DUS)
    assert not [*(tmp_path / "new").iterdir()]


@pytest.fixture
def checked(tiny, tmp_path):
    """The tiny llama, grown by DUS and checked again: `change(tensors)` before, with other ranges if given."""
    job = work_out(tiny("llama"), DUS)
    (tmp_path / "out").mkdir()
    written = write_shards(job.shards, tmp_path / "out", Link.never, threads=1)
    write_json(tmp_path / "out" / "config.json", job.config)
    path = tmp_path / "out" / "model.safetensors"

    def check(change=lambda tensors: None, ranges=None):
        tensors = load_file(path)
        change(tensors)
        if tensors.keys() != job.recipes.keys():
            save_file(tensors, path)
        check_files(path.parent, job.base, job.decoder, job.layers, job.recipes, ranges or written)

    return check, written


def test_verification_finds_a_wrong_name_and_a_lost_tensor(checked):
    check, _ = checked
    check()
    name = "model.layers.9.mlp.up_proj.weight"
    with pytest.raises(ArtifactError, match=r"layers\.12\.x: present in only one"):
        check(lambda tensors: tensors.update({"model.layers.12.x": tensors[name].clone()}))
    with pytest.raises(ArtifactError, match=r"layers\.9\.mlp\.up_proj\.weight: present in only one"):
        check(lambda tensors: (tensors.pop(name), tensors.pop("model.layers.12.x")))


@pytest.mark.parametrize("shift", [{"source_start": 4}, {"nbytes": -4}, {"source": Path("another")}, {"start": 4}])
def test_verification_finds_bytes_that_are_another_places(shift, checked):
    """Every tensor must lie in a range that was read back, where its source lies in the source's."""
    check, written = checked
    *others, last = written["model.safetensors"]
    moved = {key: by if key == "source" else getattr(last, key) + by for key, by in shift.items()}
    with pytest.raises(ArtifactError, match="its bytes are not those that were copied from"):
        check(ranges={"model.safetensors": [*others, dataclasses.replace(last, **moved)]})
    with pytest.raises(ArtifactError, match="its bytes are not those that were copied from"):
        check(ranges={"model.safetensors": others})


@pytest.mark.parametrize("growth", [DUS, GrowthPlan(PlanName.dus, m=2, dtype=WeightDtype.float16)])
def test_one_bit_that_arrives_wrong_is_found_and_nothing_is_kept(growth, tiny, tmp_path, monkeypatch):
    """The last bit of everything written, copied or converted, of a disk that turns it over."""
    honest = os.pwrite

    def pwrite(target, content, offset):
        bad = bytearray(content)
        bad[-1] ^= 1
        return honest(target, bad if len(content) > 1000 and offset > 20_000 else content, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(ArtifactError, match="does not read back"):
        grow(tiny("llama"), tmp_path / "out", growth, verify=Verify.bytes)
    assert not [*tmp_path.iterdir()]


def test_a_failed_verification_removes_the_result(tiny, tmp_path, monkeypatch):
    def judge(*parts):
        raise ArtifactError("logits differ")

    monkeypatch.setattr(growing, "ask", judge)
    with pytest.raises(ArtifactError, match="logits differ"):
        grow(tiny("llama"), tmp_path / "out", DUS, verify=Verify.logits)
    assert not [*tmp_path.iterdir()]


def test_small_models_of_unproven_families_are_verified_by_logits(tiny, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config |= {"model_type": "iquestcoder", "architectures": None}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    assert grow(tiny("llama"), tmp_path / "proven", DUS).verified is Verify.bytes
    assert grow(tmp_path / "base", tmp_path / "unproven", DUS).verified is Verify.logits


def test_a_base_whose_config_chooses_code_is_refused_and_nothing_is_left(tiny, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"config\.json: auto_map asks to run code"):
        grow(tmp_path / "base", tmp_path / "out", DUS)
    assert not (tmp_path / "out").exists()


def test_layers_above_the_decoder_are_left_out_and_told(tiny, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors |= {
        name.replace("layers.7.", "layers.8."): one.clone() for name, one in tensors.items() if "layers.7." in name
    }
    save_file(tensors, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    with pytest.raises(PlanError, match="above the 8 layers"):
        grow(tmp_path / "base", tmp_path / "out", DUS)
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    report = grow(tmp_path / "base", tmp_path / "out", DUS)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_nextn_predict_layers"] == 0
    assert any("multi-token prediction" in note for note in report.notes)
    assert report.parameters == sum(one.numel() for one in weights(tmp_path / "out").values())


def test_zero_out_keeps_the_stored_dtype_and_silences_only_new_layers(tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "out", GrowthPlan(PlanName.dus, m=2, init=Init.zero_out))
    grown = weights(tmp_path / "out")
    silent = {name for name, one in grown.items() if not one.any()}
    assert silent == {
        f"model.layers.{k}.{name}.weight" for k in (6, 7, 8, 9) for name in ("self_attn.o_proj", "mlp.down_proj")
    }


def test_mean_is_the_mean_of_a_layer_and_the_one_after_it(tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "out", GrowthPlan(PlanName.interleave, every=4, init=Init.mean))
    base, grown = weights(tiny("llama")), weights(tmp_path / "out")
    name = "mlp.up_proj.weight"
    expected = (base[f"model.layers.3.{name}"].double() + base[f"model.layers.4.{name}"].double()) / 2
    assert torch.equal(grown[f"model.layers.4.{name}"], expected.float())
    assert torch.equal(grown[f"model.layers.9.{name}"], base[f"model.layers.7.{name}"]), "nothing comes after the last"


def test_noise_has_its_size_its_seed_and_its_place(tiny, tmp_path):
    grown = {}
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        plan = GrowthPlan(PlanName.dus, m=2, init=Init.noise, noise_std=0.1, seed=seed)
        grow(tiny("llama"), tmp_path / out, plan)
        grown[out] = weights(tmp_path / out)
    base, name = weights(tiny("llama")), "mlp.up_proj.weight"
    assert all(torch.equal(grown["a"][key], grown["b"][key]) for key in grown["a"])
    assert not torch.equal(grown["a"][f"model.layers.6.{name}"], grown["c"][f"model.layers.6.{name}"])
    assert torch.equal(grown["a"][f"model.layers.5.{name}"], base[f"model.layers.5.{name}"])
    noise = grown["a"][f"model.layers.6.{name}"] - base[f"model.layers.2.{name}"]
    other = grown["a"]["model.layers.6.mlp.gate_proj.weight"] - base["model.layers.2.mlp.gate_proj.weight"]
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]) < 0.2  # no two tensors share it
    assert noise.std() / base[f"model.layers.2.{name}"].square().mean().sqrt() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("dtype", list(WeightDtype))
def test_another_number_format_rounds_as_torch_does(dtype, tiny, tmp_path):
    grow(tiny("llama"), tmp_path / "out", GrowthPlan(PlanName.dus, m=2, dtype=dtype))
    base, grown = weights(tiny("llama")), weights(tmp_path / "out")
    expected = getattr(torch, dtype.value)
    assert {one.dtype for one in grown.values()} == {expected}
    assert torch.equal(
        grown["model.layers.7.mlp.up_proj.weight"], base["model.layers.3.mlp.up_proj.weight"].to(expected)
    )
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype.value


def test_a_float_stored_wider_than_most_keeps_its_format_and_bits(tiny, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny("llama"), base)
    name = "model.layers.{}.input_layernorm.weight"
    tensors = {key: tensor.half() for key, tensor in load_file(base / "model.safetensors").items()}
    wide = torch.linspace(0.123, 0.124, len(tensors[name.format(0)]))
    tensors |= {name.format(layer): wide + layer for layer in range(8)}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    grow(base, tmp_path / "out", GrowthPlan(PlanName.dus, m=2, dtype=WeightDtype.bfloat16), verify=Verify.bytes)
    grown = weights(tmp_path / "out")
    for position, source in enumerate(SOURCES):
        stored = grown[name.format(position)]
        assert stored.dtype is torch.float32 and torch.equal(stored, wide + source)
    assert {tensor.dtype for key, tensor in grown.items() if "input_layernorm" not in key} == {torch.bfloat16}


def test_a_number_too_large_for_float16_is_refused_by_its_tensor_and_nothing_is_left(tiny, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny("llama"), base)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"model\.layers\.1\.mlp\.up_proj\.weight: 1e\+05 found, too large for F16"):
        grow(base, tmp_path / "out", GrowthPlan(PlanName.dus, m=2, dtype=WeightDtype.float16))
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_seam_to_be_matched_needs_a_measurement(tiny, tmp_path):
    plan = GrowthPlan(PlanName.dus, m=2, seam=SeamInit.rms_match)
    with pytest.raises(PlanError, match="nothing was measured"):
        grow(tiny("llama"), tmp_path / "out", plan)


def test_a_plan_made_for_another_depth_is_refused(tiny, tmp_path):
    with pytest.raises(PlanError, match="made for 4 layers, but"):
        grow(tiny("llama"), tmp_path / "out", LayerPlan(4, (0, 1, 1, 2, 3)))


def test_the_real_processes_answer(tiny, tmp_path):
    """qwen3's derived lists, gpt2's writers and the oracle, each in a process of its own."""
    grow(tiny("qwen3"), tmp_path / "a", DUS, verify=Verify.logits)
    grow(
        tiny("gpt2"), tmp_path / "b", GrowthPlan(PlanName.interleave, every=4, init=Init.zero_out), verify=Verify.logits
    )
    assert open_folder(tmp_path / "a").config["layer_types"] == ["full_attention"] * 12


def test_growing_brings_neither_torch_nor_transformers(tiny, tmp_path):
    code = (
        "import sys; from solar.grow import main; "
        "assert main(sys.argv[1:]) == 0; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    words = [str(tiny("llama")), str(tmp_path / "out"), "m=2", "verify=bytes", "link=never"]
    assert subprocess.run([sys.executable, "-c", code, *words], capture_output=True).returncode == 0


@pytest.mark.parametrize("missing", ["model.norm.weight", "lm_head.weight"])
def test_a_llama_without_one_of_its_tensors_is_not_grown(tiny, tmp_path, missing):
    base = shutil.copytree(tiny("llama"), tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != missing}, base / "model.safetensors")
    with pytest.raises(SolarError, match=missing.replace(".", "[.]")):
        grow(base, tmp_path / "out", GrowthPlan(PlanName.dus, m=1))
    assert not (tmp_path / "out").exists()


def test_a_missing_head_of_another_family_is_found_by_loading(tiny, tmp_path):
    base = shutil.copytree(tiny("qwen2"), tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    tensors = load_file(base / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if n != "lm_head.weight"}, base / "model.safetensors", {"format": "pt"})
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(SolarError, match=r"lm_head\.weight"):
        grow(base, tmp_path / "out", GrowthPlan(PlanName.dus, m=1))
    assert not (tmp_path / "out").exists()
