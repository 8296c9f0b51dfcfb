"""The soup as a stage: what it says is what it measured."""

from types import SimpleNamespace

import pytest
from small_models import read_model

from solar.config.soup import SoupConfig
from solar.stages import soup


def test_it_says_every_loss_it_measured_and_which_models_it_kept(model, tmp_path, monkeypatch):
    inputs = {"text": SimpleNamespace(path=tmp_path / "text")}
    for name, value in (("a", 3.0), ("b", 5.0), ("c", 9.0)):
        model({"w": [value]}).rename((tmp_path / name).mkdir() or tmp_path / name / "model")
        inputs[name] = SimpleNamespace(path=tmp_path / name)
    monkeypatch.setattr(soup, "load_decoder", lambda folder, device: folder)

    def distance_from_four(folder, data, max_tokens):
        assert (data, max_tokens) == (tmp_path / "text", 64)
        return {"nats_per_token": abs(float(read_model(folder)["w"][0]) - 4)}

    monkeypatch.setattr(soup, "held_out_loss", distance_from_four)
    config = SoupConfig(kind="soup", models=["c", "a", "b"], data="text", max_tokens=64)
    (tmp_path / "out").mkdir()
    context = SimpleNamespace(trainer=SimpleNamespace(device_type="cpu"), progress=lambda line: None)
    said = soup.run(config, inputs, tmp_path / "out", context)
    # alone: 5, 1, 1; a with b makes 4, so 0; with c too it is 17 / 3, so 5 / 3
    assert said["alone"] == {"c": 5.0, "a": 1.0, "b": 1.0}
    assert [tried["models"] for tried in said["tried"]] == [["a", "b"], ["a", "b", "c"]]
    assert said["tried"][1]["nats_per_token"] == pytest.approx(5 / 3, abs=1e-6)
    assert (said["kept"], said["nats_per_token"]) == (["a", "b"], 0.0)
    assert read_model(tmp_path / "out" / "model")["w"].tolist() == [4.0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"models": ["a"]}, "at least two"), ({"models": ["a", "a"]}, "a more than once"), ({"max_tokens": 0}, "found 0")],
)
def test_what_makes_no_soup_is_refused(settings, said):
    config = SoupConfig(**{"kind": "soup", "models": ["a", "b"], "data": "text", **settings})
    assert [problem for problem in config.problems() if said in problem]
