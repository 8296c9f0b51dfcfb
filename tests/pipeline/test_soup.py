"""A greedy soup of trained models, judged on real text."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .conftest import Run

SOUP = ["+stage@stages.soup=soup", "stages.soup.models=[dpo_a,dpo_b,sft]", "stages.soup.data=sft_data"]


def _weights(root: Path, stage: str) -> dict[str, np.ndarray]:
    (folder,) = root.glob(f"artifacts/{stage}-????????????")
    return load_file(folder / "model" / "model.safetensors")


def test_a_soup_is_the_mean_of_what_it_kept_and_at_least_as_good_as_the_best(
    finished: Path, run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    done = run(root, *SOUP, "stages.soup.max_tokens=512", "until=soup")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = root.glob("artifacts/soup-????????????")
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    alone, tried, kept = metrics["alone"], metrics["tried"], metrics["kept"]
    ranking = sorted(alone, key=alone.get)
    assert sorted(alone) == ["dpo_a", "dpo_b", "sft"] and len(set(alone.values())) == 3
    assert kept[0] == ranking[0] and len(tried) == 2
    best, soup = alone[ranking[0]], ranking[:1]
    for attempt, name in zip(tried, ranking[1:], strict=True):
        assert attempt["models"] == [*soup, name]
        if attempt["nats_per_token"] <= best:
            best, soup = attempt["nats_per_token"], attempt["models"]
    assert (kept, metrics["nats_per_token"]) == (soup, best)
    models = [_weights(root, name) for name in kept]
    for name, weight in _weights(root, "soup").items():
        np.testing.assert_allclose(weight, np.mean([model[name] for model in models], axis=0), rtol=1e-6, atol=1e-8)
    assert json.loads((folder / "model" / "merge.json").read_text())["models"] == kept
