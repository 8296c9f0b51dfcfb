"""Grown model, control and base, from their logs: what it took to come to the same loss."""

import pytest

from solar.report.sections.controls import recoveries

from .run_on_disk import curve


def _with_flops(lines, per_step):
    return [line | {"flops": float(line["step"] * per_step)} for line in lines]


@pytest.fixture
def grown(disk):
    """The grown model costs 3 FLOPs a step, its control 2; both read held-out text every 100 steps."""
    model = {"num_hidden_layers": 2}
    disk.add("data", "prepare_data", tokens_json={"splits": {"train": {"sources": {}}}})
    disk.add("base", "import_model", model__config_json=model)
    disk.add("up", "upscale", ("base",), model__config_json=model)
    log = _with_flops(curve(3.5, 3.0, 2.5), 3)
    disk.add("heal", "pretrain", ("up", "data"), model__config_json=model, logs__metrics_jsonl=log)
    return disk


def _control(disk, *losses, inputs=("base", "data")):
    log = _with_flops(curve(*losses), 2)
    disk.add("heal_control", "pretrain", inputs, model__config_json={}, logs__metrics_jsonl=log)
    return recoveries(disk.run)


def test_c_by_hand_where_the_grown_model_wins(grown):
    (found,) = _control(grown, 3.2, 3.0, 2.8, 2.75)
    # the lowest loss both reach is 2.75: the grown model at 100 + 50 steps of 3, the control at 300 of 2
    assert found.c == pytest.approx(150 * 3 / (300 * 2))
    assert found.base_loss == 3.2  # the control's first reading is the base
    assert found.gain_over_control == pytest.approx(0.25)
    assert found.recovered_at == pytest.approx(600)  # 60 steps of 10 tokens


def test_c_by_hand_where_the_control_wins(grown):
    (found,) = _control(grown, 3.2, 2.6, 2.4)
    # 2.5: the grown model at its end, the control half-way between 100 and 200 steps
    assert found.c == pytest.approx(200 * 3 / (150 * 2)) and found.gain_over_control == pytest.approx(-0.1)


def test_a_model_that_never_comes_back_has_no_c(grown):
    (found,) = _control(grown, 2.0, 1.9)
    assert found.c is None and found.recovered_at is None


@pytest.mark.parametrize("inputs", [("up", "data"), ("base",)], ids=["a grown model", "no data"])
def test_only_a_training_of_the_base_on_the_same_data_is_a_control(grown, inputs):
    assert all(found.control is None for found in _control(grown, 3.2, 3.0, inputs=inputs))


def test_each_model_is_held_against_its_own_control(grown):
    """The plan's own stands behind another of the same base and data; one with other settings is none."""
    log = _with_flops(curve(3.2, 3.0), 2)
    for stage, duration, name in (("other_control", 5, "base"), ("heal_control", 4, "base"), ("short", 9, "up")):
        entry = grown.add(stage, "pretrain", (name, "data"), model__config_json={}, logs__metrics_jsonl=log)
        entry.manifest["config"]["duration"] = f"{duration} steps"
    grown.add("twin", "pretrain", ("up", "data"), model__config_json={}, logs__metrics_jsonl=log)
    grown.entries[-1].manifest["config"] |= {"duration": "5 steps", "trainable": "new"}
    found = recoveries(grown.run)
    assert {each.base_loss for each in found} == {3.2}
    assert {each.healed: each.control and each.control.stage for each in found} == {
        "heal": "heal_control",
        "short": None,
        "twin": "other_control",  # what only a grown model has may differ
    }


def test_the_picture_shows_both_over_tokens_and_over_flops(grown):
    (found,) = _control(grown, 3.2, 3.0, 2.8)
    tokens, flops = found.charts()
    assert [line.name for line in tokens.lines] == [line.name for line in flops.lines] == ["heal", "heal_control"]
    assert flops.x_label == "training FLOPs" and flops.lines[0].points[-1] == (600.0, 2.5)
    # 2.8: 140 steps of 3 against 200 steps of 2
    assert found.words().endswith("c 1.05 (FLOPs to the same loss, against the control's)")
