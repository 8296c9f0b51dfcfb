"""A step waits for its device once: where the host reads a number, a list or a shape that the device computes."""

from functools import partial

import pytest
import torch
from tiny import llama_folder, pair, row, settings, train_rows
from torch.utils._python_dispatch import TorchDispatchMode

from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.preference import DpoConfig, PreferenceLoss
from solar.config.training import AverageConfig, AverageKind, GuardConfig, Precision, PretrainConfig, SftConfig
from solar.training.modules.next_token import ContinuedPretraining, InstructionTuning
from solar.training.preference.module import PreferenceOptimization

_ATEN = torch.ops.aten
READS = {_ATEN._local_scalar_dense, _ATEN.nonzero, _ATEN.masked_select, _ATEN.equal, _ATEN._unique2}
"""Operations whose result the host must know before it can go on; they would wait for a GPU."""
BY_MASK = {_ATEN.index, _ATEN.index_put, _ATEN.index_put_}
ROWS = [row(9, 6, 5, seed=n, sample=n, prompt=0.3) for n in range(8)]
PAIRS = [pair(4 + n % 3, 5, 3 + n % 4, seed=n, sample=n) for n in range(8)]


class Reads(TorchDispatchMode):
    """Counts what the host reads of tensors."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count, self.inside = 0, False
        tolist = torch.Tensor.tolist  # on a CPU it calls no operation

        def counting(tensor):
            self.count += self.inside
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counting)

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        packet = function.overloadpacket
        masks = [i for i in arguments[1] if i is not None and i.dtype is torch.bool] if packet in BY_MASK else []
        self.count += packet in READS or bool(masks)
        return function(*arguments, **(keywords or {}))

    def __enter__(self):
        self.inside = True
        return super().__enter__()

    def __exit__(self, *error):
        self.inside = False
        return super().__exit__(*error)


def _counting(parent, reads, counts):
    class Counting(parent):
        def training_step(self, step, batch_idx):
            if not step.micro_batches:
                return
            before = reads.count
            with reads:
                super().training_step(step, batch_idx)
            counts.append(reads.count - before)

    return Counting


def test_what_the_host_reads_is_counted(monkeypatch):
    reads, numbers = Reads(monkeypatch), torch.arange(4.0)
    numbers.tolist()
    several = [
        lambda: numbers.tolist(),
        lambda: float(numbers[0]),
        lambda: bool(numbers[0] > 1),
        lambda: numbers[numbers > 1],
        lambda: numbers.nonzero(),
    ]
    for read in several:
        before = reads.count
        with reads:
            read()
        assert reads.count == before + 1
    with reads:
        numbers[torch.tensor([0, 2])].exp().sum()
    assert reads.count == len(several)


SPLIT = OptimizerConfig(OptimizerName.adamw, 1e-3, [0.9, 0.95], 1e-8, 0.1, 1.0, split_weights=True)
CASES = {
    "pretraining": (PretrainConfig, {}),
    "tuning": (SftConfig, {}),
    "z-loss, moving average and a guard against spikes": (
        PretrainConfig,
        {"z_loss": 1e-4, "average": AverageConfig(AverageKind.ema), "guard": GuardConfig(spike_sigmas=6, window=2)},
    ),
    "split weights": (PretrainConfig, {"optimizer": SPLIT, "precision": Precision.bf16_true}),
    "dpo": (DpoConfig, {"loss": PreferenceLoss.sigmoid}),
    "kto": (DpoConfig, {"loss": PreferenceLoss.kto}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_two_micro_batches_reads_once(tmp_path, monkeypatch, case):
    kind, changes = CASES[case]
    folder, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    parent = {PretrainConfig: ContinuedPretraining, SftConfig: InstructionTuning, DpoConfig: PreferenceOptimization}[
        kind
    ]
    more = {"reference": "base", "beta": 0.1} if kind is DpoConfig else {}
    config = kind(**settings(duration="4 steps", **changes, **more))
    counts: list[int] = []
    module = _counting(parent, Reads(monkeypatch), counts)
    if kind is DpoConfig:
        module = partial(module, model_dir=folder, reference_dir=folder, data_dir=data)
    train_rows(PAIRS if kind is DpoConfig else ROWS, config, folder, tmp_path / "out", module=module)
    assert counts == [1, 1, 1, 1]
