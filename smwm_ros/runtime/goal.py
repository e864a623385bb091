"""The pursuit of one goal, from its acceptance to its end: when to plan, and when it is over, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.runtime.belief import Belief

LEAST_PROGRESS = 0.02
"""Share by which the distance, or the cost of a plan, must fall below the best one so far to be progress."""


class Outcome(IntEnum):
    """How a goal ended; the numbers are the error codes of action/ReachGoal."""

    REACHED = 0
    BAD_GOAL = 1
    NO_BELIEF = 2
    STALE_BELIEF = 3
    SURPRISED = 4
    NO_PROGRESS = 5
    TIME_LIMIT = 6
    PREEMPTED = 7
    CANCELED = 8
    INTERNAL = 9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to give a goal up, or to be content; times in seconds."""

    tolerance: float
    """Model steps within which the goal counts as reached; 0: hold it until the time limit."""
    time_limit: float
    """ROS time, from the beginning."""
    no_progress: float
    """ROS time without progress, of the distance or of what is predicted; 0: no limit."""
    max_belief_age: float
    """ROS time by which a belief may be old, or ahead, and still be planned from."""
    belief_timeout: float
    """Steady time without such a belief."""


class Pursuit:
    """
    One goal being pursued; fed with each belief, and asked now and then whether time has run out.

    Like the safety gate it has no clock: ``now`` is ROS time in ns, ``steady`` monotonic time in s.
    The time limit and the progress go by the beliefs' stamps, so that they mean the same in lock-step
    and in real time; only the silence of the beliefs is measured in steady time, so that a dead
    camera ends the goal even if ROS time has stopped with it.
    """

    def __init__(
        self,
        goal: NDArray[np.float32],
        limits: Limits,
        contract: Contract,
        distance: Callable[[NDArray[np.float32], NDArray[np.float32]], float],
        *,
        replan: int,
        now: int,
        steady: float,
        begin: int = 0,
    ) -> None:
        """
        Accept a goal.

        Args:
            goal: the goal's latent, shape (D,).
            limits: of this goal.
            contract: the robot.
            distance: between two latents, in model steps.
            replan: control ticks played of one plan before the next.
            now: time of acceptance; 0 if ROS time is not known yet.
            steady: the same in steady time.
            begin: stamp of the first belief to be used; 0: any. The limits count from here, or from
                acceptance.
        """
        self.goal = goal
        self.distance = float("nan")
        self.surprise = float("nan")
        self.outcome: Outcome | None = None
        self.message = ""
        self._limits = limits
        self._period = contract.period_ns
        self._measure = distance
        self._replan = replan
        self._begin = begin
        self._began: int | None = begin or now or None
        self._heard = steady  # a fresh belief
        self._stale = ""  # why the newest belief is not fresh
        self._planned: int | None = None  # stamp of the newest belief planned from
        self._best = float("inf")
        self._expected = float("nan")  # cost that the newest plan predicts
        self._cheapest = float("inf")
        self._progressed = 0

    def observe(self, belief: Belief, now: int, steady: float) -> bool:
        """
        Take a belief; it may end the goal.

        Returns:
            Whether a plan should be made from it.
        """
        if self.outcome is not None:
            return False
        age = (now - belief.stamp) * 1e-9
        if abs(age) > self._limits.max_belief_age and now:
            self._stale = f"{age:.3f} s old" if age > 0 else f"{-age:.3f} s in the future"
            return False
        if belief.stamp < self._begin:
            self._stale = f"from {(self._begin - belief.stamp) * 1e-9:.3f} s before the goal's beginning"
            return False
        self._stale = ""
        self._heard = steady
        self.distance = self._measure(belief.latent, self.goal)
        self.surprise = belief.surprise
        self._judge(belief)
        return self.outcome is None and self._due(belief.stamp)

    def check(self, steady: float) -> None:
        """End the goal if no usable belief has come for too long; to be called regularly."""
        silent = steady - self._heard
        if self.outcome is not None or silent <= self._limits.belief_timeout:
            return
        if self._stale:
            self.end(
                Outcome.STALE_BELIEF,
                f"the newest belief is {self._stale}; compare the clocks of the camera and of this machine",
            )
        else:
            self.end(
                Outcome.NO_BELIEF,
                f"no belief for {silent:.1f} s; are the camera, perception and world_model running?",
            )

    def expect(self, cost: float) -> None:
        """
        Take the predicted cost of the newest plan: on a detour it falls while the distance rises.

        Args:
            cost: NaN says nothing.
        """
        self._expected = cost

    def end(self, outcome: Outcome, message: str) -> None:
        """End the goal, unless it has ended already."""
        if self.outcome is None:
            self.outcome, self.message = outcome, message

    def _due(self, stamp: int) -> bool:
        """Tell whether a plan should be made from the belief of this stamp; it counts as made then."""
        last = self._planned
        # Half a tick of tolerance: stamps jitter.
        if last is not None and last <= stamp < last + (self._replan - 0.5) * self._period:
            return False
        self._planned = stamp
        return True

    def _judge(self, belief: Belief) -> None:
        limits = self._limits
        if self._began is None:
            self._began = belief.stamp
        if belief.observations == 1 and belief.stamp != self._planned:
            self._planned = None  # the world began anew: the last plan says nothing of it
        if _less(self.distance, self._best):
            self._best, self._progressed = self.distance, belief.stamp
        if _less(self._expected, self._cheapest):
            self._cheapest, self._progressed = self._expected, belief.stamp
        if limits.tolerance > 0 and self.distance <= limits.tolerance:
            self.end(Outcome.REACHED, f"reached, at a distance of {self.distance:.2f} model steps")
        elif belief.surprised:
            self.end(
                Outcome.SURPRISED,
                f"the world does not follow the model (surprise {belief.surprise:.1f}); "
                "is something in the way, or the camera moved?",
            )
        # The tick nearest to the limit ends the goal.
        elif belief.stamp - self._began >= limits.time_limit * 1e9 - self._period / 2:
            self.end(
                Outcome.TIME_LIMIT,
                f"not reached in {limits.time_limit:.1f} s; {self.distance:.2f} model steps are left"
                if limits.tolerance > 0
                else f"held for {limits.time_limit:.1f} s",
            )
        elif (
            limits.no_progress > 0
            and limits.tolerance > 0
            and belief.stamp - self._progressed >= limits.no_progress * 1e9
        ):
            self.end(
                Outcome.NO_PROGRESS,
                f"no nearer than {self._best:.2f} model steps for {limits.no_progress:.1f} s, and no plan "
                "that promises more; can the robot reach this goal at all?",
            )


def _less(value: float, best: float) -> bool:
    """Tell whether a value, which may be negative, is below the best one by what counts as progress."""
    margin = LEAST_PROGRESS * abs(best) if math.isfinite(best) else 0.0
    return value < best - margin
