"""A few lines that each model writes, for people to read."""

from typing import Any

from solar.data.encode.encode import Encoder
from solar.evaluation.generate import generate, words
from solar.network.decoder import Decoder

MAX_NEW_TOKENS = 32


def answers(decoder: Decoder, tokenizer: Any, questions: list[list[dict[str, str]]]) -> list[dict[str, str]]:
    """Greedy answers to conversations: `prompt`, the last message, and `text`, the answer."""
    encoder = Encoder(tokenizer)
    if tokenizer.chat_template is None:
        texts = [messages[-1]["content"] for messages in questions]
        return continuations(decoder, tokenizer, [encoder.text_prompt(text + "\n") for text in texts])
    stop = encoder.end_of_turn_ids()
    return [
        {"prompt": messages[-1]["content"], "text": _greedy(decoder, tokenizer, encoder.prompt(messages), stop)}
        for messages in questions
    ]


def continuations(decoder: Decoder, tokenizer: Any, prompts: list[list[int]]) -> list[dict[str, str]]:
    """Greedy continuations of beginnings that are given as token ids: `prompt` and `text`."""
    stop = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [
        {"prompt": str(tokenizer.decode(ids, skip_special_tokens=True)), "text": _greedy(decoder, tokenizer, ids, stop)}
        for ids in prompts
    ]


def _greedy(decoder: Decoder, tokenizer: Any, prompt: list[int], stop: list[int]) -> str:
    return "".join(words(tokenizer, generate(decoder, prompt, stop, MAX_NEW_TOKENS), after=prompt)).strip()
