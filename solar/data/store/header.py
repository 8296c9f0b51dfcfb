"""`tokens.json`: what a tokens artifact says about itself. Plain JSON, read into dataclasses."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from solar.errors import DataError

HEADER = "tokens.json"
FORMAT = 1


@dataclass
class Mixture:
    """How sources are drawn over training; see `solar.data.order.order`."""

    weights: dict[str, float]
    """Source -> share of the tokens (they add up to 1)."""
    max_epochs: dict[str, float] = field(default_factory=dict)
    """Source -> how often it may be read; sources not named are endless."""
    switches: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """From that many tokens on, other weights; in order of tokens."""


@dataclass
class SourceRows:
    """Where the rows of one source lie in a split; its rows are neighbours."""

    start: int
    stop: int
    tokens: int


@dataclass
class Split:
    """Counts of one split."""

    samples: int = 0
    documents: int = 0
    """Token sequences: one a sample, two (chosen, rejected) for a preference pair."""
    pieces: int = 0
    rows: int = 0
    tokens: int = 0
    """Tokens of all rows, padding not counted."""
    trained_tokens: int = 0
    """Labels of all rows: tokens that are predicted."""
    answer_tokens: int = 0
    """Tokens that would be predicted if no document were cut into rows: what `text_bytes` belongs to."""
    text_bytes: int = 0
    """UTF-8 bytes of the text that is predicted."""
    shard_starts: list[int] = field(default_factory=list)
    """The first token of each shard."""
    sources: dict[str, SourceRows] = field(default_factory=dict)


@dataclass
class TokensHeader:
    """The artifact at a glance, and all that is needed to read its arrays."""

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
        """The share of places in the rows of a split that no token takes; a pair's two sides are a row each."""
        split = self.splits[name]
        sequences = 2 * split.rows if self.task == "preference" else split.rows
        return 1 - split.tokens / max(1, sequences * self.sequence_length)

    def write(self, folder: Path) -> None:
        """Leave it in `folder`."""
        (folder / HEADER).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "TokensHeader":
        """Raises `DataError` if the folder holds no tokens that this version reads."""
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
