"""Sources of text, the formats of their rows, and how the rows become samples."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from solar.config.base import StageConfig, content, reference
from solar.config.model import is_commit
from solar.config.templates import template_problems


class Task(StrEnum):
    """What is trained of a sample."""

    pretrain = "pretrain"
    """Documents; every token is trained."""
    instruct = "instruct"
    """Conversations; the assistant's tokens are trained."""
    preference = "preference"
    """Pairs of answers to one prompt."""


class Format(StrEnum):
    """How a source holds a sample: the names and meanings of its columns."""

    text = "text"
    messages = "messages"
    prompt_completion = "prompt_completion"
    preference = "preference"
    sharegpt = "sharegpt"
    alpaca = "alpaca"
    open_orca = "open_orca"
    metamath = "metamath"
    orca_dpo_pairs = "orca_dpo_pairs"
    ultrafeedback = "ultrafeedback"


FIELDS: dict[Format, tuple[str, ...]] = {
    Format.text: ("text",),
    Format.messages: ("messages", "system", "tools"),
    Format.prompt_completion: ("prompt", "completion", "system", "tools"),
    Format.preference: ("prompt", "chosen", "rejected", "system"),
    Format.sharegpt: ("conversations", "system", "tools"),
    Format.alpaca: ("instruction", "input", "output", "system"),
    Format.open_orca: ("system_prompt", "question", "response"),
    Format.metamath: ("query", "response", "system"),
    Format.orca_dpo_pairs: ("system", "question", "chosen", "rejected"),
    Format.ultrafeedback: ("prompt", "chosen", "rejected", "system"),
}
"""The fields that a format reads; `columns` may give them other names."""
_WITH_MESSAGE_FIELDS = (Format.messages, Format.prompt_completion, Format.preference, Format.sharegpt)
PAIR_FORMATS = (Format.preference, Format.orca_dpo_pairs, Format.ultrafeedback)


class Packing(StrEnum):
    """How samples share rows of `sequence_length` tokens; samples of one row never see each other."""

    none = "none"
    """One sample a row."""
    concatenate = "concatenate"
    """Samples end to end, cut where a row is full: no padding (continued pretraining)."""
    best_fit = "best_fit"
    """Whole samples, each into the fullest row that still has room (SFT)."""


@dataclass
class PythonDocsConfig(StageConfig):
    """Gather the documentation of the running Python and its packages: real English and code, without a network."""

    packages: list[str] = content("documentation")
    """Installed distributions whose docstrings are read, besides the standard library."""
    held_out_fraction: float = MISSING
    """Share of documented objects that form the `valid` split."""
    max_bytes: int | None = None
    """Stop after this much training text; null: take everything."""
    seed: int = MISSING
    """Decides which objects are held out, which wrong answers are offered, and which `max_bytes` leaves out."""

    def problems(self) -> Iterator[str]:
        if not 0 < self.held_out_fraction < 1:
            yield f"held_out_fraction: found {self.held_out_fraction}, expected more than 0 and less than 1"
        if self.max_bytes is not None and self.max_bytes < 1:
            yield f"max_bytes: found {self.max_bytes}, expected at least 1"


@dataclass
class SourceConfig:
    """One source of a mixture: a stage's text, local files or a hub data set at a pinned commit (exactly one)."""

    stage: str | None = reference("text", None)
    """A stage that leaves text; `file` may name one of its files."""
    file: str | None = None
    """The file inside the stage's artifact; null: all files of the artifact."""
    path: str | None = content("source", None)
    """A JSONL, CSV, Parquet, Arrow or text file (also .gz, .zst), a folder of them, or a glob."""
    hub: str | None = None
    """A data set on the Hugging Face hub, `organisation/name`; its rows are streamed."""
    revision: str | None = None
    """The commit (40 hex digits) of `hub`; a branch name would make the run unrepeatable."""
    subset: str | None = None
    """The configuration of `hub` to read, where the data set has several."""
    split: str = "train"
    """The split that is read, of a hub, of files (`test-*.parquet`, `dev/`) or of rows with a column `split`."""
    format: Format = MISSING
    columns: dict[str, str] = field(default_factory=dict)
    """Field of the format -> column of the source, where the names differ (`text: content`)."""
    weight: float | None = None
    """Share of the mixture's tokens, relative to the other weights; by size, if no source has a weight."""
    share: float | None = None
    """Share of all tokens, above 0 and below 1 (replay: `share: 0.05`); the others divide the rest by their weights."""
    max_epochs: float | None = None
    """Read the source at most this often; afterwards the other sources take its share. Null: without end."""
    max_samples: int | None = None
    """Draw this many rows at random (by the stage's seed); null: take all."""
    keep: dict[str, str] = field(default_factory=dict)
    """Column -> regular expression that the value must match from its start; other rows are dropped and counted."""
    drop_tasks: list[str] = field(default_factory=list)
    """FLAN task names whose rows are dropped (paper, Table 8); needs `task_index`."""
    task_index: str | None = None
    """Hub data set `organisation/name@commit` that gives questions (`inputs`) their FLAN task (`_task_name`)."""
    task_index_path: str | None = content("source", None)
    """The task index as local files; either this or `task_index`."""

    def problems(self) -> Iterator[str]:
        places = [name for name in ("stage", "path", "hub") if getattr(self, name) is not None]
        if len(places) != 1:
            yield f"stage, path, hub: {' and '.join(places) or 'none'} given, expected exactly one"
        if "" in (self.path, self.task_index_path):
            yield "path, task_index_path: found no text, expected a file, a folder or a glob; null for none"
        if self.hub is not None and not is_commit(self.revision):
            yield f"revision: found {self.revision!r}, expected a commit of 40 hex digits; a branch can move under you"
        if self.weight is not None and not self.weight > 0:
            yield f"weight: found {self.weight}, expected more than 0; drop the source with `~` instead"
        if self.share is not None and not 0 < self.share < 1:
            yield f"share: found {self.share}, expected more than 0 and less than 1"
        if self.share is not None and self.weight is not None:
            yield "share, weight: both given, expected one: a share of all tokens, or a weight among the others"
        if self.max_epochs is not None and not self.max_epochs > 0:
            yield f"max_epochs: found {self.max_epochs}, expected more than 0"
        if self.max_samples is not None and self.max_samples < 1:
            yield f"max_samples: found {self.max_samples}, expected at least 1"
        if self.hub is None and (self.revision or self.subset):
            yield "hub: not given, but revision or subset is, which only say what is read from a hub"
        if self.hub is None and not re.fullmatch(r"\w[\w.-]*", self.split):
            yield f"split: found {self.split!r}, expected the name of a split; only a hub cuts parts out of one"
        if self.file is not None and self.stage is None:
            yield f"file: found {self.file!r} without a stage, expected the stage that leaves the file, or file: null"
        yield from self._column_problems()
        indices = [index for index in (self.task_index, self.task_index_path) if index is not None]
        if self.drop_tasks and len(indices) != 1:
            yield f"task_index: {len(indices)} given, but drop_tasks needs one to know each question's task"
        if self.task_index is not None and not is_commit(self.task_index.rpartition("@")[2]):
            yield f"task_index: found {self.task_index!r}, expected organisation/name@commit with 40 hex digits"

    def _column_problems(self) -> Iterator[str]:
        fields = FIELDS[self.format]
        for name in self.columns:
            if name not in fields:
                yield f"columns.{name}: {self.format.value} reads no such field, expected one of {', '.join(fields)}"
        for column, pattern in self.keep.items():
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"keep.{column}: found {pattern!r}, which is no regular expression ({error})"


OnError = StrEnum("OnError", ["raise", "skip"])
"""What happens at a row that cannot be read: `raise` stops the run and names file and line, `skip` counts the row and
leaves it out."""


class Deduplicate(StrEnum):
    """Which repetitions among the samples of all sources are left out; the first one stays."""

    none = "none"
    """Every repetition stays."""
    exact = "exact"
    """The same text, except for white space and case."""
    minhash = "minhash"
    """Nearly the same text: estimated Jaccard similarity of word 5-grams above 0.8 (extra `dedup`)."""


@dataclass
class DecontaminateConfig:
    """Leave out samples that share a run of words with an evaluation set."""

    against: dict[str, SourceConfig] = MISSING
    """The evaluation sets; the questions and answers in their rows are compared."""
    ngram: int = 13
    """Consecutive words that make an overlap (13: GPT-3, arXiv 2005.14165, appendix C); shorter texts of at least 8
    words count whole."""

    def problems(self) -> Iterator[str]:
        if not self.against:
            yield "against: none given, expected at least one evaluation set"
        if self.ngram < 8:
            yield f"ngram: found {self.ngram}, expected at least 8; fewer words recur by chance"
        for name, source in self.against.items():
            yield from (f"against.{name}.{problem}" for problem in source.problems())


@dataclass
class SwitchConfig:
    """Other weights after a number of tokens of training."""

    at_tokens: int = MISSING
    """Tokens that are read before the switch."""
    weights: dict[str, float] = MISSING
    """Source -> weight; a source without a weight is no longer read."""


@dataclass
class PrepareDataConfig(StageConfig):
    """Turn a mixture of sources into tokens on disk."""

    sources: dict[str, SourceConfig] = MISSING
    """The mixture, by name. Where samples repeat, those of earlier sources stay."""
    tokenizer: str = reference("tokenizer")
    """A tokenizer stage, or a model stage (its tokenizer)."""
    task: Task = MISSING
    template: str | None = None
    """A chat template by name (`solar.data.encode.templates`); null: the tokenizer's own."""
    sequence_length: int = MISSING
    """Tokens of a row; longer samples are cut (preference: prompts lose their start, both answers are cut alike)."""
    packing: Packing = MISSING
    held_out_fraction: float = MISSING
    """Share of samples, chosen by the hash of their text, that form the `valid` split.

    A row with a column `split` belongs to that split instead: training or held-out rows are used, others left out."""
    seed: int = MISSING
    """Decides the order of the documents in the rows and what `max_samples` draws."""
    temperature: float | None = None
    """Draw sources by size ** (1 / temperature): above 1, small sources are read more often. Not with weights."""
    switches: list[SwitchConfig] = field(default_factory=list)
    """Other weights later in training, in order of `at_tokens`."""
    deduplicate: Deduplicate = Deduplicate.none
    decontaminate: DecontaminateConfig | None = None
    on_error: OnError = OnError["raise"]
    max_bad_rows: int = 1000
    """With `on_error: skip`, the run still stops when more rows than this cannot be read."""

    def code_revision(self) -> int | None:
        """1 for sources whose splits or fields of messages earlier versions ignored: their results differ now."""
        sources = [*self.sources.values(), *(self.decontaminate.against.values() if self.decontaminate else ())]
        affected = any(source.path or (source.hub and source.format in _WITH_MESSAGE_FIELDS) for source in sources)
        return 1 if affected else None

    def problems(self) -> Iterator[str]:
        yield from template_problems(self.template)
        if not self.sources:
            yield "sources: none given, expected at least one"
        if self.max_bad_rows < 0:
            yield f"max_bad_rows: found {self.max_bad_rows}, expected 0 or more"
        if not 8 <= self.sequence_length <= 2**24:
            yield f"sequence_length: found {self.sequence_length}, expected 8 to {2**24:,}"
        if not 0 <= self.held_out_fraction < 1:
            yield f"held_out_fraction: found {self.held_out_fraction}, expected 0 or more and less than 1"
        if self.task is Task.preference and self.packing is not Packing.none:
            yield f"packing: found {self.packing.value}, expected none for preference pairs"
        open_sources = {name: source for name, source in self.sources.items() if source.share is None}
        weighted = [name for name, source in open_sources.items() if source.weight is not None]
        if weighted and len(weighted) != len(open_sources):
            missing = ", ".join(sorted(set(open_sources) - set(weighted)))
            yield f"sources: some have a weight and {missing} none; give all a weight or none"
        if weighted and self.temperature is not None:
            yield "temperature: given, but sources have weights; drop one of the two"
        if self.temperature is not None and not self.temperature >= 0.1:
            yield f"temperature: found {self.temperature}, expected at least 0.1"
        shares = sum(source.share or 0 for source in self.sources.values())
        if shares >= 1 or (shares and not open_sources):
            yield f"sources: shares add up to {shares:g}, expected less than 1 and a source without a share"
        if self.decontaminate is not None:
            yield from (f"decontaminate.{problem}" for problem in self.decontaminate.problems())
        yield from self._switch_problems()
        for name, source in self.sources.items():
            if not re.fullmatch(r"\w[^\x00-\x1f]*", name):
                yield f"sources: found the name {name!r}, expected one that begins with a letter or digit, on one line"
            yield from (f"sources.{name}.{problem}" for problem in source.problems())
            if not self._suits(source.format):
                yield f"sources.{name}.format: {source.format.value} gives no samples for task {self.task.value}"

    def _suits(self, format: Format) -> bool:
        if self.task is Task.preference:
            return format in PAIR_FORMATS
        return format not in PAIR_FORMATS and (self.task is Task.pretrain or format is not Format.text)

    def _switch_problems(self) -> Iterator[str]:
        moments = [switch.at_tokens for switch in self.switches]
        if moments != sorted(set(moments)) or any(moment <= 0 for moment in moments):
            yield f"switches: at_tokens are {moments}, expected rising numbers above 0"
        for place, switch in enumerate(self.switches):
            if not switch.weights:
                yield f"switches.{place}.weights: none given, expected at least one source"
            for name, weight in switch.weights.items():
                if name not in self.sources:
                    yield f"switches.{place}.weights.{name}: no such source, expected {', '.join(self.sources)}"
                if not weight > 0:
                    yield f"switches.{place}.weights.{name}: found {weight}, expected more than 0; drop it instead"
