"""When each message of a bag is to be sent again: absolute times on the steady clock, so nothing drifts."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from smwm_ros.data.bags.read_ahead import ReadAhead
from smwm_ros.errors import ConfigError

LEAST_ROUND_NS = 100_000_000
"""Of the bag's time: what is repeated is at least so long, even where all messages came at once."""
LATENESS_KEPT = 65_536
"""Newest messages that the median lateness is taken over."""
OVERHEAD = 256
"""Bytes that a message takes beside its own."""

Message = tuple[str, int, bytes]
"""Topic, time of reception (ns), and the serialized message."""


class PlaybackSettings(BaseModel):
    """Which part of a bag is played, and how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(
        default=1.0, ge=0.001, le=1000.0, description="Speed; 2 plays two seconds of the bag in one."
    )
    start: float = Field(default=0.0, ge=0.0, description="Seconds of the bag to leave out at its start.")
    duration: float = Field(default=0.0, ge=0.0, description="Seconds of the bag to play; 0: to its end.")
    loop: bool = Field(default=False, description="Begin again at the end, until stopped.")
    clock: float = Field(
        default=0.0,
        ge=0.0,
        le=10_000.0,
        description="Publish the bag's time on /clock so many times a (steady) second; 0: not at all.",
    )


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


@dataclass(frozen=True)
class PlaybackReport:
    """What was played so far."""

    messages: dict[str, int]
    """By topic."""
    rounds: int
    """Times the bag was begun."""
    seconds: float
    """Steady time since the first beginning."""
    worst_lateness: float
    """Seconds by which a message was sent after it was due."""
    median_lateness: float
    """Over the newest ``LATENESS_KEPT`` messages."""


class Playback:
    """
    Sends a bag's messages when they are due; ``run`` blocks, all else may be called by other threads.

    A message that is late is sent at once, and those after it are due when they always were. The clock
    carries the time at which messages were received; it never runs ahead of one that was not sent yet,
    and stands still while paused. Each round of a loop begins anew: stamps jump back.
    """

    def __init__(
        self,
        read: Callable[[int], Iterator[Message]],
        span: tuple[int, int],
        settings: PlaybackSettings,
        *,
        send: Callable[[str, bytes], None],
        send_clock: Callable[[int], None],
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
            clock: the steady one of this machine, unless a test has its own.

        Raises:
            ConfigError: the bag is shorter than ``settings.start``.
        """
        first, last = span
        self.first = first + round(settings.start * 1e9)
        if self.first > last:
            raise ConfigError(
                f"cannot start at {settings.start:g} s: the bag lasts {(last - first) * 1e-9:.3f} s"
            )
        self.last = min(last, self.first + round(settings.duration * 1e9)) if settings.duration else last
        self._end = max(self.last, self.first + LEAST_ROUND_NS) if settings.loop else self.last
        self._read = read
        self._settings = settings
        self._send, self._send_clock = send, send_clock
        self._clock: Clock = clock or SteadyClock()
        self._timeline = Timeline(settings.rate)
        self._next_tick = math.inf
        self._stopped = self._hold = False
        self._began = math.nan
        self._counts: Counter[str] = Counter()
        self.rounds = 0
        """Times the bag was begun."""
        self._lateness: deque[float] = deque(maxlen=LATENESS_KEPT)
        self._worst = 0.0

    def run(self) -> None:
        """
        Play to the end, or until stopped.

        Raises:
            DataError: the bag is damaged; what comes before the damage was sent.
        """
        self._began = self._clock.now()
        with ReadAhead(self._rounds_of_messages, _size) as messages:
            self._begin_round()
            for message in messages:
                if message is None:
                    if not self._wait(self._end):
                        return
                    if self._settings.loop:
                        self._begin_round()
                    continue
                topic, stamp, data = message
                if not self._wait(stamp):
                    return
                late = self._clock.now() - self._timeline.due(stamp)
                self._send(topic, data)
                self._counts[topic] += 1
                self._lateness.append(late)
                self._worst = max(self._worst, late)

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
        """Seconds of the bag played in this round."""
        if not self.rounds:
            return 0.0
        return min(max(0, self._timeline.at(self._clock.now()) - self.first), self._end - self.first) * 1e-9

    @property
    def length(self) -> float:
        """Seconds of the bag in one round."""
        return (self._end - self.first) * 1e-9

    def report(self) -> PlaybackReport:
        """Return what was played so far."""
        lateness = list(self._lateness)
        return PlaybackReport(
            messages=dict(self._counts),
            rounds=self.rounds,
            seconds=self._clock.now() - self._began if self.rounds else 0.0,
            worst_lateness=self._worst,
            median_lateness=float(np.median(lateness)) if lateness else 0.0,
        )

    def _rounds_of_messages(self) -> Generator[Message | None, None, None]:
        """Yield the messages of each round, and None at its end."""
        while True:
            for message in self._read(self.first):
                if message[1] > self.last:
                    break
                yield message
            yield None
            if not self._settings.loop:
                return

    def _begin_round(self) -> None:
        now = self._clock.now()
        self.rounds += 1
        self._timeline.begin(self.first, now)
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


def _size(message: Message | None) -> int:
    return OVERHEAD + (0 if message is None else len(message[2]))
