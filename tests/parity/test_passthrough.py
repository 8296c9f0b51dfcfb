"""Grown tensors equal to mergekit's passthrough of the same slices, bit for bit.

mergekit runs in an environment of its own: put `mergekit-yaml` on PATH, or its path into SOLAR_MERGEKIT. Written for
0.1.5, which is right for plain families only: of qwen2 and gemma2 it leaves `layer_types` short and stops, of gpt_neox
it misses buffers that no longer exist. A mixture of experts it writes with a layer's experts fused into one tensor, as
`transformers` 5 holds them in memory; here the tensors keep the names and shapes of the base's files.
"""

import json
import os
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from solar.config.growth_plan import GrowthPlan, PlanName
from solar.growth.grow import grow
from tests.growth.tiny import make_tiny

MERGEKIT = os.environ.get("SOLAR_MERGEKIT") or shutil.which("mergekit-yaml")
EXPERTS = 4
"""Of the tiny mixtral."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MERGEKIT is None, reason="mergekit-yaml is neither on PATH nor named by SOLAR_MERGEKIT"),
]


def fused(tensors):
    """Mixtral with a layer's experts in one tensor: [E, 2F, D] of w1 above w3, and [E, D, F] of w2."""
    found = {name.replace("block_sparse_moe", "mlp"): one for name, one in tensors.items() if ".experts." not in name}
    for layer in {name.partition(".block_sparse_moe.")[0] for name in tensors if ".experts." in name}:
        w1, w2, w3 = (
            [tensors[f"{layer}.block_sparse_moe.experts.{expert}.{part}.weight"] for expert in range(EXPERTS)]
            for part in ("w1", "w2", "w3")
        )
        halves = [torch.cat(pair) for pair in zip(w1, w3, strict=True)]
        found[f"{layer}.mlp.experts.gate_up_proj"] = torch.stack(halves)
        found[f"{layer}.mlp.experts.down_proj"] = torch.stack(w2)
    return found


@pytest.mark.parametrize("name", ["llama", "llama_tied", "mistral", "phi3", "gpt2", "mixtral"])
@pytest.mark.parametrize("slices", [[[0, 6], [2, 8]], [[0, 4], [1, 3], [3, 8]]])
def test_tensors_equal_those_of_the_same_slices(name, slices, tmp_path):
    base = make_tiny(name, tmp_path / "base")
    sources = [{"sources": [{"model": str(base), "layer_range": bounds}]} for bounds in slices]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"merge_method": "passthrough", "dtype": "float32", "slices": sources}))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([MERGEKIT, recipe, tmp_path / "theirs"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    grow(base, tmp_path / "ours", GrowthPlan(PlanName.slices, slices=slices))
    ours, theirs = (
        {name: one for path in (tmp_path / folder).glob("*.safetensors") for name, one in load_file(path).items()}
        for folder in ("ours", "theirs")
    )
    if name == "mixtral":
        ours = fused(ours)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
