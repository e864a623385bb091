"""Feeds the action node with plans, and notes when its commands leave: for measuring how evenly they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from smwm_ros import msg
from smwm_ros.contract import Contract
from smwm_ros.messages import command_type, plan_to_message
from smwm_ros.nodes.guest import Guest
from smwm_ros.nodes.qos import EVERY, NEWEST
from smwm_ros.runtime.plan import Plan

EXECUTE = 5
"""Actions of a plan that are meant to be played; there are as many in reserve."""
LEAD = 2
"""Control periods by which a plan is there before its first action is due."""


class PlanFeeder(Guest):
    """A planner without a thought; use it as a context manager. Everything happens in ``feed``."""

    def __init__(self, contract: Contract) -> None:
        """
        Join the graph.

        Args:
            contract: the robot's.
        """
        self.left: list[int] = []
        """When each command left the action node, by the system's clock, in ns."""
        self.planned: list[bool] = []
        """Of each: whether it was an action of a plan, not a safe one."""
        self._contract = contract
        super().__init__("plan_feeder")
        self._plans = self.node.create_publisher(msg.Plan, "plan", NEWEST)
        self.node.create_subscription(
            command_type(contract), contract.action.topic, self._on_command, EVERY, raw=True
        )
        self.node.create_subscription(msg.AppliedAction, "applied_action", self._on_applied, EVERY)
        self._sequence = 0
        self._stamp = 0

    def feed(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Send plans, one after the other without a gap, for some time or until something is true."""
        end = time.monotonic() + seconds
        lead = LEAD * self._contract.period_ns
        while not until() and (left := end - time.monotonic()) > 0:
            wait = (self._stamp - lead - time.time_ns()) * 1e-9
            if wait <= 0:
                self._send()
            else:
                self.executor.spin_once(min(wait, left))

    def _send(self) -> None:
        # After a delay, the rhythm begins anew.
        self._stamp = max(self._stamp, time.time_ns())
        phases = 0.01 * (self._sequence * EXECUTE + np.arange(2 * EXECUTE))
        action = self._contract.action
        shares = 0.5 + 0.4 * np.sin(phases)[:, None]
        plan = Plan(
            stamp=self._stamp,
            evidence=time.time_ns(),
            model="feeder",
            sequence=self._sequence,
            period=self._contract.period,
            execute=EXECUTE,
            actions=action.low + shares * (action.high - action.low),
        )
        self._plans.publish(plan_to_message(plan))
        self._sequence += 1
        self._stamp += EXECUTE * self._contract.period_ns

    def _on_applied(self, message: msg.AppliedAction) -> None:
        self.planned.append(message.source == msg.AppliedAction.PLAN)

    def _on_command(self, _: bytes, info: dict[str, Any]) -> None:
        self.left.append(info["source_timestamp"])
