"""Messages on their way into a bag, and a bounded number of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from rosbags.interfaces import Qos

from smwm_ros.data.bags.writer import BagWriter


class Topic(NamedTuple):
    """Where messages come from."""

    name: str
    """The full name."""
    kind: str
    """Message type, as bags name it."""
    qos: Qos | None = None
    """What the publisher offered, if known."""


class Message(NamedTuple):
    """One message as it came over the wire."""

    topic: Topic
    received: int
    """When, in nanoseconds."""
    data: bytes
    """Serialized (CDR)."""


class MessageWindow:
    """The newest messages, in the order in which they came, bounded in bytes and in the time they span."""

    def __init__(self, max_bytes: int, max_ns: int | None = None) -> None:
        """
        Make an empty window.

        Args:
            max_bytes: of the messages' data.
            max_ns: between the oldest message and the newest.
        """
        self._max_bytes, self._max_ns = max_bytes, max_ns
        self._messages: deque[Message] = deque()
        self.bytes = 0
        """Of the data of all messages in it."""

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message) -> list[Message]:
        """Add the newest message; return the oldest ones that had to give way, at worst itself."""
        self._messages.append(message)
        self.bytes += len(message.data)
        since = -(2**63) if self._max_ns is None else message.received - self._max_ns
        gone = []
        while self._messages and (self.bytes > self._max_bytes or self._messages[0].received < since):
            gone.append(self.pop())
        return gone

    def pop(self) -> Message:
        """Take out the oldest message."""
        message = self._messages.popleft()
        self.bytes -= len(message.data)
        return message

    def since(self, received: int) -> list[Message]:
        """Return the messages received at a time (ns) or later; they stay."""
        return [message for message in self._messages if message.received >= received]

    @property
    def newest(self) -> int:
        """When the newest message was received, ns; 0 if there is none."""
        return self._messages[-1].received if self._messages else 0


def store(bag: BagWriter, messages: Iterable[Message]) -> None:
    """
    Write messages into a bag; a topic is announced with its first one.

    Raises:
        DataError: see BagWriter.
    """
    for message in messages:
        topic = message.topic
        if topic.name not in bag.counts:
            bag.add_topic(topic.name, topic.kind, topic.qos)
        bag.write(topic.name, message.received, message.data)
