"""The action node over DDS: emergency stop, other nodes' commands, joints, clocks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acting import Stage, write_contract
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

from smwm_ros.messages import to_time
from smwm_ros.nodes import qos
from smwm_ros.nodes.action_node import ActionNode
from smwm_ros.stack.description import describe
from smwm_ros.stack.restarts import RestartPolicy
from smwm_ros.stack.supervisor import Supervisor

SECOND = 1_000_000_000
# Long enough that a busy machine does not run out of it between a plan and the next look.
PATIENT = 2.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    path = tmp_path / "robot.yaml"
    with Stage(write_contract(path, timeout=PATIENT), path) as made:
        yield made


def play(stage: Stage, *action: float) -> None:
    """Send plans until one is played."""

    def plays() -> bool:
        stage.plan(*[action or (1.0, -1.0)] * 20, stamp=time.time_ns())
        stage.settle(0.05)
        return stage.reason == "-" and any(stage.command)

    stage.spin(plays, "a plan to be played")


def refuse(stage: Stage, reason: str, plans: int = 5) -> None:
    """Send plans of which none may be played."""
    seen = len(stage.messages)
    for _ in range(plans):
        stage.plan(*[(1.0, -1.0)] * 20, stamp=time.time_ns())
        stage.settle(0.06)
    stage.spin(lambda: len(stage.messages) > seen + 1 and stage.reason == reason, f"safe action: {reason}")
    assert not any(any(message.data) for message in stage.messages[seen + 1 :])


def dimensions(max_change: float) -> list[dict[str, Any]]:
    """The reacher's two, which may change so fast."""
    return [
        {"field": f"data[{number}]", "name": name, "unit": "rad/s", "low": -2.0, "high": 2.0}
        | {"max_change": max_change}
        for number, name in enumerate(("shoulder", "elbow"))
    ]


def passing(stage: Stage) -> Callable[[], bool]:
    """Return what sends a command to the gate, and tells whether one has passed."""
    sender = stage.probe.create_publisher(Float64MultiArray, "unsafe_command", qos.NEWEST)

    def passes() -> bool:
        sender.publish(Float64MultiArray(data=[1.0, -0.5]))
        stage.settle(0.05)
        return bool(stage.messages) and stage.command == [1.0, -0.5]

    return passes


def stopped(stage: Stage) -> bool:
    """Ask as somebody who comes late: what was published before must be heard."""
    states: list[Bool] = []
    subscription = stage.probe.create_subscription(Bool, "emergency_stopped", states.append, qos.LATCHED)
    stage.spin(lambda: states, "the state of the emergency stop")
    stage.probe.destroy_subscription(subscription)
    return states[-1].data


def test_emergency_stop_and_release(stage: Stage) -> None:
    """Pins the whole path: services, latch, state for late joiners, and a new plan after the release."""
    stage.start(ActionNode)
    assert not stopped(stage)
    play(stage)
    assert stage.call(Trigger, "emergency_stop").success
    refuse(stage, "emergency stop")
    assert stopped(stage)
    assert stage.call(Trigger, "release").message == "released"
    stage.settle(0.2)
    assert stage.reason == "released", "the plan from before must not go on"
    assert not stopped(stage)
    play(stage)


def test_emergency_stop_is_heard_while_inactive_and_outlasts_activation(stage: Stage) -> None:
    """Pins the latch across the lifecycle: asked for while inactive, kept by deactivate and activate."""
    node = stage.start(ActionNode)
    node.trigger_deactivate()
    answer = stage.call(Trigger, "emergency_stop")
    assert answer.success
    assert "not active" in answer.message
    node.trigger_activate()
    refuse(stage, "emergency stop")
    node.trigger_deactivate()
    node.trigger_activate()
    refuse(stage, "emergency stop")
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.bring_up()
    refuse(stage, "emergency stop")
    assert stage.call(Trigger, "release").success
    play(stage)


def test_a_robot_can_start_stopped(stage: Stage) -> None:
    """Pins a node that is started again after a crash: it says why nothing moves, and what to do."""
    node = stage.start(ActionNode, start_stopped=True)
    assert stopped(stage)
    refuse(stage, "emergency stop")
    said = node.monitor.status("action").message
    assert "died and was started again" in said
    assert "ros2 service call /release std_srvs/srv/Trigger" in said
    stage.call(Trigger, "release")
    play(stage)


def test_a_gate_that_was_killed_comes_back_stopped(stage: Stage, tmp_path: Path) -> None:
    """Pins that an emergency stop outlives the process of the gate, with the one who starts it again."""
    passes, soon = passing(stage), RestartPolicy(first=0.01)
    gate = describe("guard", {"contract": str(stage.path)})
    with Supervisor(gate, logs=tmp_path / "logs", restarts=soon) as stack:
        stack.wait_ready()
        stage.spin(passes, "a command to pass")
        stage.call(Trigger, "emergency_stop")
        os.kill(stack.processes["action"], signal.SIGKILL)
        while not stack.finished("action"):
            time.sleep(0.01)
        stack.check()
        while stack.finished("action"):
            stack.check()
        stack.wait_ready()
        stage.settle(0.2)
        seen = len(stage.messages)
        stage.spin(lambda: passes() or len(stage.messages) > seen + 20, "safe actions")
        assert not any(any(message.data) for message in stage.messages[seen:])
        assert stopped(stage)
        stage.call(Trigger, "release")
        stage.spin(passes, "a command to pass after the release")


def test_a_slow_robot_is_brought_to_rest_however_long_it_takes(tmp_path: Path) -> None:
    """Pins the way to the safe action at the end: it was cut off after a second."""
    path = tmp_path / "slow.yaml"
    with Stage(write_contract(path, timeout=PATIENT, dimensions=dimensions(1.0)), path) as stage:
        node = stage.start(ActionNode)

        def moves() -> bool:
            stage.plan(*[(2.0, -2.0)] * 40, stamp=time.time_ns())
            stage.settle(0.05)
            return bool(stage.messages) and stage.command[0] > 1.3

        stage.spin(moves, "motion")
        node.trigger_deactivate()
        stage.spin(lambda: stage.command == [0.0, 0.0], "rest")
        sent = np.array([message.data for message in stage.messages])
        assert np.abs(np.diff(sent, axis=0)).max() <= 1.0 * stage.contract.period + 1e-9


def test_commands_of_another_node_pass_the_same_gate(stage: Stage) -> None:
    """Pins safety_only: limits, what is not finite, the emergency stop, and silence."""
    node = stage.start(ActionNode, safety_only=True)
    sender = stage.probe.create_publisher(Float64MultiArray, "unsafe_command", qos.NEWEST)
    stage.spin(lambda: stage.reason == "no command", "the safe action")

    def send(*values: float) -> None:
        sender.publish(Float64MultiArray(data=values))
        stage.settle(0.1)

    def passes() -> bool:
        send(9.0, -0.5)
        return stage.command == [2.0, -0.5]

    stage.spin(passes, "a command within the limits")
    send(np.nan, 0.0)
    stage.spin(lambda: stage.reason == "unreadable", "the safe action")
    stage.spin(passes, "the next command")
    stage.spin(lambda: stage.reason == "too old", "the safe action after silence")
    stage.call(Trigger, "emergency_stop")
    for _ in range(3):
        send(1.0, 1.0)
    assert stage.reason == "emergency stop"
    assert stage.command == [0.0, 0.0]
    stage.call(Trigger, "release")
    stage.spin(passes, "a command after the release")
    node.report()
    shown = {pair.key: pair.value for pair in node.monitor.status("action").values}
    assert int(shown["gate.unreadable"]) >= 1
    assert int(shown["gate.value limit"]) >= 1
    assert float(shown["commands_hz"]) > 0


def test_safety_only_in_lock_step_is_refused(stage: Stage) -> None:
    node = stage.make(ActionNode, safety_only=True, lock_step=True)
    assert not node.bring_up()
    assert "do not go together" in node.failure


def test_position_limits_need_joint_states(tmp_path: Path) -> None:
    """Pins the topic, the names and the two ways it can go wrong: none, and not readable."""
    path = tmp_path / "robot.yaml"
    limited = dimensions(40.0)
    limited[1]["position"] = {"joint": "elbow", "low": -2.5, "high": 2.5}
    with Stage(write_contract(path, timeout=PATIENT, dimensions=limited), path) as stage:
        node = stage.start(ActionNode)
        refuse(stage, "no joint states")
        joints = stage.probe.create_publisher(JointState, "joint_states", qos.sensor_source("reliable"))

        def show(elbow: float) -> None:
            message = JointState(name=["elbow", "shoulder"], position=[elbow, 0.0])
            message.header.stamp = to_time(time.time_ns())
            joints.publish(message)

        def moves() -> bool:
            show(0.0)
            stage.plan(*[(0.0, 1.0)] * 20, stamp=time.time_ns())
            stage.settle(0.05)
            return stage.command == [0.0, 1.0]

        stage.spin(moves, "motion")

        def stands() -> bool:
            show(2.5)
            stage.plan(*[(0.0, 1.0)] * 20, stamp=time.time_ns())
            stage.settle(0.05)
            return stage.command == [0.0, 0.0]

        stage.spin(stands, "standstill at the limit")
        assert stage.applied[-1].reason == "position limit"
        joints.publish(JointState(name=["elbow"], position=[0.0, 0.0]))
        stage.spin(lambda: node.monitor.count("dropped.joints") == 1, "a bad joint state to be counted")


def test_clock_that_never_comes_comes_stands_and_jumps(stage: Stage) -> None:
    """Pins that steady time keeps the robot safe whatever /clock does, and that it plays again."""
    contract_timeout = PATIENT
    stage.start(ActionNode, use_sim_time=True)
    clock = stage.probe.create_publisher(Clock, "/clock", qos.CLOCK)
    stage.plan(*[(1.0, 1.0)] * 20, stamp=50 * SECOND)
    stage.spin(lambda: len(stage.applied) > 3, "safe actions without a clock")
    assert stage.reason in ("no plan", "from the future")

    def plays(now: int) -> bool:
        clock.publish(Clock(clock=to_time(now)))
        stage.settle(0.05)
        stage.plan(*[(1.0, 1.0)] * 50, stamp=now)
        stage.settle(0.05)
        return stage.reason == "-"

    stage.spin(lambda: plays(50 * SECOND), "a plan to be played")
    stage.spin(lambda: stage.reason == "clock stands still", "the watchdog", contract_timeout + 10)
    for now in (60, 50, 70):
        stage.spin(lambda now=now: plays(now * SECOND), f"a plan after a jump to {now} s")
