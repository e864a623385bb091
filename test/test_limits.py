"""The limits of the safety gate: value, change and position, and the ways to the safe action."""

from __future__ import annotations

import numpy as np
import pytest
from gating import PERIOD, REACHER, SECOND, START, Robot, firsts, limited, plan, reasons, slow

from smwm_ros.contract import Contract
from smwm_ros.runtime.joint_limits import REACTION, JointLimits
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.lock_step import LockStepGate
from smwm_ros.runtime.real_time import RealTimeGate

UP = plan(*[(0.0, 2.0)] * 100, execute=100)
"""Drives the elbow up as fast as it can."""


def drive(contract: Contract, seconds: float, *, position: float) -> tuple[list[float], Robot]:
    """Let an ideal elbow follow a plan that drives it up; return where it was, and the robot."""
    robot = Robot(RealTimeGate(contract))
    robot.sense(position)
    robot.give(UP)
    positions, velocity = [position], 0.0
    for _ in range(round(seconds / REACHER.period)):
        (_, command), *_ = robot.wait(REACHER.period + 1e-6) or [(0.0, None)]
        velocity = velocity if command is None else float(command.values[1])
        positions.append(positions[-1] + velocity * REACHER.period)
        robot.sense(positions[-1])
    return positions, robot


def test_a_change_too_large_and_one_that_comes_too_soon_are_told_apart() -> None:
    """Pins at half a unit per period: the first is the planner's fault, the other nobody's."""
    limiter = Limiter(slow())
    assert limiter.limit([0.5, 0.0], START)[1] == ""
    early, reason = limiter.limit([1.0, 0.0], START + PERIOD // 2)
    assert (early.tolist(), reason) == ([0.75, 0.0], "early change")
    assert limiter.limit([1.5, 0.0], START + PERIOD)[1] == "change limit"


def test_a_joint_stops_before_its_limit_and_comes_near_it() -> None:
    """Pins both: never beyond, and not so careful that the joint's range is lost."""
    positions, robot = drive(limited(), 4.0, position=0.0)
    assert max(positions) <= 2.5
    assert positions[-1] > 2.48
    assert robot.gate.counts["position limit"] > 10
    assert not robot.gate.counts["old joint states"]


def test_a_joint_that_brakes_slowly_brakes_early() -> None:
    """Pins the way of braking: from 2 rad/s at 2 rad/s^2 it is 1 rad, and the reaction before it."""
    contract = limited(slow(max_change=2.0))
    positions, _ = drive(contract, 6.0, position=0.0)
    assert 2.4 < max(positions) <= 2.5


def test_the_fastest_approach_is_the_one_of_the_formula() -> None:
    """Pins v * reaction + v^2 / (2 * change) = gap against numbers."""
    joints = JointLimits(limited(slow(max_change=2.0)))
    joints.sense({"elbow": 1.5}, START)
    shoulder, elbow = joints.limit([5.0, 5.0], START)
    assert shoulder == 5.0, "a joint without a limit goes as it is told"
    reaction = REACTION * REACHER.period
    assert elbow * reaction + elbow**2 / 4.0 == pytest.approx(1.0)
    assert joints.limit([0.0, -0.3], START)[1] == -0.3, "away from the limit it may go"


def test_what_was_commanded_since_the_measurement_counts() -> None:
    """Pins that an old position is not taken for the present one."""
    joints = JointLimits(limited())
    joints.sense({"elbow": 2.0}, START)
    joints.sent([0.0, 2.0], START - PERIOD)
    joints.sent([0.0, -1.0], START + PERIOD)
    fresh = JointLimits(limited())
    fresh.sense({"elbow": 2.1}, START + 2 * PERIOD)  # 2 rad/s for 50 ms; the way back is not counted on
    now = START + 2 * PERIOD
    assert joints.limit([0.0, 2.0], now)[1] == pytest.approx(fresh.limit([0.0, 2.0], now)[1])


def test_a_joint_beyond_its_limit_may_only_move_back() -> None:
    joints = JointLimits(limited())
    joints.sense({"elbow": 2.6}, START)
    assert joints.limit([0.0, 1.0], START)[1] == 0.0
    assert joints.limit([0.0, -1.0], START)[1] == -1.0


@pytest.mark.parametrize("kind", [RealTimeGate, LockStepGate])
def test_no_joint_states_no_motion(kind: type[RealTimeGate]) -> None:
    """Pins that a plan is not played blind, that it counts, and that it goes on once the joints are seen."""
    robot = Robot(kind(limited()))
    command = robot.stops(UP)
    assert command.reason == "no joint states"
    robot.now += PERIOD
    robot.steady += REACHER.period
    robot.sense(0.0)
    second = robot.step()
    assert second is not None
    assert not second.safe
    assert robot.gate.counts == {"no joint states": 1}


def test_old_joint_states_bring_the_safe_action_until_new_ones_come() -> None:
    """Pins recovery without a human: the plan is still good when the joints are seen again."""
    robot = Robot(RealTimeGate(limited()))
    robot.sense(0.0)
    robot.give(UP)
    sent = robot.wait(0.5)
    first = next(t for t, c in sent if c.safe)
    assert first - 5.0 <= REACHER.action.timeout + REACHER.period
    assert reasons(sent) == {"", "old joint states"}
    robot.sense(0.0)
    assert reasons(robot.wait(0.2)) == {""}


def test_ages_of_joint_states_count_in_both_directions() -> None:
    """Pins the transport: joint states that were 0.2 s under way are useful for 0.05 s only."""
    robot = Robot(RealTimeGate(limited()))
    robot.sense(0.0, age=0.2)
    robot.give(UP)
    sent = robot.wait(0.2)
    assert next(t for t, c in sent if c.safe) - 5.0 <= 0.05 + REACHER.period
    robot.sense(0.0, age=-1.0)
    assert robot.gate.counts["joint states from the future"] == 1
    assert reasons(robot.wait(0.1)) == {"old joint states"}


def test_a_frozen_clock_cannot_make_joint_states_young() -> None:
    """Pins that their age goes on in steady time when ROS time stands still."""
    robot = Robot(RealTimeGate(limited()))
    robot.sense(0.0, age=0.1)
    robot.wait(0.16, clock=0.0)  # less than a clock must rest to stand still
    assert robot.stops(UP).reason == "old joint states"


def test_joint_states_that_are_not_finite_stop_the_robot() -> None:
    robot = Robot(RealTimeGate(limited()))
    robot.sense(float("nan"))
    assert robot.stops(UP).reason == "joint states not finite"


def test_joint_states_may_come_in_parts() -> None:
    """Pins robots whose joints are published by several drivers on one topic."""
    joints = JointLimits(limited())
    joints.sense({"elbow": 1.0, "gripper": float("nan")}, START)
    joints.sense({"gripper": 0.0}, START + PERIOD)
    assert joints.flaw(START + PERIOD) == ""
    assert joints.names == ("elbow",)


def test_without_position_limits_joint_states_do_not_matter() -> None:
    assert not Robot(RealTimeGate(REACHER)).plays(UP).safe


def test_decelerate_keeps_the_direction() -> None:
    """Pins a base's arc: speed and turning shrink together, as fast as the slower of them may."""
    limiter = Limiter(slow(safe="decelerate"))
    for tick in range(4):
        limiter.limit([2.0, 0.5], START + tick * PERIOD)
    ways = [limiter.safe(START + tick * PERIOD) for tick in range(4, 9)]
    np.testing.assert_allclose(ways, [[1.5, 0.375], [1.0, 0.25], [0.5, 0.125], [0.0, 0.0], [0.0, 0.0]])
    assert limiter.settled


def test_zero_stops_each_number_as_fast_as_it_may() -> None:
    limiter = Limiter(slow())
    for tick in range(4):
        limiter.limit([2.0, 0.5], START + tick * PERIOD)
    ways = [limiter.safe(START + tick * PERIOD) for tick in range(4, 7)]
    np.testing.assert_allclose(ways, [[1.5, 0.0], [1.0, 0.0], [0.5, 0.0]])


def test_a_joint_at_its_limit_is_not_decelerated_over_it() -> None:
    """Pins that a slow dimension does not keep a fast one moving while nobody knows where it is."""
    contract = limited(REACHER, safe="decelerate")
    slow_shoulder = contract.action.dimensions[0].model_copy(update={"max_change": 1.0})
    contract = contract.model_copy(
        update={
            "action": contract.action.model_copy(
                update={"dimensions": (slow_shoulder, contract.action.dimensions[1])}
            )
        }
    )
    limiter = Limiter(contract)
    limiter.joints.sense({"elbow": 0.0}, START)
    for tick in range(40):
        limiter.joints.sense({"elbow": 0.0}, START + tick * PERIOD)
        limiter.limit([2.0, 1.5], START + tick * PERIOD)
    late = START + 60 * SECOND
    assert limiter.joints.flaw(late) == "old joint states"
    np.testing.assert_allclose(limiter.safe(late), [1.95, 0.0])


def test_a_limiter_that_outlives_its_gate_remembers_what_was_sent() -> None:
    """Pins deactivation and activation of a robot that was not at rest yet: no jump between."""
    limiter = Limiter(slow())
    robot = Robot(RealTimeGate(slow(), limiter))
    robot.give(plan(*[(2.0, 0.0)] * 9))
    assert firsts(robot.wait(0.16))[-1] == 2.0
    robot.gate = RealTimeGate(slow(), limiter)
    assert firsts(robot.wait(0.21)) == [1.9, 1.4, 0.9, 0.4, 0.0]


def test_a_simulator_in_lock_step_begins_at_rest_after_a_reset() -> None:
    """Pins that the first action of an episode does not depend on the last one of the episode before."""
    robot = Robot(LockStepGate(slow()))
    robot.give(plan(*[(2.0, 0.0)] * 4))
    for _ in range(3):
        robot.now += PERIOD
        robot.step()
    robot.now += 2 * REACHER.max_gap_ns
    assert robot.plays(plan((-2.0, 0.0), stamp=robot.now, sequence=2)).values[0] == -0.5


def positioned(safe: str | tuple[float, float] = "hold") -> Contract:
    """A robot whose commands are positions of its joints, a trajectory of one point."""
    shoulder, elbow = (
        d.model_copy(update={"field": f"points[0].positions[{index}]", "max_change": 1.0})
        for index, d in enumerate(REACHER.action.dimensions)
    )
    update = {"type": "trajectory_msgs/msg/JointTrajectory", "dimensions": (shoulder, elbow), "safe": safe}
    return REACHER.model_copy(update={"action": REACHER.action.model_copy(update=update)})


@pytest.mark.parametrize("safe", ["hold", (0.5, 0.5)])
def test_a_robot_commanded_by_positions_begins_where_it_is(safe: str | tuple[float, float]) -> None:
    """Pins that neither the safe action nor the first plan makes it jump from its pose."""
    robot = Robot(RealTimeGate(positioned(safe)))
    assert robot.wait(1.0) == []
    assert robot.give(plan((2.0, 2.0), stamp=robot.now)) is None
    assert robot.gate.counts["no joint states"] == 1
    robot.sense(1.5)
    robot.wait(REACHER.period)
    step = 1.0 * REACHER.period + 1e-9
    command = robot.plays(plan((2.0, 2.0), stamp=robot.now, sequence=2))
    assert command.values[1] == pytest.approx(1.5, abs=2 * step)
    assert command.values[0] == pytest.approx(0.0, abs=2 * step)


@pytest.mark.parametrize(("sensed", "age"), [(float("nan"), 0.0), (1.5, 0.3)])
def test_a_joint_state_that_is_no_good_tells_no_pose(sensed: float, age: float) -> None:
    robot = Robot(RealTimeGate(positioned()))
    robot.sense(sensed, age=age)
    assert robot.give(plan((2.0, 2.0), stamp=robot.now)) is None
    assert robot.gate.counts["no joint states"] == 1


def test_only_positions_of_sensed_joints_need_a_pose() -> None:
    contract = positioned((0.0, 0.0))
    assert contract.commanded_joints == ("shoulder", "elbow")
    blind = contract.observation.model_copy(update={"joints": None})
    assert contract.model_copy(update={"observation": blind}).commanded_joints == ()
    assert REACHER.commanded_joints == ()


def test_after_a_reset_in_lock_step_it_begins_where_the_joints_are_then() -> None:
    limiter = Limiter(positioned())
    limiter.sense({"shoulder": 0.0, "elbow": 1.0}, START, START)
    limiter.limit([0.0, 1.0], START)
    limiter.sense({"shoulder": 0.2, "elbow": -1.0}, START + PERIOD, START + PERIOD)
    limiter.rest()
    assert limiter.safe(START + PERIOD).tolist() == [0.2, -1.0]  # type: ignore[union-attr]
