"""Messages of a conversation: role, content, reasoning, calls of tools, and whether the message is trained."""

import json
from collections.abc import Mapping
from typing import Any

from solar.errors import DataError

Row = Mapping[str, Any]
Message = dict[str, Any]
"""`role` (system, user, assistant or tool) and `content`, both text. An assistant's message may also have
`reasoning_content` (text), `tool_calls` (as OpenAI writes them, but `arguments` is an object) and `trained` (False)."""

_ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
_TRAINED = ("weight", "train", "trainable", "loss")
"""Fields that say whether an answer is trained: 0 or false, 1 or true."""
_UNREAD = ("mask", "masked", "loss_mask", "loss_weight", "train_on_turn", "train_detail", "audio")
"""Fields that would change what is trained, in ways that are not read here."""
_REASONING = ("reasoning_content", "thinking", "reasoning", "thought")
_OF_A_RESULT = ("name", "tool_call_id")
"""Fields that are read from a tool's message."""
_READ = {"role", "content", "from", "value", *_TRAINED, *_UNREAD, *_REASONING, "tool_calls", "function_call"}


class BadRow(DataError):
    """A row that cannot be used; rows are counted by `reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


Located = tuple[str, Row | BadRow]
"""`file:line`, and the row at that line, or the reason why it cannot be read."""


def messages_of(value: Any, role: str, content: str) -> list[Message]:
    """The messages in a list of a row, whose fields `role` and `content` have these names. Raises `BadRow`."""
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise BadRow("wrong_type", f"expected a list of messages, found {described(value)}")
    return [_message(item, role, content) for item in value]


def plain_message(role: str, content: str) -> Message:
    """A message without other fields."""
    return {"role": role, "content": content}


def refuse_fields(messages: list[Message], used_as: str) -> None:
    """Raises `BadRow` for a message with a field that is lost where only contents are used."""
    for item in messages:
        if lost := [name for name in item if name not in ("role", "content", "name", "tool_call_id")]:
            raise BadRow("unsupported_field", f"a message with `{lost[0]}`, which {used_as} cannot hold")


def unread_fields(messages: Any) -> set[str]:
    """The fields of messages that say something, but are passed over, such as a speaker's name."""
    fields: set[str] = set()
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, Mapping) and len(message) > 2:
            role = message.get("role", message.get("from"))
            read = _READ.union(_OF_A_RESULT) if _ROLES.get(role) == "tool" else _READ
            fields |= {name for name in message.keys() - read if message[name] not in (None, "", [], {})}
    return fields


def tools_of(value: Any) -> list[Any]:
    """The tools that a row offers, also where they are stored as JSON text; none if the row offers none."""
    tools = _from_json(value)
    if not tools:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise BadRow("wrong_type", f"`tools` is {described(value)}, expected a list of objects")
    return [_checked_json(dict(tool), "tools") for tool in tools]


def checked(value: Any, name: str, empty: bool = False) -> str:
    """The value, if it is text that can be stored and read. Raises `BadRow`."""
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"`{name}` is {described(value)}, expected text")
    if not empty and not value.strip():
        raise BadRow("empty", f"`{name}` is empty")
    if "\x00" in value:
        raise BadRow("nul", f"`{name}` holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow("surrogate", f"`{name}` holds half of a surrogate pair, which is no character") from None
    return value


def described(value: Any) -> str:
    """The type and beginning of a value, for a message to a person."""
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _message(item: Mapping[str, Any], role: str, content: str) -> Message:
    if not isinstance(item.get(role), str) or item[role] not in _ROLES:
        raise BadRow("unknown_role", f"`{role}` is {item.get(role)!r}, expected one of {', '.join(_ROLES)}")
    name = _ROLES[item[role]]
    if item[role] == "function_call":  # a message of LLaMA-Factory whose content is the JSON of a call, or of several
        calls = _from_json(item.get(content))
        item = {**item, content: "", "tool_calls": calls if isinstance(calls, list) else [calls]}
    fields = _fields(item, name) if len(item) > 2 else {}
    text = _joined(item.get(content))
    if text is None and "tool_calls" in fields:
        text = ""
    empty = name in ("system", "tool") or "tool_calls" in fields
    return {"role": name, "content": checked(text, content, empty=empty), **fields}


def _fields(item: Mapping[str, Any], role: str) -> Message:
    """What a message says besides role and content."""
    given = {name: value for name, value in item.items() if value is not None and value != "" and value != []}
    if unread := [name for name in _UNREAD if given.get(name)]:
        raise BadRow("unsupported_field", f"a message with `{unread[0]}`; use `train`: true or false")
    fields: Message = {}
    if not all(_is_trained(name, given[name], role) for name in _TRAINED if name in given) and role == "assistant":
        fields["trained"] = False
    reasoning = [name for name in _REASONING if name in given]
    if reasoning:
        fields["reasoning_content"] = checked(given[reasoning[0]], reasoning[0])
    if calls := _tool_calls(given):
        fields["tool_calls"] = calls
    if role != "assistant" and (reasoning or calls):
        raise BadRow("unsupported_field", f"a {role} message with `{(reasoning or ['tool_calls'])[0]}`")
    if role == "tool":
        fields |= {name: checked(given[name], name) for name in _OF_A_RESULT if name in given}
    return fields


def _is_trained(name: str, value: Any, role: str) -> bool:
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise BadRow("unsupported_field", f"`{name}` of a message is {described(value)}, expected 0 or 1")
    if value and role != "assistant" and name != "weight":
        raise BadRow("unsupported_field", f"`{name}` of a {role} message is true, and only answers are trained")
    return bool(value)


def _tool_calls(given: Mapping[str, Any]) -> list[Any]:
    calls = _from_json(given.get("tool_calls")) or []
    if function := _from_json(given.get("function_call")):
        calls = [*calls, {"type": "function", "function": function}]
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise BadRow("wrong_type", f"`tool_calls` is {described(calls)}, expected a list of objects")
    return [_tool_call(call) for call in calls]


def _tool_call(call: Mapping[str, Any]) -> Any:
    """A call with its function, whose arguments are an object: so templates expect them."""
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRow("wrong_type", f"`tool_calls` holds {described(call)}, expected a function with a name")
    function = {"name": function["name"], "arguments": _from_json(function.get("arguments"))}
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return _checked_json({**named, "type": "function", "function": function}, "tool_calls")


def _checked_json(value: Any, name: str) -> Any:
    try:
        checked(json.dumps(value, ensure_ascii=False), name)
    except (TypeError, ValueError) as error:
        raise BadRow("wrong_type", f"`{name}` is not JSON ({error})") from None
    return value


def _from_json(value: Any) -> Any:
    """The value that a text of JSON stands for; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _joined(content: Any) -> Any:
    """Contents in parts, as the OpenAI protocol allows: their texts in a row; anything else as it is."""
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return content
    if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
        raise BadRow("wrong_type", "a message with parts that are not text")
    return "".join(part["text"] for part in content)
