"""Model folders that somebody made to harm: each case is a name and a function that damages a good folder.

`make_base` writes the good folder, a Llama of some ten thousand weights with a tokenizer and a chat template.
"""

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Damage = Callable[[Path], None]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
JSON_FILES = (
    *("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"),
    *("adapter_config.json", INDEX, "processor_config.json", "preprocessor_config.json", "added_tokens.json"),
)
CODE = {
    "auto_map": {"AutoConfig": "payload.C", "AutoModelForCausalLM": "payload.M", "AutoTokenizer": ["payload.T", None]},
    "trust_remote_code": True,
    "attn_implementation": "owner/kernel",
    "_attn_implementation": "owner/kernel@main",
    "_attn_implementation_internal": "owner/kernel",
    "experts_implementation": "owner/kernel",
    "custom_pipelines": {"text-generation": {"impl": "payload.P", "pt": ["AutoModelForCausalLM"]}},
    "custom_generate": "owner/code",
    "kernel_config": {"RMSNorm": "owner/kernel:Norm"},
}
"""Keys that choose code, with a value that would run some."""
FORGED = "x\nerror: all is well\x1b[2J\x1b]0;owned\x07\r\u202egpj.exe\x00\u2028\x9b31m"
"""A name that would print a second line, clear the screen, set the title of the window, or turn text around."""


def make_base(folder: Path) -> Path:
    """A good model folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    from solar.data.encode.templates import TEMPLATES

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog"] * 4, trainer)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "vocab_size": 280}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, **heads, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATES["solar"]}
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **roles})
    return folder


def write(folder: Path, name: str, content: Any) -> None:
    """JSON, text or bytes."""
    (folder / name).parent.mkdir(exist_ok=True)
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Set keys of a JSON object; `...` removes one."""
    content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    content |= changes
    write(folder, name, {key: value for key, value in content.items() if value is not ...})


def config(**changes: Any) -> Damage:
    return lambda folder: edit(folder, "config.json", **changes)


def file(name: str, content: Any) -> Damage:
    return lambda folder: write(folder, name, content)


def header(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Change the header of the weights; the data stays."""

    def damage(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        content = json.loads(raw[8 : 8 + length])
        changed = change(content)
        text = changed if isinstance(changed, bytes) else json.dumps(content if changed is None else changed).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])

    return damage


def raw_weights(change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: write(folder, WEIGHTS, change((folder / WEIGHTS).read_bytes()))


def weights(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        changed = change(tensors)
        save_file(tensors if changed is None else changed, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def sharded(**weight_map: Any) -> Damage:
    """Two shards and an index; `weight_map` replaces what the index says."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(tensors)
        halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
        for name, part in halves.items():
            save_file({key: tensors[key] for key in part}, folder / name, metadata={"format": "pt"})
        listed: dict[str, Any] = {key: name for name, part in halves.items() for key in part}
        write(folder, INDEX, {"metadata": {"total_size": 1}, "weight_map": listed | weight_map})

    return damage


def link(name: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def moved_out(name: str) -> Damage:
    """A link that leads to a good file beside the folder."""

    def damage(folder: Path) -> None:
        outside = folder.parent / f"outside-{name}"
        (folder / name).replace(outside) if (folder / name).exists() else outside.write_text("{}")
        (folder / name).symlink_to(outside)

    return damage


def special(name: str, make: Callable[[Path], Any]) -> Damage:
    """A pipe, a folder or a socket where a file belongs."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def sparse(name: str, size: int, start: bytes = b"") -> Damage:
    """A file of zeros that takes no room on the disk."""

    def damage(folder: Path) -> None:
        with (folder / name).open("wb") as stream:
            stream.write(start)
            stream.truncate(size)

    return damage


class Payload:
    """A pickle of this makes a folder when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def marker(folder: Path) -> Path:
    """What code of the folder makes when it runs."""
    return folder.parent / "RAN"


def pickled(*names: str, beside: bool = True) -> Damage:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(pickle.dumps(Payload(marker(folder))))
        if not beside:
            (folder / WEIGHTS).unlink()

    return damage


def with_code(damage: Damage) -> Damage:
    """The damage, and Python files that leave a mark when they are imported."""

    def both(folder: Path) -> None:
        code = f"import os\nos.mkdir({str(marker(folder))!r})\nC = M = T = P = object\n"
        for name in ("payload.py", "modeling.py", "custom_generate/generate.py", "tokenizer.py", "__init__.py"):
            write(folder, name, code)
        damage(folder)

    return both


def at_depth(depth: int, content: dict[str, Any]) -> dict[str, Any]:
    """The content inside `depth` - 1 objects and lists."""
    for level in range(depth - 1):
        content = {"inner": content} if level % 2 == 0 else {"list": [0, content]}
    return content


def planted(name: str, depth: int, key: str) -> Damage:
    """A key that chooses code, in a file of the folder."""

    def damage(folder: Path) -> None:
        if name == INDEX:
            sharded()(folder)
        edit(folder, name, **at_depth(depth, {key: CODE[key]}))

    return with_code(damage)


def tokenizer(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        changed = change(content)
        write(folder, "tokenizer.json", content if changed is None else changed)

    return damage


def nested(levels: int, opening: str = '{"a":', closing: str = "}") -> str:
    return opening * levels + "1" + closing * levels


def renamed(tensors: dict[str, Any], name: str) -> None:
    tensors[name] = tensors.pop("model.norm.weight")


def _rule(pattern: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        rule = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [rule, content["pre_tokenizer"]]}

    return change


def cases() -> Iterator[tuple[str, Damage]]:
    yield from _weights()
    yield from _shards()
    yield from _links()
    yield from _sizes()
    yield from _configs()
    yield from _code()
    yield from _tokenizers()
    yield from _names()


def _weights() -> Iterator[tuple[str, Damage]]:
    a = "model.norm.weight"
    yield "weights-empty", file(WEIGHTS, b"")
    yield "weights-7-bytes", file(WEIGHTS, b"1234567")
    yield "weights-cut-in-half", raw_weights(lambda raw: raw[: len(raw) // 2])
    yield "weights-cut-by-1", raw_weights(lambda raw: raw[:-1])
    yield "weights-1-byte-more", raw_weights(lambda raw: raw + b"\0")
    yield "weights-huge-length", raw_weights(lambda raw: struct.pack("<Q", 2**63) + raw[8:])
    yield "weights-length-1e9", raw_weights(lambda raw: struct.pack("<Q", 10**9) + raw[8:])
    yield "weights-length-0", raw_weights(lambda raw: bytes(8) + raw[8:])
    yield (
        "weights-length-less-1",
        raw_weights(lambda raw: struct.pack("<Q", int.from_bytes(raw[:8], "little") - 1) + raw[8:]),
    )
    yield "header-list", header(lambda content: b"[]")
    yield "header-nan", header(lambda content: b'{"a":NaN}')
    yield "header-deep", header(lambda content: b'{"a":' * 100_000)
    yield "header-not-utf8", header(lambda content: b'{"\xff":1}')
    yield "header-surrogate", header(lambda content: b'{"\\ud800":1}')
    yield "header-no-tensor", lambda folder: write(folder, WEIGHTS, struct.pack("<Q", 2) + b"{}")
    yield "header-metadata-number", header(lambda content: content | {"__metadata__": {"a": 1}})
    yield "header-name-twice", header(lambda c: json.dumps(c).encode()[:-1] + f',"{a}":{json.dumps(c[a])}}}'.encode())
    yield "tensor-overlap", header(lambda content: content[a].update(data_offsets=[0, 64]))
    yield "tensor-negative", header(lambda content: content[a].update(data_offsets=[-64, 0]))
    yield "tensor-beyond", header(lambda content: content[a].update(data_offsets=[10**9, 10**9 + 64]))
    yield "tensor-backwards", header(lambda content: content[a]["data_offsets"].reverse())
    yield "tensor-overflow", header(lambda content: content[a].update(shape=[2**40, 2**40]))
    yield "tensor-shape", header(lambda content: content[a].update(shape=[15]))
    yield "tensor-shape-negative", header(lambda content: content[a].update(shape=[-4, -4]))
    yield "tensor-shape-float", header(lambda content: content[a].update(shape=[16.0]))
    yield "tensor-many-dims", header(lambda content: content[a].update(shape=[16] + [1] * 3000))
    yield "tensor-dtype", header(lambda content: content[a].update(dtype="F33"))
    yield "tensor-dtype-int", header(lambda content: content[a].update(dtype="I32"))
    yield "tensor-dtype-complex", header(lambda content: content[a].update(dtype="C64", shape=[8]))
    yield "tensor-missing", weights(lambda tensors: {name: tensors[name] for name in tensors if name != a})
    yield "tensor-more", weights(lambda tensors: tensors.update(other=np.zeros(3, np.float32)))
    yield "tensor-of-no-size", weights(lambda tensors: tensors.update({a: np.zeros((0, 16), np.float32)}))
    yield "tensor-scalar", weights(lambda tensors: tensors.update({a: np.array(1, np.float32)}))
    yield "tensor-nan", weights(lambda tensors: tensors.update({a: np.full(16, np.nan, np.float32)}))
    yield "tensor-inf", weights(lambda tensors: tensors.update({a: np.full(16, np.inf, np.float32)}))
    yield "tensor-float8", header(lambda content: content[a].update(dtype="F8_E4M3", shape=[64]))
    yield (
        "layer-1e9",
        weights(lambda t: t.update({f"model.layers.{10**9}.mlp.up_proj.weight": np.zeros((24, 16), np.float32)})),
    )
    yield "layer-digits", weights(lambda t: t.update({f"model.layers.{'9' * 5000}.x.weight": np.zeros(1, np.float32)}))
    yield "layer-unicode-digit", weights(lambda t: t.update({"model.layers.\u0663.x.weight": np.zeros(1, np.float32)}))


def _shards() -> Iterator[tuple[str, Damage]]:
    a = "model.norm.weight"
    yield "index-good", sharded()
    for word, name in {
        "up": "../x.safetensors",
        "absolute": "/etc/passwd",
        "inner": "a/../../x.safetensors",
        "backslash": "..\\x.safetensors",
        "nul": "x\0.safetensors",
        "url": "https://example.org/x.safetensors",
        "pickle": "pytorch_model.bin",
        "empty": "",
        "dot": ".",
        "case": "MODEL-1.safetensors",
        "config": "config.json",
        "long": "x" * 300,
        "newline": "a\nb.safetensors",
        "surrogate": "\udcff.safetensors",
    }.items():
        yield f"index-{word}", sharded(**{a: name})
    yield "index-number", sharded(**{a: 3})
    yield "index-wrong-shard", sharded(**{a: "model-2.safetensors", "lm_head.weight": "model-2.safetensors"})
    yield "index-more", sharded(other="model-1.safetensors")
    yield "index-no-map", lambda folder: (sharded()(folder), write(folder, INDEX, {}))[0]
    yield "index-map-list", lambda folder: (sharded()(folder), write(folder, INDEX, {"weight_map": []}))[0]
    yield "index-not-json", lambda folder: (sharded()(folder), write(folder, INDEX, b"\xff\x00"))[0]
    yield "index-total-text", lambda folder: (sharded()(folder), edit(folder, INDEX, metadata="x"))[0]
    yield "index-beside-single", file(INDEX, {"weight_map": {}})
    yield "index-alone", lambda folder: (sharded()(folder), (folder / "model-2.safetensors").unlink())[0]
    yield "index-million", lambda folder: sharded(**{f"t{i}": "model-1.safetensors" for i in range(10**6)})(folder)


def _links() -> Iterator[tuple[str, Damage]]:
    read = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    for name in (*read, "special_tokens_map.json", "chat_template.jinja", "added_tokens.json", "LICENSE"):
        yield f"link-out-{name}", moved_out(name)
        yield f"pipe-{name}", special(name, os.mkfifo)
        yield f"folder-{name}", special(name, Path.mkdir)
    for name in read:
        yield f"link-to-zero-{name}", link(name, "/dev/zero")
        yield f"link-to-itself-{name}", link(name, name)
        yield f"link-to-nothing-{name}", link(name, "nothing")
    yield "link-readme", link("README.md", "/etc/passwd")
    yield "link-adapter", link("adapter_config.json", "/etc/passwd")
    yield "link-templates", link("additional_chat_templates", "/etc")
    yield (
        "link-template",
        lambda f: (
            (f / "additional_chat_templates").mkdir(),
            link("additional_chat_templates/a.jinja", "/etc/passwd")(f),
        )[0],
    )
    yield "link-shard", lambda folder: (sharded()(folder), moved_out("model-1.safetensors")(folder))[0]
    yield "link-index", lambda folder: (sharded()(folder), moved_out(INDEX)(folder))[0]
    yield "pipe-shard", lambda folder: (sharded()(folder), special("model-1.safetensors", os.mkfifo)(folder))[0]


def _sizes() -> Iterator[tuple[str, Damage]]:
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"):
        yield f"size-1GB-{name}", sparse(name, 10**9, b"{")
        yield f"size-deep-{name}", file(name, nested(100_000))
        yield f"size-deep-list-{name}", file(name, '{"a":' + nested(100_000, "[", "]") + "}")
        yield f"size-101-{name}", file(name, nested(900))
    yield "size-lists-config.json", file("config.json", '{"a":[' + ",".join(["[]"] * 4_000_000) + "]}")
    yield (
        "size-keys-tokenizer.json",
        file("tokenizer.json", "{" + ",".join(f'"{i}":{i}' for i in range(4_500_000)) + "}"),
    )
    yield "size-weights-1TB", sparse(WEIGHTS, 10**12, struct.pack("<Q", 90_000_000) + b"{")
    yield (
        "size-header-90MB",
        lambda folder: header(lambda content: json.dumps(content).encode() + b" " * 90_000_000)(folder),
    )
    yield (
        "size-header-90MB-tensors",
        header(
            lambda c: json.dumps(
                c | {f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(1_300_000)}
            ).encode()
        ),
    )
    for key, value in {
        "num_hidden_layers": 10**9,
        "vocab_size": 10**12,
        "hidden_size": 10**12,
        "intermediate_size": 10**15,
        "num_attention_heads": 10**9,
        "max_position_embeddings": 10**18,
        "head_dim": 10**12,
    }.items():
        yield f"size-{key}", config(**{key: value})
    yield "size-layer-types", config(layer_types=["full_attention"] * 10**6)


def _configs() -> Iterator[tuple[str, Damage]]:
    for word, text in {
        "empty": "",
        "list": "[]",
        "number": "3",
        "null": "null",
        "half": '{"model_type": "llama"',
        "nul": "\0",
        "bom": "\ufeff{}",
        "no-key": "{}",
        "latin": b'{"model_type": "\xff"}',
    }.items():
        yield f"config-{word}", file("config.json", text)
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size"):
        for word, value in {
            "0": 0,
            "minus": -1,
            "float": 1.5,
            "text": "4",
            "null": None,
            "list": [],
            "true": True,
        }.items():
            yield f"config-{key}-{word}", config(**{key: value})
    yield "config-1e400", lambda f: write(f, "config.json", (f / "config.json").read_text().replace("1e-06", "1e400"))
    yield "config-nan", lambda f: write(f, "config.json", (f / "config.json").read_text().replace("1e-06", "NaN"))
    digits = "9" * 5000
    yield "config-digits", lambda f: write(f, "config.json", (f / "config.json").read_text().replace("280", digits))
    for key, value in {
        "model_type": "nothing",
        "hidden_act": "os.system",
        "architectures": ["os.system"],
        "rope_parameters": {"rope_type": "yarn", "factor": 0},
        "rope_theta": 0,
        "dtype": "float0",
        "torch_dtype": "system",
        "rms_norm_eps": "x",
        "pad_token_id": 10**9,
        "eos_token_id": {"a": 1},
        "tie_word_embeddings": "yes",
        "quantization_config": {"quant_method": "payload.Q"},
        "text_config": 3,
        "layer_types": ["payload"],
        "pretraining_tp": 0,
        "attention_bias": True,
        "is_encoder_decoder": True,
        "use_cache": "x",
        "solar": {"layers": "x"},
        "sliding_window": -1,
        "transformers_version": {},
        "id2label": 3,
        "num_labels": 10**9,
        "problem_type": "x",
        "from_pretrained": "x",
        "__class__": "x",
        "__dict__": {},
        "to_dict": 3,
        "_name_or_path": FORGED,
    }.items():
        yield f"config-{key}", config(**{key: value})
    for kind in ("gpt2", "mamba", "t5", "clip", "whisper", "qwen2_vl", "mixtral", "deepseek_v3"):
        yield f"config-type-{kind}", config(model_type=kind, architectures=[])
    yield "generation-eos", lambda folder: edit(folder, "generation_config.json", eos_token_id="x")
    yield (
        "generation-bad",
        lambda folder: edit(folder, "generation_config.json", temperature=-1, do_sample="x", num_beams=0),
    )
    yield "generation-list", file("generation_config.json", "[]")
    yield "adapter-beside", file("adapter_config.json", {"base_model_name_or_path": "owner/model", "peft_type": "LORA"})
    yield (
        "adapter-alone",
        lambda folder: (file("adapter_config.json", {"peft_type": "LORA"})(folder), (folder / WEIGHTS).unlink())[0],
    )


def _code() -> Iterator[tuple[str, Damage]]:
    for number, name in enumerate(JSON_FILES):
        for key in CODE:
            yield f"code-{key}-{name}", planted(name, 1 + (number + len(key)) % 5, key)
    yield "pickle-only", pickled("pytorch_model.bin", beside=False)
    yield (
        "pickle-index",
        lambda f: (pickled("pytorch_model.bin")(f), sharded(**{"model.norm.weight": "pytorch_model.bin"})(f))[0],
    )
    names = (
        "pytorch_model.bin",
        "model.pt",
        "last.ckpt",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "training_args.bin",
    )
    yield "pickle-beside", pickled(*names, "tokenizer.pkl", "tokenizer.model", "vocab.pkl")
    yield "pickle-as-weights", pickled(WEIGHTS)
    yield "pickle-as-tokenizer", pickled("tokenizer.json")
    yield "pickle-as-config", pickled("config.json")


def _tokenizers() -> Iterator[tuple[str, Damage]]:
    yield "tokenizer-none", lambda folder: (folder / "tokenizer.json").unlink()
    yield "tokenizer-empty", file("tokenizer.json", "")
    yield "tokenizer-object", file("tokenizer.json", {})
    yield "tokenizer-list", file("tokenizer.json", [])
    yield "tokenizer-model", tokenizer(lambda content: content.update(model={"type": "payload"}))
    yield "tokenizer-ids", tokenizer(lambda content: content["model"]["vocab"].update({"the": 2**31}))
    yield "tokenizer-negative", tokenizer(lambda content: content["model"]["vocab"].update({"the": -1}))
    yield (
        "tokenizer-huge-added",
        tokenizer(lambda c: c["added_tokens"].append({**c["added_tokens"][0], "id": 2**32 - 1, "content": "zzz"})),
    )
    yield "tokenizer-merge", tokenizer(lambda content: content["model"]["merges"].append(["no", "token"]))
    yield "tokenizer-regex-bad", tokenizer(_rule("(((("))
    yield "tokenizer-regex-slow", tokenizer(_rule("(a|aa|a+)+$"))
    yield "tokenizer-regex-repeat", tokenizer(_rule("(?:x{1000}){1000}"))
    yield (
        "tokenizer-template-ids",
        tokenizer(
            lambda content: content.update(
                post_processor={
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "q", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {},
                }
            )
        ),
    )
    yield "tokenizer-class-code", lambda folder: edit(folder, "tokenizer_config.json", tokenizer_class="payload.T")
    yield "tokenizer-class-os", lambda folder: edit(folder, "tokenizer_config.json", tokenizer_class="os.system")
    yield "tokenizer-class-number", lambda folder: edit(folder, "tokenizer_config.json", tokenizer_class=3)
    yield "tokenizer-class-other", lambda folder: edit(folder, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    yield "tokenizer-eos-number", lambda folder: edit(folder, "tokenizer_config.json", eos_token=3)
    yield (
        "tokenizer-eos-object",
        lambda folder: edit(folder, "tokenizer_config.json", eos_token={"__type": "AddedToken"}),
    )
    yield "tokenizer-eos-unknown", lambda folder: edit(folder, "tokenizer_config.json", eos_token="<never>")
    yield "tokenizer-added-text", lambda folder: edit(folder, "tokenizer_config.json", added_tokens_decoder={"x": {}})
    yield (
        "tokenizer-added-huge",
        lambda f: edit(f, "tokenizer_config.json", added_tokens_decoder={str(10**12): {"content": "q"}}),
    )
    yield "tokenizer-max-length", lambda folder: edit(folder, "tokenizer_config.json", model_max_length="x")
    yield (
        "tokenizer-fast-files",
        lambda f: (
            write(f, "tokenizer.9.9.9.json", "{}"),
            edit(f, "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json", "../tokenizer.5.0.0.json"]),
        )[0],
    )
    yield "tokenizer-special-map", file("special_tokens_map.json", {"eos_token": ["a", 3]})
    for word, template in {
        "syntax": "{% for %}",
        "attribute": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "import": "{{ cycler.__init__.__globals__.os.system('true') }}",
        "raise": "{{ raise_exception('no\nerror: forged') }}",
        "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "number": 3,
        "list": [{"name": "default"}],
        "include": "{% include '/etc/passwd' %}",
        "divide": "{{ 1 / 0 }}",
    }.items():
        yield (
            f"template-{word}",
            lambda folder, template=template: edit(folder, "tokenizer_config.json", chat_template=template),
        )
    yield "template-not-utf8", file("chat_template.jinja", b"\xff\xfe")


def _names() -> Iterator[tuple[str, Damage]]:
    yield "name-tensor", weights(lambda tensors: renamed(tensors, FORGED))
    yield "name-long", weights(lambda tensors: renamed(tensors, "x" * 100_000))
    yield "name-config-key", config(**{FORGED: 1})
    yield "name-model-type", config(model_type=FORGED)
    yield "name-architecture", config(architectures=[FORGED])
    yield "name-dtype", header(lambda content: content["model.norm.weight"].update(dtype=FORGED))
    yield "name-shape", header(lambda content: content["model.norm.weight"].update(shape=[FORGED]))
    yield "name-shard", sharded(**{"model.norm.weight": FORGED})
    yield "name-shard-twice", sharded(**{FORGED: "model-1.safetensors"})
    yield "name-code", lambda folder: edit(folder, "config.json", **{FORGED: {"auto_map": {"AutoModel": "payload.M"}}})
    yield "name-activation", config(hidden_act=FORGED)
    yield "name-rope", config(rope_parameters={"rope_type": FORGED})
    yield "name-eos", lambda folder: edit(folder, "tokenizer_config.json", eos_token=FORGED)
    yield "name-tokenizer-class", lambda folder: edit(folder, "tokenizer_config.json", tokenizer_class=FORGED)
    yield "name-tokenizer-model", tokenizer(lambda content: content["model"].update(type=FORGED))
    yield "name-quantised", config(quantization_config={"quant_method": FORGED})
    yield "name-template", lambda folder: edit(folder, "tokenizer_config.json", chat_template="{{ " + FORGED)


CASES: dict[str, Damage] = dict(cases())
