"""Every command asks torch for segments of GPU memory that can grow, before torch is imported."""

import os
import subprocess
import sys
import warnings

import hydra
import pytest

from solar import run
from solar.environment import ALLOCATOR

PROGRAM = """
import os, sys
from solar import chat
class Meet:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch sees", os.environ.get("PYTORCH_ALLOC_CONF"))
            raise SystemExit
sys.meta_path.insert(0, Meet())
chat.main([sys.argv[1], "prompt=hi"])
"""


@pytest.mark.parametrize(
    "own,seen",
    [
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, "None"),
    ],
)
def test_torch_is_imported_after_the_variable_is_set_unless_the_user_has_set_one(own, seen, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR} | own
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True)
    assert done.stdout == f"torch sees {seen}\n"


def test_a_run_sets_the_variable_before_its_first_stage(monkeypatch):
    seen = []
    for name in ALLOCATOR:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "argv", ["solar.run"])
    monkeypatch.setattr(hydra, "main", lambda **_: lambda _: lambda: seen.append(os.environ["PYTORCH_ALLOC_CONF"]))
    run.main()
    assert seen == ["expandable_segments:True"]
