"""What a person should know of data before trusting them: regularity, coverage, pictures that froze."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.data.alignment import Row
from smwm_ros.data.encodings import Picture
from smwm_ros.data.ticks import Cut

NEAR = 0.01
"""Part of a dimension's range within which an action is at rest, or at a limit."""
BINS = 20
"""Of the histogram of a dimension, from its low to its high."""
INTERVAL_BINS = 60
"""Of the histogram of intervals, from 0 to ``INTERVAL_END`` periods."""
INTERVAL_END = 3.0


@dataclass(frozen=True)
class EpisodeQuality:
    """One episode."""

    rows: int
    start: int
    """Stamp of the first image, ns."""
    seconds: float
    rate: float
    """Images per second, from the median interval."""
    p50_ms: float
    """Median interval between images."""
    p99_ms: float
    max_ms: float
    missing: int
    """Ticks for which no image came, within the gaps that the contract allows."""
    frozen: int
    """Images that are, pixel by pixel, the one before."""
    frozen_moving: int
    """Those of them before which the robot was told to move."""
    longest_freeze: int
    """Most of them in a row."""
    ended: str
    """Why it ended; see :class:`smwm_ros.data.ticks.Cut`."""
    outcome: int
    """0 unknown, 1 success, 2 failure."""
    label: str


@dataclass(frozen=True)
class Coverage:
    """What the actions of one dimension cover."""

    name: str
    unit: str
    low: float
    """The contract's limits."""
    high: float
    minimum: float
    """The smallest and the largest one applied; beyond the limits, perhaps."""
    maximum: float
    rest: float
    """Part of the ticks at which the robot was told to rest: at the safe action, or to hold what it has."""
    saturated: float
    """Part of the ticks at a limit."""
    histogram: tuple[int, ...]
    """Ticks in each of ``BINS`` parts from low to high; beyond them, in the nearest."""


class QualityMeter:
    """Measures the rows of a bag as they go by, in batches."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        action = contract.action
        self._low, self._high = action.low, action.high
        self._near = NEAR * (action.high - action.low)
        self._intervals = array("q")
        self._stamps = array("q")
        self._picture: Picture | None = None
        self._before: NDArray[np.float64] | None = None
        self._moved = False
        self._frozen = self._frozen_moving = self._run = self._longest = 0
        self._ticks = 0
        self._rest = np.zeros(action.size, np.int64)
        self._saturated = np.zeros(action.size, np.int64)
        self._histogram = np.zeros((action.size, BINS), np.int64)
        self._minimum = np.full(action.size, np.inf)
        self._maximum = np.full(action.size, -np.inf)
        self.known_ns = 0
        """How long the actions of all rows hold."""
        self.episodes: list[EpisodeQuality] = []

    def add(
        self, pixels: NDArray[np.uint8], actions: NDArray[np.floating[Any]], rows: list[Row[Any]]
    ) -> None:
        """
        Take the next rows, all of one episode.

        Args:
            pixels: shape (n, S, S, 3).
            actions: shape (n, A); NaN in the last row of the episode.
            rows: the same rows.
        """
        moving = self._take_actions(actions[: len(rows) - rows[-1].last])
        same = np.zeros(len(rows), bool)
        same[1:] = (pixels[1:] == pixels[:-1]).all(axis=(1, 2, 3))
        if self._picture is not None:
            same[0] = np.array_equal(self._picture, pixels[0])
        for place in range(len(rows)):
            self._run = self._run + 1 if same[place] else 0
            self._longest = max(self._longest, self._run)
        self._frozen += int(same.sum())
        self._frozen_moving += int((same & moving[: len(rows)]).sum())
        self._picture = pixels[-1].copy()
        self._stamps.extend(row.stamp for row in rows)
        if rows[-1].last:
            self._end(rows[-1])

    def coverage(self) -> list[Coverage]:
        """Return what each dimension's actions cover so far."""
        ticks = max(self._ticks, 1)
        return [
            Coverage(
                name=dimension.name,
                unit=dimension.unit,
                low=dimension.low,
                high=dimension.high,
                minimum=_rounded(self._minimum[place]) if self._ticks else 0.0,
                maximum=_rounded(self._maximum[place]) if self._ticks else 0.0,
                rest=_rounded(self._rest[place] / ticks),
                saturated=_rounded(self._saturated[place] / ticks),
                histogram=tuple(self._histogram[place].tolist()),
            )
            for place, dimension in enumerate(self._contract.action.dimensions)
        ]

    @property
    def intervals_ns(self) -> NDArray[np.int64]:
        """Distances between neighbouring images of the episodes so far."""
        return np.array(self._intervals, np.int64)

    def interval_histogram(self) -> list[int]:
        """Count the intervals in ``INTERVAL_BINS`` parts of 0 to ``INTERVAL_END`` periods."""
        periods = np.clip(self.intervals_ns / self._contract.period_ns, 0, np.nextafter(INTERVAL_END, 0))
        return np.histogram(periods, INTERVAL_BINS, (0, INTERVAL_END))[0].tolist()

    def _take_actions(self, actions: NDArray[Any]) -> NDArray[np.bool_]:
        """Count actions; return for each row, and one more, whether the robot was told to move before it."""
        before = self._before is not None and self._moved
        if not len(actions):
            return np.array([before, False])
        values = actions.astype(np.float64)
        if self._contract.action.safe == "hold":
            previous = values[:1] if self._before is None else self._before[np.newaxis]
            resting = np.abs(np.diff(values, axis=0, prepend=previous)) <= self._near
        else:
            resting = np.abs(values - self._contract.action.safe_values) <= self._near
        self._ticks += len(values)
        self._rest += resting.sum(axis=0)
        self._saturated += ((values <= self._low + self._near) | (values >= self._high - self._near)).sum(
            axis=0
        )
        self._minimum = np.minimum(self._minimum, values.min(axis=0))
        self._maximum = np.maximum(self._maximum, values.max(axis=0))
        bins = np.clip((values - self._low) / (self._high - self._low) * BINS, 0, BINS - 1).astype(int)
        for place, column in enumerate(bins.T):
            self._histogram[place] += np.bincount(column, minlength=BINS)
        moved = ~resting.all(axis=1)
        self._before, self._moved = values[-1], bool(moved[-1])
        return np.array([before, *moved])

    def _end(self, last: Row[Any]) -> None:
        stamps = np.array(self._stamps, np.int64)
        intervals = np.diff(stamps)
        self.known_ns += int(stamps[-1] - stamps[0])
        self._intervals.extend(intervals.tolist())
        p50, p99 = np.percentile(intervals, [50, 99]) if len(intervals) else (np.nan, np.nan)
        self.episodes.append(
            EpisodeQuality(
                rows=len(stamps),
                start=int(stamps[0]),
                seconds=_rounded((stamps[-1] - stamps[0]) * 1e-9),
                rate=_rounded(1e9 / p50),
                p50_ms=_rounded(p50 * 1e-6),
                p99_ms=_rounded(p99 * 1e-6),
                max_ms=_rounded(intervals.max() * 1e-6),
                missing=int((np.rint(intervals / self._contract.period_ns) - 1).clip(0).sum()),
                frozen=self._frozen,
                frozen_moving=self._frozen_moving,
                longest_freeze=self._longest,
                ended=(last.cut or Cut.FINISH).value,
                outcome=last.outcome,
                label=last.label,
            )
        )
        del self._stamps[:]
        self._picture = self._before = None
        self._frozen = self._frozen_moving = self._run = self._longest = 0


def _rounded(value: float | np.floating[Any]) -> float:
    """Keep six digits: reports are read by people, and kept in the store."""
    return float(f"{value:.6g}")
