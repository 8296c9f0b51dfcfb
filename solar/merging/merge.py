"""Merge model folders into a new one."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from solar.config.merging import MergeConfig, MergeMethod
from solar.errors import ConfigError, StageError
from solar.merging.compatible import check_compatible
from solar.merging.redundant import BUFFERS, tied_head
from solar.merging.stream import CHUNK, Column, merge_tensor
from solar.merging.templates import template_notes
from solar.weights.folder import CONFIG_FILE, INDEX_FILE, ModelFolder, open_folder
from solar.weights.header import StoredTensor, header_bytes
from solar.weights.numbers import FORMATS
from solar.weights.publish import published, refuse_existing, refuse_inside
from solar.weights.travelling import TRAVELLING, copy_travelling_files

NOTE = "merge.json"
"""What was merged, and how; beside the weights."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge is, and what it costs."""

    models: int
    tensors: int
    parameters: int
    size_bytes: int
    """Weights written."""
    memory_bytes: int
    """Peak of all threads' arrays; Python itself takes some 50 MB more."""
    wall_seconds: float = 0.0
    """0 where nothing was written."""
    notes: tuple[str, ...] = ()
    """What the user should know of the result."""


@dataclass(frozen=True)
class Job:
    """A merge that was checked: the numbers fit the method, and the models fit each other."""

    config: MergeConfig
    columns: Sequence[ModelFolder]
    """The base, where there is one, then the models."""
    first: ModelFolder
    """The first model, whose layout and other files the merged model takes."""
    target: Path
    threads: int
    report: MergeReport


def merge(
    models: Sequence[Path], target: Path, config: MergeConfig, base: Path | None = None, threads: int | None = None
) -> MergeReport:
    """Merge models (folders) into the new folder `target`, as `config` says; the names in it are only noted.

    Layout, tokenizer and configuration are the first model's. Raises ConfigError for numbers that do not fit the
    method, StageError for models that do not fit each other (with the tensor's name), ArtifactError for a damaged or
    existing folder. Then, or when interrupted, nothing is left at `target`.
    """
    began = time.monotonic()
    job = prepare(models, target, config, base, threads)
    with published(target, [column.folder for column in job.columns]) as folder:
        merge_weights(job, folder)
        copy_travelling_files(job.first.folder, folder, (CONFIG_FILE, INDEX_FILE, *TRAVELLING))
        note = {name: value for name, value in asdict(config).items() if value is not None}
        (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    return replace(job.report, wall_seconds=time.monotonic() - began)


def prepare(
    models: Sequence[Path], target: Path, config: MergeConfig, base: Path | None = None, threads: int | None = None
) -> Job:
    """Check everything that can be checked before the work. Raises as `merge` does; writes nothing."""
    config = replace(config, models=[str(model) for model in models], base=None if base is None else str(base))
    problems = list(config.problems())
    if problems:
        raise ConfigError("; ".join(problems))
    refuse_existing(target)
    refuse_inside(target, [*models, *([] if base is None else [base])])
    columns = [open_folder(folder) for folder in ([] if base is None else [base]) + list(models)]
    check_compatible(columns)
    threads = threads or min(8, len(os.sched_getaffinity(0)))
    job = Job(config, columns, columns[-len(models)], target, threads, expected(columns, config, threads))
    check_space(target, job.report.size_bytes)
    return job


def expected(columns: Sequence[ModelFolder], config: MergeConfig, threads: int) -> MergeReport:
    """Sizes and peak memory, known from the headers."""
    tensors = columns[0].tensors.values()
    wide = max(
        (np.dtype(FORMATS[tensor.dtype].wide).itemsize for tensor in tensors if tensor.dtype in FORMATS), default=1
    )
    # twice as many arrays as models: pieces, and masks, changes and scratch; trimming holds a whole tensor as well
    elements = 2 * (len(columns) + 2) * CHUNK
    if config.method is MergeMethod.ties:
        elements += max((tensor.parameters for tensor in tensors), default=0)
    return MergeReport(
        models=len(config.models),
        tensors=len(tensors),
        parameters=sum(tensor.parameters for tensor in tensors),
        size_bytes=sum(path.stat().st_size for path in columns[-1].files),
        memory_bytes=threads * elements * wide,
        notes=template_notes(columns[-len(config.models) :]),
    )


def check_space(target: Path, size_bytes: int) -> None:
    """Raise StageError before the work if the disk is too small."""
    place = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size_bytes:
        raise StageError(f"{place}: {free:,} bytes free, expected {size_bytes:,}; choose another place")


def merge_weights(job: Job, folder: Path) -> None:
    """Write the weight files: the first model's headers, then every tensor at its offset, the largest first."""
    with ExitStack() as stack:
        descriptors_of = {id(model): stack.enter_context(model.descriptors()) for model in job.columns}
        outputs = {path: stack.enter_context((folder / path.name).open("wb", buffering=0)) for path in job.first.files}
        for path, output in outputs.items():
            output.write(header_bytes(path))
            output.truncate(path.stat().st_size)

        pair = tied_head(job.first)

        def task(tensor: StoredTensor) -> None:
            name = pair[1] if pair is not None and tensor.name == pair[0] else tensor.name
            models = [job.first if BUFFERS.search(name) else model for model in job.columns]
            tensors = [model.tensors[name] for model in models]
            files = [descriptors_of[id(model)][each.path] for model, each in zip(models, tensors, strict=True)]
            try:
                merge_tensor(Column(tensors, files), job.config, outputs[tensor.path].fileno(), tensor.start)
            except OSError as error:
                reason = error.strerror or error
                raise StageError(
                    f"{tensor.name}: {reason}, in the merge at {job.target}; remove the cause and merge again"
                ) from None

        largest_first = sorted(job.first.tensors.values(), key=lambda tensor: -tensor.nbytes)
        run_all(job.threads, [partial(task, tensor) for tensor in largest_first])


def run_all(threads: int, tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks in threads; after the first error the rest are not begun."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
