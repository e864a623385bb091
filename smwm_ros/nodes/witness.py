"""An outside judge of a running robot: hears every command, and asks for goals as a client would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from typing_extensions import Self

from smwm_ros import msg
from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract
from smwm_ros.data.commands import follow, split_field
from smwm_ros.errors import StackError
from smwm_ros.messages import command_type, encode_image, from_time, to_duration
from smwm_ros.nodes.guest import Guest
from smwm_ros.nodes.qos import EVERY
from smwm_ros.runtime.testimony import Account, Applied, Sent

LOOK = 0.05
"""Seconds between two looks at how the goal does."""
SILENCE = 2.0
"""Seconds without an answer, or without feedback, after which a goal is sent again."""
AGAIN = 0.5
"""Seconds from the end of a goal until it is sent again."""
ACQUAINTED = 0.3
"""Seconds until a service that a client knows knows the client, too: a request before that comes late."""
HOLD = 120.0
"""Time limit of a goal in ROS seconds: it is held that long."""


class Witness(Guest):
    """
    Notes when which command came; a context manager, with a thread of its own.

    Times are those at which the middleware received a message, in steady seconds: what Python does meanwhile
    does not delay them. ``pursue`` keeps the robot busy with a goal as a client would that knows nothing of
    the robot's troubles: a goal that ended is sent again after half a second, and one that nobody answers
    after two.
    """

    def __init__(self, contract: Contract, namespace: str = "") -> None:
        """
        Join the graph.

        Args:
            contract: of the robot.
            namespace: of its nodes.
        """
        self._contract = contract
        self._lock = threading.Lock()
        self._sent: list[Sent] = []
        self._applied: list[Applied] = []
        self._wanted: ReachGoal.Goal | None = None
        self._number = 0  # of the attempts: answers to an earlier one are not heeded
        self._next = -np.inf  # when the goal should be sent, steady seconds
        self.goals_sent = 0
        super().__init__("smwm_witness", namespace)
        self._goals = ActionClient(self.node, ReachGoal, "reach_goal")
        self.listen(command_type(contract), contract.action.topic, self._on_command)
        self.listen(msg.AppliedAction, "applied_action", self._on_applied)
        self.node.create_timer(LOOK, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread = threading.Thread(target=self.executor.spin, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown()
        self._thread.join()
        self._goals.destroy()
        super().__exit__()

    def listen(self, kind: Any, topic: str, callback: Callable[[Any, Any], None]) -> None:
        """Subscribe; before the thread runs. The callback gets the message and rclpy's MessageInfo."""
        self.node.create_subscription(kind, topic, callback, EVERY)

    def testimony(self, since: float) -> Account:
        """Return what came since a moment (steady seconds), and what was noted last before it."""
        with self._lock:
            return Account(tuple(self._sent), tuple(self._applied)).since(since)

    def forget(self) -> None:
        """Forget all but the newest notes, to keep them few."""
        with self._lock:
            del self._sent[:-100], self._applied[:-100]

    def pursue(self, image: NDArray[np.uint8] | None) -> None:
        """Ask for a goal image, shape (H, W, 3), from now on; None: for nothing any more."""
        with self._lock:
            self._number += 1
            self._next = -np.inf
            self._wanted = image if image is None else self._request(image)

    def cycle(self, node: str, timeout: float = 20.0) -> float:
        """
        Let a lifecycle node destroy and remake all its endpoints: deactivate, clean up, configure, activate.

        Returns:
            When it was first told to, steady seconds.

        Raises:
            StackError: it did not.
        """
        name = f"{node}/change_state"
        client = self.node.create_client(ChangeState, name)
        try:
            if not client.wait_for_service(timeout):
                raise StackError(f"there was no service {name} for {timeout:g} s")
            time.sleep(ACQUAINTED)
            moment = time.monotonic()
            for transition in (
                Transition.TRANSITION_DEACTIVATE,
                Transition.TRANSITION_CLEANUP,
                Transition.TRANSITION_CONFIGURE,
                Transition.TRANSITION_ACTIVATE,
            ):
                done = threading.Event()
                future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
                future.add_done_callback(lambda _, done=done: done.set())
                if not done.wait(timeout):
                    raise StackError(f"the service {name} did not answer in {timeout:g} s")
                if not future.result().success:
                    raise StackError(f"{node} refused the lifecycle transition {transition}; see its log")
        finally:
            self.node.destroy_client(client)
        return moment

    def _request(self, image: NDArray[np.uint8]) -> ReachGoal.Goal:
        return ReachGoal.Goal(
            image=encode_image(self._contract, image, 0, raw=True),
            tolerance=0.0,
            time_limit=to_duration(HOLD),
        )

    def _on_command(self, message: Any, info: Any) -> None:
        # As it came, not as decode_command would have it: that refuses what must be noticed here.
        note = Sent(_steady(info), read_command(self._contract, message))
        with self._lock:
            self._sent.append(note)

    def _on_applied(self, message: msg.AppliedAction, info: Any) -> None:
        note = Applied(
            _steady(info),
            np.array(message.values, np.float64),
            safe=message.source == msg.AppliedAction.SAFE,
            reason=message.reason,
            evidence=from_time(message.evidence),
        )
        with self._lock:
            self._applied.append(note)

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            if self._wanted is None or now < self._next or not self._goals.server_is_ready():
                return
            self._number = number = self._number + 1
            self._next = now + SILENCE
            wanted = self._wanted
        self.goals_sent += 1
        sent = self._goals.send_goal_async(wanted, lambda _: self._again(number, SILENCE))
        sent.add_done_callback(lambda answer: self._answered(answer.result(), number))

    def _answered(self, handle: Any, number: int) -> None:
        self._again(number, SILENCE)
        if handle.accepted:
            handle.get_result_async().add_done_callback(lambda _: self._again(number, AGAIN))
        else:
            self._again(number, AGAIN)

    def _again(self, number: int, seconds: float) -> None:
        """Put off sending the goal again, if it is about the newest attempt."""
        with self._lock:
            if number == self._number:
                self._next = time.monotonic() + seconds


def read_command(contract: Contract, message: Any) -> NDArray[np.float64]:
    """Read the numbers of a command, whatever they are; NaN where one is missing. Shape (A,)."""
    values = []
    for dimension in contract.action.dimensions:
        path, index = split_field(dimension.field)
        try:
            field = follow(message, path)
            values.append(float(field if index is None else field[index]))
        except (LookupError, AttributeError, TypeError):
            values.append(float("nan"))
    return np.array(values)


def _steady(info: Any) -> float:
    """Return when the middleware received a message, in steady seconds."""
    return time.monotonic() - (time.time_ns() - info["received_timestamp"]) * 1e-9
