"""Plays a bag: its messages go out again as they came in, with their own timing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool

from smwm_ros.data.bags.offered_qos import Overrides, load_overrides, to_offer
from smwm_ros.data.bags.playback import Message, Playback, PlaybackSettings
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.selection import choose_topics
from smwm_ros.errors import ConfigError, DataError, SmwmError
from smwm_ros.messages import to_time
from smwm_ros.nodes.bag_topics import has_header, message_class, profile
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import Param, from_settings
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import CLOCK
from smwm_ros.stack.transport import large_messages

CLOCK_TOPIC = "/clock"
LOOK = 0.05
"""Seconds between two looks at whether all topics have subscribers."""
SETTLE = 0.5
"""Seconds from a publisher's knowing a subscriber until that surely knows the publisher."""
DELIVERY = 2.0
"""Seconds for subscribers of reliable topics to acknowledge, at the end; Fast DDS asks them each 3 s."""


class PlayerNode(SmwmNode):
    """
    Publishes a bag's messages, byte for byte, under their recorded quality of service; then ends.

    Topics are published relative to the node's namespace and can be remapped. ``~/pause`` stops the
    bag's time, and lets it go on. Messages of types that are not installed, or that have another
    definition here, are left out; asked for by name, they are an error.
    """

    parameters = (
        Param(name="bag", default="", description="Bag to play: its folder, or an .mcap or .db3 file."),
        *from_settings(PlaybackSettings),
        Param(
            name="topics",
            default="",
            description="Names or patterns (/camera/*) of the topics to play, spaces between; empty: all.",
        ),
        Param(name="without", default="", description="Names or patterns of the topics to leave out."),
        Param(name="qos", default="", description="YAML file with QoS overrides, as for ros2 bag play."),
        Param(
            name="reliable", default=False, description="Offer all topics reliably, whatever the bag says."
        ),
        Param(
            name="wait",
            default=1.0,
            low=0.0,
            high=86_400.0,
            unit="s",
            description="Longest wait until each topic has a subscriber.",
        ),
    )

    def set_up(self) -> None:
        """Read what the bag holds, and make the publishers."""
        self.notes: list[str] = []
        self.skipped: dict[str, str] = {}
        self.error: SmwmError | None = None
        self.paused = False
        path = self.value("bag")
        if not path:
            raise ConfigError(
                f"{self.get_fully_qualified_name()}: the parameter 'bag' is empty; "
                "set it to the bag to play, as in: -p bag:=recordings/first"
            )
        settings = PlaybackSettings(**{name: self.value(name) for name in PlaybackSettings.model_fields})
        overrides = load_overrides(self.value("qos")) if self.value("qos") else {}
        with BagReader(path) as bag:
            self.notes += bag.notes
            self._offer(bag, overrides, clock=settings.clock > 0)
            span = bag.span
        self.hardware = Path(path).name
        clock = self.create_publisher(Clock, CLOCK_TOPIC, CLOCK) if settings.clock else None

        def read(start: int) -> Iterator[Message]:
            with BagReader(path) as bag:
                yield from bag.raw(self._topics.keys(), start)

        def make() -> Playback:
            return Playback(
                read,
                span,
                settings,
                send=lambda topic, data: self._topics[topic].publish(data),
                stamped=self._stamped,
                send_clock=lambda stamp: clock.publish(Clock(clock=to_time(stamp))),
            )

        self._make = make
        self.playback = make()
        self.serve(SetBool, "~/pause", self._on_pause)

    def start(self) -> None:
        """Begin to play, from the start."""
        for note in self.notes:
            self.get_logger().warning(note)
        self.playback = self._make()
        self.playback.pause(self.paused)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._play, name="player", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cease to play."""
        self._ending.set()
        self.playback.stop()
        self._thread.join()

    def report(self) -> None:
        """Show how far it has come."""
        report = self.playback.report()
        self.monitor.show(
            position=f"{self.playback.position:.3f} of {self.playback.length:.3f} s",
            messages=sum(report.messages.values()),
            rounds=report.rounds,
            paused=self.paused,
            median_lateness_ms=f"{report.median_lateness * 1e3:.3f}",
            worst_lateness_ms=f"{report.worst_lateness * 1e3:.3f}",
        )

    def result(self) -> dict[str, Any]:
        """Return what was played so far, as JSON-able values."""
        report = self.playback.report()
        figures = asdict(report)
        for name in ("worst_lateness", "median_lateness"):
            figures[f"{name}_ms"] = round(figures.pop(name) * 1e3, 3)
        return {
            "bag": self.value("bag"),
            **figures,
            "messages": sum(report.messages.values()),
            "topics": {topic: report.messages.get(topic, 0) for topic in self._topics},
            "skipped": self.skipped,
        }

    def _offer(self, bag: BagReader, overrides: Overrides, *, clock: bool) -> None:
        """Make a publisher for each topic that can be played."""
        wanted, without = self.value("topics").split(), self.value("without").split()
        self._topics: dict[str, Any] = {}
        self._stamped: set[str] = set()
        if unknown := [topic for topic in overrides if topic not in bag.topics]:
            self.notes.append(f"QoS overrides for topics that the bag has not: {', '.join(unknown)}")
        for topic in choose_topics(bag.topics, wanted, without, bag.path):
            if clock and topic == CLOCK_TOPIC:
                self._skip(topic, "the player publishes its own clock")
                continue
            try:
                kind = message_class(bag, bag.topics[topic])
            except DataError as error:
                if {topic, topic.lstrip("/")} & set(wanted):
                    raise DataError(f"{bag.path}: cannot play {topic}: {error}") from error
                self._skip(topic, str(error))
                continue
            qos = to_offer(bag.offered_qos(topic), overrides.get(topic), reliable=self.value("reliable"))
            if has_header(kind):
                self._stamped.add(topic)
            # Relative to the node's namespace; without one, this is the recorded name.
            self._topics[topic] = self.create_publisher(kind, topic.lstrip("/"), profile(qos))
        if not self._topics:
            raise DataError(f"{bag.path}: nothing can be played. {'; '.join(self.notes)}")

    def _skip(self, topic: str, why: str) -> None:
        self.skipped[topic] = why
        self.notes.append(f"{topic} is left out: {why}")

    def _play(self) -> None:
        try:
            self._wait_for_subscribers()
            self.playback.run()
            self._wait_for_delivery()
        except SmwmError as error:
            self.error = error
            self.get_logger().error(str(error))
        except Exception as error:
            self.error = DataError(f"playing failed: {error!r}")
            self.log_exception("playing", error)
        if not self._ending.is_set():
            self.finish(0 if self.error is None else 1)

    def _wait_for_subscribers(self) -> None:
        """Wait until each topic has a subscriber, or for as long as the parameter says."""
        deadline = time.monotonic() + self.value("wait")
        alone = self._alone()
        while alone and time.monotonic() < deadline and not self._ending.wait(LOOK):
            alone = self._alone()
        if self.value("wait") and len(alone) < len(self._topics):
            self._ending.wait(SETTLE)
        if alone and self.value("wait"):
            self.get_logger().info(f"no subscriber yet: {', '.join(alone)}")

    def _wait_for_delivery(self) -> None:
        """Wait until what was sent reliably has arrived: with its publisher gone, nobody can ask for it."""
        deadline = time.monotonic() + DELIVERY
        for publisher in self._topics.values():
            if publisher.qos_profile.reliability is ReliabilityPolicy.RELIABLE and not self._ending.is_set():
                publisher.wait_for_all_acked(Duration(seconds=max(0.0, deadline - time.monotonic())))

    def _alone(self) -> list[str]:
        """Return the topics without a subscriber."""
        return [topic for topic, publisher in self._topics.items() if not publisher.get_subscription_count()]

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.paused = request.data
        self.playback.pause(request.data)
        response.success = True
        response.message = f"{'paused' if request.data else 'playing'} at {self.playback.position:.3f} s"
        return response


def main() -> None:
    """Run the node."""
    os.environ.update(large_messages())
    run(lambda: PlayerNode("player"))


if __name__ == "__main__":
    main()
