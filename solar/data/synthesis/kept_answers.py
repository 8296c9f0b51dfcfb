"""Which answers become training data, and why the others are left out."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from solar.data.synthesis.final_answer import final_answer, same_answer


def publish(answered_seeds: Iterator[Mapping[str, Any]], output: Path, counts: Counter[str]) -> int:
    """Write `instruct.jsonl`, `alignment.jsonl` and `left_out.jsonl`; return how many answers were kept.

    `answered_seeds`: fields of a seed with the lists `rephrased` and `solutions`. Reasons are added to `counts`.
    """
    kept: set[tuple[str, str]] = set()
    with ExitStack() as files:
        instruct, alignment, left_out = (
            files.enter_context((output / f"{name}.jsonl").open("w", encoding="utf-8"))
            for name in ("instruct", "alignment", "left_out")
        )
        for answered_seed in answered_seeds:
            for question, solution in _solved_questions(answered_seed):
                reason = _fault(answered_seed, question, solution)
                if reason is None and (question, solution) in kept:
                    reason = "repeated"
                if reason is not None:
                    counts[reason] += 1
                    fields = {"reason": reason, "question": question, "answer": solution}
                    left_out.write(json.dumps({**fields, "expected": answered_seed["final"]}) + "\n")
                    continue
                kept.add((question, solution))
                turns = [{"role": "user", "content": question}, {"role": "assistant", "content": solution}]
                instruct.write(json.dumps({"messages": turns}) + "\n")
                pair = {"prompt": question, "chosen": solution, "rejected": answered_seed["answer"]}
                alignment.write(json.dumps(pair) + "\n")
    return len(kept)


def _solved_questions(answered_seed: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for question, solutions in zip(answered_seed["rephrased"], answered_seed["solutions"], strict=True):
        for solution in solutions:
            yield question, solution


def _fault(seed: Mapping[str, Any], question: str, solution: str) -> str | None:
    """Why a rephrased question and its solution are left out; None if they are kept."""
    if not question.strip():
        return "empty_question"
    if " ".join(question.lower().split()) == " ".join(seed["question"].lower().split()):
        return "question_not_rephrased"
    final = final_answer(solution)
    if final is None:
        return "no_final_answer"
    if not same_answer(final, seed["final"]):
        return "wrong_final_answer"
    if solution.strip() == seed["answer"].strip():
        return "answer_not_rephrased"
    return None
