"""Merges equal to mergekit's, where it has the method.

mergekit runs in an environment of its own: put `mergekit-yaml` on PATH, or its path into SOLAR_MERGEKIT. Written for
0.1.5. Both compute in float32, but float32 weights are accumulated in float64 here, so the last bits differ.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from solar.config.merging import MergeConfig, MergeMethod
from solar.merging.merge import merge

MERGEKIT = os.environ.get("SOLAR_MERGEKIT") or shutil.which("mergekit-yaml")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MERGEKIT is None, reason="mergekit-yaml is neither on PATH nor named by SOLAR_MERGEKIT"),
]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "vocab_size": 128,
}


NAMES = "abcde"


def shapes() -> dict[str, tuple[int, ...]]:
    named = {"model.embed_tokens.weight": (128, 64), "model.norm.weight": (64,), "lm_head.weight": (128, 64)}
    inner = {
        "input_layernorm": (64,),
        "post_attention_layernorm": (64,),
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64),
        "mlp.gate_proj": (96, 64),
        "mlp.up_proj": (96, 64),
        "mlp.down_proj": (64, 96),
    }
    layers = {f"model.layers.{i}.{name}.weight": shape for i in range(2) for name, shape in inner.items()}
    return {**named, **layers}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def models(request, tmp_path_factory) -> list[Path]:
    """A base and five models that left it in directions that agree in part."""
    generator = torch.Generator().manual_seed(0)
    place = tmp_path_factory.mktemp(request.param)
    base = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes().items()}
    shared = {name: 0.01 * torch.randn(shape, generator=generator) for name, shape in shapes().items()}
    folders = []
    for name in ("base", *NAMES):
        tensors = {
            key: value if name == "base" else value + shared[key] + 0.01 * torch.randn(value.shape, generator=generator)
            for key, value in base.items()
        }
        folder = place / name
        folder.mkdir()
        stored = {key: value.to(getattr(torch, request.param)) for key, value in tensors.items()}
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": request.param}))
        folders.append(folder)
    return folders


def ours_and_theirs(models, tmp_path, method, theirs, weights=None, **numbers):
    """The tensors of both merges of `a`, `b` and as many more as there are weights; the keywords are solar's settings.
    `each` of `theirs` are mergekit's values for every model, `own` lists those that differ between models.
    """
    base, *others = models
    merged = others[: len(weights or "ab")]
    with_base = method not in ("average", "slerp")
    root = base if with_base else None
    names = list(NAMES[: len(merged)])
    config = MergeConfig("merge", names, MergeMethod(method), str(root) if root else None, weights, **numbers)
    merge(merged, tmp_path / "ours", config, root)
    own = theirs.get("own", [{}] * len(merged))
    given = [{} if weights is None else {"weight": weight} for weight in weights or merged]
    recipe = {
        "models": [
            {"model": str(model), "parameters": theirs.get("each", {}) | more | weight}
            for model, more, weight in zip(merged, own, given, strict=True)
        ],
        "merge_method": theirs["method"],
        "dtype": "float32",
        "out_dtype": load_file(base / "model.safetensors")["lm_head.weight"].dtype.__str__().removeprefix("torch."),
        "parameters": theirs.get("all", {}),
    }
    if with_base or method == "slerp":
        recipe["base_model"] = str(base if with_base else merged[0])
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    command = [str(MERGEKIT), str(tmp_path / "recipe.yaml"), str(tmp_path / "theirs"), "--quiet"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs")]


def differing(ours, theirs) -> float:
    """Share of elements that differ at all; none may by more than rounding: one step of bfloat16, or 1e-6 of float32's
    terms, which are at most about 0.5 in size, also where they cancel out.
    """
    assert ours.keys() == theirs.keys()
    differ = elements = 0
    for name, left in ours.items():
        right = theirs[name]
        assert left.dtype == right.dtype
        x, y = left.double().numpy(), right.double().numpy()
        relative, absolute = (2**-7, 2**-20) if left.dtype == torch.bfloat16 else (1e-6, 5e-7)
        np.testing.assert_allclose(x, y, relative, absolute, err_msg=name)
        differ += int((x != y).sum())
        elements += x.size
    return differ / elements


def test_a_plain_average_is_equal_to_the_last_bit(models, tmp_path):
    assert differing(*ours_and_theirs(models, tmp_path, "average", {"method": "linear"}, [0.5, 0.5])) == 0


FIVE = {"weights": [0.41, 0.73, 0.19, 0.31, 0.97]}
"""Not round: in bfloat16 sums would often be 0 or lie on a rounding border, where the last bit of a term decides."""


@pytest.mark.parametrize(
    ("method", "theirs", "numbers"),
    [
        ("average", {"method": "linear"}, {"weights": [0.4, 0.6]}),
        ("slerp", {"method": "slerp", "all": {"t": 0.3}}, {"t": 0.3}),
        ("task_arithmetic", {"method": "task_arithmetic"}, {"weights": [0.4, 0.7]}),
        ("ties", {"method": "ties", "each": {"density": 1.0}}, {"weights": [1.0, 2.0], "density": 1.0}),
        (
            "dare",
            {"method": "dare_linear", "each": {"density": 1.0}},
            {"weights": [0.4, 0.6], "density": 1.0, "seed": 0},
        ),
        ("model_stock", {"method": "model_stock"}, {}),
        ("average", {"method": "linear"}, FIVE),
        ("task_arithmetic", {"method": "task_arithmetic", "all": {"lambda": 0.5}}, FIVE | {"scale": 0.5}),
        ("ties", {"method": "ties", "each": {"density": 1.0}}, FIVE | {"density": 1.0}),
        # mergekit's dare_ties adds what agrees, if it is not told to take the mean, as TIES does and the merge here
        (
            "dare_ties",
            {"method": "dare_ties", "each": {"density": 1.0}, "all": {"normalize": True}},
            {"weights": [1.0, 2.0, 0.5], "density": 1.0, "seed": 0},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equal_but_for_rounding(models, tmp_path, method, theirs, numbers):
    ours, other = ours_and_theirs(models, tmp_path, method, theirs, **numbers)
    share = differing(ours, other)
    if ours["lm_head.weight"].dtype == torch.bfloat16:  # nearly always the same side of a rounding border
        assert share < 0.005


@pytest.mark.parametrize("densities", [[0.3, 0.3], [0.2, 0.6, 0.9]])
def test_ties_trims_the_same_elements(models, tmp_path, densities):
    base = load_file(models[0] / "model.safetensors")
    if base["lm_head.weight"].dtype == torch.bfloat16:
        pytest.skip("changes of equal size, frequent in bfloat16, are kept or dropped together here, at random there")
    theirs = {"method": "ties", "own": [{"density": density} for density in densities]}
    weights = [1.0, 2.0, 0.5][: len(densities)]
    differing(*ours_and_theirs(models, tmp_path, "ties", theirs, weights, densities=densities))


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_drops_and_enlarges_as_much(models, tmp_path, method):
    """By other random numbers, and mergekit enlarges what is left to its norm before: by the share on average alone."""
    base, a, b = (load_file(folder / "model.safetensors") for folder in models[:3])
    if base["lm_head.weight"].dtype == torch.bfloat16:
        pytest.skip("rounding hides which elements were left at the base")
    densities, weights = [0.5, 0.25], [0.6, 0.4]
    theirs = {"method": method, "own": [{"density": density} for density in densities]}
    theirs["all"] = {"normalize": method == "dare_ties"}
    ours = {"densities": densities, "seed": 0}
    both = ours_and_theirs(models, tmp_path, method.removesuffix("_linear"), theirs, weights, **ours)
    left, slopes = [], []
    for merged in both:
        changes = torch.cat([(merged[name] - base[name]).flatten() for name in base])
        full = torch.cat([(0.6 * a[name] + 0.4 * b[name] - base[name]).flatten() for name in base])
        left.append((changes == 0).float().mean().item())
        slopes.append(((changes @ full) / (full @ full)).item())
    assert left == pytest.approx([0.5 * 0.75] * 2, abs=0.01)  # neither model kept: 5 standard deviations
    assert slopes[0] == pytest.approx(slopes[1], rel=0.05)
    if method == "dare_linear":
        assert slopes[0] == pytest.approx(1.0, abs=0.05)  # on average nothing is lost
