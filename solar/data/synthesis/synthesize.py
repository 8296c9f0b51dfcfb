"""Synthetic mathematics as the SOLAR paper makes it (sections 3 and 4.1, after MetaMath, arXiv 2309.12284).

A model rephrases each seed question and answers the rephrased question. Answers are kept whose final answer is the
seed's. The model does not see the seed's answer: it could copy the answer and pass with any question. Each kept answer
becomes an instruction (rephrased question, new answer) and a pair (chosen: the new answer, rejected: the seed's own).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from solar.data.read.messages import Message
from solar.data.synthesis.answerers import Answerer
from solar.data.synthesis.final_answer import final_answer
from solar.data.synthesis.journal import go_on, results
from solar.data.synthesis.kept_answers import publish
from solar.errors import DataError


@dataclass(frozen=True)
class Seed:
    """A question with a worked answer whose final answer is known."""

    question: str
    answer: str
    final: str


@dataclass(frozen=True)
class Prompts:
    """The texts that a model answers, with placeholders for the seed's fields."""

    question: str
    """Asks for another wording of `{question}`."""
    answer: str
    """Asks for a solution of `{question}`; may show the seed's solution (`{answer}`)."""

    @classmethod
    def read(cls, question: Path | None, answer: Path | None) -> "Prompts":
        """Prompts from two files (None: this package's own). Raises `DataError` for a prompt without `{question}`."""
        own = resources.files("solar.data.synthesis") / "prompts"
        texts = []
        for path, name in ((question, "rephrase_question.txt"), (answer, "answer_question.txt")):
            try:
                text = (own / name if path is None else path).read_text(encoding="utf-8").rstrip("\n")
            except UnicodeDecodeError:
                raise DataError(f"{path}: this is not UTF-8 text") from None
            if "{question}" not in text:
                raise DataError(f"{path}: no {{question}} in the prompt, so it would ask the same thing every time")
            texts.append(text)
        return cls(*texts)


def read_seeds(conversations: Iterator[list[Message]], counts: Counter[str]) -> Iterator[Seed]:
    """The first question and answer of each conversation; answers without a final answer are counted and left out."""
    for messages in conversations:
        turns = {message["role"]: message["content"] for message in reversed(messages)}
        final = final_answer(turns["assistant"])
        if final is None or "user" not in turns:
            counts["seed_without_final_answer"] += 1
        else:
            yield Seed(turns["user"], turns["assistant"], final)


def synthesize(
    seeds: Iterator[Seed],
    answerer: Answerer,
    prompts: Prompts,
    output: Path,
    journal: Path,
    questions_per_seed: int,
    answers_per_question: int,
    seed: int,
    counts: Counter[str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Leave `instruct.jsonl`, `alignment.jsonl` and `left_out.jsonl` in `output`; return how many answers were kept.

    Answers first go into `journal`, a line a group of seeds. A call with the same arguments resumes after the last
    whole line. Raises `DataError` if there is no seed, or if no answer is kept.
    """
    counts = Counter() if counts is None else counts
    begun = time.monotonic()

    async def work(number: int, group: Sequence[Seed]) -> list[dict[str, Any]]:
        group_seed = seed * 1_000_003 + number
        return await _work(group, answerer, prompts, questions_per_seed, answers_per_question, group_seed)

    def show(done: int, done_now: int) -> None:
        progress(f"{done:,} seeds  {done_now / (time.monotonic() - begun) * 60:,.0f} a minute")

    count = asyncio.run(go_on(journal, seeds, work, answerer.group, answerer.ahead, show))
    if count == 0:
        raise DataError("seeds: none has a final answer (in a box, after ####, or after 'The answer is')")
    kept = publish(results(journal), output, counts)
    if not kept:
        why = ", ".join(f"{number:,} {reason}" for reason, number in counts.most_common())
        raise DataError(f"seeds: none of the answers to {count:,} seeds can be kept ({why}); try a better model")
    return {"seeds": count, "kept": kept, "left_out": dict(counts)}


async def _work(
    group: Sequence[Seed], answerer: Answerer, prompts: Prompts, questions: int, answers: int, random_seed: int
) -> list[dict[str, Any]]:
    """The seeds of a group, each with its rephrased questions and their solutions."""
    to_rephrase = [prompts.question.replace("{question}", seed.question) for seed in group for _ in range(questions)]
    rephrased = _ended(await answerer.answer(to_rephrase, random_seed))
    seed_of_each = [seed for seed in group for _ in range(questions)]
    to_answer = [
        _fill(prompts.answer, question, seed.answer)
        for question, seed in zip(rephrased, seed_of_each, strict=True)
        for _ in range(answers)
    ]
    answered = _ended(await answerer.answer(to_answer, random_seed + 1))
    answered_seeds = []
    for place, seed in enumerate(group):
        texts = rephrased[place * questions : (place + 1) * questions]
        start = place * questions * answers
        solutions = [answered[start + k * answers : start + (k + 1) * answers] for k in range(questions)]
        answered_seeds.append({**vars(seed), "rephrased": texts, "solutions": solutions})
    return answered_seeds


def _ended(texts: Sequence[str]) -> list[str]:
    """Texts up to the next example: a model that has not learnt to stop continues with another problem."""
    return [text.split("\nProblem:")[0].strip() for text in texts]


def _fill(prompt: str, question: str, answer: str) -> str:
    """The prompt with both texts in their places; braces inside the texts are left alone."""
    before, *parts = prompt.split("{question}")
    return question.join(part.replace("{answer}", answer) for part in (before, *parts))
