"""Signals sampled in time: what was applied, measured or seen at a stamp. All stamps are int nanoseconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class SampleHistory:
    """The newest samples of a signal, in the order of their stamps, up to a bound."""

    def __init__(self, capacity: int = 4096) -> None:
        """
        Args:
            capacity: samples kept, or up to a quarter more; the oldest ones go first.
        """
        self._capacity = capacity
        self._most = capacity + capacity // 4
        self._stamps: list[int] = []
        self._values: list[NDArray[np.float64]] = []
        self.received = 0
        self.reordered = 0
        """Samples that came after one with a later stamp."""
        self.duplicates = 0
        """Samples that replaced one with the same stamp."""

    def __len__(self) -> int:
        """Return the number of samples kept."""
        return len(self._stamps)

    @property
    def newest(self) -> int | None:
        """The latest stamp, in nanoseconds."""
        return self._stamps[-1] if self._stamps else None

    def append(self, stamp: int, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Add a sample, shape (n,); it may come late, and replaces one with the same stamp."""
        sample = np.array(values, np.float64)
        sample.flags.writeable = False
        self._insert(stamp, sample)

    def at(self, stamp: int) -> tuple[int, NDArray[np.float64]] | None:
        """Find the newest sample at or before a stamp: its own stamp and its values, shape (n,)."""
        place = bisect_right(self._stamps, stamp) - 1
        return (self._stamps[place], self._values[place]) if place >= 0 else None

    def clear(self) -> None:
        """Drop all samples, as after a jump of the clock."""
        self._stamps.clear()
        self._values.clear()

    def _insert(self, stamp: int, sample: NDArray[np.float64]) -> None:
        self.received += 1
        place = bisect_left(self._stamps, stamp)
        if place < len(self._stamps):
            if self._stamps[place] == stamp:
                self.duplicates += 1
                self._values[place] = sample
                return
            self.reordered += 1
        self._stamps.insert(place, stamp)
        self._values.insert(place, sample)
        # Not one by one: that would move all the others each time.
        if len(self._stamps) > self._most:
            del self._stamps[: -self._capacity], self._values[: -self._capacity]


class ActionHistory(SampleHistory):
    """The actions applied to the robot; each holds from its stamp until the next one's."""

    def hold(self, start: int, end: int) -> NDArray[np.float64] | None:
        """
        Average the held signal over [start, end), weighted by time.

        Where one action holds all the time, as in lock-step, it is returned exactly.

        Args:
            start: nanoseconds.
            end: nanoseconds, later than ``start``.

        Returns:
            Shape (A,), read-only; None if no action was applied at or before ``start``.
        """
        if end <= start:
            raise ValueError(f"the interval from {start} to {end} is empty")
        first = bisect_right(self._stamps, start) - 1
        if first < 0:
            return None
        after = bisect_left(self._stamps, end)
        if after == first + 1:
            return self._values[first]
        edges = np.array([start, *self._stamps[first + 1 : after], end])
        weights = np.diff(edges) / (end - start)
        mean: NDArray[np.float64] = weights @ np.stack(self._values[first:after])
        mean.flags.writeable = False
        return mean
