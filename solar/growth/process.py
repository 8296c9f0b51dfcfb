"""Run one of our modules in a process of its own, so that torch and transformers stay out of this one."""

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
    import subprocess  # most growths ask nobody, and it takes longer to import than a small model to copy

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
    """The other side: `work` on the request of standard input; its result, or its `SolarError`, to standard output."""
    try:
        result = work(json.load(sys.stdin))
    except SolarError as error:
        sys.stdout.write(f"{error}\n")
        return _REFUSED
    sys.stdout.write(f"{json.dumps(result)}\n")
    return 0
