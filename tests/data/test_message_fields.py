"""What messages say besides role and content is trained, or refused by name; it is never lost in silence."""

import json
from typing import Any

import pytest

from solar.config.data import Format, Packing
from solar.data.encode import tokenizer
from solar.data.encode.encode import Encoder
from solar.data.encode.samplers import Instruction
from solar.data.read.formats import Reader
from solar.data.read.messages import BadRow

USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {}}}

QWEN = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "<|im_start|>user\n<tool_response>{{ m.content }}</tool_response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    '<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ ARGUMENTS }}}</tool_call>{% endfor %}'
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""In the manner of Qwen's templates."""


def encoder_of(tokenizers: Any, template: str) -> Encoder:
    loaded = tokenizer.load(tokenizers["chatml"])
    loaded.chat_template = template
    return Encoder(loaded)


def parts(encoder: Encoder, row: dict[str, Any], format: Format = Format.messages) -> list[tuple[bool, str]]:
    """The text of each run of tokens that are trained, or are not."""
    parsed = Instruction(encoder, 10_000).read(Reader(format, {}), row)
    (tokens,) = encoder.conversations([parsed.content])
    runs: list[tuple[bool, list[int]]] = []
    for i, trained in zip(tokens.ids, tokens.trained, strict=True):
        if not runs or runs[-1][0] != trained:
            runs.append((trained, []))
        runs[-1][1].append(i)
    return [(trained, encoder.tokenizer.decode(ids)) for trained, ids in runs]


@pytest.fixture
def qwen(tokenizers) -> Encoder:
    return encoder_of(tokenizers, QWEN.replace("ARGUMENTS", "call.function.arguments | tojson"))


@pytest.fixture
def chatml(tokenizers) -> Encoder:
    return Encoder(tokenizer.load(tokenizers["chatml"]), "chatml")


@pytest.mark.parametrize("field", [{"weight": 0}, {"train": False}, {"trainable": False}, {"loss": 0.0}])
def test_an_answer_that_is_not_to_be_trained_is_context(chatml, field):
    row = {"messages": [USER, {**ANSWER, **field}, USER, {"role": "assistant", "content": "B"}]}
    assert parts(chatml, row) == [
        (
            False,
            "<s><|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
        ),
        (True, "B<|im_end|>"),
    ]
    plain = {"messages": [{key: message[key] for key in ("role", "content")} for message in row["messages"]]}
    ids = [
        chatml.conversations([chatml.cut(Reader(Format.messages, {}).conversation(each))])[0].ids
        for each in (row, plain)
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("field", [{"weight": 1}, {"train": True}, {"weight": None}, {"tool_calls": []}, {"id": 7}])
def test_fields_that_change_nothing_change_nothing(chatml, field):
    assert parts(chatml, {"messages": [USER, {**ANSWER, **field}], "tools": None}) == parts(
        chatml, {"messages": [USER, ANSWER]}
    )


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([USER, {**ANSWER, "weight": 0.5}], "`weight` of a message is float '0.5', expected 0 or 1"),
        ([{**USER, "train": True}, ANSWER], "`train` of a user message is true, and only answers are trained"),
        ([USER, {**ANSWER, "mask": 1}], "a message with `mask`; use `train`: true or false"),
        ([{**USER, "tool_calls": [CALL]}, ANSWER], "a user message with `tool_calls`"),
        (
            [USER, {**ANSWER, "tool_calls": [{"function": {}}]}],
            "`tool_calls` holds .*, expected a function with a name",
        ),
        ([USER, {**ANSWER, "reasoning_content": ["a"]}], "`reasoning_content` is list"),
    ],
)
def test_fields_that_cannot_be_honoured_are_named(messages, says):
    with pytest.raises(BadRow, match=says):
        Reader(Format.messages, {}).conversation({"messages": messages})


def test_a_conversation_without_an_answer_to_train_is_left_out(chatml):
    with pytest.raises(BadRow) as caught:
        parts(chatml, {"messages": [USER, {**ANSWER, "weight": 0}]})
    assert caught.value.reason in Instruction.harmless


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_trained_where_the_template_writes_it(qwen, name):
    asked = (False, "<s><|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n")
    row = {"messages": [USER, {**ANSWER, name: "Hm <|im_end|>\n"}]}
    assert parts(qwen, row) == [asked, (True, "<think>\nHm <|im_end|>\n\n</think>\n\nA<|im_end|>")]
    (tokens,) = qwen.conversations([qwen.cut(Reader(Format.messages, {}).conversation(row))])
    assert tokens.ids.count(qwen.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # what is written forges none


def test_reasoning_stands_between_its_tags_where_the_template_looks_for_them_in_the_content(tokenizers):
    cutting = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last %}{{ m.content }}"
        "{% else %}{{ m.content.split('</think>')[-1] }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = {"messages": [USER, {**ANSWER, "reasoning_content": "Hm"}]}
    assert parts(encoder_of(tokenizers, cutting), row)[-1] == (True, "<think>\nHm\n</think>\n\nA<|im_end|>")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"messages": [USER, {**ANSWER, "reasoning_content": "Hm"}]},
            "`reasoning_content` of a message, which the template",
        ),
        ({"messages": [USER, {**ANSWER, "tool_calls": [CALL]}]}, "`tool_calls` of a message, which the template"),
        ({"messages": [USER, {**ANSWER, "function_call": CALL["function"]}]}, "`tool_calls` of a message, which"),
        ({"messages": [USER, ANSWER], "tools": [TOOL]}, "a field `tools`, which the template has no place for"),
        ({"messages": [USER, ANSWER], "tools": json.dumps([TOOL])}, "a field `tools`, which the template"),
    ],
)
def test_what_a_template_has_no_place_for_is_refused(chatml, row, says):
    with pytest.raises(BadRow, match=says):
        parts(chatml, row)


def test_a_result_that_the_template_leaves_out_is_refused(tokenizers):
    row = {"messages": [USER, {"role": "tool", "content": "12:00"}, ANSWER]}
    with pytest.raises(BadRow, match="leaves a tool's result out"):
        parts(Encoder(tokenizer.load(tokenizers["solar"])), row)


@pytest.mark.parametrize("arguments", [{"zone": "UTC"}, '{"zone": "UTC"}'])
@pytest.mark.parametrize("form", ["call.function.arguments | tojson", "'' + call.function.arguments"])
def test_calls_are_trained_and_results_are_not(tokenizers, arguments, form):
    encoder = encoder_of(tokenizers, QWEN.replace("ARGUMENTS", form))
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": arguments}}
    row = {
        "tools": [TOOL],
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "12:00", "tool_call_id": "1"},
            {"role": "assistant", "content": "Noon.", "tool_calls": [call, call]},
            {"role": "tool", "content": "12:01"},
            ANSWER,
        ],
    }
    written = '<tool_call>{"name": "clock", "arguments": {"zone": "UTC"}}</tool_call>'
    response = "\n<|im_start|>user\n<tool_response>{}</tool_response><|im_end|>\n<|im_start|>assistant\n"
    assert parts(encoder, row) == [
        (
            False,
            f"<s><|im_start|>system\n{json.dumps(TOOL)}\n<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
        ),
        (True, f"{written}<|im_end|>"),
        (False, response.format("12:00")),
        (True, f"Noon.\n{written}\n{written}<|im_end|>"),
        (False, response.format("12:01")),
        (True, "A<|im_end|>"),
    ]


def test_a_call_cannot_forge_special_tokens(qwen):
    """T-C5."""
    call = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "<|im_end|>"}}}
    with pytest.raises(BadRow, match="hold the text of a special token"):
        parts(qwen, {"messages": [USER, {**ANSWER, "tool_calls": [call]}]})


@pytest.mark.parametrize("format", [Format.messages, Format.preference])
def test_documents_and_pairs_refuse_what_they_cannot_hold(format):
    sides = {
        "chosen": [USER, {**ANSWER, "tool_calls": [CALL]}],
        "rejected": [USER, {"role": "assistant", "content": "B"}],
    }
    row = {"messages": sides["chosen"]} if format is Format.messages else sides
    read = Reader(format, {}).document if format is Format.messages else Reader(format, {}).pair
    with pytest.raises(BadRow, match=r"a message with `tool_calls`, which a (document|preference pair) cannot hold"):
        read(row)


def test_refused_rows_are_counted_with_their_reason(prepared):
    rows = [{"messages": [USER, ANSWER]}, {"messages": [USER, {**ANSWER, "reasoning_content": "Hm"}]}]
    from solar.config.data import OnError, Task

    changes = {"task": Task.instruct, "packing": Packing.none, "on_error": OnError["skip"]}
    found = prepared(rows, Format.messages, **changes)
    assert found.metrics["sources"]["rows"]["dropped"] == {"unsupported_field": 1}


def test_what_is_passed_over_is_counted_by_name():
    reader = Reader(Format.messages, {})
    reader.conversation(
        {"messages": [{**USER, "name": "Ann"}, {**ANSWER, "prefix": True}], "images": ["a.png"], "id": None}
    )
    reader.conversation({"messages": [USER, {"role": "tool", "content": "1", "name": "clock"}, ANSWER], "id": 7})
    assert reader.unread == {"name of a message": 1, "prefix of a message": 1, "images": 1, "id": 1}


def test_answers_in_a_prompt_are_context(chatml):
    row = {"prompt": [USER, ANSWER, USER], "completion": [{"role": "assistant", "content": "B"}]}
    assert [text for trained, text in parts(chatml, row, Format.prompt_completion) if trained] == ["B<|im_end|>"]


@pytest.mark.parametrize("prompt", [[USER, ANSWER]])
def test_a_prompt_that_ends_with_an_answer_is_refused(prompt):
    for format, answers in (
        (Format.prompt_completion, {"completion": "B"}),
        (Format.preference, {"chosen": "B", "rejected": "C"}),
    ):
        reader = Reader(format, {})
        with pytest.raises(BadRow, match="`prompt` ends with an answer"):
            (reader.conversation if format is Format.prompt_completion else reader.pair)({"prompt": prompt, **answers})


def test_the_system_column_of_a_conversation_stands_before_it():
    messages = Reader(Format.messages, {}).conversation({"system": "S", "messages": [USER, ANSWER]})
    assert messages == [{"role": "system", "content": "S"}, USER, ANSWER]


def test_the_history_of_an_instruction_is_not_lost_in_silence():
    row = {"instruction": "Q", "output": "A", "history": [["a", "b"]]}
    with pytest.raises(BadRow, match="a field `history`, which is not read"):
        Reader(Format.alpaca, {}).conversation(row)


def test_calls_and_their_results_may_be_messages_of_their_own():
    call = json.dumps(CALL["function"])
    said = (("human", "Q"), ("function_call", call), ("observation", "12:00"), ("gpt", "A"))
    row = {"conversations": [{"from": role, "value": text} for role, text in said]}
    assert Reader(Format.sharegpt, {}).conversation(row) == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "12:00"},
        ANSWER,
    ]
    row["conversations"][1]["value"] = "clock()"
    with pytest.raises(BadRow, match=r"`tool_calls` is list .*, expected a list of objects"):
        Reader(Format.sharegpt, {}).conversation(row)
