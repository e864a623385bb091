"""Taking messages from the middleware as they came over the wire, in a thread of its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from smwm_ros.nodes.uncalled import Uncalled, never_called
from smwm_ros.runtime.backlog import Message, Topic

COLLECT = 0.05
"""Seconds between two looks at the queues; the middleware notes when a message came."""


class Stream:
    """One topic that is recorded."""

    def __init__(
        self,
        node: Node,
        group: Uncalled,
        kind: Any,
        topic: str,
        reliability: ReliabilityPolicy,
        depth: int,
    ) -> None:
        """
        Subscribe.

        Args:
            node: whose subscription it is.
            group: that it belongs to.
            kind: class of the messages.
            topic: name, relative to the node's namespace.
            reliability: wanted from the publishers.
            depth: messages that may wait to be taken.
        """
        self._node = node
        self._subscription = node.create_subscription(
            kind,
            topic,
            never_called,
            QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability),
            callback_group=group,
            raw=True,
        )
        self.topic = Topic(
            self._subscription.topic_name, f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        )
        self._numbers: dict[bytes, int] = {}  # of the newest message of each publisher

    def take(self, lost: Counter[str]) -> Iterator[Message]:
        """
        Take all messages that wait, serialized, with the time they were received.

        Args:
            lost: is added to, for each message that never came, as far as the middleware numbers them.
        """
        subscription = self._subscription
        while taken := subscription.handle.take_message(subscription.msg_type, True):
            data, info = taken
            # Both depend on the middleware; the publisher is told from Kilted on.
            number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
            if number is not None and publisher is not None:
                before = self._numbers.get(publisher["data"], number - 1)
                if number > before + 1:
                    lost[self.topic.name] += number - before - 1
                self._numbers[publisher["data"]] = number
            if self.topic.qos is None:
                self.topic = self.topic._replace(qos=offered_qos(self._node, self.topic.name))
            yield Message(self.topic, info["received_timestamp"], data)


class Intake:
    """A thread that takes from all streams and hands over what came."""

    def __init__(
        self,
        streams: Sequence[Stream],
        deliver: Callable[[list[Message]], None],
        report: Callable[[Counter[str]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """
        Make it; it does not take yet.

        Args:
            streams: to take from.
            deliver: called with what came, in the order in which it was received; must not wait.
            report: called with how many messages never came, by topic.
            failed: called with an exception that ends the thread.
        """
        self._streams = streams
        self._deliver, self._report, self._failed = deliver, report, failed
        self._taking = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Take what has come so far, and end the thread."""
        self._ending.set()
        self._thread.join()
        self.collect()

    def collect(self) -> None:
        """Take and hand over what has come so far."""
        with self._taking:
            lost: Counter[str] = Counter()
            came = [message for stream in self._streams for message in stream.take(lost)]
            came.sort(key=attrgetter("received"))
            if came:
                self._deliver(came)
            if lost:
                self._report(lost)

    def _run(self) -> None:
        try:
            while not self._ending.wait(COLLECT):
                self.collect()
        except Exception as error:
            self._failed(error)


def offered_qos(node: Node, topic: str) -> Qos | None:
    """Return the QoS that a topic's publisher offers, as bags describe it; None while it is not known."""
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return None
    profile = publishers[0].qos_profile
    return Qos(
        QosHistory(int(profile.history)),
        profile.depth,
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        _time(profile.deadline),
        _time(profile.lifespan),
        QosLiveliness(int(profile.liveliness)),
        _time(profile.liveliness_lease_duration),
        profile.avoid_ros_namespace_conventions,
    )


def _time(duration: Duration) -> QosTime:
    return QosTime(*divmod(duration.nanoseconds, 1_000_000_000))
