"""Answers score what plain transformers gives each of them alone, whatever the batch."""

import json

import pytest
import torch

from solar.errors import DataError, StageError
from solar.evaluation import choices
from solar.evaluation.choices import Question, accuracy, encode, log_likelihoods, read_questions

CONTEXT = "Once upon a time, there was a little girl named Lily. She loved to play"
QUESTIONS = [
    Question(
        context=CONTEXT,
        choices=[" my of inside was at.", " outside in the park.", " park the in outside.", " with said."],
        answer=1,
    ),
    Question(context="Tom had a big red ", choices=["ball.", "was.", "from."], answer=0),
    Question(context="One day,", choices=[" Tom", " and and", " he", "!"], answer=3),
]


def alone(plain, prompt, answer):
    """Log-likelihood of an answer the plain way: no batch, all logits."""
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        logps = plain(ids, use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logps[len(prompt) + place - 1, token]) for place, token in enumerate(answer))


def test_each_answer_scores_in_a_batch_what_plain_transformers_gives_it_alone(stories, plain_stories, monkeypatch):
    decoder, tokenizer = stories
    pairs = encode(tokenizer, QUESTIONS)
    expected = [alone(plain_stories, *pair) for pair in pairs]
    for bound in (1, 60, 4096):
        monkeypatch.setitem(choices.TOKENS_AT_ONCE, "cpu", bound)
        assert log_likelihoods(decoder, pairs) == pytest.approx(expected, abs=1e-4)


def test_scores_are_those_of_lm_evaluation_harness(stories, plain_stories):
    pytest.importorskip("lm_eval.models.huggingface", reason="the extra eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    decoder, tokenizer = stories
    reader = HFLM(pretrained=plain_stories, tokenizer=tokenizer, batch_size=2, add_bos_token=True)
    texts = [(question.context, choice) for question in QUESTIONS for choice in question.choices]
    theirs = reader.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in texts], disable_tqdm=True)
    ours = log_likelihoods(decoder, encode(tokenizer, QUESTIONS))
    assert ours == pytest.approx([score for score, _ in theirs], abs=1e-3)


def test_accuracy_error_and_chance_are_worked_by_hand(stories, monkeypatch):
    sums = iter([-9.0, -3.0, -4.0, -5.0, -2.0, -1.0, -8.0, -1.0, -2.0, -3.0, -4.0])
    monkeypatch.setattr(choices, "log_likelihoods", lambda decoder, pairs: sums)
    scores = accuracy(*stories, QUESTIONS)
    # The likeliest are 1, 1 and 0: one of three is right, so sqrt(1/3 * 2/3 / 2) is the error.
    assert scores["choice_accuracy"] == pytest.approx(1 / 3)
    assert scores["choice_stderr"] == pytest.approx(1 / 3)
    assert scores["choice_chance"] == pytest.approx((1 / 4 + 1 / 3 + 1 / 4) / 3)
    assert scores["choice_questions"] == 3


def test_normalising_by_length_can_change_the_answer(monkeypatch):
    question = Question(context="a", choices=["long answer", "no"], answer=0)  # -0.5 and -1 a character
    monkeypatch.setattr(choices, "log_likelihoods", lambda decoder, pairs: [-5.5, -2.0])
    monkeypatch.setattr(choices, "encode", lambda tokenizer, questions: [])
    scores = accuracy(None, None, [question])
    assert (scores["choice_accuracy"], scores["choice_accuracy_normalised"]) == (0.0, 1.0)


def test_a_model_of_stories_knows_how_they_go_on(stories):
    assert accuracy(*stories, QUESTIONS[:2])["choice_accuracy"] == 1.0


def test_conversations_are_rendered_as_in_training_and_the_stop_is_not_scored(stories):
    from copy import deepcopy

    from solar.data.encode.encode import Encoder
    from solar.data.encode.templates import TEMPLATES

    tokenizer = deepcopy(stories[1])
    tokenizer.chat_template = TEMPLATES["zephyr"]
    messages = [{"role": "user", "content": "Who is Lily?"}]
    question = Question(messages=messages, choices=["A girl.", "A red ball"], answer=0)
    for (prompt, answer), choice in zip(encode(tokenizer, [question]), question.choices, strict=True):
        assert prompt == Encoder(tokenizer).prompt(messages)
        assert tokenizer.decode(answer).strip() == choice


def test_a_conversation_without_a_template_is_plain_text(stories):
    _, tokenizer = stories
    question = Question(messages=[{"role": "user", "content": "Who is Lily?"}], choices=["A girl."], answer=0)
    ((prompt, answer),) = encode(tokenizer, [question])
    assert tokenizer.decode(prompt + answer, skip_special_tokens=True) == "Who is Lily?\nA girl."


def test_a_prompt_longer_than_the_model_loses_its_start(stories, plain_stories):
    decoder, tokenizer = stories
    longest = plain_stories.config.max_position_embeddings
    prompt = tokenizer.encode("Lily played. " * 400)
    answer = tokenizer.encode(" Lily", add_special_tokens=False)
    assert len(prompt) > longest
    expected = alone(plain_stories, prompt[-(longest + 1 - len(answer)) :], answer)
    assert log_likelihoods(decoder, [(prompt, answer)]) == pytest.approx([expected], abs=1e-4)


def test_an_answer_longer_than_the_model_loses_its_start_too(stories, plain_stories):
    decoder, tokenizer = stories
    longest = plain_stories.config.max_position_embeddings
    ids = tokenizer.encode("Lily played. " * 400)
    kept = ids[-(longest + 1) :]
    expected = alone(plain_stories, kept[:1], kept[1:])
    assert log_likelihoods(decoder, [(ids[:3], ids[3:])]) == pytest.approx([expected], rel=1e-5)


def test_a_token_without_an_embedding_is_refused_with_the_range(stories):
    with pytest.raises(StageError, match="the tokenizer gives token 512, but the model has embeddings for 0 to 511"):
        log_likelihoods(stories[0], [([1, 2], [512])])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "choices.jsonl:2: no question"),
        ({"choices": ["a"], "answer": 0}, "choices.jsonl:2: has both or neither of messages and context"),
        ({"context": "x", "choices": ["a"], "answer": 1}, "choices.jsonl:2: answer 1 is not one of 1 choices"),
        ({"context": "x", "choices": ["a"], "answer": 0, "hint": 1}, "choices.jsonl:2: no question"),
    ],
)
def test_a_line_that_is_no_question_is_named_by_its_number(tmp_path, row, message):
    good = json.dumps({"context": "x", "choices": ["a"], "answer": 0})
    bad = row if isinstance(row, str) else json.dumps(row)
    (tmp_path / "choices.jsonl").write_text(f"{good}\n{bad}\n")
    with pytest.raises(DataError, match=message):
        read_questions(tmp_path)


def test_the_limit_holds_for_each_task(tmp_path):
    rows = [{"task": task, "context": "x", "choices": ["a"], "answer": 0} for task in ("b", "b", "c", "b", "c")]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [question.task for question in read_questions(tmp_path, at_most=1)] == ["b", "c"]


def test_each_task_has_a_share_of_its_own(monkeypatch):
    questions = [Question(["a", "b"], 0, context="x", task=task) for task in ("easy", "easy", "hard", "hard")]
    # Right, right, right, wrong by the larger of each two sums.
    monkeypatch.setattr(choices, "log_likelihoods", lambda decoder, pairs: [-1, -2, -1, -2, -1, -2, -2, -1])
    monkeypatch.setattr(choices, "encode", lambda tokenizer, questions: [])
    scores = accuracy(None, None, questions)
    assert (scores["accuracy_easy"], scores["accuracy_hard"], scores["choice_accuracy"]) == (1.0, 0.5, 0.75)


def test_no_questions_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"has no choices\.jsonl"):
        read_questions(tmp_path)
    (tmp_path / "choices.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_questions(tmp_path)
