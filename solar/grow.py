"""Grow a checkpoint without writing an experiment: `python -m solar.grow BASE OUT m=8`.

Keys are those of `stages.upscale` (`m=8`, `plan=interleave every=4 init=zero_out`, `layers=[0,1,1,2]`) and the options
below. `python -m solar.grow convert BASE OUT` turns .bin files into safetensors, and quantised weights into floats.
Exit status 0: written and verified; 1: refused, with one line that says why, and nothing left behind.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solar.arguments import read, run
from solar.artifacts.damage import refuse_damaged
from solar.config.growth_plan import PARAMETERS, GrowthPlan, SeamInit
from solar.errors import ConfigError, PlanError, printable
from solar.growth.files.verify import Verify
from solar.growth.files.writer import Link
from solar.growth.grow import GrowthReport, grow
from solar.growth.job import Job, work_out
from solar.growth.process import ask
from solar.network.device import check_device
from solar.weights.folder import read_config
from solar.weights.quantised import quantisation


@dataclass
class GrowOptions(GrowthPlan):
    """Options of the command line."""

    link: Link = Link.never
    """`auto` gives a file that equals the base's a second name instead of a copy."""
    verify: Verify | None = None
    """What is checked before the folder gets its name: `none`, `bytes`, `load` or `logits`."""
    max_shard_bytes: int | None = None
    """Size of a weights file at most."""
    threads: int = 2
    dry_run: bool = False
    """Say what would be written, and write nothing."""
    text: Path | None = None
    """A file on which `seam=rms_match` measures."""
    device: str = "auto"
    """Where `seam=rms_match` and `verify=logits` run the model: `cpu`, `cuda`, `mps`, or `auto`, a GPU if any."""


@dataclass
class NoOptions:
    """`convert` has none."""


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["convert"]:
        return run(words[1:], __doc__ or "", NoOptions, ("BASE", "OUT"), _convert)
    return run(words, __doc__ or "", GrowOptions, ("BASE", "OUT"), _grow)


def parse(words: Sequence[str]) -> GrowOptions:
    """`key=value` words as options. Raises `ConfigError` for an unknown key or a wrong value."""
    return _with_plan(read(words, GrowOptions)[1])


def _with_plan(options: GrowOptions) -> GrowOptions:
    """With the plan's name, where the parameters leave no doubt: `m=8` means dus."""
    given = set(options.given_parameters())
    fitting = [plan for plan, parameters in PARAMETERS.items() if given and given <= set(parameters)]
    options.plan = options.plan or (fitting[0] if len(fitting) == 1 else None)
    return options


def _grow(names: list[str], options: GrowOptions) -> None:
    source, target = (Path(name).expanduser() for name in names)
    options = _with_plan(options)
    for name in ("threads", "max_shard_bytes"):
        if (count := getattr(options, name)) is not None and count < 1:
            raise ConfigError(f"{name}: found {count}, expected at least 1")
    check_device(options.device)
    scales = _seam_scales(source, options)
    if options.dry_run:
        job = work_out(source, options, max_shard_bytes=options.max_shard_bytes, seam_scales=scales)
        _say(_plan_text(job))
        return
    refuse_damaged(source)
    report = grow(
        source,
        target,
        options,
        link=options.link,
        verify=options.verify,
        max_shard_bytes=options.max_shard_bytes,
        threads=options.threads,
        seam_scales=scales,
        device=options.device,
    )
    _say(_report_text(report, target))


def _seam_scales(source: Path, options: GrowOptions) -> dict[int, float] | None:
    if options.seam is not SeamInit.rms_match:
        return None
    if options.text is None:
        raise PlanError("text: not set, but seam rms_match measures on it; give text=FILE")
    plan = {name: getattr(options, name) for name in ("plan", *options.given_parameters())}
    request = {"model": str(source), "text": str(options.text), "plan": plan, "device": options.device}
    return {int(position): scale for position, scale in ask("solar.diagnosis.seams", request, PlanError).items()}


def _convert(names: list[str], options: NoOptions) -> None:
    source, target = (Path(name).expanduser() for name in names)
    refuse_damaged(source)
    quantised = quantisation(read_config(source)) is not None
    module = "solar.network.quantised.dequantise" if quantised else "solar.growth.files.convert"
    written = ask(module, {"source": str(source), "target": str(target)}, ConfigError)
    kind = "plain floats" if quantised else "safetensors"
    _say(f"{target}: {written['tensors']} tensors, {_size(written['bytes'])}, as {kind}")


def _plan_text(job: Job) -> str:
    return "\n".join(
        [
            f"{job.layers}",
            job.layers.table(),
            f"parameters  {job.base.parameters:,} -> {job.parameters:,}",
            f"bytes       {_size(job.base.nbytes)} -> {_size(job.nbytes)} in {len(job.shards)} files",
            *job.notes,
            "nothing written (dry_run)",
        ]
    )


def _report_text(report: GrowthReport, target: Path) -> str:
    linked = f", {_size(report.linked_bytes)} of them linked to the base's files" if report.linked_bytes else ""
    verified = "not verified" if report.verified is Verify.none else f"verified: {report.verified.value}"
    return "\n".join(
        [
            f"{report.layers}",
            report.layers.table(),
            f"parameters  {report.base_parameters:,} -> {report.parameters:,}",
            f"bytes       {_size(report.base_bytes)} -> {_size(report.bytes)} in {report.files} files{linked}",
            *report.notes,
            f"{target}: {verified}, {report.wall_seconds:.2f} s",
        ]
    )


def _size(count: int) -> str:
    """
    >>> _size(1_500_000), _size(21_463_048_192)
    ('1.5 MB', '21.5 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _say(text: str) -> None:
    sys.stdout.write(printable(f"{text}\n", keep="\n"))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was begun is removed
    sys.exit(main())
