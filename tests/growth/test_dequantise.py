"""`python -m solar.grow convert` on quantised models: plain floats, or one line that says why not."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from solar.grow import main

GPT_OSS = {
    **{"vocab_size": 96, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1},
}


def set_quantisation(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "bfloat16", "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def fp8(tiny, tmp_path):
    """The tiny llama in 8-bit floats, a scale a matrix; the final norm stays in float32."""
    folder = tmp_path / "fp8"
    shutil.copytree(tiny("llama"), folder)
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            tensors[name] = weight if name == "model.norm.weight" else weight.bfloat16()
            continue
        scale = weight.abs().max() / 448
        tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scale.reshape(1, 1)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    set_quantisation(folder, quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128])
    return folder


def test_8_bit_floats_become_their_products_with_the_scales(fp8, tmp_path, capsys):
    assert main(["convert", str(fp8), str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert "as plain floats" in capsys.readouterr().out
    stored, plain = load_file(fp8 / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert plain.keys() == {name for name in stored if not name.endswith("_scale_inv")}
    for name, weight in plain.items():
        scale = stored.get(f"{name}_scale_inv")
        expected = stored[name] if scale is None else (stored[name].float() * scale).bfloat16()
        assert weight.dtype is expected.dtype and torch.equal(weight, expected), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "bfloat16"
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "out" / "config.json").stat().st_mode & 0o777}


def test_the_result_can_be_grown_by_arithmetic(fp8, tmp_path, capsys):
    assert main(["convert", str(fp8), str(tmp_path / "plain")]) == 0, capsys.readouterr().err
    assert main([str(tmp_path / "plain"), str(tmp_path / "out"), "m=2", "init=mean"]) == 0, capsys.readouterr().err


def test_4_bit_experts_become_their_values(tmp_path, capsys):
    """The code 2 is 1.0, a scale of 127 is 2**0, of 128 2**1 (OCP MX specification)."""
    folder = tmp_path / "mxfp4"
    config = transformers.CONFIG_MAPPING["gpt_oss"](**GPT_OSS)
    transformers.AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, rows, columns = tensors.pop(name).transpose(1, 2).shape
        tensors[f"{name}_blocks"] = torch.full((experts, rows, columns // 32, 16), 0x22, dtype=torch.uint8)
        exponent = 127 if "gate_up" in name else 128
        tensors[f"{name}_scales"] = torch.full((experts, rows, columns // 32), exponent, dtype=torch.uint8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    set_quantisation(folder, quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "lm_head"])
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 0, capsys.readouterr().err
    plain = load_file(tmp_path / "out" / "model.safetensors")
    for layer in range(2):
        up, down = (plain[f"model.layers.{layer}.mlp.experts.{name}"] for name in ("gate_up_proj", "down_proj"))
        assert up.shape == (2, 32, 64) and up.dtype is torch.bfloat16 and bool((up == 1).all())
        assert down.shape == (2, 32, 32) and bool((down == 2).all())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantised with gptq, which transformers cannot dequantise; fetch the"),
        ({"quant_method": "new"}, "quantised with new, which transformers cannot dequantise; fetch the original"),
        ({"bits": 4}, "quantised with a method that it does not name, which transformers cannot dequantise"),
    ],
)
def test_a_method_that_cannot_be_dequantised_is_one_line(settings, reason, fp8, tmp_path, capsys):
    set_quantisation(fp8, **settings)
    assert main(["convert", str(fp8), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_package_that_is_not_installed_is_named(fp8, tmp_path, capsys):
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        set_quantisation(fp8, quant_method="bitsandbytes", load_in_4bit=True)
        assert main(["convert", str(fp8), str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert "quantised with bitsandbytes, and a package for it is not installed" in error
        assert error.count("\n") == 1 and not (tmp_path / "out").exists()
    else:
        pytest.skip("bitsandbytes is installed")


def test_a_model_of_plain_floats_is_not_converted(tiny, tmp_path, capsys):
    assert main(["convert", str(tiny("llama")), str(tmp_path / "out")]) == 1
    assert "found neither pytorch_model.bin" in capsys.readouterr().err
