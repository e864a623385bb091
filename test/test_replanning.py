"""Plan after plan: what each goes on from, and for when it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smwm_ros.contract import load_contract
from smwm_ros.errors import PlanningError
from smwm_ros.planning.mpc import PlanResult
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Limits, Pursuit
from smwm_ros.runtime.replanning import MEASURED, Latency, Replanner

REACHER = load_contract("config/robots/reacher.yaml")
PERIOD = REACHER.period_ns
START = 10_000_000_000
TICKS = 15
LIMITS = Limits(tolerance=0.5, time_limit=2.5, no_progress=1.0, max_belief_age=0.5, belief_timeout=1.0)


class Counting:
    """Plans action n for the n-th tick after START: whoever plays it too early or too late is seen."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.seconds = 0.0
        self.now = 0.0

    def reset(self) -> None:
        self.calls.append("reset")

    def plan(
        self,
        latent: NDArray[np.float32],
        goal: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        self.calls.append((elapsed, delay))
        self.now += self.seconds
        actions = float(latent[0]) + np.repeat(np.arange(float(TICKS))[:, None], 2, 1)
        return PlanResult(actions, np.array(1.0), 10, self.seconds, 1, float("inf"))

    plan_batch = plan


def pursue() -> Pursuit:
    return Pursuit(
        np.zeros(1, np.float32), LIMITS, REACHER, lambda a, b: 1.0, replan=1, now=START, steady=0.0
    )


def belief(tick: float) -> Belief:
    stamp = START + round(tick * PERIOD)
    return Belief(stamp=stamp, evidence=stamp, model="", latent=np.array([tick], np.float32), observations=9)


def replanner(latency: float) -> tuple[Replanner, Counting]:
    planner = Counting()
    return Replanner(planner, REACHER, Latency(REACHER, latency, TICKS), lambda: planner.now), planner


def test_the_warm_start_counts_from_the_last_belief_whatever_was_left_out() -> None:
    """Pins that the settled beginning of a plan counts: it is played as well, though by the plan before."""
    made, planner = replanner(latency=0.1)
    pursuit = pursue()
    for tick in (0, 3, 4.1):
        plan = made.plan(pursuit, belief(tick), 0)
        assert plan.delay == 2
        assert plan.stamp == belief(tick).stamp + 2 * PERIOD
        np.testing.assert_allclose(plan.actions[:, 0], tick + 2 + np.arange(TICKS - 2), rtol=1e-6)
    assert planner.calls == ["reset", (None, 2), (3, 2), (1, 2)]


def test_another_goal_and_a_clock_turned_back_begin_anew() -> None:
    made, planner = replanner(latency=0.0)
    first, second = pursue(), pursue()
    for pursuit, tick in ((first, 5), (first, 6), (second, 7), (second, 2)):
        made.plan(pursuit, belief(tick), 0)
    assert planner.calls == ["reset", (None, 0), (1, 0), "reset", (None, 0), "reset", (None, 0)]


@given(late=st.lists(st.floats(0, 4.4), min_size=2, max_size=12))
def test_each_tick_has_the_action_planned_for_it_to_within_half_a_tick(late: list[float]) -> None:
    """The point of it all: a plan is for when it is there, never more than half a tick sooner or later."""
    made, planner = replanner(MEASURED)
    pursuit = pursue()
    planner.seconds = 0.3 * REACHER.period
    for number, ticks in enumerate(late):
        seen = belief(5 * number)
        plan = made.plan(pursuit, seen, seen.stamp + round(ticks * PERIOD))
        ready = ticks + (0.3 if number else 0.0)  # the first plan is taken for free
        assert abs(plan.delay - ready) <= 0.5 + 1e-6
        assert plan.actions[0, 0] == pytest.approx(5 * number + plan.delay)


def test_less_than_half_a_tick_changes_nothing() -> None:
    """Pins the latency of a fast robot: its plans go out at once, not at the next tick."""
    made, planner = replanner(MEASURED)
    planner.seconds = 0.2 * REACHER.period
    pursuit = pursue()
    for tick in range(5):
        seen = belief(tick)
        assert made.plan(pursuit, seen, seen.stamp + round(0.25 * PERIOD)).stamp == seen.stamp


def test_one_slow_plan_does_not_put_off_those_that_follow() -> None:
    made, planner = replanner(MEASURED)
    pursuit = pursue()
    delays = []
    for tick in range(12):
        planner.seconds = REACHER.period * (4.0 if tick == 5 else 1.1)
        seen = belief(tick)
        delays.append(made.plan(pursuit, seen, seen.stamp).delay)
    assert delays == [0] + [1] * 11


def test_what_is_made_up_for_is_bounded_by_the_plan_and_by_what_the_robot_would_still_play() -> None:
    """Pins that no plan is empty, and none refused by the action node as resting on too old an image."""
    made, _ = replanner(latency=10.0)
    assert made.plan(pursue(), belief(0), 0).delay == 5, "the contract's timeout of 0.25 s"
    rolled = replace(belief(0), evidence=belief(-2).stamp)
    assert made.plan(pursue(), rolled, 0).delay == 3
    patient = REACHER.model_copy(update={"action": REACHER.action.model_copy(update={"timeout": 10.0})})
    assert Latency(patient, 10.0, TICKS).ticks(belief(0), 0) == TICKS - 1


def test_a_belief_from_the_future_is_not_late() -> None:
    made, _ = replanner(MEASURED)
    assert made.plan(pursue(), belief(3), belief(0).stamp).delay == 0


def test_a_plan_that_is_not_finite_is_no_plan() -> None:
    made, _ = replanner(0.0)
    with pytest.raises(PlanningError, match="not finite"):
        made.plan(pursue(), replace(belief(0), latent=np.full(1, np.nan)), 0)
