"""
Damages what goes from the camera to perception, from the planner to the action node, and /clock.

A process of its own, for `smwm bench faults`. The camera and the planner are remapped to topics called
``.../undamaged``; what they send is passed on as it is until a fault is ordered on stdin, one JSON object
in a line: ``{"camera": "stops"}``, and ``{"camera": ""}`` when it is over. Each line is answered by one on
stdout with the ``moment``: the time (steady seconds, which all processes of a machine share) of the last good
evidence that was passed on. It ends with its stdin.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image

from smwm_ros import msg
from smwm_ros.contract import Contract
from smwm_ros.messages import from_time, to_time
from smwm_ros.nodes.qos import CLOCK, NEWEST, sensor_source
from smwm_ros.resources import find_contract
from smwm_ros.runtime.plan import MOST_ACTIONS

UNDAMAGED = "/undamaged"
"""Ends the name of a topic before it is damaged."""
AWAY = 10 * 10**9
"""By how much stamps and clocks are wrong, in ns."""
JUMPS = {"jumps_back": -AWAY, "jumps_forward": AWAY}
BURST = 50
"""Messages in place of one."""
CLOCK_HZ = 100.0
BEGIN = 1_000 * 10**9
"""The injector's ROS time when it starts, in ns: far from the system's, so that nobody can confuse them."""
LISTEN = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def camera_fault(kind: str, image: Any, last: Any) -> list[Any]:
    """
    Return what a faulty camera sends.

    Args:
        kind: of fault; empty for none.
        image: what it should send; may be changed.
        last: the last good image that it sent.

    Raises:
        KeyError: an unknown fault.
    """
    if not kind:
        return [image]
    stamp = image.header.stamp
    if kind in ("freezes", "repeats"):
        frozen = copy.copy(last or image)
        if kind == "freezes":  # a picture of long ago, under a stamp of now
            frozen.header = image.header
        return [frozen]
    if kind == "nan":
        image.encoding, image.step = "32FC3", 12 * image.width
        image.data = array("B", array("f", [float("nan")] * (3 * image.width * image.height)).tobytes())
    elif kind == "wrong_size":
        image.height //= 2
        image.data = image.data[: image.step * image.height]
    elif kind == "old_stamps":
        image.header.stamp = to_time(from_time(stamp) - AWAY)
    elif kind == "future_stamps":
        image.header.stamp = to_time(from_time(stamp) + AWAY)
    else:
        return {"stops": [], "burst": [_stamped(image, number) for number in range(BURST)]}[kind]
    return [image]


def _stamped(image: Any, number: int) -> Any:
    """Return the image of a burst: a stamp of its own, a tenth of a millisecond after the one before."""
    made = copy.copy(image)
    made.header = copy.copy(image.header)
    made.header.stamp = to_time(from_time(image.header.stamp) + 100_000 * number)
    return made


def plan_fault(kind: str, plan: msg.Plan) -> list[msg.Plan]:
    """
    Return what a faulty planner sends.

    Args:
        kind: of fault; empty for none.
        plan: what it should send; may be changed. The order to stop is never damaged.

    Raises:
        KeyError: an unknown fault.
    """
    if not kind or not plan.actions:
        return [plan]
    if kind in ("nan", "one_nan"):
        plan.actions[len(plan.actions) // 2] = float("nan")
    elif kind == "too_long":
        plan.actions = array("d", [0.5] * (plan.action_size * (MOST_ACTIONS + 1)))
    elif kind == "stale":
        plan.header.stamp = to_time(from_time(plan.header.stamp) - AWAY)
        plan.evidence = to_time(from_time(plan.evidence) - AWAY)
    elif kind == "future":
        plan.header.stamp = to_time(from_time(plan.header.stamp) + AWAY)
    elif kind == "wrong_model":
        plan.model = "somebody-else"
    else:
        return {"burst": [plan] * BURST}[kind]
    return [plan]


class FaultInjector(Node):
    """
    Passes images and plans on, until told to damage them; publishes /clock if wanted.

    With a clock of its own it also stamps the images anew, as a driver that goes by ROS time would.
    """

    def __init__(self, contract: Contract, *, clock: bool) -> None:
        """
        Make the topics.

        Args:
            contract: of the robot; raw images only.
            clock: publish /clock.
        """
        super().__init__("fault_injector", enable_rosout=False, start_parameter_services=False)
        self._lock = threading.Lock()
        self._faults = {"camera": "", "plan": "", "clock": ""}
        self._good = {"camera": time.monotonic(), "plan": time.monotonic(), "clock": time.monotonic()}
        self._last: Image | None = None
        self._has_clock = clock
        self._offset = BEGIN - time.monotonic_ns()
        self._paused = 0
        camera = contract.observation.image.topic
        self._images = self.create_publisher(Image, camera, sensor_source("best_effort"))
        self._plans = self.create_publisher(msg.Plan, "plan", NEWEST)
        sensor = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Image, camera + UNDAMAGED, self._on_image, sensor)
        self.create_subscription(msg.Plan, "plan" + UNDAMAGED, self._on_plan, LISTEN)
        if clock:
            self._clocks = self.create_publisher(ClockMessage, "/clock", CLOCK)
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(1 / CLOCK_HZ, self._on_clock, clock=steady)

    def order(self, orders: dict[str, str]) -> float:
        """Begin or end faults; return the time of the last good evidence, in steady seconds."""
        with self._lock:
            self._faults.update(orders)
            clock = orders.get("clock", "")
            if clock in JUMPS:
                self._offset += JUMPS[clock]
            elif clock:
                self._paused = time.monotonic_ns() + self._offset
            elif "clock" in orders and self._paused:  # time goes on where it stood
                self._offset = self._paused - time.monotonic_ns()
                self._paused = 0
            return min(self._good[what] for what in orders)

    def _now(self) -> int:
        return self._paused or time.monotonic_ns() + self._offset

    def _on_image(self, message: Image) -> None:
        taken = time.monotonic() - (time.time_ns() - from_time(message.header.stamp)) * 1e-9
        with self._lock:
            if self._has_clock:
                message.header.stamp = to_time(self._now())
            kind = self._faults["camera"]
            if not kind:
                self._last, self._good["camera"] = message, taken
            for image in camera_fault(kind, message, self._last):
                self._images.publish(image)

    def _on_plan(self, message: msg.Plan) -> None:
        with self._lock:
            kind = self._faults["plan"]
            if not kind:
                self._good["plan"] = time.monotonic()
            for plan in plan_fault(kind, message):
                self._plans.publish(plan)
            if kind == "one_nan":
                self._faults["plan"] = ""

    def _on_clock(self) -> None:
        with self._lock:
            if not self._paused:
                self._good["clock"] = time.monotonic()
            if self._faults["clock"] != "stops":
                self._clocks.publish(ClockMessage(clock=to_time(self._now())))


def serve(order: Callable[[dict[str, str]], float]) -> None:
    """Take orders from stdin until it ends."""
    for line in sys.stdin:
        print(json.dumps({"moment": order(json.loads(line))}), flush=True)


def main() -> None:
    """Run the node until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contract", required=True)
    parser.add_argument("--clock", action="store_true")
    arguments, ros = parser.parse_known_args()
    rclpy.init(args=ros, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = FaultInjector(find_contract(arguments.contract), clock=arguments.clock)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ended = threading.Event()

    def listen() -> None:
        serve(node.order)
        ended.set()
        executor.wake()

    threading.Thread(target=listen, daemon=True).start()
    while not ended.is_set():
        executor.spin_once(0.5)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
