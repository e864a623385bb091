"""A node under the fuzzer: what it does with each message is noted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.parameter import Parameter

from smwm_ros.contract import Contract
from smwm_ros.errors import StackError
from smwm_ros.nodes.action_node import ActionNode
from smwm_ros.nodes.perception_node import PerceptionNode
from smwm_ros.nodes.planner_node import PlannerNode
from smwm_ros.nodes.recorder_node import RecorderNode
from smwm_ros.nodes.uncalled import never_called
from smwm_ros.nodes.witness import read_command
from smwm_ros.nodes.world_model_node import WorldModelNode
from smwm_ros.runtime.testimony import Sent

NODES = {
    "perception": PerceptionNode,
    "world_model": WorldModelNode,
    "planner": PlannerNode,
    "action": ActionNode,
    "recorder": RecorderNode,
}
LEFT_OUT = ("/clock", "/parameter_events")


class Subject:
    """One node, and what it does with a message."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        """Start the node."""
        overrides = [Parameter(key, value=value) for key, value in parameters.items()]
        self.name = name
        self.node = NODES[name](name, namespace=f"fuzz/{name}", parameter_overrides=overrides)
        self.events: list[str] = []
        """What it noted of the case in hand: ``done``, ``sent``, kinds of faults and tallies."""
        self.commands: list[Sent] = []
        self._gate: dict[str, str] = {}
        monitor = self.node.monitor
        monitor.done = self._noting(monitor.done, lambda *_: "done")
        monitor.fault = self._noting(monitor.fault, lambda kind, _: kind)
        monitor.tally = self._noting(monitor.tally, lambda kind: kind)
        monitor.show = self._showing(monitor.show)
        if not self.node.bring_up():
            raise StackError(f"{name} did not start: {self.node.failure}")
        for publisher in self.node.publishers:
            publisher.publish = self._noting(publisher.publish, lambda _: "sent")
        self.given = {name: self.node.get_parameter(name) for name in self.node._parameters}
        self.subscriptions = [s for s in self.node.subscriptions if s.topic_name not in LEFT_OUT]
        self.called = [s for s in self.subscriptions if s.callback is not never_called]
        self.services = list(self.node.services)

    def watch_commands(self, contract: Contract) -> None:
        """Note every command that is published."""
        topic = self.node.resolve_topic_name(contract.action.topic)
        (publisher,) = (p for p in self.node.publishers if p.topic_name == topic)
        publish = publisher.publish

        def noting(message: Any) -> None:
            self.commands.append(Sent(time.monotonic(), read_command(contract, message)))
            publish(message)

        publisher.publish = noting

    def look(self) -> None:
        """Note what the gate has counted since the last look."""
        if self.name == "action":
            self.node.report()

    def restore(self) -> None:
        """Take back what parameters were changed."""
        now = {name: self.node.get_parameter(name) for name in self.given}
        if changed := [self.given[name] for name in now if now[name].value != self.given[name].value]:
            self.node.set_parameters(changed)

    def _noting(self, call: Callable[..., Any], what: Callable[..., str]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            self.events.append(what(*arguments))
            return call(*arguments)

        return noting

    def _showing(self, show: Callable[..., None]) -> Callable[..., None]:
        def showing(**values: Any) -> None:
            counts = {key: str(value) for key, value in values.items() if key.startswith("gate.")}
            self.events += [key for key, value in counts.items() if self._gate.get(key) != value]
            self._gate.update(counts)
            show(**values)

        return showing
