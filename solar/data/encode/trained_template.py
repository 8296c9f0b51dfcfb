"""The chat template that a model was trained with, saved with the model: what comes out is what was trained."""

import json
from pathlib import Path
from typing import Any

from solar.config.data import Task
from solar.data.encode import class_label, tokenizer
from solar.data.encode.encode import Encoder
from solar.data.store.header import TokensHeader
from solar.weights.travelling import TEMPLATE_FILES, chat_template

GENERATION = "generation_config.json"


def save_for_model(model: Path, data: Path) -> None:
    """Make the tokenizer in a model folder the one that the model was trained with on a prepared data folder.

    Conversations and pairs: the tokenizer's chat template becomes the template of the data, and generation stops at
    each token that ends an answer in the data. All tasks: plain transformers uses `tokenizer.json` as it is
    (`class_label.relabel`). Files that already say so keep their bytes. Nothing is done for a model without tokenizer.
    """
    if not (model / class_label.FILE).is_file():
        return
    class_label.relabel(model)
    header = TokensHeader.read(data)
    if header.task == Task.pretrain:
        return
    encoder = Encoder(tokenizer.load(data), header.template)
    if chat_template(model) != encoder.renderer.jinja:
        _write_template(model, encoder.renderer.jinja)
    _add_stops(model, encoder.end_of_turn_ids())


def _write_template(model: Path, template: str) -> None:
    for name in TEMPLATE_FILES:
        (model / name).unlink(missing_ok=True)
    path = model / class_label.CONFIG
    settings = _read(path)
    _write(path, {**settings, "chat_template": template})


def _add_stops(model: Path, ids: list[int]) -> None:
    """Generation stops at what the folder names already and at `ids`."""
    path = model / GENERATION
    settings = _read(path)
    named = settings.get("eos_token_id", _read(model / "config.json").get("eos_token_id"))
    stops = named if isinstance(named, list) else [] if named is None else [named]
    if not set(ids) <= set(stops):
        _write(path, {**settings, "eos_token_id": [*stops, *(i for i in ids if i not in stops)]})


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
