"""A model folder, opened for reading: weights as they are stored, no gradients, no code that came with them."""

from pathlib import Path
from typing import Any

from solar.data.encode import tokenizer
from solar.errors import DataError, StageError
from solar.growth import unmaterialized


def load(folder: Path, device: str = "cpu") -> tuple[Any, Any]:
    """The model in evaluation mode on `device`, and its tokenizer.

    Raises:
        StageError: `folder` is no Hugging Face folder with safetensors, or asks to run its own code.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not (folder / "config.json").is_file():
        raise StageError(f"{folder}: has no config.json, expected a Hugging Face model folder")
    logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = unmaterialized.load(folder, AutoModelForCausalLM, dtype="auto", use_safetensors=True, **local)
        words = tokenizer.read(folder)
    except (OSError, ValueError, DataError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(
            f"{folder}: cannot be loaded ({reason}); expected a whole Hugging Face model folder"
        ) from error
    return model.to(device).eval().requires_grad_(False), words
