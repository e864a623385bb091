"""The last thing every command passes: the contract's limits of value and of rate of change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Action


class Limiter:
    """
    Keeps each command within ``low``, ``high`` and ``max_change`` of the contract.

    The change is measured from the last command sent. Before the first one the robot is taken to
    rest at its safe action. Where that is ``hold`` nothing is known of it: no safe action can be
    made yet, and the first command is limited in value only.
    """

    def __init__(self, action: Action) -> None:
        """Start with no command sent."""
        self._low, self._high, self._max_change = action.low, action.high, action.max_change
        self._safe = None if action.safe == "hold" else action.safe_values
        self._last = self._safe

    def limit(self, target: NDArray[np.float64], seconds: float) -> tuple[NDArray[np.float64], str]:
        """
        Bring a command within the limits; it counts as sent.

        Args:
            target: what is wanted, finite, shape (A,).
            seconds: time in which the change happens.

        Returns:
            The command, shape (A,), and which limit changed it; empty if none did.
        """
        within = np.clip(target, self._low, self._high)
        reason = "" if np.array_equal(within, target) else "value limit"
        sent = within
        if self._last is not None:
            change = self._max_change * max(seconds, 0.0)
            slow = np.clip(within, self._last - change, self._last + change)
            # Rounding must not carry a command over the edge by its last bit.
            sent = np.clip(slow, self._low, self._high)
            if not np.allclose(sent, within, rtol=0, atol=1e-9):
                reason = "change limit"
        self._last = sent
        return sent.copy(), reason

    def safe(self, seconds: float) -> NDArray[np.float64] | None:
        """
        Return the next command on the way to the safe action, shape (A,).

        The way there obeys the limits as well: a robot that must not be jerked must not be jerked
        to a stop. None where the safe action is ``hold`` and nothing was sent that could be held.
        """
        target = self._last if self._safe is None else self._safe
        return None if target is None else self.limit(target, seconds)[0]

    @property
    def settled(self) -> bool:
        """Whether the last command is the safe action."""
        return self._safe is None or (self._last is not None and np.array_equal(self._last, self._safe))
