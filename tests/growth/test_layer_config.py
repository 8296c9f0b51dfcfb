"""Configurations of real families, and what a plan makes of them, worked by hand."""

import pytest

from solar.errors import PlanError
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import find_decoder
from solar.growth.remap.layer_config import remap, unknown_patterns

DUS = LayerPlan(8, (0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7))
ODD = LayerPlan(8, (0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 7))
TWICE = LayerPlan(2, (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("plan", "config", "changed"),
    [
        (ODD, {"layer_types": list("sfsfsfsf")}, {"layer_types": list("sfsfsfs") + list("sfsfsf")}),
        (DUS, {"mlp_only_layers": [1, 2]}, {"mlp_only_layers": [1, 2, 6]}),
        (DUS, {"mlp_only_layers": []}, {}),
        (DUS, {"decoder_sparse_step": 2}, {"decoder_sparse_step": 1, "mlp_only_layers": [0, 2, 4, 6, 8, 10]}),
        (DUS, {"first_k_dense_replace": 2}, {}),
        (TWICE, {"first_k_dense_replace": 1}, {"first_k_dense_replace": 2}),
        (DUS, {"full_attn_idxs": [2, 5]}, {"full_attn_idxs": [2, 5, 6, 9]}),
        (DUS, {"moe_layers": [*range(8)]}, {"moe_layers": [*range(12)]}),
        (DUS, {"attn_layer_period": 4, "attn_layer_offset": 1}, {}),
        (DUS, {"attention_types": [[["global", "local"], 4]]}, {"attention_types": [[["global", "local"] * 6, 1]]}),
        (TWICE, {"hybrid_override_pattern": "M*"}, {"hybrid_override_pattern": "MM**"}),
        (TWICE, {"block_types": ["recurrent", "attention"]}, {"block_types": ["recurrent"] * 2 + ["attention"] * 2}),
        (TWICE, {"per_layer_config": {"1": {"a": 3}}}, {"per_layer_config": {"2": {"a": 3}, "3": {"a": 3}}}),
        (DUS, {"use_sliding_window": True, "max_window_layers": 2, "n": 1}, {}),
        (DUS, {"use_sliding_window": False, "max_window_layers": 28}, {}),
        (TWICE, {"scale_depth": 2.0}, {"scale_depth": 2.0 * 2**0.5}),
        (TWICE, {"eos_token_id": [1, 2], "architectures": ["A", "B"], "mrope_section": [2, 1]}, {}),
        (
            TWICE,
            {"moe_layer_start_index": 1, "moe_layer_end_index": 1},
            {"moe_layer_start_index": 2, "moe_layer_end_index": 3},
        ),
        (TWICE, {"sliding_window_pattern": 2, "layer_types": ["s", "f"]}, {"layer_types": list("ssff")}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_configuration_says_of_layers_follows_the_plan(plan, config, changed):
    config = {"num_hidden_layers": plan.base_layers, "hidden_size": 64, **config}
    if "max_window_layers" in config and config["use_sliding_window"]:
        config |= {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 6}
        changed = {"layer_types": [config["layer_types"][source] for source in plan.sources]}
    changed = (
        {"attention_layers": changed["attention_types"][0][0], **changed} if "attention_types" in changed else changed
    )
    assert remap(config, plan) == {**config, "num_hidden_layers": plan.num_hidden_layers, **changed}


@pytest.mark.parametrize(
    ("plan", "config", "key"),
    [
        (LayerPlan(8, (0, 1, 0, 1)), {"first_k_dense_replace": 1}, "first_k_dense_replace: 1 found, but layer 2"),
        (ODD, {"attn_layer_period": 4, "attn_layer_offset": 1}, "attn_layer_period: 4 found"),
        (ODD, {"no_rope_layer_interval": 4}, "no_rope_layer_interval: 4 found"),
        (LayerPlan(8, (0, 7, 1)), {"moe_layer_start_index": 0, "moe_layer_end_index": 6}, "moe_layer_start_index"),
        (DUS, {"num_kv_shared_layers": 4}, "num_kv_shared_layers: 4 found"),
        (DUS, {"indexer_types": ["full", "shared"] * 4}, "indexer_types: shared found"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_a_configuration_cannot_say_is_refused_with_its_key(plan, config, key):
    with pytest.raises(PlanError) as error:
        remap({"num_hidden_layers": 8, **config}, plan)
    assert str(error.value).startswith(key) and ";" in str(error.value)


def test_the_identity_changes_nothing_even_where_growth_could_not_be_right():
    config = {"num_hidden_layers": 2, "num_kv_shared_layers": 1}
    assert remap(config, LayerPlan(2, (0, 1))) == config


def test_patterns_nobody_knows_are_noticed():
    config = {
        "attn_every_n_layers": 4,
        "layer_norm_eps": 1e-5,
        "num_hidden_layers": 8,
        "layerdrop": 0.1,
        "hidden_size": 8,
    }
    config |= {"no_rope_layer_interval": 4, "use_layer_interval": False, "num_nextn_predict_layers": 1}
    assert unknown_patterns(config) == ["attn_every_n_layers"]


def stack(prefix, layers, tokens=96):
    names = {f"{prefix}layers.{i}.w": (4, 4) for i in range(layers)}
    return names | {f"{prefix}embed_tokens.weight": (tokens, 4)}


def test_the_decoder_is_the_stack_beside_the_token_embedding_not_the_vision_tower():
    shapes = stack("model.language_model.", 4) | {f"model.visual.layers.{i}.w": (4, 4) for i in range(4)}
    shapes |= {"model.visual.embed.weight": (9, 4)}
    config = {"text_config": {"num_hidden_layers": 4, "vocab_size": 96}, "vision_config": {"num_hidden_layers": 4}}
    decoder = find_decoder(config, shapes)
    assert decoder.prefixes == ("model.language_model.layers.",) and decoder.config_path == ("text_config",)


def test_layers_spread_over_several_lists_move_together():
    shapes = {f"{kind}.{i}.w": (4, 4) for kind in ("attentions", "ffns") for i in range(3)} | {
        "embeddings.weight": (96, 4)
    }
    decoder = find_decoder({"n_layers": 3, "vocab_size": 96}, shapes)
    assert decoder.prefixes == ("attentions.", "ffns.")
    assert decoder.layers[1] == {"attentions.1.w", "ffns.1.w"}


def test_layers_for_multi_token_prediction_are_set_apart():
    decoder = find_decoder({"num_hidden_layers": 4, "vocab_size": 96}, stack("model.", 5))
    assert decoder.num_hidden_layers == 4 and decoder.beyond == {"model.layers.4.w"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"vocab_size": 96}, "no layer count"),
        ({"num_hidden_layers": 5, "vocab_size": 96}, "no tensors named as a stack of 5 layers"),
        ({"num_hidden_layers": 4, "vocab_size": 5000}, "no tensors named"),
        ({"a": {"n_layer": 4, "vocab_size": 96}, "b": {"n_layer": 4, "vocab_size": 96}}, "2 stacks of layers could be"),
    ],
)
def test_no_decoder_or_two_are_refused(config, said):
    with pytest.raises(PlanError, match=said):
        find_decoder(config, stack("model.", 4))
