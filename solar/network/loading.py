"""A Hugging Face decoder as training needs it: loaded in the right number format, read as hidden states and a head."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from solar.config.training import Precision
from solar.errors import StageError
from solar.growth import unmaterialized
from solar.network.attention import NAME as SEGMENT_ATTENTION
from solar.network.attention import Segment
from solar.network.balance import Routed, balance_weight
from solar.network.head import body_of, check_head
from solar.network.isolation import has_sinks, in_segments, one_by_one, runs_in_segments, segments_hold, takes_segments

DTYPES = {
    Precision.fp32: torch.float32,
    Precision.bf16_mixed: torch.float32,
    Precision.bf16_true: torch.bfloat16,
}
"""The number format weights are trained in."""


def read_config(model_dir: Path) -> PreTrainedConfig:
    """Raises `StageError` for a model that does more than read and write text."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.get_text_config(decoder=True) is not config:
        raise StageError(
            f"{model_dir}/config.json: model type {config.model_type} found, expected a decoder of text alone; solar "
            "grows and merges models that also see or hear, and trains none of them"
        )
    return config


def load_network(model_dir: Path, precision: Precision) -> PreTrainedModel:
    """The model of a Hugging Face folder, every weight from its file, nothing from outside the folder.

    Raises `StageError` if weights are missing or of another shape, or if the architecture cannot be trained here.
    A family that leaks from document to document in one row keeps its own attention: see `solar.network.isolation`.
    """
    config = read_config(model_dir)
    attention = {"attn_implementation": SEGMENT_ATTENTION} if takes_segments(config) else {}
    with quiet():
        network, report = unmaterialized.load(
            model_dir,
            AutoModelForCausalLM,
            config=config,
            dtype=DTYPES[precision],
            **attention,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise StageError(
                f"{model_dir}: {kind.replace('_', ' ')} {sorted(map(str, report[kind]))[:3]}, expected none"
            )
    if attention and (has_sinks(network) or not segments_hold(network)):
        with quiet():
            network.set_attn_implementation("eager" if has_sinks(network) else "sdpa")
    network.config.use_cache = False
    check_head(network, model_dir)
    if getattr(config, "output_router_logits", False) and not balance_weight(network):
        told = "output_router_logits asks for a load-balancing loss of the experts, which training here leaves out"
        warnings.warn(f"{model_dir}/config.json: {told}", stacklevel=2)
    network.train()
    return network


class Decoder(nn.Module):
    """A network read as hidden states: the module through whose forward a sharded network must be called."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network
        self.balance_weight = balance_weight(network)
        self.routed: list[Routed] = []
        """What routers said in the last pass, if a loss balances them."""

    def forward(self, input_ids_T: Tensor, position_ids_T: Tensor, segments: list[Segment]) -> Tensor:
        """The last hidden state of every token of one row of documents, [1, T, D]."""
        self.routed = []
        body = self._routing if self.balance_weight and self.network.training else body_of(self.network)
        if runs_in_segments(self.network):
            return in_segments(body, input_ids_T, position_ids_T, segments)
        return one_by_one(body, input_ids_T, segments)

    def _routing(self, **said: Any) -> Any:
        output = body_of(self.network)(**said, output_router_logits=True)
        self.routed.append(output.router_logits)
        return output


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of transformers; what its loader would say is checked and raised here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def describe(network: nn.Module) -> dict[str, Any]:
    """Parameters in all and those that are trained."""
    parameters = list(network.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
