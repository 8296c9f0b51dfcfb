"""The stages of a run and their files, as a report reads them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solar.report.numbers import is_finite
from solar.weights.travelling import chat_template


@dataclass(frozen=True)
class Entry:
    """A finished stage."""

    stage: str
    """Its name in this run."""
    kind: str
    path: Path
    manifest: dict[str, Any]
    """`manifest.json` of its artifact."""

    @property
    def is_model(self) -> bool:
        """Whether the stage leaves a model."""
        return (self.path / "model").is_dir()

    def read(self, name: str) -> Any:
        """Content of a JSON file of the artifact; None if the file does not exist."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def chat_template(self) -> str | None:
        """The chat template of the model that the stage leaves; None if there is none."""
        return chat_template(self.path / "model") if self.is_model else None

    def log(self) -> list[dict[str, Any]]:
        """Lines of the training log, in order of steps; empty for a stage that does not train."""
        path = self.path / "logs" / "metrics.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

    def growth(self) -> dict[str, Any] | None:
        """How the model was grown, if this stage grew it: `base_layers`, `layers`, `new`, `seams`, `plan`, ..."""
        config = self.read("model/config.json") if self.kind == "upscale" else None
        grown: dict[str, Any] | None = (config or {}).get("solar")
        return grown


@dataclass(frozen=True)
class Run:
    """All stages that a report shows, in the order they ran."""

    entries: list[Entry]

    def parents(self, entry: Entry) -> list[Entry]:
        """The models that a model was made of, by id: an artifact may have been made under another stage's name."""
        ids = set(entry.manifest["inputs"].values())
        return [other for other in self.entries if other.is_model and other.manifest["id"] in ids]

    def models(self) -> list[Entry]:
        """Stages that leave weights."""
        return [entry for entry in self.entries if entry.is_model]

    def last_models(self) -> list[Entry]:
        """Models that no other model was made of."""
        used = {parent.stage for entry in self.models() for parent in self.parents(entry)}
        return [entry for entry in self.models() if entry.stage not in used]

    def scores(self) -> list[dict[str, Any]]:
        """Rows of all evaluations, each with the values of one model."""
        tables = [entry.read("scores.json") for entry in self.entries if entry.kind == "evaluate"]
        return [row for table in tables if table for row in table]

    def score(self, stage: str) -> dict[str, Any]:
        """Measurements of a stage's model, without values that are not finite; empty if it was not scored."""
        return {key: value for key, value in self._row(stage).items() if not _is_broken(value)}

    def not_finite(self, stage: str) -> list[str]:
        """Measures of a stage's model whose values are not finite."""
        return [key for key, value in self._row(stage).items() if _is_broken(value)]

    def _row(self, stage: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for row in self.scores():
            merged |= row if row["stage"] == stage else {}
        return merged


def _is_broken(value: object) -> bool:
    return value is None or (isinstance(value, float) and not is_finite(value))
