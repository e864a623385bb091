"""The action node and its surroundings on one executor, for the tests of both ways to command a robot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from smwm_ros import msg
from smwm_ros.contract import Contract, load_contract
from smwm_ros.messages import command_type, decode_command, plan_to_message
from smwm_ros.nodes import qos
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.runtime.plan import Plan

REACHER = Path("config/robots/reacher.yaml")


def write_contract(path: Path, **action: Any) -> Contract:
    """Write the reacher's contract with changes of its action part, and return it."""
    content = yaml.safe_load(REACHER.read_text(encoding="utf-8"))
    content["action"].update(action)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_contract(path)


class Stage:
    """Nodes under test, and a node that plays the rest of the robot; a context manager."""

    def __init__(self, contract: Contract, path: Path) -> None:
        self.contract = contract
        self.path = path
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Node] = []
        self.probe = self.add(Node("probe", context=self.context))
        self.applied: list[msg.AppliedAction] = []
        self.messages: list[Any] = []
        self.plans = self.probe.create_publisher(msg.Plan, "plan", qos.NEWEST)
        self.probe.create_subscription(msg.AppliedAction, "applied_action", self.applied.append, qos.EVERY)
        self.probe.create_subscription(
            command_type(contract), contract.action.topic, self.messages.append, qos.EVERY
        )
        self._sequence = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if isinstance(node, SmwmNode):
                node.shut_down()
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        self.context.try_shutdown()

    def add(self, node: Any) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def make(self, kind: type[SmwmNode], **parameters: object) -> Any:
        """Make a node that is not configured yet."""
        values = {"contract": str(self.path), **parameters}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = kind(kind.__name__.lower(), context=self.context, parameter_overrides=overrides)
        return self.add(node)

    def start(self, kind: type[SmwmNode], **parameters: object) -> Any:
        node = self.make(kind, **parameters)
        assert node.bring_up()
        return node

    def spin(self, until: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"waited in vain for {what}"
            self.executor.spin_once(timeout_sec=0.02)

    def settle(self, seconds: float = 0.3) -> None:
        """Handle whatever comes for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def call(self, kind: Any, name: str, **request: object) -> Any:
        client = self.probe.create_client(kind, name)
        self.spin(client.service_is_ready, f"the service {name}")
        future = client.call_async(kind.Request(**request))
        self.spin(future.done, f"an answer of {name}")
        self.probe.destroy_client(client)
        return future.result()

    def plan(self, *rows: Any, stamp: int, execute: int | None = None) -> None:
        """Send a plan."""
        self._sequence += 1
        plan = Plan(
            stamp=stamp,
            evidence=stamp,
            model="toy",
            sequence=self._sequence,
            period=self.contract.period,
            execute=execute or len(rows),
            actions=np.array(rows, float).reshape(len(rows), -1),
        )
        self.plans.publish(plan_to_message(plan))

    @property
    def command(self) -> list[float]:
        """The newest command."""
        return decode_command(self.contract, self.messages[-1]).tolist()

    @property
    def reason(self) -> str:
        """Why the newest command is a safe action; ``-`` if it is none, ``none`` without any."""
        if not self.applied:
            return "none"
        newest = self.applied[-1]
        return newest.reason if newest.source == msg.AppliedAction.SAFE else "-"
