"""Plan after plan for a running robot: each goes on from the last, and begins when it can be played."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.errors import PlanningError
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.protocol import FleetPlanner, PlanResult, Problem
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


@dataclass(frozen=True, eq=False)
class Job:
    """A robot that is due for a plan."""

    robot: int
    """Which of those planned for."""
    pursuit: Pursuit
    """Of its goal."""
    belief: Belief
    """Where it is."""
    now: int
    """ROS time in ns."""


class Replanner:
    """Has one planner make plan after plan, for one robot or several, each with one goal after the other."""

    def __init__(
        self,
        planner: FleetPlanner,
        contract: Contract,
        latency: Latency,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Begin with no plan.

        Args:
            planner: made for these robots; nobody else may use it.
            contract: of the robots, which are alike.
            latency: how much of it to make up for.
            clock: steady time in s.
        """
        self._planner = planner
        self._period = contract.period_ns
        self._latency = latency
        self._clock = clock
        self._last: dict[int, tuple[Pursuit, int]] = {}  # whose each last plan was, and its first tick

    def change(self, config: PlannerConfig) -> None:
        """Plan with other settings from now on; see :meth:`FleetPlanner.change`."""
        self._planner.change(config)

    def plan(self, jobs: Sequence[Job]) -> list[TimedPlan | Exception]:
        """
        Plan for some robots in one batch; each one's last plan for the same goal is where its search begins.

        Returns:
            For each robot its plan, or why there is none. What goes wrong for one is none of the others'
            concern: they are planned for alone then.
        """
        problems = [self._problem(job) for job in jobs]
        try:
            found = self._search(problems)
        except Exception as error:  # a plugin may raise anything
            if len(jobs) == 1:
                return [error]
            return [self.plan([job])[0] for job in jobs]
        return [self._timed(*each) for each in zip(jobs, problems, found, strict=True)]

    def _problem(self, job: Job) -> Problem:
        pursuit, belief = job.pursuit, job.belief
        elapsed, last = 0, self._last.get(job.robot)
        if last is not None and last[0] is pursuit and last[1] <= belief.stamp:
            elapsed = round((belief.stamp - last[1]) / self._period)
        else:
            self._planner.forget([job.robot])
        delay = self._latency.ticks(belief, job.now)
        return Problem(job.robot, belief.latent, pursuit.goal, elapsed, delay)

    def _search(self, problems: Sequence[Problem]) -> list[PlanResult]:
        began = self._clock()
        result = self._planner.plan_fleet(problems)
        self._latency.learn(self._clock() - began)
        return [result.of(number) for number in range(len(problems))]

    def _timed(self, job: Job, problem: Problem, result: PlanResult) -> TimedPlan | Exception:
        if not np.isfinite(result.actions).all():
            return PlanningError("the plan is not finite: the model, or a plugin, computes nonsense")
        self._last[job.robot] = (job.pursuit, job.belief.stamp)
        delay = problem.delay
        return TimedPlan(
            job.belief.stamp + delay * self._period,
            result.actions[delay:],
            delay,
            job.pursuit.goal if result.subgoals is None else result.subgoals,
            result,
        )
