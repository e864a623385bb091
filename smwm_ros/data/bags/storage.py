"""What the files of a bag have in common, whatever their format."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2.metadata import parse_qos

from smwm_ros.data.bags.yaml_text import load_yaml
from smwm_ros.errors import DataError

CDR = "cdr"
NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")
FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
    "": MessageDefinitionFormat.NONE,
}
LARGEST_QOS = 2**16
"""Bytes of the text in which a topic's quality of service is noted."""
HOPELESS = "Nothing can be recovered; record it again"
LAST_STAMP = 2**63 - 1
HELD = 2**28
"""Bytes of messages that are held back to be put in order."""


class Damaged(DataError):
    """A place of a file that is not as its format demands."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"at byte {offset}: {reason}")
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True)
class Channel:
    """A topic as one file announces it."""

    topic: str
    kind: str
    definition: MessageDefinition = NO_DEFINITION
    qos: tuple[Qos, ...] = ()
    encoding: str = CDR


Message = tuple[int, Channel, bytes]
"""Time of reception (ns), topic, and the message, serialized."""


@dataclass(frozen=True)
class Loss:
    """Something in a bag that cannot be read."""

    file: str
    start: int
    end: int
    """Which bytes of the file."""
    reason: str
    messages: int | None = None
    """How many messages; None if that is not known."""
    span: tuple[int, int] | None = None
    """When they were received (ns), as far as that is known."""

    def __str__(self) -> str:
        what = "an unknown number of messages" if self.messages is None else f"{self.messages} messages"
        if self.span is not None and self.span[0] <= self.span[1]:
            what += f" received within {(self.span[1] - self.span[0]) / 1e9:.2f} s"
        where = f", bytes {self.start} to {self.end}" if self.end else ""
        return f"{self.file}{where}: {what}: {self.reason}"


def parse_offered_qos(text: str) -> tuple[Qos, ...]:
    """Read the quality of service that publishers offered; nothing if it is not told in a known way."""
    if text.strip() in ("", "[]") or len(text) > LARGEST_QOS:
        return ()
    try:
        return tuple(parse_qos(load_yaml(text)))
    except (LookupError, TypeError, AttributeError, ValueError):
        return ()


def in_order(blocks: Iterable[tuple[int, Callable[[], list[Message]]]]) -> Iterator[Message]:
    """
    Put messages in the order of reception, block by block.

    Args:
        blocks: time of each one's first message, and what reads it; in the order of these times.

    Yields:
        All messages. Only where more than ``HELD`` bytes overlap in time does the order suffer.
    """
    waiting: list[tuple[int, int, Message]] = []
    held = number = 0
    iterator = iter(blocks)
    following = next(iterator, None)
    while following is not None:
        messages = following[1]()
        following = next(iterator, None)
        if not messages:
            continue
        messages.sort(key=itemgetter(0))
        if not waiting and (following is None or messages[-1][0] <= following[0]):
            yield from messages
            continue
        for message in messages:
            heapq.heappush(waiting, (message[0], number, message))
            number += 1
            held += len(message[2])
        while waiting and (following is None or waiting[0][0] <= following[0] or held > HELD):
            message = heapq.heappop(waiting)[2]
            held -= len(message[2])
            yield message
