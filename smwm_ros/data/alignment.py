"""
Alignment in time: which action belongs to which image.

Row t of an episode is image t and the action applied from its stamp until the stamp of image t+1.
The live belief and the ingest of bags share this code, so both mean the same by it. All stamps are
integer nanoseconds.

A stream of images becomes ticks by three rules: an image is dropped if the next one will probably be
nearer to one period after the last tick; a longer gap than the contract's ends the episode; and so
does a stamp that jumps back, which means that the clock was set, or a bag or a simulation started
anew. Nothing is ever carried across the end of an episode.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract

Payload = TypeVar("Payload")

TIE = 0.02
"""Periods by which one image must be nearer to its due time than another, so that jitter decides nothing."""

PATIENCE_NS = 1_000_000_000
"""How far the images may run ahead of the other topics: beyond it, what has not come is missing."""


class Tick(Enum):
    """What an image is to the stream."""

    START = "start"
    """The first of an episode: the first at all, or after a gap or a jump."""
    NEXT = "next"
    """One tick after the image accepted before."""
    SURPLUS = "surplus"
    """Too early after the one accepted before: drop it."""
    DUPLICATE = "duplicate"
    """The same stamp as the one before: drop it."""


class TickGate:
    """
    Sort images into ticks by their stamps (see the module's text), and count what happened.

    A camera that sends too often is thinned to every n-th image, with the n that comes nearest to the
    contract's period; an image that is early by up to a third of a period is let through.
    """

    def __init__(self, contract: Contract) -> None:
        self._period_ns = contract.period_ns
        self._max_gap_ns = contract.max_gap_ns
        self._seen: int | None = None
        self.last: int | None = None
        """Stamp of the last accepted image."""
        self.images = 0
        self.surplus = 0
        self.duplicates = 0
        self.gaps = 0
        self.jumps = 0

    def offer(self, stamp: int) -> Tick:
        """Judge the next image by its stamp; ``START`` and ``NEXT`` accept it."""
        self.images += 1
        seen, self._seen = self._seen, stamp
        if seen is not None and stamp == seen:
            self.duplicates += 1
            return Tick.DUPLICATE
        last = self.last
        if last is not None and seen is not None and stamp > seen:
            # The next image will probably be as far from this one as this one from the one before.
            early = last + self._period_ns - stamp
            if 2 * early - (stamp - seen) > TIE * self._period_ns:
                self.surplus += 1
                return Tick.SURPLUS
        self.last = stamp
        if last is None:
            return Tick.START
        if seen is not None and stamp < seen:
            self.jumps += 1
            return Tick.START
        if stamp - last > self._max_gap_ns:
            self.gaps += 1
            return Tick.START
        return Tick.NEXT

    def restart(self) -> None:
        """Let the next image start an episode: another topic has shown that the clock jumped."""
        self.last = self._seen = None
        self.jumps += 1


class SampleHistory:
    """The newest samples of a signal, in the order of their stamps, up to a bound."""

    def __init__(self, capacity: int = 4096) -> None:
        """
        Args:
            capacity: samples kept; the oldest ones go first.
        """
        self._capacity = capacity
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
        if len(self._stamps) > self._capacity:
            del self._stamps[0], self._values[0]

    def at(self, stamp: int) -> tuple[int, NDArray[np.float64]] | None:
        """Find the newest sample at or before a stamp: its own stamp and its values, shape (n,)."""
        place = bisect_right(self._stamps, stamp) - 1
        return (self._stamps[place], self._values[place]) if place >= 0 else None

    def clear(self) -> None:
        """Drop all samples, as after a jump of the clock."""
        self._stamps.clear()
        self._values.clear()


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


@dataclass(frozen=True)
class Row(Generic[Payload]):
    """One row of an episode."""

    stamp: int
    """Of the image, nanoseconds."""
    image: Payload
    action: NDArray[np.float64] | None
    """Applied from this image until the next, shape (A,); None in the last row of an episode."""
    joints: NDArray[np.float64] | None
    """The newest joint positions at the image's stamp, shape (J,); None if not asked for."""

    @property
    def last(self) -> bool:
        """Whether the episode ends with this row."""
        return self.action is None


@dataclass
class _Waiting(Generic[Payload]):
    """An accepted image whose row is not settled yet."""

    stamp: int
    image: Payload
    start: bool
    usable: bool | None = None
    """Whether its joints are; None until judged, once and for all, as late samples may still come."""
    joints: NDArray[np.float64] | None = None


class Aligner(Generic[Payload]):
    """
    Turn streams of images, actions and joint states into rows of episodes.

    Feed the messages in the order they were received, and take the rows that each call returns.
    Streams may run apart: an image waits for the other topics until they have passed it (at most
    ``PATIENCE_NS``). An image whose action or joints are missing or not finite is no row: the episode
    ends before it, and a new one starts after.
    """

    def __init__(self, contract: Contract) -> None:
        self.gate = TickGate(contract)
        self.actions = ActionHistory()
        self.joints = SampleHistory() if contract.observation.joints else None
        self._max_gap_ns = contract.max_gap_ns
        self._waiting: deque[_Waiting[Payload]] = deque()
        self._open = False
        self.without_action = 0
        """Ticks whose action is unknown: none was applied yet, or it was not finite."""
        self.bad_joints = 0
        """Images with joint positions that are missing, too old, or not finite."""

    def add_action(self, stamp: int, values: Sequence[float] | NDArray[np.float64]) -> list[Row[Payload]]:
        """Take an applied action, shape (A,); return the rows that it completes."""
        return self._add_sample(self.actions, stamp, values)

    def add_joints(self, stamp: int, values: Sequence[float] | NDArray[np.float64]) -> list[Row[Payload]]:
        """Take joint positions, shape (J,), in the contract's order; return the rows completed."""
        if self.joints is None:
            raise ValueError("the contract has no joints")
        return self._add_sample(self.joints, stamp, values)

    def add_image(self, stamp: int, image: Payload) -> list[Row[Payload]]:
        """Take an image, or whatever stands for it; return the rows that it completes."""
        rows: list[Row[Payload]] = []
        jumps = self.gate.jumps
        tick = self.gate.offer(stamp)
        if tick in (Tick.SURPLUS, Tick.DUPLICATE):
            return rows
        if self.gate.jumps > jumps:
            rows += self._forget()
        self._waiting.append(_Waiting(stamp, image, tick is Tick.START))
        return [*rows, *self._settle()]

    def finish(self) -> list[Row[Payload]]:
        """Return the rows still waiting; call it after the last message."""
        return self._forget()

    def _add_sample(
        self, history: SampleHistory, stamp: int, values: Sequence[float] | NDArray[np.float64]
    ) -> list[Row[Payload]]:
        rows: list[Row[Payload]] = []
        if history.newest is not None and stamp < history.newest - self._max_gap_ns:
            rows += self._forget()
            self.gate.restart()
        history.append(stamp, values)
        return [*rows, *self._settle()]

    def _forget(self) -> list[Row[Payload]]:
        """Give what is waiting with what is known, and forget all samples: the clock has jumped."""
        rows = list(self._settled(at_once=True))
        if self._waiting:
            rows += self._end(self._waiting.popleft())
        self.actions.clear()
        if self.joints is not None:
            self.joints.clear()
        return rows

    def _settle(self) -> list[Row[Payload]]:
        return list(self._settled(at_once=False))

    def _settled(self, at_once: bool) -> Iterator[Row[Payload]]:
        """Give the rows of all waiting images but the newest, as far as the other topics have come."""
        while len(self._waiting) > 1 and (at_once or self._known(self._waiting[1].stamp)):
            here, following = self._waiting.popleft(), self._waiting[0]
            if following.start or not self._usable(here):
                yield from self._end(here)
                continue
            action = self.actions.hold(here.stamp, following.stamp)
            if action is None or not np.isfinite(action).all():
                self.without_action += 1
                yield from self._end(here)
            elif not self._usable(following):
                yield from self._end(here)
            else:
                self._open = True
                yield Row(here.stamp, here.image, action, here.joints)

    def _end(self, here: _Waiting[Payload]) -> list[Row[Payload]]:
        """Make an image the last row of the open episode; leave it out where none is open."""
        if not (self._usable(here) and self._open):
            return []
        self._open = False
        return [Row(here.stamp, here.image, None, here.joints)]

    def _known(self, stamp: int) -> bool:
        """Tell whether all topics have passed a stamp, or are too late to wait for."""
        if self._waiting[-1].stamp - stamp >= PATIENCE_NS:
            return True
        histories = [self.actions] if self.joints is None else [self.actions, self.joints]
        return all(history.newest is not None and history.newest >= stamp for history in histories)

    def _usable(self, image: _Waiting[Payload]) -> bool:
        """Tell whether an image has joints, where the contract asks for them."""
        if image.usable is None:
            image.usable = True
            if self.joints is not None:
                sample = self.joints.at(image.stamp)
                fresh = sample is not None and image.stamp - sample[0] <= self._max_gap_ns
                if sample is not None and fresh and np.isfinite(sample[1]).all():
                    image.joints = sample[1]
                else:
                    image.usable = False
                    self.bad_joints += 1
        return image.usable
