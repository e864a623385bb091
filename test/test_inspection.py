"""What `smwm doctor` says of a running graph; no ROS in these tests, the graphs are made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from smwm_ros.resources import find_contract
from smwm_ros.stack.findings import Finding, Level
from smwm_ros.stack.graph import Endpoint, Graph, Report, Sample, Topic
from smwm_ros.stack.inspection import Inspection
from smwm_ros.stack.sensor_checks import measured_rate

CONTRACT = find_contract("reacher")
STACKS = {
    "sim": ("sim", "perception", "world_model", "planner", "action"),
    "robot": ("perception", "world_model", "planner", "action"),
    "perceive": ("perception", "world_model"),
    "guard": ("action",),
}
IMAGE, JOINTS, COMMAND = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/JointState",
    "std_msgs/msg/Float64MultiArray",
)
CAMERA, STATES, COMMANDS = "/camera/image_raw", "/joint_states", "/velocity_controller/commands"
PERIOD = CONTRACT.period_ns


def samples(period: int = PERIOD, age: float = 0.01, content: str = "rgb8 64x64") -> tuple[Sample, ...]:
    """Return a second of a sensor."""
    return tuple(Sample(n * period, age, content, ("shoulder", "elbow")) for n in range(20))


def robot(**changes: Any) -> Graph:
    """Return a graph in which all is well, but for the changes."""
    nodes = tuple(f"/{name}" for name in STACKS["robot"])
    healthy = Graph(
        domain=3,
        seconds=3.0,
        topics={
            CAMERA: Topic((Endpoint("/driver", IMAGE),), (Endpoint("/perception", IMAGE),)),
            STATES: Topic((Endpoint("/driver", JOINTS),)),
            COMMANDS: Topic((Endpoint("/action", COMMAND),), (Endpoint("/driver", COMMAND),)),
        },
        nodes=(*nodes, "/driver"),
        states=dict.fromkeys(nodes, "active"),
        sim_time=dict.fromkeys(nodes, False),
        reports=dict.fromkeys(nodes, Report(0, "ok")),
        images=samples(),
        joints=samples(),
    )
    return dataclasses.replace(healthy, **changes)


def examine(graph: Graph) -> dict[str, Finding]:
    return Inspection(CONTRACT, graph, STACKS).findings()


def topics(**changes: Topic) -> dict[str, Any]:
    names = {"camera": CAMERA, "states": STATES, "commands": COMMANDS}
    return {"topics": {**robot().topics, **{names[name]: topic for name, topic in changes.items()}}}


def test_a_healthy_robot_has_no_findings():
    """A check that cries wolf is not read."""
    found = examine(robot())
    assert {finding.level for finding in found.values()} == {Level.ok}
    assert found["nodes"].found == "the robot stack: action, perception, planner, world_model"
    assert found["camera rate"].found == "20 Hz by the stamps"


def test_a_gate_alone_is_a_stack_only_if_it_takes_other_nodes_commands():
    """Else a robot that has lost its planner and all the rest would look healthy."""
    alone: dict[str, Any] = {
        "nodes": ("/action", "/driver"),
        "states": {"/action": "active"},
        "reports": {"/action": Report(0, "ok")},
        "images": (),
        "joints": (),
    }
    lost = examine(robot(**alone))["nodes"]
    assert (lost.level, "perception" in lost.found) == (Level.fault, True)
    teleop = Topic((Endpoint("/teleop", COMMAND),), (Endpoint("/action", COMMAND),))
    found = examine(robot(**alone, topics={COMMANDS: robot().topics[COMMANDS], "/unsafe_command": teleop}))
    assert found["nodes"].found == "the guard stack: action"
    assert {finding.level for finding in found.values()} == {Level.ok}, "it needs no camera"


@pytest.mark.parametrize(
    ("changes", "check", "says", "mend"),
    [
        (topics(camera=Topic()), "camera", "nobody publishes /camera/image_raw", "correct the topic"),
        (
            {"topics": {**topics(camera=Topic())["topics"], "/cam": Topic((Endpoint("/driver", IMAGE),))}},
            "camera",
            "of this type are published: /cam",
            "remap",
        ),
        (
            topics(camera=Topic((Endpoint("/driver", "sensor_msgs/msg/CompressedImage"),))),
            "camera",
            "CompressedImage",
            "correct the type",
        ),
        (
            topics(camera=Topic((Endpoint("/driver", IMAGE), Endpoint("/other", IMAGE)))),
            "camera",
            "several publishers: /driver (sensor_msgs/msg/Image), /other",
            "end the others",
        ),
        ({"images": ()}, "camera", "no message on /camera/image_raw in 3 s", "driver"),
        ({"images": samples(content="bgr8 640x480")}, "camera picture", "bgr8 640x480", "in the contract"),
        ({"images": samples(period=5 * PERIOD)}, "camera rate", "4 Hz", "camera's rate"),
        ({"images": samples(period=0)}, "camera rate", "20 images, all with one stamp", "frozen"),
        ({"images": samples(age=-2.0)}, "camera stamps", "2.000 s in the future", "chrony"),
        ({"images": samples(age=9.0)}, "camera stamps", "9.000 s old", "chrony"),
        (
            {"joints": tuple(dataclasses.replace(s, names=("shoulder", "wrist")) for s in samples())},
            "joint names",
            "elbow missing; there are shoulder, wrist",
            "joint names in the contract",
        ),
        ({"joints": samples(age=-1.0)}, "joint stamps", "in the future", "chrony"),
        ({"joints": ()}, "joints", "no message on /joint_states", "driver"),
        (
            topics(
                commands=Topic(
                    (Endpoint("/action", COMMAND), Endpoint("/teleop", COMMAND)),
                    (Endpoint("/driver", COMMAND),),
                )
            ),
            "command publisher",
            "published by /teleop",
            "through the action node",
        ),
        (
            topics(commands=Topic((Endpoint("/action", COMMAND),), (Endpoint("/recorder", COMMAND),))),
            "command listener",
            "nobody listens",
            "start the driver",
        ),
        (
            topics(commands=Topic((), (Endpoint("/driver", "geometry_msgs/msg/Twist"),))),
            "command listener",
            "geometry_msgs/msg/Twist",
            "correct the type",
        ),
        (
            topics(camera=Topic((Endpoint("/driver", IMAGE),), (), ("/driver offers best effort",))),
            "quality of service",
            "/camera/image_raw: /driver offers best effort",
            "sensor_reliability:=best_effort",
        ),
        ({"clocks": ("/gazebo",)}, "clock", "/gazebo publishes /clock, and", "use_sim_time:=true"),
        ({"sim_time": {"/planner": True}}, "clock", "/planner go by /clock, and nobody", "smwm play"),
        (
            {"sim_time": {"/planner": True, "/action": False}, "clocks": ("/gazebo",)},
            "clock",
            "/planner go by /clock, /action by the system's time",
            "alike",
        ),
        ({"nodes": ("/perception", "/world_model", "/action")}, "nodes", "planner missing", "smwm up"),
        ({"nodes": (*robot().nodes, "/action")}, "nodes", "two nodes are named /action", "namespace"),
        ({"states": {**robot().states, "/planner": "inactive"}}, "node planner", "inactive", "activate"),
        ({"reports": {}}, "node action", "silent on /diagnostics", "starts it again"),
        ({"states": {}}, "node action", "silent on its services", "starts it again"),
        (
            {"reports": {**robot().reports, "/planner": Report(2, "out of memory")}},
            "node planner",
            "out of memory",
            "log",
        ),
    ],
)
def test_each_fault_is_found_with_what_to_do(changes: dict[str, Any], check: str, says: str, mend: str):
    """And only it: a second finding that only follows from the first hides it."""
    found = examine(robot(**changes))
    assert found[check].level is Level.fault
    assert says in found[check].found
    assert found[check].expected
    assert mend in found[check].mend
    others = {name for name, finding in found.items() if not finding.ok} - {check}
    assert not {name for name in others if not name.startswith("node ")}


@pytest.mark.parametrize(
    ("graph", "check"),
    [
        (robot(images=samples(period=round(1.3 * PERIOD))), "camera rate"),
        (robot(reports={**robot().reports, "/planner": Report(1, "late")}), "node planner"),
        (Graph(domain=0, seconds=3.0), "running robot"),
        (robot(nodes=("/driver",), states={}, sim_time={}), "nodes"),
    ],
)
def test_what_may_be_meant_is_a_warning(graph: Graph, check: str):
    """Exit code 0: a robot whose nodes are not started yet is not broken."""
    found = examine(graph)
    assert found[check].level is Level.warning
    assert all(finding.ok for finding in found.values())


def test_a_fast_camera_and_time_at_rest_are_fine():
    """Surplus images are dropped; in lock-step nothing moves until a command comes."""
    assert "the surplus is dropped" in examine(robot(images=samples(PERIOD // 3)))["camera rate"].found
    simulated = dict.fromkeys(robot().sim_time, True)
    at_rest = {"clocks": ("/sim",), "sim_time": simulated, "time_stands": True}
    found = examine(robot(images=samples(period=0), **at_rest))
    assert found["camera rate"].ok
    assert found["clock"].ok
    found = examine(robot(images=(), joints=(), **at_rest))
    assert found["camera"].ok
    assert found["joints"].ok


def test_a_robot_in_a_namespace_is_judged_by_its_own_topics():
    """The other robot's action node is not this one's."""

    def moved(name: str) -> str:
        return f"/left{name}"

    def move(topic: Topic, to: Callable[[str], str]) -> Topic:
        ends = (topic.publishers, topic.subscribers)
        return Topic(*(tuple(dataclasses.replace(e, node=to(e.node)) for e in end) for end in ends))

    graph = robot()
    left = {moved(name): move(topic, moved) for name, topic in graph.topics.items()}
    nodes = {
        "nodes": tuple(map(moved, graph.nodes)),
        "states": {moved(k): v for k, v in graph.states.items()},
        "reports": {moved(k): v for k, v in graph.reports.items()},
    }
    graph = dataclasses.replace(graph, topics={**graph.topics, **left}, **nodes)
    found = Inspection(CONTRACT, graph, STACKS, "left").findings()
    assert all(finding.ok for finding in found.values())
    astray = {**left, moved(COMMANDS): graph.topics[COMMANDS]}
    found = Inspection(CONTRACT, dataclasses.replace(graph, topics=astray), STACKS, "/left/").findings()
    assert "published by /action" in found["command publisher"].found


def test_rates_are_measured_by_the_median():
    """Best effort loses messages: a mean would blame the camera for it."""
    kept = [n * PERIOD for n in range(40) if n % 5]
    assert measured_rate([Sample(stamp, 0.0, "") for stamp in kept]) == pytest.approx(20)
