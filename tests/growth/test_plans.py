import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from solar.config.growth import DiagnoseConfig, UpscaleConfig
from solar.config.growth_plan import GrowthPlan, Init, PlanName
from solar.errors import PlanError
from solar.growth.plans import LayerPlan, Seam, resolve

N = 8


def plan(name, **parameters):
    return GrowthPlan(PlanName(name), **parameters)


@pytest.mark.parametrize(
    ("growth", "sources"),
    [
        (plan("dus", m=2), [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]),
        (plan("dus", m_fraction=0.25), [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]),
        (plan("dus", target_layers=12), [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]),
        (plan("dus", p=1, q=3), [0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7]),
        (plan("stack", times=2), [0, 1, 2, 3, 4, 5, 6, 7] * 2),
        (plan("repeat_each", times=2), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        (plan("interleave", every=4), [0, 1, 2, 3, 3, 4, 5, 6, 7, 7]),
        (plan("interleave", every=3), [0, 1, 2, 2, 3, 4, 5, 5, 6, 7]),
        (plan("middle", start=2, stop=4, times=3), [0, 1, 2, 3, 2, 3, 2, 3, 4, 5, 6, 7]),
        (plan("explicit", layers=[0, 0, 7]), [0, 0, 7]),
        (plan("slices", slices=[[0, 6], [2, 8]]), [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]),
    ],
    ids=lambda value: value.plan.value if isinstance(value, GrowthPlan) else "",
)
def test_every_plan_becomes_the_list_worked_by_hand(growth, sources):
    assert list(resolve(growth, N).sources) == sources


def test_solar_is_mistral_with_m_8():
    """Paper, section 2: n = 32, m = 8, s = 48; layers 8..23 run twice; the seam's distance is 15."""
    solar = resolve(plan("dus", m=8), 32)
    assert solar.sources == (*range(24), *range(8, 32))
    assert sorted(solar.twins) == list(range(8, 24)) and solar.twins[8] == (8, 24)
    assert solar.seams == (Seam(24, 23, 8),) and solar.seams[0].distance == 15


def test_yi_9b_is_yi_6b_with_p_4_and_q_12():
    """Yi-9B repeats layers 12 to 27 of 32."""
    yi = resolve(plan("dus", p=4, q=12), 32)
    assert yi.num_hidden_layers == 48 and sorted(yi.twins) == list(range(12, 28))


def test_half_the_layers_dropped_gives_the_base_back():
    identity = resolve(plan("dus", m=4), N)
    assert identity.sources == tuple(range(N)) and not identity.seams and not identity.new_positions


def test_a_layer_that_feeds_its_own_copy_is_a_seam_of_distance_0():
    twice = resolve(plan("repeat_each", times=2), 2)
    assert [(seam.position, seam.distance) for seam in twice.seams] == [(1, 0), (3, 0)]


def test_a_plan_that_leaves_out_the_ends_has_seams_to_the_embedding_and_the_norm():
    assert LayerPlan(4, (1, 2)).seams == (Seam(0, -1, 1), Seam(2, 2, 4))


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        (plan("dus", m=9), "m: 9 found, expected 0..4 (half of the base's 8 layers); choose a smaller m"),
        (plan("dus", m=-1), "m: -1 found, expected 0..4"),
        (plan("dus", m_fraction=0.6), "m_fraction: 0.6 found, expected 0..0.5"),
        (plan("dus", target_layers=13), "target_layers: 13 found, expected an even number in 8..16; choose 12 or 14"),
        (plan("dus", target_layers=18), "target_layers: 18 found, expected an even number in 8..16"),
        (plan("dus", p=6, q=3), "q: 3 found, expected 0..2"),
        (plan("dus", m=1, target_layers=14), "m, target_layers: given together"),
        (plan("dus", p=1), "p: given together, expected one of m"),
        (plan("dus"), "m: not set"),
        (plan("stack", times=0), "times: 0 found, expected at least 1"),
        (plan("stack", times=2, m=1), "m: given, but plan stack takes times"),
        (plan("stack"), "times: not set"),
        (plan("interleave", every=0), "every: 0 found, expected 1..8"),
        (plan("middle", start=8, stop=9, times=2), "start: 8 found, expected 0..7"),
        (plan("middle", start=4, stop=4, times=2), "stop: 4 found, expected 5..8"),
        (plan("explicit", layers=[]), "layers: an empty list found"),
        (plan("explicit", layers=[0, 8]), "layers.1: 8 found, expected 0..7"),
        (plan("slices", slices=[[0, 9]]), "slices.0: [0, 9] found"),
        (plan("slices", slices=[[3, 3]]), "slices.0: [3, 3] found"),
        (plan("slices", slices=[]), "slices: an empty list found"),
        (plan("dus", m=2, init=Init.noise), "noise_std: not set"),
        (GrowthPlan(), "plan: not set, expected one of dus, stack"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_an_invalid_plan_is_refused_with_its_key_and_the_valid_range(growth, message):
    with pytest.raises(PlanError) as error:
        resolve(growth, N)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@given(n=st.integers(1, 40), data=st.data())
def test_dus_keeps_every_layer_and_its_formulas_hold(n, data):
    m = data.draw(st.integers(0, n // 2))
    grown = resolve(plan("dus", m=m), n)
    assert grown.num_hidden_layers == 2 * (n - m)
    assert set(grown.sources) == set(range(n)) and grown.keeps_base
    assert all(grown.sources[k] == (k if k < n - m else k - (n - 2 * m)) for k in range(2 * (n - m)))
    assert [seam.distance for seam in grown.seams] == ([] if 2 * m == n else [n - 2 * m - 1])


@given(sources=st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_runs_spell_out_the_sources_and_twins_are_where_they_say(sources):
    explicit = LayerPlan(10, tuple(sources))
    assert [layer for run in explicit.runs for layer in run] == sources
    assert all(sources[k] == source for source, positions in explicit.twins.items() for k in positions)
    assert len(explicit.new_positions) == len(sources) - len(set(sources))


def test_the_configuration_is_accepted_by_omegaconf_and_comes_back_as_dataclasses():
    config = OmegaConf.merge(OmegaConf.structured(UpscaleConfig), {"kind": "upscale", "model": "base", "plan": "dus"})
    upscale = OmegaConf.to_object(OmegaConf.merge(config, OmegaConf.from_dotlist(["m=8"])))
    assert isinstance(upscale, UpscaleConfig) and not list(upscale.problems())
    assert resolve(upscale, 32).num_hidden_layers == 48
    given = {"kind": "diagnose", "model": "b", "data": "d", "tokens": 9, "sequence_length": 8}
    given["plans"] = {"a": {"plan": "slices", "slices": [[0, 2], [1, 4]]}}
    diagnose = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DiagnoseConfig), given))
    assert resolve(diagnose.plans["a"], 4).sources == (0, 1, 1, 2, 3)


def test_a_plan_beside_a_diagnosis_is_refused():
    assert next(iter(UpscaleConfig(plan=PlanName.dus, m=2, diagnosis="diagnose").problems())).startswith(
        "plan, m: given beside"
    )
    assert not [*UpscaleConfig(diagnosis="diagnose").problems()]


def test_planning_needs_no_torch():
    code = "import sys, solar.growth.plans; sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
