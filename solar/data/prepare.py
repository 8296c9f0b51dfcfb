"""A mixture of sources to tokens on disk: read, tokenise, split, pack, and count the rows left out."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from solar.config.data import PrepareDataConfig, Task
from solar.data.clean.intake import SPLITS, Accepted, Intake
from solar.data.encode import tokenizer
from solar.data.encode.encode import Encoder
from solar.data.encode.samplers import sampler_for
from solar.data.encode.samples import Sample, Sampler
from solar.data.order.mixture import mixture_of
from solar.data.order.order import Order
from solar.data.pack.rows import write_rows
from solar.data.read import sources
from solar.data.read.messages import BadRow
from solar.data.store.header import Mixture, Split, TokensHeader
from solar.data.store.tokens import SHARD_TOKENS, DocumentAppender
from solar.errors import DataError

DROPPED = "dropped.jsonl"
"""Examples of rows left out, a JSON line each."""
_BATCH = 256
_AHEAD = 3
_UINT16 = 2**16
_SHARES_ROWS = 1_000_000
"""The realised shares are measured over at most this many rows."""


def prepare(
    config: PrepareDataConfig,
    stage_folders: Mapping[str, Path],
    tokenizer_artifact: Path,
    output: Path,
    progress: Callable[[str], None] = lambda line: None,
    shard_tokens: int = SHARD_TOKENS,
) -> dict[str, Any]:
    """Leave a tokens artifact in `output`; return the counts of its samples and of the rows left out.

    `stage_folders`: name of a text stage -> its artifact. Raises `DataError` for a source without a training sample
    and, unless `on_error` is skip, for a row that cannot be read.
    """
    encoder = Encoder(tokenizer.load(tokenizer_artifact), config.template)
    encoder.tokenizer.save_pretrained(output / "tokenizer")  # so that the tokens can be decoded by this artifact alone
    sampler = sampler_for(config.task, encoder, config.sequence_length, config.packing)
    intake = Intake(config, sampler, lambda source: stage_folders.get(source.stage or ""))
    header = _header(config, encoder)
    spans = _write_documents(intake, sampler, header, output, progress, shard_tokens)
    for name, split in header.splits.items():
        progress(f"packing {name}")
        write_rows(output / name, header, split, spans[name], config.seed)
    tokens = {name: place.tokens for name, place in header.splits["train"].sources.items()}
    _refuse_empty(intake, tokens)
    header.mixture = mixture_of(config, tokens)
    header.write(output)
    _write_dropped(intake, config, stage_folders, output / DROPPED)
    return _metrics(header, output, intake, sampler, config.seed)


def _write_dropped(intake: Intake, config: PrepareDataConfig, stage_folders: Mapping[str, Path], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for name, drops in intake.drops.items():
            source = config.sources[name]
            folder = sources.folder_of(source, stage_folders.get(source.stage or ""))
            for example in drops.examples():
                example["where"] = example["where"].removeprefix(f"{folder}/")  # the same bytes under any root
                file.write(json.dumps({"source": name, **example}) + "\n")


def _header(config: PrepareDataConfig, encoder: Encoder) -> TokensHeader:
    vocab_size = max(encoder.tokenizer.get_vocab().values()) + 1
    pad_id = encoder.tokenizer.pad_token_id
    return TokensHeader(
        task=config.task.value,
        vocab_size=vocab_size,
        sequence_length=config.sequence_length,
        packing=config.packing.value,
        template=config.template,
        bos_id=encoder.bos_id,
        eos_id=encoder.eos_id,
        pad_id=encoder.eos_id if pad_id is None else pad_id,
        dtype="uint16" if vocab_size <= _UINT16 else "uint32",
        mixture=Mixture({}),
        splits={name: Split() for name in SPLITS},
    )


def _write_documents(
    intake: Intake,
    sampler: Sampler,
    header: TokensHeader,
    output: Path,
    progress: Callable[[str], None],
    shard_tokens: int,
) -> dict[str, dict[str, tuple[int, int]]]:
    """Tokenise all sources into both splits; return split -> source -> (first document, last document + 1)."""
    masked = header.task != Task.pretrain
    split_files = {name: DocumentAppender(output / name, header.dtype, masked, shard_tokens) for name in SPLITS}
    spans: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in SPLITS}
    shown = begun = time.monotonic()
    for source in intake.rows:
        first = {name: files.documents for name, files in split_files.items()}
        for sample in _encoded(intake, sampler, source):
            split = header.splits[sample.split]
            split.answer_tokens += sample.answer_tokens
            split.text_bytes += sample.text_bytes
            for ids, trained in sample.documents:
                split_files[sample.split].append(ids, trained)
            if (now := time.monotonic()) - shown > 0.5:
                shown = now
                tokens = sum(files.tokens for files in split_files.values())
                rate = tokens / (now - begun) / 1e3
                progress(f"{source}  {intake.rows[source]:,} rows  {tokens / 1e6:,.1f}M tokens  {rate:,.0f}k tokens/s")
        for name, files in split_files.items():
            spans[name][source] = (first[name], files.documents)
    for name, files in split_files.items():
        files.close()
        split = header.splits[name]
        split.documents, split.shard_starts = files.documents, files.shard_starts
        split.samples = files.documents // sampler.documents_per_sample
    return spans


def _encoded(intake: Intake, sampler: Sampler, source: str) -> Iterator[Sample]:
    """The samples of a source, in order. While a batch is written, a thread tokenises the next batches."""

    def encode(batch: Sequence[Accepted]) -> list[Sample | BadRow]:
        places, splits, parsed = zip(*((row.where, row.split, row.parsed.content) for row in batch), strict=True)
        return sampler.encode(places, splits, parsed)

    def without_bad_rows(samples: list[Sample | BadRow]) -> Iterator[Sample]:
        for sample in samples:
            if isinstance(sample, BadRow):
                intake.drops[source].add(sample.reason, str(sample))
            else:
                yield sample

    rows = intake.read(source)
    waiting: deque[Future[list[Sample | BadRow]]] = deque()
    with ThreadPoolExecutor(1) as executor:
        while batch := list(islice(rows, _BATCH)):
            waiting.append(executor.submit(encode, batch))
            if len(waiting) > _AHEAD:
                yield from without_bad_rows(waiting.popleft().result())
        while waiting:
            yield from without_bad_rows(waiting.popleft().result())


def _refuse_empty(intake: Intake, tokens: Mapping[str, int]) -> None:
    for name, drops in intake.drops.items():
        if not tokens[name]:
            why = ", ".join(f"{count:,} {reason}" for reason, count in drops.counts.most_common())
            raise DataError(
                f"sources.{name}: no training sample in its {intake.rows[name]:,} rows"
                f"{f' (left out: {why})' if why else ''}; mend the source or drop it"
            )


def _metrics(header: TokensHeader, output: Path, intake: Intake, sampler: Sampler, seed: int) -> dict[str, Any]:
    from solar.data.store.dataset import TokenDataset  # imports torch, which nothing above needs

    order = Order.of(TokenDataset(output, "train"), seed)
    rows = min(order.rows_per_epoch, _SHARES_ROWS)
    requested, realised = order.requested_shares(rows), order.shares(0, rows)
    return {
        "splits": {name: _facts(header, name) for name in header.splits},
        "truncated_samples": sampler.truncated,
        "lengths": {part: lengths.facts() for part, lengths in sampler.lengths.items()},
        "sources": {
            name: {
                "rows": intake.rows[name],
                "requested_share": requested[name],
                "realised_share": realised[name],
                "dropped": dict(drops.counts),
                "not_read": dict(sorted(intake.unread[name].items())),
            }
            for name, drops in intake.drops.items()
        },
        "evaluation_sets": {} if intake.exams is None else intake.exams.facts(),
    }


def _facts(header: TokensHeader, name: str) -> dict[str, Any]:
    split = header.splits[name]
    counts = {key: value for key, value in asdict(split).items() if key not in ("sources", "shard_starts")}
    return {
        **counts,
        "documents_cut_by_rows": split.pieces - split.documents,
        "padding_share": header.padding_share(name),
        "trained_share": split.trained_tokens / max(1, split.tokens),
    }
