"""Whether a camera can be believed: the age of its pictures, and whether they still change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Action

MOVING = 0.05
"""Share of an action's range beyond which it is a command to move."""


def age_fault(stamp: int, now: int, limit: float) -> str:
    """
    Say why a picture cannot be used by its age.

    Args:
        stamp: of the picture, ns.
        now: ns; 0 if the time is not known.
        limit: seconds by which they may differ, either way; 0: any.

    Returns:
        The kind of the fault, ``old`` or ``future``; empty if there is none.
    """
    age = (now - stamp) * 1e-9
    if not (limit and now) or abs(age) <= limit:
        return ""
    return "old" if age > 0 else "future"


class FreezeDetector:
    """
    Notices a camera that goes on sending the same picture although the robot moves.

    The noise of a real sensor makes each picture another, even of a scene at rest. Simulated cameras
    have none, so equal pictures alone prove nothing: they count while the robot is commanded to move.
    Once frozen, a camera stays so until its picture changes: the robot has been stopped meanwhile.

    ``act`` may be called from another thread than ``look``.
    """

    def __init__(self, action: Action, images: int) -> None:
        """
        Begin with no picture.

        Args:
            action: the contract's.
            images: pictures in a row that equal the one before, each while the robot was commanded to
                move, from which on the camera is frozen; 0: never.
        """
        self._images = images
        self._threshold = MOVING * (action.high - action.low)
        # A robot whose safe action is to hold may be at rest with any action: there, changes tell.
        self._rest: NDArray[np.float64] | None = None if action.safe == "hold" else action.safe_values
        self._last: NDArray[np.float64] | None = None
        self._moving = False
        self._newest: Any = None
        self._suspicious = 0
        self.repeated = 0
        """Pictures in a row that equal the one before."""

    def act(self, values: NDArray[np.float64], planned: bool) -> None:
        """
        Take an applied action.

        Args:
            values: shape (A,).
            planned: whether it is a plan's, not the safe action.
        """
        rest = self._last if self._rest is None else self._rest
        self._moving = planned and rest is not None and bool((np.abs(values - rest) > self._threshold).any())
        self._last = values

    def look(self, data: Any) -> bool:
        """Take the data of the next picture, an array; return whether the camera is frozen."""
        same = self._newest is not None and len(data) == len(self._newest) and bool(self._newest == data)
        self._newest = data
        if not same:
            self.repeated = self._suspicious = 0
            return False
        self.repeated += 1
        if self._images and self._suspicious >= self._images:
            return True
        self._suspicious = self._suspicious + 1 if self._moving else 0
        return bool(self._images) and self._suspicious >= self._images
