"""A few words of each model, for people to read."""

from typing import Any

from solar.data.encode.encode import Encoder
from solar.evaluation.generate import generate, words

MAX_NEW_TOKENS = 32


def answers(model: Any, tokenizer: Any, questions: list[list[dict[str, str]]]) -> list[dict[str, str]]:
    """The likeliest answer, token by token, to each conversation: `prompt` and `text`."""
    encoder = Encoder(tokenizer)
    if tokenizer.chat_template is None:
        texts = [messages[-1]["content"] for messages in questions]
        return continuations(model, tokenizer, [encoder.text_prompt(text + "\n") for text in texts])
    stop = encoder.end_of_turn_ids()
    return [
        {"prompt": messages[-1]["content"], "text": _greedy(model, tokenizer, encoder.prompt(messages), stop)}
        for messages in questions
    ]


def continuations(model: Any, tokenizer: Any, prompts: list[list[int]]) -> list[dict[str, str]]:
    """How the likeliest text goes on from each beginning, given as token ids: `prompt` and `text`."""
    stop = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [
        {"prompt": str(tokenizer.decode(ids, skip_special_tokens=True)), "text": _greedy(model, tokenizer, ids, stop)}
        for ids in prompts
    ]


def _greedy(model: Any, tokenizer: Any, prompt: list[int], stop: list[int]) -> str:
    return "".join(words(tokenizer, generate(model, prompt, stop, MAX_NEW_TOKENS), after=prompt)).strip()
