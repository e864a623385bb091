"""Plan after plan: what each goes on from, and for when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smwm_ros.contract import load_contract
from smwm_ros.errors import PlanningError
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.protocol import BatchPlanner, PlanResult, Problem
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Limits, Pursuit
from smwm_ros.runtime.replanning import MEASURED, Job, Latency, Replanner, TimedPlan

REACHER = load_contract("config/robots/reacher.yaml")
PERIOD = REACHER.period_ns
START = 10_000_000_000
TICKS = 15
LIMITS = Limits(tolerance=0.5, time_limit=2.5, no_progress=1.0, max_belief_age=0.5, belief_timeout=1.0)


class Counting(BatchPlanner):
    """Plans action n for the n-th tick after START: whoever plays it too early or too late is seen."""

    def __init__(self) -> None:
        self.config = PlannerConfig()
        self.calls: list[Any] = []
        self.seconds = 0.0
        self.now = 0.0
        self.broken: set[int] = set()

    def change(self, config: PlannerConfig) -> None:
        self.config = config

    def forget(self, robots: Sequence[int]) -> None:
        self.calls.append(("forget", *robots))

    def plan_fleet(self, problems: Sequence[Problem]) -> PlanResult:
        self.calls.append([(problem.robot, problem.elapsed, problem.delay) for problem in problems])
        if failing := self.broken.intersection(problem.robot for problem in problems):
            raise ZeroDivisionError(failing)
        self.now += self.seconds
        ticks = np.repeat(np.arange(float(TICKS))[:, None], 2, 1)
        actions = np.stack([float(problem.latent[0]) + ticks for problem in problems])
        return PlanResult(actions, np.ones(len(problems)), 10, self.seconds, 1, float("inf"))


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


def plan(made: Replanner, pursuit: Pursuit, seen: Belief, now: int) -> TimedPlan:
    """Plan for one robot."""
    (found,) = made.plan([Job(0, pursuit, seen, now)])
    assert isinstance(found, TimedPlan), found
    return found


def test_the_warm_start_counts_from_the_last_belief_whatever_was_left_out() -> None:
    """Pins that the settled beginning of a plan counts: it is played as well, though by the plan before."""
    made, planner = replanner(latency=0.1)
    pursuit = pursue()
    for tick in (0, 3, 4.1):
        late = plan(made, pursuit, belief(tick), 0)
        assert late.delay == 2
        assert late.stamp == belief(tick).stamp + 2 * PERIOD
        np.testing.assert_allclose(late.actions[:, 0], tick + 2 + np.arange(TICKS - 2), rtol=1e-6)
    assert planner.calls == [("forget", 0), [(0, 0, 2)], [(0, 3, 2)], [(0, 1, 2)]]


def test_another_goal_and_a_clock_turned_back_begin_anew() -> None:
    made, planner = replanner(latency=0.0)
    first, second = pursue(), pursue()
    for pursuit, tick in ((first, 5), (first, 6), (second, 7), (second, 2)):
        plan(made, pursuit, belief(tick), 0)
    anew = [("forget", 0), [(0, 0, 0)]]
    assert planner.calls == [*anew, [(0, 1, 0)], *anew, *anew]


@given(late=st.lists(st.floats(0, 4.4), min_size=2, max_size=12))
def test_each_tick_has_the_action_planned_for_it_to_within_half_a_tick(late: list[float]) -> None:
    """The point of it all: a plan is for when it is there, never more than half a tick sooner or later."""
    made, planner = replanner(MEASURED)
    pursuit = pursue()
    planner.seconds = 0.3 * REACHER.period
    for number, ticks in enumerate(late):
        seen = belief(5 * number)
        found = plan(made, pursuit, seen, seen.stamp + round(ticks * PERIOD))
        ready = ticks + (0.3 if number else 0.0)  # the first plan is taken for free
        assert abs(found.delay - ready) <= 0.5 + 1e-6
        assert found.actions[0, 0] == pytest.approx(5 * number + found.delay)


def test_less_than_half_a_tick_changes_nothing() -> None:
    """Pins the latency of a fast robot: its plans go out at once, not at the next tick."""
    made, planner = replanner(MEASURED)
    planner.seconds = 0.2 * REACHER.period
    pursuit = pursue()
    for tick in range(5):
        seen = belief(tick)
        assert plan(made, pursuit, seen, seen.stamp + round(0.25 * PERIOD)).stamp == seen.stamp


def test_one_slow_plan_does_not_put_off_those_that_follow() -> None:
    made, planner = replanner(MEASURED)
    pursuit = pursue()
    delays = []
    for tick in range(12):
        planner.seconds = REACHER.period * (4.0 if tick == 5 else 1.1)
        seen = belief(tick)
        delays.append(plan(made, pursuit, seen, seen.stamp).delay)
    assert delays == [0] + [1] * 11


def test_what_is_made_up_for_is_bounded_by_the_plan_and_by_what_the_robot_would_still_play() -> None:
    """Pins that no plan is empty, and none refused by the action node as resting on too old an image."""
    made, _ = replanner(latency=10.0)
    assert plan(made, pursue(), belief(0), 0).delay == 5, "the contract's timeout of 0.25 s"
    rolled = replace(belief(0), evidence=belief(-2).stamp)
    assert plan(made, pursue(), rolled, 0).delay == 3
    patient = REACHER.model_copy(update={"action": REACHER.action.model_copy(update={"timeout": 10.0})})
    assert Latency(patient, 10.0, TICKS).ticks(belief(0), 0) == TICKS - 1


def test_a_belief_from_the_future_is_not_late() -> None:
    made, _ = replanner(MEASURED)
    assert plan(made, pursue(), belief(3), belief(0).stamp).delay == 0


def test_a_plan_that_is_not_finite_is_no_plan() -> None:
    made, _ = replanner(0.0)
    (found,) = made.plan([Job(0, pursue(), replace(belief(0), latent=np.full(1, np.nan, np.float32)), 0)])
    assert isinstance(found, PlanningError)
    assert "not finite" in str(found)


def test_robots_in_one_batch_have_each_their_own_past_and_delay() -> None:
    """Pins that neither the warm start nor the latency of one robot is another's."""
    made, planner = replanner(MEASURED)
    first, second = pursue(), pursue()
    made.plan([Job(0, first, belief(0), belief(0).stamp)])
    made.plan([Job(1, second, belief(1), belief(1).stamp)])
    late = belief(5).stamp + 2 * PERIOD
    plans = made.plan([Job(1, second, belief(4), late), Job(0, first, belief(5), late)])
    assert planner.calls[-1] == [(1, 3, 3), (0, 5, 2)]
    assert [plan.stamp for plan in plans if isinstance(plan, TimedPlan)] == [late, late]
    made.plan([Job(0, pursue(), belief(6), 0)])
    assert planner.calls[-2:] == [("forget", 0), [(0, 0, 0)]], "another goal of one robot"


def test_a_robot_that_cannot_be_planned_for_does_not_stop_the_others() -> None:
    """Pins that a constraint that fails, or forbids everything, for one robot is its failure alone."""
    made, planner = replanner(0.0)
    planner.broken = {1}
    found = made.plan([Job(robot, pursue(), belief(robot), 0) for robot in range(3)])
    assert [type(each) for each in found] == [TimedPlan, ZeroDivisionError, TimedPlan]
    assert isinstance(found[2], TimedPlan)
    assert found[2].actions[0, 0] == 2.0


def test_other_settings_reach_the_planner() -> None:
    made, planner = replanner(0.0)
    made.change(PlannerConfig(samples=100))
    assert planner.config.samples == 100
