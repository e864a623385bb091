"""The pursuit of a goal: when a plan is due, and each way in which a goal ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smwm_ros.contract import load_contract
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Limits, Outcome, Pursuit

REACHER = load_contract("config/robots/reacher.yaml")
PERIOD = REACHER.period_ns
START = 10_000_000_000
LIMITS = Limits(tolerance=0.5, time_limit=2.5, no_progress=1.0, max_belief_age=0.5, belief_timeout=1.0)


def pursue(limits: Limits = LIMITS, replan: int = 1, now: int = START, begin: int = 0) -> Pursuit:
    """A goal at the origin, in a world where distances are Euclidean."""
    return Pursuit(
        np.zeros(2, np.float32),
        limits,
        REACHER,
        lambda a, b: float(np.linalg.norm(a - b)),
        replan=replan,
        now=now,
        steady=0.0,
        begin=begin,
    )


def belief(tick: float, distance: float = 5.0, **changes: object) -> Belief:
    """The belief of a tick, at a distance from the goal."""
    stamp = START + round(tick * PERIOD)
    made = Belief(
        stamp=stamp,
        evidence=stamp,
        model="toy",
        latent=np.array([distance, 0], np.float32),
        observations=9,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def observe(pursuit: Pursuit, seen: Belief, late: float = 0.01) -> bool:
    """Feed a belief `late` seconds after its stamp."""
    now = seen.stamp + round(late * 1e9)
    return pursuit.observe(seen, now, (now - START) * 1e-9)


def test_plans_are_due_every_replan_ticks() -> None:
    """Pins the cadence, with stamps that jitter by a tenth of a tick and one image lost."""
    pursuit = pursue(replan=5)
    ticks = [0, 1.1, 2, 2.9, 4, 4.9, 6, 7, 8, 9, 11, 12]
    assert [tick for tick in ticks if observe(pursuit, belief(tick))] == [0, 4.9, 11]


def test_new_world_and_older_stamp_make_a_plan_due_at_once() -> None:
    pursuit = pursue(replan=5)
    assert observe(pursuit, belief(0))
    assert observe(pursuit, belief(1, observations=1))
    assert not observe(pursuit, belief(1, observations=1)), "the same image shown again"
    assert not observe(pursuit, belief(2))
    assert observe(pursuit, belief(-100))


def test_reached_at_the_tolerance_itself_and_not_before() -> None:
    pursuit = pursue()
    observe(pursuit, belief(0, 0.51))
    assert pursuit.outcome is None
    assert not observe(pursuit, belief(1, 0.5))
    assert pursuit.outcome is Outcome.REACHED
    assert pursuit.distance == 0.5


def test_tolerance_zero_holds_until_the_tick_of_the_time_limit() -> None:
    """Pins what the evaluation through ROS builds on: a budget of 50 ticks is 50 actions."""
    pursuit = pursue(replace(LIMITS, tolerance=0.0, no_progress=0.1))
    plans = 0
    for tick in range(60):
        plans += observe(pursuit, belief(tick, distance=0.0))
        if pursuit.outcome is not None:
            break
    assert (tick, plans, pursuit.outcome) == (50, 50, Outcome.TIME_LIMIT)


def test_time_begins_with_the_first_belief_where_ros_time_is_unknown() -> None:
    pursuit = pursue(now=0)
    observe(pursuit, belief(0))
    assert pursuit.outcome is None
    observe(pursuit, belief(50))
    assert pursuit.outcome is Outcome.TIME_LIMIT


def test_without_ros_time_beliefs_of_any_age_are_planned_from() -> None:
    """Pins use_sim_time without a /clock: nothing is known of ages; the gate is the one that refuses."""
    pursuit = pursue(now=0)
    assert [pursuit.observe(belief(tick), 0, 0.05 * tick) for tick in range(3)] == [True] * 3


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(0.9, None), (1.1, Outcome.NO_PROGRESS), (2.6, Outcome.TIME_LIMIT)]
)
def test_a_clock_that_jumps_forward_counts_as_time_that_has_passed(
    seconds: float, outcome: Outcome | None
) -> None:
    """Pins that it ends the goal where that is more than the goal has left, and else costs one plan."""
    pursuit = pursue(replan=5)
    assert observe(pursuit, belief(0))
    planned = observe(pursuit, belief(seconds * 1e9 / PERIOD, observations=1))
    assert (planned, pursuit.outcome) == (outcome is None, outcome)


def test_goal_reached_on_the_last_tick_counts() -> None:
    pursuit = pursue()
    observe(pursuit, belief(50, 0.1))
    assert pursuit.outcome is Outcome.REACHED


def test_no_progress() -> None:
    """Pins that creeping nearer by less than 2 % is no progress; real progress starts the time anew."""
    pursuit = pursue(replace(LIMITS, time_limit=100.0))
    for tick in range(20):
        observe(pursuit, belief(tick, 5.0))
    assert pursuit.outcome is None
    observe(pursuit, belief(20, 4.91))
    assert pursuit.outcome is Outcome.NO_PROGRESS
    pursuit = pursue(replace(LIMITS, time_limit=100.0))
    for tick in range(40):
        observe(pursuit, belief(tick, 5.0 - 0.001 * tick if tick < 19 else 4.0))
        assert (pursuit.outcome is Outcome.NO_PROGRESS) == (tick >= 39)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_cheaper_plan_is_progress_though_the_distance_rises(sign: int) -> None:
    """
    Pins that a detour is not given up, that promises which no longer improve are, and what NaN is: nothing.

    A constraint may make costs negative.
    """
    pursuit = pursue(replace(LIMITS, time_limit=100.0))
    for tick in range(60):
        observe(pursuit, belief(tick, 5.0 + 0.1 * tick))
        cost = sign * 100.0 - 3.0 * min(tick, 19) - 0.001 * tick
        pursuit.expect(cost if tick % 2 else float("nan"))
        if pursuit.outcome is not None:
            break
    assert pursuit.outcome is Outcome.NO_PROGRESS
    assert tick == 40, "a second after the plan of tick 19, of which the belief of tick 20 knows"


def test_surprise_ends_the_goal() -> None:
    pursuit = pursue()
    observe(pursuit, belief(0, surprised=True))
    assert pursuit.outcome is Outcome.SURPRISED


@pytest.mark.parametrize("late", [0.6, -0.6])
def test_beliefs_too_old_or_from_the_future_are_not_planned_from(late: float) -> None:
    """Pins that ages are judged in both directions, and that one late belief is not yet the end."""
    pursuit = pursue()
    assert observe(pursuit, belief(0))
    assert not observe(pursuit, belief(10, 0.0), late)
    pursuit.check(0.9)
    assert pursuit.outcome is None
    pursuit.check(1.1)
    assert pursuit.outcome is Outcome.STALE_BELIEF
    assert ("future" in pursuit.message) == (late < 0)


def test_silence_ends_the_goal_though_ros_time_stands_still() -> None:
    """Pins that a dead camera cannot leave a goal hanging: the silence is counted in steady time."""
    pursuit = pursue()
    pursuit.check(0.9)
    assert pursuit.outcome is None
    pursuit.check(1.1)
    assert pursuit.outcome is Outcome.NO_BELIEF
    pursuit = pursue()
    observe(pursuit, belief(10))
    pursuit.check(1.4)
    assert pursuit.outcome is None
    pursuit.check(1.6)
    assert pursuit.outcome is Outcome.NO_BELIEF


def test_beliefs_from_before_the_beginning_are_not_used_and_the_limit_counts_from_there() -> None:
    """A goal may reach the planner before it hears of the reset that went before it."""
    pursuit = pursue(replace(LIMITS, tolerance=0.0, time_limit=5 * REACHER.period), begin=START)
    assert not observe(pursuit, belief(-4))
    assert np.isnan(pursuit.distance)
    assert [observe(pursuit, belief(tick)) for tick in range(6)] == [True] * 5 + [False]
    assert pursuit.outcome is Outcome.TIME_LIMIT

    pursuit = pursue(begin=START)
    observe(pursuit, belief(-4))
    pursuit.check(1.1)
    assert pursuit.outcome is Outcome.STALE_BELIEF
    assert "0.200 s before the goal's beginning" in pursuit.message


def test_first_end_stands() -> None:
    pursuit = pursue()
    pursuit.end(Outcome.PREEMPTED, "a newer goal took over")
    pursuit.end(Outcome.CANCELED, "cancelled")
    assert not observe(pursuit, belief(0, 0.0))
    assert (pursuit.outcome, pursuit.message) == (Outcome.PREEMPTED, "a newer goal took over")
