"""How long the running stack takes from the camera's stamp to the command that rests on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray

from smwm_ros.errors import StackError
from smwm_ros.messages import from_time
from smwm_ros.msg import AppliedAction
from smwm_ros.nodes.client import RobotClient
from smwm_ros.nodes.qos import EVERY

WARM_UP = 3.0
"""Seconds at the beginning that are not measured."""
GOAL_SECONDS = 5.0
"""Each goal is held for so long; then comes the next one."""


class LatencyMeter:
    """Listens to the applied actions and the diagnostics of a robot in real time."""

    def __init__(self, client: RobotClient) -> None:
        """Begin to listen."""
        self._since = 0
        self._by_stamp: dict[int, float] = {}
        self._by_receipt: dict[int, float] = {}
        self._nodes: dict[str, dict[str, float]] = {}
        client.listen(AppliedAction, "applied_action", self._on_applied, EVERY)
        client.listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, EVERY)

    def start(self) -> None:
        """Forget what was measured; from now on it counts."""
        self._since = time.time_ns()
        self._by_stamp.clear()
        self._by_receipt.clear()

    def figures(self) -> dict[str, object]:
        """
        Return what was measured, in ms.

        ``p50_ms`` and ``p99_ms`` are of the stamp of the first action that rests on an image, less the
        image's stamp; ``received_*`` of the moment this process saw it; ``per_node`` each node's own
        time from the arrival of a message to the publication of what it makes of it.

        Raises:
            StackError: nothing was measured.
        """
        if not self._by_stamp:
            raise StackError("no plan was played: nothing to measure. The planner's log tells why.")
        stamps = 1e3 * np.array(list(self._by_stamp.values()))
        receipts = 1e3 * np.array(list(self._by_receipt.values()))
        return {
            "p50_ms": round(float(np.percentile(stamps, 50)), 2),
            "p99_ms": round(float(np.percentile(stamps, 99)), 2),
            "max_ms": round(float(stamps.max()), 2),
            "received_p50_ms": round(float(np.percentile(receipts, 50)), 2),
            "received_p99_ms": round(float(np.percentile(receipts, 99)), 2),
            "per_node": self._nodes,
            "actions": len(stamps),
        }

    def _on_applied(self, message: AppliedAction) -> None:
        evidence = from_time(message.evidence)
        # Later actions of the same plan rest on the same image, and are meant to be later.
        if message.source == AppliedAction.PLAN and evidence >= self._since > 0:
            self._by_stamp.setdefault(evidence, (from_time(message.header.stamp) - evidence) / 1e9)
            self._by_receipt.setdefault(evidence, (time.time_ns() - evidence) / 1e9)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if "latency_p50_ms" in values:
                self._nodes[status.name.rpartition("/")[2]] = {
                    "p50_ms": float(values["latency_p50_ms"]),
                    "p99_ms": float(values["latency_p99_ms"]),
                }


def measure_latency(
    client: RobotClient,
    goals: Sequence[NDArray[np.uint8]],
    seconds: float,
    progress: Callable[[float], None] = lambda done: None,
) -> dict[str, object]:
    """
    Send one goal after the other to a robot in real time, and measure meanwhile.

    Args:
        client: of a robot that is ready.
        goals: images as the contract describes them; taken in turn.
        seconds: to measure.
        progress: called with the seconds done.

    Returns:
        As ``LatencyMeter.figures``.

    Raises:
        StackError: the stack ended, refused a goal, or never played a plan.
    """
    meter = LatencyMeter(client)
    begin, number, measuring = time.monotonic() + WARM_UP, 0, False
    while time.monotonic() < begin + seconds:
        goal = client.send_goal(goals[number % len(goals)], tolerance=0.0, time_limit=GOAL_SECONDS)
        number += 1
        while not goal.done and (done := time.monotonic() - begin) < seconds:
            if done >= 0 and not measuring:
                measuring = True
                meter.start()
            progress(max(0.0, done))
            client.wait(0.1)
    client.cancel(goal)
    return meter.figures()
