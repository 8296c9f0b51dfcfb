"""`tokens.json`: the description of a tokens artifact, as dataclasses."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from solar.errors import DataError

HEADER = "tokens.json"
FORMAT = 1


@dataclass
class Mixture:
    """The share of each source over training; see `solar.data.order.order`."""

    weights: dict[str, float]
    """Source -> share of the tokens. The shares add up to 1."""
    max_epochs: dict[str, float] = field(default_factory=dict)
    """Source -> how often it may be read. Sources without an entry are read without end."""
    switches: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """(tokens, weights): after so many tokens of training the weights change. In order of tokens."""


@dataclass
class SourceRows:
    """The rows `start` to `stop` of a split, which are those of one source."""

    start: int
    stop: int
    tokens: int


@dataclass
class Split:
    """Counts of one split."""

    samples: int = 0
    documents: int = 0
    """Token sequences: one a sample, except two (chosen, rejected) for a preference pair."""
    pieces: int = 0
    rows: int = 0
    tokens: int = 0
    """Tokens of all rows, without padding."""
    trained_tokens: int = 0
    """Targets of all rows."""
    answer_tokens: int = 0
    """Targets if no document were cut at the end of a row: the tokens of the text that `text_bytes` counts."""
    text_bytes: int = 0
    """UTF-8 bytes of the text that the targets stand for."""
    shard_starts: list[int] = field(default_factory=list)
    """The first token of each shard."""
    sources: dict[str, SourceRows] = field(default_factory=dict)


@dataclass
class TokensHeader:
    """The description of a tokens artifact: what it holds, and what its arrays are read with."""

    task: str
    vocab_size: int
    sequence_length: int
    packing: str
    template: str | None
    bos_id: int | None
    eos_id: int
    pad_id: int
    dtype: str
    mixture: Mixture
    splits: dict[str, Split]
    format: int = FORMAT

    def padding_share(self, name: str) -> float:
        """The share of padding if all rows of a split had `sequence_length` tokens; a pair counts as two rows."""
        split = self.splits[name]
        sequences = 2 * split.rows if self.task == "preference" else split.rows
        return 1 - split.tokens / max(1, sequences * self.sequence_length)

    def write(self, folder: Path) -> None:
        """Write `tokens.json` into `folder`."""
        (folder / HEADER).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "TokensHeader":
        """Raises `DataError` if the folder holds no tokens, or tokens of another format."""
        path = folder / HEADER
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format") != FORMAT:
                raise DataError(f"{path}: format {values.get('format')}, expected {FORMAT}; prepare the data again")
            mixture = Mixture(**values.pop("mixture"))
            splits = {name: _split(split) for name, split in values.pop("splits").items()}
            return cls(mixture=mixture, splits=splits, **values)
        except FileNotFoundError:
            raise DataError(f"{folder}: no {HEADER} in it, expected the output of a prepare_data stage") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}); prepare the data again") from None


def _split(values: dict[str, Any]) -> Split:
    sources = {name: SourceRows(**rows) for name, rows in values.pop("sources").items()}
    return Split(**values, sources=sources)
