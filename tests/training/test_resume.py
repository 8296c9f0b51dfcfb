"""Killed at any step, any number of times, and resumed: the same bytes as if nothing had happened."""

import hashlib
import json
import signal
import warnings

import pytest
from tiny import llama_folder, pair, row, settings, train_rows

from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.training import AverageConfig, AverageKind, PretrainConfig, SftConfig
from solar.errors import Interrupted
from solar.training.batches.continuation import KEPT
from solar.training.checkpoint.folder import STATE, TENSORS
from solar.training.checkpoint.points import checkpoint_path, checkpoints
from solar.training.interrupt import StopRequest
from solar.training.modules.next_token import ContinuedPretraining, InstructionTuning
from solar.training.preference.module import PreferenceOptimization

STEPS = 7
ROWS = {
    "cpt": [row(9, 6, 5, seed=n, sample=n) for n in range(11)],
    "sft": [row(5 + n, seed=n, prompt=0.4, sample=n) for n in range(11)],
    "dpo": [pair(4 + n % 3, 5, 3 + n % 4, seed=n, sample=n) for n in range(11)],
}


def _config(kind):
    if kind == "dpo":
        fields = settings(duration=f"{STEPS} steps", reference="base", loss=PreferenceLoss.sigmoid, beta=0.1)
        return DpoConfig(**fields)
    return (PretrainConfig if kind == "cpt" else SftConfig)(**settings(duration=f"{STEPS} steps"))


def _module(kind, base, data, stop, stop_at):
    """The module of a kind, which asks to stop right after step `stop_at`."""
    parent = {"cpt": ContinuedPretraining, "sft": InstructionTuning, "dpo": PreferenceOptimization}[kind]

    class Stopping(parent):
        def training_step(self, step, batch_idx):
            super().training_step(step, batch_idx)
            if self.steps_done == stop_at:
                stop.received = signal.SIGTERM

    def make(network, *rest):
        more = {"model_dir": base, "reference_dir": base, "data_dir": data} if kind == "dpo" else {}
        return Stopping(network, *rest, **more)

    return make


def _run(tmp_path, kind, name, stops=(), **trainer):
    """Train with a stop after each step of `stops` and a resume after each stop."""
    base, data = tmp_path / "base", tmp_path / "data"
    if not base.exists():
        llama_folder(base, attention_dropout=0.1)
        data.mkdir()
    trainer = {"log_every_steps": 2, **trainer}
    for stop_at in (*stops, None):
        stop = StopRequest()
        module = _module(kind, base, data, stop, stop_at)
        call = dict(module=module, held_out=ROWS[kind][:3], stop=stop, **trainer)
        if stop_at is None:
            metrics, _ = train_rows(ROWS[kind], _config(kind), base, tmp_path / name, **call)
            return metrics, tmp_path / name
        with pytest.raises(Interrupted, match=f"after step {stop_at} of {STEPS}"):
            train_rows(ROWS[kind], _config(kind), base, tmp_path / name, **call)


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _log_lines(output):
    """The logged lines without the only thing that may differ."""
    lines = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "tokens_per_second"} for line in lines]


def _assert_same_run(expected, actual):
    (metrics, straight), (resumed_metrics, resumed) = expected, actual
    assert _digest(straight / "model/model.safetensors") == _digest(resumed / "model/model.safetensors")
    assert _log_lines(straight) == _log_lines(resumed)
    measured = {"tokens_per_second": 0, "peak_memory_bytes": 0}
    assert metrics | measured == resumed_metrics | measured


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("stops", [(1,), (3,), (STEPS - 1,), (STEPS,), (1, 2, 3, 4, 6)], ids=str)
def test_stopped_and_resumed_is_the_same_to_the_last_bit(tmp_path, kind, stops):
    """T-A1, T-A10."""
    expected = _run(tmp_path, kind, "straight")
    _assert_same_run(expected, _run(tmp_path, kind, "resumed", stops))


@pytest.mark.parametrize("kind", ROWS)
def test_the_optimizer_is_the_same_to_the_last_bit(tmp_path, kind):
    digests = []
    for name, stops in (("straight", (STEPS,)), ("resumed", (2, 5, STEPS))):
        base = tmp_path / name
        base.mkdir()
        stop = StopRequest()
        for stop_at in stops:
            stop = StopRequest()
            folder = tmp_path / "base"
            if not folder.exists():
                llama_folder(folder)
            module = _module(kind, folder, base, stop, stop_at)
            with pytest.raises(Interrupted):
                train_rows(ROWS[kind], _config(kind), folder, tmp_path / f"{name}-out", module=module, stop=stop)
        digests.append(_digest(checkpoint_path(tmp_path / f"{name}-out/checkpoints", STEPS) / TENSORS))
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    expected = _run(tmp_path, "cpt", "straight")
    _assert_same_run(expected, _run(tmp_path, "cpt", "resumed", (2, 5), num_workers=2))


def test_a_damaged_newest_checkpoint_costs_steps_and_nothing_else(tmp_path):
    expected = _run(tmp_path, "cpt", "straight")
    with pytest.raises(Interrupted):
        _interrupted(tmp_path, 5, checkpoint_every_seconds=0.0, keep_checkpoints=2)
    newest = checkpoints(tmp_path / "resumed/checkpoints")[-1]
    (newest / TENSORS).write_bytes(b"")
    with warnings.catch_warnings(record=True) as fields:
        warnings.simplefilter("always")
        actual = _run(tmp_path, "cpt", "resumed")
    assert any(
        "is not what was written; training goes on from step-00000004" in str(warning.message) for warning in fields
    )
    _assert_same_run(expected, actual)


def test_lost_log_lines_give_a_warning_and_an_interrupted_cut_leaves_no_file(tmp_path):
    _run(tmp_path, "cpt", "straight")
    with pytest.raises(Interrupted):
        _interrupted(tmp_path, 5)
    log = tmp_path / "resumed/logs/metrics.jsonl"
    first, *rest = log.read_text().splitlines(keepends=True)
    log.write_text("".join(rest[1:]))
    (log.parent / ".metrics.jsonl.cut").write_text(first)
    with pytest.warns(
        UserWarning, match=rf"metrics.jsonl: 2 of its {1 + len(rest)} lines up to step 5 are gone for good"
    ):
        _run(tmp_path, "cpt", "resumed")
    assert [path.name for path in log.parent.iterdir()] == ["metrics.jsonl"]


def _interrupted(tmp_path, stop_at, **trainer):
    stop = StopRequest()
    module = _module("cpt", tmp_path / "base", tmp_path / "data", stop, stop_at)
    call = dict(module=module, held_out=ROWS["cpt"][:3], stop=stop, log_every_steps=2, **trainer)
    train_rows(ROWS["cpt"], _config("cpt"), tmp_path / "base", tmp_path / "resumed", **call)


@pytest.mark.parametrize("change", ["log", "save", "validate"])
def test_logging_and_validating_more_often_changes_no_weight(tmp_path, change):
    """T-G4."""
    _, expected = _run(tmp_path, "cpt", "straight")
    more = {"log": {"log_every_steps": 1}, "save": {"checkpoint_every_seconds": 0.0}, "validate": {}}[change]
    config = _config("cpt")
    if change == "validate":
        config.validate_every_steps = 1
    output = tmp_path / "other"
    train_rows(ROWS["cpt"], config, tmp_path / "base", output, held_out=ROWS["cpt"][:3], **more)
    assert _digest(expected / "model/model.safetensors") == _digest(output / "model/model.safetensors")


def test_checkpoints_stay_until_the_model_is_kept_and_other_files_travel_along(tmp_path):
    _, output = _run(tmp_path, "cpt", "straight", checkpoint_every_seconds=0.0)
    assert list((output / "checkpoints").iterdir())  # the store removes them, once the artifact has its name
    assert (output / "model/tokenizer.json").read_text() == '{"the tokenizer": "travels along"}'
    assert (output / "model/config.json").read_bytes() == (tmp_path / "base/config.json").read_bytes()


class StopsWhileReading(ContinuedPretraining):
    """Asked to stop as soon as held-out text is read after a step."""

    stop, stop_at = StopRequest(), -1

    def loss_sum(self, batch):
        if not self.network.training and self.steps_done == self.stop_at:
            self.stop.received = signal.SIGTERM
        return super().loss_sum(batch)


@pytest.mark.parametrize("stop_at", [2, STEPS])
def test_interrupted_validation_is_repeated_on_resume(tmp_path, stop_at):
    """T-A7. The log is the same, and so is what a branch would go on from: weights from before they were averaged."""
    folder = llama_folder(tmp_path / "base")
    config = _config("cpt")
    config.validate_every_steps, config.keep_optimizer = 2, True
    config.average = AverageConfig(AverageKind.ema, decay=0.5)

    def run(name, module=ContinuedPretraining, **more):
        train_rows(ROWS["cpt"], config, folder, tmp_path / name, module=module, held_out=ROWS["cpt"][:3], **more)
        lines = [json.loads(line) for line in (tmp_path / name / "logs/metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]

    expected = run("straight")
    stop = StopRequest()
    module = type("Stopping", (StopsWhileReading,), {"stop": stop, "stop_at": stop_at})
    with pytest.raises(Interrupted):
        run("cut", module, stop=stop)
    assert run("cut") == expected
    for file in (TENSORS, STATE):
        kept = [(tmp_path / name / KEPT / file).read_bytes() for name in ("straight", "cut")]
        assert kept[0] == kept[1], file
