"""What a node reports of itself on /diagnostics, as plain diagnostic_msgs."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 2048
"""Newest latencies the percentiles are taken over."""


class Monitor:
    """
    Counts what a node did and what went wrong; safe to call from any thread.

    ``status`` gives the keys ``rate_hz`` (finished pieces of work per second since the last status),
    ``latency_p50_ms`` and ``latency_p99_ms`` (message arrival to publication), one
    counter per kind of fault or tally (``dropped.image``), and whatever ``show`` was given.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._newest_fault = ""
        self._failure = ""
        self._shown: dict[str, str] = {}
        self._since = time.monotonic()

    def done(self, seconds: float) -> None:
        """Note one finished piece of work and how long it took."""
        with self._lock:
            self._done += 1
            self._latencies.append(seconds)

    def fault(self, kind: str, message: str) -> None:
        """Count a fault; the next status is a warning with this message."""
        with self._lock:
            self._counts[kind] += 1
            self._newest_fault = message

    def fail(self, message: str) -> None:
        """Say why the node no longer does its work: from now on, the status is an error with this message."""
        with self._lock:
            self._failure = message

    def tally(self, kind: str) -> None:
        """Count something that is no fault, as an image replaced by a newer one."""
        with self._lock:
            self._counts[kind] += 1

    def show(self, **values: object) -> None:
        """Set further key/value pairs of the status."""
        with self._lock:
            self._shown.update({key: str(value) for key, value in values.items()})

    def count(self, kind: str) -> int:
        """Return how often a kind of fault happened."""
        with self._lock:
            return self._counts[kind]

    def status(self, name: str, hardware: str = "") -> DiagnosticStatus:
        """Return the state since the last call: a warning if there was a fault in between."""
        with self._lock:
            now = time.monotonic()
            rate = self._done / max(now - self._since, 1e-9)
            self._since, self._done = now, 0
            values = {"rate_hz": f"{rate:.2f}"}
            if self._latencies:
                p50, p99 = np.percentile(self._latencies, (50, 99)) * 1e3
                values |= {
                    "latency_p50_ms": f"{p50:.3f}",
                    "latency_p99_ms": f"{p99:.3f}",
                }
            values |= {kind: str(count) for kind, count in sorted(self._counts.items())} | self._shown
            message, self._newest_fault = self._newest_fault, ""
            failure = self._failure
        level = DiagnosticStatus.WARN if message else DiagnosticStatus.OK
        return DiagnosticStatus(
            level=DiagnosticStatus.ERROR if failure else level,
            name=name,
            message=failure or message or "ok",
            hardware_id=hardware,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
