"""A stage's id: the hash of its configuration and of what it reads."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from solar.config.base import StageConfig
from solar.config.kinds import STAGES
from solar.config.links import Pointer, pointers, rewrite
from solar.config.root import TrainerConfig
from solar.config.training import TrainConfig
from solar.errors import ConfigError
from solar.plan.digests import Digests
from solar.plan.facts import ModelFacts
from solar.redaction import without_keys

ABSENT = "absent"
"""Version of a package that is not installed; the stage cannot run."""


def identity(
    stage: StageConfig, inputs: Mapping[str, str], digests: Digests, batches: Mapping[str, int] | None = None
) -> str:
    """Twelve hex digits; equal for equal work, in any process on any machine.

    `inputs` maps the names of the stages it reads to their ids. Names themselves count only where the result shows
    them: in tables of scores and reports. Keys and passwords never count. `batches` is what `batches_that_count`
    says of the stage.
    """
    kind = STAGES[stage.kind]
    shows_names = kind.produces in ("scores", "report")

    def replace(pointer: Pointer) -> Any:
        if pointer.role == "content":
            return _content(pointer, digests)
        return [pointer.value, inputs[pointer.value]] if shows_names else inputs[pointer.value]

    hashed: dict[str, Any] = {"version": kind.version, "config": without_keys(rewrite(stage, replace))}
    hashed |= {"batches": batches} if batches else {}
    hashed |= {"revision": revision} if (revision := stage.code_revision()) else {}
    return hashlib.sha256(canonical_json(hashed).encode()).hexdigest()[:12]


def batches_that_count(
    name: str, stage: StageConfig, facts: Mapping[str, ModelFacts], trainer: TrainerConfig
) -> dict[str, int] | None:
    """How the global batch is cut, if the result depends on that; otherwise None.

    Dropout draws its masks, and the experts' balance loss takes its means, a micro-batch and a replica at a time.
    """
    if not isinstance(stage, TrainConfig):
        return None
    base = facts.get(stage.model)
    if not stage.adapter.dropout and not (base and base.depends_on_batches):
        return None
    return {"micro_batch": trainer.micro_batch_of(name, stage.global_batch_size), "replicas": trainer.replicas}


def canonical_json(value: Any) -> str:
    """JSON with one spelling for each value.

    Raises:
        TypeError: for anything without a stable form; a permissive `str()` would let identities drift silently.

    >>> canonical_json({"b": [1, None], "a": 0.1})
    '{"a":0.1,"b":[1,null]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _content(pointer: Pointer, digests: Digests) -> Any:
    if pointer.to == "path":
        return digests.of(Path(pointer.value), pointer.key)
    if pointer.to == "source":
        return digests.of_source(Path(pointer.value), pointer.key)
    try:
        version = metadata.version(pointer.value)
    except metadata.PackageNotFoundError:
        version = ABSENT
    known = {pointer.value: version}
    return {**known, "python": platform.python_version()} if pointer.to == "documentation" else known


def absent_packages(stage: StageConfig) -> list[str]:
    """Distributions that a stage names and that are not installed."""
    named = [p.value for p in pointers(stage, "content") if p.to in ("package", "documentation")]
    return [name for name in named if not _installed(name)]


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    except ValueError as error:
        raise ConfigError(f"found the package name {distribution!r}: {error}") from error
    return True
