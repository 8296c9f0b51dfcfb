"""One rank of a stage that trains on several devices; torchrun starts it, a job file holds its arguments."""

import atexit
import json
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from solar.engine.job import Job
from solar.engine.launch import RESUMABLE, resolve
from solar.engine.ranks import CRASH, PROGRESS
from solar.errors import Interrupted, SolarError
from solar.redaction import redact


def main(path: Path) -> int:
    """Run the stage on this rank; rank 0 writes the metrics, or the error, beside the job file."""
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    first = int(os.environ.get("RANK", "0")) == 0
    config, inputs, output, context = Job.read(path).arguments(_report_progress if first else _ignore)
    try:
        metrics = resolve(config.kind)(config, inputs, output, context)
    except Interrupted:
        (path.parent / "interrupted").touch()
        return RESUMABLE
    except SolarError as error:
        (path.parent / "error").write_text(redact(str(error)), encoding="utf-8")
        return 1
    except BaseException as error:
        _write_first_error(error, path.parent / CRASH)
        raise
    if first:
        (path.parent / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return 0


def leave(code: int) -> NoReturn:
    """End this rank without finalizing the interpreter.

    Device meshes keep gloo's threads alive past `destroy_process_group`. A thread that frees a tensor during
    finalization aborts the process, and torchrun then reports a rank as failed that has done all its work.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _stop_at_end_of_input() -> None:
    """The launching process holds the other end of the pipe; when it closes, this rank saves and exits."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _write_first_error(error: BaseException, path: Path) -> None:
    """Write the error down, unless another rank failed first: later errors are lost connections to that rank."""
    last = " ".join(traceback.format_exception_only(error)[-1].split())[:300]
    with suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        json.dump({"rank": int(os.environ.get("RANK", "0")), "error": redact(last)}, file)


def _report_progress(text: str) -> None:
    try:
        sys.stdout.write(f"{PROGRESS}{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the launching process is gone, but a step must still be saved
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(nowhere, descriptor)


def _ignore(text: str) -> None:
    pass


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
