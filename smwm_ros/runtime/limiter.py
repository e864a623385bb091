"""The last thing every command passes: the contract's limits of value, of rate of change, of position."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.runtime.joint_limits import NO_JOINT_STATES, JointLimits

EARLY = "early change"
"""Changed by less than was wanted only because the command before was sent less than a period ago."""
SAME = 1e-9
"""Smaller differences are no intervention."""


class Limiter:
    """
    Keeps each command within the contract's ``low``, ``high``, ``max_change`` and position limits.

    The change is measured from the last command sent, over the time since then, but over one control
    period at most: after a silence the robot must not jump. Before the first command the robot is taken
    to rest at its safe action. Where that is ``hold`` nothing is known of it: no safe action can be made
    yet, and the first command is limited in value only. Where commands are positions of joints that are
    sensed, nothing can be sent, not even the safe action, until it is known where the joints are.

    Where limits disagree, that of change is kept before that of position (a joint beyond its limit is
    slowed down as fast as the contract allows), and that of value before all.

    Times are in ns, of a clock that the caller chooses: that in which the robot moves.
    """

    def __init__(self, contract: Contract) -> None:
        """Start with no command sent."""
        action = contract.action
        self.joints = JointLimits(contract)
        self._low, self._high = action.low.tolist(), action.high.tolist()
        self._max_change = action.max_change.tolist()
        self._period = contract.period
        self._kind = action.safe
        self._safe: list[float] | None = None if action.safe == "hold" else action.safe_values.tolist()
        self._commanded = contract.commanded_joints
        self._found: dict[str, float] = {}
        self._timeout = round(action.timeout * 1e9)
        self._last = None if self._commanded else self._safe
        self.sent: int | None = None
        """When the last command was sent."""

    @property
    def needed(self) -> tuple[str, ...]:
        """The joints whose positions are needed."""
        return (*self.joints.names, *self._commanded)

    def sense(self, positions: Mapping[str, float], measured: int, time: int) -> None:
        """Take joint positions; arguments as of :meth:`JointLimits.sense`, and the time now."""
        self.joints.sense(positions, measured)
        if self._commanded and abs(time - measured) < self._timeout:
            known = {name: positions[name] for name in self._commanded if name in positions}
            self._found |= {name: position for name, position in known.items() if math.isfinite(position)}
            if self._last is None:
                self.rest()

    def flaw(self, time: int) -> str:
        """Say why nothing that is wanted can be sent now, as :class:`JointLimits` does; empty if it can."""
        if self._commanded and self._last is None:
            return NO_JOINT_STATES
        return self.joints.flaw(time)

    def limit(self, target: Sequence[float], time: int) -> tuple[NDArray[np.float64], str]:
        """
        Bring a command within the limits; it counts as sent.

        Args:
            target: what is wanted, A finite numbers.
            time: now.

        Returns:
            The command, shape (A,), and which limit changed it most lately; empty if none did.
        """
        within = [max(low, min(x, high)) for x, low, high in zip(target, self._low, self._high, strict=True)]
        reason = "" if _same(within, target) else "value limit"
        inside = self.joints.limit(within, time)
        if not _same(inside, within):
            reason = "position limit"
        sent = self._slowly(inside, self._last, self._seconds(time))
        if not _same(sent, inside):
            allowed = self._slowly(inside, self._last, self._period)
            reason = EARLY if _same(allowed, inside) else "change limit"
        self._last, self.sent = sent, time
        self.joints.sent(sent, time)
        return np.array(sent), reason

    def after(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Limit in value and change what may follow the last command, a period apart; shape (T, A)."""
        last, rows = self._last, []
        for target in targets.tolist():
            last = self._slowly(target, last, self._period)
            rows.append(last)
        return np.array(rows).reshape(targets.shape)

    def safe(self, time: int) -> NDArray[np.float64] | None:
        """
        Return the next command on the way to the safe action, shape (A,).

        The way there obeys the limits as well: a robot that must not be jerked must not be jerked
        to a stop. None where it is not known where the robot is: the safe action is ``hold`` and nothing
        was sent that could be held, or commands are positions and the joints were not sensed.
        """
        if self._last is None:
            return None
        target = self._last if self._safe is None else self._safe
        if self._kind == "decelerate":
            target = self._shrunk(self._last, self._seconds(time))
        return self.limit(target, time)[0]

    def rest(self) -> None:
        """Take the robot to be at rest, as at the beginning: at its safe action, or where its joints are."""
        if self._commanded:
            known = len(self._found) == len(self._commanded)
            self._last = [self._found[name] for name in self._commanded] if known else None
        elif self._safe is not None:
            self._last = self._safe

    @property
    def lost_while_silent(self) -> bool:
        """Whether the last command says nothing any more once the robot may have been moved by others."""
        return self._safe is None or bool(self._commanded)

    @property
    def settled(self) -> bool:
        """Whether the last command is the safe action."""
        return self._safe is None or self._last in (None, self._safe)

    def _seconds(self, time: int) -> float:
        """Return over how long the next command may change. A clock that was turned back: a new start."""
        if self.sent is None or time < self.sent:
            return self._period
        return min((time - self.sent) * 1e-9, self._period)

    def _slowly(self, target: Sequence[float], last: Sequence[float] | None, seconds: float) -> list[float]:
        """Return the values nearest to the target that the limits of change and value allow."""
        limits = zip(self._max_change, self._low, self._high, strict=True)
        return [
            # Rounding must not carry a command over the edge by its last bit: the value limit comes last.
            max(low, min(max(old - change * seconds, min(x, old + change * seconds)), high))
            for x, old, (change, low, high) in zip(target, last or target, limits, strict=True)
        ]

    def _shrunk(self, values: Sequence[float], seconds: float) -> list[float]:
        """Shrink all values in proportion, as far as the slowest of them can in a time."""
        left = max(
            max(0.0, 1.0 - change * seconds / abs(x)) if x else 0.0
            for x, change in zip(values, self._max_change, strict=True)
        )
        return [left * x for x in values]


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return one == other or all(abs(a - b) <= SAME for a, b in zip(one, other, strict=True))
