"""Rows of tokens become micro-batches: documents end to end in one row, without padding.

Shapes: T tokens of the micro-batch, N trained positions, A answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solar.data.store.dataset import IGNORED, Row
from solar.network.attention import Segment

Ints = npt.NDArray[np.int64]


@dataclass
class MicroBatch:
    """The tokens that a device computes at once."""

    input_ids_T: Tensor
    position_ids_T: Tensor
    """Each document's positions start at 0."""
    segments: list[Segment]
    positions_N: Tensor
    """Positions whose next token is trained."""
    targets_N: Tensor
    answers_N: Tensor
    """Number of the document (or, for pairs, of the answer) that each target belongs to."""
    answers: int
    sample_ids: list[int]
    tokens: int
    """Tokens read from the data; a prompt shared by two answers counts once."""

    @property
    def trained_tokens(self) -> int:
        return len(self.targets_N)

    def to(self, device: torch.device) -> "MicroBatch":
        if device.type == "cpu":
            return self
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def pin_memory(self) -> "MicroBatch":
        """A copy that the device reads while the host goes on. The data loader calls this where it pins."""
        pinned = {
            field.name: getattr(self, field.name).pin_memory()
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **pinned)


def from_rows(rows: Sequence[Row]) -> MicroBatch:
    """All documents of the rows, end to end. Without rows, one token that is not trained."""
    lengths = [int(length) for row in rows for length in row.document_lengths]
    samples = [sample for row in rows for sample in row.sample_ids]
    if not lengths:
        return assemble([np.zeros(1, np.int64)], [np.full(1, IGNORED)], [Segment(1)], [np.arange(1)], [0], [])
    segments = [Segment(length) for length in lengths]
    positions = [np.arange(length) for length in lengths]
    targets = _next_labels([row.labels for row in rows], segments)
    return assemble([row.input_ids for row in rows], targets, segments, positions, lengths, samples)


def from_pairs(rows: Sequence[Row]) -> MicroBatch:
    """Preference pairs: prompt and chosen answer, then the rejected answer, which attends to the same prompt.

    Answer 2i is the chosen answer of pair i, answer 2i + 1 the rejected answer. Each prompt is computed once.
    """
    if not rows:
        return from_rows(rows)
    input_ids, labels, positions, lengths = [], [], [], []
    segments: list[Segment] = []
    for row in rows:
        assert len(row.document_lengths) == 2, "a pair is two documents"
        split = int(row.document_lengths[0])
        chosen, rejected = row.input_ids[:split], row.input_ids[split:]
        shared = shared_prompt(row)
        input_ids += [chosen, rejected[shared:]]
        labels += [row.labels[:split], row.labels[split + shared :]]
        segments += [Segment(split), Segment(len(rejected) - shared, (len(segments), shared))]
        positions += [np.arange(split), np.arange(shared, len(rejected))]
        lengths += [split, len(rejected) - shared]
    samples = [int(row.sample_ids[0]) for row in rows]
    return assemble(input_ids, _next_labels(labels, segments), segments, positions, lengths, samples)


def from_answers(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> MicroBatch:
    """Answers behind their prompts, each pair a document of its own; only the answers' tokens are targets.

    The last token of an answer is a target and no input. A prompt must not be empty.
    """
    documents = [np.array([*prompt, *answer], np.int64) for prompt, answer in pairs]
    targets = [ids[1:].copy() for ids in documents]
    for target, (prompt, _) in zip(targets, pairs, strict=True):
        target[: len(prompt) - 1] = IGNORED
    segments = [Segment(len(target)) for target in targets]
    positions = [np.arange(segment.length) for segment in segments]
    lengths = [segment.length for segment in segments]
    return assemble([ids[:-1] for ids in documents], targets, segments, positions, lengths, list(range(len(pairs))))


def shared_prompt(row: Row) -> int:
    """Number of equal tokens at the start of both documents, without the last token before the first trained token.

    That token, the last of the prompt, predicts the first token of each answer, so it is computed for each answer.
    """
    split = int(row.document_lengths[0])
    chosen, rejected = row.input_ids[:split], row.input_ids[split:]
    longest = min(int(np.argmax(row.labels[:split] != IGNORED)), int(np.argmax(row.labels[split:] != IGNORED)))
    differing = np.flatnonzero(chosen[:longest] != rejected[:longest])
    return max(0, (int(differing[0]) if len(differing) else longest) - 1)


def assemble(
    input_ids: list[Ints],
    targets: list[Ints],
    segments: list[Segment],
    positions: list[Ints],
    lengths: list[int],
    sample_ids: list[int],
) -> MicroBatch:
    """A micro-batch of arrays that lie end to end. `targets`: the next token of each input token, or `IGNORED`."""
    targets_T = np.concatenate(targets).astype(np.int64)
    positions_N = np.flatnonzero(targets_T != IGNORED)
    answers_T = np.repeat(np.arange(len(segments)), [segment.length for segment in segments])
    return MicroBatch(
        input_ids_T=torch.from_numpy(np.concatenate(input_ids).astype(np.int64)),
        position_ids_T=torch.from_numpy(np.concatenate(positions).astype(np.int64)),
        segments=segments,
        positions_N=torch.from_numpy(positions_N),
        targets_N=torch.from_numpy(targets_T[positions_N]),
        answers_N=torch.from_numpy(answers_T[positions_N]),
        answers=len(segments),
        sample_ids=sample_ids,
        tokens=sum(lengths),
    )


def _next_labels(labels: list[Ints], segments: list[Segment]) -> list[Ints]:
    """The label of each next token; the last token of a segment predicts nothing."""
    labels_T = np.concatenate(labels)
    ends = np.cumsum([segment.length for segment in segments])
    targets_T = np.append(labels_T[1:], IGNORED)
    targets_T[ends - 1] = IGNORED
    return [targets_T]
