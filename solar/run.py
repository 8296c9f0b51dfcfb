"""`python -m solar.run`: compose, check, plan, then print or execute."""

import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import cast

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from solar.arguments import warning
from solar.artifacts.known import Known
from solar.artifacts.store import Artifact, Store
from solar.config.root import Preflight, Verification, typed
from solar.config.store import register
from solar.engine.disk import disk_problem
from solar.engine.execute import Executor
from solar.engine.finished import verify_finished
from solar.engine.launch import RESUMABLE
from solar.engine.progress import Progress
from solar.engine.record import open_run
from solar.environment import prepare_run
from solar.errors import ConfigError, Interrupted, SolarError, printable_line
from solar.explain import (
    KNOWN,
    below_null,
    explain,
    is_group,
    refuse_functions,
    refuse_null_groups,
    unreadable,
    word_below_a_list,
)
from solar.plan.checks.check import check
from solar.plan.expansion.expand import expand
from solar.plan.plan import make_plan
from solar.plan.preflight.accelerator import resolve_accelerator
from solar.plan.preflight.preflight import preflight
from solar.plan.show import show
from solar.redaction import note_references, redact, redact_tracebacks
from solar.report.entries import Entry, Run
from solar.report.sections.controls import recoveries
from solar.sweep import add_job, redact_sweep_file

_EXPERIMENT = re.compile(r"[+~]*experiment(@|=)")
_LIKE_A_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*(e[+-]?\d+)?|inf|nan)|true|false", re.IGNORECASE)
DEFAULT_EXPERIMENT = "quickstart"


def conf_folder() -> Path:
    """The YAML files: inside the package when it was installed from a wheel, beside it in a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "conf"


def run(composed: DictConfig) -> float | None:
    """Carry out one composed configuration; returns the objective of a sweep.

    Raises:
        SolarError: something that the user must correct.
    """
    overrides = _overrides()
    note_references("\n".join([OmegaConf.to_yaml(composed, resolve=False), *overrides]))
    redact_sweep_file()
    config = typed(composed)
    accelerator = resolve_accelerator(config.trainer)
    check(config)
    config = expand(config)
    _make_root(Path(config.paths.root))
    store = _store(Path(config.paths.root), config.verify)
    plan = make_plan(config, store)
    console = Console(width=None if sys.stdout.isatty() else 160)
    show(plan, config.trainer, console)
    if accelerator is not None:
        console.print(accelerator, markup=False, highlight=False, soft_wrap=True)
    missing = list(preflight(plan, config))
    if config.dry_run:
        for lack in missing:
            console.print(f"lacking: {lack}", markup=False, highlight=False, soft_wrap=True)
        return None
    if missing and config.preflight is Preflight.refuse:
        raise SolarError(*missing)
    for lack in missing:
        console.print(f"warning: {lack}", markup=False, highlight=False, soft_wrap=True)
    if not plan.to_run:
        console.print("nothing to run: every stage is done already")
    progress = Progress(console)
    verify_finished(plan, store, progress)
    record = open_run(config, composed, plan, overrides)
    artifacts = Executor(config, store, record.folder, progress).run(plan)
    record.note_folders(artifacts)
    record.show_results(artifacts, console)
    for line in _growth_in_words(artifacts):
        console.print(f"growth  {line}", highlight=False, markup=False, soft_wrap=True)
    objective = record.objective(artifacts)
    for line in add_job(artifacts, config.objective, objective, overrides):
        console.print(f"sweep   {line}", highlight=False, markup=False, soft_wrap=True)
    return objective


def _store(root: Path, verify: Verification) -> Store:
    contents = verify is not Verification.size
    return Store(root / "artifacts", Known.load(root, contents, remember=verify is not Verification.always))


def _overrides() -> list[str]:
    """The overrides of this run's command line; in a job of a sweep, with the job's values."""
    if not HydraConfig.initialized():
        return []
    words = OmegaConf.to_container(
        HydraConfig.get().overrides.task, resolve=False
    )  # `${oc.env:X}` stays as it was typed
    return [str(word) for word in cast(list[object], words)]


def _growth_in_words(artifacts: Mapping[str, Artifact]) -> list[str]:
    """A line for each grown model that was trained: what growing cost and what training won back."""
    made = [Entry(name, made.manifest.kind, made.path, asdict(made.manifest)) for name, made in artifacts.items()]
    return [recovery.words() for recovery in recoveries(Run(made))]


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"paths.root: {root} cannot be made ({error.strerror}); choose another folder") from None


def main() -> None:
    """The command line."""
    arguments = [_as_hydra_takes_it(argument) for argument in sys.argv[1:]]
    if not any(map(_EXPERIMENT.match, arguments)):
        arguments.append(f"+experiment={DEFAULT_EXPERIMENT}")
    sys.argv[1:] = sorted(arguments, key=_place)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its exceptions to us; with 0 it prints and exits itself
    prepare_run()
    redact_tracebacks()
    warnings.formatwarning = warning
    register()
    refuse_functions()
    with one_line_errors(arguments):
        refuse_null_groups(arguments, conf_folder())
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(_job)()


def _job(composed: DictConfig) -> float | None:
    """One job of Hydra. A user's error ends the process here, before Hydra prints its own message."""
    with one_line_errors(sys.argv[1:]):
        return run(composed)


@contextmanager
def one_line_errors(arguments: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except Interrupted as error:
        sys.exit(_print_error(str(error), RESUMABLE))
    except KeyboardInterrupt:
        sys.exit(_print_error("stopped by the keyboard; the same command goes on", 130))
    except KNOWN as error:
        sys.exit(_print_error(explain(error, arguments, conf_folder()), 1))
    except (ValueError, AssertionError, yaml.YAMLError) as error:
        line = unreadable(error, arguments) or word_below_a_list(error, arguments) or below_null(error)
        if line is None:
            raise
        sys.exit(_print_error(line, 1))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            sys.exit(_print_error(f"{str(error.filename)[:80]}...: {error.strerror}; choose a shorter one", 1))
        if (problem := disk_problem(error)) is None:
            raise
        sys.exit(_print_error(problem, 1))


def _place(argument: str) -> int:
    """Order of arguments: Hydra takes flags only before overrides, and a later group overrides an earlier group."""
    if argument.startswith("-") or not re.match(r"[+~]|[^=]+=", argument):
        return 0
    return 1 if _EXPERIMENT.match(argument) else 2


def _as_hydra_takes_it(argument: str) -> str:
    """People type `experiment=x`, which Hydra wants with a plus; at `logger=null`, `trainer=1` and `x=~/y` it fails."""
    key, equals, value = argument.partition("=")
    is_choice = key == "hydra" or is_group(argument, conf_folder())
    if equals and is_choice and _LIKE_A_NUMBER.fullmatch(value):
        argument = f"{key}='{value}'"
    elif equals and value.startswith("~"):
        argument = f"{key}={Path(value).expanduser()}"
    plus = "+" if argument.startswith("experiment=") else ""
    return {"logger=null": "logger=none"}.get(argument, plus + argument)


def _print_error(lines: str, code: int) -> int:
    for line in lines.split("\n"):
        print(f"error: {printable_line(redact(line))}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    main()
