"""Work that resumes where it was stopped: results as lines of JSON, in the order of the items."""

import asyncio
import json
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def go_on(
    journal: Path,
    items: Iterator[T],
    work: Callable[[int, list[T]], Awaitable[list[Any]]],
    group: int,
    ahead: int,
    progress: Callable[[int, int], None],
) -> int:
    """Work on all items whose results the journal lacks; return the number of results in the journal.

    `work` takes the number of the last item of a group and the `group` items, and returns a result for each item. Up to
    `ahead` groups are under way at once. `progress` takes the items that are done, and those that this call has done.
    """
    before = done = resume(journal)
    missing = (group for group in _groups(items, group) if group[0] > before)
    # With one group at a time, the work itself is what a signal interrupts.
    with journal.open("a", encoding="utf-8") as file, _signals_by_the_loop() if ahead > 1 else nullcontext():
        async with aclosing(_in_order(lambda group: work(*group), missing, ahead)) as results:
            async for rows in results:
                file.write(json.dumps(rows) + "\n")
                file.flush()
                os.fsync(file.fileno())
                done += len(rows)
                progress(done, done - before)
    return done


@contextmanager
def _signals_by_the_loop() -> Iterator[None]:
    """Cancel the task at a signal: an exception that a handler raises inside a callback of the loop would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task, received = asyncio.get_running_loop(), asyncio.current_task(), list[int]()

    def take(number: int) -> None:
        received.append(number)
        if task is not None:
            task.cancel()

    known = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    handlers = {number: handler for number, handler in known.items() if callable(handler)}
    for number in handlers:
        loop.add_signal_handler(number, take, number)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        for first in received[:1]:
            signal.raise_signal(first)  # for the previous handler


def resume(journal: Path) -> int:
    """The number of results in the journal. A last line without its end, from a run that was killed, is cut off."""
    if not journal.exists():
        return 0
    done = whole_bytes = 0
    with journal.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                done += len(json.loads(line))
                whole_bytes += len(line)
        file.truncate(whole_bytes)
    return done


def results(journal: Path) -> Iterator[Any]:
    """The results in the journal, in order."""
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            yield from json.loads(line)


def _groups(items: Iterator[T], size: int) -> Iterator[tuple[int, list[T]]]:
    """Groups of items, each with the number of its last item."""
    number = 0
    while group := list(islice(items, size)):
        number += len(group)
        yield number, group


async def _in_order(work: Callable[[T], Awaitable[R]], items: Iterator[T], ahead: int) -> AsyncGenerator[R, None]:
    waiting: deque[asyncio.Future[R]] = deque()
    try:
        for item in items:
            waiting.append(asyncio.ensure_future(work(item)))
            if len(waiting) == ahead:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
