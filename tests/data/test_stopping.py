"""The proof of end-of-turn: a model that has learnt eight answers by heart stops by itself after each."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from solar.config.data import Format, Packing, Task
from solar.data.encode.encode import Encoder
from solar.data.store.dataset import TokenDataset
from solar.network.decoder import Decoder
from solar.network.microbatch import from_rows

ANSWERS = ["Red.", "A blue one.", "Seven", "No idea, sorry.", "The first of May.", "Left, then right.", "Yes!", "Tea"]


@pytest.mark.parametrize("template", ["solar", "chatml"])
def test_overfit_eight_samples_and_generation_stops_by_itself(prepared, template):
    questions = [f"Question number {number}?" for number in range(len(ANSWERS))]
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in zip(questions, ANSWERS, strict=True)
    ]
    found = prepared(rows, Format.messages, template, task=Task.instruct, packing=Packing.best_fit, sequence_length=96)
    data = TokenDataset(found.folder, "train")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    decoder = Decoder(model)
    rows = [data[number] for number in range(len(data))]
    assert any(len(row.document_lengths) > 1 for row in rows)
    batch = from_rows(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = decoder.head.loss_sum(decoder.trained_states(batch), batch.targets_N)[0] / batch.trained_tokens
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02
    encoder = Encoder(found.tokenizer)
    stops = encoder.end_of_turn_ids()
    for question, answer in zip(questions, ANSWERS, strict=True):
        prompt = torch.tensor([encoder.prompt([{"role": "user", "content": question}])])
        with torch.no_grad():
            written = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False, eos_token_id=stops,
                pad_token_id=data.header.pad_id,
            )[0, prompt.shape[1] :]  # fmt: skip
        assert written[-1].item() in stops and len(written) < 40
        assert found.tokenizer.decode(written[:-1]) == answer
