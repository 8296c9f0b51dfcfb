"""The kinds of stages there are. Adding one: a dataclass, a function, a row here, a YAML, a test."""

from dataclasses import dataclass

from solar.config.base import StageConfig
from solar.config.data import PrepareDataConfig, PythonDocsConfig
from solar.config.evaluation import EvaluateConfig, ReportConfig
from solar.config.growth import DiagnoseConfig, UpscaleConfig
from solar.config.merging import MergeConfig
from solar.config.model import ImportModelConfig, InitModelConfig, TrainTokenizerConfig
from solar.config.preference import ChunkPairsConfig, DpoConfig, ReferenceLogpsConfig, StepwiseDpoConfig
from solar.config.soup import SoupConfig
from solar.config.synthesis import SynthesizeConfig
from solar.config.training import PretrainConfig, SftConfig


@dataclass(frozen=True)
class Kind:
    """One row: what the stage is told, what it leaves, and where the function is."""

    config: type[StageConfig]
    produces: str
    version: int
    """Part of the identity: raise it when the code makes something else from the same configuration."""
    trains: bool = False
    """Runs on every device, in processes of its own when there is more than one."""


STAGES: dict[str, Kind] = {
    "python_docs": Kind(PythonDocsConfig, "text", 2),
    "synthesize": Kind(SynthesizeConfig, "text", 3),
    "train_tokenizer": Kind(TrainTokenizerConfig, "tokenizer", 1),
    "prepare_data": Kind(PrepareDataConfig, "tokens", 6),
    "init_model": Kind(InitModelConfig, "model", 1),
    "import_model": Kind(ImportModelConfig, "model", 1),
    "diagnose": Kind(DiagnoseConfig, "diagnosis", 1),
    "upscale": Kind(UpscaleConfig, "model", 1),
    "pretrain": Kind(PretrainConfig, "model", 4, trains=True),
    "sft": Kind(SftConfig, "model", 4, trains=True),
    "reference_logps": Kind(ReferenceLogpsConfig, "logps", 3, trains=True),
    "chunk_pairs": Kind(ChunkPairsConfig, "chunks", 1),
    "dpo": Kind(DpoConfig, "model", 6, trains=True),
    "stepwise_dpo": Kind(StepwiseDpoConfig, "model", 1),
    "merge": Kind(MergeConfig, "model", 2),
    "soup": Kind(SoupConfig, "model", 1),
    "evaluate": Kind(EvaluateConfig, "scores", 2),
    "report": Kind(ReportConfig, "report", 1),
}

FITS: dict[str, tuple[str, ...]] = {"tokenizer": ("tokenizer", "model")}
"""What may stand where a product is asked for, if not only itself: a model folder carries its tokenizer."""


def function_of(kind: str) -> str:
    """Dotted name of the function that does a kind's work; resolved where the stage runs.

    >>> function_of("sft")
    'solar.stages.sft.run'
    """
    return f"solar.stages.{kind}.run"


def fits(product: str, wanted: str) -> bool:
    """Whether what a stage leaves can be read where `wanted` is asked for.

    >>> fits("model", "tokenizer"), fits("tokens", "model"), fits("scores", "any")
    (True, False, True)
    """
    return wanted == "any" or product in FITS.get(wanted, (wanted,))
