"""The emergency stop of the safety gate, and commands that other nodes send through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gating import PERIOD, REACHER, SECOND, START, Robot, firsts, limited, plan, reasons, slow

from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.lock_step import LockStepGate
from smwm_ros.runtime.pass_gate import PassGate
from smwm_ros.runtime.real_time import RealTimeGate

LONG = plan(*[(1.0, 1.0)] * 100, execute=100)


def test_stop_is_sent_at_once_and_lasts_whatever_arrives() -> None:
    """Pins the latch: no plan, no end of a plan and no time ends it."""
    robot = Robot(RealTimeGate(REACHER))
    robot.plays(LONG)
    robot.wait(0.04)
    command = robot.gate.emergency_stop(robot.now, robot.steady)
    assert command is not None
    assert (command.safe, command.reason, command.values.tolist()) == (True, "emergency stop", [0.0, 0.0])
    sent = []
    for sequence in range(2, 40):
        for arriving in (plan((1.0, 1.0), stamp=robot.now, sequence=sequence), plan(stamp=robot.now)):
            sent += [(robot.steady, command) for command in [robot.give(arriving)] if command]
        sent += robot.wait(0.05)
    assert len(sent) in (37, 38)
    assert reasons(sent) == {"emergency stop"}


def test_release_resumes_no_old_plan() -> None:
    """Pins what could hurt: the plan from before, and one that was already on its way."""
    robot = Robot(RealTimeGate(REACHER))
    robot.plays(LONG)
    robot.gate.emergency_stop(robot.now, robot.steady)
    robot.wait(0.2)
    before = robot.now - 1
    robot.gate.release(robot.now)
    assert reasons(robot.wait(0.1)) == {"released"}
    robot.give(plan((1.0, 1.0), stamp=robot.now, evidence=before, sequence=9))
    assert reasons(robot.wait(0.1)) == {"older than the release"}
    robot.plays(plan((1.0, 1.0), stamp=robot.now, sequence=10))


def test_a_plan_that_waited_for_its_time_is_gone_too() -> None:
    robot = Robot(RealTimeGate(REACHER))
    assert robot.give(plan((1.0, 1.0), stamp=START + 2 * PERIOD)) is None
    robot.gate.emergency_stop(robot.now, robot.steady)
    robot.gate.release(robot.now)
    assert all(c.safe for _, c in robot.wait(0.3))


def test_release_without_a_stop_changes_nothing() -> None:
    robot = Robot(RealTimeGate(REACHER))
    robot.plays(LONG)
    robot.gate.release(robot.now)
    assert reasons(robot.wait(0.2)) == {""}


def test_release_under_a_clock_that_was_turned_back_shuts_nobody_out() -> None:
    robot = Robot(RealTimeGate(REACHER))
    robot.gate.emergency_stop(robot.now, robot.steady)
    robot.gate.release(robot.now)
    robot.jump(-10)
    robot.plays(plan((1.0, 1.0), stamp=robot.now))


def test_the_way_to_rest_is_within_the_limits() -> None:
    robot = Robot(RealTimeGate(slow()))
    robot.give(plan(*[(2.0, 0.0)] * 9))
    robot.wait(0.16)
    stop = robot.gate.emergency_stop(robot.now, robot.steady)
    assert stop is not None
    values = [float(stop.values[0]), *firsts(robot.wait(0.4))]
    assert values[0] == pytest.approx(1.9, abs=0.11)
    assert np.diff([2.0, *values]).min() >= -0.5 - 1e-9
    assert values[-1] == 0.0


def test_lock_step_answers_plans_with_safe_actions_while_stopped() -> None:
    """Pins that the simulator does not stand still for ever, and plays again after the release."""
    robot = Robot(LockStepGate(REACHER))
    robot.plays(LONG)
    assert robot.gate.emergency_stop(robot.now, robot.steady) is None, "this tick has its command"
    for sequence in range(2, 6):
        robot.now += PERIOD
        command = robot.step() or robot.give(plan((1.0, 1.0), stamp=robot.now, sequence=sequence))
        assert command is not None
        assert command.safe
        assert command.stamp == robot.now
    robot.gate.release(robot.now)
    robot.now += PERIOD
    robot.plays(plan((1.0, 1.0), stamp=robot.now, sequence=9))


@dataclass
class Passing(Robot):
    """A robot whose gate passes commands on."""

    gate: Any

    def send(self, *values: float, stamp: int = 0) -> Command | None:
        return self.gate.accept(np.array(values), stamp, self.now, self.steady)


def test_commands_pass_at_once_and_are_repeated_until_too_old() -> None:
    """Pins safety_only: no delay, the contract's rate, and the safe action once the sender is silent."""
    robot = Passing(PassGate(REACHER))
    assert reasons(robot.wait(0.1)) == {"no command"}
    command = robot.send(1.0, -1.0)
    assert command is not None
    assert (command.values.tolist(), command.safe, command.evidence) == ([1.0, -1.0], False, 0)
    sent = robot.wait(1.0)
    assert len(sent) >= 19
    last = max(t for t, c in sent if not c.safe)
    assert 0.15 <= last - 5.1 <= REACHER.action.timeout
    assert sent[-1][1].reason == "too old"
    assert robot.gate.counts == {"too old": 1}


def test_commands_are_limited() -> None:
    robot = Passing(PassGate(slow()))
    command = robot.send(9.0, 0.1)
    assert command is not None
    assert (command.values.tolist(), command.reason) == ([0.5, 0.1], "change limit")
    assert firsts(robot.wait(0.11)) == [1.0, 1.5]


def test_commands_obey_position_limits() -> None:
    robot = Passing(PassGate(limited()))
    command = robot.send(0.0, 1.0)
    assert command is not None
    assert command.reason == "no joint states"
    robot.sense(2.5)
    robot.steady += 0.05
    command = robot.send(0.0, 1.0)
    assert command is not None
    assert (command.values[1], command.reason) == (0.0, "position limit")


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [(START - SECOND, "too old"), (START + SECOND, "from the future")],
)
def test_stamped_commands_are_judged_in_both_directions(stamp: int, reason: str) -> None:
    """Pins that the one before is dropped as well: its sender's clock is wrong."""
    robot = Passing(PassGate(REACHER))
    robot.send(1.0, 1.0, stamp=START)
    command = robot.send(1.0, 1.0, stamp=stamp)
    assert command is not None
    assert (command.safe, command.reason) == (True, reason)


def test_commands_wait_for_the_release() -> None:
    robot = Passing(PassGate(REACHER))
    robot.send(1.0, 1.0)
    stop = robot.gate.emergency_stop(robot.now, robot.steady)
    assert stop is not None
    assert stop.safe
    robot.send(1.0, 1.0)
    assert reasons(robot.wait(0.1)) == {"emergency stop"}
    robot.gate.release(robot.now)
    assert reasons(robot.wait(0.1)) == {"released"}, "the command from before is forgotten"
    old = robot.send(1.0, 1.0, stamp=robot.now - 2 * PERIOD - 1)
    assert old is None or old.safe
    command = robot.send(1.0, 1.0)
    assert command is not None
    assert not command.safe


def test_a_command_that_could_not_be_read_stops_the_robot() -> None:
    robot = Passing(PassGate(REACHER))
    robot.send(1.0, 1.0)
    command = robot.gate.refuse("unreadable", robot.now, robot.steady)
    assert command is not None
    assert (command.safe, command.reason) == (True, "unreadable")
