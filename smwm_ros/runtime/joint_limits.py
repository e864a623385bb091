"""Position limits: how fast a joint may go so that it still stops before its limit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smwm_ros.contract import Contract

REACTION = 3.0
"""
Control periods that a joint may go on before it begins to brake: one and a half until the next command, which
is as long as a gate waits for the next plan, and as much again for commands that come late and joints that
follow late.
"""
NO_JOINT_STATES = "no joint states"


@dataclass
class _Joint:
    """A dimension with a position limit, and the newest that is known of its joint."""

    index: int
    low: float
    high: float
    braking: float
    """Of the command, per second: the dimension's ``max_change``."""
    position: float = 0.0
    measured: int | None = None
    """When, in ns; None before the first time."""


class JointLimits:
    """
    Limits the velocities of joints whose positions are limited.

    A joint ``gap`` away from its limit may approach it with at most the velocity v for which

        v * reaction + v^2 / (2 * max_change) = gap

    is the way to standstill: the reaction of ``REACTION`` periods, then braking by the contract's largest
    change. The gap is that at the measured position, less the way that the commands sent since then
    can have brought the joint nearer. A joint beyond its limit may only move back.

    A joint may be measured ``timeout`` (the contract's) ago at most.
    """

    def __init__(self, contract: Contract) -> None:
        """Start without measurements."""
        self._joints = {
            limit.joint: _Joint(index, limit.low, limit.high, contract.action.dimensions[index].max_change)
            for index, limit in contract.action.positions.items()
        }
        self._timeout = round(contract.action.timeout * 1e9)
        self._reaction = REACTION * contract.period
        self._commands: deque[tuple[int, Sequence[float]]] = deque()  # newest last, each with its time

    @property
    def names(self) -> tuple[str, ...]:
        """The joints whose positions are needed; empty where there are no limits."""
        return tuple(self._joints)

    def sense(self, positions: Mapping[str, float], measured: int) -> None:
        """
        Take positions of some of the joints.

        Args:
            positions: rad or m, by name; other joints' are left out.
            measured: when, in ns.
        """
        for name, position in positions.items():
            if joint := self._joints.get(name):
                joint.position, joint.measured = position, measured

    def flaw(self, time: int) -> str:
        """Say why the joints cannot be kept within their limits now; empty if they can."""
        for joint in self._joints.values():
            if joint.measured is None:
                return NO_JOINT_STATES
            if abs(time - joint.measured) >= self._timeout:
                return "old joint states"
            if not math.isfinite(joint.position):
                return "joint states not finite"
        return ""

    def sent(self, values: Sequence[float], time: int) -> None:
        """Note a command that went out."""
        if not self._joints:
            return
        if self._commands and time < self._commands[-1][0]:  # the clock was turned back
            self._commands.clear()
        self._commands.append((time, values))
        # The one before the oldest measurement that counts was still in force then.
        while len(self._commands) > 1 and self._commands[1][0] <= time - self._timeout:
            self._commands.popleft()

    def limit(self, values: Sequence[float], time: int) -> Sequence[float]:
        """Slow down the velocities that would carry their joints beyond the limits; if unknown, to zero."""
        if not self._joints:
            return values
        limited = list(values)
        unknown = self.flaw(time)
        for joint in self._joints.values():
            if unknown:
                limited[joint.index] = 0.0
                continue
            back, forth = self._moved(joint, time)
            fastest = self._fastest(joint.high - joint.position - forth, joint.braking)
            slowest = -self._fastest(joint.position + back - joint.low, joint.braking)
            limited[joint.index] = max(slowest, min(values[joint.index], fastest))
        return limited

    def _moved(self, joint: _Joint, time: int) -> tuple[float, float]:
        """Return how far down (negative) and up the joint can have come since it was measured."""
        back = forth = 0.0
        end = time
        assert joint.measured is not None
        for begin, values in reversed(self._commands):
            seconds = (end - max(begin, joint.measured)) * 1e-9
            if seconds > 0:
                way = values[joint.index] * seconds
                back, forth = back + min(way, 0.0), forth + max(way, 0.0)
            if begin <= joint.measured:
                break
            end = min(end, begin)
        return back, forth

    def _fastest(self, gap: float, braking: float) -> float:
        if gap <= 0:
            return 0.0
        return braking * (math.sqrt(self._reaction**2 + 2 * gap / braking) - self._reaction)
