"""Grow a checkpoint without writing an experiment: `python -m solar.grow BASE OUT m=8`.

Keys are those of `stages.upscale` (`m=8`, `plan=interleave every=4 init=zero_out`, `layers=[0,1,1,2]`), and:
`dry_run=true` says what would be written; `link=auto` gives files that equal the base's a second name, not a copy;
`verify=none|bytes|load|logits`; `max_shard_bytes`; `text=FILE`, on which `seam=rms_match` measures.
`python -m solar.grow convert BASE OUT` turns a folder of .bin files into safetensors. Exit status 0: written and
verified; 1: refused, with one line that says why, and nothing left behind.
"""

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from solar.config.growth_plan import PARAMETERS, GrowthPlan, PlanName, SeamInit
from solar.errors import ConfigError, PlanError, SolarError
from solar.growth.files.verify import Verify
from solar.growth.files.writer import Link
from solar.growth.grow import GrowthReport, Job, grow, work_out
from solar.growth.process import ask

_IN_WORDS = {
    str(int): "a whole number",
    str(float): "a number",
    str(bool): "true or false",
    str(list[int]): "a list of layers such as [0,1,1,2]",
    str(list[list[int]]): "a list of ranges such as [[0,24],[8,32]]",
}


@dataclass
class GrowOptions(GrowthPlan):
    """What the command line may say."""

    link: Link = Link.never
    verify: Verify | None = None
    max_shard_bytes: int | None = None
    threads: int = 2
    dry_run: bool = False
    text: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            _say(__doc__ or "")
        elif arguments[0] == "convert":
            _convert(arguments[1:])
        else:
            _grow(arguments)
    except SolarError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def parse(words: Sequence[str]) -> GrowOptions:
    """`key=value` words as options. Raises `ConfigError` for a key or value that is none."""
    known = [item.name for item in fields(GrowOptions)]
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals:
            raise ConfigError(f"{word}: found a word without '=', expected key=value such as m=8")
        if key not in known:
            from difflib import get_close_matches

            close = get_close_matches(key, known, 1)
            raise ConfigError(f"{key}: unknown key; {f'did you mean {close[0]}?' if close else 'see --help'}")
    kinds = get_type_hints(GrowOptions)
    options = GrowOptions(**{key: _value(key, text, kinds[key]) for key, _, text in (w.partition("=") for w in words)})
    options.plan = options.plan or _plan_told_by(options)
    return options


def _value(key: str, text: str, kind: Any) -> Any:
    """A word of the command line as what its field holds. Raises `ConfigError` if it is none."""
    accepted = [one for one in get_args(kind) or (kind,) if one is not type(None)]
    (wanted,) = accepted if len(accepted) == 1 else (kind,)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        words = [one.value for one in wanted]
        if text not in words:
            raise ConfigError(f"{key}: {text} found, expected one of {', '.join(words)}")
        return wanted(text)
    if wanted is str:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if value is None and type(None) in get_args(kind):
        return None
    if not _fits(value, wanted):
        raise ConfigError(f"{key}: {text} found, expected {_IN_WORDS[str(wanted)]}")
    return value


def _fits(value: Any, wanted: Any) -> bool:
    if get_origin(wanted) is list:
        return isinstance(value, list) and all(_fits(item, get_args(wanted)[0]) for item in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is wanted


def _plan_told_by(options: GrowOptions) -> PlanName | None:
    """The plan, where the parameters given leave no doubt: `m=8` means dus."""
    given = set(options.given_parameters())
    fitting = [plan for plan, parameters in PARAMETERS.items() if given and given <= set(parameters)]
    return fitting[0] if len(fitting) == 1 else None


def _grow(arguments: Sequence[str]) -> None:
    if len(arguments) < 2 or any("=" in word for word in arguments[:2]):
        raise ConfigError("found no BASE and OUT, expected: python -m solar.grow BASE OUT m=8")
    source, target = Path(arguments[0]), Path(arguments[1])
    options = parse(arguments[2:])
    for name in ("threads", "max_shard_bytes"):
        if (count := getattr(options, name)) is not None and count < 1:
            raise ConfigError(f"{name}: {count} found, expected at least 1")
    scales = _seam_scales(source, options)
    if options.dry_run:
        job = work_out(source, options, max_shard_bytes=options.max_shard_bytes, seam_scales=scales)
        _say(_plan_text(job))
        return
    report = grow(
        source,
        target,
        options,
        link=options.link,
        verify=options.verify,
        max_shard_bytes=options.max_shard_bytes,
        threads=options.threads,
        seam_scales=scales,
    )
    _say(_report_text(report, target))


def _seam_scales(source: Path, options: GrowOptions) -> dict[int, float] | None:
    if options.seam is not SeamInit.rms_match:
        return None
    if options.text is None:
        raise PlanError("text: not set, but seam rms_match measures on it; give text=FILE")
    plan = {name: getattr(options, name) for name in ("plan", *options.given_parameters())}
    request = {"model": str(source), "text": options.text, "plan": plan}
    return {int(position): scale for position, scale in ask("solar.diagnosis.seams", request, PlanError).items()}


def _convert(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        raise ConfigError("found no BASE and OUT, expected: python -m solar.grow convert BASE OUT")
    source, target = arguments
    done = ask("solar.growth.files.convert", {"source": source, "target": target}, ConfigError)
    _say(f"{target}: {done['tensors']} tensors, {_size(done['bytes'])}, as safetensors")


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
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was begun is removed
    sys.exit(main())
