"""Synthetic mathematics as the SOLAR paper makes it (sections 3 and 4.1, after MetaMath, arXiv 2309.12284).

Each seed question is rephrased, the rephrased question is answered, and answers are kept whose final answer is the
seed's. The writer is not shown the seed's answer: one that may copy it passes with any question. What is kept becomes
instructions (rephrased question and answer) and pairs (chosen: the new answer, rejected: the seed's own).
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from solar.data.read.messages import Message
from solar.data.synthesis.final_answer import final_answer, same_answer
from solar.data.synthesis.journal import go_on, results
from solar.data.synthesis.writers import Writer
from solar.errors import DataError


@dataclass(frozen=True)
class Seed:
    """A question with a worked answer whose final answer is known."""

    question: str
    answer: str
    final: str


@dataclass(frozen=True)
class Prompts:
    """What a writer is asked: texts with `{question}` (and `{answer}`) in them."""

    question: str
    answer: str

    @classmethod
    def read(cls, question: Path | None, answer: Path | None) -> "Prompts":
        """Files, or ours where none is given. Raises `DataError` if one has no place for the question."""
        own = resources.files("solar.data.synthesis") / "prompts"
        texts = []
        for given, name in ((question, "rephrase_question.txt"), (answer, "answer_question.txt")):
            try:
                text = (own / name if given is None else given).read_text(encoding="utf-8").rstrip("\n")
            except UnicodeDecodeError:
                raise DataError(f"{given}: this is not UTF-8 text") from None
            if "{question}" not in text:
                raise DataError(f"{given}: no {{question}} in the prompt, so it would ask the same thing every time")
            texts.append(text)
        return cls(*texts)


def seeds(conversations: Iterator[list[Message]], counts: Counter[str]) -> Iterator[Seed]:
    """The first question and answer of each conversation, where the answer says what its final answer is."""
    for messages in conversations:
        turns = {message["role"]: message["content"] for message in reversed(messages)}
        final = final_answer(turns["assistant"])
        if final is None or "user" not in turns:
            counts["seed_without_final_answer"] += 1
        else:
            yield Seed(turns["user"], turns["assistant"], final)


def synthesize(
    found: Iterator[Seed],
    writer: Writer,
    prompts: Prompts,
    output: Path,
    journal: Path,
    questions_per_seed: int,
    answers_per_question: int,
    seed: int,
    counts: Counter[str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Leave `instruct.jsonl`, `alignment.jsonl` and `left_out.jsonl` in `output` and return how many of what were kept.

    What is written comes first into `journal`, a line a group of seeds; a call with the same arguments goes on behind
    its last whole line.
    """
    counts = Counter() if counts is None else counts
    begun = time.monotonic()

    async def work(number: int, group: Sequence[Seed]) -> list[dict[str, Any]]:
        drawn_from = seed * 1_000_003 + number
        return await _work(group, writer, prompts, questions_per_seed, answers_per_question, drawn_from)

    def tell(done: int, now: int) -> None:
        progress(f"{done:,} seeds  {now / (time.monotonic() - begun) * 60:,.0f} a minute")

    number = asyncio.run(go_on(journal, found, work, writer.group, writer.ahead, tell))
    if number == 0:
        raise DataError("seeds: none has a final answer (in a box, after ####, or after 'The answer is')")
    kept = _publish(results(journal), output, counts)
    if not kept:
        why = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        raise DataError(f"seeds: none of the answers to {number:,} seeds can be kept ({why}); try a better writer")
    return {"seeds": number, "kept": kept, "left_out": dict(counts)}


async def _work(
    group: Sequence[Seed], writer: Writer, prompts: Prompts, questions: int, answers: int, seed: int
) -> list[dict[str, Any]]:
    """For each seed of a group, what was asked and answered."""
    asked = [prompts.question.replace("{question}", one.question) for one in group for _ in range(questions)]
    rephrased = _ended(await writer.write(asked, seed))
    owners = [one for one in group for _ in range(questions)]
    told = [
        _fill(prompts.answer, question, owner.answer)
        for question, owner in zip(rephrased, owners, strict=True)
        for _ in range(answers)
    ]
    answered = _ended(await writer.write(told, seed + 1))
    rows = []
    for place, one in enumerate(group):
        texts = rephrased[place * questions : (place + 1) * questions]
        start = place * questions * answers
        solutions = [answered[start + k * answers : start + (k + 1) * answers] for k in range(questions)]
        rows.append({**vars(one), "rephrased": texts, "solutions": solutions})
    return rows


def _ended(texts: Sequence[str]) -> list[str]:
    """Texts without a next example, which a model that has not learnt to stop goes on with."""
    return [text.split("\nProblem:")[0].strip() for text in texts]


def _fill(prompt: str, question: str, answer: str) -> str:
    """The prompt with both in their places; braces inside them are left alone."""
    before, *parts = prompt.split("{question}")
    return question.join(part.replace("{answer}", answer) for part in (before, *parts))


def _publish(written: Iterator[Mapping[str, Any]], output: Path, counts: Counter[str]) -> int:
    kept: set[tuple[str, str]] = set()
    with ExitStack() as files:
        instruct, alignment, left_out = (
            files.enter_context((output / f"{name}.jsonl").open("w", encoding="utf-8"))
            for name in ("instruct", "alignment", "left_out")
        )
        for row in written:
            for question, solution in _answers(row):
                reason = _fault(row, question, solution)
                if reason is None and (question, solution) in kept:
                    reason = "repeated"
                if reason is not None:
                    counts[reason] += 1
                    told = {"reason": reason, "question": question, "answer": solution, "expected": row["final"]}
                    left_out.write(json.dumps(told) + "\n")
                    continue
                kept.add((question, solution))
                turns = [{"role": "user", "content": question}, {"role": "assistant", "content": solution}]
                instruct.write(json.dumps({"messages": turns}) + "\n")
                pair = {"prompt": question, "chosen": solution, "rejected": row["answer"]}
                alignment.write(json.dumps(pair) + "\n")
    return len(kept)


def _answers(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for question, solutions in zip(row["rephrased"], row["solutions"], strict=True):
        for solution in solutions:
            yield question, solution


def _fault(row: Mapping[str, Any], question: str, solution: str) -> str | None:
    """Why a rephrased question with its answer is left out, or None."""
    if not question.strip():
        return "empty_question"
    if " ".join(question.lower().split()) == " ".join(row["question"].lower().split()):
        return "question_not_rephrased"
    final = final_answer(solution)
    if final is None:
        return "no_final_answer"
    if not same_answer(final, row["final"]):
        return "wrong_final_answer"
    if solution.strip() == row["answer"].strip():
        return "answer_not_rephrased"
    return None
