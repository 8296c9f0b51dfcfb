"""Text, a token at a time.

Shapes: T positions, V tokens of the vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def generate(
    model: Any,
    prompt: list[int],
    stop: list[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """Token ids after `prompt`, up to one of `stop` (which is not given) or the last position the model knows.

    At `temperature` 0 each is the likeliest one; else it is drawn from the likeliest tokens whose probability,
    after division of the logits by `temperature`, adds up to `top_p` (arXiv 1904.09751, section 3.1).
    A prompt that leaves no room loses its start.
    """
    longest = getattr(model.config, "max_position_embeddings", None) or 2**31
    prompt = prompt[-max(1, longest - max_new_tokens) :]
    draw = torch.Generator(device=model.device).manual_seed(seed)
    cache, ids_1T = None, torch.tensor([prompt], device=model.device)
    for _ in range(min(max_new_tokens, longest - len(prompt))):
        output = model(input_ids=ids_1T, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        token = _choose(output.logits[0, -1].float(), temperature, top_p, draw)
        if token in stop:
            return
        yield token
        ids_1T = torch.tensor([[token]], device=model.device)


def _choose(logits_V: Tensor, temperature: float, top_p: float, draw: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    chances_V, order_V = (logits_V / temperature).softmax(-1).sort(descending=True)
    before_V = chances_V.cumsum(-1) - chances_V
    chances_V[before_V >= top_p] = 0
    return int(order_V[torch.multinomial(chances_V, 1, generator=draw)])


def words(tokenizer: Any, ids: Iterable[int], after: Sequence[int] = ()) -> Iterator[str]:
    """Text of `ids` as soon as it is whole, since a character may need several tokens.

    `after` is the text that goes on, if any: some tokenizers write the space before a word only inside a text.
    """
    seen = list(after)
    told = _text(tokenizer, seen)
    for token in ids:
        seen.append(token)
        text = _text(tokenizer, seen)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(told):
            yield text[len(told) :]
            told = text
    if rest := _text(tokenizer, seen)[len(told) :]:
        yield rest


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
