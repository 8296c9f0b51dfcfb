"""All ways of computing a row of documents give the same hidden states, and keep the documents apart."""

from functools import partial

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from solar.network import decoder as decoder_module
from solar.network.attention import NAME, Segment
from solar.network.decoder import Decoder
from solar.network.head import body_of
from solar.network.isolation import family_of, flex_holds, in_one_pass, layout_of, runs_in_segments
from solar.network.kernels import varlen
from solar.network.kernels.choice import Choice, Family, Way, choose
from solar.network.kernels.flex import block_mask

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
WINDOW = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
PLAIN = {
    "llama": SIZES,
    "mistral": SIZES | {"sliding_window": 5},
    "qwen3": SIZES | WINDOW | {"use_sliding_window": True},
}
CHANGED = {
    "gemma2": SIZES | WINDOW | {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gpt_oss": SIZES | WINDOW | EXPERTS,
    "llama4_text": SIZES | EXPERTS | {
        "intermediate_size_mlp": 64, "attention_chunk_size": 4, "attn_temperature_tuning": False,
        "layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0],
    },
}  # fmt: skip
CPU = torch.device("cpu")
BF16, FP32 = torch.bfloat16, torch.float32
MLA = Family(in_segments=True, head_sizes=(192, 128))
LLAMA = Family(in_segments=True, head_sizes=(64, 64))
GEMMA2 = Family(in_segments=False, in_flex=True, features=("soft caps",))


def _network(family: str):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(PLAIN | CHANGED)[family])
    network = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in network.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return network


def _row(*lengths: int):
    """Ids and positions of whole documents."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 97, (sum(lengths),), generator=generator)
    return ids, torch.cat([torch.arange(length) for length in lengths])


@torch.no_grad()
def _states(network, way, ids, positions, segments):
    network.set_attn_implementation(NAME)
    layout = layout_of(way, segments, network, family_of(network))
    return in_one_pass(body_of(network), ids, positions, layout)[0]


@torch.no_grad()
def _alone(network, ids):
    network.set_attn_implementation("eager")
    return body_of(network)(input_ids=ids[None], use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("family", PLAIN | CHANGED)
def test_flex_and_segments_give_each_document_the_hidden_states_it_has_alone(family):
    network, lengths = _network(family), [9, 1, 14, 7, 7]
    ids, positions = _row(*lengths)
    segments = [Segment(length) for length in lengths]
    alone = torch.cat([_alone(network, document) for document in ids.split(lengths)])
    for way in (Way.flex, Way.segments):
        states = _states(network, way, ids, positions, segments)
        torch.testing.assert_close(states, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", PLAIN | CHANGED)
def test_in_flex_changing_a_document_changes_no_other_by_a_bit(family):
    network, segments = _network(family), [Segment(9), Segment(6), Segment(7)]
    ids, positions = _row(9, 6, 7)
    other = ids.clone()
    other[9:15] = (other[9:15] + 1) % 97
    before, after = (_states(network, Way.flex, row, positions, segments) for row in (ids, other))
    assert torch.equal(before[:9], after[:9]) and torch.equal(before[15:], after[15:])
    assert not torch.equal(before[9:15], after[9:15])


@pytest.mark.parametrize("family", PLAIN | CHANGED)
def test_in_flex_an_answer_behind_a_shared_prompt_is_as_behind_a_prompt_of_its_own(family):
    """Row: prompt (8) and first answer (5), second answer (6), then another document (4)."""
    network = _network(family)
    ids, _ = _row(13, 6, 4)
    positions = torch.cat([torch.arange(13), torch.arange(8, 14), torch.arange(4)])
    row = _states(network, Way.flex, ids, positions, [Segment(13), Segment(6, (0, 8)), Segment(4)])
    expected = [
        _alone(network, ids[:13]),
        _alone(network, torch.cat([ids[:8], ids[13:19]]))[8:],
        _alone(network, ids[19:]),
    ]
    torch.testing.assert_close(row, torch.cat(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [127, 128, 129])
def test_rows_at_the_edge_of_a_block_leave_room_for_the_sink(tokens):
    network = _network("gpt_oss")
    ids, positions = _row(100, tokens - 100)
    states = _states(network, Way.flex, ids, positions, [Segment(100), Segment(tokens - 100)])
    torch.testing.assert_close(states[100:], _alone(network, ids[100:]), rtol=1e-5, atol=1e-5)


def test_rows_of_the_same_lengths_share_their_masks():
    segments = (Segment(5), Segment(6))
    build = partial(block_mask, reach=(None, None), sinks=False, device=CPU)
    assert build(segments) is build((Segment(5), Segment(6)))
    assert build(segments) is not build((Segment(6), Segment(5)))


def _documented_varlen(query, key, value, offsets_q, offsets_k, max_q, max_k, *, scale, window_size, enable_gqa, **_):
    """What the documentation of `varlen_attn` says, document by document: (W, 0) also shows the W keys before."""
    assert query.dtype == key.dtype == value.dtype
    outputs = []
    for start, end in zip(offsets_q.tolist(), offsets_q.tolist()[1:], strict=False):
        assert 0 < end - start <= max_q
        part = [tensor[start:end].transpose(0, 1)[None] for tensor in (query, key, value)]
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
        left, right = window_size
        mask = (distance >= -right) & ((left < 0) | (distance <= left))
        attended = scaled_dot_product_attention(*part, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        outputs.append(attended[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("family", PLAIN)
def test_offsets_and_windows_handed_to_varlen_mean_the_same_documents(family, monkeypatch):
    network, lengths = _network(family), [9, 1, 14, 7]
    monkeypatch.setattr(varlen, "varlen_attn", _documented_varlen)
    ids, positions = _row(*lengths)
    segments = [Segment(length) for length in lengths]
    through_offsets = _states(network, Way.varlen, ids, positions, segments)
    torch.testing.assert_close(
        through_offsets, _states(network, Way.segments, ids, positions, segments), rtol=1e-5, atol=1e-5
    )


def test_offsets_by_hand():
    offsets = varlen.offsets_of([Segment(3), Segment(200), Segment(1)], CPU, BF16)
    assert offsets.offsets_N.tolist() == [0, 3, 203, 204] and offsets.offsets_N.dtype is torch.int32
    assert offsets.longest == 256
    assert varlen.offsets_of([Segment(256)], CPU, BF16).longest == 256
    assert varlen.offsets_of([Segment(257)], CPU, BF16).longest == 512


def test_layers_with_varlen_compile_without_a_graph_break_and_once_for_all_rows():
    """On the meta device, where `varlen_attn` has shapes and no kernel."""
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(
            AutoConfig.for_model("llama", **PLAIN["llama"]), dtype=BF16, attn_implementation=NAME
        )
    compilations = []

    def backend(graph, _):
        compilations.append(graph)
        return graph.forward

    torch._dynamo.reset()
    body = torch.compile(body_of(network), backend=backend, dynamic=True, fullgraph=True)
    for lengths in ([50, 30], [20, 90, 17], [33, 61, 5, 5]):
        ids, positions = (tensor.to("meta") for tensor in _row(*lengths))
        layout = layout_of(Way.varlen, [Segment(length) for length in lengths], network, family_of(network))
        assert in_one_pass(body, ids, positions, layout).shape == (1, sum(lengths), 32)
    assert len(compilations) == 1


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt_oss"])
def test_layers_in_flex_are_one_graph_and_two_serve_rows_of_any_length(family):
    """The first length is compiled as a number, the second as a symbol; generated kernels are not run here."""
    network = _network(family)
    network.set_attn_implementation(NAME)
    compilations = []

    def backend(graph, _):
        compilations.append(graph)
        return graph.forward

    torch._dynamo.reset()
    body = torch.compile(body_of(network), backend=backend, dynamic=True, fullgraph=True)
    for lengths in ([50, 30], [20, 60, 17], [200], [300, 20], [500, 3]):
        ids, positions = _row(*lengths)
        segments = [Segment(length) for length in lengths]
        layout = layout_of(Way.flex, segments, network, family_of(network))
        with torch.no_grad():
            compiled, plain = (in_one_pass(run, ids, positions, layout) for run in (body, body_of(network)))
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
    assert len(compilations) == 2


@pytest.mark.parametrize(
    "expected,arguments",
    [
        ("segments (cpu)", ("cpu", BF16, LLAMA)),
        ("segments (mps)", ("mps", BF16, LLAMA)),
        ("varlen (bfloat16 on cuda)", ("cuda", BF16, LLAMA)),
        ("varlen (float16 on cuda)", ("cuda", torch.float16, LLAMA)),
        ("flex (float32, which varlen does not take)", ("cuda", FP32, LLAMA)),
        ("flex (soft caps)", ("cuda", BF16, GEMMA2)),
        ("one by one (soft caps, cpu)", ("cpu", BF16, GEMMA2)),
        ("flex (heads of 192 and 128, which varlen does not take)", ("cuda", BF16, MLA)),
        ("flex (heads of several sizes)", ("cuda", BF16, Family(True))),
        (
            "one by one (the family mixes tokens outside an attention function that may be exchanged)",
            ("cuda", BF16, Family(False)),
        ),
    ],
)  # fmt: skip
def test_device_number_format_and_family_choose_the_way(expected, arguments):
    assert str(choose(*arguments)) == expected


def test_in_deterministic_mode_no_row_takes_flex():
    assert choose("cuda", BF16, LLAMA, deterministic=True).way is Way.varlen
    assert str(choose("cuda", FP32, LLAMA, deterministic=True)) == (
        "segments (deterministic, float32, which varlen does not take)"
    )
    shared = choose("cuda", BF16, LLAMA, shares_prompts=True, deterministic=True)
    assert shared == Choice(Way.segments, "deterministic, answers share a prompt")
    assert str(choose("cuda", BF16, GEMMA2, deterministic=True)) == "one by one (soft caps, deterministic)"


def test_the_decoder_asks_torch_whether_the_mode_is_deterministic(monkeypatch):
    asked = []

    def noting(*arguments, deterministic, **options):
        asked.append(deterministic)
        return choose(*arguments, deterministic=deterministic, **options)

    monkeypatch.setattr("solar.network.decoder.choose", noting)
    network = _network("llama")
    network.set_attn_implementation(NAME)
    ids, positions = _row(5, 3)
    with torch.no_grad():
        for mode in (True, False):
            torch.use_deterministic_algorithms(mode)
            Decoder(network)(ids, positions, [Segment(5), Segment(3)])
    assert asked == [True, False]


def test_shared_prompts_take_flex_and_attention_dropout_takes_segments():
    assert choose("cuda", BF16, LLAMA, shares_prompts=True) == Choice(Way.flex, "answers share a prompt")
    assert choose("cuda", BF16, LLAMA, dropout=True) == Choice(Way.segments, "attention dropout")
    assert choose("cuda", BF16, GEMMA2, dropout=True).way is Way.alone


def _as_on_cuda(monkeypatch):
    monkeypatch.setattr(decoder_module, "choose", lambda _, *rest, **named: choose("cuda", *rest, **named))


@pytest.mark.parametrize("family", CHANGED)
def test_a_family_that_segments_do_not_take_runs_in_flex_once_a_trial_agreed(family, monkeypatch):
    network = _network(family)
    ids, positions = _row(9, 14)
    segments = [Segment(9), Segment(14)]
    with torch.no_grad():
        on_cpu = Decoder(network)
        expected = on_cpu(ids, positions, segments)[0]
        assert [text.split(" (")[0] for text in on_cpu.choices] == ["one by one"]
        _as_on_cuda(monkeypatch)
        decoder = Decoder(network)
        states = decoder(ids, positions, segments)[0]
    assert runs_in_segments(network) and [text.split(" ")[0] for text in decoder.choices] == ["flex"]
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


def test_a_family_whose_trial_differs_stays_with_its_own_attention(monkeypatch):
    network = _network("gemma2")
    attention = network.model.layers[0].self_attn
    plain = attention.forward
    attention.forward = lambda hidden_states, **rest: plain(hidden_states=hidden_states.cumsum(1), **rest)
    assert not flex_holds(network)
    assert network.config._attn_implementation == "eager"
    _as_on_cuda(monkeypatch)
    decoder = Decoder(network)
    with torch.no_grad():
        decoder(*_row(9, 14), [Segment(9), Segment(14)])
    assert decoder.choices == {"one by one (FlexAttention gave other hidden states when tried)": 1}


def test_the_next_token_of_a_family_in_flex_is_that_of_its_own_attention():
    network = _network("llama4_text")
    ids = _row(11)[0].tolist()
    expected, _ = Decoder(network).next_logits(ids)
    network.set_attn_implementation(NAME)
    decoder = Decoder(network)
    _, memory = decoder.next_logits(ids[:7])
    for tokens in range(8, 12):
        logits, memory = decoder.next_logits(ids[:tokens], memory)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_temperatures_by_place_in_the_row_are_run_one_by_one():
    config = AutoConfig.for_model("llama4_text", **(CHANGED["llama4_text"] | {"attn_temperature_tuning": True}))
    network = AutoModelForCausalLM.from_config(config)
    assert choose("cuda", BF16, family_of(network)).way is Way.alone
