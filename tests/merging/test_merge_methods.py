"""Each method by numbers worked by hand."""

import math

import numpy as np
import pytest
from small_models import bfloat16

from solar.config.merging import Decay, MergeMethod
from solar.merging import stream
from solar.merging.arithmetic import elect, smallest_kept
from solar.merging.methods import METHODS, model_stock, slerp, window


def test_every_method_has_a_row_and_a_paper():
    assert set(METHODS) == set(MergeMethod)
    assert all(method.paper for method in METHODS.values())


def test_average_of_bfloat16(model, merged):
    a, b = model(bfloat16([1.0, -2.0]), "BF16"), model(bfloat16([3.0, 4.0]), "BF16")
    assert np.array_equal(merged([a, b], "average", weights=[3.0, 1.0]), bfloat16([1.5, -0.5]))


def test_a_tie_is_rounded_to_even(model, merged):
    # bfloat16 has 8 bits: next to 1 come 1 + 1/128 and 1 + 2/128; the halves between them go to the even neighbour
    a = model(bfloat16([1.0, 1 + 1 / 128]), "BF16")
    b = model(bfloat16([1 + 1 / 128, 1 + 2 / 128]), "BF16")
    assert np.array_equal(merged([a, b], "average"), bfloat16([1.0, 1 + 2 / 128]))


def test_slerp_at_sixty_degrees(model, merged):
    # (2, 0) and (1, sqrt 3) lie 60 degrees apart; a third of the way is 20 degrees:
    # sin 40 / sin 60 = 0.742227 of the first, sin 20 / sin 60 = 0.394931 of the second
    a, b = model([2.0, 0.0]), model([1.0, math.sqrt(3)])
    np.testing.assert_allclose(merged([a, b], "slerp", t=1 / 3), [1.879385, 0.684040], atol=1e-6)  # 2 cos 20, 2 sin 20


def test_slerp_of_opposite_tensors_is_a_straight_line():
    assert slerp(np.array([[1.0, -1.0], [-1.0, 1.0]]), 0.25) == [0.75, 0.25]


@pytest.mark.parametrize("cosine", [0.9996, -0.9996])
def test_slerp_of_almost_parallel_tensors_is_a_straight_line(cosine):
    assert slerp(np.array([[1.0, cosine], [cosine, 1.0]]), 0.25) == [0.75, 0.25]


def test_slerp_of_a_zero_tensor_is_a_straight_line():
    assert slerp(np.array([[0.0, 0.0], [0.0, 4.0]]), 0.5) == [0.5, 0.5]


def test_task_arithmetic_adds_and_subtracts_changes(model, merged):
    base, a, b = model([1.0, 1.0]), model([2.0, 1.0]), model([1.0, 5.0])
    # 1 + 0.5 * (1 * 1), 1 + 0.5 * (-0.5 * 4)
    assert merged([a, b], "task_arithmetic", base, weights=[1.0, -0.5], scale=0.5).tolist() == [1.5, 0.0]


def test_ties_trims_elects_and_averages(model, merged):
    base = model([0.0, 0.0, 0.0, 10.0])
    a = model([4.0, 0.1, 3.0, 10.2])  # changes 4, 0.1, 3, 0.2: the larger half are 4 and 3
    b = model([2.0, 5.0, -6.0, 10.1])  # changes 2, 5, -6, 0.1: the larger half are 5 and -6
    # elements: 4 alone; 5 alone; 3 - 6 < 0 elects -6; nothing kept: the base
    assert merged([a, b], "ties", base, density=0.5).tolist() == [4.0, 5.0, -6.0, 10.0]


def test_ties_scales_the_merged_change(model, merged):
    base, a, b = model([1.0]), model([3.0]), model([5.0])
    # changes 2 and 4, weights 1 and 3: mean 3.5, halved
    assert merged([a, b], "ties", base, density=1.0, weights=[1.0, 3.0], scale=0.5).tolist() == [2.75]


def test_ties_keeps_the_largest_of_the_whole_tensor(model, merged):
    size = 400_000
    assert size > stream.CHUNK
    changes = np.arange(size, dtype=np.float64)
    base, changed = model(np.zeros(size)), model(changes)
    got = merged([changed], "ties", base, density=0.25)
    assert np.array_equal(got, np.where(changes >= 300_000, changes, 0))


def test_each_model_may_keep_a_share_of_its_own(model, merged):
    base, a, b = model([0.0] * 4), model([4.0, 3.0, 2.0, 1.0]), model([1.0, 2.0, 3.0, 4.0])
    # of a the largest quarter (4), of b the larger half (3 and 4)
    assert merged([a, b], "ties", base, densities=[0.25, 0.5]).tolist() == [4.0, 0.0, 3.0, 4.0]


@pytest.mark.parametrize("method", ["dare", "dare_ties"])
def test_dare_enlarges_each_model_by_its_own_share(model, merged, method):
    size = 100_000
    base, a, b = model(np.zeros(size)), model(np.ones(size)), model(np.ones(size))
    got = merged([a, b], method, base, densities=[0.5, 0.25], weights=[1.0, 1.0], seed=0)
    # changes of 2 and 4, alone or together: their sum, or their mean where signs are elected
    together = 6.0 if method == "dare" else 3.0
    shares = {value: float((got == value).mean()) for value in (0.0, 2.0, 4.0, together)}
    expected = {0.0: 0.375, 2.0: 0.375, 4.0: 0.125, together: 0.125}
    assert sum(shares.values()) == 1.0
    assert shares == pytest.approx(expected, abs=0.008)  # 5 standard deviations


def test_equal_changes_are_kept_together():
    assert smallest_kept(np.array([1.0, 2.0, 2.0, 2.0]), density=0.5) == 2.0


def test_an_election_without_a_majority_takes_plus():
    every = np.array([True])
    assert elect(np.zeros(1), [np.array([3.0]), np.array([-3.0])], [every, every], [1.0, 1.0]).tolist() == [3.0]


def test_dare_at_density_one_is_task_arithmetic(model, merged):
    base, a, b = model([1.0, 2.0]), model([2.0, 4.0]), model([3.0, 0.0])
    got = merged([a, b], "dare", base, density=1.0, seed=0, weights=[0.5, 0.25])
    assert got.tolist() == merged([a, b], "task_arithmetic", base, weights=[0.5, 0.25]).tolist() == [2.0, 2.5]


def test_model_stock_at_a_right_angle_stays_at_the_base(model, merged):
    base, a, b = model([1.0, 1.0]), model([2.0, 1.0]), model([1.0, 3.0])
    assert merged([a, b], "model_stock", base).tolist() == [1.0, 1.0]


def test_model_stock_of_equal_changes_is_their_mean():
    assert model_stock(np.full((3, 3), 5.0)) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def test_model_stock_of_opposite_changes_is_the_base():
    assert model_stock(np.array([[1.0, -1.0], [-1.0, 1.0]])) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("decay", list(Decay))
def test_a_window_weighs_updates_as_the_decay_does(decay):
    weights = window(4, decay)
    curve = {
        Decay.linear: lambda s: 1 - s,
        Decay.sqrt: lambda s: 1 - s**0.5,
        Decay.cosine: lambda s: math.cos(math.pi * s / 2) ** 2,
    }
    # an update made between checkpoints i - 1 and i is in checkpoints i and later
    assert [sum(weights[i:]) for i in range(4)] == pytest.approx([curve[decay](i / 4) for i in range(4)])


def test_a_window_of_real_checkpoints_weighs_the_oldest_first(model, merged):
    steps = [model([value]) for value in (0.0, 1.0, 2.0, 3.0)]
    # cosine at s = 0, 1/4, 1/2, 3/4: rates 1, 0.853553, 0.5, 0.146447; three updates of 1 each
    assert merged(steps, "window", decay=Decay.cosine) == pytest.approx([0.853553 + 0.5 + 0.146447], abs=1e-6)
