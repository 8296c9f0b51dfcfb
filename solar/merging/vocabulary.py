"""Which token each row of the embeddings is, from whatever files a tokenizer has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solar.errors import ArtifactError
from solar.weights.json_file import read_json
from solar.weights.members import member

FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
"""Files that say which row is which token, the best first."""
_MAX_MODEL_BYTES = 100_000_000


def vocabulary_file(folder: Path) -> Path | None:
    """The best of the files that a folder has."""
    return next((member(folder, name) for name in FILES if (folder / name).exists()), None)


def tokens(path: Path) -> dict[str, int]:
    """Token -> row, with the tokens that slow tokenizers keep in files of their own."""
    if path.name == FILES[0]:
        return _of_tokenizer_json(read_json(path))
    rows = read_json(path) if path.name == FILES[1] else dict(_pieces(path))
    return {**rows, **_added(path.parent)}


def difference(left: dict[str, int], right: dict[str, int], same_kind: bool) -> str | None:
    """A token with another row, the first by name.

    Between two kinds of files, a token that one side lacks counts only if its row has another token on that side.
    """
    at_row = [{row: token for token, row in side.items()} for side in (left, right)]
    for token in sorted(left.keys() | right.keys()):
        rows = left.get(token), right.get(token)
        if rows[0] == rows[1]:
            continue
        if same_kind or None not in rows:
            return token
        known = rows[0] if rows[0] is not None else rows[1]
        if all(known in rows_of for rows_of in at_row):
            return token
    return None


def _of_tokenizer_json(tokenizer: dict[str, Any]) -> dict[str, int]:
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # unigram: pairs of token and score, the row is the position
        vocabulary = {pair[0]: row for row, pair in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}}


def _added(folder: Path) -> dict[str, int]:
    """Tokens beside a vocabulary, of `added_tokens.json` and `tokenizer_config.json`."""
    listed = read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").exists() else {}
    settings = folder / "tokenizer_config.json"
    decoder = read_json(settings).get("added_tokens_decoder") or {} if settings.exists() else {}
    return {**listed, **{token["content"]: int(row) for row, token in decoder.items()}}


def _pieces(path: Path) -> Iterator[tuple[str, int]]:
    """Pieces of a SentencePiece model in the order of their rows: field 1 of each field 1 of the message."""
    if path.stat().st_size > _MAX_MODEL_BYTES:
        raise ArtifactError(f"{path}: larger than {_MAX_MODEL_BYTES:,} bytes, expected a SentencePiece model")
    content = path.read_bytes()
    try:
        row = 0
        for field, piece in _fields(content):
            if field == 1 and isinstance(piece, bytes):
                yield (
                    next(text.decode() for inner, text in _fields(piece) if inner == 1 and isinstance(text, bytes)),
                    row,
                )
                row += 1
    except (IndexError, StopIteration, UnicodeDecodeError, ValueError, RuntimeError):
        raise ArtifactError(f"{path}: not a SentencePiece model, or cut short; fetch it again") from None


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of each field of a protocol buffer's message."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind, size = key & 7, 0
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(message):
            raise ValueError("cut short")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("number too long")
