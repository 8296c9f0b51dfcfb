"""`python -m solar.merge`."""

import subprocess
import sys

import pytest
from small_models import read_model

from solar.merge import main


@pytest.fixture
def pair(model):
    return [str(model([1.0, 2.0])), str(model([3.0, 6.0]))]


def test_it_merges(pair, tmp_path, capsys):
    assert main([*pair, str(tmp_path / "out"), "method=average", "weights=[0.25,0.75]"]) == 0
    assert read_model(tmp_path / "out")["w"].tolist() == [2.5, 5.0]
    assert "2 models, 1 tensors, 2 parameters" in capsys.readouterr().out


def test_settings_may_stand_anywhere_and_folders_may_hold_an_equals_sign(pair, tmp_path):
    assert main(["method=slerp", *pair, "t=0.5", str(tmp_path / "t=0.5")]) == 0
    assert (tmp_path / "t=0.5" / "model.safetensors").exists()


def test_a_dry_run_checks_tells_and_writes_nothing(pair, tmp_path, capsys):
    """T-D6."""
    before = sorted(tmp_path.iterdir())
    assert main([*pair, str(tmp_path / "out"), "method=average", "dry_run=true"]) == 0
    assert "nothing written" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["method=slerp"], "t: not set"),
        (["method=slrp", "t=0.5"], "slrp"),
        (["methd=slerp"], "methd: no such option; did you mean 'method'"),
        (["method=average", "weights=[0.5]"], "weights: found 1 for 2 models"),
        (["method=average", "weights=half"], "weights: found half"),
        (["method=average", "weights=[0.5"], "weights: found [0.5,"),
        (["method=average", "weights=0.5,0.5"], "weights: found 0.5,0.5, expected a list of numbers such as [0.5,0.5]"),
        (["method=average", "weights=[0,0]"], "expected at least one that is not 0"),
        (["method=slerp", "t=2"], "t: found 2.0, expected 0 to 1"),
        (["method=average", "threads=0"], "threads: found 0"),
        (["method=average", "dry_run=maybe"], "dry_run: found maybe"),
        (["t=0.5"], "method"),
        (["method=slerp", "t=half"], "t: found half, expected a number"),
        (["method=slerp", "t=nan"], "t: found nan"),
        (["method=slerp", "t=0.5", "t=0.6"], "t: found twice"),
        (["method=average", "weights="], "weights: found no value"),
        (["method=average", "weights=[.nan,1]"], "weights: found [.nan,1]"),
        (["method=average", "kind=x"], "kind: no such option"),
        (["method=ties", "density=1.5", "base=/nowhere"], "density: found 1.5"),
        (["method=ties", "densities=0.5", "base=/nowhere"], "densities: found 0.5, expected a list of numbers"),
        (["method=dare", "density=0.5", "seed=x", "base=/nowhere"], "seed: found x, expected a whole number"),
        (["method=window", "decay=exp"], "decay: found exp, expected one of linear, sqrt, cosine"),
        (["method=ties", "density=0.5", "base=/nowhere"], "/nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(pair, tmp_path, capsys, settings, said):
    before = sorted(tmp_path.iterdir())
    assert main([*pair, str(tmp_path / "out"), *settings]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert sorted(tmp_path.iterdir()) == before


def test_folders_that_are_missing_on_the_command_line(capsys):
    assert main(["method=average"]) == 1
    assert "MODEL... OUT: found 0 of these" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(pair, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*pair, str(tmp_path / "file" / "out"), "method=average"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_it_starts_without_torch(pair, tmp_path):
    code = "import sys, solar.merge; solar.merge.main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, *pair, str(tmp_path / "out"), "method=average"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("False\n")


def test_help_tells_the_methods_and_does_nothing(capsys):
    assert main(["--help"]) == 0
    assert "method=average|slerp" in capsys.readouterr().out


def test_a_folder_merged_with_itself_is_itself(pair, tmp_path):
    assert main([pair[0], pair[0], str(tmp_path / "out"), "method=slerp", "t=0.5"]) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "model_0" / "model.safetensors"
    ).read_bytes()


def test_a_target_inside_a_model_is_refused(pair, tmp_path, capsys):
    assert main([*pair, f"{pair[1]}/out", "method=average"]) == 1
    assert f"inside {pair[1]}" in capsys.readouterr().err
    assert not (tmp_path / "model_1" / "out").exists()


def test_a_file_in_place_of_a_folder_is_told(pair, tmp_path, capsys):
    assert main([f"{pair[0]}/model.safetensors", pair[1], str(tmp_path / "out"), "method=average"]) == 1
    assert "expected a Hugging Face model folder" in capsys.readouterr().err


def test_a_template_that_the_first_model_lacks_is_not_lost_without_a_word(model, tmp_path, capsys):
    base, tuned = model({"a": [1.0]}), model({"a": [3.0]})
    (tuned / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert main([str(base), str(tuned), str(tmp_path / "out"), "method=average"]) == 0
    assert f"chat template: {tuned} has one, {base} has none" in capsys.readouterr().out
    assert main([str(base), str(tuned), str(tmp_path / "plan"), "method=average", "dry_run=true"]) == 0
    assert f"chat template: {tuned} has one, {base} has none" in capsys.readouterr().out
    assert main([str(tuned), str(base), str(tmp_path / "other"), "method=average"]) == 0
    assert "chat template" not in capsys.readouterr().out
