"""Load a model folder with `transformers`, whatever its class."""

from pathlib import Path
from typing import Any

import torch

WINDOW_KEYS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "sliding_window_size")


def model_class(config: Any) -> Any:
    """The class that config.json names, if `transformers` has it; else what it takes for a causal language model."""
    import transformers

    named = getattr(transformers, (config.architectures or [""])[0], None)
    return named if named is not None else transformers.AutoModelForCausalLM


def load(
    folder: Path, dtype: torch.dtype = torch.float32, window: int | None = None, device: str = "cpu"
) -> tuple[Any, dict[str, Any]]:
    """The model, in evaluation mode, and what `transformers` says of missing and unexpected keys.

    `window`: attention windows are cut to so many tokens, so that short texts show which layers have one; not where
    weights have the window's size. `device`: on `meta` no weight is kept, so that a model of any size fits.
    """
    from transformers import AutoConfig

    from solar.growth import unmaterialized

    config = AutoConfig.from_pretrained(folder)
    if getattr(config, "rescale_every", 0):
        config.rescale_every = 0  # rwkv halves the stream now and then, for half precision; moved layers would not know
    if window is not None:
        shorten_windows(config.get_text_config(decoder=True), window)
    model, info = unmaterialized.load(
        folder,
        model_class(config),
        config=config,
        dtype=dtype,
        attn_implementation="eager",
        device_map=device if device != "cpu" else None,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    if window is not None and info.get("mismatched_keys"):
        return load(folder, dtype, device=device)
    return model.eval(), info


def shorten_windows(text_config: Any, window: int) -> None:
    for key in WINDOW_KEYS:
        if isinstance(getattr(text_config, key, None), int):
            setattr(text_config, key, min(getattr(text_config, key), window))
