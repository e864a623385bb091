"""What doctor, clients and player do, the SROS2 policy allows; for the other nodes: test_two_robots.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.srv import GetState
from policy import Policy
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from recordings import PERIOD, TYPES, Recording

from smwm_ros.cli import doctor
from smwm_ros.nodes import guest, playing
from smwm_ros.nodes.client import RobotClient
from smwm_ros.nodes.loopback import check_middleware
from smwm_ros.resources import find_contract

CONTRACT = find_contract("reacher")
NAMESPACES = ("", "left")
Used = dict[str, set[str]]


def add_uses(node: Node, used: Used) -> None:
    """Add what a node publishes, subscribes to, replies to and requests."""
    for verb, ask in (
        ("publish", node.get_publisher_names_and_types_by_node),
        ("subscribe", node.get_subscriber_names_and_types_by_node),
        ("reply", node.get_service_names_and_types_by_node),
        ("request", node.get_client_names_and_types_by_node),
    ):
        names = {name for name, _ in ask(node.get_name(), node.get_namespace())}
        used.setdefault(verb, set()).update(names)


def denied(used: Used, enclave: str, namespace: str) -> list[str]:
    policy = Policy(namespace)
    return [
        f"{verb} {name}"
        for verb, names in used.items()
        for name in names
        if not policy.allows(enclave, verb, name)
    ]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Used:
    """Fill with what guests do whenever they spin."""
    found: Used = {}

    class Executor(SingleThreadedExecutor):
        def spin_once(self, timeout_sec: float | None = None) -> None:
            for node in self.get_nodes():
                add_uses(node, found)
            super().spin_once(timeout_sec)

    monkeypatch.setattr(guest, "SingleThreadedExecutor", Executor)
    return found


@contextmanager
def planner(namespace: str) -> Iterator[None]:
    """Be there as a node of ours, which a guest asks."""
    with guest.Guest("planner", namespace) as other:
        for kind, name in ((GetState, "get_state"), (GetParameters, "get_parameters")):
            other.node.create_service(kind, f"~/{name}", lambda request, response: response)
        yield


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_doctor_stays_within_the_enclave_of_clients(namespace: str, used: Used):
    """Its message to itself was denied, which looks like a middleware that does not work."""
    prefix = f"/{namespace}".rstrip("/")
    with planner(namespace):
        check_middleware(namespace)
        doctor.look("reacher", namespace, 0.1)
    assert f"{prefix}/smwm_doctor/loopback" in used["publish"] & used["subscribe"]
    assert used["request"] == {f"{prefix}/planner/get_state", f"{prefix}/planner/get_parameters"}
    assert f"{prefix}/camera/image_raw" in used["subscribe"]
    assert not denied(used, "client", namespace)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_clients_stay_within_their_enclave(namespace: str, used: Used):
    """Goals, resets, and all that is looked at meanwhile."""
    with RobotClient(CONTRACT, namespace=namespace, images=True) as client:
        client.wait(0.1)
    assert any(name.endswith("reach_goal/_action/send_goal") for name in used["request"])
    assert not denied(used, "client", namespace)


@pytest.mark.parametrize("commands", [False, True])
def test_the_player_stays_within_its_enclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: bool):
    """A bag of the contract's topics can be played; commands in it cannot: they would go past the gate."""
    with Recording(tmp_path / "bag", CONTRACT) as bag:
        bag.tick(PERIOD, 0)
        if commands:
            layout = TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
            values = TYPES["std_msgs/msg/Float64MultiArray"](layout=layout, data=np.zeros(2))
            bag.add(CONTRACT.action.topic, values)
    monkeypatch.setattr(playing, "large_messages", dict)  # which is for processes of their own
    used: Used = {}
    settings = {"bag": str(tmp_path / "bag"), "clock": 10.0, "wait": 0.0}
    playing.play(settings, ["-r", "__ns:=/left"], lambda node: add_uses(node, used))
    assert {"/clock", "/left/camera/image_raw", "/left/heartbeat/player"} <= used["publish"]
    refused = [f"publish /left/{CONTRACT.action.topic}"] if commands else []
    assert denied(used, "player", "left") == refused
