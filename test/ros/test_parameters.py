"""Declared parameters: what may change when, what is refused and why, and what describes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import rclpy
from rclpy.parameter import Parameter

from smwm_ros.errors import ConfigError
from smwm_ros.nodes.kinds import node_class
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import AUTOSTART, Param
from smwm_ros.stack.description import StackName, describe


class Tuned(SmwmNode):
    """Has a parameter of each kind; a span may not end before it begins."""

    parameters = (
        Param(name="begin", default=1.0, low=0.0, high=9.0, unit="s", description="A time.", dynamic=True),
        Param(name="end", default=2.0, low=0.0, high=9.0, unit="s", description="A time.", dynamic=True),
        Param(name="colour", default="red", choices=("red", "blue"), description="A colour."),
    )

    def __init__(self) -> None:
        super().__init__("tuned")
        self.changes: list[dict[str, Any]] = []
        self.flaw: Exception | None = None

    def check_change(self, values: dict[str, Any]) -> None:
        if self.flaw:
            raise self.flaw
        if values["end"] < values["begin"]:
            raise ConfigError(f"end {values['end']} lies before begin {values['begin']}")

    def change(self, values: dict[str, Any]) -> None:
        self.changes.append(values)
        if self.flaw:
            raise self.flaw

    def attempt(self, **values: Any) -> str:
        """Set parameters together; return why it was refused."""
        changes = [Parameter(name, value=value) for name, value in values.items()]
        return str(self.set_parameters_atomically(changes).reason)


@pytest.fixture
def node() -> Iterator[Tuned]:
    rclpy.init()
    made = Tuned()
    yield made
    made.shut_down()
    made.destroy_node()
    rclpy.shutdown()


@pytest.mark.parametrize("value", [-0.1, 9.1, float("nan"), float("inf"), 3, "wide"])
def test_values_that_cannot_be_are_refused_in_any_state(node: Tuned, value: Any) -> None:
    assert node.attempt(begin=value)
    node.bring_up()
    assert node.attempt(begin=value)
    assert (node.value("begin"), node.changes) == (1.0, [])


def test_several_are_applied_wholly_or_not_at_all(node: Tuned) -> None:
    """Pins that what goes together is judged together: neither half would be allowed alone."""
    node.bring_up()
    assert node.attempt(begin=5.0) == "end 2.0 lies before begin 5.0"
    assert "out of range" in node.attempt(begin=1.5, end=99.0)
    assert "was read when" in node.attempt(begin=1.5, colour="blue")
    assert (node.value("begin"), node.value("end"), node.changes) == (1.0, 2.0, [])
    assert not node.attempt(begin=5.0, end=6.0)
    assert node.changes == [{"begin": 5.0, "end": 6.0}]


def test_static_ones_are_refused_with_what_to_do(node: Tuned) -> None:
    assert not node.attempt(colour="blue")
    node.bring_up()
    refusal = node.attempt(colour="red")
    assert "ros2 lifecycle set /tuned deactivate, then cleanup" in refusal
    assert not node.attempt(colour="blue")  # as it is: tools load whole files
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert not node.attempt(colour="red")
    assert "start it anew with -p autostart:=False" in node.attempt(autostart=False)


def test_one_that_the_node_does_not_have_is_refused() -> None:
    """Pins a misspelt name, which rclpy drops; of others' it cannot know: rclpy's, and those of topics."""
    given = ("coluor:=blue", "length:=1.0", "use_sim_time:=true", "qos_overrides./any.publisher.depth:=3")
    rclpy.init(args=["--ros-args", *(text for one in given for text in ("-p", one))])
    try:
        node = Tuned()
        assert not node.bring_up()
        node.destroy_node()
    finally:
        rclpy.shutdown()
    said = "/tuned: unknown parameter coluor (the nearest is colour), unknown parameter length. "
    assert said in node.failure
    assert "docs/nodes.md" in node.failure


def test_ones_that_a_node_declares_last_are_known() -> None:
    """Pins a node that declares more after its base, as the planner does."""

    class Late(Tuned):
        def __init__(self) -> None:
            super().__init__()
            self.declared.declare([Param(name="late", default=1, description="A number.")])

    rclpy.init(args=["--ros-args", "-p", "late:=2"])
    try:
        node = Late()
        assert node.bring_up()
        assert node.value("late") == 2
        node.destroy_node()
    finally:
        rclpy.shutdown()


@pytest.mark.parametrize("stack", get_args(StackName))
def test_each_node_knows_what_its_stack_tells_it(stack: StackName) -> None:
    """Pins config/stack.yaml against the nodes' tables, also for what is told after a death."""
    known = {"use_sim_time"}
    for spec in describe(stack, {"bag": "x"}):
        own = {param.name for param in (AUTOSTART, *node_class(spec.name).parameters)}
        assert spec.after_death().parameters.keys() <= own | known, spec.name


def test_nothing_is_taken_over_while_unconfigured(node: Tuned) -> None:
    """``set_up`` reads the values then."""
    assert not node.attempt(begin=1.5)
    assert node.changes == []


def test_a_defect_in_the_check_refuses_and_one_in_the_change_is_a_fault(node: Tuned) -> None:
    """Pins that neither ends the process, as an exception in rclpy's callbacks would."""
    node.bring_up()
    node.flaw = ZeroDivisionError("boo")
    assert "boo" in node.attempt(begin=1.5)
    node.check_change = lambda values: None  # type: ignore[method-assign]
    assert not node.attempt(begin=1.5)
    assert node.monitor.count("fault.exception") == 1


def test_the_description_tells_unit_range_choices_and_when(node: Tuned) -> None:
    """What `ros2 param describe` prints."""
    begin, colour = node.describe_parameter("begin"), node.describe_parameter("colour")
    assert begin.description == "A time. Unit: s."
    assert (begin.floating_point_range[0].from_value, begin.floating_point_range[0].to_value) == (0.0, 9.0)
    assert begin.additional_constraints == "may be set at any time"
    assert colour.additional_constraints == "one of: red, blue; may be set while unconfigured"
    assert "start of the process" in node.describe_parameter("autostart").additional_constraints
