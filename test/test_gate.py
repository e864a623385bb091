"""The safety gate: what goes out for every plan, good or bad, at every time, good or bad."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smwm_ros.contract import Contract, load_contract
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.lock_step import LockStepGate
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.plan_gate import PlanGate
from smwm_ros.runtime.real_time import RealTimeGate

REACHER = load_contract("config/robots/reacher.yaml")
PERIOD = REACHER.period_ns
SECOND = 1_000_000_000
START = 100 * SECOND


def slow(contract: Contract = REACHER, max_change: float = 10.0, **action: object) -> Contract:
    """A robot that may change by half a unit per tick, so that the change limit shows."""
    dimensions = tuple(d.model_copy(update={"max_change": max_change}) for d in contract.action.dimensions)
    return contract.model_copy(
        update={"action": contract.action.model_copy(update={"dimensions": dimensions, **action})}
    )


def plan(
    *rows: tuple[float, float], stamp: int = START, sequence: int = 1, execute: int | None = None
) -> Plan:
    """A plan of the given actions."""
    return Plan(
        stamp=stamp,
        evidence=stamp,
        model="toy",
        sequence=sequence,
        period=REACHER.period,
        execute=len(rows) if execute is None else execute,
        actions=np.array(rows, float).reshape(-1, 2),
    )


def at(stamp: int, of: Plan, **changes: object) -> Plan:
    """The same plan from another image."""
    return replace(of, stamp=stamp, evidence=stamp, **changes)  # type: ignore[arg-type]


RAMP = plan(*[(0.1 * i, -0.1 * i) for i in range(10)], execute=5)


@dataclass
class Robot:
    """Drives a gate through time: ROS time and steady time, which may run apart."""

    gate: PlanGate
    now: int = START
    steady: float = 5.0

    def give(self, plan: Plan) -> Command | None:
        return self.gate.accept(plan, self.now, self.steady)

    def plays(self, plan: Plan) -> Command:
        """Give a plan of which an action must go out at once."""
        command = self.give(plan)
        assert command is not None
        assert not command.safe, command.reason
        return command

    def stops(self, plan: Plan) -> Command:
        """Give a plan that must be answered by the safe action."""
        command = self.give(plan)
        assert command is not None
        assert command.safe
        return command

    def wait(self, seconds: float, *, clock: float = 1.0) -> list[tuple[float, Command]]:
        """Let steady time pass, ROS time `clock` times as fast; return what was sent, and when."""
        sent = []
        end = self.steady + seconds
        while True:
            step = min(max(self.gate.wake, self.steady), end) - self.steady
            self.steady += step
            self.now += round(step * clock * SECOND)
            if self.steady >= end:
                return sent
            if command := self.gate.step(self.now, self.steady):
                sent.append((self.steady, command))
            assert self.gate.wake > self.steady, "the gate asks to be called without end"

    def jump(self, seconds: float) -> None:
        """Set ROS time forward or back."""
        self.now += round(seconds * SECOND)


def firsts(commands: list[tuple[float, Command]]) -> list[float]:
    return [round(float(command.values[0]), 6) for _, command in commands]


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
    assert firsts(played) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    np.testing.assert_allclose(
        [t - 5.0 for t, _ in played], [0.05, 0.1, 0.15, 0.2, 0.275, 0.325, 0.375, 0.425, 0.475]
    )
    safe = [(t, c) for t, c in sent if c.safe]
    assert safe[0][0] - 5.0 <= 5 * 0.05 + 0.25 + 0.05, "safe within timeout and one period of the plan's end"
    assert {c.reason for _, c in safe} == {"too old"}


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


def test_frozen_clock_cannot_stop_the_watchdog() -> None:
    """Pins that the watchdog lives in steady time: with ROS time at rest the safe action still comes."""
    robot = Robot(RealTimeGate(REACHER))
    robot.give(plan(*[(1.0, 1.0)] * 100, execute=100))
    sent = robot.wait(1.0, clock=0.0)
    first_safe = next(t for t, c in sent if c.safe)
    assert 0.25 <= first_safe - 5.0 <= 0.25 + 0.05
    assert robot.gate.counts["clock stands still"] == 1


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
    assert robot.plays(plan((2.0, 0.0), sequence=3)).values[0] == pytest.approx(0.55 + 0.5)


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


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
seeded = st.builds(
    lambda seed, length: np.random.default_rng(seed).uniform(-6, 6, (length, 2)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 8),
)
wild = st.lists(st.tuples(numbers, numbers), max_size=6).map(lambda rows: np.array(rows).reshape(-1, 2))
lags = st.one_of(st.integers(0, 60_000_000), st.integers(-SECOND, SECOND))


def mostly(usual: object, *others: object) -> st.SearchStrategy[object]:
    return st.sampled_from([usual] * 8 + list(others))


plans = st.builds(
    Plan,
    stamp=lags,  # ns before now
    evidence=mostly(0, 10_000_000, -SECOND, SECOND),  # ns before the stamp
    model=mostly("toy", "other"),
    sequence=st.integers(0, 9),
    period=mostly(REACHER.period, 0.0, 0.1, float("nan")),
    execute=st.integers(0, 8),
    actions=st.one_of(seeded, seeded, wild, st.just(np.zeros((3, 3)))),
)
passing = st.tuples(st.floats(0, 0.2), mostly(1.0, 0.0, 0.5, 3.0))  # steady seconds, clock's speed


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([RealTimeGate, LockStepGate]),
    safe=st.sampled_from(["zero", "hold", (0.3, -0.3)]),
    script=st.lists(st.tuples(plans, passing, mostly(0, 5 * PERIOD, -5 * PERIOD)), max_size=10),
)
def test_no_command_is_ever_outside_the_limits(
    kind: type[PlanGate], safe: object, script: list[tuple[Plan, tuple[float, float], int]]
) -> None:
    """Whatever plans come, in whatever order and time: each command is finite and within both limits."""
    contract = slow(safe=safe)
    robot = Robot(kind(contract, model="toy"))
    sent: list[tuple[float, Command]] = []
    for drawn, (seconds, clock), jump in script:
        stamp = robot.now - drawn.stamp
        if command := robot.give(replace(drawn, stamp=stamp, evidence=stamp - drawn.evidence)):
            sent.append((robot.steady, command))
        if kind is RealTimeGate:
            sent += robot.wait(seconds, clock=clock)
        else:
            for _ in range(int(seconds / 0.04)):
                robot.steady += 0.04
                robot.now += PERIOD
                if command := robot.gate.step(robot.now, robot.steady):
                    sent.append((robot.steady, command))
        robot.now += jump
    action = contract.action
    for _, command in sent:
        assert command.values.shape == (2,)
        assert np.isfinite(command.values).all()
        assert (command.values >= action.low).all()
        assert (command.values <= action.high).all()
        assert command.safe or not command.reason or "limit" in command.reason
    for (before, a), (after, b) in pairwise(sent):
        seconds = after - before if kind is RealTimeGate else contract.period
        # Times are rounded to ns.
        change = action.max_change * (min(seconds, contract.period) + 1e-9)
        assert (np.abs(b.values - a.values) <= change + 1e-9).all()
