"""The commands of solar as functions of a model folder, run in a process that forks for each.

`python -m tests.faults.commands BASE DATA` loads torch and transformers once, then answers a line of JSON with a line:
which command, which folder, and where to write; exit status, output, seconds and memory. A child that takes too long
is killed; its memory is limited.
"""

import contextlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 30
MOST_BYTES = 6 * 2**30
"""Of address space, of which torch takes over a gigabyte unused."""
TEXT = "the cat sat on the mat and the dog sat on the cat. " * 40


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    """Exit status; negative: the signal that ended it, -9 after the time limit."""
    out: str
    err: str
    seconds: float
    rss_bytes: int
    """Largest resident memory."""
    ran: list[str]
    """Code of the model folder that ran, pickles that were read, and addresses that were asked for."""


def chat(folder: Path, here: Path) -> int:
    from solar.chat import main

    return main([str(folder), "prompt=the cat", "max_new_tokens=3"])


def diagnose(folder: Path, here: Path) -> int:
    from solar.diagnose import main

    return main([str(folder), f"text={here / 'text.txt'}", "tokens=48", "sequence_length=16"])


def merge(folder: Path, here: Path) -> int:
    from solar.merge import main

    return main([str(folder), str(here / "base"), str(here / "out"), "method=average", "threads=1"])


def merge_second(folder: Path, here: Path) -> int:
    from solar.merge import main

    return main([str(here / "base"), str(folder), str(here / "out"), "method=average", "threads=1"])


def grow(folder: Path, here: Path) -> int:
    from solar.grow import main

    return main([str(folder), str(here / "out"), "m=1", "threads=1", "verify=bytes"])


def import_model(folder: Path, here: Path) -> int:
    from solar.config.model import ImportModelConfig

    return _stage(ImportModelConfig(kind="import_model", path=str(folder)), {}, here)


def evaluate(folder: Path, here: Path) -> int:
    from solar.config.evaluation import EvaluateConfig

    config = EvaluateConfig(kind="evaluate", models=["model"], data="data", max_tokens=64)
    return _stage(config, {"model": folder.parent, "data": here / "data"}, here)


def soup(folder: Path, here: Path) -> int:
    from solar.config.soup import SoupConfig

    config = SoupConfig(kind="soup", models=["model", "other"], data="data", max_tokens=64)
    return _stage(config, {"model": folder.parent, "other": here / "base-artifact", "data": here / "data"}, here)


def prepare_data(folder: Path, here: Path) -> int:
    from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task

    rows = SourceConfig(path=str(here / "rows.jsonl"), format=Format.text)
    config = PrepareDataConfig(
        kind="prepare_data",
        task=Task.pretrain,
        tokenizer="model",
        sources={"rows": rows},
        sequence_length=32,
        packing=Packing.best_fit,
        held_out_fraction=0.5,
        seed=1,
    )
    return _stage(config, {"model": folder.parent}, here)


def run_code_of_the_folder(folder: Path, here: Path) -> int:
    """What no command does."""
    code = (folder / "payload.py").read_text()
    exec(compile(code, str(folder / "payload.py"), "exec"), {})
    pickle.loads(pickle.dumps(Path("a")))
    return 0


COMMANDS: dict[str, Callable[[Path, Path], int]] = {
    command.__name__: command
    for command in (chat, diagnose, merge, merge_second, grow, import_model, evaluate, soup, prepare_data)
}
SENTINEL = {"run_code_of_the_folder": run_code_of_the_folder}


def _stage(config: Any, inputs: dict[str, Path], here: Path) -> int:
    """A stage as `solar.run` runs it, with its boundary for errors."""
    from solar.artifacts.manifest import Manifest
    from solar.artifacts.store import Artifact
    from solar.config.root import LoggerConfig, TrainerConfig
    from solar.config.run_context import RunContext
    from solar.engine.launch import launch
    from solar.run import one_line_errors

    manifest = Manifest("s", "k", "0", 1, {}, {}, {}, {}, {}, 0.0)
    trainer = TrainerConfig(accelerator="cpu", devices=1, num_nodes=1, micro_batch_size=2, threads=1)
    context = RunContext("e", "stage", trainer, LoggerConfig(), here / "run", lambda line: None)
    output = here / "out"
    output.mkdir()
    with one_line_errors([]):
        artifacts = {name: Artifact(path, manifest) for name, path in inputs.items()}
        metrics = launch(config, artifacts, output, context)
        sys.stdout.write(f"{metrics}\n")
    return 0


class Server:
    """Runs commands in children of one process that has everything loaded."""

    def __init__(self, here: Path) -> None:
        """`here`: a folder for good inputs, and for what commands write."""
        self._is_ready = False
        quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.commands", str(here)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **quiet, "TRANSFORMERS_VERBOSITY": "error"},
        )

    def ready(self) -> None:
        """Wait until the good inputs lie there."""
        if not self._is_ready:
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == "ready\n", "the process that runs commands did not start"
            self._is_ready = True

    def run(self, command: str, folder: Path, out: Path) -> Outcome:
        """`out`: an empty folder, in which a command writes to `out`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self.ready()
        request = {"command": command, "folder": str(folder), "out": str(out)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def serve(here: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _load(here)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(_forked(json.loads(line), here)) + "\n")
        answers.flush()


def _load(here: Path) -> None:
    """Import what the commands need, and make their good inputs."""
    import shutil

    import transformers.models.auto.tokenization_auto  # noqa: F401

    from solar import chat, diagnose, grow, merge, run  # noqa: F401
    from solar.data.encode import encode  # noqa: F401
    from solar.diagnosis import diagnose as _  # noqa: F401
    from solar.engine.launch import resolve
    from tests.faults.hostile import make_base

    for kind in ("import_model", "evaluate", "soup", "merge", "prepare_data"):
        resolve(kind)
    (here / "text.txt").write_text(TEXT)
    rows = [{"text": TEXT[i : i + 200]} for i in range(40)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_base(here / "base")
    shutil.copytree(here / "base", here / "base-artifact" / "model")
    made = _forked(
        {"command": "prepare_data", "folder": str(here / "base-artifact" / "model"), "out": str(here / "p")}, here
    )
    assert made["status"] == 0, made
    (here / "p" / "out").rename(here / "data")


def _forked(request: dict[str, str], here: Path) -> dict[str, Any]:
    out = Path(request["out"])
    out.mkdir(exist_ok=True)
    for name in ("text.txt", "rows.jsonl", "base", "base-artifact", "data"):
        if not (out / name).exists():
            (out / name).symlink_to(here / name)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(request, out)
    status = _wait(child, started)
    ran = (out / "ran").read_text().splitlines() if (out / "ran").exists() else []
    outputs = {name: (out / name).read_text(errors="backslashreplace") for name in ("out.txt", "err.txt")}
    rss = int((out / "rss").read_text()) if (out / "rss").exists() else 0
    seconds = time.monotonic() - started
    return {
        "status": os.waitstatus_to_exitcode(status),
        "out": outputs["out.txt"],
        "err": outputs["err.txt"],
        "seconds": seconds,
        "rss_bytes": rss,
        "ran": ran,
    }


def _wait(child: int, started: float) -> int:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() - started > LIMIT_SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.005)


def _child(request: dict[str, str], out: Path) -> None:
    os.setsid()
    for name, descriptor in (("out.txt", 1), ("err.txt", 2)):
        os.dup2(os.open(out / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    _watch(Path(request["folder"]), out / "ran")
    warnings.simplefilter("ignore")
    status = 1
    try:
        status = (COMMANDS | SENTINEL)[request["command"]](Path(request["folder"]), out)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 (the tests look for the traceback, whatever was raised)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        (out / "rss").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        os._exit(status)


def _watch(folder: Path, note: Path) -> None:
    """Write down each code object of the folder that runs, each class a pickle asks for, and each connection."""
    inside = str(folder)
    descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "exec" and inside in str(getattr(details[0], "co_filename", "")):
            os.write(descriptor, f"exec {details[0].co_filename}\n".encode())
        elif event in ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "os.system"):
            os.write(descriptor, f"{event} {details[1:] if event == 'socket.connect' else details}\n".encode())

    sys.addaudithook(hook)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
