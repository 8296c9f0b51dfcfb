"""Kills at every call into the system: a child does the work, and dies right before its k-th call."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "open", "fsync", "link", "write")
"""Functions of `os` that change what is on the disk, or say when."""


@contextmanager
def counted(limit: int, act: Callable[[], None], others: Sequence[tuple[object, str]] = ()) -> Iterator[None]:
    """Inside, `act` is called before the call number `limit`, from 0, of `CALLS` and of the functions `others`."""
    count = 0

    def wrap(function: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **keywords: object) -> object:
            nonlocal count
            number, count = count, count + 1
            if number == limit:
                act()
            return function(*arguments, **keywords)

        return wrapper

    places = [*((os, name) for name in CALLS), *others]
    before = [getattr(owner, name) for owner, name in places]
    for (owner, name), function in zip(places, before, strict=True):
        setattr(owner, name, wrap(function))
    try:
        yield
    finally:
        for (owner, name), function in zip(places, before, strict=True):
            setattr(owner, name, function)


def killed_at(
    call: int,
    work: Callable[[], object],
    others: Sequence[tuple[object, str]] = (),
    last: Callable[[], None] = lambda: None,
) -> bool:
    """Do the work in a child that is killed at this call; whether the work made so many calls.

    `last` is done right before the kill, or at the end of the work.
    """

    def die() -> None:
        last()
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            with counted(call, die, others):
                work()
            last()
        except BaseException:  # noqa: BLE001 - a fork must never return into pytest
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the work failed at call {call}"
    return status != 0
