"""A small run on disk, with the files that stages leave."""

import pytest

from .run_on_disk import GROWN, RunOnDisk, curve, scored


@pytest.fixture
def disk(tmp_path) -> RunOnDisk:
    return RunOnDisk(tmp_path)


@pytest.fixture
def chain(disk) -> RunOnDisk:
    """base -> upscale -> pretrain -> dpo_a, dpo_b -> merge, on one data set, evaluated."""
    small, large = {"num_hidden_layers": 8}, {"num_hidden_layers": 12, "architectures": ["LlamaForCausalLM"]}
    split = {"sources": {"docs": {"start": 0, "stop": 9, "tokens": 1_500_000}}}
    sources = {"docs": {"rows": 1200, "realised_share": 1.0, "dropped": {"too short": 34}}}
    disk.add("data", "prepare_data", metrics={"sources": sources}, tokens_json={"splits": {"train": split}})
    disk.add("base", "pretrain", ("data",), model__config_json=small, logs__metrics_jsonl=curve(5.0, 3.0))
    disk.add("upscale", "upscale", ("base",), model__config_json=large | {"solar": GROWN})
    disk.add(
        "pretrain",
        "pretrain",
        ("upscale", "data"),
        model__config_json=large | {"solar": GROWN},
        logs__metrics_jsonl=curve(3.5, 3.2, 2.8, 2.6),
    )
    for name in ("dpo_a", "dpo_b"):
        disk.add(name, "dpo", ("pretrain",), model__config_json=large)
    disk.add("merge", "merge", ("dpo_a", "dpo_b"), model__config_json=large)
    rows = [scored("base", 3.01, 0.4, 8), scored("upscale", 3.5, 0.3), scored("pretrain", 2.6, 0.5)]
    rows += [scored("dpo_a", 2.7, 0.6), scored("dpo_b", 2.7, 0.6), scored("merge", 2.65, 0.7)]
    disk.add("evaluation", "evaluate", ("data",), scores_json=rows)
    return disk
