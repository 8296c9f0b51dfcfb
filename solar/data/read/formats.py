"""Rows of a source, read by their format: as a document, a conversation or a preference pair."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from solar.config.data import FIELDS, Format
from solar.data.read.messages import (
    BadRow,
    Message,
    Row,
    checked,
    messages_of,
    plain_message,
    refuse_fields,
    tools_of,
    unread_fields,
)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt; `chosen` is the better one."""

    prompt: list[Message]
    chosen: str
    rejected: str


class Reader:
    """Reads the rows of one source: its format, and its own names for the format's columns."""

    def __init__(self, format: Format, columns: Mapping[str, str]) -> None:
        """`columns`: the format's name of a field -> the source's column, where they differ."""
        self._format = format
        self._columns = columns
        self._read = {columns.get(name, name) for name in FIELDS[format]}
        self.unread: Counter[str] = Counter()
        """Columns and fields of messages that are passed over -> the rows that have a value there."""

    def document(self, row: Row) -> str:
        """The text of a row; of a conversation or a pair, the contents of all messages. Raises `BadRow`."""
        if self._format in _CONVERSATIONS:
            refuse_fields(_CONVERSATIONS[self._format](self, row), "a document")
            self._refuse_tools(row, "a document")
        self._count_unread(row)
        return "\n\n".join(self.texts(row))

    def texts(self, row: Row) -> list[str]:
        """The text of a row, or its messages one by one. Raises `BadRow`."""
        if self._format is Format.text:
            return [self._text(row, "text")]
        if self._format in _PAIRS:
            pair = _PAIRS[self._format](self, row)
            return [*(message["content"] for message in pair.prompt), pair.chosen, pair.rejected]
        return [message["content"] for message in _CONVERSATIONS[self._format](self, row)]

    def conversation(self, row: Row) -> list[Message]:
        """The messages of a row, of which at least one is the assistant's. Raises `BadRow`.

        Of a prompt and its completion, the completion is trained; answers in the prompt are not.
        """
        messages = _CONVERSATIONS[self._format](self, row)
        if self._format is Format.prompt_completion:
            completion = self._value(row, "completion")
            start = len(messages) - (len(completion) if isinstance(completion, list) else 1)
            messages[:start] = [_untrained(message) for message in messages[:start]]
        if not any(message["role"] == "assistant" for message in messages):
            raise BadRow("no_answer", "no message of the assistant in it")
        self._count_unread(row)
        return messages

    def tools(self, row: Row) -> list[Any]:
        """The tools that a row's conversation may call. Raises `BadRow`."""
        return tools_of(self._value(row, "tools", optional=True))

    def _refuse_tools(self, row: Row, used_as: str) -> None:
        if self.tools(row):
            raise BadRow("unsupported_field", f"a field `tools`, which {used_as} cannot hold")

    def pair(self, row: Row) -> Pair:
        """The prompt and its two answers. Raises `BadRow`, also where the answers are the same."""
        self._refuse_tools(row, "a preference pair")
        pair = _PAIRS[self._format](self, row)
        if pair.chosen.strip() == pair.rejected.strip():
            raise BadRow("identical_sides", "chosen and rejected are the same")
        self._count_unread(row)
        return pair

    def _count_unread(self, row: Row) -> None:
        names = {name for name in row.keys() - self._read if row[name] not in _EMPTY}
        for value in (row.get(name) for name in self._read):
            names |= {f"{field} of a message" for field in unread_fields(value)}
        self.unread.update(names)

    def _value(self, row: Row, name: str, optional: bool = False) -> Any:
        column = self._columns.get(name, name)
        if column not in row and not optional:
            raise BadRow("missing_field", f"no field `{column}`, found {_names(row)}")
        return row.get(column)

    def _text(self, row: Row, name: str) -> str:
        return checked(self._value(row, name), self._columns.get(name, name))

    def _optional(self, row: Row, name: str) -> str:
        value = self._value(row, name, optional=True)
        return "" if value is None or value == "" else checked(value, self._columns.get(name, name), empty=True)

    def _turns(self, row: Row) -> list[Message]:
        return self._with_system(row, messages_of(self._value(row, "messages"), "role", "content"))

    def _sharegpt(self, row: Row) -> list[Message]:
        return self._with_system(row, messages_of(self._value(row, "conversations"), "from", "value"))

    def _with_system(self, row: Row, messages: list[Message], field: str = "system") -> list[Message]:
        """The messages, after the row's system message if it has one."""
        system = self._optional(row, field)
        if not system or messages[0] == plain_message("system", system):
            return messages
        if messages[0]["role"] == "system":
            raise BadRow(
                "two_system_messages", f"a field `{self._columns.get(field, field)}`, and another one in the list"
            )
        return [plain_message("system", system), *messages]

    def _prompt_completion(self, row: Row) -> list[Message]:
        completion = self._value(row, "completion")
        answer = messages_of(completion, "role", "content") if isinstance(completion, list) else None
        prompt = _before_an_answer(self._prompt(row))
        return [*prompt, *(answer or [plain_message("assistant", checked(completion, "completion"))])]

    def _prompt(self, row: Row) -> list[Message]:
        prompt = self._value(row, "prompt")
        if isinstance(prompt, list):
            return self._with_system(row, messages_of(prompt, "role", "content"))
        return self._with_system(row, [plain_message("user", checked(prompt, "prompt"))])

    def _alpaca(self, row: Row) -> list[Message]:
        if row.get("history"):
            raise BadRow("unsupported_field", "a field `history`, which is not read; write the rows as `messages`")
        given = self._optional(row, "input")
        question = self._text(row, "instruction") + (f"\n\n{given}" if given else "")
        return self._with_system(
            row, [plain_message("user", question), plain_message("assistant", self._text(row, "output"))]
        )

    def _asked(self, row: Row, system: str, question: str, answer: str) -> list[Message]:
        turns = [plain_message("user", self._text(row, question)), plain_message("assistant", self._text(row, answer))]
        return self._with_system(row, turns, system)

    def _preference(self, row: Row) -> Pair:
        sides = {name: self._value(row, name) for name in ("chosen", "rejected")}
        if not all(isinstance(side, list) for side in sides.values()):
            prompt = _before_an_answer(self._prompt(row))
            return Pair(prompt, self._text(row, "chosen"), self._text(row, "rejected"))
        chosen, rejected = (messages_of(side, "role", "content") for side in sides.values())
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            if side[-1]["role"] != "assistant":
                raise BadRow("no_answer", f"`{name}` does not end with the assistant")
        refuse_fields([*chosen, *rejected], "a preference pair")
        if chosen[:-1] != rejected[:-1]:
            raise BadRow("different_prompts", "`chosen` and `rejected` answer different prompts")
        has_prompt = row.get(self._columns.get("prompt", "prompt")) not in (None, "", [])
        before = chosen[:-1]
        if not has_prompt and before:
            prompt = self._with_system(row, before)
        else:
            prompt = _joined_prompt(self._prompt(row), before) if before else _before_an_answer(self._prompt(row))
        return Pair(prompt, chosen[-1]["content"], rejected[-1]["content"])

    def _orca_pair(self, row: Row) -> Pair:
        messages = self._asked(row, "system", "question", "chosen")
        return Pair(messages[:-1], messages[-1]["content"], self._text(row, "rejected"))


_EMPTY: tuple[Any, ...] = (None, "", [], {})
_CONVERSATIONS: dict[Format, Callable[[Reader, Row], list[Message]]] = {
    Format.messages: Reader._turns,
    Format.sharegpt: Reader._sharegpt,
    Format.prompt_completion: Reader._prompt_completion,
    Format.alpaca: Reader._alpaca,
    Format.open_orca: lambda reader, row: reader._asked(row, "system_prompt", "question", "response"),
    Format.metamath: lambda reader, row: reader._asked(row, "system", "query", "response"),
}
_PAIRS: dict[Format, Callable[[Reader, Row], Pair]] = {
    Format.preference: Reader._preference,
    Format.ultrafeedback: Reader._preference,
    Format.orca_dpo_pairs: Reader._orca_pair,
}


def _untrained(message: Message) -> Message:
    return {**message, "trained": False} if message["role"] == "assistant" else message


def _before_an_answer(prompt: list[Message]) -> list[Message]:
    """The prompt, unless its last message is an answer, which the row's answer would have to go on with."""
    if prompt[-1]["role"] == "assistant":
        raise BadRow("answered_prompt", "`prompt` ends with an answer, expected a turn that asks for an answer")
    return prompt


def _joined_prompt(prompt: list[Message], before: list[Message]) -> list[Message]:
    """The whole conversation before an answer: the row's prompt, and the turns of its `chosen` before the answer.

    These turns may repeat the prompt from its start; otherwise they follow it. Either of the two may lack the system
    message of the other.
    """
    systems, turns = zip(*(_system_and_turns(messages) for messages in (prompt, before)), strict=True)
    if turns[0] and _stripped(turns[1][: len(turns[0])]) == _stripped(turns[0]):
        if systems[0] and systems[1] and _stripped(systems[0]) != _stripped(systems[1]):
            raise BadRow("two_system_messages", "`prompt` and `chosen` begin with different system messages")
        return [*(systems[0] or systems[1]), *turns[1]]
    if systems[1] or (before and before[0]["role"] == prompt[-1]["role"]):
        raise BadRow("different_prompts", "`chosen` neither repeats nor continues the conversation in `prompt`")
    return [*prompt, *before]


def _system_and_turns(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    count = int(bool(messages) and messages[0]["role"] == "system")
    return messages[:count], messages[count:]


def _stripped(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in messages]


def _names(row: Row) -> str:
    """The first fields of a row, on one line."""
    names = [" ".join(str(name).split())[:40] for name in islice(row, 12)]
    more = f" and {len(row) - 12:,} more" if len(row) > 12 else ""
    return (", ".join(names) or "nothing") + more
