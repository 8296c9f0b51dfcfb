"""Find the stack of decoder layers by structure: tensor names, and the layer count that config.json itself gives."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from solar.errors import PlanError

LAYER_COUNT_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_transformer_layers")
"""What configurations call their number of decoder layers."""
_LISTS_OF_LAYERS = ("layers_block_type", "layer_types", "hybrid_override_pattern")
_TEXT_KEY = re.compile("text|llm|language")


@dataclass(frozen=True)
class Decoder:
    """Where the repeated layers are: in config.json and among the tensors."""

    config_path: tuple[str, ...]
    """Keys from the root of config.json to the decoder's own configuration; `("text_config",)` where it is nested."""
    num_hidden_layers: int
    prefixes: tuple[str, ...]
    """The text before a layer's number in tensor names: `model.layers.`; several if a layer is spread over modules."""
    layers: tuple[frozenset[str], ...] = field(repr=False)
    """Tensor names of each layer."""
    beyond: frozenset[str] = field(repr=False)
    """Tensors of numbered layers above the decoder's last (multi-token prediction)."""

    def configuration(self, config: dict[str, Any]) -> dict[str, Any]:
        """The decoder's own part of a config.json."""
        for key in self.config_path:
            config = config[key]
        return config

    def rename(self, name: str, position: int) -> str:
        """A layer's tensor name, moved to another position.

        >>> Decoder((), 2, ("h.",), (), frozenset()).rename("h.1.mlp.2.weight", 5)
        'h.5.mlp.2.weight'
        """
        prefix, _, rest = split_layer(name) or ("", 0, "")
        return f"{prefix}{position}.{rest}"


def split_layer(name: str) -> tuple[str, int, str] | None:
    """Prefix, number and rest at the first number in a tensor's name.

    >>> split_layer("model.layers.3.mlp.experts.0.w1.weight")
    ('model.layers.', 3, 'mlp.experts.0.w1.weight')
    """
    parts = name.split(".")
    for place, part in enumerate(parts[:-1]):
        if part.isdecimal() and part == str(int(part)):
            prefix = "".join(f"{before}." for before in parts[:place])
            return prefix, int(part), ".".join(parts[place + 1 :])
    return None


def find_decoder(config: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Decoder:
    """Raises `PlanError` if there is no decoder, or if several stacks could be the decoder."""
    if config.get("is_encoder_decoder"):
        raise PlanError(
            "config.json: is_encoder_decoder is true, expected a decoder; encoder-decoders are not supported"
        )
    candidates = [
        (path, count, parent)
        for path, count, vocab_size in _configurations(config)
        for parent in _parents(shapes, count)
        if _reads_tokens(parent, vocab_size, shapes)
    ]
    if len(named := [each for each in candidates if each[0] and _TEXT_KEY.search(each[0][-1])]) == 1:
        candidates = named
    if len({(path, parent) for path, _, parent in candidates}) != 1:
        raise PlanError(_ambiguity(config, candidates))
    path, count, parent = candidates[0]
    prefixes = tuple(
        sorted(p for p, numbers in _stacks(shapes).items() if _parent(p) == parent and _has(numbers, count))
    )
    return _decoder(path, count, prefixes, shapes)


def _decoder(path: tuple[str, ...], count: int, prefixes: tuple[str, ...], names: Mapping[str, Any]) -> Decoder:
    layers: list[set[str]] = [set() for _ in range(count)]
    beyond: set[str] = set()
    for name in names:
        prefix, number, _ = split_layer(name) or ("", 0, "")
        if prefix in prefixes and prefix:
            (layers[number] if number < count else beyond).add(name)
    return Decoder(path, count, prefixes, tuple(frozenset(layer) for layer in layers), frozenset(beyond))


def _configurations(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Path, layer count and vocabulary of each (nested) configuration that has both."""
    if not isinstance(config, dict):
        return
    counts = {config[key] for key in LAYER_COUNT_KEYS if isinstance(config.get(key), int)}
    if not counts:
        counts = {len(config[key]) for key in _LISTS_OF_LAYERS if isinstance(config.get(key), list | str)}
    vocab_size = config.get("vocab_size", config.get("padded_vocab_size"))
    if len(counts) == 1 and isinstance(vocab_size, int):
        yield path, counts.pop(), vocab_size
    for key, value in config.items():
        yield from _configurations(value, (*path, key))


def _stacks(names: Mapping[str, Any]) -> dict[str, set[int]]:
    """Prefix -> the numbers that follow it."""
    stacks: dict[str, set[int]] = {}
    for name in names:
        if (split := split_layer(name)) is not None:
            stacks.setdefault(split[0], set()).add(split[1])
    return stacks


def _has(numbers: set[int], count: int) -> bool:
    """Whether the numbers are 0 to count - 1, with at most a few more above (multi-token prediction)."""
    return (
        len(numbers) > 0
        and count <= len(numbers)
        and numbers >= set(range(count))
        and len(numbers) == max(numbers) + 1 < count + 8
    )


def _parents(shapes: Mapping[str, Any], count: int) -> list[str]:
    """Modules that hold a stack of `count` layers. A stack of exactly that many layers rules out larger stacks."""
    fitting = {prefix: numbers for prefix, numbers in _stacks(shapes).items() if _has(numbers, count)}
    exact = [prefix for prefix, numbers in fitting.items() if len(numbers) == count]
    return sorted({_parent(prefix) for prefix in exact or fitting})


def _parent(prefix: str) -> str:
    """
    >>> _parent("model.layers."), _parent("h.")
    ('model.', '')
    """
    return prefix[: prefix[:-1].rfind(".") + 1]


def _reads_tokens(parent: str, vocab_size: int, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a token embedding (a row a token, rows padded at most by half) stands beside the stack."""
    beside = (
        shape for name, shape in shapes.items() if name.startswith(parent) and split_layer(name[len(parent) :]) is None
    )
    return any(len(shape) == 2 and vocab_size <= shape[0] <= vocab_size * 1.5 + 512 for shape in beside)


def _ambiguity(config: dict[str, Any], candidates: list[tuple[tuple[str, ...], int, str]]) -> str:
    if candidates:
        stacks = ", ".join(sorted({f"{parent}* ({'.'.join(path) or 'config'})" for path, _, parent in candidates}))
        return f"config.json: {len(candidates)} stacks of layers could be the decoder ({stacks}), expected one"
    counts = [count for _, count, _ in _configurations(config)]
    if not counts:
        keys = ", ".join(LAYER_COUNT_KEYS)
        return f"config.json: no layer count beside a vocab_size found, expected one of {keys}"
    return (
        f"{config.get('model_type')}: no tensors named as a stack of {counts[0]} layers beside a token embedding found"
    )
