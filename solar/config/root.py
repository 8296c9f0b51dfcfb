"""The whole configuration: `stages` decides what is computed and is hashed; all else decides how and where."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from solar.config.base import StageConfig
from solar.config.links import expand_home
from solar.config.plain import as_plain
from solar.errors import ConfigError

DEVICE_TYPES = {"cpu": "cpu", "gpu": "cuda", "mps": "mps"}
"""Accelerator -> torch's name for devices of that type."""
_PLAIN = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}
_MOST_PROCESSES = 1024
"""Threads or workers; far more make torch or the system crash."""
_PROCESSES_BESIDE_A_GPU = 2


class Strategy(StrEnum):
    """How several devices share the work."""

    single = "single"
    """One device."""
    ddp = "ddp"
    """Every device holds the whole model."""
    fsdp = "fsdp"
    """Weights, gradients and optimizer state are sharded (FSDP2)."""


@dataclass
class TrainerConfig:
    """Hardware, and how often training logs and saves."""

    accelerator: str = MISSING
    """`cpu`, `gpu`, `mps` (Apple's GPU), or `auto`: the GPU of this machine if there is one, else its CPU."""
    devices: int = MISSING
    """Devices of each machine."""
    num_nodes: int = MISSING
    """Machines."""
    rendezvous: str | None = None
    """HOST:PORT of this machine, where several machines meet without SLURM; the others run `solar.join`."""
    strategy: Strategy = MISSING
    """How several devices share the work."""
    tensor_parallel: int = 1
    """Devices of a node that compute one batch together, each with its share of every layer (with `fsdp`)."""
    micro_batch_size: int = MISSING
    """Rows that a device computes at once; a global batch is made of as many micro-batches as needed."""
    micro_batch_sizes: dict[str, int] = field(default_factory=dict)
    """`micro_batch_size` of single stages, by name."""
    num_workers: int | None = None
    """Processes that load data; null: 2 where a GPU trains, else none. The order of samples does not depend on it."""
    threads: int | None = None
    """CPU threads of torch; null: torch chooses."""
    compile: bool | None = None
    """torch.compile of the layers: up to a minute of start-up for faster steps; null: on GPUs where one kernel computes
    attention, without fsdp. Its kernels depend on the batches since the start, so a resumed training equals an
    uninterrupted training up to rounding, not in every byte."""
    deterministic: bool = False
    """On GPUs: the same bytes from the same run, also after a kill and a resume, by slower kernels and without
    torch.compile. On CPUs this is always so."""
    log_every_steps: int = MISSING
    """Steps between two lines of `logs/metrics.jsonl`."""
    telemetry_every_steps: int | None = None
    """Steps between measurements of every layer: gradient norm, size of the update, distance of twins; null: never."""
    checkpoint_every_seconds: float = MISSING
    """Seconds between checkpoints: as much work as a kill may cost."""
    keep_checkpoints: int = 1
    """How many of the newest checkpoints stay while a stage trains."""

    @property
    def device_type(self) -> str:
        """What torch calls the accelerator."""
        return DEVICE_TYPES[self.accelerator]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that must be set before a process first multiplies matrices on a GPU."""
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if self.deterministic else {}

    @property
    def loading_processes(self) -> int:
        """Beside the process that trains; on a CPU they would take cores from training."""
        if self.num_workers is None:
            return _PROCESSES_BESIDE_A_GPU if self.accelerator == "gpu" else 0
        return self.num_workers

    @property
    def replicas(self) -> int:
        """Batches that are computed at the same time: all devices, divided by those that share a batch."""
        return self.devices * self.num_nodes // self.tensor_parallel

    def micro_batch_of(self, stage: str, global_batch_size: int) -> int:
        """Rows a device holds at once in a stage: the configured number, at most its share of the global batch.

        >>> trainer = TrainerConfig(devices=2, num_nodes=1, micro_batch_size=16, micro_batch_sizes={"dpo": 4})
        >>> trainer.micro_batch_of("sft", 8), trainer.micro_batch_of("dpo", 64)
        (4, 4)
        """
        share = global_batch_size // self.replicas
        return min(share, self.micro_batch_sizes.get(stage, self.micro_batch_size))

    def problems(self) -> Iterator[str]:
        if self.accelerator not in ("auto", *DEVICE_TYPES):
            yield f"accelerator: found {self.accelerator!r}, expected cpu, gpu, mps or auto"
        for name in (
            "devices",
            "num_nodes",
            "micro_batch_size",
            "log_every_steps",
            "keep_checkpoints",
            "tensor_parallel",
        ):
            if getattr(self, name) < 1:
                yield f"{name}: found {getattr(self, name)}, expected at least 1"
        if self.telemetry_every_steps is not None and self.telemetry_every_steps < 1:
            yield f"telemetry_every_steps: found {self.telemetry_every_steps}, expected at least 1 or null"
        if self.threads is not None and not 1 <= self.threads <= _MOST_PROCESSES:
            yield f"threads: found {self.threads}, expected 1 to {_MOST_PROCESSES} or null"
        if self.num_workers is not None and not 0 <= self.num_workers <= _MOST_PROCESSES:
            yield f"num_workers: found {self.num_workers}, expected 0 to {_MOST_PROCESSES} or null"
        if not self.checkpoint_every_seconds >= 0:
            yield f"checkpoint_every_seconds: found {self.checkpoint_every_seconds}, expected 0 or more"
        if self.strategy is Strategy.single and self.devices * self.num_nodes > 1:
            yield f"strategy: found single with {self.devices * self.num_nodes} devices, expected ddp or fsdp"
        if self.rendezvous is not None and not re.fullmatch(r"[^:\s]+:\d+", self.rendezvous):
            yield f"rendezvous: found {self.rendezvous!r}, expected HOST:PORT"
        if self.deterministic and self.compile:
            yield "compile: found true with deterministic, whose bytes compiled kernels would change; expected null"
        if self.tensor_parallel > 1 and self.strategy is not Strategy.fsdp:
            yield f"tensor_parallel: found {self.tensor_parallel} with strategy {self.strategy}, expected fsdp"
        elif self.tensor_parallel > 1 and self.devices % self.tensor_parallel:
            yield f"tensor_parallel: found {self.tensor_parallel}, expected a divisor of the {self.devices} devices"


class LoggerName(StrEnum):
    """Where curves are sent, in addition to the artifact's `logs/`."""

    none = "none"
    """Nowhere else."""
    wandb = "wandb"
    """Weights & Biases."""
    tensorboard = "tensorboard"
    """TensorBoard event files in the folder of the run."""


@dataclass
class LoggerConfig:
    """The experiment tracker."""

    name: LoggerName = MISSING
    """Which tracker."""
    project: str = "solar"
    """Name of the project in the tracker."""
    mode: str = "offline"
    """wandb: `offline` (nothing leaves this machine) or `online`."""

    def problems(self) -> Iterator[str]:
        if self.mode not in ("offline", "online"):
            yield f"mode: found {self.mode!r}, expected offline or online"


class Preflight(StrEnum):
    """What happens if this machine seems to lack something for the plan. Memory and disk are estimates."""

    refuse = "refuse"
    """Print every lack, and start no work."""
    warn = "warn"
    """Print every lack, and start nevertheless."""


class Verification(StrEnum):
    """When the files of artifacts are compared with the hashes in their manifests; sizes are always compared."""

    always = "always"
    """Each run reads every file of its artifacts."""
    once = "once"
    """A run reads the files that were written since they were last read; `verified.json` remembers the others."""
    size = "size"
    """Contents are not read."""


@dataclass
class PathsConfig:
    """Where things are written."""

    root: str = MISSING
    """The folder of everything that is written: `artifacts/`, `runs/`, `sweeps/`."""


@dataclass
class SolarConfig:
    """One experiment."""

    name: str = MISSING
    """Name of the experiment, and of the folder of its runs."""
    seed: int = MISSING
    """Recipes use it as `${seed}` wherever a stage draws at random."""
    stages: dict[str, StageConfig] = field(default_factory=dict)
    """The graph of stages, by name; the references decide the order."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    objective: str | None = None
    """`stage.metric` that a sweep optimises and a run returns."""
    until: str | None = None
    """Run only this stage and the stages that it needs."""
    dry_run: bool = False
    """Print the plan and stop."""
    preflight: Preflight = Preflight.refuse
    """What happens if this machine seems to lack memory, disk, packages or data for the plan."""
    verify: Verification = Verification.once
    """When the files of artifacts are compared with the hashes in their manifests, before any stage reads them."""


def typed(composed: DictConfig) -> SolarConfig:
    """The composed configuration as dataclasses.

    Raises:
        ConfigError: values that nobody set, a line each.
    """
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError(*(f"{key}: not set, expected a value; give it as {key}=..." for key in missing))
    if nested := list(_nested(composed)):
        raise ConfigError(*nested)
    config = OmegaConf.to_object(composed)
    if not isinstance(config, SolarConfig):
        raise ConfigError(
            "the configuration does not start from solar's own, which --config-path takes away; "
            "add a folder of yours with --config-dir=FOLDER"
        )
    unknown = list(_unknown(OmegaConf.to_container(composed), as_plain(config)))
    if unknown:
        raise ConfigError(
            "\n".join(f"{key}: no such key; without the plus, the message suggests a key" for key in unknown)
        )
    expand_home(config.stages)
    config.paths.root = str(Path(config.paths.root).expanduser()) if config.paths.root else ""
    return config


def _nested(node: DictConfig | ListConfig) -> Iterator[str]:
    """Lists and mappings in a list of plain values, such as `models: [{a: b}]`, which OmegaConf lets pass."""
    keys: Iterable[Any] = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        child = node._get_node(key)
        if not isinstance(child, DictConfig | ListConfig) or child._is_none() or child._is_interpolation():
            continue
        if isinstance(node, ListConfig) and node._metadata.element_type in _PLAIN:
            found = "a list" if isinstance(child, ListConfig) else "keys with values"
            yield f"{node._get_full_key(None)}.{key}: found {found}, expected {_PLAIN[node._metadata.element_type]}"
        else:
            yield from _nested(child)


def _unknown(composed: Any, known: Any, prefix: str = "") -> Iterator[str]:
    """Keys that a plus added and that no dataclass has."""
    if isinstance(composed, dict) and isinstance(known, dict):
        for key, value in composed.items():
            if str(key) not in known:
                yield f"{prefix}{key}"
            else:
                yield from _unknown(value, known[str(key)], f"{prefix}{key}.")
