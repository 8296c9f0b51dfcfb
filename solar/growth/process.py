"""Run a module of ours in a second process, so that this process never loads torch and transformers."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import solar
from solar.errors import SolarError

_REFUSED = 3
"""Exit status of a module that refused the request, with the reason on its standard output."""


def ask(module: str, request: dict[str, Any], error: type[SolarError]) -> Any:
    """The module's answer. Raises `error` with the module's reason, or with the last line of its traceback."""
    import subprocess  # rarely needed, and importing it takes longer than copying a small model

    path = os.pathsep.join(filter(None, [str(Path(solar.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **quiet, "PYTHONPATH": path},
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    reason = done.stdout.strip().splitlines() if done.returncode == _REFUSED else done.stderr.strip().splitlines()
    raise error((reason or [f"{module} ended with status {done.returncode} and gave no reason"])[-1])


def answer(work: Callable[[dict[str, Any]], Any]) -> int:
    """In the second process: do the `work` that standard input asks for; print its result or its `SolarError`."""
    try:
        result = work(json.load(sys.stdin))
    except SolarError as error:
        sys.stdout.write(f"{error}\n")
        return _REFUSED
    sys.stdout.write(f"{json.dumps(result)}\n")
    return 0
