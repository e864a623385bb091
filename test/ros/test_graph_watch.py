"""`smwm doctor` beside real nodes: what is wrong with a robot is found over DDS, and told with what to do."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import typer
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from smwm_ros.cli import doctor
from smwm_ros.cli.installation import Check
from smwm_ros.messages import command_type, encode_command, encode_image, to_time
from smwm_ros.nodes import qos
from smwm_ros.resources import find_contract
from smwm_ros.stack.description import describe
from smwm_ros.stack.supervisor import Supervisor

CONTRACT = find_contract("reacher")
PICTURE = np.zeros((64, 64, 3), np.uint8)
SECONDS = 2.0


@contextmanager
def driver(namespace: str, drive: Callable[[Node], None], name: str = "driver") -> Iterator[None]:
    """Run a node of a robot, in a thread; ``drive`` makes its topics and timers."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node(name, context=context, namespace=namespace)
    drive(node)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.shutdown(context=context)


def sense(
    node: Node,
    *,
    rate: float = CONTRACT.rate,
    offset: float = 0.0,
    names: tuple[str, ...] = ("shoulder", "elbow"),
    compressed: bool = False,
    size: int = 64,
) -> None:
    """Publish camera and joints, a robot's way or a wrong one."""
    stream = CONTRACT.observation.image
    images = node.create_publisher(
        CompressedImage if compressed else Image, stream.topic, qos.sensor("best_effort")
    )
    joints = node.create_publisher(JointState, "joint_states", qos.sensor("best_effort"))

    def tick() -> None:
        stamp = time.time_ns() + round(offset * 1e9)
        if compressed:
            message = CompressedImage(format="jpeg")
        else:
            contract = CONTRACT.model_copy(
                update={
                    "observation": CONTRACT.observation.model_copy(
                        update={"image": stream.model_copy(update={"width": size, "height": size})}
                    )
                }
            )
            message = encode_image(contract, PICTURE[:size, :size], stamp)
        images.publish(message)
        state = JointState(name=names, position=[0.0] * len(names), velocity=[0.0] * len(names))
        state.header.stamp = to_time(stamp)
        joints.publish(state)

    node.create_timer(1 / rate, tick)


def obey(node: Node) -> None:
    """Listen to commands."""
    node.create_subscription(command_type(CONTRACT), CONTRACT.action.topic, lambda message: None, qos.NEWEST)


def test_a_right_robot_is_found_right():
    """Also where best effort loses an image."""

    def drive(node: Node) -> None:
        sense(node)
        obey(node)

    with driver("well", drive):
        found = doctor.look("reacher", "well", SECONDS)
    assert all(finding.ok for finding in found.values()), found
    assert found["camera picture"].found == "rgb8 64x64"
    assert found["command listener"].found.startswith("/well/velocity_controller/commands: /well/driver")


def test_all_that_is_wrong_is_found_at_once():
    """Rate, size, stamps, joint names, and who else commands the robot."""

    def drive(node: Node) -> None:
        sense(node, rate=4.0, offset=30.0, names=("shoulder", "wrist"), size=32)
        obey(node)

    with driver("ill", drive):
        found = doctor.look("reacher", "ill", SECONDS)
    assert {name for name, finding in found.items() if not finding.ok} == {
        "camera picture",
        "camera rate",
        "camera stamps",
        "joint names",
        "joint stamps",
    }
    assert found["camera picture"].found == "rgb8 32x32"
    assert found["camera rate"].found.startswith("4")
    assert "in the future" in found["camera stamps"].found
    assert "elbow missing; there are shoulder, wrist" in found["joint names"].found


def test_a_wrong_type_and_an_unsuited_quality_of_service_are_found(capsys, monkeypatch: pytest.MonkeyPatch):
    """Both ends are there, and not one message passes. The exit code says so to a script."""

    def drive(node: Node) -> None:
        sense(node, compressed=True)
        node.create_subscription(JointState, "joint_states", lambda message: None, qos.sensor("reliable"))

    checks = tuple(Check(name, lambda: "fine") for name in ("ROS 2", "messages", "contract"))
    monkeypatch.setattr(doctor, "installation_checks", lambda *arguments: checks)
    with driver("deaf", drive), pytest.raises(typer.Exit) as ended:
        doctor.doctor(robot="reacher", checkpoint=None, namespace="deaf", seconds=1.0, as_json=True)
    assert ended.value.exit_code == 1
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    camera, quality = (result["checks"][name] for name in ("camera", "quality of service"))
    assert camera["level"] == quality["level"] == "fault"
    assert "CompressedImage" in camera["found"]
    assert camera["expected"] == "sensor_msgs/msg/Image"
    assert "/deaf/driver offers best effort" in quality["found"]
    assert quality["mend"]


def test_silent_and_stopped_nodes_and_a_second_commander_are_found(tmp_path: Path):
    """Each is there at first sight, or was; whoever else commands the robot goes past the safety gate."""

    def drive(node: Node) -> None:
        sense(node)
        obey(node)
        commands = node.create_publisher(command_type(CONTRACT), CONTRACT.action.topic, qos.NEWEST)
        node.create_timer(
            0.5, lambda: commands.publish(encode_command(CONTRACT, np.zeros(2), time.time_ns()))
        )

    action = [spec for spec in describe("explore", {"namespace": "two"}) if spec.name == "action"]
    with (
        driver("two", drive),
        driver("two", lambda node: None, name="explorer"),
        Supervisor(action, logs=tmp_path) as stack,
    ):
        stack.wait_ready()
        found = doctor.look("reacher", "two", SECONDS)
        assert found["nodes"].found == "the explore stack: action, explorer"
        assert found["node action"].found == "active"
        assert found["node explorer"].found == "silent on its services"
        wrong = found["command publisher"]
        assert not wrong.ok
        assert wrong.found.startswith("/two/velocity_controller/commands is published by /two/driver (")
        os.kill(stack.processes["action"], signal.SIGSTOP)
        try:
            stopped = doctor.look("reacher", "two", SECONDS)
        finally:
            os.kill(stack.processes["action"], signal.SIGCONT)
        assert not stopped["nodes"].ok
        assert "action missing" in stopped["nodes"].found


def test_nothing_there_is_no_fault():
    """Right after the installation nothing runs yet."""
    found: dict[str, Any] = doctor.look("reacher", "nobody", 0.1)
    assert list(found) == ["running robot"]
    assert found["running robot"].ok
    assert "namespace /nobody" in found["running robot"].found
