"""A bag's time beside the steady clock's, and how to wait for it."""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A steady clock, and a sleep that another thread can end."""

    def now(self) -> float:
        """Return seconds."""

    def sleep(self, until: float) -> None:
        """Return at a time (it may be infinite), or when woken, or earlier for no reason."""

    def wake(self) -> None:
        """End the sleep, or the next one if there is none."""


class SteadyClock:
    """The machine's steady clock."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now(self) -> float:
        """Return seconds since some moment."""
        return time.monotonic()

    def sleep(self, until: float) -> None:
        """Return at a time, or when woken."""
        self._woken.wait(min(max(0.0, until - self.now()), threading.TIMEOUT_MAX))
        self._woken.clear()

    def wake(self) -> None:
        """End the sleep, or the next one."""
        self._woken.set()


class Timeline:
    """Which moment of the bag (ns) is played at which moment of the steady clock (s)."""

    def __init__(self, rate: float) -> None:
        """
        Start at rest; see :meth:`begin`.

        Args:
            rate: seconds of the bag in one steady second.
        """
        self._rate = rate
        self._stamp = 0
        self._steady = 0.0
        self.paused = False

    def begin(self, stamp: int, now: float) -> None:
        """Let ``now`` be the time to play ``stamp``."""
        self._stamp, self._steady = stamp, now

    def due(self, stamp: int) -> float:
        """Return when a moment of the bag is to be played; infinite while paused."""
        return math.inf if self.paused else self._steady + (stamp - self._stamp) / (1e9 * self._rate)

    def at(self, now: float) -> int:
        """Return the moment of the bag that is played at a time."""
        if self.paused:
            return self._stamp
        return self._stamp + round((now - self._steady) * 1e9 * self._rate)

    def pause(self, now: float) -> None:
        """Stop the bag's time."""
        self._stamp = self.at(now)
        self.paused = True

    def resume(self, now: float) -> None:
        """Let the bag's time go on."""
        self.paused = False
        self._steady = now
