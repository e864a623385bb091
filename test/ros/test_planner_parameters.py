"""The planner node's parameters: the robot's own settings where none is given, and none that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rcl_interfaces.msg import ParameterType
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from robot import REACHER, wait_for, write_contract
from toy import ToyModel, ToyPlanner

from smwm_ros.contract import load_contract
from smwm_ros.errors import ConfigError, PlanningError
from smwm_ros.nodes.planner_node import PlannerNode
from smwm_ros.planning.config import PlannerConfig


@contextmanager
def planner(
    contract: Path | str, *given: str, make: Callable[..., Any] = ToyPlanner
) -> Iterator[PlannerNode]:
    """Make a planner node with parameters as they are given on a command line."""
    parameters = [text for one in (f"contract:={contract}", *given) for text in ("-p", one)]
    rclpy.init(args=["--ros-args", *parameters, "-p", "checkpoint:=toy"])
    try:
        node = PlannerNode("planner", planner=make, load=lambda *_: ToyModel(load_contract(contract)))
        yield node
        node.shut_down()
        node.destroy_node()
    finally:
        rclpy.shutdown()


@pytest.fixture
def contract(tmp_path: Path) -> Callable[..., Path]:
    def write(**section: Any) -> Path:
        write_contract(tmp_path / "robot.yaml", planner=section)
        return tmp_path / "robot.yaml"

    return write


def test_a_robots_settings_are_the_defaults_and_what_is_given_wins(contract: Callable[..., Path]) -> None:
    """Pins what `ros2 param get` and `describe` say: the value in force, its type, range and meaning."""
    with planner(contract(horizon=8, samples=256, std=1), "samples:=32") as node:
        assert {name: node.value(name) for name in PlannerConfig.model_fields} == PlannerConfig(
            horizon=8, samples=32, std=1.0
        ).model_dump()
        assert node.get_parameter("std").get_parameter_value().type == ParameterType.PARAMETER_DOUBLE
        horizon = node.describe_parameter("horizon")
        assert (horizon.integer_range[0].from_value, horizon.integer_range[0].to_value) == (1, 50)
        assert "model steps" in horizon.description
        assert "while unconfigured" in horizon.additional_constraints
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize(
    "wrong",
    ["samples:=0", "iterations:=0", "iterations:=-4", "time_budget:=-0.02", "time_budget:=.nan",
     "horizon:=51", "cost:=near", "latency:=-2.0", "std:=wide"],
)  # fmt: skip
def test_impossible_budgets_and_settings_are_refused_at_declaration(
    contract: Callable[..., Path], wrong: str
) -> None:
    """With the name of the parameter; the node is not even made."""
    with pytest.raises(ConfigError, match=wrong.partition(":")[0]), planner(contract(), wrong):
        pass


@pytest.mark.parametrize(
    ("section", "given", "said"),
    [
        ({"horizn": 8}, (), "the contract of 'reacher', planner: horizn: unknown key"),
        ({"samples": 1}, ("samples:=32",), "the contract of 'reacher', planner: samples: Input should be"),
        ({"samples": 32}, ("elites:=33",), "/planner: elites 33 must not exceed samples 32"),
    ],
)
def test_wrong_settings_of_the_robot_are_told_when_the_node_is_configured(
    contract: Callable[..., Path], section: dict[str, Any], given: tuple[str, ...], said: str
) -> None:
    """As for a contract that cannot be read: the node is there, and its failure says why."""
    with planner(contract(**section), *given) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.failure.startswith(said)


def test_a_contract_that_is_not_there_is_told_when_the_node_is_configured() -> None:
    with planner("nowhere.yaml") as node:
        assert node.value("samples") == PlannerConfig().samples
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "cannot read the robot contract" in node.failure


def test_a_plugin_that_fails_from_the_first_plan_on_keeps_the_node_from_starting(
    contract: Callable[..., Path],
) -> None:
    """Before any goal, and with its reason: the node plans once when it is configured."""

    class Failing(ToyPlanner):
        def plan(self, *_: Any, **__: Any) -> Any:
            raise PlanningError("the constraint failed: ZeroDivisionError('a plugin's')")

    with planner(contract(), make=Failing) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.failure.startswith("the constraint failed")


def test_what_belongs_together_changes_together_and_the_rest_is_refused(
    contract: Callable[..., Path],
) -> None:
    """Pins the dynamic settings: judged as a whole, taken over before the next plan, with a reason if not."""
    taken: list[PlannerConfig] = []

    class Noting(ToyPlanner):
        def change(self, config: PlannerConfig) -> None:
            taken.append(config)

    with planner(contract(samples=32), make=Noting) as node:
        assert node.bring_up()
        wrong = node.set_parameters_atomically(
            [Parameter("samples", value=16), Parameter("elites", value=17)]
        )
        assert not wrong.successful
        assert "elites 17 must not exceed samples 16" in wrong.reason
        assert node.value("samples") == 32
        (fixed,) = node.set_parameters([Parameter("horizon", value=4)])
        assert not fixed.successful
        assert "configured" in fixed.reason
        new = [
            ("samples", 16),
            ("iterations", 7),
            ("time_budget", 0.02),
            ("cost", "final"),
            ("tolerance", 1.0),
        ]
        assert node.set_parameters_atomically(
            [Parameter(name, value=value) for name, value in new]
        ).successful
        assert taken == [], "between two plans, not during one"
        node._work(None)
        assert (taken[0].samples, taken[0].iterations, taken[0].time_budget) == (16, 7, 0.02)
        assert (taken[0].cost, node.value("tolerance")) == ("final", 1.0)
        node._work(None)
        assert len(taken) == 1


def test_plans_longer_than_the_contract_allows_are_refused_before_they_are_made(tmp_path: Path) -> None:
    """Else the action node would refuse each of them."""
    action = yaml.safe_load(REACHER.read_text())["action"]
    write_contract(tmp_path / "robot.yaml", action={**action, "open_loop": 0.2})
    with planner(tmp_path / "robot.yaml", "replan:=5") as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "replan 5 of 0.05 s is longer than the contract's action.open_loop of 0.2 s" in node.failure
    with planner(tmp_path / "robot.yaml", "replan:=4") as node:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_settings_that_cannot_be_taken_over_do_not_end_the_thread_that_plans(
    contract: Callable[..., Path],
) -> None:
    """As for want of memory. Without the thread, every later goal would be given up as out of reach."""
    taken: list[int] = []

    class Full(ToyPlanner):
        def change(self, config: PlannerConfig) -> None:
            taken.append(config.samples)
            if config.samples == 16:
                raise MemoryError

    with planner(contract(samples=32), make=Full) as node:
        assert node.bring_up()
        for samples in (16, 24):
            assert node.set_parameters([Parameter("samples", value=samples)])[0].successful
            node._worker.offer(None)
            wait_for(lambda: samples in taken, "the change")  # noqa: B023
        assert node.monitor.count("fault.exception") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("robots:=alpha,",), "each once; found ''"),
        (("robots:=alpha,alpha",), "found 'alpha'"),
        (("robots:=alpha,2nd",), "found '2nd'"),
        (("robots:=alpha,beta", "lock_step:=true"), "time can wait for one robot only"),
    ],
)
def test_robots_that_cannot_be_planned_for_are_told(
    contract: Callable[..., Path], given: tuple[str, ...], said: str
) -> None:
    with planner(contract(), *given) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert said in node.failure
