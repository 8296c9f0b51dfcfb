"""Counted operations against torch's own counter."""

import pytest
import torch
from tiny import llama, pair, row
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from solar.network.attention import NAME, Segment
from solar.network.decoder import Decoder
from solar.network.head import read_head
from solar.network.microbatch import from_pairs, from_rows
from solar.training.modules.flops import Work, body_parameters
from tests.growth.tiny import make_tiny


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_by_hand(tied):
    # a layer: q and o 32 x 32, k and v 32 x 16, three of 32 x 64
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    assert body_parameters(llama(tie_word_embeddings=tied)) == 2 * layer


def test_attention_by_hand():
    # 3 tokens see 1 + 2 + 3 keys; 2 more see 1 + 2; two products of 2 x 8 x 4 heads each, in 2 layers
    assert Work(llama()).attention(from_rows([row(3, 2)]).segments) == 2 * 2 * 2 * 4 * 8 * (6 + 3)


def test_layers_whose_heads_differ_in_size_are_counted_each_by_its_own(tmp_path):
    """Gemma 4: every sixth layer and the last have heads of 16 and see all 6 pairs of 3 tokens; the others of 8."""
    network = AutoModelForCausalLM.from_pretrained(make_tiny("gemma4_text", tmp_path))
    full = network.config.layer_types.count("full_attention")
    assert 0 < full < 8
    assert Work(network).attention([Segment(3)]) == 4 * 4 * (full * 16 + (8 - full) * 8) * 6


@pytest.mark.parametrize("assemble,rows", [(from_rows, [row(40, 24)]), (from_pairs, [pair(20, 12, 9)])])
def test_torch_counts_the_same_matrix_products(assemble, rows):
    network = llama()
    network.set_attn_implementation(NAME)
    batch = assemble(rows)
    with FlopCounterMode(display=False) as counter:
        hidden = Decoder(network)(batch.input_ids_T, batch.position_ids_T, batch.segments)[0][batch.positions_N]
        loss = read_head(network).loss_sum(hidden, batch.targets_N)[0]
        loss.backward()
    counts = counter.get_flop_counts()["Global"]
    matrices = sum(count for kind, count in counts.items() if kind is not torch.ops.aten.scaled_dot_product_attention)
    attention = sum(count for kind, count in counts.items() if "attention" in str(kind))
    unseen = 2 * 97 * 32 * batch.trained_tokens  # the head's gradient is an addmm_, which torch does not count
    ours = Work(network).flops(batch.segments, batch.trained_tokens)
    assert ours - 3 * Work(network).attention(batch.segments) == matrices - attention + unseen
