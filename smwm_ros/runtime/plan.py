"""A plan as the action node plays it: actions with the time at which they apply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract

MOST_ACTIONS = 10_000
"""A longer plan is taken for an error."""
PERIOD_TOLERANCE = 0.01
"""Relative difference allowed between a plan's period and the contract's."""


def periods(seconds: float, contract: Contract) -> int:
    """Return how many whole control periods a time has."""
    return int(seconds * contract.rate + 1e-6)


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """Actions with the time at which they apply; see msg/Plan. No actions at all means: stop now."""

    stamp: int
    """When the first action applies, in ns."""
    evidence: int = 0
    """Stamp of the newest image behind it, in ns; 0 if there is none."""
    model: str
    sequence: int
    period: float
    """Seconds from one action to the next."""
    execute: int
    """Actions meant to be played before the next plan; the rest is reserve."""
    actions: NDArray[np.float64]
    """In the contract's units, shape (T, A)."""
    cost: float = float("nan")

    @property
    def stops(self) -> bool:
        """Whether this is the order to stop."""
        return len(self.actions) == 0

    def flaw(self, contract: Contract, model: str = "") -> str:
        """
        Say what is wrong with the plan, whatever the time.

        Args:
            contract: the robot that should play it.
            model: the only model allowed to plan; empty allows any.

        Returns:
            One of a few fixed reasons, so that they can be counted; empty if nothing is wrong.
        """
        if model and self.model != model:
            return "wrong model"
        if self.actions.ndim != 2 or self.actions.shape[1] != contract.action.size:
            return "wrong action size"
        if not len(self.actions) <= MOST_ACTIONS:
            return "too long"
        longest = contract.action.open_loop
        most = len(self.actions) if longest is None else min(len(self.actions), periods(longest, contract))
        if not 1 <= self.execute <= most:
            return "execute out of range"
        if not np.isfinite(self.actions).all():
            return "not finite"
        if not abs(self.period - contract.period) <= PERIOD_TOLERANCE * contract.period:
            return "wrong period"
        return ""
