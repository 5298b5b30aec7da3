"""Makes the items of an iterator ahead of time in one thread with a bounded queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

# How often a thread whose queue is full looks whether anybody still wants its items.
POLL_SECONDS = 0.1


def prefetched(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yields the items of `items` in order, at most `depth` of them made ahead of time; 0 uses no thread.

    An exception of `items` is raised here, after the items that came before it. The thread ends with `items` or when
    this generator is closed or forgotten, whichever is first.
    """
    if depth == 0:
        yield from items
        return
    # An item is wrapped in a tuple, an exception is itself, None is the end.
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def put(entry: tuple[T] | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=produce, name="tinydata-prefetch", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        closed.set()
        thread.join()
