"""What must hold of any merge, whatever the weights are."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import STORED, bfloat16, read_model, write_model

from solar.config.merging import Decay, MergeConfig, MergeMethod
from solar.merging import stream
from solar.merging.merge import merge

EXPONENT = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
LARGEST = {"BF16": 0x7F00, "F16": 0x7800, "F32": 0x7F000000}


def finite(dtype: str, size: int = 24):
    """Any bits that are a finite number: zeros of both signs, subnormals, numbers near the limits."""
    bits = np.uint32 if dtype == "F32" else np.uint16
    sign = 1 << (8 * np.dtype(bits).itemsize - 1)
    numbers = st.integers(0, LARGEST[dtype] - 1).flatmap(lambda n: st.sampled_from([n, n | sign]))
    return arrays(bits, size, elements=numbers).map(lambda array: array.view(STORED[dtype]))


def moderate(dtype: str, size: int = 24):
    """Numbers as weights have them."""
    numbers = arrays(np.float32, size, elements=st.floats(-4, 4, width=16, allow_subnormal=False))
    return numbers.map(lambda array: rounded(array, dtype))


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "BF16":
        return values.astype(STORED[dtype])
    return torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy().view(np.uint16)


def result(models, dtype: str, method: str, base=None, **numbers) -> bytes:
    """Write the tensors, merge them, and read the bytes of the result."""
    with tempfile.TemporaryDirectory() as place:
        written = [write_model(Path(place) / f"m{i}", {"w": values}, dtype) for i, values in enumerate(models)]
        root = None if base is None else write_model(Path(place) / "base", {"w": base}, dtype)
        names = [str(folder) for folder in written]
        config = MergeConfig("merge", names, MergeMethod(method), None if base is None else str(root), **numbers)
        merge(written, Path(place) / "out", config, root, threads=1)
        return read_model(Path(place) / "out")["w"].tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(
    ("method", "copies", "numbers"),
    [
        ("average", 2, {}),
        ("average", 3, {"weights": [0.3, 0.3, 0.4]}),
        ("slerp", 2, {"t": 0.3}),
        ("window", 3, {"decay": Decay.cosine}),
    ],
)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_model_merged_with_itself_is_itself_bit_for_bit(dtype, method, copies, numbers, data):
    values = data.draw(finite(dtype))
    assert result([values] * copies, dtype, method, **numbers) == values.tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        ("task_arithmetic", {"weights": [0.3, 0.4]}),
        ("ties", {"density": 0.5}),
        ("dare", {"density": 0.5, "seed": 0}),
        ("dare_ties", {"density": 0.5, "seed": 0}),
        ("model_stock", {}),
    ],
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_models_that_never_left_their_base_merge_to_the_base(dtype, method, numbers, data):
    values = data.draw(moderate(dtype))
    assert result([values, values], dtype, method, base=values, **numbers) == values.tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        ("task_arithmetic", {"weights": [0.5, 0.5]}),
        ("ties", {"density": 1.0}),
        ("dare", {"density": 1.0, "seed": 0, "weights": [0.5, 0.5]}),
        ("dare_ties", {"density": 1.0, "seed": 0}),
        ("model_stock", {}),
    ],
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_model_merged_with_itself_is_itself_wherever_the_base_lies(dtype, method, numbers, data):
    base, values = data.draw(moderate(dtype)), data.draw(moderate(dtype))
    got = np.frombuffer(result([values] * 2, dtype, method, base=base, **numbers), STORED[dtype])
    assert bool((as_numbers(got, dtype) == as_numbers(values, dtype)).all())  # a zero may keep the sign of the base's


def as_numbers(stored: np.ndarray, dtype: str) -> np.ndarray:
    return stored if dtype != "BF16" else (stored.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_weights_one_and_zero_give_the_first_model(dtype, data):
    first, second = data.draw(finite(dtype)), data.draw(finite(dtype))
    assert result([first, second], dtype, "average", weights=[1.0, 0.0]) == first.tobytes()


@settings(max_examples=15, deadline=None)
@given(first=moderate("BF16"), second=moderate("BF16"))
def test_slerp_begins_at_the_first_model_and_ends_at_the_second(first, second):
    assert result([first, second], "BF16", "slerp", t=0.0) == first.tobytes()
    assert result([first, second], "BF16", "slerp", t=1.0) == second.tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize(
    ("method", "weights", "numbers"),
    [
        ("average", [0.2, 0.3, 0.5], {}),
        ("task_arithmetic", [0.2, 0.3, 0.5], {}),
        ("ties", [0.2, 0.3, 0.5], {"density": 0.6}),
        ("model_stock", None, {}),
    ],
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_order_of_models_does_not_matter(dtype, method, weights, numbers, data):
    models = [data.draw(moderate(dtype)) for _ in range(3)]
    base = None if method == "average" else data.draw(moderate(dtype))
    results = set()
    for order in itertools.permutations(range(3)):
        given_weights = {} if weights is None else {"weights": [weights[i] for i in order]}
        results.add(result([models[i] for i in order], dtype, method, base, **given_weights, **numbers))
    assert len(results) == 1


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_ties_of_one_model_at_density_one_is_that_model(dtype, data):
    base, values = data.draw(moderate(dtype)), data.draw(moderate(dtype))
    got = np.frombuffer(result([values], dtype, "ties", base=base, density=1.0), STORED[dtype])
    if dtype == "BF16":  # compare as numbers: an unchanged zero keeps the sign it has in the base
        got, values = (
            torch.from_numpy(bits.copy().view(np.int16)).view(torch.bfloat16).float() for bits in (got, values)
        )
    assert bool((got == values).all())


def test_an_average_is_rounded_once(model, merged):
    generator = np.random.default_rng(0)
    a, b = (rounded(generator.standard_normal(100_000).astype(np.float32), "BF16") for _ in range(2))
    exact = sum(torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).double() for x in (a, b)) / 2
    got = merged([model(a, "BF16"), model(b, "BF16")], "average")
    assert np.array_equal(got, exact.bfloat16().view(torch.int16).numpy().view(np.uint16))


@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        ("slerp", {"t": 0.3}),
        ("ties", {"density": 0.3}),
        ("dare", {"density": 0.3, "seed": 1}),
        ("model_stock", {}),
    ],
)
def test_the_result_does_not_depend_on_the_number_of_threads(model, merged, method, numbers):
    """T-G1."""
    generator = np.random.default_rng(0)
    folders = [model({f"w{i}": generator.standard_normal(3000 * i) for i in range(1, 9)}) for _ in range(3)]
    base = None if method == "slerp" else folders[2]
    one, four = (merged(folders[:2], method, base, threads, **numbers) for threads in (1, 4))
    assert all(np.array_equal(one[name], four[name]) for name in one)


@pytest.mark.parametrize(
    ("method", "numbers"), [("average", {}), ("task_arithmetic", {}), ("ties", {"density": 0.3}), ("slerp", {"t": 0.3})]
)
def test_pieces_fit_together(model, merged, monkeypatch, method, numbers):
    generator = np.random.default_rng(0)
    folders = [model(generator.standard_normal((10, 10))) for _ in range(3)]
    base = folders[2] if method in ("task_arithmetic", "ties") else None
    whole = merged(folders[:2], method, base, **numbers)
    monkeypatch.setattr(stream, "CHUNK", 7)
    np.testing.assert_allclose(merged(folders[:2], method, base, **numbers), whole, rtol=1e-6)


def test_shards_may_differ_and_are_the_first_models(tmp_path):
    a = write_model(tmp_path / "a", {"x.safetensors": {"u": [1.0]}, "y.safetensors": {"v": [2.0, 4.0]}})
    b = write_model(tmp_path / "b", {"v": [4.0, 8.0], "u": [3.0]})
    config = MergeConfig("merge", ["a", "b"], MergeMethod.average)
    merge([a, b], tmp_path / "out", config)
    got = read_model(tmp_path / "out")
    assert {name: values.tolist() for name, values in got.items()} == {"u": [2.0], "v": [3.0, 6.0]}
    assert sorted(p.name for p in (tmp_path / "out").glob("*.safetensors")) == ["x.safetensors", "y.safetensors"]


@pytest.mark.parametrize("method", ["dare", "dare_ties"])
def test_dare_keeps_the_share_it_says_and_enlarges_it(model, merged, method):
    base, changed = model(np.zeros(100_000)), model(np.ones(100_000))
    got = merged([changed], method, base, density=0.25, seed=3)
    assert set(np.unique(got)) == {0.0, 4.0}
    assert abs(got.mean() - 1) < 0.03  # 5 standard deviations


def test_dare_repeats_with_its_seed_and_changes_with_another(model, merged):
    base, changed = model(np.zeros(1000)), model(np.ones(1000))
    draws = [merged([changed], "dare_ties", base, density=0.5, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_whole_numbers_travel_unchanged(tmp_path, merged):
    folders = []
    for name in "ab":
        folder = write_model(tmp_path / name, {"weights.safetensors": {"w": bfloat16([1.0])}}, "BF16")
        more = write_model(tmp_path / f"{name}_buffer", {"ids": [[1, 2], [3, 4]]}, "I64")
        (more / "model.safetensors").rename(folder / "buffer.safetensors")
        (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"w": "weights.safetensors", "ids": "buffer.safetensors"}}'
        )
        folders.append(folder)
    assert merged(folders, "average")["ids"].tolist() == [[1, 2], [3, 4]]


def test_an_empty_tensor_and_a_single_number_can_be_merged(model, merged):
    models = [model({"none": np.zeros((0, 4)), "one": np.array(value)}) for value in (1.0, 3.0)]
    for method, numbers in (("average", {}), ("slerp", {"t": 0.5})):
        got = merged(models, method, **numbers)
        assert got["none"].shape == (0, 4)
        assert got["one"] == 2.0  # parallel: slerp is a straight line
