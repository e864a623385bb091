"""Plan after plan for a running robot: each goes on from the last, and begins when it can be played."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.errors import PlanningError
from smwm_ros.planning.hierarchy import HierarchicalPlanner
from smwm_ros.planning.mpc import Planner, PlanResult
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Pursuit

MEASURED = -1.0
"""As a latency: not given, but measured."""
WINDOW = 9
"""Newest plans that tell how long planning takes."""


class Latency:
    """
    Foresees how many ticks after its image a plan can be played, which is for how long the last one goes on.

    That is the age of the belief when planning begins, and the time that planning takes, for which the
    median of the last plans stands. It is rounded to the nearest tick: below half a tick nothing is made up
    for, and a plan goes out as soon as it is there; above, its first action waits for the tick from which it
    was planned, no longer than half of one.
    """

    def __init__(self, contract: Contract, seconds: float, plan_ticks: int) -> None:
        """
        Know nothing of how long planning takes: until the first plan is learned it takes no time.

        Args:
            contract: the robot.
            seconds: from image to command; negative: measured, 0: not to be made up for.
            plan_ticks: actions in a plan, of which one at least is to be left.
        """
        self._contract = contract
        self._given = seconds
        self._most = plan_ticks - 1
        self._took: deque[float] = deque(maxlen=WINDOW)

    def learn(self, seconds: float) -> None:
        """Take in how long a plan took."""
        self._took.append(seconds)

    def ticks(self, belief: Belief, now: int) -> int:
        """
        Return the ticks to make up for by a plan that is begun now.

        Never more than a plan has, or than the contract's timeout allows: beyond that the action node would
        refuse the plan for resting on too old an image.

        Args:
            belief: to be planned from.
            now: ROS time in ns.
        """
        seconds = self._given
        if seconds < 0:
            age = max(0, now - belief.stamp) * 1e-9
            seconds = age + (float(np.median(self._took)) if self._took else 0.0)
        old = (belief.stamp - belief.evidence) * 1e-9
        longest = int((self._contract.action.timeout - old) / self._contract.period + 1e-6)
        return max(0, min(round(seconds / self._contract.period), longest, self._most))


@dataclass(frozen=True, eq=False)
class TimedPlan:
    """A plan, from the first action that it can still decide."""

    stamp: int
    """When the first action applies, in ns."""
    actions: NDArray[np.float64]
    """Contract units, shape (T, A)."""
    delay: int
    """Ticks from the belief to the stamp; what is played in them was settled before."""
    subgoal: NDArray[np.float32]
    """Latent that it heads for, shape (D,): a waypoint, or the goal."""
    result: PlanResult
    """As the planner made it: its actions begin at the belief."""


class Replanner:
    """Has one planner make plan after plan, for one goal after the other."""

    def __init__(
        self,
        planner: Planner,
        contract: Contract,
        latency: Latency,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Begin with no plan.

        Args:
            planner: made for this robot; nobody else may use it.
            contract: the robot.
            latency: how much of it to make up for.
            clock: steady time in s.
        """
        self._planner = planner
        self._period = contract.period_ns
        self._latency = latency
        self._clock = clock
        self._last: tuple[Pursuit, int] | None = None  # whose the last plan was, and its first tick

    def plan(self, pursuit: Pursuit, belief: Belief, now: int) -> TimedPlan:
        """
        Plan from a belief towards a goal; the last plan for the same goal is where the search begins.

        Args:
            pursuit: of the goal.
            belief: where the robot is.
            now: ROS time in ns.

        Raises:
            ConfigError, PlanningError: nothing can be planned.
        """
        elapsed = None
        if self._last is not None and self._last[0] is pursuit and self._last[1] <= belief.stamp:
            elapsed = round((belief.stamp - self._last[1]) / self._period)
        else:
            self._planner.reset()
        delay = self._latency.ticks(belief, now)
        began = self._clock()
        result = self._planner.plan(belief.latent, pursuit.goal, elapsed, delay)
        self._latency.learn(self._clock() - began)
        if not np.isfinite(result.actions).all():
            raise PlanningError("the plan is not finite: the model, or a plugin, computes nonsense")
        self._last = (pursuit, belief.stamp)
        stamp = belief.stamp + delay * self._period
        return TimedPlan(stamp, result.actions[delay:], delay, self._subgoal(pursuit), result)

    def _subgoal(self, pursuit: Pursuit) -> NDArray[np.float32]:
        waypoints = self._planner.subgoals if isinstance(self._planner, HierarchicalPlanner) else None
        return pursuit.goal if waypoints is None else waypoints[0]
