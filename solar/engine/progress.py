"""One line for each stage: live on a terminal, printed at the end elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_SHOWN = (
    ("loss_last", "loss {:.3f}"),
    ("valid_loss_first", "held-out {:.3f} ->"),
    ("valid_loss_last", "{:.3f}"),
    ("accuracy_last", "accuracy {:.0%}"),
    ("skipped_steps", "{:.0f} steps skipped"),
    ("rollbacks", "{:.0f} rollbacks"),
    ("tokens_per_second", "{:,.0f} tokens/s"),
    ("attention", "attention {}"),
    ("adapter_base", "base in {}"),
    ("summary", "{}"),
)
"""Metrics in a stage's last line, in this order, each with its format."""
_SHOWN_IF_POSITIVE = ("skipped_steps", "rollbacks")
_USUAL = ("attention", "segments (cpu)")
"""The metric and value that go without saying."""


@dataclass
class Line:
    """The line of one stage."""

    name: str
    live: Live | None
    started: float = field(default_factory=time.monotonic)
    ended: str = ""
    console: Console | None = None
    announced: str = ""

    def update(self, text: str) -> None:
        """Replace the live line."""
        if self.live is not None:
            self.live.update(self._text("·", text, "cyan"))

    def announce(self, text: str) -> None:
        """Replace the live line, or print the text where there is none; the same text is printed once."""
        if text != self.announced and self.live is None and self.console is not None:
            self.console.print(self._text("·", text, "cyan"), soft_wrap=True)
        self.announced = text
        self.update(text)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Set the last line from the stage's metrics."""
        shown = {
            key: value
            for key, value in metrics.items()
            if (value or key not in _SHOWN_IF_POSITIVE) and (key, value) != _USUAL
        }
        self.ended = " ".join(form.format(shown[key]) for key, form in _SHOWN if shown.get(key) is not None)

    def _text(self, mark: str, text: str, style: str) -> Text:
        seconds = time.monotonic() - self.started
        return Text.assemble((f"{mark} ", style), f"{self.name:<16} ", (f"{seconds:6.1f} s  ", "dim"), text)


@dataclass
class Progress:
    """Prints the lines."""

    console: Console

    @contextmanager
    def stage(self, name: str) -> Iterator[Line]:
        """The line of one stage, from its start to its end."""
        if not self.console.is_terminal:
            line = Line(name, None, console=self.console)
            yield line
            self.console.print(line._text("✓", line.ended, "green"))
            return
        with Live(console=self.console, refresh_per_second=8, transient=True) as live:
            line = Line(name, live)
            line.update("")
            yield line
        self.console.print(line._text("✓", line.ended, "green"))
