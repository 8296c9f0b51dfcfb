"""Learning rates and budgets: numbers worked by hand, and a past that an extension does not change."""

import json
import math

import pytest
import torch
from tiny import InOrder, MemoryRows, llama_folder, row, settings, train_rows

from solar.config.duration import Duration
from solar.config.merging import Decay
from solar.config.optimizer import ScheduleConfig, ScheduleName
from solar.config.training import PretrainConfig
from solar.errors import DataError
from solar.training.batches.steps import Budget, StepDataset
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.optim.schedule import Schedule


def _factors(name, total, **fields):
    fields = (
        {"warmup_fraction": 0.0, "final_fraction": 0.0}
        | ({"stable_fraction": 1.0} if name == "infinite" else {})
        | fields
    )
    config = ScheduleConfig(ScheduleName(name), **fields)
    assert list(config.problems()) == []
    schedule = Schedule.of(config, total, lambda tokens: tokens // 100)
    return [schedule.factor(step) for step in range(total)]


def test_warm_up_rises_to_the_peak_and_is_the_same_for_all_shapes():
    for name in ScheduleName:
        assert _factors(name, 10, warmup_fraction=0.4)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_linear_falls_by_equal_parts():
    assert _factors("linear", 4) == [1.0, 0.75, 0.5, 0.25]
    assert _factors("linear", 4, final_fraction=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cosine_is_half_way_in_the_middle():
    factors = _factors("cosine", 8, final_fraction=0.1)
    assert factors[0] == 1.0 and factors[4] == pytest.approx(0.55)
    assert factors[2] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)


def test_wsd_is_flat_and_then_falls_by_one_minus_the_root():
    factors = _factors("wsd", 10, decay_fraction=0.4)
    assert factors[:7] == [1.0] * 7
    assert factors[7:] == pytest.approx([0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)])


@pytest.mark.parametrize(
    "shape,expected",
    [("linear", [1.0, 0.75, 0.5, 0.25]), ("cosine", [1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4])],
)
def test_the_decay_has_the_configured_curve(shape, expected):
    assert _factors("wsd", 6, decay="4 steps", decay_shape=Decay(shape)) == pytest.approx([1.0, 1.0, *expected])


def test_re_warming_starts_at_the_rate_the_base_ended_at():
    # from 0.2 to 1 in four steps, then half a cosine back to 0.2
    factors = _factors("cosine", 8, warmup="4 steps", initial_fraction=0.2, final_fraction=0.2)
    assert factors == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 0.6 + 0.2 * math.sqrt(2), 0.6, 0.6 - 0.2 * math.sqrt(2)])


def test_infinite_cools_down_stays_and_decays():
    fields = {"warmup": "2 steps", "cooldown": "4 steps", "stable_fraction": 0.4, "decay": "4 steps"}
    factors = _factors("infinite", 13, **fields)
    half = 0.3 * math.sqrt(0.5)
    assert factors[:6] == pytest.approx([0.5, 1.0, 1.0, 0.7 + half, 0.7, 0.7 - half])
    assert factors[6:10] == pytest.approx([0.4] * 4)
    assert factors[10:] == pytest.approx([0.2, 0.4 * (1 - math.sqrt(0.5)), 0.4 * (1 - math.sqrt(0.75))])


def test_a_longer_infinite_run_has_the_same_past():
    fields = {"warmup": "2 steps", "cooldown": "400 tokens", "stable_fraction": 0.4}
    assert _factors("infinite", 13, **fields) == _factors("infinite", 50, **fields)[:13]


def test_a_setting_that_the_shape_does_not_read_is_refused():
    fields = ScheduleConfig(ScheduleName.cosine, 0.0, 0.0, decay_shape=Decay.linear, stable_fraction=0.5)
    assert [problem.split(":")[0] for problem in fields.problems()] == ["stable_fraction", "decay_shape"]
    missing = ScheduleConfig(ScheduleName.infinite, 0.0, 0.0)
    assert [problem.split(":")[0] for problem in missing.problems()] == ["stable_fraction"]
    cold = ScheduleConfig(ScheduleName.cosine, 0.0, 0.0, initial_fraction=0.1)
    assert list(cold.problems()) == ["initial_fraction: there is no warm-up to start from it; remove it, or set warmup"]


def test_a_decay_left_over_from_another_shape_gives_a_warning():
    with pytest.warns(UserWarning, match=r"schedule.decay, decay_fraction: cosine has no such decay"):
        assert _factors("cosine", 6, decay_fraction=0.5) == _factors("cosine", 6)


def test_wsd_without_decay_goes_on_for_ever():
    assert _factors("wsd", 50, warmup_fraction=0.1)[5:] == [1.0] * 45


def test_extending_a_wsd_run_does_not_change_its_past():
    """T-A10."""
    fields = {"warmup": "3 steps", "decay": "4 steps"}
    short, long = _factors("wsd", 20, **fields), _factors("wsd", 50, **fields)
    assert short[:16] == long[:16] and short[16:] == long[46:]


def test_a_warm_up_longer_than_the_training_keeps_its_slope_and_gives_a_warning():
    with pytest.warns(UserWarning, match="schedule.warmup: found 10 steps in a training of 6, which ends before"):
        short = _factors("constant", 6, warmup="10 steps")
    assert short == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert short == _factors("constant", 12, warmup="10 steps")[:6]
    with pytest.warns(UserWarning, match="schedule.decay: found 500 steps, but 4 are left for it"):
        assert _factors("wsd", 6, warmup="2 steps", decay="500 steps")[:3] == [0.5, 1.0, 1.0]


def test_the_weights_of_a_wsd_run_are_those_of_a_run_twice_as_long_until_its_decay(tmp_path):
    """T-A10."""
    schedule = ScheduleConfig(ScheduleName.wsd, 0.0, 0.0, warmup="2 steps", decay="3 steps")
    seen = {}
    for steps in (8, 16):

        class Watching(ContinuedPretraining):
            def training_step(self, step, batch_idx):
                super().training_step(step, batch_idx)
                if self.steps_done in (5, 6):
                    seen[self.total_steps, self.steps_done] = self.network.lm_head.weight.detach().clone()

        config = PretrainConfig(**settings(duration=f"{steps} steps", schedule=schedule))
        folder = llama_folder(tmp_path / f"base-{steps}")
        train_rows([row(9, seed=n) for n in range(11)], config, folder, tmp_path / f"out-{steps}", module=Watching)
    assert torch.equal(seen[8, 5], seen[16, 5])
    assert torch.equal(seen[8, 6], seen[16, 6])  # the first step of a decay still has the whole rate


def test_lengths_may_be_given_in_tokens():
    assert _factors("wsd", 20, warmup="300 tokens", decay="400 tokens") == _factors(
        "wsd", 20, warmup="3 steps", decay="4 steps"
    )


def test_the_rates_of_a_training_are_the_formula(tmp_path):
    """T-A10."""
    schedule = ScheduleConfig(ScheduleName.wsd, 0.25, 0.0, decay_fraction=0.5)
    config = PretrainConfig(**settings(duration="8 steps", schedule=schedule))
    train_rows([row(9, seed=n) for n in range(4)], config, llama_folder(tmp_path / "base"), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/logs/metrics.jsonl").read_text().splitlines()]
    expected = [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)]
    assert [line["lr"] for line in lines] == pytest.approx([1e-2 * factor for factor in expected])


@pytest.mark.parametrize(
    "duration,rows,steps", [("3 steps", 12, 3), ("1 epoch", 10, 3), ("1.5 epochs", 15, 4), ("41 tokens", 8, 2)]
)
def test_a_budget_by_hand(duration, rows, steps):
    order = InOrder(MemoryRows([row(8, seed=n) for n in range(10)]))  # 10 rows of 8 tokens, 4 a step
    budget = Budget.of(Duration.parse(duration), order, 4)
    assert (budget.rows, budget.steps) == (rows, steps)


@pytest.mark.parametrize("duration,rows", [("2 steps", 8), ("1 epoch", 10), ("65 tokens", 10), ("80 tokens", 10)])
def test_a_budget_ends_where_capped_data_ends(duration, rows):
    order = InOrder(MemoryRows([row(8, seed=n) for n in range(10)]))
    order.total_rows, order.total_tokens = 10, 80.0
    assert Budget.of(Duration.parse(duration), order, 4).rows == rows


@pytest.mark.parametrize("duration", ["3 steps", "1.2 epochs", "81 tokens", "5M tokens"])
def test_more_than_capped_data_has_is_refused_before_the_first_step(duration):
    order = InOrder(MemoryRows([row(8, seed=n) for n in range(10)]))
    order.total_rows, order.total_tokens = 10, 80.0
    message = r"duration: found .*, but max_epochs ends the data after 10 rows \(2 whole steps\)"
    with pytest.raises(DataError, match=message):
        Budget.of(Duration.parse(duration), order, 4)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_every_row_of_an_epoch_is_read_once_by_whatever_ranks(world_size, micro_batch_size):
    """T-C8."""
    rows = MemoryRows([row(5, seed=n, sample=n) for n in range(11)])
    order = InOrder(rows)
    budget = Budget.of(Duration.parse("1 epoch"), order, 4)
    from solar.network.microbatch import from_rows

    seen = []
    for step in range(budget.steps):
        parts = [
            StepDataset(rows, order, from_rows, budget, micro_batch_size, rank, world_size)[step]
            for rank in range(world_size)
        ]
        assert len({len(part.micro_batches) for part in parts}) == 1, "ranks must agree on the number of micro-batches"
        assert all(part.trained_tokens == 4 * part.rows for part in parts)
        here = [sample for part in parts for batch in part.micro_batches for sample in batch.sample_ids]
        assert sorted(here) == list(range(4 * step, min(4 * step + 4, 11)))
        seen += here
    assert sorted(seen) == list(range(11))
