"""The simulated robot: any registered task, with the topics of its contract."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import SetBool, Trigger

from smwm_ros.contract import Contract
from smwm_ros.data.images import enlarge
from smwm_ros.errors import SmwmError
from smwm_ros.messages import command_type, decode_command, encode_image, from_time, image_type, to_time
from smwm_ros.msg import AppliedAction
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import CONTRACT, LOCK_STEP, SENSOR_RELIABILITY, Param
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import CLOCK, EVERY, NEWEST, sensor_source
from smwm_ros.srv import Reset
from smwm_ros.tasks import make_task

FRAME = "camera_optical_frame"
RESET_GAP = 2.0
"""A reset shows as a gap in the stamps: this multiple of the contract's ``max_gap``."""
LOOK = 0.1
"""Lock-step: seconds between two looks at whether the tick's action is overdue."""
REPEAT = 1.0
"""Lock-step: seconds without an answer after which an episode's first observation is sent again."""
WARN = 5.0
"""Lock-step: seconds without a command until a warning."""


class SimNode(SmwmNode):
    """
    Publishes what the robot senses at the contract's rate, and does what it is commanded.

    In real time, stamps are the system clock's, and a command holds from the moment it arrives until
    the next one, as with ros2_control's forward controllers.

    In lock-step, time stands still until a tick's AppliedAction and the command that it speaks of
    are both there: every tick gets exactly the action meant for it, however slow the stack is. An
    episode's first observation is sent once somebody listens to it and somebody sends commands,
    and again each second until it is answered, as a node in between may not be connected yet.

    Services: ``sim/reset``; ``sim/pause`` (time stands still); ``sim/step`` (one tick with the newest
    command, while paused).
    """

    parameters = (
        CONTRACT,
        LOCK_STEP,
        SENSOR_RELIABILITY,
        Param(
            name="seed", default=0, low=0, description="Draws the first state and all that is random later."
        ),
        Param(name="distractors", default=False, description="Show moving blobs and a flickering light."),
        Param(
            name="enlarge",
            default=False,
            description="Render only the square that the encoder sees, and enlarge it to the camera's size: "
            "a large camera's messages in the time of a small one. Without depth and camera info.",
        ),
    )

    def set_up(self) -> None:
        """Build the task and the topics."""
        self._contract = self.read_contract()
        self._lock_step = self.value("lock_step")
        # Not every task has distractors: say so only when they are wanted.
        options = {"distractors": True} if self.value("distractors") else {}
        self._stream = self._contract.observation.image
        self._enlarge = self.value("enlarge")
        self._task = make_task(small(self._contract) if self._enlarge else self._contract, **options)
        self._observation, _ = self._task.reset(seed=self.value("seed"))

        action, observation = self._contract.action, self._contract.observation
        profile = sensor_source(self.value("sensor_reliability"))
        self._images = self.offer(image_type(self._contract), observation.image.topic, profile)
        self._joints = self._depths = self._infos = None
        if observation.joints:
            self._joints = self.offer(JointState, observation.joints.topic, profile)
        if observation.depth and not self._enlarge:
            self._depths = self.offer(Image, observation.depth.topic, profile)
        if observation.camera_info and not self._enlarge:
            self._infos = self.offer(CameraInfo, observation.camera_info.topic, profile)
        self.listen(command_type(self._contract), action.topic, self._on_command, NEWEST)
        if self._lock_step:
            self._clocks = self.create_publisher(Clock, "/clock", CLOCK)
            self.listen(AppliedAction, "applied_action", self._on_applied, EVERY)
            self.every(LOOK, self._look)
        else:
            self.every(self._contract.period, self._on_timer)
        self.serve(Reset, "sim/reset", self._on_reset)
        self.serve(SetBool, "sim/pause", self._on_pause)
        self.serve(Trigger, "sim/step", self._on_step)

    def start(self) -> None:
        """Let time run."""
        self._paused = False
        self._held = self._contract.action.safe_values
        self._applied: AppliedAction | None = None
        # Lock-step: the time of the tick that waits for its action (0 would mean "no time" in ROS), and
        # in steady seconds, when its observation was sent and since when it has been waiting.
        self._now = self._contract.period_ns
        self._sent = -np.inf
        self._since = time.monotonic()
        # Real time: up to when the physics has come, in steady seconds.
        self._simulated = time.monotonic()

    def tear_down(self) -> None:
        """Free the renderer."""
        if hasattr(self, "_task"):
            self._task.close()

    def _on_command(self, message: Any) -> None:
        try:
            values = decode_command(self._contract, message)
        except SmwmError as error:
            self.fault("dropped.command", f"command ignored: {error}")
            return
        self._catch_up()
        self._held = values
        self._step_if_answered()

    def _on_applied(self, message: AppliedAction) -> None:
        self._applied = message
        self._step_if_answered()

    def _step_if_answered(self) -> None:
        # Action and command come on separate topics, in any order: the tick is answered once they agree.
        if (
            self._lock_step
            and not self._paused
            and self._applied is not None
            and from_time(self._applied.header.stamp) >= self._now
            and np.array_equal(self._applied.values, self._held)
        ):
            self._step()

    def _step(self) -> None:
        begin = time.monotonic()
        self._observation = self._task.step(self._held)[0]
        self._now += self._contract.period_ns
        self._publish(self._now)
        self.monitor.done(time.monotonic() - begin)

    def _look(self) -> None:
        if self._paused:
            return
        now = time.monotonic()
        if self._applied is None and now - self._sent > REPEAT and self._connected():
            self._publish(self._now)
        if now - self._since > WARN:
            self._since = now
            self.fault("waiting", f"no command for the tick at {self._now * 1e-9:.3f} s: time stands still")

    def _connected(self) -> bool:
        topics = (self._contract.action.topic, "applied_action")
        return self._images.get_subscription_count() > 0 and all(
            self.count_publishers(self.resolve_topic_name(topic)) > 0 for topic in topics
        )

    def _on_timer(self) -> None:
        if self._paused or time.monotonic() < self._simulated:
            return
        begin = time.monotonic()
        self._catch_up()
        stamp = time.time_ns()  # before rendering, which takes its time
        self._observation = self._task.observe()
        self._publish(stamp)
        self.monitor.done(time.monotonic() - begin)

    def _catch_up(self) -> None:
        """Real time: simulate up to now, with the command held so far."""
        now = time.monotonic()
        if not (self._lock_step or self._paused) and now > self._simulated:
            self._task.advance(self._held, now - self._simulated)
            self._simulated = now

    def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        options = {"state": np.array(request.state)} if request.state else None
        self._observation, info = self._task.reset(seed=request.seed % 2**63, options=options)
        self._held = self._contract.action.safe_values
        self._applied = None
        gap = round(RESET_GAP * self._contract.max_gap_ns)
        if self._lock_step:
            self._now += gap
            self._publish(self._now)
            begin = self._now
        else:
            # Silence makes the gap; until it is over, the robot stands still.
            self._simulated = time.monotonic() + gap * 1e-9
            begin = time.time_ns() + gap
        response.success = True
        response.stamp = to_time(begin)
        response.state = info["state"]
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._catch_up()
        self._paused = request.data
        self._since = self._simulated = time.monotonic()
        self._step_if_answered()
        response.success = True
        return response

    def _on_step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._paused:
            response.message = "the simulation is running; pause it first, with sim/pause"
        elif self._lock_step:
            self._step()
        else:
            self._observation = self._task.step(self._held)[0]
            self._publish(time.time_ns())
        response.success = self._paused
        return response

    def _publish(self, stamp_ns: int) -> None:
        """Send what the robot senses; the image comes last, as it is what sets the stack going."""
        stamp = to_time(stamp_ns)
        self._sent = self._since = time.monotonic()
        if self._lock_step:
            self._clocks.publish(Clock(clock=stamp))
        if self._joints:
            message = JointState(
                name=self._task.joint_names,
                position=self._task.joints,
                velocity=self._task.joint_velocities,
            )
            message.header.stamp = stamp
            self._joints.publish(message)
        # The rarely wanted ones only on demand: a depth image takes as long as the whole rest.
        if self._infos and self._infos.get_subscription_count():
            self._infos.publish(self._camera_info(stamp))
        if self._depths and self._depths.get_subscription_count():
            self._depths.publish(self._depth(stamp))
        pixels = self._observation["pixels"]
        if self._enlarge:
            pixels = enlarge(pixels, self._stream)
        self._images.publish(encode_image(self._contract, pixels, stamp_ns, FRAME))

    def _camera_info(self, stamp: Time) -> CameraInfo:
        camera = self._task.camera_info
        message = CameraInfo(
            width=camera.width,
            height=camera.height,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=camera.matrix.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([camera.matrix, np.zeros((3, 1))]).ravel(),
        )
        message.header.stamp, message.header.frame_id = stamp, FRAME
        return message

    def _depth(self, stamp: Time) -> Image:
        metres = self._task.depth()
        encoding = self._contract.observation.depth.encoding
        pixels = metres if encoding == "32FC1" else np.rint(metres * 1000).astype(np.uint16)
        height, width = pixels.shape
        message = Image(height=height, width=width, encoding=encoding, step=pixels.strides[0])
        message.data = pixels.tobytes()
        message.header.stamp, message.header.frame_id = stamp, FRAME
        return message


def small(contract: Contract) -> Contract:
    """Return the contract of a camera that sends no more than the square that the encoder sees."""
    size = contract.observation.image.size
    image = contract.observation.image.model_copy(update={"width": size, "height": size, "crop": None})
    return contract.model_copy(
        update={"observation": contract.observation.model_copy(update={"image": image})}
    )


def main() -> None:
    """Run the node."""
    run(lambda: SimNode("sim"))


if __name__ == "__main__":
    main()
