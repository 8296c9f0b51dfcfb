"""Reading a source: rows are read, filtered and assigned to a split; rows that are left out are counted."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from solar.config.data import PrepareDataConfig, SourceConfig
from solar.config.splits import kind_of_split
from solar.data.clean.drops import Drops
from solar.data.clean.duplicates import Seen, seen_before
from solar.data.clean.ngrams import NgramIndex
from solar.data.clean.select import Filter, keeping, of_split, selected
from solar.data.clean.tasks import TaskIndex
from solar.data.encode.samples import Parsed, Sampler
from solar.data.read import sources
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow, Located, Row
from solar.errors import DataError

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Accepted:
    """A row that becomes a sample."""

    where: str
    split: str
    parsed: Parsed


class Intake:
    """Reads the sources of a mixture one after the other; duplicates are found across all of them."""

    def __init__(
        self, config: PrepareDataConfig, sampler: Sampler, folder_of: Callable[[SourceConfig], Path | None]
    ) -> None:
        """`folder_of` gives the artifact of the stage that a source names."""
        self.drops: dict[str, Drops] = {name: Drops() for name in config.sources}
        self.rows = dict.fromkeys(config.sources, 0)
        """Source -> rows read, those that are left out included."""
        self.unread: dict[str, Counter[str]] = {name: Counter() for name in config.sources}
        """Source -> columns and fields of messages that are passed over -> rows that have a value there."""
        self._bad_rows = dict.fromkeys(config.sources, 0)
        self._config = config
        self._sampler = sampler
        self._folder_of = folder_of
        self._seen: Seen | None = seen_before(config.deduplicate)
        self.exams: NgramIndex | None = self._evaluation_sets()
        """The evaluation sets that samples must not overlap, if any."""

    def read(self, name: str) -> Iterator[Accepted]:
        """The rows of a source that become samples. Raises `DataError` for a bad row, unless `on_error` is skip."""
        source = self._config.sources[name]
        reader = Reader(source.format, source.columns)
        rows = selected(
            lambda: self._counted(name),
            self._filters(source),
            self.drops[name],
            lambda where, error: self._bad(name, where, error),
            source.max_samples,
            self._config.seed,
        )
        for where, row in rows:
            try:
                parsed = self._sampler.read(reader, row)
            except BadRow as error:
                self._bad(name, where, error)
                continue
            if self._is_new(name, where, parsed.text):
                yield Accepted(where, self._split_of(source, row, parsed.prompt), parsed)
        for column in reader.unread.keys() - {"split", *source.keep}:
            self.unread[name][column] = reader.unread[column]

    def _counted(self, name: str) -> Iterator[Located]:
        source = self._config.sources[name]
        self.rows[name] = 0  # rows that are drawn at random are read twice
        for located in sources.rows(source, self._folder_of(source)):
            self.rows[name] += 1
            yield located

    def _is_new(self, name: str, where: str, text: str) -> bool:
        if self.exams is not None and (overlap := self.exams.overlap(text)) is not None:
            self.drops[name].add("contaminated", where, f"shares with {overlap[0]}: {overlap[1]}")
            return False
        if self._seen is not None and self._seen(text):
            self.drops[name].add("duplicate", where, text)
            return False
        return True

    def _split_of(self, source: SourceConfig, row: Row, prompt: str) -> str:
        named = row.get("split")
        if kind_of_split(source.split) == "train" and isinstance(named, str) and (kind := kind_of_split(named)):
            return "train" if kind == "train" else "valid"
        digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
        return "valid" if int.from_bytes(digest, "big") / 2**64 < self._config.held_out_fraction else "train"

    def _bad(self, name: str, where: str, error: BadRow) -> None:
        self.drops[name].add(error.reason, where, str(error))
        if error.reason in self._sampler.harmless:
            return
        if self._config.on_error.value == "raise":
            raise DataError(f"{where}: {error}; mend it, or set `on_error: skip`")
        self._bad_rows[name] += 1
        if self._bad_rows[name] > self._config.max_bad_rows:
            raise DataError(
                f"{where}: {error}; with it sources.{name} has more than {self._config.max_bad_rows:,} bad rows "
                "(max_bad_rows): is its format right?"
            )

    def _filters(self, source: SourceConfig) -> list[Filter]:
        in_rows_alone = not sources.files_name_splits(source, self._folder_of(source))
        filters = [of_split(source.split, in_rows_alone)]
        filters += [keeping(source.keep)] if source.keep else []
        if source.drop_tasks:
            hub, _, revision = (source.task_index or "").partition("@")
            place = SourceConfig(hub=hub or None, revision=revision or None, path=source.task_index_path)
            index = TaskIndex(sources.rows(place), source.drop_tasks)
            filters.append(index.dropping(source.columns.get("question", "question")))
        return filters

    def _evaluation_sets(self) -> NgramIndex | None:
        if self._config.decontaminate is None:
            return None
        index = NgramIndex(self._evaluation_texts(), self._config.decontaminate.ngram)
        if not len(index):
            raise DataError("decontaminate: no evaluation text is long enough to compare, expected 8 words or more")
        return index

    def _evaluation_texts(self) -> Iterator[tuple[str, list[str]]]:
        assert self._config.decontaminate is not None
        for name, source in self._config.decontaminate.against.items():
            reader = Reader(source.format, source.columns)
            for where, row in sources.rows(source, self._folder_of(source)):
                try:
                    if isinstance(row, BadRow):
                        raise row
                    texts = reader.texts(row)
                except BadRow as error:
                    raise DataError(f"decontaminate.against.{name}: {where}: {error}") from None
                whole = "\n\n".join(texts)
                yield name, [whole, *texts] if len(texts) > 1 else texts  # a short question counts by itself, too
