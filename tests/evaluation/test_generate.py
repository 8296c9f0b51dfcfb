"""Text comes a token at a time, and is the text that plain transformers writes."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from solar.errors import StageError
from solar.evaluation.choices import log_likelihoods
from solar.evaluation.generate import generate, words
from solar.network.loading import load_decoder
from tests.growth.tiny import FAMILIES, make_tiny


def test_the_likeliest_text_is_that_of_transformers(stories, plain_stories):
    decoder, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    theirs = plain_stories.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None)
    assert list(generate(decoder, prompt, [], 40)) == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "modernbert-decoder"])
def test_greedy_text_of_every_family_is_that_of_transformers_without_a_cache(family, tmp_path):
    """Prompt and answer are longer than the windows of the tiny models, which span 4 tokens."""
    plain = AutoModelForCausalLM.from_pretrained(make_tiny(family, tmp_path)).eval()
    ids = [5, 17, 3, 60, 41, 8, 77, 30]
    expected = []
    with torch.no_grad():
        for _ in range(12):
            logits_V = plain(torch.tensor([ids + expected]), use_cache=False).logits[0, -1]
            if (token := int(logits_V.argmax())) == plain.generation_config.eos_token_id:
                break
            expected.append(token)
    assert list(generate(load_decoder(tmp_path), ids, [], 12)) == expected


def test_a_prompt_with_a_token_that_has_no_embedding_is_refused(stories):
    with pytest.raises(StageError, match="the tokenizer gives token 600, but the model has embeddings for 0 to 511"):
        list(generate(stories[0], [1, 600], [], 3))


def test_writing_ends_at_each_token_that_the_generation_config_names(stories):
    decoder, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    whole = list(generate(decoder, prompt, [], 30))
    named = decoder.network.generation_config.eos_token_id
    decoder.network.generation_config.eos_token_id = [named, whole[10]]
    try:
        assert list(generate(decoder, prompt, [], 30)) == whole[: whole.index(whole[10])]
    finally:
        decoder.network.generation_config.eos_token_id = named


def test_a_model_whose_logits_are_no_numbers_is_refused(tmp_path):
    decoder = load_decoder(make_tiny("llama", tmp_path))
    next(iter(decoder.network.model.layers[1].mlp.parameters())).fill_(float("nan"))
    with pytest.raises(StageError, match="the model's logits are not finite"):
        list(generate(decoder, [5, 17], [], 3))
    with pytest.raises(StageError, match="log-probabilities of answers are no numbers"):
        log_likelihoods(decoder, [([5], [17])])


def test_the_same_seed_draws_the_same_text_and_another_seed_another(stories):
    decoder, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    first, again, other = (list(generate(decoder, prompt, [], 40, 1.0, 1.0, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_tiny_top_p_leaves_only_the_likeliest_token(stories):
    decoder, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    assert list(generate(decoder, prompt, [], 20, 1.0, 1e-6)) == list(generate(decoder, prompt, [], 20))


def test_top_p_draws_only_from_the_tokens_that_reach_it():
    from solar.evaluation.generate import _choose

    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    draw = torch.Generator().manual_seed(0)
    assert {_choose(logits, 1.0, 0.6, draw) for _ in range(200)} == {0, 1}


def test_writing_ends_before_a_stop_token_and_at_the_last_position(stories):
    decoder, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    whole = list(generate(decoder, prompt, [], 30))
    assert list(generate(decoder, prompt, [whole[10]], 30)) == whole[: whole.index(whole[10])]
    long = tokenizer.encode("Lily played. " * 400)
    assert len(list(generate(decoder, long, [], 10))) == 10
    assert len(list(generate(decoder, long, [], 10_000))) == decoder.max_positions - 1


def test_words_join_to_the_text_and_never_split_a_character(stories):
    _, tokenizer = stories
    prompt = tokenizer.encode("She said")
    text = "She said hello é 東京!"
    ids = tokenizer.encode(text)[len(prompt) :]
    parts = list(words(tokenizer, ids, prompt))
    assert "".join(parts) == " hello é 東京!"
    assert len(parts) > 3 and not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)
