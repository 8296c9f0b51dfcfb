"""The samplers of the tasks: documents, conversations and pairs, cut to the length of a packed row."""

import json
from collections.abc import Sequence

from solar.config.data import Packing, Task
from solar.data.encode.cut import Piece
from solar.data.encode.encode import Encoder, Tokens
from solar.data.encode.samples import Parsed, Sample, Sampler
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow, Message, Row


class Pretraining(Sampler):
    """Documents; every token is trained."""

    def __init__(self, encoder: Encoder, sequence_length: int, packing: Packing) -> None:
        super().__init__(encoder, sequence_length)
        self._cut = packing is Packing.none

    def read(self, reader: Reader, row: Row) -> Parsed:
        text = reader.document(row)
        return Parsed(text, text, text)

    def encode(self, places: Sequence[str], splits: Sequence[str], samples: Sequence[str]) -> list[Sample | BadRow]:
        results: list[Sample | BadRow] = []
        for split, text, ids in zip(splits, samples, self.encoder.documents(samples), strict=True):
            size = len(text.encode())
            self.measure(document=len(ids))
            if self._cut and len(ids) > self.sequence_length:
                self.truncated += 1
                ids = ids[: self.sequence_length]
                size = self.encoder.text_bytes(ids)
            results.append(Sample(split, [(ids, None)], len(ids) - 1, size))
        return results


class Instruction(Sampler):
    """Conversations; the assistant's tokens are trained."""

    def read(self, reader: Reader, row: Row) -> Parsed:
        messages, tools = reader.conversation(row), reader.tools(row)
        if not any(message["role"] == "assistant" and message.get("trained", True) for message in messages):
            raise BadRow("no_answer", "no message of the assistant in it is trained")
        texts = [_text(message) for message in messages]
        last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
        return Parsed(self.encoder.cut(messages, tools=tools), "\n\n".join(texts[:last]), "\n\n".join(texts))

    def encode(
        self, places: Sequence[str], splits: Sequence[str], samples: Sequence[list[Piece]]
    ) -> list[Sample | BadRow]:
        results: list[Sample | BadRow] = []
        for where, split, tokens in zip(places, splits, self.encoder.conversations(samples), strict=True):
            self.measure(conversation=len(tokens.ids), answers=sum(tokens.trained))
            long = len(tokens.ids) > self.sequence_length
            if long:
                tokens = Tokens(tokens.ids[: self.sequence_length], tokens.trained[: self.sequence_length])
            if not any(tokens.trained[1:]):
                results.append(BadRow("no_trained_token", where))
            else:
                self.truncated += long
                results.append(_masked(self.encoder, split, [tokens]))
        return results


class Preference(Sampler):
    """Two answers to one prompt; the answers' tokens are trained.

    Of a pair that is too long, the prompt loses its start, down to half a row; then both answers are cut to the same
    length. A pair is left out if only one answer would be cut: a missing end would tell the two answers apart.
    """

    documents_per_sample = 2
    harmless = frozenset({"identical_sides", "empty"})

    def read(self, reader: Reader, row: Row) -> Parsed:
        pair = reader.pair(row)
        prompt = "\n\n".join(message["content"] for message in pair.prompt)
        return Parsed(self.encoder.cut_pair(pair), prompt, f"{prompt}\n\n{pair.chosen}\n\n{pair.rejected}")

    def encode(
        self, places: Sequence[str], splits: Sequence[str], samples: Sequence[tuple[list[Piece], list[Piece]]]
    ) -> list[Sample | BadRow]:
        sides = self.encoder.conversations([side for sample in samples for side in sample])
        results: list[Sample | BadRow] = []
        for where, split, chosen, rejected in zip(places, splits, sides[::2], sides[1::2], strict=True):
            cut = self._cut(chosen, rejected)
            if cut is None:
                results.append(BadRow("one_answer_too_long", where))
            elif cut[0].ids == cut[1].ids:
                results.append(BadRow("identical_sides", where))
            else:
                self.truncated += cut[0] is not chosen
                results.append(_masked(self.encoder, split, list(cut)))
        return results

    def _cut(self, chosen: Tokens, rejected: Tokens) -> tuple[Tokens, Tokens] | None:
        prompt = chosen.trained.index(True)
        answers = [len(side.ids) - prompt for side in (chosen, rejected)]
        self.measure(prompt=prompt, chosen=answers[0], rejected=answers[1])
        if prompt + max(answers) <= self.sequence_length:
            return chosen, rejected
        kept_prompt = min(prompt, max(self.sequence_length - max(answers), self.sequence_length // 2))
        room = self.sequence_length - kept_prompt
        if (answers[0] > room) != (answers[1] > room):
            return None
        return self._shorten(chosen, prompt, kept_prompt, room), self._shorten(rejected, prompt, kept_prompt, room)

    def _shorten(self, side: Tokens, prompt: int, kept_prompt: int, room: int) -> Tokens:
        """The last `kept_prompt` tokens of the prompt (after its BOS) and the first `room` tokens of the answer."""
        bos_id = self.encoder.tokenizer.bos_token_id  # also if the template writes BOS, and not the tokenizer
        start = side.ids[:1] if side.ids[:1] == [bos_id] else []
        ids = [*start, *side.ids[prompt - kept_prompt + len(start) : prompt + room]]
        return Tokens(ids, [False] * kept_prompt + side.trained[prompt : prompt + room])


def _text(message: Message) -> str:
    """The content of a message and its calls of tools."""
    calls = message.get("tool_calls")
    return f"{message['content']}\n{json.dumps(calls, ensure_ascii=False)}" if calls else str(message["content"])


def _masked(encoder: Encoder, split: str, sides: list[Tokens]) -> Sample:
    answers = [[i for i, trained in zip(side.ids, side.trained, strict=True) if trained] for side in sides]
    return Sample(
        split,
        [(side.ids, side.trained) for side in sides],
        sum(sum(side.trained[1:]) for side in sides),
        sum(map(encoder.text_bytes, answers)),
    )


def sampler_for(task: Task, encoder: Encoder, sequence_length: int, packing: Packing) -> Sampler:
    """The sampler for a task."""
    if task is Task.pretrain:
        return Pretraining(encoder, sequence_length, packing)
    return (Instruction if task is Task.instruct else Preference)(encoder, sequence_length)
