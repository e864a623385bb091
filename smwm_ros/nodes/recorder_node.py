"""Records bags of what the robot senses and does."""

from __future__ import annotations

import ctypes
from collections import Counter
from contextlib import suppress
from typing import Any

from rclpy.duration import Duration
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger

from smwm_ros.contract import Contract
from smwm_ros.data.bags.topics import APPLIED_ACTION, CONTRACT_KEY, EPISODE_EVENTS
from smwm_ros.errors import DataError, SmwmError
from smwm_ros.messages import command_type, header, image_type
from smwm_ros.msg import AppliedAction, EpisodeEvent
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import CONTRACT, SENSOR_RELIABILITY, Param, from_settings
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import EVERY
from smwm_ros.nodes.recording import Intake, Stream
from smwm_ros.nodes.uncalled import Uncalled
from smwm_ros.runtime.backlog import Message
from smwm_ros.runtime.recording import Recorded, Recorder, RecorderSettings
from smwm_ros.srv import MarkEpisode, Snapshot, StartRecording

LAST_WORD = Duration(seconds=1)
"""How long a node that fails waits for its last diagnostics to arrive."""


class RecorderNode(SmwmNode):
    """
    Writes the contract's topics, ``applied_action`` and ``episode_events`` into bags, as they came.

    Services: ``~/start``, ``~/stop``, ``~/mark_episode``, ``~/snapshot``. A thread takes the messages
    from the middleware, another one writes them; between them waits what the disk cannot take yet, up
    to a bound. What is lost before or there is counted, by topic.

    A write that fails (a full disk) ends the node with exit code 1; what was written before stays
    readable. A bag is whole once its recording has ended; a recorder that was killed loses about the
    last half second, and what it leaves can be read and mended.
    """

    parameters = (
        CONTRACT,
        SENSOR_RELIABILITY,
        Param(name="record", default=True, description="Record at once; otherwise wait for ~/start."),
        Param(
            name="bag",
            default="",
            description="Folder of the bag to record at once; it must not exist. Empty: by date and time.",
        ),
        Param(
            name="content",
            default="everything",
            description="All topics of the contract, or only what training needs: images, joints, actions.",
            choices=("everything", "training"),
        ),
        Param(
            name="queue",
            default=500,
            low=1,
            high=100_000,
            unit="messages",
            description="Those of a topic that may wait in the middleware; beyond it the oldest are lost.",
        ),
        *from_settings(RecorderSettings),
    )

    def set_up(self) -> None:
        """Subscribe, offer the services, and begin to record if wanted."""
        self._recorder: Recorder | None = None
        contract = self.read_contract()
        self._recorder = Recorder(
            RecorderSettings(**{name: self.value(name) for name in RecorderSettings.model_fields}),
            prefix=contract.name,
            custom_data={CONTRACT_KEY: contract.model_dump_json()},
            failed=self._on_failure,
        )
        if self.value("record"):
            self._recorder.start(self.value("bag"))
        self._streams = self._subscribe(contract)
        self._events = self.offer(EpisodeEvent, EPISODE_EVENTS, EVERY)
        self.serve(StartRecording, "~/start", self._on_start)
        self.serve(Trigger, "~/stop", self._on_stop)
        self.serve(MarkEpisode, "~/mark_episode", self._on_mark)
        self.serve(Snapshot, "~/snapshot", self._on_snapshot)

    def start(self) -> None:
        """Begin to take messages."""
        self._intake = Intake(self._streams, self._deliver, self._on_losses, self._on_defect)
        self._intake.start()
        topics = ", ".join(stream.topic.name for stream in self._streams)
        self.get_logger().info(f"{self._state()}; topics: {topics}")

    def stop(self) -> None:
        """Take what has come so far, and then no more."""
        self._intake.stop()

    def tear_down(self) -> None:
        """Make the bag whole and close it."""
        if self._recorder is None or not self._recorder.recording:
            return
        try:
            self._log(self._recorder.stop())
        except SmwmError:
            self._end_in_failure()
            raise

    def report(self) -> None:
        """Show what is recorded and what was lost."""
        if self._recorder is not None:
            self.monitor.show(**self._recorder.status())

    def _subscribe(self, contract: Contract) -> list[Stream]:
        observation = contract.observation
        sensors = {observation.image.topic: image_type(contract)}
        others = {APPLIED_ACTION: AppliedAction, EPISODE_EVENTS: EpisodeEvent}
        if observation.joints:
            sensors[observation.joints.topic] = JointState
        if self.value("content") == "everything":
            others[contract.action.topic] = command_type(contract)
            if observation.depth:
                sensors[observation.depth.topic] = Image
            if observation.camera_info:
                sensors[observation.camera_info.topic] = CameraInfo
        group = Uncalled()
        reliability = ReliabilityPolicy[self.value("sensor_reliability").upper()]
        return [
            Stream(self, group, kind, topic, wanted, self.value("queue"))
            for topics, wanted in ((sensors, reliability), (others, ReliabilityPolicy.RELIABLE))
            for topic, kind in topics.items()
        ]

    def _on_start(self, request: Any, response: Any) -> Any:
        path = self._recorder.start(self._recorder.within(request.bag))
        self.get_logger().info(self._state())
        response.success, response.bag = True, str(path)
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        self._intake.collect()
        recorded = self._recorder.stop()
        self._log(recorded)
        response.success, response.message = True, str(recorded.path)
        return response

    def _on_mark(self, request: Any, response: Any) -> Any:
        if request.outcome not in (EpisodeEvent.UNKNOWN, EpisodeEvent.SUCCESS, EpisodeEvent.FAILURE):
            raise DataError(f"outcome {request.outcome} is not one of UNKNOWN (0), SUCCESS (1), FAILURE (2)")
        if not (self._recorder.recording or self._recorder.keeping):
            raise DataError("nothing is being recorded; start a recording first")
        stamp = self.get_clock().now()
        event = EpisodeEvent(
            header=header(stamp.nanoseconds), outcome=request.outcome, label=request.label, ends=request.ends
        )
        # Into the bag it comes like everybody else's, through the subscription.
        self._events.publish(event)
        response.success, response.stamp = True, event.header.stamp
        return response

    def _on_snapshot(self, request: Any, response: Any) -> Any:
        self._intake.collect()
        made = self._recorder.snapshot(self._recorder.within(request.bag), request.seconds)
        response.success, response.bag = True, str(made.path)
        response.messages, response.seconds = sum(made.counts.values()), made.seconds
        return response

    def _deliver(self, messages: list[Message]) -> None:
        if dropped := self._recorder.offer(messages):
            self._fault("dropped", dropped, "were dropped: the disk does not keep up")

    def _on_losses(self, lost: Counter[str]) -> None:
        self._recorder.miss(lost)
        self._fault("lost", lost, "were lost on the way to the recorder")

    def _fault(self, kind: str, missing: Counter[str], how: str) -> None:
        for topic, count in missing.items():
            self.fault(f"{kind}.messages", f"{count} messages of {topic} {how}")

    def _on_failure(self, error: SmwmError) -> None:
        """Say why the recording ended, and end the process with an error; called by the writing thread."""
        self.get_logger().error(f"recording has stopped: {error}")
        self.monitor.fail(str(error))
        self.publish_diagnostics(LAST_WORD)
        self._end_in_failure()

    def _on_defect(self, error: Exception) -> None:
        self.log_exception("taking messages", error)
        self._on_failure(DataError(f"taking messages failed: {error!r}"))

    def _end_in_failure(self) -> None:
        # Not finish(): a signal may have asked for exit code 0 already.
        self.finished.set_result(1)

    def _state(self) -> str:
        recording = self._recorder.status()["recording"]
        return f"recording into {recording}" if recording else "waiting for the service ~/start"

    def _log(self, recorded: Recorded) -> None:
        counts = ", ".join(f"{count} of {topic}" for topic, count in recorded.counts.items()) or "no messages"
        lost = sum(recorded.lost.values())
        self.get_logger().info(f"{recorded.path}: recorded {counts}; {lost} messages were lost")


def _reuse_memory() -> None:
    """
    Let the C library keep the memory of old messages for new ones, up to 64 MiB.

    glibc would give back every image's and ask for it again: the page faults cost as much as the
    compression.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(AttributeError):  # another C library
        for option in (trim_threshold, mmap_threshold):
            ctypes.CDLL(None).mallopt(option, 64 << 20)


def main() -> None:
    """Run the node."""
    _reuse_memory()
    run(lambda: RecorderNode("recorder"))


if __name__ == "__main__":
    main()
