"""A model folder, opened for scores and text: its decoder and its tokenizer."""

from pathlib import Path
from typing import Any

from solar.data.encode import tokenizer
from solar.network.decoder import Decoder
from solar.network.folder import refused_in_one_line
from solar.network.loading import load_decoder


def load(folder: Path, device: str = "cpu") -> tuple[Decoder, Any]:
    """The decoder in evaluation mode on `device`, and the folder's tokenizer.

    Raises:
        SolarError: `folder` is not a Hugging Face folder with whole safetensors of plain numbers and a fast tokenizer.
    """
    decoder = load_decoder(folder, device)
    with refused_in_one_line(folder):
        return decoder, tokenizer.read(folder)
