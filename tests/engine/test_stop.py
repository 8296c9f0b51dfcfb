"""A signal ends a run between two whole states, never inside one."""

import signal

import pytest

from solar.engine.stop import Stop
from solar.errors import Interrupted
from solar.training.interrupt import listening


def test_a_signal_interrupts_at_once_and_the_handlers_return() -> None:
    """T-A7."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), Stop().listening():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_held_is_done_first_and_the_signal_is_not_forgotten() -> None:
    """T-A7."""
    stop, done = Stop(), []
    with pytest.raises(Interrupted, match="SIGUSR1"), stop.listening(), stop.held():
        with stop.held():
            signal.raise_signal(signal.SIGUSR1)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_a_second_signal_does_not_wait() -> None:
    stop, done = Stop(), []
    with pytest.raises(KeyboardInterrupt), stop.listening(), stop.held():
        signal.raise_signal(signal.SIGTERM)
        done.append("first")
        signal.raise_signal(signal.SIGINT)
        done.append("second")
    assert done == ["first"]


def test_one_that_training_noted_too_late_stops_the_run_after_its_stage() -> None:
    """T-A7."""
    stop, done = Stop(), []
    with pytest.raises(Interrupted, match="SIGTERM"), stop.listening(), stop.held():
        with listening():
            signal.raise_signal(signal.SIGTERM)  # the last step was over: nobody looks at the request any more
        done.append("published")
    assert done == ["published"]
