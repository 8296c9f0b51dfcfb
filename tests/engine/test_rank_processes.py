"""Ranks live and die with the run that started them, and say why they failed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from solar.config.root import LoggerConfig, LoggerName, TrainerConfig
from solar.config.training import PretrainConfig
from solar.engine import launch as launching
from solar.engine import worker
from solar.engine.context import RunContext
from solar.engine.ranks import CRASH, Ranks, cause, command
from solar.errors import Interrupted, StageError

SAVES = """
    import os, pathlib, sys
    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
    while os.read(0, 1): pass
    sys.exit(75)
"""
DEAF = SAVES.replace("while os.read(0, 1): pass", "import time; time.sleep(3600)")


def _ranks(tmp_path, code):
    ranks = Ranks(TrainerConfig(devices=2, num_nodes=1), tmp_path / "job.json", tmp_path / "logs/ranks.log")
    ranks.command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "started")]
    return ranks


def _signal_when_started(tmp_path, ranks, times):
    """SIGTERM to this process, each after the one before was received: signals that wait together become one."""
    before = signal.getsignal(signal.SIGTERM)

    def act():
        while not (tmp_path / "started").exists() or signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.01)
        for number in range(times):
            while ranks.signals < number:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=act, daemon=True).start()


def test_a_first_signal_lets_the_ranks_save(tmp_path):
    ranks = _ranks(tmp_path, SAVES)
    _signal_when_started(tmp_path, ranks, times=1)
    assert ranks.run(print) == 75 and ranks.signals == 1


def test_a_second_signal_ends_them_at_once(tmp_path):
    ranks = _ranks(tmp_path, DEAF)
    _signal_when_started(tmp_path, ranks, times=2)
    assert ranks.run(print) == -signal.SIGKILL


def test_a_killed_run_leaves_no_orphans(tmp_path):
    """T-F4."""
    run = f"""
        import pathlib, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}
        from test_rank_processes import SAVES, _ranks
        _ranks(pathlib.Path({str(tmp_path)!r}), SAVES).run(print)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(run)])
    deadline = time.monotonic() + 600
    while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    orphan = Path("/proc") / (tmp_path / "started").read_text()
    assert orphan.exists()
    process.kill()
    process.wait()
    while _runs(orphan):
        assert time.monotonic() < deadline, "the rank outlived its run"
        time.sleep(0.02)


def _runs(process):
    """Whether a process, as a folder of /proc, is there and no zombie."""
    try:
        return "Z" not in (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_the_first_failure_is_the_cause_and_later_ones_are_not(tmp_path, monkeypatch):
    (tmp_path / "log").touch()
    for rank, error in (("1", ValueError("too many heads\nsecond line")), ("0", RuntimeError("connection lost"))):
        monkeypatch.setenv("RANK", rank)
        worker._write_first_error(error, tmp_path / CRASH)
    assert cause(tmp_path, tmp_path / "log", 1) == "rank 1 failed: ValueError: too many heads second line"


def _launch(tmp_path, monkeypatch, run):
    """One training stage on two devices, whose ranks are replaced by `run(ranks)`."""

    class Replaced(Ranks):
        def run(self, progress):
            return run(self)

    monkeypatch.setattr(launching, "Ranks", Replaced)
    monkeypatch.setattr(launching.Job, "of", lambda *_: SimpleNamespace(to_json=lambda: "{}"))
    output, trainer = tmp_path / "pretrain.partial", TrainerConfig(devices=2, num_nodes=1)
    output.mkdir(exist_ok=True)
    context = RunContext("quick", "pretrain", trainer, LoggerConfig(LoggerName.none), tmp_path / "run", print)
    return launching.launch(PretrainConfig(kind="pretrain", model="base", data="data"), {}, output, context)


def test_the_output_of_failed_ranks_outlives_the_folder_of_the_stage(tmp_path, monkeypatch):
    def failing(ranks):
        ranks.log.parent.mkdir(parents=True)
        ranks.log.write_text("all of it\n")
        return 1

    with pytest.raises(StageError, match=r"the output of all ranks is in (.+)$") as failed:
        _launch(tmp_path, monkeypatch, failing)
    shutil.rmtree(tmp_path / "pretrain.partial")
    assert Path(str(failed.value).rpartition(" is in ")[2]).read_text() == "all of it\n"


def test_ranks_that_were_stopped_without_this_process_leave_a_run_that_can_go_on(tmp_path, monkeypatch):
    """A scheduler signals the ranks alone: rank 0 says that it stopped, and the launcher ends with a failure."""

    def stopped(ranks):
        (tmp_path / "pretrain.partial/job/interrupted").touch()
        return 1

    with pytest.raises(Interrupted, match=r"^pretrain: stopped on request; run the same command to go on"):
        _launch(tmp_path, monkeypatch, stopped)


def test_a_stop_of_an_earlier_attempt_is_not_that_of_this_one(tmp_path, monkeypatch):
    def failed(ranks):
        ranks.log.parent.mkdir()
        ranks.log.touch()
        return 1

    (tmp_path / "pretrain.partial/job").mkdir(parents=True)
    (tmp_path / "pretrain.partial/job/interrupted").touch()
    with pytest.raises(StageError, match=r"^pretrain: a rank failed \(exit code 1\)"):
        _launch(tmp_path, monkeypatch, failed)


def test_a_rank_killed_for_memory_is_reported_as_killed(tmp_path):
    """T-F4."""
    (tmp_path / CRASH).write_text(json.dumps({"rank": 0, "error": "RuntimeError: Connection closed by peer"}))
    (tmp_path / "log").write_text("traceback : Signal 9 (SIGKILL) received by PID 123\n")
    assert "SIGKILL" in cause(tmp_path, tmp_path / "log", 1)


def test_machines_of_an_allocation_meet_at_the_first_of_them(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    job = tmp_path / "artifacts/base-1.partial/job/job.json"
    for listed, first in (("gpu[03-07,9],big1", "gpu03"), ("a1,a2", "a1"), ("node[4]", "node4")):
        monkeypatch.setenv("SLURM_JOB_NODELIST", listed)
        line = command(TrainerConfig(devices=8, num_nodes=2), job)
        assert line[:3] == ["srun", "--nodes=2", "--ntasks-per-node=1"]
        assert {"--nnodes=2", "--nproc_per_node=8", "--rdzv_id=base-1.partial-7"} <= set(line)
        assert any(part.startswith(f"--rdzv_endpoint={first}:") for part in line)


def test_several_machines_without_a_meeting_place_are_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    with pytest.raises(StageError, match=r"trainer\.rendezvous"):
        command(TrainerConfig(devices=8, num_nodes=2), tmp_path / "a/b/job.json")


def test_two_runs_on_one_machine_do_not_share_a_port(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    lines = {command(TrainerConfig(devices=1, num_nodes=2), tmp_path / f"{n}/job/job.json")[-4] for n in "ab"}
    assert len(lines) == 2 and all("--rdzv_endpoint=n1:" in line for line in lines)


def test_the_error_of_a_launcher_that_fails_before_its_ranks_is_shown(tmp_path):
    warnings = "W1124 launcher warns\nTraceback (most recent call last):\n  File x\n"
    error = "torch.distributed.DistNetworkError: The server socket has failed to listen (port: 29500, EADDRINUSE)"
    (tmp_path / "log").write_text(f"{warnings}{error}\n")
    assert cause(tmp_path, tmp_path / "log", 1) == f"the ranks did not start: {error}"
    (tmp_path / "log").write_text("nothing that tells\n")
    assert cause(tmp_path, tmp_path / "log", 1) == "a rank failed (exit code 1)"


def test_a_rank_that_is_done_leaves_before_what_would_abort_it_in_the_interpreters_end(tmp_path):
    """As gloo's threads do that let go of a tensor then; `sys.exit` ends this program with SIGABRT."""
    program = """
        import atexit, os, sys
        from solar.engine.worker import leave
        class Aborting:
            def __del__(self): os.abort()
        kept = Aborting()
        atexit.register(lambda: print("tidied"))
        leave(75)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (75, "tidied\n")
