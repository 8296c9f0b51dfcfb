"""T-A1. A real signal at any step, or between two micro-batches of a step, in every kind of training."""

import hashlib
import json
import os
import signal

import pytest
from tiny import llama_folder, pair, row, settings, train_rows

from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.training import AverageConfig, AverageKind, GuardConfig, PretrainConfig, SftConfig
from solar.errors import Interrupted
from solar.training.batches.continuation import KEPT
from solar.training.interrupt import listening
from solar.training.modules.next_token import ContinuedPretraining, InstructionTuning
from solar.training.preference.module import PreferenceOptimization

STEPS, STEPS_OF_AN_EPOCH = 17, 7
NUMBERS = range(4 * STEPS_OF_AN_EPOCH)
ROWS = {
    "pretrain": [row(9, 6, 5, seed=n, sample=n) for n in NUMBERS],
    "sft": [row(5 + n % 9, seed=n, prompt=0.4, sample=n) for n in NUMBERS],
    "dpo": [pair(4 + n % 3, 5, 3 + n % 4, seed=n, sample=n) for n in NUMBERS],
}
MODULES = {"pretrain": ContinuedPretraining, "sft": InstructionTuning, "dpo": PreferenceOptimization}


def _config(kind):
    """With all that has a state of its own: moments, a window of losses, a mean of weights."""
    guard, average = GuardConfig(spike_sigmas=6.0, window=4), AverageConfig(AverageKind.ema, decay=0.5)
    fields = settings(duration=f"{STEPS} steps", keep_optimizer=True, guard=guard, average=average)
    if kind == "dpo":
        return DpoConfig(**fields, reference="base", loss=PreferenceLoss.sigmoid, beta=0.1)
    return {"pretrain": PretrainConfig, "sft": SftConfig}[kind](**fields)


def _run(folder, kind, name, stops=(), workers=0):
    """Train with a SIGTERM at each of `stops`; the rows that each step read, a list for each micro-batch.

    A stop is a step, after which the signal comes, or a step and "between" two of its micro-batches.
    """
    steps_read = []
    for stop in (*stops, None):
        at, between = stop if isinstance(stop, tuple) else (stop, None)

        class Stopping(MODULES[kind]):
            def loss_sum(self, batch, at=at, between=between):
                if self.network.training:
                    steps_read[-1].append(batch.sample_ids)
                    if between and self.steps_done + 1 == at and len(steps_read[-1]) == 2:
                        os.kill(os.getpid(), signal.SIGTERM)
                return super().loss_sum(batch)

            def training_step(self, step, batch_idx, at=at, between=between):
                if step.micro_batches:
                    steps_read.append([])
                super().training_step(step, batch_idx)
                if not between and self.steps_done == at:
                    os.kill(os.getpid(), signal.SIGTERM)

        more = {"model_dir": folder / "base", "reference_dir": folder / "base", "data_dir": folder / "data"}
        make = (lambda *rest, cls=Stopping, more=more: cls(*rest, **more)) if kind == "dpo" else Stopping
        call = {"module": make, "held_out": ROWS[kind][:3], "num_workers": workers, "log_every_steps": 1}
        with listening() as request:
            if stop is None:
                train_rows(ROWS[kind], _config(kind), folder / "base", folder / name, stop=request, **call)
                return steps_read
            with pytest.raises(Interrupted, match=f"SIGTERM after step {at} of {STEPS}"):
                train_rows(ROWS[kind], _config(kind), folder / "base", folder / name, stop=request, **call)
    raise AssertionError


def _left(output):
    """Hashes of the model and of the whole training state, and the log without what measures time."""
    files = [output / "model/model.safetensors", *sorted((output / KEPT).glob("*"))]
    lines = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert {"tensors.safetensors", "state.json", "model.safetensors"} <= set(hashes)
    return hashes, [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stops")
    llama_folder(folder / "base", attention_dropout=0.1)
    (folder / "data").mkdir()
    return folder


@pytest.fixture(scope="module")
def straight(folder):
    """What each kind leaves that nobody stops."""
    return {kind: (_run(folder, kind, f"{kind}-straight"), _left(folder / f"{kind}-straight")) for kind in ROWS}


STOPS = {
    "the first step": (1,),
    "between two micro-batches": ((5, "between"),),
    "the end of an epoch": (STEPS_OF_AN_EPOCH,),
    "after the end of an epoch": (STEPS_OF_AN_EPOCH + 1,),
    "between micro-batches at the end of an epoch": ((STEPS_OF_AN_EPOCH, "between"),),
    "the last step but one": (STEPS - 1,),
    "the last step": (STEPS,),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(
    "where", [pytest.param(where, marks=[pytest.mark.slow] * (n != 1)) for n, where in enumerate(STOPS)]
)
def test_one_stop_changes_no_byte_and_no_row(folder, straight, kind, where):
    """T-A11."""
    name = f"{kind}-{where.replace(' ', '-')}"
    assert (_run(folder, kind, name, STOPS[where]), _left(folder / name)) == straight[kind]


@pytest.mark.parametrize("kind", ROWS)
def test_five_stops_in_one_epoch_change_no_byte_and_no_row(folder, straight, kind):
    """T-A2. In the second epoch."""
    stops = (STEPS_OF_AN_EPOCH + 1, STEPS_OF_AN_EPOCH + 2, (STEPS_OF_AN_EPOCH + 3, "between"), 12, 13)
    assert (_run(folder, kind, f"{kind}-five", stops), _left(folder / f"{kind}-five")) == straight[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ROWS)
def test_stops_with_two_workers_change_no_byte(folder, straight, kind):
    """Rows that workers had read ahead are read again."""
    stops = (1, (5, "between"), STEPS_OF_AN_EPOCH, STEPS_OF_AN_EPOCH + 1, STEPS - 1)
    assert (_run(folder, kind, f"{kind}-workers", stops, workers=2), _left(folder / f"{kind}-workers")) == straight[
        kind
    ]


def test_each_row_was_read_once_an_epoch(straight):
    """T-C8."""
    for steps_read, _ in straight.values():
        read = [sample for step in steps_read for batch in step for sample in dict.fromkeys(batch)]
        assert len(steps_read) == STEPS and len(read) == 4 * STEPS
        assert sorted(read[: len(NUMBERS)]) == sorted(read[len(NUMBERS) : 2 * len(NUMBERS)]) == list(NUMBERS)
