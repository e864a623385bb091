"""A client of a running robot, for commands, benchmarks and tests: goals, resets, and what was sensed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract
from smwm_ros.errors import StackError
from smwm_ros.messages import decode_image, encode_image, from_time, image_type, to_duration, to_time
from smwm_ros.msg import Belief, PlannerStatus
from smwm_ros.nodes.guest import Guest
from smwm_ros.nodes.qos import LATCHED, NEWEST
from smwm_ros.srv import Reset

SPIN = 0.05
"""Longest wait for a message before the processes are looked after, seconds."""


@dataclass(frozen=True)
class Joints:
    """One joint state, in the order of the contract's names."""

    stamp: int
    """ns"""
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]

    def as_state(self, names: Sequence[str], state: Sequence[str]) -> NDArray[np.float64]:
        """
        Write it as a task's state.

        Args:
            names: of the joints, in this order.
            state: of the state's S numbers: a joint for its position, or JOINT_velocity.

        Returns:
            shape (S,)

        Raises:
            StackError: the state holds what joints do not tell.
        """
        values = dict(zip(names, self.positions, strict=True))
        values |= {f"{name}_velocity": value for name, value in zip(names, self.velocities, strict=True)}
        if unknown := [name for name in state if name not in values]:
            raise StackError(
                f"joint states do not tell {', '.join(unknown)}, which this task is judged by; "
                "evaluate it in-process, without --through-ros"
            )
        return np.array([values[name] for name in state])


@dataclass
class Goal:
    """A goal on its way."""

    handle: Any = None
    result: ReachGoal.Result | None = None
    feedback: list[ReachGoal.Feedback] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.result is not None


class RobotClient(Guest):
    """
    Talks to one robot; a context manager. Nothing runs in the background: messages are handled while
    one of the waiting methods runs.
    """

    def __init__(
        self,
        contract: Contract,
        *,
        namespace: str = "",
        reliable: bool = False,
        images: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Join the graph.

        Args:
            contract: of the robot.
            namespace: of its nodes.
            reliable: whether its sensor topics are, as in lock-step; then no message is lost.
            images: collect camera images, too.
            check: called while waiting; raises when it is no use to wait, as ``Supervisor.check`` does.
        """
        self.contract = contract
        self.check = check
        self.joints: list[Joints] = []
        self.images: list[tuple[int, NDArray[np.uint8]]] = []
        """(stamp in ns, RGB image), if asked for."""
        self.belief: Belief | None = None
        self.status: PlannerStatus | None = None
        super().__init__("smwm_client", namespace)
        sensor = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        observation = contract.observation
        self._collected: list[list[Any]] = []
        if observation.joints:
            self._collected.append(self.joints)
            self.listen(JointState, observation.joints.topic, self._on_joints, sensor)
        if images:
            self._collected.append(self.images)
            self.listen(image_type(contract), observation.image.topic, self._on_image, sensor)
        self.listen(Belief, "belief", partial(setattr, self, "belief"), NEWEST)
        self.listen(PlannerStatus, "planner_status", partial(setattr, self, "status"), LATCHED)
        self._goals = ActionClient(self.node, ReachGoal, "reach_goal")
        self._reset = self.node.create_client(Reset, "sim/reset")

    def __exit__(self, *error: object) -> None:
        """Leave the graph."""
        self._goals.destroy()
        super().__exit__(*error)

    def listen(self, kind: Any, topic: str, callback: Callable[[Any], None], profile: QoSProfile) -> None:
        """Subscribe to a topic."""
        self.node.create_subscription(kind, topic, callback, profile)

    def wait(self, seconds: float) -> None:
        """Handle messages for some time (steady seconds)."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self.executor.spin_once(min(left, SPIN))

    def wait_until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """
        Handle messages until a condition holds.

        Args:
            condition: looked at after every message.
            timeout: steady seconds.
            what: is waited for, for the message.

        Raises:
            StackError: it did not come true in time.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise StackError(
                    f"no {what} after {timeout:.0f} s. Is the stack running, in this ROS domain and this "
                    "namespace? `smwm up` starts one; its log files tell more."
                )
            self.check()
            self.executor.spin_once(SPIN)

    def wait_ready(self, timeout: float = 30.0, simulated: bool = True) -> None:
        """
        Wait until goals can be sent and what comes of them be seen.

        Args:
            timeout: steady seconds, for each of the things waited for.
            simulated: the robot can be reset.

        Raises:
            StackError: not in time.
        """
        self.wait_until(self._goals.server_is_ready, timeout, "action server 'reach_goal'")
        if simulated:
            self.wait_until(self._reset.service_is_ready, timeout, "service 'sim/reset'")
        self.wait_until(lambda: self.belief is not None, timeout, "belief")
        # DDS may have connected this process to the beliefs before it has the planner.
        self.wait_until(self._planner_has_a_belief, timeout, "belief at the planner")

    def _planner_has_a_belief(self) -> bool:
        return self.status is not None and self.status.state != PlannerStatus.WAITING

    def reset(self, state: NDArray[np.float64] | None = None, seed: int = 0, timeout: float = 10.0) -> int:
        """
        Put the simulated robot into a state, and wait for the belief to follow.

        Args:
            state: of the task, shape (S,); a random one if absent.
            seed: of that, and of all that is random after it.
            timeout: steady seconds.

        Returns:
            Stamp of the first image after the reset, ns. ``joints`` and ``images`` begin there.

        Raises:
            StackError: refused, or no answer.
        """
        request = Reset.Request(seed=seed, state=[] if state is None else [float(x) for x in state])
        future = self._reset.call_async(request)
        self.wait_until(future.done, timeout, "answer to 'sim/reset'")
        response = future.result()
        if not response.success:
            raise StackError(f"the simulator refused the reset: {response.message}")
        stamp = from_time(response.stamp)
        self.joints[:] = [joints for joints in self.joints if joints.stamp >= stamp]
        self.images[:] = [image for image in self.images if image[0] >= stamp]
        self.wait_until(
            lambda: self.belief is not None and from_time(self.belief.header.stamp) >= stamp,
            timeout,
            "belief after the reset",
        )
        for collected in self._collected:
            self.wait_until(partial(len, collected), timeout, "observation after the reset")
        return stamp

    def send_goal(
        self,
        image: NDArray[np.uint8],
        *,
        tolerance: float = -1.0,
        time_limit: float = 0.0,
        begin: int = 0,
        timeout: float = 10.0,
    ) -> Goal:
        """
        Send a goal image, and wait until it is accepted.

        Args:
            image: RGB, as the contract describes the camera, shape (height, width, 3).
            tolerance: model steps; 0: hold the goal until the time limit; negative: the planner's own.
            time_limit: seconds of ROS time; 0: the planner's own.
            begin: ROS time from which it is pursued, in ns: after a reset, what that returned. The planner
                may know less of the new world than this process does.
            timeout: steady seconds.

        Returns:
            The goal; it fills while messages are handled.

        Raises:
            StackError: refused, or no answer.
        """
        goal = Goal()
        request = ReachGoal.Goal(
            image=encode_image(self.contract, image, 0, raw=True),
            tolerance=tolerance,
            time_limit=to_duration(time_limit),
            begin=to_time(begin),
        )
        future = self._goals.send_goal_async(request, lambda message: goal.feedback.append(message.feedback))
        self.wait_until(future.done, timeout, "answer to the goal")
        goal.handle = future.result()
        if not goal.handle.accepted:
            raise StackError("the planner refused the goal; its log tells why")
        result = goal.handle.get_result_async()
        result.add_done_callback(lambda answer: setattr(goal, "result", answer.result().result))
        return goal

    def cancel(self, goal: Goal, timeout: float = 10.0) -> None:
        """
        Give a goal up, and wait for its result.

        Raises:
            StackError: no answer.
        """
        goal.handle.cancel_goal_async()
        self.wait_until(lambda: goal.done, timeout, "end of the cancelled goal")

    def _on_joints(self, message: JointState) -> None:
        stamp = from_time(message.header.stamp)
        if self.joints and stamp == self.joints[-1].stamp:
            return  # in lock-step the simulator shows its first state until somebody acts
        order = [message.name.index(name) for name in self.contract.observation.joints.names]
        positions, velocities = np.array(message.position)[order], np.array(message.velocity)[order]
        self.joints.append(Joints(stamp, positions, velocities))

    def _on_image(self, message: Any) -> None:
        self.images.append((from_time(message.header.stamp), decode_image(self.contract, message)))
