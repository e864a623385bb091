"""
Alignment in time: which action belongs to which image.

Row t of an episode is image t and the action applied from its stamp until the stamp of image t+1.
The live belief and the ingest of bags share this code, so both mean the same by it. All stamps are
integer nanoseconds; :mod:`smwm_ros.data.ticks` says which images count and where an episode begins.
Nothing is ever carried across the end of an episode.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.data.signals import ActionHistory, SampleHistory
from smwm_ros.data.ticks import Cut, Tick, TickGate

Payload = TypeVar("Payload")

PATIENCE_NS = 1_000_000_000
"""How far the images may run ahead of the other topics: beyond it, what has not come is missing."""
DEPTHS = 256
"""Depth images that may wait for their camera image."""


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
    depth: Any = None
    """The depth image nearest in time, within half a period; None if there is none."""
    cut: Cut | None = None
    """In the last row of an episode, why it ends."""
    outcome: int = 0
    """In the last row, what was said of the episode: 0 unknown, 1 success, 2 failure."""
    label: str = ""
    """In the last row, as ``outcome``."""

    @property
    def last(self) -> bool:
        """Whether the episode ends with this row."""
        return self.cut is not None


@dataclass
class _Waiting(Generic[Payload]):
    """An accepted image whose row is not settled yet."""

    stamp: int
    image: Payload
    cut: Cut | None
    """Why the episode before ended, if an episode begins here."""
    usable: bool | None = None
    """Whether its joints are; None until judged, once and for all, as late samples may still come."""
    joints: NDArray[np.float64] | None = None


class Aligner(Generic[Payload]):
    """
    Turn streams of images, actions, joint states and depth images into rows of episodes.

    Feed the messages in the order they were received, and take the rows that each call returns.
    Streams may run apart, and samples come late: an image waits for the other topics until they have
    passed it by the contract's longest gap (at most ``PATIENCE_NS``). An image whose action or joints
    are missing or not finite is no row: the episode ends before it, and a new one starts after. A
    missing depth image is left out.
    """

    def __init__(self, contract: Contract, *, depth: bool = False) -> None:
        """
        Args:
            contract: of the robot.
            depth: look for a depth image for each row.
        """
        self.gate = TickGate(contract)
        self.actions = ActionHistory()
        self.joints = SampleHistory() if contract.observation.joints else None
        self.depths = _Pictures(DEPTHS) if depth else None
        self._histories: list[SampleHistory | _Pictures] = [self.actions]
        self._histories += [history for history in (self.joints, self.depths) if history is not None]
        self._half_period_ns = contract.period_ns // 2
        self._max_gap_ns = contract.max_gap_ns
        self._waiting: deque[_Waiting[Payload]] = deque()
        self._open = False
        self._began = 0
        self._ahead = False
        """Whether another topic has shown a jump of the clock that the images may not have followed yet."""
        self._marks: list[tuple[int, int, str]] = []
        self.without_action = 0
        """Ticks whose action is unknown: none was applied yet, or it was not finite."""
        self.unknown_ns = 0
        """How long they are together."""
        self.bad_joints = 0
        """Images with joint positions that are missing, too old, or not finite."""
        self.without_depth = 0
        """Rows without a depth image near enough."""

    def add_action(self, stamp: int, values: Sequence[float] | NDArray[np.float64]) -> list[Row[Payload]]:
        """Take an applied action, shape (A,); return the rows that it completes."""
        rows = self._come(stamp, self.actions.newest)
        self.actions.append(stamp, values)
        return [*rows, *self._settled()]

    def add_joints(self, stamp: int, values: Sequence[float] | NDArray[np.float64]) -> list[Row[Payload]]:
        """Take joint positions, shape (J,), in the contract's order; return the rows completed."""
        if self.joints is None:
            raise ValueError("the contract has no joints")
        rows = self._come(stamp, self.joints.newest)
        self.joints.append(stamp, values)
        return [*rows, *self._settled()]

    def add_depth(self, stamp: int, image: Any) -> list[Row[Payload]]:
        """Take a depth image, or whatever stands for it; return the rows that it completes."""
        if self.depths is None:
            raise ValueError("depth was not asked for")
        rows = self._come(stamp, self.depths.newest)
        self.depths.append(stamp, image)
        return [*rows, *self._settled()]

    def add_image(self, stamp: int, image: Payload) -> list[Row[Payload]]:
        """Take an image, or whatever stands for it; return the rows that it completes."""
        rows: list[Row[Payload]] = []
        jumps = self.gate.jumps
        tick = self.gate.offer(stamp)
        if not tick.accepted:
            return rows
        if self.gate.jumps > jumps:
            rows += self._forget(Cut.JUMP, stamp)
        if tick is Tick.NEXT:
            self._ahead = False
        self._waiting.append(_Waiting(stamp, image, self.gate.cut if tick is Tick.START else None))
        return [*rows, *self._settled()]

    def add_event(self, stamp: int, *, outcome: int = 0, label: str = "", ends: bool = False) -> None:
        """
        Take what was said of an episode: of the one with the last image at or before the stamp.

        Args:
            stamp: nanoseconds.
            outcome: 0 unknown, 1 success, 2 failure; of several, the last one known holds.
            label: free text; of several, the last one that is not empty holds.
            ends: the episode ends here: the first later image that is still free begins another.
        """
        if outcome or label:
            self._marks.append((stamp, outcome, label))
        if not ends:
            return
        for place, image in enumerate(self._waiting):
            # The first one that waits belongs to the row given before it, if there is one.
            if image.stamp > stamp and (place or not self._open or image.cut):
                if image.cut is None:
                    image.cut = Cut.EVENT
                    self.gate.ends += 1
                return
        self.gate.end_at(stamp)

    def finish(self) -> list[Row[Payload]]:
        """Return the rows still waiting; call it after the last message."""
        return self._forget(Cut.FINISH, None)

    def _come(self, stamp: int, newest: int | None) -> list[Row[Payload]]:
        """Look whether a sample shows that the clock has jumped back; return the rows that this ends."""
        if newest is None or stamp >= newest - self._max_gap_ns:
            return []
        rows = self._forget(Cut.JUMP, stamp)
        self.gate.restart()
        self._ahead = True
        return rows

    def _forget(self, cut: Cut, now: int | None) -> list[Row[Payload]]:
        """
        Give what is waiting with what is known, and forget all samples: their time is over.

        Topics that have come back to ``now`` before the others are spared.
        """
        rows = list(self._settled(at_once=True))
        if self._waiting:
            rows += self._end(self._waiting.popleft(), cut, None)
        for history in self._histories:
            of_old = now is None or history.newest is None or history.newest > now + self._max_gap_ns
            if of_old or not self._ahead:
                history.clear()
        self._marks.clear()
        return rows

    def _settled(self, at_once: bool = False) -> Iterator[Row[Payload]]:
        """Give the rows of all waiting images but the newest, as far as the other topics have come."""
        while len(self._waiting) > 1 and (at_once or self._known(self._waiting[1].stamp)):
            here, following = self._waiting.popleft(), self._waiting[0]
            if following.cut is not None:
                yield from self._end(here, following.cut, following.stamp)
            elif not self._usable(here):
                yield from self._end(here, Cut.JOINTS, following.stamp)
            else:
                action = self.actions.hold(here.stamp, following.stamp)
                if action is None or not np.isfinite(action).all():
                    self.without_action += 1
                    self.unknown_ns += following.stamp - here.stamp
                    yield from self._end(here, Cut.ACTION, following.stamp)
                elif not self._usable(following):
                    yield from self._end(here, Cut.JOINTS, following.stamp)
                else:
                    if not self._open:
                        self._open = True
                        self._began = here.stamp
                    yield Row(here.stamp, here.image, action, here.joints, self._depth(here.stamp))

    def _end(self, here: _Waiting[Payload], cut: Cut, until: int | None) -> list[Row[Payload]]:
        """
        Make an image the last row of the open episode; leave it out where none is open.

        What was said before ``until``, the next image, was said of this episode.
        """
        said = [mark for mark in self._marks if until is None or mark[0] < until]
        self._marks = [mark for mark in self._marks if mark not in said]
        if not (self._usable(here) and self._open):
            return []
        self._open = False
        said = [mark for mark in said if mark[0] >= self._began]
        outcome = next((mark[1] for mark in reversed(said) if mark[1]), 0)
        label = next((mark[2] for mark in reversed(said) if mark[2]), "")
        depth = self._depth(here.stamp)
        return [Row(here.stamp, here.image, None, here.joints, depth, cut, outcome, label)]

    def _known(self, stamp: int) -> bool:
        """
        Tell whether all topics have passed a stamp, or are too late to wait for.

        They have when a sample that still came for it would be a jump of the clock.
        """
        if self._waiting[-1].stamp - stamp >= PATIENCE_NS:
            return True
        passed = stamp + self._max_gap_ns
        return all(history.newest is not None and history.newest >= passed for history in self._histories)

    def _depth(self, stamp: int) -> Any:
        if self.depths is None:
            return None
        image = self.depths.nearest(stamp, self._half_period_ns)
        self.without_depth += image is None
        return image

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


class _Pictures:
    """The newest pictures of a stream, in the order of their stamps, up to a bound."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._stamps: list[int] = []
        self._images: list[Any] = []

    @property
    def newest(self) -> int | None:
        return self._stamps[-1] if self._stamps else None

    def append(self, stamp: int, image: Any) -> None:
        place = bisect_left(self._stamps, stamp)
        self._stamps.insert(place, stamp)
        self._images.insert(place, image)
        if len(self._stamps) > self._capacity:
            del self._stamps[0], self._images[0]

    def nearest(self, stamp: int, within: int) -> Any:
        place = bisect_left(self._stamps, stamp)
        near = range(max(0, place - 1), min(place + 1, len(self._stamps)))
        best = min(near, key=lambda index: abs(self._stamps[index] - stamp), default=None)
        if best is None or abs(self._stamps[best] - stamp) > within:
            return None
        return self._images[best]

    def clear(self) -> None:
        self._stamps.clear()
        self._images.clear()
