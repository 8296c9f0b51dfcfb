"""The record of a run: `runs/<experiment>/<time>/` with configuration, overrides, plan and artifacts."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from solar.artifacts.atomic import write_atomically
from solar.artifacts.listing import refuse_unreal_folder
from solar.artifacts.store import Artifact
from solar.config.kinds import STAGES
from solar.config.root import SolarConfig
from solar.config.training import CONTROL_SUFFIX
from solar.engine.context import OVERRIDES
from solar.errors import ConfigError
from solar.plan.plan import Plan, PlannedStage
from solar.redaction import redact


@dataclass(frozen=True)
class Record:
    """One run's folder."""

    folder: Path
    config: SolarConfig
    folders: Mapping[str, str]
    """Stage -> name of its artifact's folder, as planned."""

    def note_folders(self, artifacts: Mapping[str, Artifact]) -> None:
        """Correct the record where another run made an artifact meanwhile, under another stage's name."""
        folders = {**self.folders, **{name: artifact.path.name for name, artifact in artifacts.items()}}
        if folders != self.folders:
            _write_folders(self.folder, folders)

    def show_results(self, artifacts: Mapping[str, Artifact], console: Console) -> None:
        """Print the scores side by side, and the paths of the report and the last model."""
        for artifact in artifacts.values():
            if artifact.manifest.kind == "evaluate":
                console.print(scores_table(artifact))
        for artifact in artifacts.values():
            if STAGES[artifact.manifest.kind].produces == "report":
                console.print(f"report  {artifact.path / 'index.html'}", highlight=False, soft_wrap=True)
        controls = {name + CONTROL_SUFFIX for name in artifacts}
        products = [artifact for name, artifact in artifacts.items() if name not in controls]
        models = [artifact for artifact in products if (artifact.path / "model").is_dir()]
        if models:
            console.print(f"model   {models[-1].path / 'model'}", highlight=False, soft_wrap=True)

    def objective(self, artifacts: Mapping[str, Artifact]) -> float | None:
        """The number that a sweep optimises: `stage.metric`."""
        if self.config.objective is None:
            return None
        stage, _, metric = self.config.objective.partition(".")
        value: object = artifacts[stage].manifest.metrics if stage in artifacts else {}
        for part in metric.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, int | float):
            known = ", ".join(sorted(artifacts[stage].manifest.metrics)) if stage in artifacts else "none"
            raise ConfigError(f"objective: '{self.config.objective}' is no number of stage {stage}; it has: {known}")
        return float(value)


def open_run(config: SolarConfig, composed: DictConfig, plan: Plan, overrides: Sequence[str] = ()) -> Record:
    """Make a folder that no other run has, and write the configuration and the plan into it.

    `overrides` are those of the command line. The configuration is written unresolved, so that values from the
    environment stay references, and without keys and passwords.
    """
    runs = Path(config.paths.root) / "runs" / config.name
    refuse_unreal_folder(runs)
    runs.mkdir(parents=True, exist_ok=True)
    stamp, folder = time.strftime("%Y%m%d-%H%M%S"), None
    for attempt in range(1000):
        folder = runs / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    assert folder is not None
    (folder / "config.yaml").write_text(redact(OmegaConf.to_yaml(composed, resolve=False)), encoding="utf-8")
    (folder / OVERRIDES).write_text(redact("".join(f"{override}\n" for override in overrides)), encoding="utf-8")
    # Folders are recorded before they exist, so that commands find the stages of a run that was stopped.
    folders = {name: _folder(stage) for name, stage in plan.stages.items()}
    _write_folders(folder, folders)
    lines = [plan.headline, *folders.values()]
    (folder / "plan.txt").write_text(redact("\n".join(lines)) + "\n", encoding="utf-8")
    return Record(folder, config, folders)


def _folder(stage: PlannedStage) -> str:
    """Name of the artifact's folder, which may be that of another stage of the same id."""
    return stage.artifact.path.name if stage.artifact else f"{stage.same_as or stage.name}-{stage.id}"


def _write_folders(run: Path, folders: Mapping[str, str]) -> None:
    write_atomically(run / "artifacts.json", json.dumps(folders, indent=1) + "\n")


def scores_table(artifact: Artifact) -> Table:
    """The scores of all models, a row for each."""
    rows = json.loads((artifact.path / "scores.json").read_text(encoding="utf-8"))
    columns = list(
        dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, int | float | str))
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "stage" else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "")
