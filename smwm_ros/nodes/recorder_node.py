"""Records a bag of what the robot senses and does."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.duration import Duration
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from sensor_msgs.msg import CameraInfo, Image, JointState

from smwm_ros.data.bags.topics import APPLIED_ACTION, CONTRACT_KEY
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.errors import ConfigError, DataError
from smwm_ros.messages import command_type, image_type
from smwm_ros.msg import AppliedAction
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import CONTRACT, SENSOR_RELIABILITY, Param
from smwm_ros.nodes.process import run

COLLECT = 0.05
"""Seconds between two looks at the queues; the middleware notes when a message came."""
FLUSH = 0.5
"""Seconds until what was received is in the operating system's hands: what a kill can lose."""


class Uncalled(CallbackGroup):
    """
    Subscriptions that the executor leaves alone, so that the node empties their queues itself.

    A turn of rclpy's executor takes about a hundred times as long as taking a message from a queue.
    """

    def can_execute(self, entity: Any) -> bool:
        """Never."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""


@dataclass
class Stream:
    """One topic that is recorded."""

    subscription: Subscription[Any]
    kind: str
    """Message type, as bags name it."""
    lost: int = 0
    """Messages that never came, as far as the middleware numbers them."""
    sequence: dict[bytes, int] = field(default_factory=dict)
    """Number of the newest message of each publisher; a step of more than one is a loss."""

    @property
    def topic(self) -> str:
        """The full name."""
        return self.subscription.topic_name

    def take(self) -> tuple[bytes, int] | None:
        """Take the oldest message of the queue, serialized, and the time (ns) it was received."""
        taken = self.subscription.handle.take_message(self.subscription.msg_type, True)
        if taken is None:
            return None
        data, info = taken
        # Both depend on the middleware; the publisher is told from Kilted on.
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is not None and publisher is not None:
            before = self.sequence.get(publisher["data"], number - 1)
            self.lost += max(0, number - before - 1)
            self.sequence[publisher["data"]] = number
        return data, info["received_timestamp"]


class RecorderNode(SmwmNode):
    """
    Writes the contract's topics and ``applied_action`` into an MCAP bag, as they came over the wire.

    Queues are bounded: when the disk cannot keep up, the oldest messages are lost, counted and
    reported. A write that fails (a full disk) ends the node with exit code 1; what was written before
    stays readable. The bag is whole once the node has ended; one that was killed loses about the last
    half second, and can be read all the same.
    """

    parameters = (
        CONTRACT,
        SENSOR_RELIABILITY,
        Param(name="bag", default="", description="Folder of the bag to write; it must not exist yet."),
        Param(
            name="content",
            default="everything",
            description="All topics of the contract, or only what training needs: images, joints, actions.",
            choices=("everything", "training"),
        ),
        Param(
            name="compression", default="zstd", description="Of the bag's chunks.", choices=("zstd", "none")
        ),
        Param(
            name="queue",
            default=500,
            low=1,
            high=100_000,
            description="Messages of a topic that may wait to be written; beyond it the oldest are lost.",
        ),
    )

    def set_up(self) -> None:
        """Create the bag and subscribe."""
        self._bag: BagWriter | None = None
        self._uncalled = Uncalled()
        contract = self.read_contract()
        path = self.value("bag")
        if not path:
            raise ConfigError(
                f"{self.get_fully_qualified_name()}: the parameter 'bag' is empty; "
                "set it to the folder of the bag to write, as in: -p bag:=recordings/first"
            )
        self._bag = BagWriter(
            path,
            custom_data={CONTRACT_KEY: contract.model_dump_json()},
            compress=self.value("compression") == "zstd",
        )
        observation = contract.observation
        sensors = {observation.image.topic: image_type(contract)}
        actions = {APPLIED_ACTION: AppliedAction}
        if observation.joints:
            sensors[observation.joints.topic] = JointState
        if self.value("content") == "everything":
            actions[contract.action.topic] = command_type(contract)
            if observation.depth:
                sensors[observation.depth.topic] = Image
            if observation.camera_info:
                sensors[observation.camera_info.topic] = CameraInfo
        reliability = ReliabilityPolicy[self.value("sensor_reliability").upper()]
        self._streams = [
            *(self._subscribe(topic, kind, reliability) for topic, kind in sensors.items()),
            *(self._subscribe(topic, kind, ReliabilityPolicy.RELIABLE) for topic, kind in actions.items()),
        ]
        self.every(COLLECT, self._collect)
        self.every(FLUSH, self._flush)

    def start(self) -> None:
        """Say where the recording goes."""
        topics = ", ".join(stream.topic for stream in self._streams)
        self.get_logger().info(f"recording {topics} into {self.value('bag')}")

    def stop(self) -> None:
        """Take what has come so far."""
        self._collect()

    def tear_down(self) -> None:
        """Make the bag whole and close it."""
        bag, self._bag = self._bag, None
        if bag is None:
            return
        self._log_counts(bag)
        try:
            bag.close()
        except DataError:
            self._end_in_failure()
            raise

    def _subscribe(self, topic: str, kind: Any, reliability: ReliabilityPolicy) -> Stream:
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=self.value("queue"), reliability=reliability
        )
        subscription = self.create_subscription(
            kind, topic, _never_called, profile, callback_group=self._uncalled, raw=True
        )
        return Stream(subscription, f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}")

    def _collect(self) -> None:
        """Move everything from the queues into the bag, in the order in which it was received."""
        if self._bag is None:
            return
        received = []
        for stream in self._streams:
            lost = stream.lost
            received += [(stamp, stream, data) for data, stamp in iter(stream.take, None)]
            if stream.lost > lost:
                self.fault(
                    "dropped.messages",
                    f"{stream.lost - lost} messages of {stream.topic} were lost on the way to the recorder",
                )
        received.sort(key=itemgetter(0))
        try:
            for stamp, stream, data in received:
                if stream.topic not in self._bag.counts:
                    self._bag.add_topic(stream.topic, stream.kind, self._offered(stream.topic))
                self._bag.write(stream.topic, stamp, data)
        except DataError as error:
            self._give_up(error)

    def _flush(self) -> None:
        if self._bag is None:
            return
        self.monitor.show(**{f"recorded {topic}": count for topic, count in self._bag.counts.items()})
        try:
            self._bag.flush()
        except DataError as error:
            self._give_up(error)

    def _give_up(self, error: DataError) -> None:
        """Stop recording, keep what is there, and end the process with an error."""
        self.get_logger().error(f"recording has stopped: {error}")
        bag, self._bag = self._bag, None
        if bag is not None:
            self._log_counts(bag)
            bag.abort()
        self._end_in_failure()

    def _end_in_failure(self) -> None:
        # Not finish(): a signal may have asked for exit code 0 already.
        self.finished.set_result(1)

    def _log_counts(self, bag: BagWriter) -> None:
        counts = ", ".join(f"{count} of {topic}" for topic, count in bag.counts.items()) or "no messages"
        lost = sum(stream.lost for stream in self._streams)
        self.get_logger().info(f"{bag.path}: recorded {counts}; {lost} messages were lost")

    def _offered(self, topic: str) -> Qos | None:
        """Return the QoS that the topic's publisher offers, as bags describe it."""
        publishers = self.get_publishers_info_by_topic(topic)
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


def _never_called(_: bytes) -> None:
    """Stand for the callback that rclpy asks for; see Uncalled."""


def main() -> None:
    """Run the node."""
    run(lambda: RecorderNode("recorder"))


if __name__ == "__main__":
    main()
