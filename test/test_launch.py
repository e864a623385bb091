"""
The launch files describe the same processes as `smwm up`.

launch_ros is not on PyPI. Where it is installed, the real one executes the launch files here; elsewhere
a stand-in of the few classes they use does, which shows that the processes and parameters
agree, but not that launch_ros accepts them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from checkpoints import write_header

from smwm_ros.errors import ConfigError
from smwm_ros.stack.description import ProcessSpec, StackName, describe
from smwm_ros.stack.restarts import RestartPolicy
from smwm_ros.stack.supervisor import GRACE

LAUNCH = Path(__file__).parents[1] / "launch"
HAS_LAUNCH_ROS = importlib.util.find_spec("launch_ros") is not None


@dataclass
class Recorded:
    """Stands in for an action or description: keeps what it was made with."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]


def stand_in(name: str) -> type[Recorded]:
    """Return a class that keeps what its constructor got."""

    class StandIn(Recorded):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(arguments, options)

    StandIn.__name__ = name
    return StandIn


@dataclass
class Context:
    launch_configurations: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    is_shutdown: bool = False


@pytest.fixture
def launch_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-ins where the real modules are not."""
    if not HAS_LAUNCH_ROS:
        contents = {
            "launch": {"LaunchDescription": stand_in("LaunchDescription"), "LaunchContext": Context},
            "launch.actions": {
                n: stand_in(n)
                for n in ("DeclareLaunchArgument", "GroupAction", "OpaqueFunction", "Shutdown", "TimerAction")
            },
            "launch.events": {},
            "launch.events.process": {"ProcessExited": stand_in("ProcessExited")},
            "launch.substitutions": {"LaunchConfiguration": stand_in("LaunchConfiguration")},
            "launch_ros": {},
            "launch_ros.actions": {"Node": stand_in("Node")},
            "launch_ros.parameter_descriptions": {"ParameterValue": stand_in("ParameterValue")},
        }
        for name, members in contents.items():
            module = ModuleType(name)
            vars(module).update(members)
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "smwm_ros.nodes.launching", raising=False)
    yield
    sys.modules.pop("smwm_ros.nodes.launching", None)


def describe_launch(stack: str) -> Any:
    """Return what a launch file returns."""
    spec = importlib.util.spec_from_file_location("launch_file", LAUNCH / f"{stack}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    return file.generate_launch_description()


def run_launch_file(stack: str, given: dict[str, str]) -> list[ProcessSpec]:
    """Execute a launch file as `ros2 launch` does, but start nothing; return the processes it asks for."""
    description = describe_launch(stack)
    return _with_real(description, given) if HAS_LAUNCH_ROS else _with_stand_in(description, given)


def _with_stand_in(description: Recorded, given: dict[str, str]) -> list[ProcessSpec]:
    *declared, start = description.arguments[0]
    defaults = {argument.arguments[0]: argument.options["default_value"] for argument in declared}
    nodes = start.options["function"](Context({**defaults, **given}))
    return [
        ProcessSpec(
            name=node.options["name"],
            module=f"smwm_ros.nodes.{node.options['executable']}",
            parameters=parameters(node),
            namespace=node.options["namespace"],
            restart=node.options["respawn"],
            environment=node.options["additional_env"],
            remappings=dict(node.options["remappings"]),
            enclave=(node.options["ros_arguments"] or [""])[-1],
            settling=float(node.options["sigterm_timeout"].options["default"]),
        )
        for node in nodes
    ]


def parameters(node: Recorded) -> dict[str, Any]:
    """Return what a node of the stand-ins is told."""
    return {key: value.arguments[0] for key, value in node.options["parameters"][0].items()}


def _with_real(description: Any, given: dict[str, str]) -> list[ProcessSpec]:
    from launch import LaunchContext  # noqa: PLC0415
    from launch.utilities import perform_substitutions  # noqa: PLC0415
    from launch.utilities.type_utils import perform_typed_substitution  # noqa: PLC0415
    from launch_ros.utilities import evaluate_parameters  # noqa: PLC0415

    context = LaunchContext()
    context.launch_configurations.update(given)
    specs = []
    for entity in description.entities:
        for node in entity.visit(context) or []:
            node._perform_substitutions(context)
            name = node.node_name.rpartition("/")
            parameters = evaluate_parameters(context, node._Node__parameters)[0]
            environment = {
                perform_substitutions(context, key): perform_substitutions(context, value)
                for key, value in node.additional_env or []
            }
            specs.append(
                ProcessSpec(
                    name[2],
                    f"smwm_ros.nodes.{node.node_executable}",
                    parameters,
                    name[0][1:],
                    environment=environment,
                    restart=perform_typed_substitution(context, node._ExecuteLocal__respawn, bool),
                    remappings=dict(node.expanded_remapping_rules or []),
                    enclave=(node._Node__ros_arguments or [""])[-1],
                    settling=float(perform_substitutions(context, node.sigterm_timeout)),
                )
            )
    return specs


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return write_header(tmp_path / "20240607")  # a name that YAML reads as a number


def as_launched(spec: ProcessSpec) -> ProcessSpec:
    """Return what launch is told of a process: how long it may take to end, and whether to respawn it."""
    respawn = spec.restart and not spec.again
    return replace(spec, ends=False, restart=respawn, again={}, settling=GRACE[0][1] + spec.settling)


@pytest.mark.parametrize("stack", get_args(StackName))
@pytest.mark.parametrize("lock_step", ["true", "false"])
def test_launch_files_and_up_start_the_same(launch_modules, checkpoint: str, stack, lock_step):
    """Each stack has a file; and launch defaults do not differ from the node's, nor from the other way's."""
    given = {"checkpoint": checkpoint, "lock_step": lock_step, "namespace": "left", "enclaves": "/smwm"}
    given |= {"bag": "/bags/one"} if stack in ("record", "explore") else {}
    assert run_launch_file(stack, given) == [as_launched(spec) for spec in describe(stack, given)]


def test_any_parameter_of_a_node_can_be_set(launch_modules, checkpoint: str):
    """`ros2 launch smwm_ros sim.launch.py planner.samples:=9`, as with `smwm up`."""
    specs = run_launch_file(
        "sim", {"checkpoint": checkpoint, "planner.samples": "9", "planner.cost": "final"}
    )
    planner = next(spec for spec in specs if spec.name == "planner")
    assert planner.parameters["samples"] == 9
    assert planner.parameters["cost"] == "final"


def test_a_wrong_argument_stops_the_launch(launch_modules, checkpoint: str):
    """Before anything is started."""
    with pytest.raises(ConfigError, match="lock_step: expected bool"):
        run_launch_file("sim", {"checkpoint": checkpoint, "lock_step": "maybe"})


def exits(stack: str, name: str, checkpoint: str) -> Any:
    """Return what a node of a launch does when its process ends; stand-ins only."""
    start = describe_launch(stack).arguments[0][-1]
    nodes = start.options["function"](Context({"checkpoint": checkpoint, "ros_namespace": "/left"}))
    return next(node.options["on_exit"] for node in nodes if node.options["name"] == name)


@pytest.mark.skipif(HAS_LAUNCH_ROS, reason="looks into the stand-ins")
def test_the_launch_ends_with_what_cannot_be_started_again(launch_modules, checkpoint: str):
    """Without the simulator nothing can go on; a planner that cannot live is given up, but not at once."""
    assert type(exits("sim", "sim", checkpoint)).__name__ == "Shutdown"
    on_exit = exits("sim", "planner", checkpoint)
    answers = [on_exit(None, None) for _ in range(RestartPolicy.most + 1)]
    assert answers[:-1] == [None] * RestartPolicy.most
    assert answers[-1].options["reason"] == "planner ended"


@pytest.mark.skipif(HAS_LAUNCH_ROS, reason="looks into the stand-ins")
def test_a_gate_that_died_comes_back_stopped(launch_modules, checkpoint: str):
    """As often as other nodes, in the group that its launch file was in, and not while the launch ends."""
    on_exit, context = exits("robot", "action", checkpoint), Context()
    for _ in range(RestartPolicy.most):
        later = on_exit(None, context)
        enter, node = later.options["actions"][0].arguments[0]
        assert parameters(node)["start_stopped"] is True
        within = Context()
        enter.options["function"](within)
        assert within.launch_configurations["ros_namespace"] == "/left"
        on_exit = node.options["on_exit"]
    assert on_exit(None, context).options["reason"] == "action ended"
    assert exits("robot", "action", checkpoint)(None, Context(is_shutdown=True)) is None
