"""
Processes that only pass messages on: what the middleware alone costs a running stack.

``python -m smwm_ros.nodes.relay --ros-args -r __node:=STAGE -p contract:=PATH`` is one of ``STAGES``. It has
the topics, types, sizes and quality of service of the node whose place it takes; ``camera`` begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile

from smwm_ros import msg
from smwm_ros.contract import load_contract
from smwm_ros.messages import (
    applied_to_message,
    belief_to_message,
    command_type,
    encode_command,
    encode_image,
    from_time,
    image_type,
    latent_to_message,
    plan_to_message,
)
from smwm_ros.nodes.qos import EVERY, NEWEST, sensor
from smwm_ros.planning.planners import planner_config
from smwm_ros.runtime.belief import Belief, Latent
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.plan import Plan
from smwm_ros.stack.notify import notify_ready

STAGES = ("camera", "perception", "world_model", "planner", "action")
LATENT_SIZE = 64
MODEL = "a_name-as_long-as_those"


class Link(NamedTuple):
    """A topic."""

    kind: Any
    topic: str
    profile: QoSProfile


class Relay(Node):
    """One stage of the pipeline; it is told which by its name."""

    def __init__(self) -> None:
        """Take the place of the node whose name it has."""
        super().__init__("relay")
        contract = load_contract(self.declare_parameter("contract", "").value)
        stream = contract.observation.image
        image = Link(image_type(contract), stream.topic, sensor("best_effort"))
        latent = Link(msg.Latent, "latent", NEWEST)
        belief = Link(msg.Belief, "belief", NEWEST)
        plan = Link(msg.Plan, "plan", NEWEST)
        command = Link(command_type(contract), contract.action.topic, NEWEST)
        applied = Link(msg.AppliedAction, "applied_action", EVERY)
        numbers = np.zeros(LATENT_SIZE, np.float32)
        rest = np.zeros(contract.action.size)
        stage = self.get_name()
        if stage == "camera":
            # Something that JPEG does not make nothing of.
            noise = np.random.default_rng(0).integers(0, 64, (stream.height, stream.width, 3), np.uint8)
            ramp = np.linspace(0, 190, stream.width).astype(np.uint8)[None, :, None]
            picture = encode_image(contract, noise + ramp, 0)
            publisher = self.create_publisher(*image)

            def send() -> None:
                seconds, picture.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
                picture.header.stamp.sec = seconds
                publisher.publish(picture)

            self.create_timer(contract.period, send)
        elif stage == "perception":

            def encode(stamp: int) -> msg.Latent:
                return latent_to_message(Latent(stamp=stamp, model=MODEL, values=numbers))

            self._pass_on(image, [(latent, encode)])
        elif stage == "world_model":

            def believe(stamp: int) -> msg.Belief:
                return belief_to_message(Belief(stamp=stamp, evidence=stamp, model=MODEL, latent=numbers))

            self._pass_on(latent, [(belief, believe)])
        elif stage == "planner":
            actions = np.zeros((planner_config(contract).horizon * contract.block, contract.action.size))

            def make_plan(stamp: int) -> msg.Plan:
                return plan_to_message(
                    Plan(
                        stamp=stamp,
                        evidence=stamp,
                        model=MODEL,
                        sequence=0,
                        period=contract.period,
                        execute=1,
                        actions=actions,
                    )
                )

            self._pass_on(belief, [(plan, make_plan)])
        elif stage == "action":

            def act(stamp: int) -> Any:
                return encode_command(contract, rest, time.time_ns())

            def tell(stamp: int) -> msg.AppliedAction:
                return applied_to_message(Command(rest, time.time_ns(), evidence=stamp))

            self._pass_on(plan, [(command, act), (applied, tell)])
        else:
            raise ValueError(f"a relay is one of {', '.join(STAGES)}, not {stage}")

    def _pass_on(self, source: Link, makers: list[tuple[Link, Callable[[int], Any]]]) -> None:
        """For each message, publish those that are made of its stamp."""
        sinks = [(self.create_publisher(*sink), make) for sink, make in makers]

        def pass_on(message: Any) -> None:
            stamp = from_time(message.header.stamp)
            for publisher, make in sinks:
                publisher.publish(make(stamp))

        self.create_subscription(source.kind, source.topic, pass_on, source.profile)


def main() -> None:
    """Run one."""
    rclpy.init()
    node = Relay()
    notify_ready()
    with suppress(ExternalShutdownException, KeyboardInterrupt):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
