"""One optimizer step: the loss of every trained token counts the same, however the step is cut."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import Place, llama, llama_folder, row, settings, train_rows
from torch.utils.flop_counter import FlopCounterMode

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.training import Precision, PretrainConfig, SftConfig
from solar.network.microbatch import from_rows
from solar.training.batches.steps import Step
from solar.training.modules.compilation import compile_layers
from solar.training.modules.next_token import ContinuedPretraining, InstructionTuning
from solar.training.modules.recomputation import recompute_activations

UNEQUAL = [row(3, seed=1), row(17, 5, seed=2), row(2, seed=3), row(11, seed=4)]
MASKED = [row(9, seed=1), row(12, seed=2, prompt=1.0), row(8, seed=3, prompt=1.0), row(10, seed=4)]


class Keeping(ContinuedPretraining):
    """Keeps the gradients of every step, as they are before clipping."""

    def _clip(self):
        self.kept = {name: p.grad.clone() for name, p in self.network.named_parameters()}
        return super()._clip()


def _gradients(tmp_path, rows, micro_batch_size, **changes):
    folder = tmp_path / "base"
    if not folder.exists():
        llama_folder(folder)
    config = PretrainConfig(**settings(duration="1 epoch", **changes))
    name = f"out-{micro_batch_size}-{len(list(tmp_path.iterdir()))}"
    metrics, module = train_rows(
        rows, config, folder, tmp_path / name, module=Keeping, micro_batch_size=micro_batch_size
    )
    return metrics, module.kept


def _assert_equal(left, right):
    """To 1e-6 of the norm of each tensor's gradient."""
    for name, gradient in left.items():
        difference = (gradient - right[name]).norm()
        assert difference <= 1e-6 * gradient.norm() + 1e-9, f"{name}: {difference} of {gradient.norm()}"


@pytest.mark.parametrize("rows", [UNEQUAL, MASKED], ids=["unequal lengths", "a masked micro-batch"])
def test_gradients_do_not_depend_on_how_a_step_is_cut(tmp_path, rows):
    """T-B3."""
    whole, expected = _gradients(tmp_path, rows, 4)
    for size in (1, 2, 3):
        cut, actual = _gradients(tmp_path, rows, size)
        assert cut["loss_first"] == pytest.approx(whole["loss_first"], rel=1e-6)
        _assert_equal(expected, actual)


def test_the_gradient_is_that_of_transformers_own_mean_loss(tmp_path):
    """T-B3."""
    metrics, actual = _gradients(tmp_path, UNEQUAL, 1)
    model = llama()
    total = sum(int((item.labels != -100).sum()) for item in UNEQUAL)
    losses = []
    for item in UNEQUAL:
        start = 0
        for length in item.document_lengths:
            ids = torch.as_tensor(item.input_ids[start : start + length])[None]
            start += length
            losses.append(model(input_ids=ids, labels=ids).loss * (length - 1))
    loss = torch.stack(losses).sum() / total
    loss.backward()
    assert metrics["loss_first"] == pytest.approx(loss.item(), rel=1e-6)
    _assert_equal({name: p.grad for name, p in model.named_parameters()}, actual)


def test_z_loss_joins_the_gradient_and_the_loss_and_leaves_held_out_text_alone(tmp_path):
    held_out = [row(20, seed=9)]
    llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="1 epoch", z_loss=0.5))
    metrics, module = train_rows(
        UNEQUAL, config, tmp_path / "base", tmp_path / "out", module=Keeping, held_out=held_out
    )
    model = llama()
    losses, penalties = [], []
    for item in UNEQUAL:
        start = 0
        for length in item.document_lengths:
            ids = torch.as_tensor(item.input_ids[start : start + length])[None]
            start += length
            logits = model(input_ids=ids).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            penalties.append(0.5 * logits.logsumexp(-1).square().sum())
    total = sum(int((item.labels != -100).sum()) for item in UNEQUAL)
    penalty = torch.stack(penalties).sum() / total
    loss = torch.stack(losses).sum() / total + penalty
    loss.backward()
    assert metrics["loss_first"] == pytest.approx(loss.item(), rel=1e-6)
    assert module.record["z_loss"] == pytest.approx(penalty.item(), rel=1e-5)
    _assert_equal({name: p.grad for name, p in model.named_parameters()}, module.kept)
    ids = torch.as_tensor(held_out[0].input_ids)[None]
    assert metrics["valid_loss_first"] == pytest.approx(llama()(input_ids=ids, labels=ids).loss.item(), rel=1e-6)


def test_a_micro_batch_without_rows_adds_nothing_to_the_counts(tmp_path):
    """T-B3. Ranks that have nothing left to read keep step with the others on one token that trains nothing."""

    class Waiting(ContinuedPretraining):
        def training_step(self, step, batch_idx):
            super().training_step(
                Step([*step.micro_batches, from_rows([])], step.rows, step.tokens, step.trained_tokens), batch_idx
            )

    folder, config = llama_folder(tmp_path / "base"), PretrainConfig(**settings(duration="1 epoch"))
    plain, waiting = (
        train_rows(UNEQUAL, config, folder, tmp_path / module.__name__, module=module)[0]
        for module in (ContinuedPretraining, Waiting)
    )
    for counted in ("train_flops", "train_tokens", "loss_first"):
        assert plain[counted] == waiting[counted] > 0


def test_a_short_last_window_is_the_mean_of_its_own_tokens(tmp_path):
    """T-B3."""
    slow = OptimizerConfig(OptimizerName.adamw, 1e-12, [0.9, 0.95], 1e-8, 0.0, 0.0)
    _, actual = _gradients(tmp_path, UNEQUAL, 2, global_batch_size=3, optimizer=slow)
    _, expected = _gradients(tmp_path, UNEQUAL[3:], 2, global_batch_size=3, optimizer=slow)
    _assert_equal(expected, actual)


def test_prompt_tokens_carry_no_loss(tmp_path):
    rows = [row(12, seed=1, prompt=0.5), row(10, seed=2, prompt=0.5)]
    changed = [replace(item, labels=item.labels.copy()) for item in rows]
    folder = llama_folder(tmp_path / "base")
    config = SftConfig(**settings(duration="1 steps", global_batch_size=2))
    metrics, _ = train_rows(rows, config, folder, tmp_path / "a", module=InstructionTuning)
    model = llama()
    expected = 0.0
    for item in changed:
        ids, labels = torch.as_tensor(item.input_ids)[None], torch.as_tensor(item.labels)[None]
        expected += model(input_ids=ids, labels=labels).loss.item() * int((labels != -100).sum())
    assert metrics["loss_first"] == pytest.approx(expected / (6 + 5), rel=1e-5)


def test_the_norm_is_clipped_to_the_limit_and_logged_before(tmp_path):
    folder = llama_folder(tmp_path / "base")
    clipped = []

    class Watching(ContinuedPretraining):
        def _clip(self):
            norm = super()._clip()
            squares = [p.grad.square().sum() for p in self.network.parameters()]
            clipped.append((norm, torch.stack(squares).sum().sqrt().item()))
            return norm

    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.95], 1e-8, 0.0, 0.01)
    config = PretrainConfig(**settings(duration="2 steps", optimizer=optimizer))
    train_rows(UNEQUAL, config, folder, tmp_path / "out", module=Watching)
    assert all(before > 0.1 and after == pytest.approx(0.01, rel=1e-3) for before, after in clipped)


def test_the_step_is_taken_with_the_clipped_gradient(tmp_path):
    """One step, by transformers and torch alone; with this eps, AdamW's step grows with the gradient."""
    folder = llama_folder(tmp_path / "base")
    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-2, [0.9, 0.95], 1.0, 0.0, 0.01)
    config = PretrainConfig(**settings(duration="1 steps", optimizer=optimizer, global_batch_size=1))
    train_rows(UNEQUAL[:1], config, folder, tmp_path / "out")
    model = llama()
    ids = torch.as_tensor(UNEQUAL[0].input_ids)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1.0, weight_decay=0.0).step()
    moved = load_file(tmp_path / "out/model/model.safetensors")
    before = load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        step, expected = moved[name] - before[name], parameter.detach() - before[name]
        assert (step - expected).norm() <= 1e-2 * expected.norm(), name


def test_each_step_has_draws_of_its_own_which_the_seed_repeats(tmp_path):
    class Drawing(ContinuedPretraining):
        def loss_sum(self, batch):
            self.drawn = [*getattr(self, "drawn", []), torch.rand(1).item()]
            return super().loss_sum(batch)

    folder, drawn = llama_folder(tmp_path / "base"), {}
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = PretrainConfig(**settings(duration="3 steps", seed=seed))
        drawn[run] = train_rows(UNEQUAL, config, folder, tmp_path / run, module=Drawing, micro_batch_size=4)[1].drawn
    assert drawn["a"] == drawn["b"] and len({*drawn["a"], *drawn["c"]}) == 6


@pytest.mark.parametrize("precision", list(Precision))
def test_loss_falls_in_every_precision_and_the_saved_format_is_that_of_the_base(tmp_path, precision):
    """T-B5."""
    folder = llama_folder(tmp_path / "base")
    config = PretrainConfig(**settings(duration="30 steps", precision=precision))
    metrics, _ = train_rows(UNEQUAL, config, folder, tmp_path / "out", held_out=UNEQUAL)
    assert metrics["loss_last"] < metrics["loss_first"] - 1
    assert metrics["valid_loss_last"] < metrics["valid_loss_first"] - 1
    from safetensors.torch import load_file

    assert {tensor.dtype for tensor in load_file(tmp_path / "out/model/model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("selective", [False, True])
def test_recomputed_activations_change_no_gradient(tmp_path, selective):
    _, expected = _gradients(tmp_path, UNEQUAL, 2)

    class Recomputing(Keeping):
        def __init__(self, network, *rest):
            recompute_activations(network, selective)
            super().__init__(network, *rest)

    config = PretrainConfig(**settings(duration="1 epoch"))
    _, module = train_rows(UNEQUAL, config, tmp_path / "base", tmp_path / "again", module=Recomputing)
    _assert_equal(expected, module.kept)


def test_selective_recomputation_repeats_no_matrix_product():
    """A backward pass is twice the work of the forward pass. Full recomputation stops before a layer's last product.

    Weights of a layer: 32 x 32 and 32 x 16 twice each, and 32 x 64 three times; the last product is one of 32 x 64.
    """
    products = {}
    for name, selective in (("none", None), ("selective", True), ("full", False)):
        network = llama(num_hidden_layers=4).train()
        if selective is not None:
            recompute_activations(network, selective)
        with FlopCounterMode(display=False) as counter:
            network.model(input_ids=torch.arange(16)[None], use_cache=False).last_hidden_state.sum().backward()
        products[name] = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    assert products["selective"] == products["none"]
    assert products["full"] == pytest.approx(products["none"] * (1 + (9216 - 2048) / 9216 / 3))


def test_full_and_true_are_the_same_setting_and_others_are_refused():
    values = {"none": False, "full": True, "selective": "selective", True: True, False: False}
    for given, kept in values.items():
        config = PretrainConfig(**settings(activation_checkpointing=given))
        assert config.activation_checkpointing == kept and not list(config.problems())
    problems = list(PretrainConfig(**settings(activation_checkpointing="some")).problems())
    assert problems == ["activation_checkpointing: found some, expected none, selective or full"]


def test_the_peak_of_memory_is_at_least_the_weights_gradients_and_moments(tmp_path):
    config = PretrainConfig(**settings(duration="1 steps"))
    metrics, module = train_rows(UNEQUAL, config, llama_folder(tmp_path / "base"), tmp_path / "out")
    weights = sum(parameter.numel() for parameter in module.network.parameters())
    assert 4 * 4 * weights < metrics["peak_memory_bytes"] < 100e9


@pytest.mark.slow
def test_compiled_layers_have_the_loss_of_eager_layers(tmp_path):
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    eager, expected = _gradients(tmp_path, UNEQUAL, 2)

    class Compiled(Keeping):
        def __init__(self, network, *rest):
            compile_layers(network, replace(Place(tmp_path).trainer, compile=True))
            super().__init__(network, *rest)

    config = PretrainConfig(**settings(duration="1 epoch"))
    compiled, module = train_rows(UNEQUAL, config, tmp_path / "base", tmp_path / "again", module=Compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert compiled["loss_first"] == pytest.approx(eager["loss_first"], rel=1e-5)
    for name, gradient in expected.items():
        assert (gradient - module.kept[name]).norm() <= 1e-5 * gradient.norm(), name
