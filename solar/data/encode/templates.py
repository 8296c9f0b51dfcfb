"""Chat templates by name, as Jinja text: how a conversation becomes one string."""

from typing import Any

from solar.config.templates import TEMPLATE_TOKENS, template_problems
from solar.errors import DataError

SOLAR = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% if message['content'] %}"
    "{{ '### System:\\n' + message['content'] + '\\n\\n' }}{% endif %}"
    "{% elif message['role'] == 'user' %}{{ '### User:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Assistant:\\n' + message['content'] }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
    "{% endfor %}"
)
"""The released SOLAR 10.7B Instruct, byte for byte: nothing stands between an answer and the next question."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

ALPACA = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ 'Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\\n\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ '### Response:\\n' + message['content'] + eos_token }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)

_TODAY = (
    "{%- macro strftime_now(format) -%}{{ format | replace('%d', '26') | replace('%b', 'Jul') | replace('%B', 'July')"
    " | replace('%m', '07') | replace('%Y', '2024') | replace('%A', 'Friday') }}{%- endmacro -%}"
)
"""Templates that say the date say this one: the same words for ever, in training and at inference."""

TEMPLATES = {"solar": SOLAR, "chatml": CHATML, "alpaca": ALPACA, "llama3": LLAMA3, "zephyr": ZEPHYR}


def template_named(name: str) -> str:
    """Raises `DataError` for a name that is not in `TEMPLATES`."""
    for problem in template_problems(name):
        raise DataError(problem)
    return TEMPLATES[name]


def own_template(tokenizer: Any) -> str | None:
    """The Jinja text that came with a tokenizer; the default one of several."""
    own = tokenizer.chat_template
    own = own.get("default") if isinstance(own, dict) else own
    return own if isinstance(own, str) else None


def template_for(tokenizer: Any, name: str | None) -> str:
    """The Jinja text to use: ours by name, or the tokenizer's own. Raises `DataError` if it cannot be used."""
    if name is None:
        own = own_template(tokenizer)
        if own is None:
            raise DataError(
                f"template: the tokenizer in {tokenizer.name_or_path} has no chat template of its own; "
                f"name one of {', '.join(TEMPLATES)}"
            )
        return _TODAY + own if "strftime_now" in own and not own.startswith(_TODAY) else own
    template = template_named(name)
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in TEMPLATE_TOKENS[name] if token not in vocabulary]
    if missing:
        raise DataError(
            f"template: {name} needs the token {missing[0]}, which the tokenizer in {tokenizer.name_or_path} lacks; "
            f"name one that needs none (solar, alpaca, zephyr) or train the tokenizer with `template: {name}`"
        )
    return template
