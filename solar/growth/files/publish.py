"""The rest of a model folder: configuration with provenance, the files that travel along, publication in one step."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from solar.config.growth_plan import GrowthPlan
from solar.errors import ArtifactError
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import Decoder
from solar.weights.folder import CONFIG_FILE, INDEX_FILE, Checkpoint

PROVENANCE_KEY = "solar"
"""Where in config.json a grown model says how it was grown; `transformers` keeps it on load and save."""
TRAVELLING = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
"""Files of the base that the grown model needs as well: tokenizer, generation, chat template, licence."""
STAYING = ("pytorch_model.bin.index.json", "tf_model.h5.index.json", "manifest.json", INDEX_FILE, CONFIG_FILE)
CODE_KEYS = ("auto_map", "_attn_implementation", "_attn_implementation_internal", "trust_remote_code")
"""Keys of a config.json that choose code to run; they do not travel."""


def provenance(
    decoder: Decoder, layers: LayerPlan, growth: GrowthPlan | None, before: dict[str, Any]
) -> dict[str, Any]:
    """How a model was grown, as config.json keeps it. `before`: the base's config.json."""
    said = {"plan": "explicit", "init": "copy", "seam": "none"}
    if growth is not None and growth.plan is not None:
        said = {"plan": growth.plan.value, "init": growth.init.value, "seam": growth.seam.value}
        said |= {name: getattr(growth, name) for name in growth.given_parameters() if name not in ("layers", "slices")}
    grown: dict[str, Any] = {
        **said,
        "base_layers": layers.base_layers,
        "layers": list(layers.sources),
        "new": list(layers.new_positions),
        "seams": [[seam.position, seam.below, seam.above] for seam in layers.seams],
        "stack": decoder.prefixes[0],
    }
    return grown | ({"grown_from": before[PROVENANCE_KEY]} if PROVENANCE_KEY in before else {})


def grown_config(
    config: dict[str, Any], decoder: Decoder, own: dict[str, Any], grown: dict[str, Any]
) -> dict[str, Any]:
    """The whole config.json: the decoder's own part exchanged, provenance added, keys that choose code left out."""
    config = {key: value for key, value in config.items() if key not in CODE_KEYS}
    return {**_exchanged(config, decoder.config_path, own), PROVENANCE_KEY: grown}


def left_out(config: dict[str, Any]) -> list[str]:
    """What of a base's config.json does not travel, as lines for the user."""
    return [f"config.json: {key} left out: no code is taken from a model folder" for key in CODE_KEYS if key in config]


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def copy_travelling_files(base: Checkpoint, folder: Path) -> None:
    """Plain files only; links are followed if they stay in the base or lead to the cache it belongs to."""
    names = {path.name for pattern in TRAVELLING for path in base.folder.glob(pattern)} - set(STAYING)
    for name in sorted(names):
        path = base.folder / name
        if path.is_file() and _belongs(path, base.folder):
            (folder / name).write_bytes(path.read_bytes())
    templates = base.folder / "additional_chat_templates"
    if templates.is_dir() and not templates.is_symlink():
        (folder / templates.name).mkdir()
        for path in sorted(templates.glob("*.jinja")):
            if path.is_file() and _belongs(path, base.folder):
                (folder / templates.name / path.name).write_bytes(path.read_bytes())


@contextmanager
def published(target: Path, source: Path) -> Iterator[Path]:
    """A folder to build in, which becomes `target` in one step at the end; on any error nothing is left behind.

    Raises `ArtifactError` if the target exists, lies in `source` or cannot be made.
    """
    if target.resolve().is_relative_to(source.resolve()):
        raise ArtifactError(f"{target}: inside {source}, expected a folder of its own; choose another place")
    if os.path.lexists(target):
        raise ArtifactError(f"{target}: exists already, expected a new folder; choose another name or remove it")
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o777)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be made ({error.strerror}); choose another place") from error
    try:
        yield partial
        if os.path.lexists(target):
            raise ArtifactError(f"{target}: appeared meanwhile, expected a new folder; choose another name")
        partial.rename(target)
    except OSError as error:
        raise ArtifactError(
            f"{target}: cannot be written ({error.strerror}); free space or choose another place"
        ) from error
    finally:
        if partial.exists():
            _remove(partial)


def _remove(folder: Path) -> None:
    from shutil import rmtree  # with its compressors it takes long to import, and is for failures

    rmtree(folder, ignore_errors=True)


def _exchanged(config: dict[str, Any], path: tuple[str, ...], own: dict[str, Any]) -> dict[str, Any]:
    if not path:
        return {key: value for key, value in own.items() if key not in CODE_KEYS}
    return {**config, path[0]: _exchanged(config[path[0]], path[1:], own)}


def _belongs(path: Path, folder: Path) -> bool:
    root = folder.resolve()
    store = root.parent.parent / "blobs"
    return any(path.resolve().is_relative_to(place) for place in (root, store))
