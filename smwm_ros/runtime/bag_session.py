"""One recording: a bag, the thread that writes it, and what waits for it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.errors import DataError, SmwmError
from smwm_ros.runtime.backlog import Message, MessageWindow, store

FLUSH = 0.5
"""Seconds until what came is in the operating system's hands: what a kill can lose."""
PATIENCE = 60.0
"""Seconds that the end of a recording may take before the disk is taken to hang."""


class BagSession:
    """
    A bag that a thread of its own writes, so that whoever hands over messages never waits for the disk.

    Messages wait in a bounded backlog: when the disk cannot keep up, the oldest are dropped and
    counted.
    """

    def __init__(self, bag: BagWriter, backlog_bytes: int, failed: Callable[[SmwmError], None]) -> None:
        """
        Start the thread.

        Args:
            bag: a new one; from now on it is the session's.
            backlog_bytes: that may wait.
            failed: called from the thread, once, if writing fails; the bag is then left as it is.
        """
        self.bag = bag
        self.written = 0
        """Bytes in the bag's files."""
        self.dropped: Counter[str] = Counter()
        """Messages that had to give way, by topic."""
        self.failure: SmwmError | None = None
        self._failed = failed
        self._waiting = MessageWindow(backlog_bytes)
        self._changed = threading.Condition()
        self._ending = False
        self._notes: Mapping[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="bag", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return self._waiting.bytes

    def offer(self, messages: Iterable[Message]) -> Counter[str]:
        """Hand over messages; return how many older ones had to give way, by topic."""
        with self._changed:
            gone = Counter(old.topic.name for new in messages for old in self._waiting.add(new))
            self.dropped += gone
            self._changed.notify()
        return gone

    def end(self, notes: Mapping[str, str] | None = None, patience: float = PATIENCE) -> None:
        """
        Write what waits, then the index and the metadata.

        Args:
            notes: that go into the bag's metadata.
            patience: seconds that it may take.

        Raises:
            DataError: writing failed, now or before, or took too long.
        """
        with self._changed:
            self._notes = notes or {}
            self._ending = True
            self._changed.notify()
        self._thread.join(patience)
        if self._thread.is_alive():
            raise DataError(
                f"{self.bag.path}: the disk has not taken the rest of the bag within {patience:.0f} s; "
                "the recording ends as if it had been killed. See whether the disk works."
            )
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            self._write()
        except Exception as error:
            # Anything but an SmwmError is a defect; the recording fails all the same, and says so.
            failure = error if isinstance(error, SmwmError) else DataError(f"{self.bag.path}: {error!r}")
            self.failure = failure
            self.bag.abort()
            self._failed(failure)

    def _write(self) -> None:
        flush_at = time.monotonic() + FLUSH
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending, flush_at - time.monotonic())
                batch = [self._waiting.pop()] if self._waiting else []
                ended = self._ending and not batch
            if ended:
                break
            store(self.bag, batch)
            if time.monotonic() >= flush_at:
                self.bag.flush()
                self.written = self.bag.size
                flush_at = time.monotonic() + FLUSH
        for key, value in self._notes.items():
            self.bag.note(key, value)
        self.bag.close()
