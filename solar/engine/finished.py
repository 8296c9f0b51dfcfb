"""The artifacts that a plan finds are compared with their manifests before work starts."""

from contextlib import nullcontext

from solar.artifacts.store import Store
from solar.engine.progress import Progress
from solar.plan.plan import Plan

WORTH_A_LINE_BYTES = 2 * 10**9
"""Reading so much takes seconds."""


def verify_finished(plan: Plan, store: Store, progress: Progress) -> None:
    """Read the files of finished stages that were written since they were last read.

    Raises `ArtifactError`, which names stage and file, for a file that is not what its stage wrote.
    """
    artifacts = {name: stage.artifact for name, stage in plan.stages.items() if stage.artifact is not None}
    unread = sum(sum(store.known.unread(made.path, made.manifest).values()) for made in artifacts.values())
    with progress.stage("verify") if unread >= WORTH_A_LINE_BYTES else nullcontext() as line:
        for name, artifact in artifacts.items():
            if line is not None:
                line.update(name)
            store.verify(artifact, name)
        if line is not None:
            line.ended = f"{unread / 1e9:.1f} GB of artifacts read"
    store.known.save()
