"""The tokens of a tokenizer's files, and the ids of its roles."""

from pathlib import Path

from solar.weights.json_file import read_json


def vocabulary(tokenizer: Path) -> dict[str, int]:
    """Every token of a tokenizer folder, and its id."""
    content = read_json(tokenizer / "tokenizer.json")
    known = content["model"]["vocab"]
    ids = dict(known) if isinstance(known, dict) else {entry[0]: index for index, entry in enumerate(known)}
    return ids | {token["content"]: token["id"] for token in content.get("added_tokens", [])}


def token_ids(tokenizer: Path) -> dict[str, int]:
    """`bos_token_id`, `eos_token_id`, `pad_token_id`: those that the tokenizer has."""
    ids, settings = vocabulary(tokenizer), read_json(tokenizer / "tokenizer_config.json")
    roles = {}
    for role in ("bos", "eos", "pad"):
        token = settings.get(f"{role}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token is not None and token in ids:
            roles[f"{role}_token_id"] = ids[token]
    return roles
