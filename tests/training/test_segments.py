"""Documents of a row never see each other in training, in families with segments and in families without."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import row, settings, train_rows
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Llama4TextConfig

from solar.config.training import Precision, PretrainConfig
from solar.errors import StageError
from solar.network.attention import Segment
from solar.network.decoder import Decoder
from solar.network.isolation import runs_in_segments, segments_hold, takes_segments
from solar.network.loading import load_network
from solar.training.distributed.sharded_loading import empty_network

GPT = {"vocab_size": 200, "hidden_size": 32, "n_layer": 2, "n_head": 4}
SIZES = {
    "vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
STATES = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
FEW_EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
SEGMENTED = {
    "llama": SIZES,
    "gpt_neox": SIZES,
    "opt": SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32},
}
ALONE = {
    "bloom": GPT,
    "mpt": {"vocab_size": 200, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "falcon": SIZES | {"alibi": False},
    "nemotron": SIZES,
    "mamba": {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "lfm2": SIZES | {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": SIZES | STATES | {"mamba_d_ssm": 64, "head_dim": 8},
    "granitemoehybrid": SIZES | STATES | FEW_EXPERTS | {"shared_intermediate_size": 32,
                                                       "layer_types": ["mamba", "attention"]},
    "gpt_oss": SIZES | FEW_EXPERTS | {"head_dim": 8},
}  # fmt: skip


def _folder(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SEGMENTED | ALONE)[family])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def _states(network, *documents: Tensor) -> Tensor:
    positions = torch.cat([torch.arange(len(document)) for document in documents])
    with torch.no_grad():
        return Decoder(network)(torch.cat(documents), positions, [Segment(len(ids)) for ids in documents])[0]


@pytest.mark.parametrize("family", SEGMENTED | ALONE)
def test_changing_a_document_leaves_the_next_one_bit_equal_and_as_it_is_alone(family: str, tmp_path: Path) -> None:
    network = load_network(_folder(family, tmp_path), Precision.fp32).eval()
    assert runs_in_segments(network) == (family in SEGMENTED)
    a, other, b = (torch.randint(3, 200, (size,)) for size in (20, 20, 30))
    before, after = _states(network, a, b), _states(network, other, b)
    assert torch.equal(before[20:], after[20:]) and not torch.equal(before[:20], after[:20])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        alone = plain.base_model(b[None]).last_hidden_state[0]
    torch.testing.assert_close(before[20:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_a_shared_prefix_and_neighbours_of_equal_length_change_nothing(family: str, tmp_path: Path) -> None:
    """Row: p+x, then y behind the same prefix p (5 tokens), then two documents of 7 tokens."""
    network = load_network(_folder(family, tmp_path), Precision.fp32).eval()
    p, x, y, c, d = (torch.randint(3, 200, (size,)) for size in (5, 4, 6, 7, 7))
    segments = [Segment(9), Segment(6, (0, 5)), Segment(7), Segment(7)]
    positions = torch.cat([torch.arange(9), torch.arange(5, 11), torch.arange(7), torch.arange(7)])
    with torch.no_grad():
        row = Decoder(network)(torch.cat([p, x, y, c, d]), positions, segments)[0]
    expected = [_states(network, torch.cat([p, x])), _states(network, torch.cat([p, y]))[5:]]
    expected += [_states(network, c), _states(network, d)]
    torch.testing.assert_close(row, torch.cat(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bloom", "mamba", "lfm2"])
def test_a_family_that_is_run_document_by_document_learns(family: str, tmp_path: Path) -> None:
    model_dir = _folder(family, tmp_path / "base")
    rows = [row(9, 14, 3, seed=n, sample=n) for n in range(4)]
    metrics, module = train_rows(rows, PretrainConfig(**settings()), model_dir, tmp_path / "out")
    assert module.steps_done == 6
    assert metrics["loss_last"] < metrics["loss_first"] - 0.05


def test_a_network_that_lets_text_through_is_found(tmp_path: Path) -> None:
    network = load_network(_folder("llama", tmp_path), Precision.fp32).eval()
    assert segments_hold(network)
    attention = network.model.layers[1].self_attn
    plain = attention.forward
    attention.forward = lambda hidden_states, **rest: plain(hidden_states=hidden_states.cumsum(1), **rest)
    assert not segments_hold(network)


def test_layers_that_say_nothing_of_attention_are_not_trusted() -> None:
    assert takes_segments(AutoConfig.for_model("llama"))
    assert not takes_segments(SimpleNamespace())
    assert not takes_segments(Llama4TextConfig())  # attends in chunks


@pytest.mark.parametrize("family", ["mamba", "gpt_oss"])
def test_sharded_training_takes_families_with_segments_alone(family: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"trainer\.strategy single or ddp"):
        empty_network(_folder(family, tmp_path), Precision.fp32)


@pytest.mark.parametrize(
    "family,attention",
    [
        ("llama", "segments (cpu)"),
        ("mamba", "one by one (the family mixes tokens outside an attention function that may be exchanged)"),
        ("gpt_oss", "one by one (sinks, cpu)"),
    ],
)
def test_a_training_reports_how_attention_was_computed_and_why(family: str, attention: str, tmp_path: Path) -> None:
    rows = [row(9, 5, seed=n, sample=n) for n in range(4)]
    config = PretrainConfig(**settings(duration="1 steps"))
    metrics, _ = train_rows(rows, config, _folder(family, tmp_path / "base"), tmp_path / "out")
    assert metrics["attention"] == attention
