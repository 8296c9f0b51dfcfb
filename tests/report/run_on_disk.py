"""A small run on disk, with the files that stages leave."""

import json
from pathlib import Path

from solar.report.entries import Entry, Run

LAYERS = [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]
GROWN = {"plan": "dus", "base_layers": 8, "layers": LAYERS, "new": [6, 7, 8, 9], "seams": [[6, 5, 2]]}


class RunOnDisk:
    """Stages, written one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[Entry] = []

    def add(self, stage: str, kind: str, inputs: tuple[str, ...] = (), metrics: dict | None = None, **files) -> Entry:
        """`files`: name with `__` for `/` and `_json` for `.json` -> content."""
        path = self.root / f"{stage}-id"
        path.mkdir()
        for name, content in files.items():
            target = path / name.replace("__", "/").replace("_jsonl", ".jsonl").replace("_json", ".json")
            target.parent.mkdir(parents=True, exist_ok=True)
            lines = content if isinstance(content, list) and target.suffix == ".jsonl" else [content]
            target.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
        ids = {entry.stage: entry.manifest["id"] for entry in self.entries}
        manifest = {
            "stage": stage,
            "kind": kind,
            "id": f"{stage}-0123",
            "version": 1,
            "config": {"kind": kind, "seed": 3},
            "inputs": {name: ids[name] for name in inputs},
            "metrics": metrics or {},
            "files": {},
            "provenance": {"solar": "0.1", "python": "3.11", "packages": {"torch": "2.13"}, "platform": "linux"},
            "wall_seconds": 2.0,
        }
        self.entries.append(Entry(stage, kind, path, manifest))
        return self.entries[-1]

    @property
    def run(self) -> Run:
        return Run(self.entries)


def curve(*losses: float, step: int = 100) -> list[dict]:
    """A log: training loss at each step, held-out loss with it."""
    lines = []
    for number, loss in enumerate(losses):
        where = {"step": number * step, "tokens": number * step * 10}
        lines += [where | {"loss": loss + 0.1, "lr": 1e-3}, where | {"valid_loss": loss}]
    return lines


def scored(stage: str, loss: float, accuracy: float, layers: int = 12) -> dict:
    return {
        "stage": stage,
        "parameters": 2_000_000,
        "layers": layers,
        "nats_per_token": loss,
        "bits_per_byte": loss / 2,
        "choice_accuracy": accuracy,
        "details": {"choice_stderr": 0.02, "choice_chance": 0.25, "choice_questions": 40},
        "samples": [{"prompt": "What is it?", "text": f"I am {stage}."}],
    }
