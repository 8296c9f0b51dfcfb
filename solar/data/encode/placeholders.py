"""Placeholders for the contents of messages, so that the contents can be found in what a template renders.

In code, a placeholder is a mark: the number of a message between two private characters.
"""

import re
from collections.abc import Sequence

from solar.data.read.messages import Message

_MARK = re.compile("\ue000(-?\\d+)\ue001")


def thought_and_answer(message: Message) -> tuple[str, str]:
    """The thought of an assistant's message, between `<think>` and `</think>`, and its answer.

    >>> thought_and_answer({"role": "assistant", "content": "<think>\\nHm.\\n</think>\\n\\nYes."})
    ('Hm.', 'Yes.')
    """
    if "reasoning_content" in message:
        return message["reasoning_content"], message["content"]
    thought, end, answer = message["content"].partition("</think>")
    if message["role"] != "assistant" or not end:
        return "", message["content"].strip()
    return thought.rpartition("<think>")[2].strip(), answer.strip()


def marked(messages: Sequence[Message], thoughts: Sequence[str] = ()) -> list[Message]:
    """Messages with mark n for content n, and mark -1 - n for thought n."""
    marked: list[Message] = [
        {**message, "content": mark(place) if message["content"] or "tool_calls" not in message else ""}
        for place, message in enumerate(messages)
    ]
    for place, thought in enumerate(thoughts):
        if thought and "reasoning_content" in messages[place]:
            marked[place]["reasoning_content"] = mark(-1 - place)
        elif thought:
            before, _, after = messages[place]["content"].partition("</think>")
            before = before.rpartition("<think>")[2]
            thought_mark, answer_mark = _in_place(before, mark(-1 - place)), _in_place(after, mark(place))
            marked[place]["content"] = f"<think>{thought_mark}</think>{answer_mark}"
    return marked


def _in_place(text: str, mark: str) -> str:
    """The mark in place of a text, with the white space around that text."""
    return text.replace(text.strip(), mark) if text.strip() else text + mark


def mark(place: int) -> str:
    """The placeholder of a message's content: private characters without white space, which no template changes."""
    return f"\ue000{place}\ue001"


def fill(marked: str, contents: Sequence[str]) -> str:
    """The text with contents in place of marks; marks inside a content are left alone."""
    parts = marked.split("\ue000")
    filled = [parts[0]]
    for part in parts[1:]:
        place, _, rest = part.partition("\ue001")
        filled += [contents[int(place)], rest]
    return "".join(filled)


def places(text: str) -> set[int]:
    """The places of the messages and, below 0, of the thoughts whose marks are in a text."""
    return set(map(int, _MARK.findall(text)))


def behind_messages(text: str, end: int | None = None) -> int:
    """Where the last mark of a content before `end` ends; 0 if there is none. Marks of thoughts do not count."""
    end = len(text) if end is None else end
    while (begin := text.rfind("\ue000", 0, end)) >= 0:
        if text[begin + 1] != "-":
            return text.index("\ue001", begin) + 1
        end = begin
    return 0


def fitted(text: str, contents: Sequence[str], rendered: str) -> list[str] | None:
    """Contents as a template wrote them, with or without the white space around them; None if it changed more.

    >>> fitted(f"ask {mark(0)}! say {mark(1)}.", ["why ", " so "], "ask why ! say so.")
    ['why ', 'so']
    """
    as_written = list(contents)
    before, *parts = _MARK.split(text)
    at = len(before)
    for place, behind in zip(map(int, parts[::2]), parts[1::2], strict=True):
        whole = contents[place]
        ways = (whole, whole.strip(), whole.lstrip(), whole.rstrip(), whole.lstrip("\n"), whole.rstrip("\n"))
        fitting = next((way for way in ways if rendered.startswith(way + behind, at)), None)
        if fitting is None:
            return None
        as_written[place] = fitting
        at += len(fitting) + len(behind)
    return as_written if fill(text, as_written) == rendered else None
