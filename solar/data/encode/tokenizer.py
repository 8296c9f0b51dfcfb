"""Train a byte-level BPE tokenizer; load any Hugging Face tokenizer folder."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from solar.config.templates import TEMPLATE_TOKENS
from solar.data.encode import class_label
from solar.data.encode.templates import template_named
from solar.errors import DataError
from solar.weights.members import check_members

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def train(
    text_folder: Path, vocab_size: int, template: str, output: Path, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Learn `vocab_size` tokens from the training rows of `text_folder` and leave a Hugging Face folder.

    Every byte is a token, so no text is unknown; the same text gives the same tokenizer.
    """
    chat_template = template_named(template)
    special_tokens = [PAD, BOS, EOS, *TEMPLATE_TOKENS[template]]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    progress("counting words")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special_tokens, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(training_texts(text_folder), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise DataError(
            f"vocab_size: found {vocab_size}, but {text_folder} has text for {tokenizer.get_vocab_size()} tokens only"
        )
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos_id)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(TEMPLATE_TOKENS[template]),
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(output)
    return {"vocab_size": vocab_size, "bytes_per_token": _bytes_per_token(tokenizer, text_folder)}


def training_texts(folder: Path) -> Iterator[str]:
    """The `text` of every row of the folder's JSONL files that is not held out."""
    has_text = False
    for file in sorted(folder.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if "text" not in row:
                    break
                if row.get("split", "train") == "train":
                    has_text = True
                    yield row["text"]
    if not has_text:
        raise DataError(f"{folder}: no *.jsonl file with training rows that have a `text`")


def _bytes_per_token(tokenizer: Any, folder: Path, samples: int = 1000) -> float:
    """Compression on the first texts."""
    texts = [text for _, text in zip(range(samples), training_texts(folder), strict=False)]
    count = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return sum(len(text.encode()) for text in texts) / count


def tokenizer_folder(artifact: Path) -> Path:
    """Where an artifact holds its tokenizer: `tokenizer/`, or `model/` of a model, or the folder itself."""
    for folder in (artifact / "tokenizer", artifact / "model", artifact):
        if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
            return folder
    raise DataError(f"{artifact}: no tokenizer files here, expected a tokenizer or model artifact")


def load(artifact: Path) -> Any:
    """The fast tokenizer of an artifact. Raises `DataError` if it has none, or cannot say where a text ends."""
    folder = tokenizer_folder(artifact)
    tokenizer = read(folder)
    if tokenizer.eos_token_id is None:
        raise DataError(f"{folder}: the tokenizer has no eos_token, so the end of a text could not be learned")
    return tokenizer


def read(folder: Path) -> Any:
    """The fast tokenizer of a folder, with or without an end token: what `tokenizer.json` describes, if it is there.

    A folder of `vocab.json` and `merges.txt` is converted by transformers. Raises `DataError` if there is neither.
    """
    check_members(folder)
    if (folder / class_label.FILE).is_file():
        return class_label.read_file(folder)
    if not (folder / "vocab.json").is_file():
        others = ", ".join(
            name for name in ("tokenizer.model", "tiktoken.model", "tekken.json") if (folder / name).is_file()
        )
        raise DataError(
            f"{folder}: found {others or 'no tokenizer'}, expected tokenizer.json; make it where sentencepiece and "
            f"tiktoken are installed: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    with class_label.damaged(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(getattr(tokenizer, "backend_tokenizer", None), tokenizers.Tokenizer):
        raise DataError(f"{folder}: no tokenizer.json for the fast tokenizers; save it with save_pretrained first")
    return tokenizer


def without_suffix(tokenizer: Any) -> Any:
    """The tokenizer for libraries that call it with its defaults: nothing is appended to a text, such as EOS.

    What the tokenizer's post-processor puts before a text stays. A tokenizer that appends nothing is returned as it is.
    """
    probe = tokenizer.backend_tokenizer.encode("a")
    if not probe.special_tokens_mask[-1]:
        return tokenizer
    marked = zip(probe.tokens, probe.ids, probe.special_tokens_mask, strict=True)
    before = [(token, i) for token, i, _ in takewhile(lambda entry: entry[2] == 1, marked)]
    changed = deepcopy(tokenizer)
    single = [*(token for token, _ in before), "$A"]
    changed.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=before)
    return changed


def token_of_another_id(data: Path, model: Path) -> str | None:
    """The first id that stands for different tokens in two tokenizer folders, in words; None if there is none.

    A token that only one of them has makes no difference; nor does a folder without `tokenizer.json`.
    """
    files = [folder / class_label.FILE for folder in (data, model)]
    if not all(file.is_file() for file in files):
        return None
    ours, theirs = map(_tokens_by_id, files)
    for i in sorted(ours.keys() & theirs.keys()):
        if ours[i].isdisjoint(theirs[i]):
            return f"token {i} is {min(ours[i])!r} in the data and {min(theirs[i])!r} in the model"
    return None


def _tokens_by_id(file: Path) -> dict[int, set[str]]:
    """An added token may have the id of a token of the vocabulary that it replaces."""
    check_members(file.parent)
    with class_label.damaged(file):
        vocabulary = tokenizers.Tokenizer.from_file(str(file)).get_vocab()
    by_id: dict[int, set[str]] = {}
    for token, i in vocabulary.items():
        by_id.setdefault(i, set()).add(token)
    return by_id
