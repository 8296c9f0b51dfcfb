"""Multiple choice by likelihood: the answer a model finds likeliest, without generating one.

Shapes: B choices, T positions, K last positions that have logits, V tokens of the vocabulary.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from solar.data.encode.encode import Encoder
from solar.errors import DataError

FILE = "choices.jsonl"
TOKENS_AT_ONCE = 2048
"""Bound on B x T; a constant, so that scores do not depend on the machine."""

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt and of an answer."""


@dataclass(frozen=True)
class Question:
    """One row of the file: `messages` or `context`, `choices`, and `answer`, the index of the right one."""

    choices: list[str]
    answer: int
    task: str = "choices"
    """What kind of question it is; scores are told by task, too."""
    messages: list[dict[str, str]] | None = None
    context: str | None = None


def read_questions(folder: Path, at_most: int | None = None) -> list[Question]:
    """The first `at_most` questions of each task. Raises `DataError` with the line that is no question."""
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


def accuracy(model: Any, tokenizer: Any, questions: list[Question]) -> dict[str, Any]:
    """Share of questions whose right answer has the largest sum of log-probabilities.

    `accuracy_<task>` is the share among the questions of one task. `choice_accuracy_normalised` divides each sum by the
    answer's length in characters (arXiv 2405.14782, `acc_norm`); `choice_chance` is what guessing would give;
    `choice_stderr` is the standard error of the mean.
    """
    sums = iter(log_likelihoods(model, encode(tokenizer, questions)))
    plain, normalised = [], []
    for question in questions:
        scores = [next(sums) for _ in question.choices]
        by_length = [score / len(choice) for score, choice in zip(scores, question.choices, strict=True)]
        plain.append(scores.index(max(scores)) == question.answer)
        normalised.append(by_length.index(max(by_length)) == question.answer)
    share, count = sum(plain) / len(plain), len(questions)
    return {
        "choice_accuracy": share,
        **{f"accuracy_{task}": value for task, value in _by_task(questions, plain).items()},
        "choice_accuracy_normalised": sum(normalised) / count,
        "choice_stderr": math.sqrt(share * (1 - share) / max(count - 1, 1)),
        "choice_chance": sum(1 / len(question.choices) for question in questions) / count,
        "choice_questions": count,
    }


def _by_task(questions: list[Question], right: list[bool]) -> dict[str, float]:
    """Nothing where there is one task only, whose share is that of all."""
    tasks = dict.fromkeys(question.task for question in questions)
    if len(tasks) < 2:
        return {}
    hits = {
        task: [hit for question, hit in zip(questions, right, strict=True) if question.task == task] for task in tasks
    }
    return {task: sum(found) / len(found) for task, found in hits.items()}


def encode(tokenizer: Any, questions: list[Question]) -> list[Pair]:
    """One pair of token ids a choice, in order.

    A conversation is rendered as in training; without a chat template, and for `context`, the text goes on as it is.
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
    """The last turn of each conversation, without the token that ends it."""
    stops = encoder.end_of_turn_ids()
    said = [encoder.cut([*messages, {"role": "assistant", "content": choice}]) for choice in choices]
    for tokens in encoder.conversations(said):
        end = len(tokens.ids) - (tokens.ids[-1] in stops)
        start = end
        while start > 0 and tokens.trained[start - 1]:
            start -= 1
        yield tokens.ids[:start], tokens.ids[start:end]


def log_likelihoods(model: Any, pairs: list[Pair]) -> list[float]:
    """Sum over each answer's tokens of log p(token | prompt, answer so far), in nats.

    Prompts lose their start where both together are longer than the model's positions.
    """
    longest = getattr(model.config, "max_position_embeddings", None) or 2**31
    rows = [((prompt + answer)[-longest - 1 :], min(len(answer), longest)) for prompt, answer in pairs]
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index][0]), index))
    sums = [0.0] * len(rows)
    while order:
        width = len(rows[order[-1]][0])
        batch = order[-max(1, TOKENS_AT_ONCE // width) :]
        del order[-len(batch) :]
        for index, total in zip(batch, _batch(model, [rows[index] for index in batch], width), strict=True):
            sums[index] = total
    return sums


@torch.inference_mode()
def _batch(model: Any, rows: list[tuple[list[int], int]], width: int) -> list[float]:
    """Padding stands right of the answer, where nothing that is scored can see it."""
    ids_BT = torch.stack([pad(torch.tensor(ids), (0, width - len(ids))) for ids, _ in rows]).to(model.device)
    first = min(len(ids) - answer for ids, answer in rows)
    inputs_BT, targets_BK = ids_BT[:, :-1], ids_BT[:, first:]
    logits_BKV = model(input_ids=inputs_BT, use_cache=False, logits_to_keep=width - first).logits
    logps_BK = logits_BKV.float().log_softmax(-1).gather(-1, targets_BK[..., None]).squeeze(-1).double()
    return [float(logps_BK[row, len(ids) - n - first : len(ids) - first].sum()) for row, (ids, n) in enumerate(rows)]
