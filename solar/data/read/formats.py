"""Rows of a source, read by their format: as a document, a conversation or a preference pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from solar.config.data import Format
from solar.errors import DataError

Row = Mapping[str, Any]
Message = dict[str, str]
"""`role` (system, user or assistant) and `content`."""


class BadRow(DataError):
    """A row that cannot be used; `reason` is the word it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


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

    def document(self, row: Row) -> str:
        """The text of a row; of a conversation or a pair, all that was said. Raises `BadRow`."""
        return "\n\n".join(self.said(row))

    def said(self, row: Row) -> list[str]:
        """The text of a row, or its messages one by one. Raises `BadRow`."""
        if self._format is Format.text:
            return [self._text(row, "text")]
        if self._format in _PAIRS:
            pair = _PAIRS[self._format](self, row)
            return [*(message["content"] for message in pair.prompt), pair.chosen, pair.rejected]
        return [message["content"] for message in _CONVERSATIONS[self._format](self, row)]

    def conversation(self, row: Row) -> list[Message]:
        """The messages of a row, of which at least one is the assistant's. Raises `BadRow`."""
        messages = _CONVERSATIONS[self._format](self, row)
        if not any(message["role"] == "assistant" for message in messages):
            raise BadRow("no_answer", "no message of the assistant in it")
        return messages

    def pair(self, row: Row) -> Pair:
        """The prompt and its two answers. Raises `BadRow`, also where the answers are the same."""
        pair = _PAIRS[self._format](self, row)
        if pair.chosen.strip() == pair.rejected.strip():
            raise BadRow("identical_sides", "chosen and rejected are the same")
        return pair

    def _value(self, row: Row, name: str, optional: bool = False) -> Any:
        column = self._columns.get(name, name)
        if column not in row and not optional:
            raise BadRow("missing_field", f"no field `{column}`, found {_names(row)}")
        return row.get(column)

    def _text(self, row: Row, name: str) -> str:
        return _checked(self._value(row, name), self._columns.get(name, name))

    def _optional(self, row: Row, name: str) -> str:
        value = self._value(row, name, optional=True)
        return "" if value is None or value == "" else _checked(value, self._columns.get(name, name), empty=True)

    def _turns(self, row: Row) -> list[Message]:
        return _messages(self._value(row, "messages"), "role", "content")

    def _sharegpt(self, row: Row) -> list[Message]:
        return self._told(row, _messages(self._value(row, "conversations"), "from", "value"))

    def _told(self, row: Row, messages: list[Message], field: str = "system") -> list[Message]:
        """Messages behind the row's system message, if it has one."""
        system = self._optional(row, field)
        if not system or messages[0] == _message("system", system):
            return messages
        if messages[0]["role"] == "system":
            raise BadRow(
                "two_system_messages", f"a field `{self._columns.get(field, field)}`, and another one in the list"
            )
        return [_message("system", system), *messages]

    def _prompt_completion(self, row: Row) -> list[Message]:
        completion = self._value(row, "completion")
        answer = _messages(completion, "role", "content") if isinstance(completion, list) else None
        return [*self._prompt(row), *(answer or [_message("assistant", _checked(completion, "completion"))])]

    def _prompt(self, row: Row) -> list[Message]:
        prompt = self._value(row, "prompt")
        if isinstance(prompt, list):
            return self._told(row, _messages(prompt, "role", "content"))
        return self._told(row, [_message("user", _checked(prompt, "prompt"))])

    def _alpaca(self, row: Row) -> list[Message]:
        given = self._optional(row, "input")
        question = self._text(row, "instruction") + (f"\n\n{given}" if given else "")
        return self._told(row, [_message("user", question), _message("assistant", self._text(row, "output"))])

    def _asked(self, row: Row, system: str, question: str, answer: str) -> list[Message]:
        said = [_message("user", self._text(row, question)), _message("assistant", self._text(row, answer))]
        return self._told(row, said, system)

    def _preference(self, row: Row) -> Pair:
        sides = {name: self._value(row, name) for name in ("chosen", "rejected")}
        if not all(isinstance(side, list) for side in sides.values()):
            return Pair(self._prompt(row), self._text(row, "chosen"), self._text(row, "rejected"))
        chosen, rejected = (_messages(side, "role", "content") for side in sides.values())
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            if side[-1]["role"] != "assistant":
                raise BadRow("no_answer", f"`{name}` does not end with the assistant")
        if chosen[:-1] != rejected[:-1]:
            raise BadRow("different_prompts", "`chosen` and `rejected` answer different prompts")
        has_prompt = row.get(self._columns.get("prompt", "prompt")) not in (None, "", [])
        before = chosen[:-1]
        prompt = _joined_prompt(self._prompt(row), before) if has_prompt or not before else self._told(row, before)
        return Pair(prompt, chosen[-1]["content"], rejected[-1]["content"])

    def _orca_pair(self, row: Row) -> Pair:
        messages = self._asked(row, "system", "question", "chosen")
        return Pair(messages[:-1], messages[-1]["content"], self._text(row, "rejected"))


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
_ROLES = {role: role for role in ("system", "user", "assistant")} | {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


def _messages(value: Any, role: str, content: str) -> list[Message]:
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise BadRow("wrong_type", f"expected a list of messages, found {_described(value)}")
    found = []
    for item in value:
        if not isinstance(item.get(role), str) or item[role] not in _ROLES:
            raise BadRow("unknown_role", f"`{role}` is {item.get(role)!r}, expected one of {', '.join(_ROLES)}")
        name = _ROLES[item[role]]
        found.append(_message(name, _checked(_joined(item.get(content)), content, empty=name == "system")))
    return found


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


def _joined(content: Any) -> Any:
    """Contents in parts, as the OpenAI protocol allows: their texts in a row; anything else as it is."""
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return content
    if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
        raise BadRow("wrong_type", "a message with parts that are not text")
    return "".join(part["text"] for part in content)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _checked(value: Any, name: str, empty: bool = False) -> str:
    """The value, if it is text that can be stored and read. Raises `BadRow`."""
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"`{name}` is {_described(value)}, expected text")
    if not empty and not value.strip():
        raise BadRow("empty", f"`{name}` is empty")
    if "\x00" in value:
        raise BadRow("nul", f"`{name}` holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow("surrogate", f"`{name}` holds half of a surrogate pair, which is no character") from None
    return value


def _names(row: Row) -> str:
    """The first fields of a row, on one line."""
    names = [" ".join(str(name).split())[:40] for name in islice(row, 12)]
    more = f" and {len(row) - 12:,} more" if len(row) > 12 else ""
    return (", ".join(names) or "nothing") + more


def _described(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
