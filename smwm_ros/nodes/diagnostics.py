"""What a node reports of itself on /diagnostics, as plain diagnostic_msgs."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 2048
"""Newest latencies the percentiles are taken over."""
PAGE = os.sysconf("SC_PAGE_SIZE")

KEYS = {
    "state": "lifecycle state of the node",
    "rate_hz": "finished pieces of work a second, since the last report",
    "latency_p50_ms": "median of what the newest 2048 of them took, from the arrival of the message to the "
    "publication of what was made of it",
    "latency_p99_ms": "the 99th percentile of that",
    "memory_mb": "resident memory of the process",
    "fault.message": "messages or requests that could not be used, and have no counter of their own",
    "fault.exception": "callbacks that raised an exception: defects, whose tracebacks are in the log",
}
"""What the keys mean that any node may have."""


class Monitor:
    """
    Counts what a node did and what went wrong; safe to call from any thread.

    ``status`` gives the rate, the latency's percentiles, a counter for each kind of fault or tally
    (``dropped.image``), and whatever ``show`` was given. A fault makes the next status a warning; what
    ``stand`` was given lasts until ``clear``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._newest_fault = ""
        self._standing: dict[str, tuple[bytes, str]] = {}
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

    def stand(self, kind: str, message: str, level: bytes = DiagnosticStatus.ERROR) -> None:
        """Say what is wrong from now on: until ``clear``, the status has this level and message."""
        with self._lock:
            self._standing[kind] = level, message

    def clear(self, kind: str) -> None:
        """Say that it is wrong no more."""
        with self._lock:
            self._standing.pop(kind, None)

    def fail(self, message: str) -> None:
        """Say why the node no longer does its work: from now on, the status is an error with this message."""
        self.stand("failure", message)

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

    def status(self, name: str, hardware: str = "", state: str = "active") -> DiagnosticStatus:
        """
        Return how things are, and what happened since the last call.

        Args:
            name: of the node.
            hardware: of the robot.
            state: the node's lifecycle state.
        """
        with self._lock:
            now = time.monotonic()
            rate = self._done / max(now - self._since, 1e-9)
            self._since, self._done = now, 0
            values = {"state": state, "rate_hz": f"{rate:.2f}"}
            if self._latencies:
                p50, p99 = np.percentile(self._latencies, (50, 99)) * 1e3
                values |= {"latency_p50_ms": f"{p50:.3f}", "latency_p99_ms": f"{p99:.3f}"}
            values["memory_mb"] = f"{_resident() / 1e6:.1f}"
            values |= {kind: str(count) for kind, count in sorted(self._counts.items())} | self._shown
            wrong = list(self._standing.values())
            if self._newest_fault:
                wrong.append((DiagnosticStatus.WARN, self._newest_fault))
                self._newest_fault = ""
        wrong.sort(key=lambda one: one[0], reverse=True)
        return DiagnosticStatus(
            level=wrong[0][0] if wrong else DiagnosticStatus.OK,
            name=name,
            message="; ".join(message for _, message in wrong) or ("ok" if state == "active" else state),
            hardware_id=hardware,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )


def _resident() -> int:
    """Return the resident memory of this process, bytes; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - once a second, in every node
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0
