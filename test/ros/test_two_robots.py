"""Two robots in two namespaces of one ROS domain, each with all its nodes, each in lock-step."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from policy import Policy

from smwm_ros.cli import doctor
from smwm_ros.evaluation.judging import errors, reached
from smwm_ros.evaluation.pairs import Pair, draw_pairs
from smwm_ros.evaluation.protocol import Rollouts
from smwm_ros.nodes.client import RobotClient
from smwm_ros.nodes.ros_eval import run_pair
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.resources import find_contract
from smwm_ros.stack.description import describe
from smwm_ros.stack.supervisor import Supervisor
from smwm_ros.tasks import make_task

CONTRACT = find_contract("reacher")
ROBOTS = ("left", "right")
OFFSET = 10
SHARED = ("/diagnostics", "/rosout", "/parameter_events")
"""Topics that all robots have in common."""
NODES = 5
OBSERVERS = {"smwm_client", "smwm_doctor"}
"""What they may do: test_enclaves.py."""
CONFIG = PlannerConfig(samples=32, iterations=2)


@pytest.mark.timeout(400)
def test_two_robots_reach_their_goals_without_cross_talk(tmp_path: Path):
    """
    A topic, service or clock without its namespace: the robots would move each other.

    Both run at once, and each reaches its own goal. There is no topic that both have, and all that their
    nodes do, the SROS2 policy allows.
    """
    with make_task(CONTRACT) as task, ExitStack() as running:
        problems = draw_pairs(task, len(ROBOTS), OFFSET, seed=3)
        alone = [dataclasses.replace(problems, pairs=(pair,)) for pair in problems.pairs]
        stacks = {}
        for name in ROBOTS:
            specs = describe("sim", {"namespace": name, "lock_step": True}, {"planner": CONFIG.model_dump()})
            stacks[name] = running.enter_context(Supervisor(specs, logs=tmp_path / name))
        for stack in stacks.values():
            stack.wait_ready(240)
        clients = {
            name: running.enter_context(
                RobotClient(CONTRACT, namespace=name, reliable=True, check=stack.check)
            )
            for name, stack in stacks.items()
        }

        def drive(name: str, pair: Pair) -> np.ndarray[Any, np.dtype[np.float64]]:
            clients[name].wait_ready(60)
            return run_pair(clients[name], task, pair, problems.budget)[0]

        with ThreadPoolExecutor(len(ROBOTS)) as pool:
            states = list(pool.map(drive, ROBOTS, problems.pairs))
        for problem, moved in zip(alone, states, strict=True):
            driven = Rollouts(moved[None], np.zeros(0))
            assert reached(errors(task, problem, driven), task.threshold)[0].all()
        used = {name: look_at(name) for name in ROBOTS}
        for name in ROBOTS:
            checks = ("nodes", "clock", "camera", "command listener", "command publisher")
            for _ in range(5):  # ten processes on few cores: not everyone is known at once
                found = doctor.look("reacher", name, 2.0)
                if all(found[check].ok for check in checks):
                    break
            assert all(found[check].ok for check in checks), found
            assert found["clock"].found == f"/clock, by /{name}/sim"
    names = [
        {topic for node in nodes.values() for verb in ("publish", "subscribe") for topic in node[verb]}
        for nodes in used.values()
    ]
    assert names[0] & names[1] == set(SHARED)
    for robot, nodes in used.items():
        assert set(nodes) == {"sim", "perception", "world_model", "planner", "action"}
        policy = Policy(robot, clock=f"/{robot}/clock")
        denied = [
            f"{node} may not {verb} {topic}"
            for node, does in nodes.items()
            for verb, topics in does.items()
            for topic in topics
            if not policy.allows(node, verb, topic)
        ]
        assert not denied


def look_at(namespace: str) -> dict[str, dict[str, set[str]]]:
    """Return what each node of a namespace publishes, subscribes to, replies to and requests."""
    context = rclpy.Context()
    rclpy.init(context=context)
    looker = rclpy.create_node("looker", context=context, namespace=f"/{namespace}_looker")
    try:
        deadline = time.monotonic() + 20
        found: set[str] = set()
        while len(found) < NODES and time.monotonic() < deadline:
            time.sleep(0.1)
            here = looker.get_node_names_and_namespaces()
            found = {name for name, space in here if space == f"/{namespace}"} - OBSERVERS
        time.sleep(1.0)  # their topics may be known a little later
        return {
            name: {
                verb: {topic for topic, _ in ask(name, f"/{namespace}")}
                for verb, ask in (
                    ("publish", looker.get_publisher_names_and_types_by_node),
                    ("subscribe", looker.get_subscriber_names_and_types_by_node),
                    ("reply", looker.get_service_names_and_types_by_node),
                    ("request", looker.get_client_names_and_types_by_node),
                )
            }
            for name in found
        }
    finally:
        looker.destroy_node()
        rclpy.shutdown(context=context)
