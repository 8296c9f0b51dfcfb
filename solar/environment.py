"""Environment variables that libraries read when they are imported. What a user has set stays."""

import os
from collections.abc import MutableMapping

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Names of torch 2.13 for the settings of its allocators; the first wins over the others."""


def prepare_run() -> None:
    """Call before torch and transformers are imported; the processes that this one starts inherit the variables."""
    # On a busy machine, threads that spin while they wait for each other cost most of the time; short waits do not.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one line a stage is ours
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    grow_segments()


def grow_segments(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let torch extend its segments of GPU memory: rows of all lengths leave holes in segments of fixed sizes.

    >>> empty, mine = {}, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:512"}
    >>> grow_segments(empty), grow_segments(mine)
    (None, None)
    >>> empty, len(mine)
    ({'PYTORCH_ALLOC_CONF': 'expandable_segments:True'}, 1)
    """
    if not any(name in environment for name in ALLOCATOR):
        environment[ALLOCATOR[0]] = "expandable_segments:True"
