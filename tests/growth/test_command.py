"""`python -m solar.grow` and `convert`."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from solar.config.growth_plan import Init, PlanName
from solar.errors import ConfigError
from solar.grow import main, parse

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_m_alone_means_dus_and_every_alone_means_interleave():
    assert parse(["m=8"]).plan is PlanName.dus
    assert parse(["every=4", "init=zero_out"]).plan is PlanName.interleave
    assert parse(["slices=[[0,24],[8,32]]"]).slices == [[0, 24], [8, 32]]
    assert parse(["init=zero_out", "m=1"]).init is Init.zero_out
    assert parse(["m_fraction=0.25", "m=null"]).m_fraction == 0.25
    assert parse(["m=2", "dry_run=true", "text=a=b"]).text == Path("a=b")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mm=8"], "mm: no such option; did you mean 'm'?"),
        (["m"], "m: found a word without '='"),
        (["m=eight"], "m: found eight, expected a whole number"),
        (["m=1.5"], "m: found 1.5, expected a whole number"),
        (["m=true"], "m: found true, expected a whole number"),
        (["m_fraction=x"], "m_fraction: found x, expected a number"),
        (["layers=[0,x]"], "layers: found [0,x], expected a list of whole numbers"),
        (["slices=[0,1]"], "slices: found [0,1], expected a list of ranges"),
        (["dry_run=yes"], "dry_run: found yes, expected true or false"),
        (["plan=dsu"], "plan: found dsu, expected one of dus, stack"),
        (["link=maybe"], "link: found maybe, expected one of auto, never"),
    ],
)
def test_a_word_that_is_no_option_is_refused(words, said):
    with pytest.raises(ConfigError) as error:
        parse(words)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_growing_prints_plan_seam_sizes_and_the_verification(tiny, tmp_path, capsys):
    assert main([str(tiny("llama")), str(tmp_path / "out"), "m=2"]) == 0
    said = capsys.readouterr().out
    assert "8 -> 12 layers: 0-5, 2-7; 4 new; seam 5|2 at 6 (distance 3)" in said
    assert "verified: bytes" in said and "parameters" in said and "MB" in said
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").num_hidden_layers == 12


def test_a_dry_run_writes_nothing(tiny, tmp_path, capsys):
    """T-D6."""
    assert main([str(tiny("llama")), str(tmp_path / "out"), "m=2", "dry_run=true"]) == 0
    assert "nothing written" in capsys.readouterr().out and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m=9"], "error: m: 9 found, expected 0..4 (half of the base's 8 layers); choose a smaller m\n"),
        (["times=2"], "error: plan: not set, expected one of dus, stack, "),
        (["m=2", "seam=rms_match"], "error: text: not set, but seam rms_match measures on it; give text=FILE\n"),
        (["m=2", "threads=0"], "error: threads: found 0, expected at least 1\n"),
        (["m=2", "max_shard_bytes=0"], "error: max_shard_bytes: found 0, expected at least 1\n"),
        (["m=2", "init=noise"], "error: noise_std: not set, but init noise needs it\n"),
    ],
)
def test_a_refusal_is_one_line_and_status_1_and_leaves_nothing(words, said, tiny, tmp_path, capsys):
    assert main([str(tiny("llama")), str(tmp_path / "out"), *words]) == 1
    assert capsys.readouterr().err.startswith(said) and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--help"], 0)])
def test_help_is_the_modules_own_words_and_every_option(words, status, capsys):
    assert main(words) == status
    said = capsys.readouterr().out
    assert (
        "python -m solar.grow BASE OUT m=8" in said and "  dry_run=false            Say what would be written" in said
    )


def test_folders_may_hold_an_equals_sign(tiny, tmp_path, capsys):
    (tmp_path / "lr=1").symlink_to(tiny("llama"))
    assert main([f"{tmp_path}/lr=1", f"{tmp_path}/m=2", "m=2"]) == 0, capsys.readouterr().err
    assert transformers.AutoConfig.from_pretrained(tmp_path / "m=2").num_hidden_layers == 12
    assert main(["lr=1/base", str(tmp_path / "out"), "m=2"]) == 1
    assert "lr: no such option" in (said := capsys.readouterr().err) and "'=' begins with ./" in said


def test_a_tilde_is_the_home_folder(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base").symlink_to(tiny("llama"))
    assert main(["~/base", "~/out", "m=2"]) == 0, capsys.readouterr().err
    assert (tmp_path / "out" / "config.json").is_file()


def test_an_adapter_in_place_of_a_model_is_refused(tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    assert main([str(tmp_path / "adapter"), str(tmp_path / "out"), "m=2"]) == 1
    assert "holds an adapter, expected a whole model; add it to its base first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (7, "model.layers.7.input_layernorm.weight: above the 7 layers that config.json gives"),
        (9, "no tensors named as a stack of 9 layers"),
        (10**5, "no tensors named as a stack of 100000 layers"),
        (10**9, "num_hidden_layers: 1,000,000,000 found, more than any model has; correct the number"),
    ],
)
def test_another_number_of_layers_than_in_the_files_is_one_line(layers, reason, tiny, tmp_path, capsys):
    base = tmp_path / "base"
    shutil.copytree(tiny("llama"), base)
    config = json.loads((base / "config.json").read_text()) | {"num_hidden_layers": layers}
    (base / "config.json").write_text(json.dumps(config))
    assert main([str(base), str(tmp_path / "out"), "m=2"]) == 1
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


@pytest.fixture
def pickled(tiny, tmp_path):
    """The tiny llama as pytorch_model.bin."""
    folder = tmp_path / "pickled"
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama_tied"))
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def test_converted_weights_are_the_same_weights(pickled, tiny, tmp_path, capsys):
    assert main(["convert", str(pickled), str(tmp_path / "out")]) == 0, capsys.readouterr().err
    ids = torch.arange(3, 20)[None]
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        for folder in (tiny("llama_tied"), tmp_path / "out")
    )
    assert torch.equal(before, after)
    assert main([str(tmp_path / "out"), str(tmp_path / "grown"), "m=2"]) == 0


def test_growing_never_reads_a_pickle(pickled, tmp_path, capsys):
    assert main([str(pickled), str(tmp_path / "out"), "m=2"]) == 1
    assert "solar.grow convert" in capsys.readouterr().err


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_runs_code_does_not_run_it(save, pickled, tmp_path, capsys):
    """T-E2."""
    marker = tmp_path / "marker"
    save({"a": Payload(str(marker))}, pickled / "pytorch_model.bin")
    assert main(["convert", str(pickled), str(tmp_path / "out")]) == 1
    assert "more than tensors found" in capsys.readouterr().err
    assert not marker.exists() and not (tmp_path / "out").exists()


def test_a_matched_seam_is_measured_on_a_text(tmp_path, capsys):
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: the trained test model and text")
    text = SHARED / "text" / "tinyshakespeare.txt"
    words = [str(SHARED / "stories260K"), str(tmp_path / "out"), "m=1", "seam=rms_match", f"text={text}"]
    assert main(words) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["solar"]["seam"] == "rms_match"
