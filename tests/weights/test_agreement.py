"""A head that config.json ties to the embeddings, stored a second time."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from solar.config.growth_plan import GrowthPlan, PlanName
from solar.config.model import ImportModelConfig
from solar.errors import ArtifactError
from solar.growth.job import work_out
from solar.models.importing import import_model
from solar.network.folder import check_files
from solar.weights.agreement import check_tied_head
from solar.weights.folder import open_folder

LAYER = {f"model.layers.{layer}.input_layernorm.weight": np.ones(4, np.float32) for layer in range(2)}
EMBEDDINGS = np.arange(32, dtype=np.float32).reshape(8, 4)
OTHER = EMBEDDINGS.copy()
OTHER[7, 3] += 1


@pytest.fixture
def write(tmp_path):
    """Write a model whose last number of the head may differ from the embeddings."""

    def folder(head, **config):
        path = tmp_path / "model"
        path.mkdir()
        settings = {"model_type": "phi", "num_hidden_layers": 2, "vocab_size": 8, "tie_word_embeddings": True}
        (path / "config.json").write_text(json.dumps({**settings, **config}))
        tensors = {"model.embed_tokens.weight": EMBEDDINGS, "lm_head.weight": head, **LAYER}
        save_file(tensors, path / "model.safetensors")
        return path

    return folder


DOORS = {
    "grow": lambda folder, out: work_out(folder, GrowthPlan(PlanName.dus, m=0)),
    "import": lambda folder, out: import_model(ImportModelConfig(kind="import_model", path=str(folder)), out),
    "training and chat": lambda folder, out: check_files(folder),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=list(DOORS))
def test_a_tied_head_with_other_numbers_is_refused(door, write, tmp_path):
    with pytest.raises(ArtifactError, match=r"ties lm_head\.weight to model\.embed_tokens\.weight.*different numbers"):
        door(write(OTHER), tmp_path / "out")


@pytest.mark.parametrize("door", DOORS.values(), ids=list(DOORS))
def test_a_tied_head_with_the_embeddings_numbers_is_accepted(door, write, tmp_path):
    door(write(EMBEDDINGS), tmp_path / "out")


@pytest.mark.parametrize("head", [EMBEDDINGS.astype(np.float16), EMBEDDINGS[:4]])
def test_a_tied_head_in_another_format_or_shape_is_refused(head, write):
    with pytest.raises(ArtifactError, match="different numbers"):
        check_tied_head(open_folder(write(head)))


@pytest.mark.parametrize(
    "config",
    [{"tie_word_embeddings": False}, {"text_config": {"tie_word_embeddings": False}}],
)
def test_an_untied_head_may_have_any_numbers(config, write):
    check_tied_head(open_folder(write(OTHER, **config)))


def test_the_language_models_part_decides_whether_the_head_is_tied(write):
    folder = write(OTHER, tie_word_embeddings=False, text_config={"tie_word_embeddings": True})
    with pytest.raises(ArtifactError, match="set tie_word_embeddings to false"):
        check_tied_head(open_folder(folder))
