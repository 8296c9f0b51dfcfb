"""The report shows whether copied layers have gone different ways."""

from types import SimpleNamespace

from solar.report.sections.twin_curves import twin_curves


def test_each_stage_that_trained_copies_has_a_curve_of_their_distance():
    log = [
        {"step": 10, "twin_divergence/02": 0.0},
        {"step": 11, "loss": 2.0},
        {"step": 20, "twin_divergence/02": 0.125},
    ]
    grown = SimpleNamespace(stage="pretrain", log=lambda: log)
    plain = SimpleNamespace(stage="sft", log=lambda: [{"step": 10, "loss": 2.0}])
    (curve,) = twin_curves(SimpleNamespace(entries=[grown, plain]))
    assert curve.title == "pretrain: copied layers" and "distance from the twin" in curve.svg


def test_a_model_that_was_not_grown_has_none():
    assert twin_curves(SimpleNamespace(entries=[SimpleNamespace(stage="sft", log=lambda: [])])) == []
