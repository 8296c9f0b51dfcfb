"""Preference optimization: an exact start, the right reference, and the same answers however a step is cut."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import llama, llama_folder, pair, row, settings, train_rows
from transformers import LlamaForCausalLM

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.preference import DpoConfig, PreferenceLoss
from solar.errors import StageError
from solar.stages import dpo
from solar.training.preference import module as preference
from solar.training.preference.module import PreferenceOptimization
from solar.training.preference.reference import compute_reference

PAIRS = [pair(3 + n % 4, 2 + n % 5, 6 - n % 4, seed=n, sample=n) for n in range(10)]


def _config(**changes):
    fields = {"duration": "1 epoch", "reference": "base", "loss": PreferenceLoss.sigmoid, "beta": 0.1} | changes
    return DpoConfig(**settings(**fields))


def _run(tmp_path, name, config=None, module=PreferenceOptimization, reference=None, **trainer):
    base, data = tmp_path / "base", tmp_path / "data"
    if not base.exists():
        llama_folder(base)
        data.mkdir()
    make = partial(module, model_dir=base, reference_dir=reference or base, data_dir=data)
    call = dict(module=make, held_out=PAIRS[:3], **trainer)
    metrics, built = train_rows(PAIRS, config or _config(), base, tmp_path / name, **call)
    return metrics, built, load_file(tmp_path / name / "reference.safetensors")


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
def test_the_first_loss_is_exactly_ln_2_and_the_first_margin_exactly_0(tmp_path, micro_batch_size):
    metrics, _, _ = _run(tmp_path, "out", micro_batch_size=micro_batch_size)
    assert metrics["margin_first"] == 0.0 and metrics["valid_margin_first"] == 0.0
    assert metrics["loss_first"] == metrics["valid_loss_first"] == torch.tensor(math.log(2)).item()


def test_a_rank_that_sees_the_reference_file_computes_again_with_a_rank_that_does_not(tmp_path, monkeypatch):
    """A shared disk may show a file late, and the ranks add up what each computed."""
    requests, computed = [], []

    class BesideABlindRank(PreferenceOptimization):
        def any_rank(self, raised):
            requests.append(list(raised))
            return [True] if len(raised) == 1 else super().any_rank(raised)

    def counted(*arguments):
        computed.append(arguments)
        return compute_reference(*arguments)

    _run(tmp_path, "out")
    monkeypatch.setattr(preference, "compute_reference", counted)
    before = (tmp_path / "out/reference.safetensors").read_bytes()
    _run(tmp_path, "out", module=BesideABlindRank)
    assert requests[0] == [False] and len(computed) == 1
    assert (tmp_path / "out/reference.safetensors").read_bytes() == before


def test_training_separates_the_answers(tmp_path):
    metrics, _, _ = _run(tmp_path, "out", _config(duration="12 epochs"))
    assert metrics["loss_last"] < 0.4 and metrics["accuracy_last"] > 0.9
    assert metrics["margin_last"] == pytest.approx(metrics["chosen_reward_last"] - metrics["rejected_reward_last"])


def _alone(model, ids, prompt):
    logits = model(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0].log_softmax(-1)
    return sum(logits[at - 1, ids[at]].item() for at in range(prompt, len(ids)))


def test_the_reference_is_that_of_each_answer_computed_alone(tmp_path):
    _, _, cached = _run(tmp_path, "out")
    model = llama().eval()
    for item, values in zip(PAIRS, cached["train"], strict=True):
        split = item.document_lengths[0]
        prompt = int((item.labels[:split] == -100).sum())
        expected = [_alone(model, ids, prompt) for ids in (item.input_ids[:split], item.input_ids[split:])]
        assert values.tolist() == pytest.approx(expected, rel=1e-5)


def test_logged_numbers_are_those_of_the_saved_model_on_each_answer_alone(tmp_path):
    other = llama_folder(tmp_path / "other", seed=3)
    metrics, _, _ = _run(tmp_path, "out", _config(duration="2 steps"), reference=other)
    policy = LlamaForCausalLM.from_pretrained(tmp_path / "out" / "model").eval()
    pairs = []
    for item in PAIRS[:3]:
        split = item.document_lengths[0]
        prompt = int((item.labels[:split] == -100).sum())
        answers = item.input_ids[:split], item.input_ids[split:]
        logps = [[_alone(model, ids, prompt) for ids in answers] for model in (policy, llama(seed=3).eval())]
        pairs.append((*logps[0], *logps[1], *(len(ids) - prompt for ids in answers)))
    chosen, rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens = np.array(pairs).T
    chosen_ratio, rejected_ratio = chosen - reference_chosen, rejected - reference_rejected
    margin = 0.1 * (chosen_ratio - rejected_ratio)
    ratios = np.concatenate([chosen_ratio / chosen_tokens, rejected_ratio / rejected_tokens])
    expected = {
        "loss": np.log1p(np.exp(-margin)),
        "accuracy": margin > 0,
        "margin": margin,
        "chosen_logps": chosen,
        "rejected_logps": rejected,
        "chosen_tokens": chosen_tokens,
        "rejected_tokens": rejected_tokens,
        "chosen_reward": 0.1 * chosen_ratio,
        "rejected_reward": 0.1 * rejected_ratio,
        "chosen_fell": chosen_ratio < 0,
        "kl_per_token": np.exp(-ratios) - 1 + ratios,
    }
    assert len(set(chosen_ratio < 0)) == 2  # some fell, some did not
    for name, values in expected.items():
        assert metrics[f"valid_{name}_last"] == pytest.approx(values.mean(), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(
    ("fell", "message"), [(0.51, "chosen answers of 51% of the pairs became less likely"), (0.5, "")]
)
def test_held_out_answers_that_became_less_likely_raise_the_alarm(tmp_path, monkeypatch, fell, message):
    measured = {"chosen_fell_last": 0.0, "valid_chosen_fell_last": fell}
    monkeypatch.setattr(dpo, "fit", lambda *parts: measured)
    inputs = {name: SimpleNamespace(path=tmp_path) for name in ("base", "data")}
    fields = dpo.run(_config(), inputs, tmp_path, SimpleNamespace()).get("summary", "")
    assert fields.startswith(message) and bool(fields) == bool(message)


def test_the_stage_hands_each_role_the_folder_of_its_own_stage(tmp_path, monkeypatch):
    made = {}
    monkeypatch.setattr(dpo, "fit", lambda module, *parts: made.update(module=module, parts=parts) or {})
    names = {"model": "sft", "reference": "frozen", "data": "pairs", "logps": "passed"}
    inputs = {name: SimpleNamespace(path=tmp_path / name) for name in names.values()}
    dpo.run(_config(**names), inputs, tmp_path / "out", SimpleNamespace())
    assert made["module"].keywords == {
        "model_dir": tmp_path / "sft/model",
        "reference_dir": tmp_path / "frozen/model",
        "data_dir": tmp_path / "pairs",
        "logps_dir": tmp_path / "passed",
    }
    assert made["parts"][1:4] == (tmp_path / "sft/model", tmp_path / "pairs", tmp_path / "out")


def test_the_reference_has_no_dropout_and_is_not_the_policy_after_training(tmp_path):
    _, _, expected = _run(tmp_path, "quiet")
    noisy = llama_folder(tmp_path / "noisy", attention_dropout=0.5)
    metrics, built, actual = _run(tmp_path, "loud", reference=noisy)
    assert torch.equal(expected["train"], actual["train"]) and torch.equal(expected["valid"], actual["valid"])
    assert built.reference is not None and torch.equal(built.reference.train, actual["train"])
    assert metrics["margin_last"] != 0


def test_another_reference_is_not_mistaken_for_the_policy(tmp_path):
    other = llama_folder(tmp_path / "other", seed=9)
    metrics, _, actual = _run(tmp_path, "out", reference=other)
    assert metrics["margin_first"] != 0 and not torch.equal(actual["train"], _run(tmp_path, "own")[2]["train"])


def test_a_stale_reference_is_refused_and_says_what_differs(tmp_path):
    _run(tmp_path, "out")
    other = llama_folder(tmp_path / "other", seed=9)
    with pytest.raises(StageError, match=r"reference\.safetensors: made for another reference \(model: found"):
        _run(tmp_path, "out", reference=other)


class Keeping(PreferenceOptimization):
    def _clip(self):
        self.kept = {name: p.grad.clone() for name, p in self.network.named_parameters()}
        return super()._clip()


@pytest.mark.parametrize("loss", list(PreferenceLoss))
def test_gradients_do_not_depend_on_how_a_step_is_cut(tmp_path, loss):
    """T-B3."""
    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-12, [0.9, 0.95], 1e-8, 0.0, 0.0)
    config = _config(duration="1 steps", global_batch_size=10, optimizer=optimizer, loss=loss, alpha=0.5)
    base, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    kept = []
    for size in (10, 3, 1):
        make = partial(Keeping, model_dir=base, reference_dir=base, data_dir=data)
        kept.append(train_rows(PAIRS, config, base, tmp_path / str(size), module=make, micro_batch_size=size)[1].kept)
    for name, gradient in kept[0].items():
        for other in kept[1:]:
            assert (gradient - other[name]).norm() <= 2e-6 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("loss", [PreferenceLoss.simpo, PreferenceLoss.orpo])
def test_a_loss_without_a_reference_computes_none(tmp_path, loss):
    base, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    make = partial(PreferenceOptimization, model_dir=base, reference_dir=base, data_dir=data)
    config = _config(loss=loss, duration="8 epochs")
    metrics, _ = train_rows(PAIRS, config, base, tmp_path / "out", module=make)
    assert not (tmp_path / "out/reference.safetensors").exists()
    assert metrics["loss_last"] < metrics["loss_first"]
    assert metrics["accuracy_last"] > metrics["accuracy_first"]
    assert not {"chosen_fell_last", "kl_per_token_last", "chosen_reward_last"} & metrics.keys()


def test_rows_that_are_not_pairs_are_not_trained_as_pairs(tmp_path):
    base, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    make = partial(PreferenceOptimization, model_dir=base, reference_dir=base, data_dir=data)
    with pytest.raises(AssertionError, match="a pair is two documents"):
        train_rows([row(5, seed=1)] * 4, _config(), base, tmp_path / "out", module=make)
