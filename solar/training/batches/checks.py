"""Refuse a model and tokens that do not belong together, before a step is done."""

import warnings
from pathlib import Path

import torch
from transformers import PreTrainedModel

from solar.data.store.dataset import TokenDataset
from solar.errors import DataError


def check_vocabulary(network: PreTrainedModel, vocab_size: int, model_dir: Path, data_dir: Path) -> None:
    rows = network.get_input_embeddings().weight.shape[0]
    if vocab_size > rows:
        raise DataError(
            f"{data_dir}: tokens of a vocabulary of {vocab_size}, but {model_dir} embeds {rows}; "
            "prepare the data with the model's own tokenizer"
        )


def check_positions(network: PreTrainedModel, rows: TokenDataset, model_dir: Path, data_dir: Path) -> None:
    """A table of positions ends; computed ones go on, into what the model has never seen."""
    config = network.config.get_text_config(decoder=True)
    most, longest = getattr(config, "max_position_embeddings", None), rows.longest_document
    if not isinstance(most, int) or longest <= most:
        return
    told = f"{data_dir}: a document of {longest} tokens in a row, but {model_dir} has {most} positions"
    tables = [module for module in network.modules() if isinstance(module, torch.nn.Embedding)]
    # OPT and its kin keep two places more than they have positions.
    if any(most <= table.num_embeddings <= most + 2 for table in tables if table is not network.get_input_embeddings()):
        raise DataError(f"{told}; prepare the data with sequence_length {most} or less")
    warnings.warn(f"{told}; it goes on beyond them, untrained", stacklevel=2)
