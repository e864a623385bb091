"""
The safety gate: what every way to the robot has in common. docs/safety.md tells what it promises.

It has no clock and no thread: the caller passes both times in. ``now`` is ROS time in ns, the time
of all stamps; ``steady`` is monotonic time in s, which nothing can stop or turn back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.runtime.limiter import Limiter

FROM_THE_FUTURE = "from the future"
BEFORE_RELEASE = "older than the release"
EMERGENCY_STOP = "emergency stop"
STOPPED = "stopped"
RELEASED = "released"


def time_to_rest(contract: Contract) -> float:
    """Return the longest time, in s, that the way to the safe action takes within the limits of change."""
    action = contract.action
    if action.safe == "hold":
        return 0.0
    way = np.maximum(action.high - action.safe_values, action.safe_values - action.low)
    return float((way / action.max_change).max())


@dataclass(frozen=True, eq=False)
class Command:
    """One action to send now."""

    values: NDArray[np.float64]
    """Within the contract's limits, shape (A,)."""
    stamp: int
    """From when it holds, in ns."""
    evidence: int = 0
    """Stamp of the newest image behind it, in ns; 0 for a safe action and for one that passed through."""
    safe: bool = False
    reason: str = ""
    """Why the wanted action was changed or replaced; empty when it was not."""
    later: NDArray[np.float64] | None = None
    """What is meant to follow, a period apart, shape (T, A): for a trajectory of several points."""


class Gate(ABC):
    """
    The limits, the safe action, the emergency stop and the counters; a subclass says what is wanted.

    While the emergency stop is latched nothing is wanted: what arrives is refused, and every command is
    the safe action or on the way to it. What arrives after the release but rests on something from before
    it is refused too: a robot must not go on with what it was stopped from.

    Where the contract limits positions, commands need the joint states: while they are missing, or older
    than the contract's timeout, the safe action goes out in place of what is wanted. Where commands are
    positions themselves, none goes out before the first joint state: the robot begins where it is.
    """

    def __init__(self, contract: Contract, limiter: Limiter | None = None) -> None:
        """
        Start with nothing wanted.

        Args:
            contract: the robot.
            limiter: of an earlier gate of the same robot, which knows what was sent last.
        """
        self.counts: Counter[str] = Counter()
        """How often each kind of intervention happened."""
        self.sent = 0
        """Commands so far."""
        self.wake = -np.inf
        """Steady time at which ``step`` should be called next, in s."""
        self.stopped = False
        """Whether the emergency stop is latched."""
        self._contract = contract
        self._period = contract.period_ns
        self._timeout = round(contract.action.timeout * 1e9)
        self._limiter = limiter or Limiter(contract)
        self._released = 0
        self._why = "nothing to do"

    @abstractmethod
    def step(self, now: int, steady: float) -> Command | None:
        """Return what must be sent now, if anything; to be called at ``wake``."""

    def refuse(self, reason: str, now: int, steady: float) -> Command | None:
        """Answer what could not even be read: as for anything else that is wrong."""
        return self._halt(reason, now, steady)

    def sense(self, positions: Mapping[str, float], stamp: int, now: int, steady: float) -> None:
        """Take joint positions, by name, in rad or m; of use where the contract limits or commands them."""
        if stamp > now + self._future_limit():
            self.counts["joint states from the future"] += 1
        else:
            measured = self._measured(stamp, now, steady)
            self._limiter.sense(positions, measured, self._time(now, steady))

    def emergency_stop(self, now: int, steady: float) -> Command | None:
        """Latch the stop; return what must be sent at once, if anything."""
        self.stopped = True
        return self._halt(EMERGENCY_STOP, now, steady)

    def release(self, now: int) -> None:
        """End the emergency stop. The robot moves again when something new is wanted."""
        if self.stopped:
            self.stopped, self._released, self._why = False, now, RELEASED

    def stop(self, now: int, steady: float) -> Command | None:
        """Drop what is wanted and return the next command on the way to the safe action."""
        self._forget()
        self._why = STOPPED
        return self._safe(now, steady)

    @property
    def settled(self) -> bool:
        """Whether the last command was the safe action itself."""
        return self._limiter.settled

    @abstractmethod
    def _forget(self) -> None:
        """Drop what is wanted."""

    @abstractmethod
    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        """Drop what is wanted, for a reason to be counted, and go to the safe action."""

    def _time(self, stamp: int, steady: float) -> int:
        """Return the time, in ns, in which the robot moves and its commands change."""
        return round(steady * 1e9)

    def _measured(self, stamp: int, now: int, steady: float) -> int:
        """Return when, in the same time, something was measured that arrives now."""
        return min(self._time(stamp, steady), self._time(now, steady) - (now - stamp))

    def _future_limit(self) -> int:
        """Return how far in the future a stamp may lie, in ns."""
        return self._timeout

    def _before_release(self, stamp: int, now: int) -> bool:
        """Tell whether something rests on what was before the release; not when the clock was turned back."""
        return stamp < self._released <= now + self._future_limit()

    def _drop(self, reason: str) -> None:
        self.counts[reason] += 1
        self._forget()
        self._why = reason

    def _send(
        self, rows: NDArray[np.float64], stamp: int, steady: float, evidence: int = 0
    ) -> Command | None:
        """Return the command for the first of some actions, shape (T, A), limited; the others may follow."""
        time = self._time(stamp, steady)
        if flaw := self._limiter.flaw(time):
            self.counts[flaw] += 1
            return self._safe(stamp, steady, flaw)
        values, reason = self._limiter.limit(rows[0].tolist(), time)
        if reason:
            self.counts[reason] += 1
        self.sent += 1
        points = self._contract.action.points
        later = self._limiter.after(rows[1:points]) if points > 1 else None
        return Command(values, stamp, evidence=evidence, reason=reason, later=later)

    def _safe(self, stamp: int, steady: float, reason: str = "") -> Command | None:
        values = self._limiter.safe(self._time(stamp, steady))
        if values is None:
            return None
        self.sent += 1
        return Command(values, stamp, safe=True, reason=reason or self._why)
