"""The names of the chat templates, and the tokens that each needs; their text is in `solar.data.encode.templates`."""

from collections.abc import Iterator

TEMPLATE_TOKENS: dict[str, tuple[str, ...]] = {
    "solar": (),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "alpaca": (),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "zephyr": (),
}
"""Name -> tokens that a tokenizer must have, as one special token each."""


def template_problems(name: str | None) -> Iterator[str]:
    """What is wrong with a template's name; None stands for the tokenizer's own template.

    >>> list(template_problems("sola"))
    ["template: found 'sola', expected one of solar, chatml, alpaca, llama3, zephyr"]
    """
    if name is not None and name not in TEMPLATE_TOKENS:
        yield f"template: found {name!r}, expected one of {', '.join(TEMPLATE_TOKENS)}"
