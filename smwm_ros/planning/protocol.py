"""What makes plans: for one robot after the other, for many problems at once, or for a fleet of robots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from smwm_ros.planning.config import PlannerConfig


@dataclass(frozen=True)
class PlanResult:
    """A plan for each problem, and what it took."""

    actions: NDArray[np.float64]
    """Contract units, shape (T, A) with T = H*k ticks; (P, T, A) from ``plan_batch``."""
    cost: NDArray[np.float64]
    """
    Predicted cost in squared model steps, shape (); (P,) from ``plan_batch``. NaN where there was no time
    for a round, and the plan is the rest of the last one.
    """
    evaluations: int
    """Latent transitions predicted per problem."""
    seconds: float
    iterations: int
    """Rounds that there was time for."""
    slack: float
    """Seconds left of the time budget, negative when it was overrun; infinite without one."""
    subgoals: NDArray[np.float32] | None = None
    """Latents headed for, shape (D,); (P, D) from ``plan_batch``. None where they are the goals."""

    def of(self, number: int) -> PlanResult:
        """Return what is one problem's of the result of several."""
        return replace(
            self,
            actions=self.actions[number],
            cost=np.asarray(self.cost[number]),
            subgoals=None if self.subgoals is None else self.subgoals[number],
        )


@runtime_checkable
class Planner(Protocol):
    """Whatever makes plans; it may remember the last one."""

    def reset(self) -> None:
        """Forget the last plan."""

    def plan(
        self,
        latent: NDArray[np.float32],
        goal: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """Plan from one latent towards one goal, both of shape (D,); see :meth:`plan_batch`."""
        return self.plan_batch(latent[None], goal[None], elapsed, delay).of(0)

    def plan_batch(
        self,
        latents: NDArray[np.float32],
        goals: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """
        Plan for P problems at once.

        Args:
            latents: where each one starts, shape (P, D).
            goals: where each one is to end, shape (P, D).
            elapsed: ticks since the last plan's first action; its rest is the warm start.
                The configuration's ``replan`` when absent.
            delay: ticks that will have passed when the plan is played: until then the last plan goes on,
                so that the first ``delay`` actions are its, and only later ones can be chosen.

        Raises:
            ConfigError: a latent or goal is not finite, or not of the model's size; or a delay longer
                than the horizon.
            PlanningError: no sequence has a finite cost.
        """


@dataclass(frozen=True, eq=False)
class Problem:
    """What one of several robots is to be planned for."""

    robot: int
    """Whose last plan it goes on from, and whose random numbers it takes."""
    latent: NDArray[np.float32]
    """Where it starts, shape (D,)."""
    goal: NDArray[np.float32]
    """Where it is to end, shape (D,)."""
    elapsed: int = 0
    """Ticks since its last plan's first action."""
    delay: int = 0
    """Ticks that will have passed when the plan is played."""


@runtime_checkable
class FleetPlanner(Planner, Protocol):
    """
    Plans for any number of robots, in one batch for those that are due together.

    Each has a last plan and random numbers of its own, the same as if it were planned for alone. So what
    else is in the batch makes no difference, but for the last bits of matrix products, and for how many
    samples there is time for where the time is limited: it is shared.
    """

    def change(self, config: PlannerConfig) -> None:
        """
        Plan with other settings from now on, and go on from the last plans.

        Args:
            config: differs from the present one in the settings of ``CHANGEABLE`` only.

        Raises:
            ConfigError: a setting needs what the checkpoint does not have.
        """

    def forget(self, robots: Sequence[int]) -> None:
        """Forget the last plans of some robots."""

    def plan_fleet(self, problems: Sequence[Problem]) -> PlanResult:
        """Plan for some robots at once; as :meth:`plan_batch`, whose robots are 0, 1, 2 and so on."""


class BatchPlanner(FleetPlanner):
    """Makes what has arrays of problems of what has a list of them."""

    config: PlannerConfig

    def plan_batch(
        self,
        latents: NDArray[np.float32],
        goals: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """See :class:`Planner`."""
        passed = self.config.replan if elapsed is None else elapsed
        return self.plan_fleet(
            [
                Problem(robot, latent, goal, passed, delay)
                for robot, (latent, goal) in enumerate(zip(latents, goals, strict=True))
            ]
        )
