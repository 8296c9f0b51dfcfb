"""SIGTERM, SIGINT and SIGUSR1 ask for a stop at the end of the step; a second signal stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
DEFAULTS = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)


class StopRequest:
    """Whether someone asked this process to stop."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def listen(self) -> None:
        """Handle the signals from now on, also those for which a library has installed a handler since."""
        if self.received is None and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Inside the context the first signal is only noted; afterwards the previous handlers are back.

    A signal that arrives after the work ends is re-raised for the previous handler.
    """
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    request = StopRequest()
    request.listen()
    try:
        yield request
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                signal.signal(number, handler)
    if request.received is not None and previous[request.received] not in DEFAULTS:
        signal.raise_signal(request.received)
