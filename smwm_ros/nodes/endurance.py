"""What a robot does over hours: goal after goal, how fast it answers, and when its safety gate intervened."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray

from smwm_ros.messages import from_time
from smwm_ros.msg import AppliedAction
from smwm_ros.nodes.client import Goal, RobotClient
from smwm_ros.nodes.qos import EVERY
from smwm_ros.runtime.gate import STOPPED
from smwm_ros.runtime.limiter import EARLY

EXPLAINS = 0.5
"""Seconds around the beginning or the end of a goal for which that explains some of what the gate does."""
EXPLAINED = (STOPPED, "change limit")
"""
What it explains: a goal's end stops the robot by an empty plan, and a new goal's first action knows nothing
of what the robot did before. Nothing explains the rest, but that EARLY explains itself.
"""


class Endurance:
    """Keeps a robot busy and takes notes; everything happens while :meth:`run` runs."""

    def __init__(self, client: RobotClient, *, lock_step: bool = False) -> None:
        """
        Begin to listen.

        Args:
            client: of a robot that is ready.
            lock_step: time waits for the robot: measure how long a tick takes instead of its latency.
        """
        self.times = array("d")
        """Of the latencies, steady seconds."""
        self.latencies = array("d")
        """From an image's stamp to that of its first action, or from tick to tick; seconds."""
        self._interventions: list[tuple[float, str]] = []
        self._changes: list[float] = []
        self.goals: Counter[int] = Counter()
        """By error code."""
        self.plans = 0
        self.counters: dict[str, int] = {}
        """The gate's own, as diagnostics showed them last."""
        self._client = client
        self._lock_step = lock_step
        self._began = time.monotonic()
        self._newest = 0
        self._last = 0.0
        self._reason = "no plan"
        client.listen(AppliedAction, "applied_action", self._on_applied, EVERY)
        client.listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, EVERY)

    def run(
        self,
        goals: Sequence[NDArray[Any]],
        seconds: float,
        *,
        hold: float,
        tick: Callable[[float], None] = lambda done: None,
    ) -> None:
        """
        Send one goal after the other; what is going on at the end is cancelled.

        Args:
            goals: images, taken in turn.
            seconds: of steady time.
            hold: ROS seconds after which a goal that is not reached is given up.
            tick: called with the seconds done, several times a second.

        Raises:
            StackError: the stack ended, or refused a goal.
        """
        number = 0
        end = self._began + seconds
        while time.monotonic() < end:
            self._changes.append(time.monotonic())
            goal = self._client.send_goal(goals[number % len(goals)], time_limit=hold)
            number += 1
            while not goal.done and time.monotonic() < end:
                self._client.wait(0.1)
                tick(time.monotonic() - self._began)
            self._finish(goal)

    @property
    def interventions(self) -> Counter[str]:
        """By reason: how often an action was changed, and how often actions began to be replaced."""
        return Counter(reason for _, reason in self._interventions)

    @property
    def unexplained(self) -> list[str]:
        """Those that no goal's beginning or end explains: seconds since the start, and the reason."""
        changes = np.array(self._changes)
        return [
            f"{moment - self._began:.1f} s: {reason}"
            for moment, reason in self._interventions
            if reason != EARLY
            and (reason not in EXPLAINED or np.abs(changes - moment).min(initial=np.inf) > EXPLAINS)
        ]

    @property
    def judged(self) -> float:
        """Share of the time, up to the last goal's end, that is too far from any change to be explained."""
        if not self._changes:
            return 0.0
        between = np.diff([self._began - EXPLAINS, *self._changes]) - 2 * EXPLAINS
        return float(between.clip(min=0).sum() / (self._changes[-1] - self._began))

    def _finish(self, goal: Goal) -> None:
        self._changes.append(time.monotonic())
        if not goal.done:
            self._client.cancel(goal)
        self.goals[goal.result.error_code] += 1
        self.plans += goal.result.plans

    def _on_applied(self, message: AppliedAction) -> None:
        now = time.monotonic()
        evidence = from_time(message.evidence)
        if self._lock_step:
            if self._last:
                self._note(now, now - self._last)
            self._last = now
        elif message.source == AppliedAction.PLAN and evidence > self._newest:
            # Later actions of the same plan rest on the same image, and are meant to be later.
            self._newest = evidence
            self._note(now, (from_time(message.header.stamp) - evidence) * 1e-9)
        reason, self._reason = self._reason, message.reason
        # A safe action is repeated until there is a plan; each changed one is an intervention by itself.
        if message.reason and not (message.source == AppliedAction.SAFE and message.reason == reason):
            self._interventions.append((now, message.reason))

    def _note(self, now: float, latency: float) -> None:
        self.times.append(now - self._began)
        self.latencies.append(latency)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            found = {pair.key: pair.value for pair in status.values if pair.key.startswith("gate.")}
            self.counters.update(
                {key.removeprefix("gate."): int(value) for key, value in found.items() if value.isdigit()}
            )
