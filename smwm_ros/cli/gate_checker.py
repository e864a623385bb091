"""Judges what the safety gate sends. It shares no code with the gate: only the contract's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract

ROUNDING = 1e-9
"""Of sums of floating-point numbers; values have none."""


@dataclass(frozen=True)
class Sent:
    """A command that went out."""

    values: NDArray[np.float64]
    time: int
    """When, in ns of the time in which the robot moves."""
    safe: bool
    stopped: bool
    """While the emergency stop was latched."""
    later: NDArray[np.float64] | None = None
    """What is meant to follow, a period apart, shape (T, A): a trajectory's further points."""


class Checker:
    """
    A robot that does exactly what it is commanded, and complains.

    Its joints begin at rest within their limits and move with the velocities commanded. ``faults`` says
    what was wrong, in words.
    """

    def __init__(self, contract: Contract, positions: NDArray[np.float64]) -> None:
        """
        Begin at rest.

        Args:
            contract: the robot.
            positions: one for each dimension, shape (A,); those without a limit may be anything.
        """
        action = contract.action
        self.faults: list[str] = []
        self.positions = positions
        self._period = contract.period
        self._low, self._high, self._change = action.low, action.high, action.max_change
        self._hold = action.safe == "hold"
        self._points = action.points
        self._safe = action.safe_values
        self._ends = np.repeat([[-np.inf], [np.inf]], action.size, axis=1)
        for index, dimension in enumerate(action.dimensions):
            if dimension.position is not None:
                self._ends[:, index] = dimension.position.low, dimension.position.high
        self._last: Sent | None = None
        self._moved = 0
        self._outside = False  # a violation counts once

    def move(self, time: int) -> None:
        """Let the robot go on with its last command."""
        if self._last is None:
            self._moved = time
            return
        self.positions = self.positions + self._last.values * (time - self._moved) * 1e-9
        self._moved = time
        outside = np.maximum(self._ends[0] - self.positions, self.positions - self._ends[1]).max()
        if outside > ROUNDING and not self._outside:
            self._complain("position limit", f"{outside:.3g} beyond")
        self._outside = outside > ROUNDING

    def place(self, positions: NDArray[np.float64], time: int) -> None:
        """Put the robot elsewhere, at rest, as the reset of a simulator does."""
        self.positions, self._moved = positions, time
        self._last = self._last if self._hold else None

    def take(self, sent: Sent) -> None:
        """Judge a command, and obey it."""
        self.move(sent.time)
        values = sent.values
        if values.shape != self._low.shape or not np.isfinite(values).all():
            self._complain("not an action", str(values.tolist()))
            return
        if (values < self._low).any() or (values > self._high).any():
            self._complain("value limit", str(values.tolist()))
        before = self._safe if self._last is None else self._last.values
        known = self._last is not None or not self._hold
        if known and (np.abs(values - before) > self._change * self._elapsed(sent.time) + ROUNDING).any():
            self._complain("change limit", f"{before.tolist()} to {values.tolist()}")
        if sent.stopped:
            rest = before if self._hold else self._safe
            away = np.abs(values - rest) > np.abs(before - rest) + ROUNDING
            if not sent.safe or (known and away.any()):
                self._complain("emergency stop", f"{before.tolist()} to {values.tolist()}")
        if sent.later is not None:
            self._look_ahead(sent, sent.later)
        self._last = sent

    def _look_ahead(self, sent: Sent, later: NDArray[np.float64]) -> None:
        """Judge what may follow a command: the controller goes on with it if no other one comes."""
        if sent.safe and len(later):
            self._complain("after the safe action", str(later.tolist()))
        if later.shape[1:] != self._low.shape or len(later) >= self._points or not np.isfinite(later).all():
            self._complain("not an action", f"later: {later.tolist()}")
            return
        if ((later < self._low) | (later > self._high)).any():
            self._complain("value limit", f"later: {later.tolist()}")
        rows = np.vstack([sent.values, later])
        if (np.abs(np.diff(rows, axis=0)) > self._change * self._period + ROUNDING).any():
            self._complain("change limit", f"later: {rows.tolist()}")

    def _elapsed(self, time: int) -> float:
        """Return the seconds that a change may have taken: one period at most, and after a new start."""
        if self._last is None or time < self._last.time:
            return self._period
        return min((time - self._last.time) * 1e-9, self._period)

    def _complain(self, what: str, details: str) -> None:
        self.faults.append(f"{what}: {details}")
