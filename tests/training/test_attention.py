"""Documents of one row never see each other, and a prompt shared by two answers counts as if each had its own."""

import numpy as np
import pytest
import torch
from tiny import TinyRow, llama, pair, row
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from solar.network.attention import NAME, Segment
from solar.network.decoder import Decoder
from solar.network.microbatch import from_pairs, from_rows, shared_prompt


def _mistral(window):
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return MistralForCausalLM(
        MistralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, sliding_window=window)
    )


def _qwen2():
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2))


def hidden_states(model, *batch):
    return Decoder(model)(*batch)[0]


MODELS = {
    "llama": llama,
    "mistral, window 5": lambda: _mistral(5),
    "mistral": lambda: _mistral(None),
    "qwen2": _qwen2,
}


def _alone(model, ids):
    """Hidden states of one document by the model's own eager attention."""
    model.set_attn_implementation("eager")
    hidden = model.base_model(input_ids=torch.as_tensor(ids)[None], use_cache=False).last_hidden_state[0]
    model.set_attn_implementation(NAME)
    return hidden


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_document_is_as_if_alone(name):
    model = MODELS[name]().eval()
    batch = from_rows([row(9, 4, 4, seed=1), row(1, 12, seed=2)])
    model.set_attn_implementation(NAME)
    packed = hidden_states(model, batch.input_ids_T, batch.position_ids_T, batch.segments)
    start = 0
    for segment in batch.segments:
        part = slice(start, start + segment.length)
        torch.testing.assert_close(packed[part], _alone(model, batch.input_ids_T[part]), rtol=1e-5, atol=1e-5)
        start += segment.length


@pytest.mark.parametrize("name", MODELS)
def test_changing_one_document_changes_no_other_by_a_bit(name):
    model = MODELS[name]().eval()
    model.set_attn_implementation(NAME)
    first, second = from_rows([row(9, 6, 7)]), from_rows([row(9, 6, 7)])
    second.input_ids_T[9:15] = (second.input_ids_T[9:15] + 1) % 97
    one = hidden_states(model, first.input_ids_T, first.position_ids_T, first.segments)
    two = hidden_states(model, second.input_ids_T, second.position_ids_T, second.segments)
    assert torch.equal(one[:9], two[:9]) and torch.equal(one[15:], two[15:])
    assert not torch.equal(one[9:15], two[9:15])


@pytest.mark.parametrize("name", MODELS)
def test_a_shared_prompt_gives_both_answers_the_same_hidden_states_as_a_prompt_each(name):
    model = MODELS[name]().eval()
    model.set_attn_implementation(NAME)
    rows = [pair(8, 5, 3, seed=1), pair(2, 6, 6, seed=2), pair(11, 1, 4, seed=3)]
    shared, apart = from_pairs(rows), from_rows(rows)
    assert sum(s.length for s in shared.segments) == sum(s.length for s in apart.segments) - 7 - 1 - 10
    one = hidden_states(model, shared.input_ids_T, shared.position_ids_T, shared.segments)[shared.positions_N]
    two = hidden_states(model, apart.input_ids_T, apart.position_ids_T, apart.segments)[apart.positions_N]
    assert torch.equal(shared.targets_N, apart.targets_N) and torch.equal(shared.answers_N, apart.answers_N)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_gradients_through_a_shared_prompt_equal_those_of_a_prompt_each():
    rows = [pair(8, 5, 3, seed=1), pair(4, 6, 2, seed=2)]
    gradients = []
    for assemble in (from_pairs, from_rows):
        model = llama().double()
        model.set_attn_implementation(NAME)
        batch = assemble(rows)
        hidden = hidden_states(model, batch.input_ids_T, batch.position_ids_T, batch.segments)[batch.positions_N]
        (hidden.square() * torch.arange(len(hidden))[:, None]).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-5)


def test_answers_that_begin_alike_share_no_answer_token():
    ids = np.array([1, 2, 3, 4, 5, 1, 2, 3, 4, 6])
    labels = np.array([-100, -100, 3, 4, 5, -100, -100, 3, 4, 6])
    assert shared_prompt(TinyRow(ids, labels, [5, 5], [0, 0])) == 1


def test_prompts_that_were_cut_differently_share_what_is_equal():
    ids = np.array([1, 2, 3, 9, 1, 7, 3, 8])
    labels = np.array([-100, -100, -100, 9, -100, -100, -100, 8])
    assert shared_prompt(TinyRow(ids, labels, [4, 4], [0, 0])) == 0


def test_positions_and_targets_by_hand():
    batch = from_rows([TinyRow(np.array([5, 6, 7, 8, 9]), np.array([-100, 6, 7, -100, 9]), [3, 2], [4, 7])])
    assert batch.position_ids_T.tolist() == [0, 1, 2, 0, 1]
    assert batch.positions_N.tolist() == [0, 1, 3] and batch.targets_N.tolist() == [6, 7, 9]
    assert batch.answers_N.tolist() == [0, 0, 1] and batch.sample_ids == [4, 7]
    assert batch.segments == [Segment(3), Segment(2)] and batch.tokens == 5


def test_the_last_token_of_a_document_predicts_nothing_even_where_all_labels_are_set():
    ids = np.array([1, 2, 3, 4, 5])
    batch = from_rows([TinyRow(ids, ids.copy(), [3, 2], [0, 1])])
    assert batch.positions_N.tolist() == [0, 1, 3] and batch.targets_N.tolist() == [2, 3, 5]
