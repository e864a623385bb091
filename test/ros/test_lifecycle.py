"""The lifecycle base: no failure is silent, nothing is left behind, and a process ends as it should."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Float64, String

from smwm_ros.errors import ConfigError, DataError
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import Param
from smwm_ros.nodes.qos import NEWEST

TOY = str(Path(__file__).with_name("toy.py"))


class Fragile(SmwmNode):
    """Does in its transitions and callbacks what it is told."""

    parameters = (Param(name="gain", default=1.0, low=0.0, high=2.0, description="A gain.", dynamic=True),)

    def __init__(self) -> None:
        super().__init__("fragile")
        self.steps: list[str] = []
        self.failures: dict[str, Exception] = {}

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.failures:
            raise self.failures[name]

    def set_up(self) -> None:
        self.create_publisher(String, "said", NEWEST)
        self.listen(Float64, "heard", lambda _: self._step("heard"), NEWEST)
        self.every(0.01, lambda: self._step("tick"))
        self._step("set_up")

    def start(self) -> None:
        self._step("start")

    def stop(self) -> None:
        self._step("stop")

    def tear_down(self) -> None:
        self._step("tear_down")

    def entities(self) -> int:
        return len(self._entities())


@pytest.fixture
def node() -> Iterator[Fragile]:
    rclpy.init()
    made = Fragile()
    yield made
    made.destroy_node()
    rclpy.shutdown()


def state(node: Fragile) -> str:
    return str(node._state_machine.current_state[1])


def spin(node: Fragile, seconds: float) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(0.01)
    executor.shutdown()


def test_rounds_of_transitions_leave_nothing_behind(node: Fragile) -> None:
    """Pins that cleanup destroys what set-up made, without the node's help."""
    before = node.entities()
    for _ in range(20):
        assert node.bring_up()
        assert node.entities() == before + 5  # diagnostics and its timer besides the node's own three
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert node.entities() == before
    assert node.steps == ["set_up", "start", "stop", "tear_down"] * 20


@pytest.mark.parametrize(
    ("error", "result", "trace"),
    [
        (ConfigError("set the colour to blue"), TransitionCallbackReturn.FAILURE, False),
        (ZeroDivisionError("boo"), TransitionCallbackReturn.ERROR, True),
    ],
)
def test_failed_set_up_is_told_undone_and_can_be_tried_again(
    node: Fragile,
    error: Exception,
    result: TransitionCallbackReturn,
    trace: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Pins what rclpy alone would swallow: a user's error as one message, a defect with its traceback."""
    before = node.entities()
    node.failures["set_up"] = error
    assert node.trigger_configure() == result
    assert (state(node), node.entities()) == ("unconfigured", before)
    assert node.steps == ["set_up", "tear_down"]
    assert str(error) in node.failure
    told = capfd.readouterr().err
    assert str(error) in told
    assert ("Traceback" in told) == trace
    node.failures.clear()
    assert node.bring_up()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_shut_down_from_any_state_tears_down_once(node: Fragile, steps: int) -> None:
    for trigger in (node.trigger_configure, node.trigger_activate)[:steps]:
        trigger()
    node.shut_down()
    node.shut_down()
    assert node.steps.count("tear_down") == (steps > 0)
    assert node.steps.count("stop") == (steps == 2)


def test_failed_start_leaves_the_node_inactive(node: Fragile) -> None:
    node.failures["start"] = ConfigError("no")
    assert not node.bring_up()
    assert state(node) == "inactive"
    assert not node.active


def test_callbacks_run_only_while_active_and_outlive_exceptions(node: Fragile) -> None:
    node.trigger_configure()
    spin(node, 0.1)
    assert "tick" not in node.steps
    node.trigger_activate()
    for error in (DataError("a bad message"), ZeroDivisionError("boo")):
        node.failures["tick"] = error
        spin(node, 0.2)
    assert node.monitor.count("fault.message") > 1
    assert node.monitor.count("fault.exception") > 1
    node.trigger_deactivate()
    count = node.steps.count("tick")
    spin(node, 0.1)
    assert node.steps.count("tick") == count


def test_parameters_outside_their_range_are_refused(node: Fragile) -> None:
    def change(value: float) -> bool:
        return node.set_parameters([rclpy.Parameter("gain", value=value)])[0].successful

    assert [change(value) for value in (0.5, 2.0, -0.1, float("nan"), float("inf"))] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert node.value("gain") == 2.0
    assert not node.set_parameters([rclpy.Parameter("autostart", value=False)])[0].successful


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_process_in_good_order(number: signal.Signals) -> None:
    """Pins Ctrl-C: exit code 0, no traceback, and the robot's safe action as the last word."""
    command = [sys.executable, TOY, "action", "--ros-args", "-p", "contract:=config/robots/reacher.yaml"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "no plan" in process.stderr.readline()
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "safe action: stopped" in told
    assert "Traceback" not in told
