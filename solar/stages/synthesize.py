"""Stage `synthesize`: synthetic mathematics from seed questions, as instructions and as preference pairs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from solar.artifacts.store import CHECKPOINTS
from solar.config.synthesis import SynthesizeConfig
from solar.data.clean.drops import Drops
from solar.data.clean.select import keeping, of_split, selected
from solar.data.read import sources
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow, Message, refuse_fields
from solar.data.synthesis.synthesize import Prompts, seeds, synthesize
from solar.data.synthesis.writers import LocalWriter, Sampling, ServerWriter, Writer
from solar.errors import DataError


def run(config: SynthesizeConfig, inputs: Mapping[str, Any], output: Path, context: Any) -> dict[str, Any]:
    """Leaves `instruct.jsonl` and `alignment.jsonl`; continues an interrupted run."""
    counts: Counter[str] = Counter()
    prompts = Prompts.read(*(Path(path) if path else None for path in (config.question_prompt, config.answer_prompt)))
    journal = output / CHECKPOINTS / "written.jsonl"
    journal.parent.mkdir(exist_ok=True)
    metrics = synthesize(
        seeds(_conversations(config, inputs, counts), counts),
        _writer(config, inputs, context.trainer.device_type),
        prompts,
        output,
        journal,
        config.questions_per_seed,
        config.answers_per_question,
        config.seed,
        counts,
        context.progress,
    )
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in metrics["left_out"].items())
    line = f"{metrics['kept']:,} new answers to {metrics['seeds']:,} seeds; left out: {left_out or 'none'}"
    return {**metrics, "summary": line}


def _writer(config: SynthesizeConfig, inputs: Mapping[str, Any], device: str) -> Writer:
    sampling = Sampling(config.temperature, config.max_new_tokens)
    if config.base_url is not None and config.server_model is not None:
        return ServerWriter(
            config.base_url, config.server_model, sampling, config.requests_per_minute, config.connections
        )
    return LocalWriter(inputs[str(config.model)].path, sampling, device)


def _conversations(
    config: SynthesizeConfig, inputs: Mapping[str, Any], counts: Counter[str]
) -> Iterator[list[Message]]:
    source = config.seeds
    folder = inputs[source.stage].path if source.stage is not None else None
    reader = Reader(source.format, source.columns)
    drops = Drops()
    filters = [of_split(source.split, not sources.files_name_splits(source, folder))]
    filters += [keeping(source.keep)] if source.keep else []
    read = partial(sources.rows, source, folder)
    for where, row in selected(read, filters, drops, _refuse, source.max_samples, config.seed):
        try:
            messages = reader.conversation(row)
            refuse_fields(messages, "a seed")
            yield messages
        except BadRow as error:
            _refuse(where, error)
    counts.update(drops.counts)


def _refuse(where: str, error: BadRow) -> None:
    raise DataError(f"seeds: {where}: {error}")
