"""Rows of the sets that the paper used, and of the usual others, read by name."""

import pytest

from solar.config.data import Format
from solar.data.read.formats import Pair, Reader
from solar.data.read.messages import BadRow

USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
SYSTEM = {"role": "system", "content": "S"}
MORE, OTHER_ANSWER = {"role": "user", "content": "more"}, {"role": "assistant", "content": "B"}


def _part(text: str, kind: str = "text") -> dict:
    return {"type": kind, "text": text}


@pytest.mark.parametrize(
    ("format", "row", "messages"),
    [
        (Format.messages, {"messages": [SYSTEM, USER, ANSWER]}, [SYSTEM, USER, ANSWER]),
        (
            Format.messages,
            {"messages": [{"role": "developer", "content": "S"}, {"role": "user", "content": [_part("Q")]}, ANSWER]},
            [SYSTEM, USER, ANSWER],
        ),
        (Format.prompt_completion, {"prompt": "Q", "completion": "A"}, [USER, ANSWER]),
        (Format.prompt_completion, {"prompt": [SYSTEM, USER], "completion": [ANSWER]}, [SYSTEM, USER, ANSWER]),
        (
            Format.sharegpt,
            {"conversations": [{"from": f, "value": v} for f, v in (("system", "S"), ("human", "Q"), ("gpt", "A"))]},
            [SYSTEM, USER, ANSWER],
        ),
        (Format.alpaca, {"instruction": "Q", "input": "", "output": "A"}, [USER, ANSWER]),
        (
            Format.alpaca,
            {"instruction": "Q", "input": "given", "output": "A"},
            [{"role": "user", "content": "Q\n\ngiven"}, ANSWER],
        ),
        (
            Format.open_orca,
            {"id": "niv.1", "system_prompt": "S", "question": "Q", "response": "A"},
            [SYSTEM, USER, ANSWER],
        ),
        (Format.open_orca, {"id": "niv.1", "system_prompt": "", "question": "Q", "response": "A"}, [USER, ANSWER]),
        (Format.metamath, {"type": "MATH_AnsAug", "query": "Q", "response": "A"}, [USER, ANSWER]),
        (Format.prompt_completion, {"system": "S", "prompt": [USER], "completion": "A"}, [SYSTEM, USER, ANSWER]),
        (
            Format.prompt_completion,
            {"system": "S", "prompt": [SYSTEM, USER], "completion": "A"},
            [SYSTEM, USER, ANSWER],
        ),
        (Format.alpaca, {"system": "S", "instruction": "Q", "output": "A"}, [SYSTEM, USER, ANSWER]),
        (
            Format.sharegpt,
            {"system": "S", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
            [SYSTEM, USER, ANSWER],
        ),
    ],
)
def test_conversations_by_format(format, row, messages):
    assert Reader(format, {}).conversation(row) == messages


@pytest.mark.parametrize(
    ("format", "row", "pair"),
    [
        (Format.preference, {"prompt": "Q", "chosen": "A", "rejected": "B"}, Pair([USER], "A", "B")),
        (
            Format.preference,
            {"prompt": [SYSTEM, USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "B"}]},
            Pair([SYSTEM, USER], "A", "B"),
        ),
        (
            Format.preference,
            {"system": "S", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "B"}]},
            Pair([SYSTEM, USER], "A", "B"),
        ),
        (
            Format.ultrafeedback,
            {"prompt": "Q", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "B"}]},
            Pair([USER], "A", "B"),
        ),
        (
            Format.preference,
            {"prompt": [USER], "chosen": [ANSWER, MORE, ANSWER], "rejected": [ANSWER, MORE, OTHER_ANSWER]},
            Pair([USER, ANSWER, MORE], "A", "B"),
        ),
        (
            Format.preference,
            {"prompt": [SYSTEM, USER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER_ANSWER]},
            Pair([SYSTEM, USER], "A", "B"),
        ),
        (
            Format.preference,
            {"prompt": [SYSTEM], "chosen": [USER, ANSWER], "rejected": [USER, OTHER_ANSWER]},
            Pair([SYSTEM, USER], "A", "B"),
        ),
        (
            Format.preference,
            {"system": "S", "prompt": "Q", "chosen": [USER, ANSWER], "rejected": [USER, OTHER_ANSWER]},
            Pair([SYSTEM, USER], "A", "B"),
        ),
        (
            Format.preference,
            {"prompt": [USER], "chosen": [SYSTEM, USER, ANSWER], "rejected": [SYSTEM, USER, OTHER_ANSWER]},
            Pair([SYSTEM, USER], "A", "B"),
        ),
        (
            Format.ultrafeedback,
            {"prompt": " Q\n", "chosen": [USER, ANSWER, MORE, ANSWER], "rejected": [USER, ANSWER, MORE, OTHER_ANSWER]},
            Pair([USER, ANSWER, MORE], "A", "B"),
        ),
        (
            Format.orca_dpo_pairs,
            {"system": "S", "question": "Q", "chosen": "A", "rejected": "B"},
            Pair([SYSTEM, USER], "A", "B"),
        ),
        (
            Format.orca_dpo_pairs,
            {"system": "", "question": "Q", "chosen": "A", "rejected": "B"},
            Pair([USER], "A", "B"),
        ),
    ],
)
def test_pairs_by_format(format, row, pair):
    assert Reader(format, {}).pair(row) == pair


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        (Format.messages, {"messages": []}, "wrong_type"),
        (Format.messages, {"messages": "text"}, "wrong_type"),
        (Format.prompt_completion, {"system": "T", "prompt": [SYSTEM, USER], "completion": "A"}, "two_system_messages"),
        (Format.messages, {"messages": ["text"]}, "wrong_type"),
        (Format.messages, {"messages": [{"role": "robot", "content": "x"}]}, "unknown_role"),
        (Format.messages, {"messages": [USER]}, "no_answer"),
        (Format.messages, {"messages": [{"role": "user", "content": [_part("x", "image_url")]}, ANSWER]}, "wrong_type"),
        (Format.messages, {"messages": [USER, {"role": "assistant", "content": None}]}, "wrong_type"),
        (Format.messages, {"messages": [USER, {"role": "assistant", "content": " "}]}, "empty"),
        (Format.alpaca, {"instruction": "Q", "output": ""}, "empty"),
        (Format.alpaca, {"input": "Q", "output": "A"}, "missing_field"),
    ],
)
def test_conversations_that_cannot_be_used_say_why(format, row, reason):
    with pytest.raises(BadRow) as caught:
        Reader(format, {}).conversation(row)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "identical_sides"),
        ({"prompt": "Q", "chosen": "A", "rejected": " A\n"}, "identical_sides"),
        ({"prompt": "Q", "chosen": "", "rejected": "A"}, "empty"),
        ({"prompt": "Q", "chosen": "A"}, "missing_field"),
        ({"prompt": "Q", "chosen": "A", "rejected": 3}, "wrong_type"),
        ({"chosen": [USER, ANSWER], "rejected": [ANSWER, ANSWER]}, "different_prompts"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, USER]}, "no_answer"),
        ({"prompt": "P", "chosen": [USER, ANSWER], "rejected": [USER, OTHER_ANSWER]}, "different_prompts"),
        ({"prompt": [USER], "chosen": [SYSTEM, ANSWER], "rejected": [SYSTEM, OTHER_ANSWER]}, "different_prompts"),
        (
            {
                "prompt": [{"role": "system", "content": "T"}, USER],
                "chosen": [SYSTEM, USER, ANSWER],
                "rejected": [SYSTEM, USER, OTHER_ANSWER],
            },
            "two_system_messages",
        ),
    ],
)
def test_pairs_that_cannot_be_used_say_why(row, reason):
    """T-C10."""
    with pytest.raises(BadRow) as caught:
        Reader(Format.preference, {}).pair(row)
    assert caught.value.reason == reason


def test_columns_may_have_other_names():
    reader = Reader(Format.prompt_completion, {"prompt": "question", "completion": "answer"})
    assert reader.conversation({"question": "Q", "answer": "A"}) == [USER, ANSWER]
    with pytest.raises(BadRow, match="no field `answer`, found question"):
        reader.conversation({"question": "Q"})
    with pytest.raises(BadRow, match=r"no field `answer`, found a b, k0, k1, .*, k10 and 989 more$"):
        reader.conversation({"a\nb": 1, **{f"k{n}": n for n in range(1000)}})


def test_a_conversation_may_serve_as_a_document():
    assert Reader(Format.messages, {}).document({"messages": [USER, ANSWER]}) == "Q\n\nA"


@pytest.mark.parametrize("role", [["user"], {"name": "user"}, None, 1, "robot"])
def test_a_role_of_any_kind_that_is_none_is_named(role):
    with pytest.raises(BadRow, match=r"`role` is .*, expected one of system"):
        Reader(Format.messages, {}).conversation({"messages": [{"role": role, "content": "x"}]})
