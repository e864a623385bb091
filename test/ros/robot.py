"""Test doubles of a robot around the four nodes: real processes and real DDS, a toy world."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import toy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from smwm_ros import msg
from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract, load_contract
from smwm_ros.messages import command_type, decode_command, encode_image, from_time, to_duration, to_time
from smwm_ros.nodes import qos

NODES = ("perception", "world_model", "planner", "action")
REACHER = Path("config/robots/reacher.yaml")


def write_contract(path: Path, **changes: Any) -> Contract:
    """Write the reacher's contract with a small camera, and return it."""
    content = yaml.safe_load(REACHER.read_text())
    content["observation"] = {
        "image": {**content["observation"]["image"], "width": 16, "height": 16, "size": 16}
    }
    path.write_text(yaml.safe_dump({**content, **changes}))
    return load_contract(path)


@contextmanager
def processes(
    contract: Path, log: Path, *arguments: str, nodes: Sequence[str] = NODES
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run the four nodes, or some of them, each in a process, on the toy model."""
    log.mkdir(exist_ok=True)
    with ExitStack() as stack:
        running = {}
        for name in nodes:
            output = stack.enter_context((log / f"{name}.log").open("wb"))
            model = [] if name == "action" else ["-p", f"checkpoint:={contract}"]
            command = [sys.executable, toy.__file__, name, "--ros-args", "-p", f"contract:={contract}"]
            running[name] = subprocess.Popen([*command, *model, *arguments], stdout=output, stderr=output)
        try:
            yield running
        finally:
            for process in running.values():
                process.terminate()
            for name, process in running.items():
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
                    process.wait(10)
                    pytest.fail(f"{name} did not end:\n{(log / f'{name}.log').read_text()[-8000:]}")


class Robot:
    """
    The robot and its user, in a thread: moves as commanded, shows where it is, sends goals.

    In real time an image goes out every period; ``camera`` changes what is sent, or withholds it when
    it returns None. In lock-step, time waits for each command, as the simulator does.
    """

    def __init__(self, contract: Contract, *, lock_step: bool = False, namespace: str = "") -> None:
        self.contract = contract
        self.position = np.zeros(2)
        self.camera: Callable[[Image], Image | None] = lambda image: image
        self.nan = False
        self.applied: list[msg.AppliedAction] = []
        self.commands: list[tuple[float, np.ndarray]] = []
        self.latents: list[msg.Latent] = []
        self.beliefs: list[msg.Belief] = []
        self.statuses: list[msg.PlannerStatus] = []
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._held = np.zeros(2)
        self._moved = time.monotonic()
        self._lock_step = lock_step
        self._tick = contract.period_ns
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = node = Node("robot", context=self._context, namespace=namespace)
        reliability = "reliable" if lock_step else "best_effort"
        self._images = node.create_publisher(Image, contract.observation.image.topic, qos.sensor(reliability))
        self._clock = node.create_publisher(Clock, "/clock", qos.CLOCK)
        self.latent = node.create_publisher(msg.Latent, "latent", qos.NEWEST)
        self.plan = node.create_publisher(msg.Plan, "plan", qos.NEWEST)
        self.goals = ActionClient(node, ReachGoal, "reach_goal")
        node.create_subscription(command_type(contract), contract.action.topic, self._on_command, qos.NEWEST)
        node.create_subscription(msg.AppliedAction, "applied_action", self._on_applied, qos.EVERY)
        node.create_subscription(msg.Latent, "latent", self.latents.append, qos.EVERY)
        node.create_subscription(msg.Belief, "belief", self.beliefs.append, qos.EVERY)
        node.create_subscription(msg.PlannerStatus, "planner_status", self.statuses.append, qos.LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        node.create_timer(0.5 if lock_step else contract.period, self._show)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.goals.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    @property
    def ready(self) -> bool:
        """Whether all nodes are up and hear each other."""
        heard = bool(self.statuses) and self.statuses[-1].state == msg.PlannerStatus.IDLE
        acts = bool(self._lock_step or self.applied)
        return heard and acts and bool(self.beliefs) and self.goals.server_is_ready()

    def goal(
        self, position: Any, *, tolerance: float = -1.0, time_limit: float = 0.0, **request: Any
    ) -> Goal:
        """Send the image of a position as a goal."""
        size = self.contract.observation.image.size
        image = encode_image(self.contract, toy.draw(np.array(position), size), 0)
        return Goal(
            self,
            ReachGoal.Goal(
                **{"image": image, "tolerance": tolerance, "time_limit": to_duration(time_limit)} | request
            ),
        )

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and wait for the answer."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(10)
        future = client.call_async(request)
        wait_for(future.done, f"an answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def _on_command(self, message: Any) -> None:
        values = decode_command(self.contract, message)
        self.commands.append((time.monotonic(), values))
        if not self._lock_step:
            self._move()
        self._held = values
        self._answer()

    def _on_applied(self, message: msg.AppliedAction) -> None:
        self.applied.append(message)
        self._answer()

    def _answer(self) -> None:
        if not (self._lock_step and self.applied and from_time(self.applied[-1].header.stamp) >= self._tick):
            return
        if np.array_equal(self.applied[-1].values, self._held):
            self.position = self.position + self._held * self.contract.period
            self._tick += self.contract.period_ns
            self._show()

    def _move(self) -> None:
        now = time.monotonic()
        self.position = self.position + self._held * (now - self._moved)
        self._moved = now

    def _show(self) -> None:
        if self._lock_step:
            self._clock.publish(Clock(clock=to_time(self._tick)))
        else:
            self._move()
        image = toy.draw(self.position, self.contract.observation.image.size, nan=self.nan)
        message = self.camera(
            encode_image(self.contract, image, self._tick if self._lock_step else time.time_ns(), "camera")
        )
        if message is not None:
            self._images.publish(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name.strip("/")] = {pair.key: pair.value for pair in status.values}


class Goal:
    """A goal that was sent."""

    def __init__(self, robot: Robot, request: ReachGoal.Goal) -> None:
        self.feedback: list[ReachGoal.Feedback] = []
        sent = robot.goals.send_goal_async(request, lambda message: self.feedback.append(message.feedback))
        wait_for(sent.done, "the answer to a goal")
        self.handle = sent.result()
        self.accepted = self.handle.accepted
        self._result = self.handle.get_result_async() if self.accepted else None

    @property
    def done(self) -> bool:
        return self._result.done()

    def result(self, timeout: float = 30.0) -> ReachGoal.Result:
        wait_for(lambda: self.done, "the end of a goal", timeout)
        return self._result.result().result


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> None:
    """Wait until something is true; another thread makes it so."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout} s in vain for {what}"
        time.sleep(0.005)
