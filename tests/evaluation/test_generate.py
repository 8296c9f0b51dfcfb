"""Text comes a token at a time, the same as the library would write."""

import torch

from solar.evaluation.generate import generate, words


def test_the_likeliest_text_is_that_of_transformers(stories):
    model, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    theirs = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None)
    assert list(generate(model, prompt, [], 40)) == theirs[0, len(prompt) :].tolist()


def test_the_same_seed_draws_the_same_text_and_another_seed_another(stories):
    model, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    first, again, other = (list(generate(model, prompt, [], 40, 1.0, 1.0, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_tiny_top_p_leaves_only_the_likeliest_token(stories):
    model, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    assert list(generate(model, prompt, [], 20, 1.0, 1e-6)) == list(generate(model, prompt, [], 20))


def test_top_p_draws_only_from_the_tokens_that_reach_it():
    from solar.evaluation.generate import _choose

    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    draw = torch.Generator().manual_seed(0)
    assert {_choose(logits, 1.0, 0.6, draw) for _ in range(200)} == {0, 1}


def test_writing_ends_before_a_stop_token_and_at_the_last_position(stories):
    model, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    whole = list(generate(model, prompt, [], 30))
    assert list(generate(model, prompt, [whole[10]], 30)) == whole[: whole.index(whole[10])]
    long = tokenizer.encode("Lily played. " * 400)
    assert len(list(generate(model, long, [], 10))) == 10
    assert len(list(generate(model, long, [], 10_000))) == model.config.max_position_embeddings - 1


def test_words_join_to_the_text_and_never_split_a_character(stories):
    _, tokenizer = stories
    prompt = tokenizer.encode("She said")
    text = "She said hello é 東京!"
    ids = tokenizer.encode(text)[len(prompt) :]
    parts = list(words(tokenizer, ids, prompt))
    assert "".join(parts) == " hello é 東京!"
    assert len(parts) > 3 and not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)
