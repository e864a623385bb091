"""When each message of a bag is to be sent again: absolute times on the steady clock, so nothing drifts."""

from __future__ import annotations

import math
import struct
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from smwm_ros.data.bags.read_ahead import ReadAhead
from smwm_ros.data.bags.timeline import Clock, SteadyClock, Timeline
from smwm_ros.errors import ConfigError, DataError
from smwm_ros.validation import Unit

LEAST_ROUND_NS = 100_000_000
"""Of the bag's time: what is repeated is at least so long, even where all messages came at once."""
LATE_NS = 1_000_000_000
"""How much older than another before it a stamp may be; beyond, the clock was set back."""
LEAP_NS = 10_000_000_000
"""Silence between two stamps that is waited for; beyond, the clock was set forward."""
LATENESS_KEPT = 65_536
"""Newest messages that the median lateness is taken over."""
OVERHEAD = 256
"""Bytes that a message takes beside its own."""
STAMP_END = 12
"""Bytes of a serialized message up to the end of its header's stamp."""

Message = tuple[str, int, bytes]
"""Topic, time of reception (ns), and the serialized message."""


class PlaybackSettings(BaseModel):
    """Which part of a bag is played, and how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(
        default=1.0, ge=0.001, le=1000.0, description="Speed; 2 plays two seconds of the bag in one."
    )
    start: Annotated[float, Unit("s")] = Field(
        default=0.0, ge=0.0, description="How much of the bag to leave out at its start."
    )
    duration: Annotated[float, Unit("s")] = Field(
        default=0.0, ge=0.0, description="How much of the bag to play; 0: to its end."
    )
    by_stamps: bool = Field(
        default=False,
        description="Go by the stamps in the messages' headers, as for what was recorded in lock-step, and "
        "not by when they were received.",
    )
    loop: bool = Field(default=False, description="Begin again at the end, until stopped.")
    clock: Annotated[float, Unit("Hz")] = Field(
        default=0.0,
        ge=0.0,
        le=10_000.0,
        description="How often to publish the bag's time on /clock, in steady time; 0: not at all.",
    )


@dataclass(frozen=True)
class PlaybackReport:
    """What was played so far."""

    messages: dict[str, int]
    """By topic."""
    rounds: int
    """Times the bag was begun."""
    seconds: float
    """Steady time from the first beginning to the end, or until now."""
    worst_lateness: float
    """Seconds by which a message was sent after it was due."""
    median_lateness: float
    """Over the newest ``LATENESS_KEPT`` messages."""


@dataclass(frozen=True)
class _Begin:
    """The bag's time is set: what follows is played from now on."""

    stamp: int
    round: bool = False
    """Whether the bag begins (again) here."""


@dataclass(frozen=True)
class _Silence:
    """Nothing is sent until a moment of the bag."""

    until: int


_Item = tuple[str, int, int, bytes] | _Begin | _Silence
"""A message has its topic, when it is due and when it was received (both ns), and its bytes."""


class Playback:
    """
    Sends a bag's messages when they are due; ``run`` blocks, all else may be called by other threads.

    A message that is late is sent at once, and those after it are due when they always were. The bag's
    time is that at which messages were received, or by ``settings.by_stamps`` that of their headers; a
    message without a header then goes with the one before it, and where stamps jump back, or forward by
    more than ``LEAP_NS``, the bag's time is set. The clock carries the bag's time; it never runs ahead of
    a message that was not sent yet, and stands still while paused. Each round of a loop begins anew:
    stamps jump back.
    """

    def __init__(
        self,
        read: Callable[[int], Iterator[Message]],
        span: tuple[int, int],
        settings: PlaybackSettings,
        *,
        send: Callable[[str, bytes], None],
        send_clock: Callable[[int], None],
        stamped: Collection[str] = (),
        clock: Clock | None = None,
    ) -> None:
        """
        Prepare; nothing is read yet.

        Args:
            read: gives the messages received from a time (ns) on, in order; called in another thread.
            span: when the first and the last message of the bag were received, ns.
            settings: which part, and how fast.
            send: publishes a message on a topic.
            send_clock: publishes a time (ns) on /clock.
            stamped: topics whose messages begin with a header.
            clock: the steady one of this machine, unless a test has its own.

        Raises:
            ConfigError: the bag is shorter than ``settings.start``, or has no stamps to go by.
        """
        first, last = span
        self.first = first + round(settings.start * 1e9)
        if self.first > last:
            raise ConfigError(
                f"cannot start at {settings.start:g} s: the bag lasts {(last - first) * 1e-9:.3f} s"
            )
        self.last = min(last, self.first + round(settings.duration * 1e9)) if settings.duration else last
        if settings.by_stamps and not stamped:
            raise ConfigError("cannot go by the stamps of messages: none of the topics has a header")
        self._stamped = stamped
        self._read = read
        self._settings = settings
        self._send, self._send_clock = send, send_clock
        self._clock: Clock = clock or SteadyClock()
        self._timeline = Timeline(settings.rate)
        self._next_tick = math.inf
        self._stopped = self._hold = False
        self._began = self._ended = math.nan
        self._counts: Counter[str] = Counter()
        self.rounds = 0
        """Times the bag was begun."""
        self._lateness: deque[float] = deque(maxlen=LATENESS_KEPT)
        self._worst = 0.0
        self._received = self.first

    def run(self) -> None:
        """
        Play to the end, or until stopped.

        Raises:
            DataError: the bag is damaged; what comes before the damage was sent.
        """
        self._began = self._clock.now()
        try:
            self._play()
        finally:
            self._ended = self._clock.now()

    def stop(self) -> None:
        """Let ``run`` return."""
        self._stopped = True
        self._clock.wake()

    def pause(self, paused: bool) -> None:
        """Stop the bag's time, or let it go on."""
        self._hold = paused
        self._clock.wake()

    @property
    def position(self) -> float:
        """Seconds of the bag, as it was received, played in this round."""
        if not self.rounds:
            return 0.0
        at = self._received if self._settings.by_stamps else self._timeline.at(self._clock.now())
        return min(max(0, at - self.first) * 1e-9, self.length)

    @property
    def length(self) -> float:
        """Seconds of the bag, as it was received, in one round."""
        return (self.last - self.first) * 1e-9

    def report(self) -> PlaybackReport:
        """Return what was played so far."""
        lateness = list(self._lateness)
        return PlaybackReport(
            messages=dict(self._counts),
            rounds=self.rounds,
            seconds=self._seconds(),
            worst_lateness=self._worst,
            median_lateness=float(np.median(lateness)) if lateness else 0.0,
        )

    def _play(self) -> None:
        with ReadAhead(self._items, _size) as items:
            for item in items:
                if isinstance(item, _Begin):
                    self._begin(item)
                    continue
                if isinstance(item, _Silence):
                    if not self._wait(item.until):
                        return
                    continue
                topic, due, self._received, data = item
                if not self._wait(due):
                    return
                late = self._clock.now() - self._timeline.due(due)
                self._send(topic, data)
                self._counts[topic] += 1
                self._lateness.append(late)
                self._worst = max(self._worst, late)

    def _seconds(self) -> float:
        if math.isnan(self._began):
            return 0.0
        return (self._clock.now() if math.isnan(self._ended) else self._ended) - self._began

    def _items(self) -> Generator[_Item, None, None]:
        """Yield everything that is to be done, round by round."""
        while True:
            yield from self._round_by_stamps() if self._settings.by_stamps else self._round()
            if not self._settings.loop:
                return

    def _messages(self) -> Iterator[Message]:
        """Read the messages of the part that is played."""
        for message in self._read(self.first):
            if message[1] > self.last:
                return
            yield message

    def _round(self) -> Iterator[_Item]:
        messages = self._messages()
        # To open a bag takes a while: its time begins when the first message is there.
        head = list(islice(messages, 1))
        yield _Begin(self.first, round=True)
        for topic, received, data in chain(head, messages):
            yield topic, received, received, data
        yield _Silence(max(self.last, self._least_end(self.first)))

    def _round_by_stamps(self) -> Iterator[_Item]:
        begin = newest = -1
        for topic, received, data in self._messages():
            stamp = header_stamp(data) if topic in self._stamped else max(newest, 0)
            if newest < 0 or not newest - LATE_NS <= stamp <= newest + LEAP_NS:
                yield _Begin(stamp, round=begin < 0)
                begin = newest = stamp
            newest = max(newest, stamp)
            yield topic, newest, received, data
        if begin < 0:
            begin = newest = 0
            yield _Begin(begin, round=True)
        yield _Silence(max(newest, self._least_end(begin)))

    def _least_end(self, begin: int) -> int:
        """Return before which moment the next round must not begin."""
        return begin + LEAST_ROUND_NS if self._settings.loop else begin

    def _begin(self, begin: _Begin) -> None:
        now = self._clock.now()
        self.rounds += begin.round
        self._timeline.begin(begin.stamp, now)
        self._next_tick = now if self._settings.clock else math.inf

    def _wait(self, stamp: int) -> bool:
        """Wait until a moment of the bag is due, and publish the clock meanwhile; False if stopped."""
        while not self._stopped:
            now = self._clock.now()
            if self._hold != self._timeline.paused:
                (self._timeline.pause if self._hold else self._timeline.resume)(now)
            if now >= self._next_tick:
                self._send_clock(min(self._timeline.at(now), stamp))
                period = 1 / self._settings.clock
                self._next_tick += period * (1 + (now - self._next_tick) // period)
            due = self._timeline.due(stamp)
            if now >= due:
                return True
            self._clock.sleep(min(due, self._next_tick))
        return False


def header_stamp(data: bytes) -> int:
    """
    Read the stamp (ns) of a serialized message that begins with a std_msgs/msg/Header.

    Raises:
        DataError: it is too short for that.
    """
    if len(data) < STAMP_END:
        raise DataError(f"a message of {len(data)} bytes has no room for a header; the bag is damaged")
    # CDR: four bytes of which the second says the byte order, then seconds and nanoseconds.
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def _size(item: _Item) -> int:
    return OVERHEAD + (len(item[3]) if isinstance(item, tuple) else 0)
