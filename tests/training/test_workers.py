"""Processes that read data ahead."""

import os
import signal
from pathlib import Path

import pytest
from tiny import llama_folder, row, settings, train_rows

from solar.config.training import PretrainConfig
from solar.errors import StageError
from solar.training.modules.next_token import ContinuedPretraining
from solar.training.trainer import _lost_a_worker


def test_a_killed_worker_is_reported_in_one_line(tmp_path):
    home = os.getpid()

    class Killed(ContinuedPretraining):
        @staticmethod
        def assemble(rows):
            if os.getpid() != home and rows[0].sample_ids[0] == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return ContinuedPretraining.assemble(rows)

    rows = [row(9, sample=n) for n in range(24)]
    config = PretrainConfig(**settings(duration="6 steps"))
    with pytest.raises(StageError, match=r"a process that reads data was killed.* set trainer.num_workers lower"):
        train_rows(rows, config, llama_folder(tmp_path / "base"), tmp_path / "out", module=Killed, num_workers=1)


def test_a_worker_that_dies_while_it_sends_its_data_is_reported_alike():
    """Then the connection to it breaks, before torch sees that it is dead."""

    def _try_get_data():
        raise ConnectionResetError(104, "Connection reset by peer")

    for call, lost in ((_try_get_data, True), (lambda: Path("no such file").read_text(), False)):
        with pytest.raises(OSError) as actual:
            call()
        assert _lost_a_worker(actual.value) is lost
