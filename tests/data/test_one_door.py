"""Text becomes ids in `solar/data/encode` and nowhere else."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "solar"
DOOR = PACKAGE / "data/encode"
CALLS = ("apply_chat_template", "encode_plus", "batch_encode_plus", "encode_batch", "encode_batch_fast")
"""Methods that only a tokenizer has; `encode` is a method of text, too."""


def _calls_of_tokenizers(source: str) -> list[int]:
    """Lines on which a tokenizer is called, is read from its folder, or encodes."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called, words = node.func, ast.unparse(node.func)
        is_tokenizer = words.rpartition(".")[2] == "tokenizer" or words.endswith(
            ("okenizer.encode", "okenizer.from_pretrained", "okenizer.from_file", "okenizerFast.from_pretrained")
        )
        if is_tokenizer or (isinstance(called, ast.Attribute) and called.attr in CALLS):
            lines.append(node.lineno)
    return lines


def test_the_search_finds_every_way_to_call_a_tokenizer():
    for call in (
        "tokenizer.encode('a')",
        "self.tokenizer('a')",
        "AutoTokenizer.from_pretrained(folder)",
        "AutoTokenizer.from_pretrained(folder)('a')",
        "model.tokenizer.apply_chat_template(messages)",
        "backend.encode_batch_fast(texts)",
    ):
        assert _calls_of_tokenizers(call) != [], call
    for other in (
        "text.encode()",
        "encoder.text_prompt('a')",
        "train_tokenizer(config)",
        "tokenizer.read(a)",
        "Tokenizer(model)",
    ):
        assert _calls_of_tokenizers(other) == [], other


def test_tokenizers_are_read_and_called_in_one_folder_only():
    elsewhere = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.is_relative_to(DOOR)
        for line in _calls_of_tokenizers(path.read_text(encoding="utf-8"))
    ]
    assert elsewhere == []
