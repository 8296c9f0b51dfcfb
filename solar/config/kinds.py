"""All kinds of stages. A new kind is a dataclass, a function, a row here, a YAML and a test."""

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
    """One kind: its configuration, its product, and the version of its code."""

    config: type[StageConfig]
    produces: str
    version: int
    """Part of the id: raise it when the code makes another result from the same configuration."""
    trains: bool = False
    """Runs on every device; on more than one, in processes of its own."""


STAGES: dict[str, Kind] = {
    "python_docs": Kind(PythonDocsConfig, "text", 2),
    "synthesize": Kind(SynthesizeConfig, "text", 3),
    "train_tokenizer": Kind(TrainTokenizerConfig, "tokenizer", 1),
    "prepare_data": Kind(PrepareDataConfig, "tokens", 5),
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
"""Product asked for -> products that serve: a model folder also holds its tokenizer."""


def function_of(kind: str) -> str:
    """Dotted name of a kind's function; imported only where the stage runs.

    >>> function_of("sft")
    'solar.stages.sft.run'
    """
    return f"solar.stages.{kind}.run"


def fits(product: str, wanted: str) -> bool:
    """Whether a stage's product can be read where `wanted` is asked for.

    >>> fits("model", "tokenizer"), fits("tokens", "model"), fits("scores", "any")
    (True, False, True)
    """
    return wanted == "any" or product in FITS.get(wanted, (wanted,))
