"""Refuse tokens that do not fit the model, before the first pass."""

import warnings
from pathlib import Path

import torch
from transformers import PreTrainedModel

from solar.data.encode.tokenizer import token_of_another_id
from solar.data.store.dataset import TokenDataset
from solar.errors import DataError


def check_vocabulary(network: PreTrainedModel, vocab_size: int, model_dir: Path, data_dir: Path) -> None:
    """Raises `DataError` if the data has tokens that the model cannot embed, or that are others in its tokenizer."""
    rows = network.get_input_embeddings().weight.shape[0]
    if vocab_size > rows:
        raise DataError(
            f"{data_dir}: tokens of a vocabulary of {vocab_size}, but {model_dir} embeds {rows}; "
            "prepare the data with the model's own tokenizer"
        )
    if difference := token_of_another_id(data_dir / "tokenizer", model_dir):
        raise DataError(
            f"{data_dir}: made with another tokenizer than that of {model_dir}: {difference}; prepare the data with "
            "the model's own tokenizer"
        )


def check_positions(network: PreTrainedModel, rows: TokenDataset, model_dir: Path, data_dir: Path) -> None:
    """Raises `DataError` beyond a table of positions; warns beyond computed positions, which the model has not seen."""
    config = network.config.get_text_config(decoder=True)
    most, longest = getattr(config, "max_position_embeddings", None), rows.longest_document
    if not isinstance(most, int) or longest <= most:
        return
    problem = f"{data_dir}: a document of {longest} tokens in a row, but {model_dir} has {most} positions"
    tables = [module for module in network.modules() if isinstance(module, torch.nn.Embedding)]
    # OPT and similar models have two more entries than positions.
    if any(most <= table.num_embeddings <= most + 2 for table in tables if table is not network.get_input_embeddings()):
        raise DataError(f"{problem}; prepare the data with sequence_length {most} or less")
    warnings.warn(f"{problem}; the model was not trained beyond them", stacklevel=2)
