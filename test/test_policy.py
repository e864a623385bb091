"""
The SROS2 policy: who may command the robot.

That it covers what the nodes do is shown in ros/test_two_robots.py and ros/test_enclaves.py.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from policy import FILE, Policy

from smwm_ros.resources import find_contract
from smwm_ros.stack.description import load_stack_file

NODES = Path(__file__).parents[1] / "smwm_ros" / "nodes"
COMMAND = find_contract("reacher").action.topic


@pytest.mark.parametrize("namespace", ["", "left"])
def test_only_the_action_node_may_command(namespace: str):
    """Also a pattern, such as `*`, must not let anybody else; nor may one robot command another."""
    policy = Policy(namespace)
    prefix = f"/{namespace}".rstrip("/")
    may = [name for name in policy.rules if policy.allows(name, "publish", f"{prefix}/{COMMAND}")]
    assert may == ["action"]
    assert not any(policy.allows(name, "publish", f"/right/{COMMAND}") for name in policy.rules)
    assert not any(policy.allows(name, "publish", "/cmd_vel") for name in policy.rules)


def test_only_planner_and_explorer_may_plan():
    """What cannot command could let the action node do so; the gate bounds it, but does not know the goal."""
    policy = Policy()
    assert {name for name in policy.rules if policy.allows(name, "publish", "/plan")} == {
        "planner",
        "explorer",
    }
    assert not any(
        policy.allows(name, "publish", "/belief") for name in policy.rules.keys() - {"world_model"}
    )


def test_every_node_has_an_enclave():
    """One without could not start at all where security is enforced."""
    enclaves = {enclave.attrib["path"] for enclave in Policy().root.iter("enclave")}
    executables = {path.stem.removesuffix("_node") for path in NODES.glob("*_node.py")}
    assert {entry.name for entry in load_stack_file().nodes} <= executables
    assert {f"/smwm/{name}" for name in executables} <= enclaves


def test_topics_are_those_of_the_shipped_contract():
    """The names at the file's head, with which a user begins."""
    observation, policy = find_contract("reacher").observation, Policy()
    streams = (observation.image, observation.depth, observation.camera_info, observation.joints)
    for stream in streams:
        for source in ("sim", "player"):
            assert stream is None or policy.allows(source, "publish", f"/{stream.topic}")
    assert policy.allows("sim", "subscribe", f"/{COMMAND}")


def test_no_comment_stands_where_the_tools_take_it_for_an_enclave():
    """`ros2 security generate_artifacts` stops half-way through the enclaves, with another message."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.fromstring(FILE.read_bytes(), parser)
    assert not [element for element in root.iter() if element.tag is ElementTree.Comment]
    assert root.attrib["version"] == "0.2.0"
