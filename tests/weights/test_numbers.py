import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solar.errors import ArtifactError
from solar.weights.numbers import encode

BITS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


@given(BITS)
def test_bfloat16_and_float16_round_as_torch_does(bits):
    values = np.array(bits, dtype=np.uint32).view(np.float32)
    for dtype, expected in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        fits = torch.from_numpy(values.copy()).to(expected).isfinite().numpy() & np.isfinite(values)
        finite = np.where(fits, values, np.float32(0))
        raw = torch.frombuffer(bytearray(encode(finite.astype(np.float64), dtype, "x")), dtype=expected)
        assert torch.equal(raw, torch.from_numpy(finite.copy()).to(expected))


def test_what_is_no_number_stays_none():
    raw = torch.frombuffer(bytearray(encode(np.array([np.nan, np.inf, -np.inf]), "BF16", "x")), dtype=torch.bfloat16)
    assert raw[0].isnan() and raw[1:].tolist() == [float("inf"), float("-inf")]


@pytest.mark.parametrize(("value", "rounded"), [(1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (1 + 2**-7, 1 + 2**-7)])
def test_halfway_goes_to_even(value, rounded):
    raw = torch.frombuffer(bytearray(encode(np.array([value]), "BF16", "x")), dtype=torch.bfloat16)
    assert raw.tolist() == [rounded]


def test_a_value_too_large_for_its_format_is_refused_with_the_tensor_and_the_value():
    with pytest.raises(ArtifactError, match=r"lm_head.weight: 7e[+]04 found, too large for F16"):
        encode(np.array([1.0, -70000.0]), "F16", "lm_head.weight")
