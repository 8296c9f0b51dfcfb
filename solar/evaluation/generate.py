"""Text, a token at a time.

Shapes: V tokens of the vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from solar.errors import StageError
from solar.network.decoder import Decoder


def generate(
    decoder: Decoder,
    prompt: list[int],
    stop: list[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """Token ids after `prompt`, up to the last position the model knows, or the first token that ends a text.

    These tokens, which are not yielded, are those of `stop`, and of `generation_config.json` as in transformers.

    At `temperature` 0 each is the likeliest token; else it is drawn from the likeliest tokens whose probability,
    after division of the logits by `temperature`, adds up to `top_p` (arXiv 1904.09751, section 3.1).
    A prompt that leaves no room loses its start.

    Raises:
        StageError: `prompt` holds a token without a row in the embeddings, or logits are not finite.
    """
    decoder.check_ids(prompt)
    ends = {*stop, *_named_ends(decoder)}
    longest = decoder.max_positions
    ids = prompt[-max(1, longest - max_new_tokens) :]
    draw = torch.Generator(device=decoder.device).manual_seed(seed)
    memory = None
    for _ in range(min(max_new_tokens, longest - len(ids))):
        logits_V, memory = decoder.next_logits(ids, memory)
        if not torch.isfinite(logits_V.max()):  # a mask may hold -inf, but some token must be possible
            raise StageError(
                f"{decoder.network.name_or_path}: the model's logits are not finite; its weights hold numbers that are "
                "not finite, or overflow the number format they are stored in"
            )
        token = _choose(logits_V, temperature, top_p, draw)
        if token in ends:
            return
        yield token
        ids = [*ids, token]


def _named_ends(decoder: Decoder) -> list[int]:
    """The tokens that end a text by the model's own `generation_config.json`."""
    named = getattr(getattr(decoder.network, "generation_config", None), "eos_token_id", None)
    return named if isinstance(named, list) else [] if named is None else [named]


def _choose(logits_V: Tensor, temperature: float, top_p: float, draw: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    chances_V, order_V = (logits_V / temperature).softmax(-1).sort(descending=True)
    before_V = chances_V.cumsum(-1) - chances_V
    chances_V[before_V >= top_p] = 0
    return int(order_V[torch.multinomial(chances_V, 1, generator=draw)])


def words(tokenizer: Any, ids: Iterable[int], after: Sequence[int] = ()) -> Iterator[str]:
    """The text of `ids`, part by part; a part ends where a character does, since one may need several tokens.

    `after`: the ids that these follow, because some tokenizers write the space before a word only inside a text.
    """
    read = list(after)
    written = _text(tokenizer, read)
    for token in ids:
        read.append(token)
        text = _text(tokenizer, read)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(written):
            yield text[len(written) :]
            written = text
    if rest := _text(tokenizer, read)[len(written) :]:
        yield rest


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
