"""How long the running stack takes from the camera's stamp to the command that rests on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Applied:
    """The first action that rests on an image; ns."""

    evidence: int
    """The image's stamp."""
    stamp: int
    """When it was sent."""
    received: int
    """When this process saw it."""


class LatencyMeter:
    """
    Listens to the applied actions and the diagnostics of a robot in real time.

    What counts as latency is the time from an image to the first command that rests on it. A new goal is
    planned for at once, from the image that is there, which has been waiting for the goal and not for the
    stack: a command that rests on an image from before its goal was sent counts apart, from the sending.
    """

    def __init__(self, client: RobotClient) -> None:
        """Begin to listen."""
        self._since = 0
        self._goals: list[int] = []
        self._applied: dict[int, Applied] = {}
        self._nodes: dict[str, dict[str, float]] = {}
        client.listen(AppliedAction, "applied_action", self._on_applied, EVERY)
        client.listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, EVERY)

    def start(self) -> None:
        """Forget what was measured; from now on it counts."""
        self._since = time.time_ns()
        self._applied.clear()

    def goal_sent(self) -> None:
        """Note that a goal is being sent."""
        self._goals.append(time.time_ns())

    def figures(self) -> dict[str, object]:
        """
        Return what was measured, in ms.

        ``p50_ms`` and ``p99_ms`` are of the stamp of the first action that rests on an image, less the
        image's stamp; ``received_*`` of the moment this process saw it. ``goal_change`` is of the first
        action for a new goal that rests on an image from before, less the time at which the goal was sent;
        ``with_goal_change`` of all actions, less their images' stamps. ``per_node`` is each node's own time
        from the arrival of a message to the publication of what it makes of it.

        Raises:
            StackError: nothing was measured.
        """
        fresh, changes = [], []
        for applied in self._applied.values():
            sent = max((goal for goal in self._goals if goal <= applied.stamp), default=0)
            if applied.evidence < sent:
                changes.append(applied.stamp - sent)
            else:
                fresh.append(applied)
        if not fresh:
            raise StackError("no plan was played: nothing to measure. The planner's log tells why.")
        own = spread([applied.stamp - applied.evidence for applied in fresh])
        received = spread([applied.received - applied.evidence for applied in fresh])
        everything = spread([applied.stamp - applied.evidence for applied in self._applied.values()])
        return {
            **own,
            **{f"received_{key}": received[key] for key in ("p50_ms", "p99_ms")},
            **({"goal_change": {**spread(changes), "actions": len(changes)}} if changes else {}),
            "with_goal_change": everything,
            "per_node": self._nodes,
            "actions": len(fresh),
        }

    def _on_applied(self, message: AppliedAction) -> None:
        evidence = from_time(message.evidence)
        # Later actions of the same plan rest on the same image, and are meant to be later.
        if message.source == AppliedAction.PLAN and evidence >= self._since > 0:
            applied = Applied(evidence, from_time(message.header.stamp), time.time_ns())
            self._applied.setdefault(evidence, applied)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if "latency_p50_ms" in values:
                self._nodes[status.name.rpartition("/")[2]] = {
                    "p50_ms": float(values["latency_p50_ms"]),
                    "p99_ms": float(values["latency_p99_ms"]),
                }


def spread(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Return the percentiles of some times, in ms."""
    times = np.array(nanoseconds) * 1e-6
    p50, p99 = np.percentile(times, (50, 99))
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(float(times.max()), 2),
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
        meter.goal_sent()
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


def measure_relay(
    client: RobotClient, seconds: float, progress: Callable[[float], None] = lambda done: None
) -> dict[str, object]:
    """
    Measure nodes that only pass messages on (:mod:`smwm_ros.nodes.relay`), as the stack is measured.

    Args:
        client: of these nodes.
        seconds: to measure.
        progress: called with the seconds done.

    Raises:
        StackError: they ended, or passed nothing on.
    """
    meter = LatencyMeter(client)
    client.wait(WARM_UP)
    meter.start()
    begin = time.monotonic()
    while (done := time.monotonic() - begin) < seconds:
        progress(done)
        client.wait(0.1)
    figures = meter.figures()
    return {key: figures[key] for key in ("p50_ms", "p99_ms", "max_ms", "actions")}
