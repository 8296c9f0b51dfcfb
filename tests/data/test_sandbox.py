"""Chat templates from outside: bounded in time, memory and output, in a process that can be ended."""

import os
from pathlib import Path

import pytest

from solar.data.encode import cut, tokenizer
from solar.data.encode.encode import Encoder
from solar.data.encode.sandbox import CPU_SECONDS, Sandbox
from solar.data.encode.templates import TEMPLATES
from solar.data.read.messages import BadRow
from solar.errors import DataError

TALK = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def sandbox(template: str, cpu_seconds: int = CPU_SECONDS) -> Sandbox:
    return Sandbox(template, TOKENS, "models/theirs", cpu_seconds)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_sandbox_writes_what_transformers_writes(name: str, tokenizers: dict[str, Path]) -> None:
    """The same text from the tokenizer's own method, which renders in this process."""
    own, loaded = sandbox(TEMPLATES[name]), tokenizer.load(tokenizers["solar"])
    for prompt in (False, True):
        there = loaded.apply_chat_template(
            TALK, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=prompt, **TOKENS
        )
        assert own.render(TALK, (), prompt) == there


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ (10 ** 9) ** (10 ** 7) }}",
    ],
    ids=["loops", "one long operation of Python"],
)
def test_a_template_that_does_not_end_is_stopped_and_named(template: str) -> None:
    """T-E3."""
    endless = sandbox(template, cpu_seconds=1)
    with pytest.raises(DataError, match=r"^models/theirs: the chat template does not end: stopped after 1 seconds"):
        endless.render(TALK, (), False)
    with pytest.raises(DataError, match="does not end"):  # a second conversation is no traceback either
        endless.render(TALK, (), False)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'x' * 10 ** 10 }}", "it takes more than 1024 MiB of memory"),
        ("{{ 'xxxxxxxx' * 10 ** 7 }}", "it makes 80,000,000 characters of it, more than 67,108,864"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it calls itself too often"),
        ("{{ messages.__class__.__mro__ }}", "access to attribute '__class__' of 'list' object is unsafe"),
        ("{% if %}", "Expected an expression, got 'end of statement block'"),
        ("{{ raise_exception('no\nsystem') }}", "no system"),
        ("{{ 1 // 0 }}", "integer division or modulo by zero"),
        ("{{ messages[9].content.strip() }}", "list object has no element 9"),
    ],
)
def test_what_a_template_does_wrong_is_one_line(template: str, reason: str) -> None:
    """T-E3."""
    with pytest.raises(BadRow) as refused:
        sandbox(template).render(TALK, (), False)
    assert str(refused.value).startswith(f"the template refuses this conversation: {reason}")
    assert "\n" not in str(refused.value)


def test_one_process_serves_all_conversations_and_ends_with_its_sandbox() -> None:
    own = sandbox(TEMPLATES["solar"])
    assert len({own.render([{"role": "user", "content": str(i)}], (), True) for i in range(100)}) == 100
    process = own._process
    assert process is not None
    del own
    assert process.poll() == 0, "the process outlives its sandbox"


def test_a_forked_process_has_a_sandbox_of_its_own() -> None:
    """Two processes that read from one pipe would take each other's answers."""
    own = sandbox(TEMPLATES["solar"])
    own.render(TALK, (), False)
    before = own._process
    child = os.fork()
    if child == 0:
        own.render(TALK, (), False)
        os._exit(0 if own._process is not before else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert own._process is before
    assert own.render(TALK, (), False)


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
WITH_TOOLS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% if loop.first and tools %}{{ tools | tojson }}{% endif %}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tool_talk(turns: int) -> list[dict]:
    return [
        message
        for turn in range(turns)
        for message in (
            {"role": "user", "content": f"q {turn}"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": f"r {turn}"},
            {"role": "assistant", "content": f"a {turn}"},
        )
    ]


def _encoder(tokenizers: dict[str, Path]) -> tuple[Encoder, list[int]]:
    """An encoder whose tokenizer has a template of its own, and the length of each text that the template renders."""
    loaded = tokenizer.load(tokenizers["chatml"])
    loaded.chat_template = WITH_TOOLS
    encoder, lengths = Encoder(loaded), []
    whole = encoder.renderer._apply

    def counted(*arguments, **named):
        text = whole(*arguments, **named)
        lengths.append(len(text))
        return text

    encoder.renderer._apply = counted
    return encoder, lengths


def test_a_long_conversation_with_tools_is_cut_as_a_short_one(tokenizers, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, _ = _encoder(tokenizers)
    pieces = encoder.cut(_tool_talk(30), tools=[CALL])
    monkeypatch.setattr(cut, "_LONG", 10**9)
    assert pieces == encoder.cut(_tool_talk(30), tools=[CALL])
    assert sum(piece.trained for piece in pieces) == 60


def test_a_conversation_of_n_messages_costs_n(tokenizers) -> None:
    """Four times the messages are five times the characters at most; renderings of every beginning would be sixteen."""
    encoder, lengths = _encoder(tokenizers)
    encoder.cut(_tool_talk(50), tools=[CALL])
    short = sum(lengths)
    lengths.clear()
    encoder.cut(_tool_talk(200), tools=[CALL])
    assert sum(lengths) < 5 * short
