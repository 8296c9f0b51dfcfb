"""SIGTERM, SIGUSR1 and SIGINT end a run in a whole state: a finished stage is published first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from solar.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stop:
    """Handles signals: a signal ends the work at once or, inside `held`, when that block ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._received: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside this block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay a first signal until this block ends; a second signal ends the work at once."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._received is not None and not self._depth:
            raise _interruption(self._received)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._depth and self._received is None:
            self._received = signal.Signals(number)
        else:
            raise _interruption(signal.Signals(number))


def _interruption(received: signal.Signals) -> BaseException:
    if received is signal.SIGINT:
        return KeyboardInterrupt()
    return Interrupted(f"stopped by {received.name}; the same command goes on after the last finished stage")
