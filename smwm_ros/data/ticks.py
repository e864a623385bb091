"""
Control ticks: which images count, and where an episode begins.

A stream of images becomes ticks by these rules. An image is dropped if the next one will probably be
nearer to one period after the last tick, if its stamp is that of the newest image, or if it comes late:
after one with a later stamp, but by less than the contract's longest gap. A longer gap between two
ticks ends the episode, and so does a stamp that jumps back further, which means that the clock was
set, or a bag or a simulation started anew.
"""

from __future__ import annotations

from enum import Enum

from smwm_ros.contract import Contract

TIE = 0.02
"""Periods by which one image must be nearer to its due time than another, so that jitter decides nothing."""


class Tick(Enum):
    """What an image is to the stream."""

    START = "start"
    """The first of an episode: the first at all, or after a gap, a jump or an event."""
    NEXT = "next"
    """One tick after the image accepted before."""
    SURPLUS = "surplus"
    """Too early after the one accepted before: drop it."""
    DUPLICATE = "duplicate"
    """The same stamp as the one before: drop it."""
    LATE = "late"
    """An older stamp than one seen before, by less than the longest gap: drop it."""

    @property
    def accepted(self) -> bool:
        """Whether the image makes a tick."""
        return self in (Tick.START, Tick.NEXT)


class Cut(Enum):
    """Why an episode ends."""

    GAP = "gap between images"
    JUMP = "jump of the clock"
    EVENT = "episode event"
    ACTION = "unknown action"
    JOINTS = "unusable joints"
    FINISH = "end of the recording"


class TickGate:
    """
    Sort images into ticks by their stamps (see the module's text), and count what happened.

    A camera that sends too often is thinned to every n-th image, with the n that comes nearest to the
    contract's period; an image that is early by up to a third of a period is let through.
    """

    def __init__(self, contract: Contract) -> None:
        self._period_ns = contract.period_ns
        self._max_gap_ns = contract.max_gap_ns
        self._newest: int | None = None
        self._started: int | None = None
        self._ends: list[int] = []
        self.last: int | None = None
        """Stamp of the last accepted image."""
        self.cut = Cut.FINISH
        """Why the episode before the last ``START`` ended; meaningless for the first one."""
        self.images = 0
        self.surplus = 0
        self.duplicates = 0
        self.late = 0
        self.gaps = 0
        self.jumps = 0
        self.ends = 0
        """Episodes that were ended by :meth:`end_at`."""

    def offer(self, stamp: int) -> Tick:
        """Judge the next image by its stamp; ``START`` and ``NEXT`` accept it."""
        self.images += 1
        newest, last = self._newest, self.last
        if newest is not None and newest - self._max_gap_ns < stamp <= newest:
            if stamp == newest:
                self.duplicates += 1
                return Tick.DUPLICATE
            self.late += 1
            return Tick.LATE
        self._newest = stamp
        if newest is None or last is None:
            return self._start(stamp, self.cut)
        if stamp < newest:
            self.jumps += 1
            return self._start(stamp, Cut.JUMP)
        # The next image will probably be as far from this one as this one from the one before.
        early = last + self._period_ns - stamp
        if 2 * early - (stamp - newest) > TIE * self._period_ns:
            self.surplus += 1
            return Tick.SURPLUS
        if stamp - last > self._max_gap_ns:
            self.gaps += 1
            return self._start(stamp, Cut.GAP)
        if any(end < stamp for end in self._ends):
            self.ends += 1
            return self._start(stamp, Cut.EVENT)
        self.last = stamp
        return Tick.NEXT

    def end_at(self, stamp: int) -> None:
        """End the episode at a stamp (ns): the next image that is later begins another one."""
        if self._started is None or stamp >= self._started:
            self._ends.append(stamp)

    def restart(self) -> None:
        """Let the next image start an episode: another topic has shown that the clock jumped."""
        self.last = self._newest = self._started = None
        self._ends.clear()
        self.cut = Cut.JUMP
        self.jumps += 1

    def _start(self, stamp: int, cut: Cut) -> Tick:
        self.last = self._started = stamp
        self.cut = cut
        self._ends = [end for end in self._ends if end >= stamp and cut is not Cut.JUMP]
        return Tick.START
