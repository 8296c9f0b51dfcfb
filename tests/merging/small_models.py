"""Small models on disk: written byte by byte, read back through the headers."""

import json
from pathlib import Path

import numpy as np

from solar.weights.folder import open_folder
from solar.weights.values import read_bytes

STORED = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "I64": np.int64, "F64": np.float64}


def bfloat16(values) -> np.ndarray:
    """The bits of values that bfloat16 holds exactly."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    assert not np.any(bits & 0xFFFF), "these values do not fit bfloat16"
    return (bits >> 16).astype(np.uint16)


def write_model(folder: Path, files: dict, dtype: str = "F32", config: dict | None = None) -> Path:
    """A model folder; `files` is tensor name -> values, or file name -> tensor name -> values with an index."""
    folder.mkdir(parents=True)
    sharded = any(name.endswith(".safetensors") for name in files)
    shards = files if sharded else {"model.safetensors": files}
    for file, tensors in shards.items():
        arrays = {name: np.ascontiguousarray(values, STORED[dtype]) for name, values in tensors.items()}
        (folder / file).write_bytes(safetensors_bytes(arrays, dtype))
    if sharded:
        where = {name: file for file, tensors in shards.items() for name in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))
    return folder


def safetensors_bytes(arrays: dict[str, np.ndarray], dtype: str) -> bytes:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        span = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": span}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def read_model(folder: Path) -> dict[str, np.ndarray]:
    """Tensor name -> stored values."""
    return {
        name: np.frombuffer(read_bytes(tensor, 0, tensor.parameters), STORED[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in open_folder(folder).tensors.items()
    }
