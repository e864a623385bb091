"""Reading ahead in a thread, by a bounded number of bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Generic, TypeVar

from typing_extensions import Self

Item = TypeVar("Item")

LIMIT = 64 * 2**20
"""Bytes that may wait: two seconds of an uncompressed 1080p camera, little beside a robot's memory."""


class ReadAhead(Generic[Item]):
    """
    An iterator over what a generator yields; the generator runs in a thread of its own.

    The generator is begun, run and closed by that one thread, as SQLite asks of those who use it.
    ``close`` ends it early; use it as a context manager.
    """

    def __init__(
        self,
        generate: Callable[[], Generator[Item, None, None]],
        size: Callable[[Item], int],
        limit: int = LIMIT,
    ) -> None:
        """
        Start the thread.

        Args:
            generate: makes the generator; what it raises is raised to the consumer in its turn.
            size: bytes of an item.
            limit: bytes that may wait. The item that passes the limit is still taken in.
        """
        self._size = size
        self._limit = limit
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._closed = self._done = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, args=(generate,), name="read ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        """Return the next item; wait for it where the generator is slower."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._done)
            if not self._items:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            item = self._items.popleft()
            self._bytes -= self._size(item)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Bytes that were read ahead."""
        return self._bytes

    def _work(self, generate: Callable[[], Generator[Item, None, None]]) -> None:
        try:
            with closing(generate()) as items:
                for item in items:
                    with self._changed:
                        self._items.append(item)
                        self._bytes += self._size(item)
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._closed or self._bytes < self._limit)
                        if self._closed:
                            return
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()
