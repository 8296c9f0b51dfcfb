"""What is known about each stage's model before it exists: depth, sizes, parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solar.config.base import StageConfig
from solar.config.growth import DiagnoseConfig, UpscaleConfig
from solar.config.merging import MergeConfig
from solar.config.model import ArchitectureConfig, ImportModelConfig, InitModelConfig
from solar.config.soup import SoupConfig
from solar.config.training import TrainConfig
from solar.errors import ArtifactError, PlanError
from solar.growth.plans import resolve
from solar.weights.folder import read_config
from solar.weights.work import LayerWork, ModelWork, work_of_folder


@dataclass(frozen=True)
class ModelFacts:
    """What is known about a model; None for unknown values."""

    architecture: ArchitectureConfig | None
    num_hidden_layers: int | None
    bytes_per_parameter: int
    """Of a stored weight."""
    description: str = ""
    """For a grown model: its layers in words."""
    work: ModelWork | None = None
    """What training costs; None where the shapes are not known yet."""
    depends_on_batches: bool = False
    """Its config asks for dropout or a balance loss, so that training depends on how batches are cut."""

    new_layers: int = 0
    """Number of layers that the last growth added."""

    @property
    def parameters(self) -> int | None:
        """None where the architecture is not known."""
        return self.architecture.parameters(self.num_hidden_layers) if self.architecture else None

    @property
    def stored_bytes(self) -> int | None:
        """Size of the weights on disk."""
        return None if self.parameters is None else self.parameters * self.bytes_per_parameter


def model_facts(stages: Mapping[str, StageConfig]) -> dict[str, ModelFacts]:
    """Facts of every stage that leaves a model; `stages` are in the order they run.

    Raises:
        PlanError: a growth plan that its base is too shallow for, or models of different shapes to be merged.
    """
    facts: dict[str, ModelFacts] = {}
    for name, stage in stages.items():
        if isinstance(stage, InitModelConfig):
            depth, work = stage.architecture.num_hidden_layers, work_of_architecture(stage.architecture)
            facts[name] = ModelFacts(stage.architecture, depth, 4, work=work)
        elif isinstance(stage, ImportModelConfig):
            facts[name] = _imported(stage)
        elif isinstance(stage, UpscaleConfig):
            facts[name] = _grown(name, stage, facts[stage.model])
        elif isinstance(stage, DiagnoseConfig):
            _check_candidates(name, stage, facts[stage.model].num_hidden_layers)
        elif isinstance(stage, TrainConfig):
            facts[name] = facts[stage.model]
        elif isinstance(stage, MergeConfig | SoupConfig):
            facts[name] = _merged(name, stage, facts)
    return facts


def work_of_architecture(sizes: ArchitectureConfig) -> ModelWork:
    """Of a Llama.

    >>> mistral = ArchitectureConfig(32, 4096, 14336, 32, 8, 32000, 4096, False, 1e4, 1e-5)
    >>> f"{work_of_architecture(mistral).grown([*range(24), *range(8, 32)]).flops(4096):,.0f}"
    '68,433,346,560'
    """
    layer = LayerWork(sizes.layer_parameters - 2 * sizes.hidden_size, sizes.hidden_size)
    return ModelWork((layer,) * sizes.num_hidden_layers, sizes.vocab_size * sizes.hidden_size)


def _merged(name: str, stage: MergeConfig | SoupConfig, facts: Mapping[str, ModelFacts]) -> ModelFacts:
    """Facts of the first model. Raises `PlanError` if another model is known to have another shape."""
    first = stage.models[0]
    base = stage.base if isinstance(stage, MergeConfig) else None
    for other in [*([] if base is None else [base]), *stage.models[1:]]:
        for measure, unit in (("num_hidden_layers", "layers"), ("parameters", "parameters")):
            ours, theirs = (getattr(facts[model], measure) for model in (first, other))
            if None not in (ours, theirs) and ours != theirs:
                raise PlanError(
                    f"stages.{name}: '{first}' has {ours:,} {unit}, '{other}' has {theirs:,}; "
                    "only models of one shape can be merged"
                )
    return facts[first]


def _check_candidates(name: str, stage: DiagnoseConfig, num_hidden_layers: int | None) -> None:
    if num_hidden_layers is None:
        return
    for candidate, plan in stage.plans.items():
        try:
            resolve(plan, num_hidden_layers)
        except PlanError as error:
            raise PlanError(f"stages.{name}.plans.{candidate}.{error}") from None


def _imported(stage: ImportModelConfig) -> ModelFacts:
    size = {"float32": 4, "bfloat16": 2, "float16": 2}.get(stage.dtype or "", 2)
    config = _config_of_folder(stage.path)
    by_batch = _depends_on_batches(config)
    if (sizes := stage.expects) is not None:
        return ModelFacts(sizes, sizes.num_hidden_layers, size, "", work_of_architecture(sizes), by_batch)
    work = work_of_folder(Path(stage.path)) if stage.path else None
    depth = config.get("num_hidden_layers")
    return ModelFacts(None, depth if isinstance(depth, int) else None, size, "", work, by_batch)


def _config_of_folder(path: str | None) -> dict[str, Any]:
    """A local folder's config.json; empty where there is none that can be read, which the stage will refuse."""
    try:
        return read_config(Path(path)) if path else {}
    except ArtifactError:
        return {}


def _depends_on_batches(config: dict[str, Any]) -> bool:
    """Whether a model's config asks for dropout or for the experts' balance loss.

    >>> _depends_on_batches({"resid_pdrop": 0.1}), _depends_on_batches({"attention_dropout": 0.0})
    (True, False)
    >>> _depends_on_batches({"text_config": {"output_router_logits": True}})
    True
    """
    for key, value in config.items():
        if isinstance(value, dict) and _depends_on_batches(value):
            return True
        dropout = key.endswith(("dropout", "pdrop", "_drop")) and isinstance(value, int | float) and value > 0
        if dropout or (key == "output_router_logits" and value is True):
            return True
    return False


def _grown(name: str, stage: UpscaleConfig, base: ModelFacts) -> ModelFacts:
    size = {"float32": 4, "bfloat16": 2, "float16": 2}.get(stage.dtype or "", base.bytes_per_parameter)
    if stage.diagnosis is not None or base.num_hidden_layers is None:
        architecture = base.architecture if stage.diagnosis is None else None
        return ModelFacts(architecture, None, size, depends_on_batches=base.depends_on_batches)
    try:
        plan = resolve(stage, base.num_hidden_layers)
    except PlanError as error:
        raise PlanError(f"stages.{name}.{error}") from None
    work = base.work.grown(plan.sources) if base.work else None
    depth, new_layers = plan.num_hidden_layers, len(plan.new_positions)
    return ModelFacts(base.architecture, depth, size, str(plan), work, base.depends_on_batches, new_layers)
