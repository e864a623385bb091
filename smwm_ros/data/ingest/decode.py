"""Decoding in threads, while everything keeps its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2

from smwm_ros.errors import DataError

AHEAD = 64
"""Messages that may wait for their turn."""
AHEAD_BYTES = 1 << 26
"""Their bytes together."""


@dataclass(frozen=True)
class Event:
    """A message on its way to the aligner."""

    kind: str
    stamp: int
    value: Any
    """The message; decoded, what it says, or the DataError that tells why that cannot be known."""
    decode: Callable[[Any], Any] | None = None
    size: int = 0
    """Bytes to decode, where that is worth a thread's while."""


def decoded(events: Iterable[Event], threads: int) -> Iterator[Event]:
    """
    Decode messages, ``threads`` at a time, and give them back in the order in which they came.

    Args:
        events: messages.
        threads: 0 decodes here and now.
    """
    if threads == 0:
        yield from map(_decode, events)
        return
    waiting: deque[tuple[Future[Event] | Event, int]] = deque()
    size = 0
    with ThreadPoolExecutor(threads, "decode") as pool:
        for event in events:
            waiting.append((pool.submit(_decode, event) if event.size else _decode(event), event.size))
            size += event.size
            while waiting and (_ready(waiting[0][0]) or len(waiting) > AHEAD or size > AHEAD_BYTES):
                first, taken = waiting.popleft()
                size -= taken
                yield first if isinstance(first, Event) else first.result()
        for first, _ in waiting:
            yield first if isinstance(first, Event) else first.result()


def _ready(item: Future[Event] | Event) -> bool:
    return isinstance(item, Event) or item.done()


def _decode(event: Event) -> Event:
    if event.decode is None:
        return event
    try:
        value = event.decode(event.value)
    except DataError as error:
        value = error
    except (cv2.error, ValueError) as error:
        value = DataError(f"cannot be decoded ({error})")
    return Event(event.kind, event.stamp, value)
