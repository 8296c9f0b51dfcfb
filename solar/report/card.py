"""Model cards: what a model is, how it was made, its scores, and how to use it."""

import hashlib
import re
from difflib import unified_diff
from pathlib import Path
from typing import Any

from solar.report.entries import Entry, Run
from solar.report.numbers import compact, duration, plain
from solar.report.sections.tables import score_table

_DIFFERENCE_LINES = 60
"""Lines of a difference between two chat templates that a card shows."""
_FRONT = """\
---
library_name: transformers
pipeline_tag: text-generation
{}---
"""
_USE = """\
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/of/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```
"""


def write_card(entry: Entry, run: Run, output: Path) -> None:
    """Write the card of one model to the file `output`; `run` holds the models it descends from."""
    made = "\n".join(_step(step) for step in ancestry(entry, run))
    parts = [
        _front(entry, run),
        f"# {entry.stage}",
        _summary(entry, run),
        *_growth(entry, run),
        *_template(entry, run),
        f"## How it was made\n\n{made}",
    ]
    text = "\n\n".join(part.strip() for part in [*parts, *_scores(entry, run), _USE])
    output.write_text(text + "\n", encoding="utf-8")


def _front(entry: Entry, run: Run) -> str:
    """The front matter that model hubs read: tags, and the base from a hub."""
    family = ancestry(entry, run)
    tags = ["depth-up-scaling"] if any(step.growth() for step in family) else []
    tags += ["merge"] if any(step.kind in ("merge", "soup") for step in family) else []
    bases = dict.fromkeys(step.manifest["config"].get("hub") for step in family if step.kind == "import_model")
    lines = [f"tags: [{', '.join(tags)}]\n"] if tags else []
    lines += [f"base_model: [{', '.join(base for base in bases if base)}]\n"] if any(bases) else []
    return _FRONT.format("".join(lines))


def ancestry(entry: Entry, run: Run) -> list[Entry]:
    """The models that a model descends from, oldest first, and the model itself."""
    models: dict[str, Entry] = {}

    def visit(model: Entry) -> None:
        for parent in run.parents(model):
            visit(parent)
        models.setdefault(model.stage, model)

    visit(entry)
    return list(models.values())


def _summary(entry: Entry, run: Run) -> str:
    config: dict[str, Any] = entry.read("model/config.json") or {}
    score = run.score(entry.stage)
    size = f" of {compact(score['parameters'])} parameters" if "parameters" in score else ""
    architecture = (config.get("architectures") or ["language model"])[0]
    return (
        f"A {architecture}{size} with {config.get('num_hidden_layers', '?')} layers; stage id `{entry.manifest['id']}`."
    )


def _growth(entry: Entry, run: Run) -> list[str]:
    lines = []
    for step in ancestry(entry, run):
        if grown := step.growth():
            layers = " ".join(map(str, grown["layers"]))
            lines.append(
                f"Grown in depth from {grown['base_layers']} to {len(grown['layers'])} layers "
                f"({grown['plan']}); its layers were copied from these of the base: `{layers}`."
            )
    return lines


def _template(entry: Entry, run: Run) -> list[str]:
    """The chat template's hash, and how the template differs from that of the oldest base."""
    template = entry.chat_template()
    if template is None:
        return []
    base = next((step for step in ancestry(entry, run) if step is not entry and step.chat_template() is not None), None)
    line = f"## Chat template\n\nSHA-256 `{hashlib.sha256(template.encode()).hexdigest()}`"
    if base is None:
        return [f"{line}; no model that it descends from has one."]
    before = base.chat_template() or ""
    if before == template:
        return [f"{line}, that of `{base.stage}`."]
    changed = unified_diff(before.splitlines(), template.splitlines(), base.stage, entry.stage, lineterm="", n=1)
    lines = [*changed][:_DIFFERENCE_LINES]
    ticks = [len(ticks) for line in lines for ticks in re.findall("`+", line)]
    fence = "`" * max(3, *(count + 1 for count in [0, *ticks]))
    return [f"{line}; it differs from that of `{base.stage}`:", "\n".join([f"{fence}diff", *lines, fence])]


def _step(entry: Entry) -> str:
    config = entry.manifest["config"]
    settings = {key: config[key] for key in ("plan", "m", "duration", "method", "weights", "beta") if config.get(key)}
    words = ", ".join(f"{key} {plain(value)}" for key, value in settings.items())
    if base := (config.get("adapter") or {}).get("base"):
        words += f", an adapter beside weights rounded to {base}, which the model keeps"
    kind, took = entry.kind.replace("_", " "), duration(entry.manifest["wall_seconds"])
    return f"- **{entry.stage}** ({kind}, `{entry.manifest['id']}`): {words or 'as it came'}; {took}"


def _scores(entry: Entry, run: Run) -> list[str]:
    titles, rows = score_table(run)
    family = {model.stage for model in ancestry(entry, run)}
    relatives = [(model, cells) for model, cells in rows if model.stage in family]
    if not relatives:
        return []
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for model, cells in relatives:
        lines.append(f"| {model.stage} | " + " | ".join(f"{cell.text} {cell.note}".strip() for cell in cells) + " |")
    return ["## How good it is\n\nOn text that no training saw.\n\n" + "\n".join(lines)]
