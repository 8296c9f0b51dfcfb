"""A chat template from outside, rendered in a process of its own that can be ended.

The sandbox of jinja2, as transformers sets it up, keeps a template from reaching files and functions. It bounds neither
time nor memory: `{% for a in range(99999) %}` twice over never ends, and `'x' * 10 ** 10` takes all there is.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import solar
from solar.data.read.messages import BadRow
from solar.errors import DataError

CPU_SECONDS = 10
"""Computing that one rendering may take; 6,000 messages take less than one second."""
MEMORY_BYTES = 1 << 30
"""What the process may take beside its own libraries."""
MOST_CHARACTERS = 1 << 26
"""Characters that one rendering may have."""


class Sandbox:
    """Renders one template. The process starts with the first conversation and ends with this object."""

    def __init__(self, template: str, tokens: Mapping[str, Any], where: str, cpu_seconds: int = CPU_SECONDS) -> None:
        """`tokens` are the special tokens that the template may write; `where` names the tokenizer in messages."""
        self._opening = json.dumps({"template": template, "tokens": {**tokens}, "cpu_seconds": cpu_seconds})
        self._cpu_seconds = cpu_seconds
        self._where = where
        self._process: subprocess.Popen[str] | None = None
        self._owner = -1

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], generation_prompt: bool) -> str:
        """The text of a conversation.

        Raises:
            BadRow: the template refuses this conversation.
            DataError: the template does not end.
        """
        request = {"messages": [*messages], "tools": [*tools] or None, "add_generation_prompt": generation_prompt}
        answer = self._ask(json.dumps(request))
        if "text" in answer:
            return str(answer["text"])
        raise BadRow("template", f"the template refuses this conversation: {answer['error']}")

    def _ask(self, request: str) -> dict[str, Any]:
        if self._process is None or self._owner != os.getpid():
            self._process, self._owner = _start(), os.getpid()
            weakref.finalize(self, _end, self._process, self._owner)
            request = f"{self._opening}\n{request}"
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{request}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):
            return dict(json.loads(line))
        self._process = None
        code = process.wait()
        how = (
            f"does not end: stopped after {self._cpu_seconds} seconds"
            if code == -signal.SIGPROF
            else f"ends its process ({code})"
        )
        raise DataError(f"{self._where}: the chat template {how}; name one of solar's with `template`")


def _start() -> "subprocess.Popen[str]":
    path = os.pathsep.join(filter(None, [str(Path(solar.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "solar.data.encode.sandbox"]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "USE_TORCH": "0", "TRANSFORMERS_VERBOSITY": "error"},
        start_new_session=True,  # Ctrl-C stops the run, which ends this process by closing the pipe
    )


def _end(process: "subprocess.Popen[str]", owner: int) -> None:
    if os.getpid() != owner:
        return
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    process.stdout.close()
    process.wait()


def _serve() -> None:
    """Answer each line of the standard input: the first line holds the template, each other line a conversation."""
    from transformers.utils.chat_template_utils import render_jinja_template

    opening = json.loads(sys.stdin.readline())
    _limit_memory()
    for line in sys.stdin:
        request = json.loads(line)
        # Where computing takes longer, the signal ends the process, also in the middle of an operation of Python's own.
        signal.setitimer(signal.ITIMER_PROF, opening["cpu_seconds"])
        try:
            conversations = [request.pop("messages")]
            (text,), _ = render_jinja_template(
                conversations, chat_template=opening["template"], **request, **opening["tokens"]
            )
            if len(text) > MOST_CHARACTERS:
                raise ValueError(f"it makes {len(text):,} characters of it, more than {MOST_CHARACTERS:,}")
            answer = {"text": text}
        except MemoryError:
            answer = {"error": f"it takes more than {MEMORY_BYTES >> 20} MiB of memory"}
        except RecursionError:
            answer = {"error": "it calls itself too often"}
        except Exception as error:  # noqa: BLE001 (a foreign program may raise anything; whatever it is, it refuses)
            answer = {"error": " ".join(str(error).split())[:500] or type(error).__name__}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def _limit_memory() -> None:
    with suppress(OSError, ValueError):  # a system without this limit still has the limits of time and characters
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    _serve()
