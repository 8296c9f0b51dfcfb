"""Multiple choice by likelihood: the likeliest of the given answers; no answer is generated.

Shapes: N tokens of answers.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from solar.data.encode.encode import Encoder
from solar.errors import DataError, StageError
from solar.network.cross_entropy import segment_sums
from solar.network.decoder import Decoder
from solar.network.device import TOKENS_AT_ONCE, format_of_sums
from solar.network.microbatch import from_answers

FILE = "choices.jsonl"

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt, at least one, and of an answer."""


@dataclass(frozen=True)
class Question:
    """One row of the file: `messages` or `context`, `choices`, and `answer`, the index of the right one."""

    choices: list[str]
    answer: int
    task: str = "choices"
    """The kind of the question; each task has a score of its own, too."""
    messages: list[dict[str, str]] | None = None
    context: str | None = None


def read_questions(folder: Path, at_most: int | None = None) -> list[Question]:
    """The first `at_most` questions of each task. Raises `DataError` with the number of a line that is no question."""
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"choices: {folder} has no {FILE}, expected a text stage that leaves one")
    questions: list[Question] = []
    taken: Counter[str] = Counter()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            question = Question(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}:{number}: no question ({error})") from error
        if (question.messages is None) == (question.context is None):
            raise DataError(f"{path}:{number}: has both or neither of messages and context, expected one")
        if not 0 <= question.answer < len(question.choices):
            raise DataError(f"{path}:{number}: answer {question.answer} is not one of {len(question.choices)} choices")
        taken[question.task] += 1
        if at_most is None or taken[question.task] <= at_most:
            questions.append(question)
    if not questions:
        raise DataError(f"{path}: is empty, expected at least one question")
    return questions


def accuracy(decoder: Decoder, tokenizer: Any, questions: list[Question]) -> dict[str, Any]:
    """Share of questions whose right answer has the largest sum of log-probabilities.

    `accuracy_<task>` is the share among the questions of one task. `choice_accuracy_normalised` divides each sum by the
    answer's length in characters (arXiv 2405.14782, `acc_norm`); `choice_chance` is the expected share of guesses;
    `choice_stderr` is the standard error of the mean.
    """
    sums = iter(log_likelihoods(decoder, encode(tokenizer, questions)))
    hits, normalised_hits = [], []
    for question in questions:
        scores = [next(sums) for _ in question.choices]
        by_length = [score / len(choice) for score, choice in zip(scores, question.choices, strict=True)]
        hits.append(scores.index(max(scores)) == question.answer)
        normalised_hits.append(by_length.index(max(by_length)) == question.answer)
    share, count = sum(hits) / len(hits), len(questions)
    return {
        "choice_accuracy": share,
        **{f"accuracy_{task}": value for task, value in _by_task(questions, hits).items()},
        "choice_accuracy_normalised": sum(normalised_hits) / count,
        "choice_stderr": math.sqrt(share * (1 - share) / max(count - 1, 1)),
        "choice_chance": sum(1 / len(question.choices) for question in questions) / count,
        "choice_questions": count,
    }


def _by_task(questions: list[Question], hits: list[bool]) -> dict[str, float]:
    """The share of right answers of each task; empty for a single task, whose share is that of all."""
    tasks = dict.fromkeys(question.task for question in questions)
    if len(tasks) < 2:
        return {}
    by_task = {
        task: [hit for question, hit in zip(questions, hits, strict=True) if question.task == task] for task in tasks
    }
    return {task: sum(own) / len(own) for task, own in by_task.items()}


def encode(tokenizer: Any, questions: list[Question]) -> list[Pair]:
    """A prompt and an answer for each choice, in order.

    A conversation is rendered as in training. Without a chat template, and after a `context`, the choice follows as
    plain text.
    """
    pairs: list[Pair] = []
    encoder = Encoder(tokenizer)
    for question in questions:
        if question.messages is not None and tokenizer.chat_template is not None:
            pairs += _answers(encoder, question.messages, question.choices)
            continue
        context = question.context
        if context is None:
            context = "".join(message["content"] + "\n" for message in question.messages or [])
        pairs += [encoder.text_continuation(context, choice) for choice in question.choices]
    return pairs


def _answers(encoder: Encoder, messages: list[dict[str, str]], choices: list[str]) -> Iterator[Pair]:
    """The last turn of each conversation as an answer, without the token that ends the turn."""
    stops = encoder.end_of_turn_ids()
    conversations = [encoder.cut([*messages, {"role": "assistant", "content": choice}]) for choice in choices]
    for tokens in encoder.conversations(conversations):
        end = len(tokens.ids) - (tokens.ids[-1] in stops)
        start = end
        while start > 0 and tokens.trained[start - 1]:
            start -= 1
        yield tokens.ids[:start], tokens.ids[start:end]


def log_likelihoods(decoder: Decoder, pairs: list[Pair]) -> list[float]:
    """Sum over each answer's tokens of log p(token | prompt, answer so far), in nats.

    Prompts lose their start where both together are longer than the model's positions.
    """
    longest, most = decoder.max_positions, TOKENS_AT_ONCE[decoder.device.type]
    rows = [_shortened(prompt, answer, longest) for prompt, answer in pairs]
    lengths = [len(prompt) + len(answer) for prompt, answer in rows]
    order = sorted(range(len(rows)), key=lambda index: (lengths[index], index))
    sums = [0.0] * len(rows)
    while order:
        batch = order[-max(1, most // lengths[order[-1]]) :]
        del order[-len(batch) :]
        for index, total in zip(batch, _sums(decoder, [rows[index] for index in batch]), strict=True):
            sums[index] = total
    return sums


def _shortened(prompt: list[int], answer: list[int], longest: int) -> Pair:
    """The last token of an answer is predicted and never read, so `longest` positions hold one token more."""
    ids = (prompt + answer)[-longest - 1 :]
    start = max(1, len(ids) - len(answer))
    return ids[:start], ids[start:]


@torch.inference_mode()
def _sums(decoder: Decoder, rows: list[Pair]) -> list[float]:
    for prompt, answer in rows:
        decoder.check_ids(prompt + answer)
    batch = from_answers(rows).to(decoder.device)
    logps_N = decoder.head.logps(decoder.trained_states(batch), batch.targets_N)
    sums: list[float] = segment_sums(
        logps_N.to(format_of_sums(decoder.device.type)), batch.answers_N, batch.answers
    ).tolist()
    if any(map(math.isnan, sums)):
        raise StageError(
            f"{decoder.network.name_or_path}: log-probabilities of answers are no numbers; the weights hold numbers "
            "that are not finite, or overflow the number format they are stored in"
        )
    return sums
