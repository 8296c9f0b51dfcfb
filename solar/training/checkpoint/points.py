"""Which checkpoints a training has, resumes from, may be rolled back to, and removes."""

from dataclasses import dataclass
from pathlib import Path

from solar.training.checkpoint.folder import NAME, SafetensorsCheckpointIO, damage, discard


@dataclass(frozen=True)
class Points:
    """Steps whose checkpoints a training may be rolled back to: `first`, and every `every`-th step after it."""

    first: int
    every: int
    after: int
    """Bad steps in a row after which a training is rolled back."""

    def includes(self, step: int) -> bool:
        return (step - self.first) % self.every == 0

    def oldest_needed(self, step: int) -> int:
        """The oldest point that any step from `step` on may be rolled back to.

        >>> Points(first=8, every=5, after=3).oldest_needed(15), Points(first=8, every=5, after=3).oldest_needed(16)
        (8, 13)
        """
        return self.first + max(0, step - self.after - self.first) // self.every * self.every


def checkpoint_path(folder: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` optimizer steps."""
    return folder / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done at a checkpoint.

    >>> step_of(checkpoint_path(Path("checkpoints"), 120))
    120
    """
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """Whatever has the name of a checkpoint, damaged or not; the oldest first."""
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=step_of)


def newest_whole(folder: Path, identity: str | None = None) -> tuple[Path | None, list[str]]:
    """The undamaged checkpoint of the highest step, and a line about each damaged checkpoint of a higher step.

    `identity`: the id of the stage; its checkpoints may name no other.
    """
    problems: list[str] = []
    whole: Path | None = None
    for path in reversed(checkpoints(folder)):
        if (problem := damage(path, identity)) is None:
            whole = path
            break
        problems.append(f"{path}: {problem}")
    instead = "training starts again" if whole is None else f"training goes on from {whole.name}"
    return whole, [f"{problem}; {instead}" for problem in problems]


def prune(folder: Path, keep: int, points: Points | None = None, saved_step: int | None = None) -> None:
    """Remove all checkpoints but the newest `keep`, and the remains of interrupted saves.

    Checkpoints after `saved_step`, the last saved step, are damaged or undone: they would push out the only whole one.
    Keep the rollback points that the oldest kept checkpoint may still need after a restart.
    """
    present = checkpoints(folder)
    for path in [path for path in present if saved_step is not None and step_of(path) > saved_step]:
        SafetensorsCheckpointIO().remove_checkpoint(path)
        present.remove(path)
    for path in present[:-keep]:
        step, oldest_kept = step_of(path), step_of(present[-keep:][0])
        if points is None or not points.includes(step) or step < points.oldest_needed(oldest_kept):
            SafetensorsCheckpointIO().remove_checkpoint(path)
    for path in folder.glob("step-*.building"):
        discard(path)
