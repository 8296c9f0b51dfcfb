"""Special tokens under names that no text can hold, so that what people write is never one, whatever its letters."""

import json
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import tokenizers

_BEGIN, _END = "\ue002", "\ue003"


class SecretNames:
    """A tokenizer whose special tokens go by secret names: a template's are given them, a text cannot have them."""

    def __init__(self, backend: tokenizers.Tokenizer, special: Mapping[str, int]) -> None:
        """`special`: token -> id."""
        secret = secrets.token_hex(16)
        self._names = {token: f"{_BEGIN}{secret}x{i}{_END}" for token, i in special.items()}
        self.ids = {self._names[token]: i for token, i in special.items()}
        """Secret name -> id."""
        described = json.loads(backend.to_str())
        _rename(described["model"], self._names)
        for token in described["added_tokens"]:
            token["special"] = token["content"] in special
            if token["special"]:
                token["normalized"] = False  # nothing is done to a text before they are found,
                token["single_word"] = False  # and they may stand beside letters
                token["content"] = self._names[token["content"]]
        self._strips = {token["content"] for token in described["added_tokens"] if token["rstrip"]}
        self.backend = tokenizers.Tokenizer.from_str(json.dumps(described))
        """Finds special tokens by their secret names alone."""
        self.backend.no_truncation()  # a tokenizer that was saved after training may still cut and pad
        self.backend.no_padding()
        self._pattern = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
        self.given = lru_cache(maxsize=4096)(self._given)  # but for contents, most conversations are the same

    def _given(self, text: str) -> str:
        """A template's text, its special tokens under their secret names."""
        return self._pattern.sub(lambda found: self._names[found[0]], text)

    def first(self, text: str, start: int = 0) -> str:
        """The special token that a template's text has at `start`; empty if words stand there."""
        token = self._pattern.match(text, start)
        return token[0] if token else ""

    def first_inside(self, text: str) -> str:
        """The first special token anywhere in a text; empty if there is none."""
        token = self._pattern.search(text)
        return token[0] if token else ""

    def last(self, text: str) -> str | None:
        """The secret name of the token that a text ends with, behind which the tokenizer begins anew."""
        end = text.rstrip()
        name = end[end.rfind(_BEGIN) :] if end.endswith(_END) else ""
        return name if name in self.ids and (end == text or name in self._strips) else None


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Entries of a vocabulary are found in any text: those of special tokens, too, must have a secret name."""
    if model["type"] == "Unigram":
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
        return
    model["vocab"] = {names.get(piece, piece): i for piece, i in model["vocab"].items()}
    model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if model["type"] == "BPE":
        prefix = model["continuing_subword_prefix"] or ""
        merges = ((a, b, a + b.removeprefix(prefix)) for a, b in model["merges"])
        model["merges"] = [[a, b] for a, b, both in merges if names.keys().isdisjoint((a, b, both))]
