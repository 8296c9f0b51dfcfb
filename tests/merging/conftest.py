"""Write models, merge them, read the result: in one line each."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_models import read_model, write_model

from solar.config.merging import MergeConfig, MergeMethod
from solar.merging.merge import merge


@pytest.fixture
def model(tmp_path) -> Callable[..., Path]:
    """Write a model with one tensor `w`, or with the tensors given by name."""
    counter = itertools.count()

    def write(values, dtype: str = "F32", config: dict | None = None) -> Path:
        files = values if isinstance(values, dict) else {"w": values}
        return write_model(tmp_path / f"model_{next(counter)}", files, dtype, config)

    return write


@pytest.fixture
def merged(tmp_path) -> Callable[..., np.ndarray]:
    """Merge models and read the tensor `w`, or all tensors if there are others."""
    counter = itertools.count()

    def run(models, method: str, base: Path | None = None, threads: int = 1, **settings):
        target = tmp_path / f"merged_{next(counter)}"
        names = [str(each) for each in models]
        config = MergeConfig("merge", names, MergeMethod(method), None if base is None else str(base), **settings)
        merge(models, target, config, base, threads)
        tensors = read_model(target)
        return tensors["w"] if list(tensors) == ["w"] else tensors

    return run
