"""Coloured noise: how a robot moves that knows nothing of its surroundings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract

CORRELATION_TIME = 0.5
CORRELATION_TIMES = {"smwm/ReacherTorque-v0": 0.2}
"""Seconds, by gymnasium id, where it is not ``CORRELATION_TIME``."""


class ColouredNoise:
    """
    An exploration policy: coloured noise, independent in each action dimension.

    Each dimension follows an Ornstein-Uhlenbeck process with the given correlation time, sampled
    exactly at the control rate: its spectrum is flat up to 1/(2 pi correlation_time) and falls with
    the square of the frequency above. White noise of the same power would average out within a few
    ticks and leave the robot where it started; this one keeps a direction long enough to cross the joint
    space, yet passes through every speed. The values are scaled to the contract's range and clipped to
    it, so that a part of the time (16 % at the default spread) is spent at the very limits, where
    a planner's actions often lie too; then the change per tick is bounded by ``max_change``.
    """

    def __init__(
        self,
        contract: Contract,
        generator: np.random.Generator,
        *,
        correlation_time: float | None = None,
        spread: float = 0.7,
    ) -> None:
        """
        Start the process.

        Args:
            contract: limits and rate.
            generator: the only source of randomness.
            correlation_time: seconds after which the correlation has fallen to 1/e; by default the
                one that covers the task's states best, see docs/tasks.md.
            spread: standard deviation before clipping, as a share of half the range.
        """
        self._contract = contract
        self._low, self._high = contract.action.low, contract.action.high
        self._spread = spread
        if correlation_time is None:
            correlation_time = CORRELATION_TIMES.get(contract.task or "", CORRELATION_TIME)
        self._memory = np.exp(-contract.period / correlation_time)
        self._generator = generator
        self.reset()

    def reset(self) -> None:
        """Forget the past, for a new episode: the next action is an independent draw."""
        self._noise = self._generator.standard_normal(len(self._low))
        self._last: NDArray[np.float64] | None = None

    def next(self) -> NDArray[np.float64]:
        """Return the action of the next tick, shape (A,), in the contract's units."""
        middle, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        action = np.clip(middle + half * self._spread * self._noise, self._low, self._high)
        if self._last is not None:
            action = limit_change(action, self._last, self._contract)
        fresh = self._generator.standard_normal(len(self._low))
        self._noise = self._memory * self._noise + np.sqrt(1 - self._memory**2) * fresh
        self._last = action
        return action


def limit_change(
    action: NDArray[np.float64], last: NDArray[np.float64], contract: Contract
) -> NDArray[np.float64]:
    """Return an action (A,) as near to the wanted one as the contract lets a robot get in one tick."""
    largest = contract.action.max_change * contract.period
    change = np.clip(action - last, -largest, largest)
    return np.clip(last + change, contract.action.low, contract.action.high)
