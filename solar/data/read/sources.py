"""A source of a mixture as a stream of rows: a stage's text, local files, or a hub data set at a pinned commit."""

from collections.abc import Iterator
from pathlib import Path

from solar.config.data import SourceConfig
from solar.config.splits import named_folder, split_of_file
from solar.data.read import files
from solar.data.read.messages import Located
from solar.errors import DataError


def rows(source: SourceConfig, stage_folder: Path | None = None) -> Iterator[Located]:
    """Every row of a source, with its place; `stage_folder` is the artifact that `source.stage` names."""
    if source.hub is not None:
        return _hub(source, source.hub)
    path = _path_of(source, stage_folder)
    return (located for file in files.find(path, source.split) for located in files.read(file))


def files_name_splits(source: SourceConfig, stage_folder: Path | None = None) -> bool:
    """Whether a hub, or the names of local files, say which split the rows of a source belong to."""
    path = _path_of(source, stage_folder)
    return source.hub is not None or any(split_of_file(file, path) for file in files.find(path, source.split))


def folder_of(source: SourceConfig, stage_folder: Path | None = None) -> Path:
    """The folder that contains the files of a local source; the same data may lie elsewhere on another machine."""
    path = stage_folder or Path(source.path or "")
    return path if path.is_dir() else named_folder(path.parent)


def _path_of(source: SourceConfig, stage_folder: Path | None) -> Path:
    if stage_folder is None:
        return Path(source.path or "")
    return stage_folder / source.file if source.file else stage_folder


def _hub(source: SourceConfig, name: str) -> Iterator[Located]:
    """Rows as they arrive over the network; nothing is stored."""
    import datasets  # takes a second, and most runs have no source on a hub

    try:
        stream = datasets.load_dataset(
            name, source.subset, split=source.split, revision=source.revision, streaming=True
        )
        for number, row in enumerate(stream, 1):
            yield f"{name}@{source.revision} {source.split} row {number}", row
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name}@{source.revision}: cannot be read from the hub ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
