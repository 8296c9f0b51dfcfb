"""Logs of one JSON object a line, cut back to the last step that is done when a training resumes."""

import json
import os
import warnings
from pathlib import Path

from solar.training.modules.step import TrainingModule


def cut_back(path: Path, module: TrainingModule) -> int:
    """Keep the whole lines of a log up to the last step that is done; return their number.

    Later lines belong to steps that a kill has undone.
    """
    cut = path.with_name(f".{path.name}.cut")
    cut.unlink(missing_ok=True)  # left by a cut that was itself interrupted
    lines = _lines_until(path, module)
    if path.exists() and path.read_bytes() != (text := "".join(lines).encode()):
        with cut.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        cut.replace(path)
    return len(lines)


def _lines_until(path: Path, module: TrainingModule) -> list[str]:
    if not path.exists() or module.steps_done == module.first_step:
        return []
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True), 1):
        step = _step_of_line(line)
        if step is None and line.endswith("\n"):
            warnings.warn(f"{path}:{number}: damaged, and left out", stacklevel=2)
        elif step is not None and line.endswith("\n") and step <= module.steps_done:
            lines.append(line)
    return lines


def _step_of_line(line: str) -> int | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if isinstance(step, int) else None
