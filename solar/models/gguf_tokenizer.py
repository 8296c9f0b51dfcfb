"""The byte-level BPE tokenizer inside a GGUF file, as Hugging Face files.

GGUF stores tokens and merges, but only the name of the rule that splits text into words. A wrong rule would go
unnoticed (GPT-2's rule splits SmolLM2's spaces before a number in another way than in training), so unknown names are
refused.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from solar.errors import StageError

_CONTROL, _USER_DEFINED = 3, 4
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _words(rule: str) -> Any:
    """The pre-tokenizer that a name of `tokenizer.ggml.pre` stands for, or None."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule != "llama-bpe")
    if rule == "gpt-2":
        return byte_level
    if rule == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if rule == "llama-bpe":
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"), byte_level])
    return None


def write(fields: dict[str, Any], path: Path, output: Path) -> dict[str, int]:
    """Write `tokenizer.json` and `tokenizer_config.json`; returns the ids of the tokens that begin, end and pad."""
    rule = fields.get("tokenizer.ggml.pre")
    words = _words(str(rule)) if fields.get("tokenizer.ggml.model") == "gpt2" else None
    if words is None:
        raise StageError(
            f"{path}: its tokenizer is {fields.get('tokenizer.ggml.model')}/{rule}, "
            "expected gpt2 with smollm, gpt-2 or llama-bpe; give its safetensors folder instead"
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    ids = {
        role: fields[f"tokenizer.ggml.{name}_token_id"]
        for role, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{name}_token_id" in fields
    }
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys():
            raise StageError(f"{path}: its tokenizer merges {' '.join(merge)!r}, which are no tokens; fetch it again")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule == "llama-bpe"))
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields.get("tokenizer.ggml.token_type", [])
    tokenizer.add_special_tokens([_added(t, True) for t, kind in zip(tokens, kinds, strict=False) if kind == _CONTROL])
    tokenizer.add_tokens([_added(t, False) for t, kind in zip(tokens, kinds, strict=False) if kind == _USER_DEFINED])
    if fields.get("tokenizer.ggml.add_bos_token") and "bos" in ids:
        bos = tokens[ids["bos"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, ids["bos"])]
        )
    tokenizer.save(str(output / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {f"{role}_token": tokens[index] for role, index in ids.items()}
    settings["model_max_length"] = fields["llama.context_length"]
    if "tokenizer.chat_template" in fields:
        settings["chat_template"] = fields["tokenizer.chat_template"]
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (output / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return {f"{role}_token_id": index for role, index in ids.items() if role != "unk"}


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)
