"""Ctrl-C before a command has begun its work."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STOPPED = "import os, signal\nsignal.signal(2, signal.default_int_handler)\nos.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize("command", ["run", "grow", "merge", "chat", "diagnose", "data", "artifacts"])
def test_ctrl_c_while_a_command_reads_its_modules_is_one_line(command: str, tmp_path: Path) -> None:
    """T-A7: on a busy machine the imports take many seconds."""
    (tmp_path / "omegaconf.py").write_text(STOPPED)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    line = [sys.executable, "-m", f"solar.{command}"]
    done = subprocess.run(line, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (-signal.SIGINT, "error: stopped by the keyboard\n", "")
