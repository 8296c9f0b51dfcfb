"""Stage `synthesize`: synthetic mathematics from seed questions, as instructions and as preference pairs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from solar.artifacts.store import CHECKPOINTS
from solar.config.synthesis import SynthesizeConfig
from solar.data.clean.drops import Drops
from solar.data.clean.select import keeping, of_split, selected
from solar.data.read import sources
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow, Message, refuse_fields
from solar.data.synthesis.answerers import Answerer, LocalAnswerer, Sampling
from solar.data.synthesis.server import ServerAnswerer
from solar.data.synthesis.synthesize import Prompts, read_seeds, synthesize
from solar.engine.context import Inputs, Metrics, RunContext
from solar.errors import DataError


def run(config: SynthesizeConfig, inputs: Inputs, output: Path, context: RunContext) -> Metrics:
    """Write `instruct.jsonl`, `alignment.jsonl` and `left_out.jsonl`; an interrupted run is resumed."""
    counts: Counter[str] = Counter()
    prompts = Prompts.read(*(Path(path) if path else None for path in (config.question_prompt, config.answer_prompt)))
    journal = output / CHECKPOINTS / "written.jsonl"
    journal.parent.mkdir(exist_ok=True)
    with _answerer(config, inputs, context) as answerer:
        metrics = synthesize(
            read_seeds(_conversations(config, inputs, counts), counts),
            answerer,
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


@contextmanager
def _answerer(config: SynthesizeConfig, inputs: Inputs, context: RunContext) -> Iterator[Answerer]:
    sampling = Sampling(config.temperature, config.max_new_tokens)
    if config.base_url is not None and config.server_model is not None:
        yield ServerAnswerer(
            config.base_url, config.server_model, sampling, config.requests_per_minute, config.connections
        )
        return
    from solar.data.encode.encode import Encoder  # with a server, torch is not needed
    from solar.data.encode.tokenizer import load
    from solar.network.isolation import own_attention
    from solar.network.loading import load_decoder

    folder = inputs[str(config.model)].path / "model"
    network = load_decoder(folder, context.trainer.device_type).network
    with own_attention(network):  # takes the masks of padded prompts
        yield LocalAnswerer(network, Encoder(load(folder)), sampling)


def _conversations(config: SynthesizeConfig, inputs: Inputs, counts: Counter[str]) -> Iterator[list[Message]]:
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
