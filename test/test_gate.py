"""The safety gate: what goes out for every plan, good or bad, at every time, good or bad."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from gating import PERIOD, REACHER, SECOND, START, Robot, firsts, limited, plan, reasons, slow

from smwm_ros.runtime.lock_step import LockStepGate
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.plan_gate import PlanGate
from smwm_ros.runtime.real_time import RealTimeGate


def at(stamp: int, of: Plan, **changes: object) -> Plan:
    """The same plan from another image."""
    return replace(of, stamp=stamp, evidence=stamp, **changes)  # type: ignore[arg-type]


RAMP = plan(*[(0.1 * i, -0.1 * i) for i in range(10)], execute=5)


def test_safe_action_every_period_without_a_plan() -> None:
    """Pins that the robot is never left without a command, from the start on."""
    sent = Robot(RealTimeGate(REACHER)).wait(0.99)
    assert len(sent) == 20
    assert all(c.safe and not c.values.any() and c.reason == "no plan" for _, c in sent)


def test_due_action_goes_out_at_once_and_the_rest_in_its_phase() -> None:
    """Pins that the first action does not wait for the next tick of a free-running timer."""
    robot = Robot(RealTimeGate(REACHER))
    robot.wait(0.02)
    first = robot.plays(at(robot.now - 7_000_000, RAMP))
    assert first.values.tolist() == [0.0, -0.0]
    assert first.stamp == robot.now, "an action holds from when it is sent, not from when it was due"
    arrival = robot.steady
    sent = robot.wait(0.21)
    assert firsts(sent) == [0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose([t - arrival for t, _ in sent], [0.05, 0.1, 0.15, 0.2])


def test_late_plan_begins_with_the_action_that_is_due() -> None:
    """Pins that a plan 2.4 ticks late plays its third action, not its first."""
    robot = Robot(RealTimeGate(REACHER))
    assert robot.plays(at(START - int(2.4 * PERIOD), RAMP)).values[0] == pytest.approx(0.2)
    assert firsts(robot.wait(0.11)) == [0.3, 0.4]


def test_reserve_waits_half_a_period_for_the_next_plan_then_runs_out() -> None:
    """Pins the order: the meant actions, grace, the reserve until too old, the safe action."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(RAMP)
    sent = robot.wait(0.7)
    played = [(t, c) for t, c in sent if not c.safe]
    assert firsts(played) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    np.testing.assert_allclose(
        [t - 5.0 for t, _ in played], [0.05, 0.1, 0.15, 0.2, 0.275, 0.325, 0.375, 0.425]
    )
    safe = [(t, c) for t, c in sent if c.safe]
    assert safe[0][0] - 5.0 <= 5 * 0.05 + 0.25, "safe within execute periods and timeout of the image"
    assert {c.reason for _, c in safe} == {"too old"}


def test_plan_that_waits_outlives_the_one_before_it() -> None:
    """Pins that the safe action fills the time between a plan that got too old and the next one."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(plan((0.5, 0.0)))
    robot.wait(0.16)
    begin = robot.now + 200_000_000
    assert robot.give(plan(*[(1.0, 0.0)] * 4, stamp=begin, sequence=2)) is None
    sent = robot.wait(0.3)
    assert firsts(sent)[:2] == [0.5, 0.5]
    assert reasons(sent) == {"", "too old"}
    assert (sent[-2][1].safe, sent[-1][1].values.tolist()) == (False, [1.0, 0.0])


@pytest.mark.parametrize("old", [0.0, 0.02, 0.12])
@pytest.mark.parametrize("clock", [0.0, 1.0])
def test_nothing_planned_is_in_force_later_than_timeout_and_a_period_after_its_image(
    old: float, clock: float
) -> None:
    """Pins the time to the safe action from the last good image, whatever planning took, on any clock."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(plan(*[(1.0, 1.0)] * 20, execute=1, evidence=START - round(old * SECOND)))
    first_safe = next(t for t, c in robot.wait(1.0, clock=clock) if c.safe)
    assert 0.1 - old < first_safe - 5.0 <= 0.25 + 0.05 - old * clock


@pytest.mark.parametrize("timeout", [0.01, 0.025, 0.05, 0.1, 0.25, 0.6])
def test_no_timeout_is_too_short_to_be_kept(timeout: float) -> None:
    """Pins the same for timeouts below two periods, and for plans that wait for the next one when too old."""
    for late in np.linspace(0, 0.2, 23):
        for old in np.linspace(0, timeout, 23):
            robot = Robot(RealTimeGate(slow(timeout=timeout)), now=START + round(late * SECOND))
            given = robot.give(
                plan(*[(1.0, 1.0)] * 10, execute=5, stamp=START, evidence=START - round(old * SECOND))
            )
            if given is not None and not given.safe:
                first_safe = next(t for t, c in robot.wait(1.5) if c.safe)
                assert old + late + first_safe - 5.0 <= timeout + 5 * 0.05


def test_plan_without_reserve_holds_its_last_action_until_too_old() -> None:
    robot = Robot(RealTimeGate(REACHER))
    robot.give(plan((0.5, 0.5)))
    sent = robot.wait(1.0)
    held = [t - 5.0 for t, c in sent if not c.safe]
    assert 0.2 < max(held) < 0.3
    assert sent[-1][1].safe


def test_newer_plan_replaces_the_old_one() -> None:
    robot = Robot(RealTimeGate(REACHER))
    robot.give(RAMP)
    robot.wait(0.24)
    newer = plan((-1.0, 1.0), (-0.9, 1.0), stamp=START + 4 * PERIOD, sequence=2)
    assert robot.plays(newer).values[0] == -1.0
    assert firsts(robot.wait(0.06)) == [-0.9]


def test_plan_from_the_near_future_waits_for_its_time() -> None:
    """Pins the place of latency compensation: until its stamp the plan before it goes on."""
    robot = Robot(RealTimeGate(slow(max_change=100.0)))
    robot.give(RAMP)
    assert robot.give(plan((-1.0, 0.0), stamp=START + 120_000_000, sequence=2)) is None
    sent = robot.wait(0.13)
    assert firsts(sent) == [0.1, 0.2, -1.0]
    assert sent[-1][0] == pytest.approx(5.12)


def test_every_plan_of_a_planner_that_is_ahead_is_played() -> None:
    """Pins latency compensation by more than the time between two plans: none takes another's turn."""
    robot = Robot(RealTimeGate(slow(max_change=100.0)))
    sent = []
    for number in range(20):
        ahead = plan((0.1 * number, 0.0), stamp=robot.now + 3 * PERIOD, evidence=robot.now, sequence=number)
        assert robot.give(ahead) is None
        sent += robot.wait(0.05)
    played = [command for _, command in sent if not command.safe]
    assert firsts(sent)[-len(played) :] == [round(0.1 * number, 6) for number in range(17)]
    np.testing.assert_allclose([t for t, c in sent if not c.safe], 5.0 + 0.05 * np.arange(3, 20), atol=2e-4)


def test_newer_plan_replaces_those_that_would_begin_later() -> None:
    """Pins that a planner which gets faster is not held up by its own plans from before."""
    robot = Robot(RealTimeGate(slow(max_change=100.0)))
    for sequence, (value, ticks) in enumerate([(0.1, 1), (0.2, 2), (0.3, 3), (0.4, 2)]):
        robot.give(plan(*[(value, 0.0)] * 4, stamp=START + ticks * PERIOD, sequence=sequence, execute=1))
    assert firsts(robot.wait(0.24))[-4:] == [0.1, 0.4, 0.4, 0.4]
    robot.give(plan((0.5, 0.0), stamp=robot.now + PERIOD, sequence=8))
    robot.plays(plan(*[(0.6, 0.0)] * 4, stamp=robot.now, sequence=9))
    assert set(firsts(robot.wait(0.19))) == {0.6}


def test_a_burst_of_plans_ahead_is_bounded() -> None:
    """Pins that the earliest ones keep their turn, and the newest is the last."""
    robot = Robot(RealTimeGate(slow(max_change=1e6)))
    for number in range(1, 201):
        early = plan((number / 100, 0.0), stamp=START + number * 1_000_000, sequence=number)
        assert robot.give(early) is None
    values = firsts([(t, c) for t, c in robot.wait(0.21) if not c.safe])
    assert sorted(set(values)) == [0.01, 0.02, 0.03, 0.04, 0.05, 2.0]
    assert values == sorted(values)


def test_a_clock_at_rest_is_not_watched_without_end() -> None:
    """Pins that a plan which is nearly due costs no processor, and yet begins on time when time goes on."""
    robot = Robot(RealTimeGate(REACHER))
    robot.wait(0.02)
    robot.give(plan((1.0, 0.0), stamp=robot.now + 50_000, execute=1))
    times = 0
    while robot.gate.wake < 5.1:
        robot.steady, times = robot.gate.wake, times + 1
        assert (command := robot.step()) is None or command.safe
    assert times < 100
    for early in (1e-6, 50e-6, 2e-3):
        robot = Robot(RealTimeGate(REACHER))
        robot.wait(0.26)
        robot.give(plan((1.0, 0.0), stamp=START + 260_000_000 + round(early * SECOND)))
        assert next(t for t, c in robot.wait(0.1) if not c.safe) <= 5.26 + max(early, 1e-4) + 1e-9


def test_the_contract_bounds_for_how_long_a_plan_is_played() -> None:
    """Pins 0.25 s, which is five periods, whoever made the plan."""
    contract = slow(max_change=40.0, open_loop=0.25)
    robot = Robot(RealTimeGate(contract))
    robot.plays(plan(*[(1.0, 0.0)] * 10, execute=5))
    assert robot.stops(plan(*[(1.0, 0.0)] * 10, execute=6, sequence=2)).reason == "execute out of range"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (replace(RAMP, stamp=START + SECOND), "from the future"),
        (replace(RAMP, evidence=START + SECOND), "from the future"),
        (replace(RAMP, stamp=START - SECOND), "too old"),
        (replace(RAMP, evidence=START - SECOND), "old evidence"),
        (replace(RAMP, actions=np.full((5, 2), np.nan)), "not finite"),
        (replace(RAMP, actions=np.full((5, 2), np.inf)), "not finite"),
        (replace(RAMP, actions=np.zeros((5, 3))), "wrong action size"),
        (replace(RAMP, actions=np.zeros(5)), "wrong action size"),
        (replace(RAMP, actions=np.zeros((20_000, 2))), "too long"),
        (replace(RAMP, execute=0), "execute out of range"),
        (replace(RAMP, execute=11), "execute out of range"),
        (replace(RAMP, period=0.1), "wrong period"),
        (replace(RAMP, period=float("nan")), "wrong period"),
        (replace(RAMP, model="other"), "wrong model"),
    ],
)
@pytest.mark.parametrize("kind", [RealTimeGate, LockStepGate])
def test_bad_plan_stops_the_robot_at_once(kind: type[PlanGate], bad: Plan, reason: str) -> None:
    """Pins that nothing of a bad plan is played, nor of the one before it: its planner is broken."""
    robot = Robot(kind(REACHER, model="toy"))
    if reason in robot.gate.ignored:
        assert robot.give(bad) is None
        return
    good = replace(RAMP, actions=RAMP.actions + 0.5)
    robot.give(good)
    robot.now += PERIOD
    robot.steady += 0.05
    command = robot.stops(replace(bad, sequence=2))
    assert command.reason == reason
    assert not command.values.any()
    assert command.evidence == 0
    assert robot.gate.counts[reason] == 1
    robot.now += PERIOD
    robot.steady += 0.05
    after = robot.gate.step(robot.now, robot.steady)
    assert after is None or after.safe


def test_empty_plan_stops_at_once_whatever_its_stamp() -> None:
    for stamp in (0, START, START + 100 * SECOND):
        robot = Robot(RealTimeGate(REACHER))
        robot.give(RAMP)
        assert robot.stops(plan(stamp=stamp, sequence=2)).reason == "stopped"
        assert all(c.safe for _, c in robot.wait(0.3))
        robot.plays(at(robot.now, RAMP, sequence=3))


def test_stop_does_not_shut_out_a_plan_from_the_belief_before_it() -> None:
    """Pins a new goal right after the end of another: its first plan is older than the stop."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(plan(stamp=START, sequence=7))
    robot.plays(at(START - 30_000_000, RAMP, sequence=8))


def test_out_of_order_plan_is_ignored_but_a_restarted_planner_is_not() -> None:
    robot = Robot(RealTimeGate(REACHER))
    robot.give(replace(RAMP, sequence=9))
    assert robot.give(replace(RAMP, sequence=9)) is None
    assert robot.give(at(START - PERIOD, RAMP, sequence=8)) is None
    assert robot.gate.counts["out of order"] == 2
    assert firsts(robot.wait(0.06)) == [0.1], "the plan being played goes on"
    robot.plays(at(robot.now, RAMP, sequence=0))  # a restarted planner counts from zero again


@pytest.mark.parametrize("execute", [1, 2, 4, 100])
def test_frozen_clock_cannot_stop_the_watchdog(execute: int) -> None:
    """Pins that the watchdog lives in steady time and waits for no tick: the safe action comes when due."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(plan(*[(1.0, 1.0)] * 100, execute=execute))
    sent = robot.wait(1.0, clock=0.0)
    first_safe = next(t for t, c in sent if c.safe)
    assert first_safe - 5.0 == pytest.approx(REACHER.action.timeout - 1.25 * REACHER.period, abs=0.006)
    assert robot.gate.counts["clock stands still"] == 1


def test_plan_that_is_sent_again_does_not_outlive_a_frozen_clock() -> None:
    """Pins that the clock itself is watched: what comes meanwhile is no sign that it goes."""
    robot = Robot(RealTimeGate(REACHER))
    planned = []
    for sequence in range(100):
        given = robot.give(plan(*[(1.0, 1.0)] * 10, execute=5, sequence=sequence))
        sent = [(robot.steady, given)] if given else []
        sent += robot.wait(0.05, clock=0.0)
        assert len(sent) <= 2, "no burst of commands"
        planned += [t for t, c in sent if not c.safe]
    assert max(planned) - 5.0 < REACHER.action.timeout
    robot.wait(0.05)
    robot.plays(plan((1.0, 1.0), stamp=robot.now, sequence=100))


def test_plan_that_creeps_on_is_not_played() -> None:
    """Pins the same for a clock at a hundredth of its speed: most of the time the safe action goes out."""
    robot = Robot(RealTimeGate(REACHER))
    sent = []
    for sequence in range(100):
        given = robot.give(plan(*[(1.0, 1.0)] * 10, execute=5, sequence=sequence))
        sent += [(robot.steady, given)] if given else []
        sent += robot.wait(0.05, clock=0.01)
    assert sum(not c.safe for _, c in sent) < 10


def test_plan_that_waits_does_not_outlive_a_frozen_clock() -> None:
    """Pins that nothing begins after a pause that was meant for before, whether something played or not."""
    for first in ([], [plan((0.5, 0.5), sequence=0)]):
        robot = Robot(RealTimeGate(REACHER))
        for early in [*first, plan((1.0, 1.0), stamp=START + 2 * PERIOD)]:
            robot.give(early)
        robot.wait(1.0, clock=0.0)
        assert robot.gate.counts["clock stands still"] == 1
        assert all(c.safe for _, c in robot.wait(0.3))


@pytest.mark.parametrize("execute", [1, 2, 5, 30])
def test_clock_that_stops_in_the_middle_prolongs_nothing(execute: int) -> None:
    """Pins the time to the safe action from the image, and from the stop, wherever in a plan time stops."""
    timeout = REACHER.action.timeout
    for stop in np.arange(0, 0.6, 0.003):
        robot = Robot(RealTimeGate(REACHER))
        robot.give(plan(*[(1.0, 1.0)] * 30, execute=execute))
        sent = robot.wait(stop) + robot.wait(2.0, clock=0.0)
        first_safe = next(t for t, c in sent if c.safe) - 5.0
        assert first_safe <= timeout + execute * 0.05
        assert first_safe <= stop + timeout + 0.05


@pytest.mark.parametrize("grain", [0.001, 0.01, 0.1])
def test_coarse_clock_is_no_clock_at_rest(grain: float) -> None:
    """Pins a /clock of 10 Hz under a robot of 20: plans are played, those that waited, too."""
    robot = Robot(RealTimeGate(REACHER), grain=round(grain * SECOND))
    robot.wait(0.1)
    sent = []
    for number in range(10):
        stamp = robot.told + (number % 2) * 2 * PERIOD
        given = robot.give(plan(*[(1.0, 1.0)] * 10, execute=5, stamp=stamp, sequence=number))
        sent += [(robot.steady, given)] if given else []
        sent += robot.wait(0.25)
    assert reasons(sent) == {""}


@pytest.mark.parametrize("clock", [0.5, 2.0])
def test_clock_faster_or_slower_than_real_time(clock: float) -> None:
    """Pins that actions follow ROS time: each sent twice at half speed, every other one at double."""
    robot = Robot(RealTimeGate(REACHER))
    robot.plays(plan(*[(0.1 * i, 0.0) for i in range(20)]))
    sent = robot.wait(0.405, clock=clock)
    assert not any(c.safe for _, c in sent)
    assert firsts(sent) == [round(0.1 * int(i * clock), 6) for i in range(1, 9)]


def test_clock_that_jumps_back_ends_the_plan_and_the_next_one_is_played() -> None:
    robot = Robot(RealTimeGate(REACHER))
    robot.give(replace(RAMP, sequence=5))
    robot.jump(-10)
    sent = robot.wait(0.11)
    assert {(c.safe, c.reason) for _, c in sent} == {(True, "clock turned back")}
    robot.plays(at(robot.now, RAMP, sequence=1))


def test_clock_that_jumps_forward_ends_the_plan() -> None:
    robot = Robot(RealTimeGate(REACHER))
    robot.give(RAMP)
    robot.jump(10)
    assert all(c.safe and c.reason == "too old" for _, c in robot.wait(0.11))


def test_values_and_changes_are_limited_and_counted() -> None:
    robot = Robot(RealTimeGate(slow()))
    first = robot.plays(plan((5.0, 0.1), (5.0, 0.1), (-5.0, 0.1)))
    assert (first.values.tolist(), first.reason) == ([0.5, 0.1], "change limit")
    assert firsts(robot.wait(0.11)) == [1.0, 0.5]
    assert robot.gate.counts["change limit"] == 3
    free = Robot(RealTimeGate(REACHER)).plays(plan((5.0, 0.1)))
    assert (free.values.tolist(), free.reason) == ([2.0, 0.1], "value limit")


def test_change_is_limited_by_the_time_since_the_last_command_and_by_one_period() -> None:
    """Pins both ends: two plans 5 ms apart share one period's change, and silence saves nothing up."""
    robot = Robot(RealTimeGate(slow()))
    robot.give(plan((2.0, 0.0)))
    robot.steady += 0.005
    robot.now += 5_000_000
    assert robot.plays(plan((2.0, 0.0), sequence=2)).values[0] == pytest.approx(0.5 + 10.0 * 0.005)
    robot.steady += 3.0
    robot.jump(3.0)
    assert robot.plays(plan((2.0, 0.0), stamp=robot.now, sequence=3)).values[0] == pytest.approx(0.55 + 0.5)


def test_way_to_the_safe_action_obeys_the_limits_too() -> None:
    robot = Robot(RealTimeGate(slow()))
    robot.give(plan(*[(2.0, 0.0)] * 4))
    robot.wait(0.16)
    assert not robot.gate.settled
    stop = robot.stops(plan(stamp=robot.now, sequence=2))
    values = [float(stop.values[0]), *firsts(robot.wait(0.3))]
    assert values[-1] == 0.0
    assert robot.gate.settled
    assert all(0 <= a - b <= 0.5 + 1e-9 for a, b in pairwise(values))


def test_safe_values_and_hold() -> None:
    """Pins the two other safe actions; before any action there is nothing to hold, so nothing is sent."""
    robot = Robot(RealTimeGate(slow(max_change=40.0, safe=(0.3, -0.3))))
    assert firsts(robot.wait(0.01)) == [0.3]
    robot = Robot(RealTimeGate(slow(max_change=40.0, safe="hold")))
    assert robot.wait(0.2) == []
    assert robot.plays(plan((1.7, 0.0), stamp=robot.now)).values[0] == 1.7
    _, last = robot.wait(1.0)[-1]
    assert last.safe
    assert last.values[0] == 1.7


def test_late_ticks_do_not_slow_the_rate_down() -> None:
    """Pins that ticks served 0.3 ms late still come at the contract's rate on average."""
    gate = RealTimeGate(REACHER)
    steady, ticks = 0.0, 0
    while steady < 10.0:
        ticks += gate.step(START, steady) is not None
        steady = gate.wake + 0.0003
    assert ticks == pytest.approx(200, abs=1)


def test_lock_step_plays_execute_actions_one_per_tick() -> None:
    """Pins the contract with the simulator: exactly one command per tick, stamped with the tick."""
    robot = Robot(LockStepGate(REACHER))
    assert robot.plays(RAMP).stamp == START
    assert robot.gate.step(START, 5.0) is None, "this tick has its command"
    stamps = []
    for tick in range(1, 8):
        command = robot.gate.step(START + tick * PERIOD, 5.0)
        stamps.append(None if command is None else (command.stamp, round(float(command.values[0]), 6)))
    assert stamps == [(START + i * PERIOD, round(0.1 * i, 6)) for i in range(1, 5)] + [None] * 3


def test_lock_step_takes_a_plan_one_tick_ahead_of_its_clock_as_due() -> None:
    robot = Robot(LockStepGate(REACHER), now=START - PERIOD)
    assert robot.plays(RAMP).stamp == START
    assert robot.gate.step(START - PERIOD, 5.0) is None
    assert robot.gate.step(START, 5.0) is None
    Robot(LockStepGate(REACHER), now=0).plays(RAMP)  # before any /clock


def test_lock_step_plays_the_first_plan_after_a_reset_though_the_clock_was_lost() -> None:
    """Pins that a lost /clock message makes no plan one from the future, and no tick a jump back."""
    robot = Robot(LockStepGate(REACHER))
    robot.plays(RAMP)
    begin = START + PERIOD + 2 * REACHER.max_gap_ns
    assert robot.plays(at(begin, RAMP, sequence=2)).stamp == begin
    assert robot.gate.step(START, 5.0) is None
    command = robot.gate.step(begin + PERIOD, 5.0)
    assert command is not None
    assert command.stamp == begin + PERIOD


def test_lock_step_stop_takes_this_tick_or_the_next() -> None:
    robot = Robot(LockStepGate(REACHER))
    robot.stops(plan(stamp=START))
    robot = Robot(LockStepGate(REACHER))
    robot.give(RAMP)
    assert robot.give(plan(stamp=START, sequence=2)) is None, "this tick has its command"
    command = robot.gate.step(START + PERIOD, 5.0)
    assert command is not None
    assert command.safe
    assert robot.gate.step(START + 2 * PERIOD, 5.0) is None, "then the simulator rests"


@pytest.mark.parametrize("late", [True, False])
def test_lock_step_stop_from_before_a_reset_uses_up_no_tick(late: bool) -> None:
    """Pins that the end of one goal does not take the first action of the next, whichever came first."""
    robot = Robot(LockStepGate(REACHER))
    robot.plays(RAMP)
    stop, begin = plan(stamp=START, sequence=2), START + 2 * REACHER.max_gap_ns
    if late:
        robot.now = begin
    assert robot.give(stop) is None
    assert robot.gate.step(begin, 5.1) is None
    robot.now = begin
    robot.plays(at(begin, RAMP, sequence=3))


def test_lock_step_change_is_limited_by_ros_time() -> None:
    """Pins that a simulator faster than real time gets the full change of each tick."""
    robot = Robot(LockStepGate(slow()))
    robot.give(plan(*[(2.0, 0.0)] * 4))
    values = [float(robot.gate.step(START + i * PERIOD, 5.0 + 1e-4 * i).values[0]) for i in (1, 2, 3)]  # type: ignore[union-attr]
    np.testing.assert_allclose(values, [1.0, 1.5, 2.0])


def test_lock_step_late_joint_state_is_as_old_as_its_stamp_says() -> None:
    """Pins that its age is not counted twice: 0.15 s are within a timeout of 0.25 s."""
    robot = Robot(LockStepGate(limited()))
    robot.sense(0.0, age=0.15)
    robot.plays(RAMP)
    robot.sense(0.0, age=0.25)
    robot.now += PERIOD
    assert reasons([(robot.steady, robot.step())]) == {"old joint states"}  # type: ignore[list-item]


def test_lock_step_repeats_its_command_while_the_clock_stays() -> None:
    """Pins that a simulator which missed the first command (it was not connected yet) gets it again."""
    robot = Robot(LockStepGate(REACHER))
    first = robot.plays(RAMP)
    repeated = [command for _, command in robot.wait(3.5, clock=0.0)]
    assert repeated == [first] * 3
    assert robot.gate.step(START + PERIOD, robot.steady + 0.6).stamp == START + PERIOD  # type: ignore[union-attr]


def test_lock_step_reset_drops_the_plan_and_then_time_stands_still() -> None:
    """Pins that no safe action takes the first tick of an episode whose first plan is still being made."""
    robot = Robot(LockStepGate(REACHER))
    robot.plays(RAMP)
    robot.now = START + 2 * REACHER.max_gap_ns
    assert robot.gate.step(robot.now, 5.1) is None
    assert robot.gate.step(robot.now, 50.0) is None
    robot.plays(at(robot.now + PERIOD, RAMP, sequence=2))


def test_lock_step_watchdog_ends_a_plan_that_has_no_successor() -> None:
    robot = Robot(LockStepGate(REACHER))
    for tick in range(5):
        robot.give(RAMP) if tick == 0 else robot.gate.step(START + tick * PERIOD, 5.0)
    assert robot.gate.step(START + 5 * PERIOD, 14.9) is None
    command = robot.gate.step(START + 5 * PERIOD, 15.1)
    assert command is not None
    assert command.safe
    assert robot.gate.step(START + 6 * PERIOD, 50.0) is None
    assert robot.gate.counts["watchdog"] == 1


TIMEOUT = round(REACHER.action.timeout * SECOND)
HELD = round(1.25 * PERIOD)


@pytest.mark.parametrize(
    ("stamp", "evidence", "reason"),
    [
        (START + TIMEOUT, START, ""),
        (START + TIMEOUT + 1, START, "from the future"),
        (START, START + TIMEOUT, ""),
        (START, START + TIMEOUT + 1, "from the future"),
        (START - TIMEOUT - 2 * PERIOD + HELD + 1, 0, ""),
        (START - TIMEOUT - 2 * PERIOD + HELD, 0, "too old"),
        (START, START - TIMEOUT, ""),
        (START, START - TIMEOUT - 1, "old evidence"),
    ],
)
def test_ages_are_judged_in_both_directions_to_the_nanosecond(stamp: int, evidence: int, reason: str) -> None:
    gate = RealTimeGate(REACHER)
    gate.accept(plan((1.0, 1.0), (1.0, 1.0), stamp=stamp, evidence=evidence), START, 5.0)
    assert dict(gate.counts) == ({reason: 1} if reason else {})


def test_clock_that_never_comes_leaves_the_safe_action() -> None:
    """Pins use_sim_time without a /clock: ROS time is 0, every plan is from the future."""
    robot = Robot(RealTimeGate(REACHER), now=0)
    robot.wait(0.2, clock=0.0)
    robot.give(RAMP)
    sent = robot.wait(1.0, clock=0.0)
    assert len(sent) == 20
    assert all(c.safe for _, c in sent)
    assert robot.gate.counts["from the future"] == 1
    robot.now = START  # it comes after all
    robot.plays(at(START, RAMP, sequence=2))


@pytest.mark.parametrize("by", [-10.0, 10.0])
def test_new_plans_are_played_at_once_after_a_jump(by: float) -> None:
    """Pins that a clock set by 10 s costs one plan, whichever way and whatever waited for its time."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(replace(RAMP, sequence=5))
    robot.give(at(START + 3 * PERIOD, RAMP, sequence=6))
    robot.wait(0.06)
    robot.jump(by)
    robot.wait(0.01)
    robot.plays(at(robot.now, RAMP, sequence=7))
    assert all(not c.safe for _, c in robot.wait(0.2))


def test_clock_that_is_paused_and_goes_on() -> None:
    """Pins that the safe action fills the pause, and that nothing of the plan from before is played after."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(plan(*[(1.0, 1.0)] * 100, execute=100))
    robot.wait(2.0, clock=0.0)
    assert all(c.safe for _, c in robot.wait(0.5))
    robot.plays(at(robot.now, RAMP, sequence=2))


def test_a_refused_plan_does_not_hasten_the_safe_action() -> None:
    """Pins that a burst of bad plans is no burst of commands."""
    robot = Robot(RealTimeGate(REACHER))
    robot.wait(0.06)
    bad = replace(RAMP, model="other", period=0.0)
    assert [robot.give(bad) for _ in range(50)] == [None] * 50
    assert robot.gate.counts["wrong period"] == 50
    (_, command), *_ = robot.wait(0.05)
    assert command.reason == "wrong period"


def test_later_actions_go_with_the_command_where_the_contract_wants_them() -> None:
    """Pins that what a trajectory says of the future is limited as well, from the command on."""
    contract = slow(points=3)
    command = Robot(RealTimeGate(contract)).plays(plan((0.2, 0.0), (2.0, 0.3), (2.0, 9.0), (0.0, 0.0)))
    assert command.later is not None
    np.testing.assert_allclose(command.later, [[0.7, 0.3], [1.2, 0.8]])
    assert command.values.tolist() == [0.2, 0.0]
    last = Robot(RealTimeGate(contract)).plays(plan((0.2, 0.0)))
    assert last.later is not None
    assert last.later.shape == (0, 2)
    alone = Robot(RealTimeGate(slow())).plays(plan((0.2, 0.0), (0.3, 0.0)))
    assert alone.later is None
