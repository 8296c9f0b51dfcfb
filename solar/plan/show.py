"""Prints a plan."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from solar.config import data, evaluation, growth, merging, model, preference, soup, training
from solar.config.duration import Duration
from solar.config.root import TrainerConfig
from solar.plan.cost import cost
from solar.plan.plan import Plan, PlannedStage


def show(plan: Plan, trainer: TrainerConfig, console: Console) -> None:
    """Print the headline, a row for each stage, and notes."""
    console.print(plan.headline, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("does", no_wrap=True, max_width=60)
    table.add_column("reads", no_wrap=True, max_width=36)
    table.add_column("parameters", no_wrap=True, justify="right")
    table.add_column("artifact", no_wrap=True, min_width=12)
    table.add_column("", no_wrap=True, min_width=6)
    flops, disk = 0.0, 0
    for stage in plan.stages.values():
        estimate = cost(stage, plan.stages, trainer)
        if stage.status == "to run":
            flops, disk = flops + (estimate.flops or 0), disk + (estimate.disk_bytes or 0)
        table.add_row(
            stage.name,
            describe(stage),
            _reads(stage),
            quantity(stage.facts.parameters if stage.facts else None),
            stage.id,
            "[green]done[/]" if stage.artifact else stage.status,
        )
    console.print(table)
    if flops or disk:
        total = f"about {quantity(flops)} training FLOPs" if flops else "no training"
        console.print(f"to run: {total}, up to {quantity(disk, 'B')} of disk", style="dim", highlight=False)
    for remark in remarks(plan):
        console.print(f"note: {remark}", highlight=False, markup=False)


def remarks(plan: Plan) -> Iterator[str]:
    """Notes about things that are allowed but may be mistakes."""
    for name in plan.unread:
        yield f"stages.{name} is read by no stage of this plan"
    for name, stage in plan.stages.items():
        if not stage.needed and stage.artifact is None:
            yield f"stages.{name} is missing, but all that reads it is done; until={name} makes it again"


def _reads(stage: PlannedStage) -> str:
    names = list(stage.inputs)
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def describe(stage: PlannedStage) -> str:
    """A stage in a few words."""
    match stage.config:
        case growth.UpscaleConfig() as config:
            how = f"by what {config.diagnosis} selects" if config.diagnosis else f"({config.plan})"
            return stage.facts.description if stage.facts and stage.facts.description else f"grow {how}"
        case growth.DiagnoseConfig() as config:
            return f"measure {len(config.plans)} growth plans"
        case preference.ReferenceLogpsConfig() as config:
            return f"log-probabilities of {config.data}"
        case preference.ChunkPairsConfig() as config:
            return f"{len(config.shares)} chunks of pairs, easy to hard"
        case preference.DpoConfig() as config:
            return f"dpo ({config.loss.value}) {_training(config)}, beta {config.beta:g}"
        case training.TrainConfig() as config:
            return f"{config.kind} {_training(config)}"
        case merging.MergeConfig() as config:
            return f"merge by {config.in_words}"
        case soup.SoupConfig() as config:
            return f"greedy soup of {len(config.models)} models"
        case model.ImportModelConfig() as config:
            as_llama = f" as {config.architecture}" if config.architecture else ""
            return f"import {config.path or config.package or config.hub}{as_llama}"
        case model.InitModelConfig() as config:
            return f"random weights, {config.architecture.num_hidden_layers} layers"
        case model.TrainTokenizerConfig() as config:
            return f"train a tokenizer of {config.vocab_size:,} tokens"
        case data.PythonDocsConfig():
            return "gather Python's documentation"
        case data.PrepareDataConfig() as config:
            return f"{config.task.value} data from {', '.join(config.sources)}"
        case evaluation.EvaluateConfig() as config:
            return f"score {len(config.models)} model{'s' if len(config.models) != 1 else ''}"
        case evaluation.ReportConfig():
            return "one page about the run"
        case other:
            return other.kind


def _training(config: training.TrainConfig) -> str:
    length, optimizer = Duration.parse(config.duration), config.optimizer
    return f"{length}, batch {config.global_batch_size}, {optimizer.name.value} {optimizer.lr:g}"


def quantity(number: float | None, unit: str = "") -> str:
    """A number with three digits and a unit.

    >>> quantity(10_731_524_096), quantity(950), quantity(2.5e21), quantity(None)
    ('10.7 B', '950', '2.5e+21', '')
    """
    if number is None:
        return ""
    scales = (
        ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
        if unit
        else ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
    )
    if number >= 1e16:
        return f"{number:.1e}"
    for scale, letter in scales:
        if number >= scale:
            return f"{number / scale:.3g} {letter}"
    return f"{number:.0f}{' ' + unit if unit else ''}"
