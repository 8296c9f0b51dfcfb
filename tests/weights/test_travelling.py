"""Which files go with the weights into a new model, and which stay."""

import json
import os

import pytest

from solar.errors import ArtifactError
from solar.weights.travelling import copy_or_link, copy_tokenizer, copy_travelling_files

STAY = [
    *("README.md", "adapter_config.json", "adapter_model.safetensors", "params.json", "consolidated.00.pth"),
    *("consolidated.safetensors", "consolidated.safetensors.index.json", "all_results.json", "train_results.json"),
    *("training_args.bin", "trainer_state.json", "optimizer.pt", "modeling_x.py", "config.json", ".gitattributes"),
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "merge.json", "quantize_config.json"),
]
TRAVEL = [
    *("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("qwen.tiktoken", "cl100k_base.tiktoken", "tekken.json", "chat_template.jinja", "USE_POLICY.md", "LICENSE.txt"),
    *("NOTICE", "preprocessor_config.json", "additional_chat_templates/tool_use.jinja"),
]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_list_of_what_travels_decides(source, target):
    (source / "additional_chat_templates").mkdir()
    for name in (*STAY, *TRAVEL, "additional_chat_templates/run.py"):
        (source / name).write_text("{}")
    copy_travelling_files(source, target)
    assert names(target) == set(TRAVEL)


def test_a_tokenizer_travels_without_licence_and_generation_settings(source, target):
    for name in ("tokenizer.json", "LICENSE", "generation_config.json"):
        (source / name).write_text("{}")
    copy_tokenizer(source, target)
    assert names(target) == {"tokenizer.json"}


def test_files_travel_byte_for_byte(source, target):
    (source / "generation_config.json").write_text('{"top_p":   0.9}')
    copy_travelling_files(source, target)
    assert (target / "generation_config.json").read_text() == '{"top_p":   0.9}'


def test_a_folder_whose_files_choose_code_does_not_travel(source, target):
    chooses = {"processor": {"auto_map": {"AutoProcessor": "a/b--p.P"}, "size": 3}}
    (source / "processor_config.json").write_text(json.dumps(chooses))
    with pytest.raises(ArtifactError, match=r"processor_config\.json: processor\.auto_map asks to run code"):
        copy_travelling_files(source, target)
    assert names(target) == set()


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer.json", "additional_chat_templates/a.jinja"])
def test_a_link_out_of_the_folder_is_refused(name, source, target, tmp_path):
    (tmp_path / "secret").write_text("password")
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match=r"a link to .*secret, outside the folder"):
        copy_travelling_files(source, target)
    assert names(target) == set()


def test_a_folder_of_templates_that_is_a_link_is_refused(source, target, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jinja").write_text("secret")
    (source / "additional_chat_templates").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="a link or a file, expected a folder of templates"):
        copy_travelling_files(source, target)
    assert names(target) == set()


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer_config.json"])
def test_a_pipe_is_refused_and_not_waited_for(name, source, target):
    os.mkfifo(source / name)
    with pytest.raises(ArtifactError, match=rf"{name}: not a regular file"):
        copy_travelling_files(source, target)


@pytest.mark.parametrize("link", [True, False])
def test_a_copy_has_the_bytes_and_a_link_is_a_second_name(link, source, target):
    (source / "a").write_bytes(b"weights")
    assert copy_or_link(source / "a", target / "a", link) is link
    assert (target / "a").read_bytes() == b"weights"
    assert (target / "a").stat().st_nlink == (2 if link else 1)
