"""Times: messages have seconds and nanoseconds, the package int nanoseconds."""

from __future__ import annotations

from builtin_interfaces.msg import Duration, Time
from std_msgs.msg import Header

SECOND = 1_000_000_000


def to_time(nanoseconds: int) -> Time:
    """Return a stamp of int nanoseconds as a message."""
    return Time(sec=nanoseconds // SECOND, nanosec=nanoseconds % SECOND)


def fill_time(message: Time, nanoseconds: int) -> None:
    """Write a stamp of int nanoseconds into a message."""
    message.sec, message.nanosec = divmod(nanoseconds, SECOND)


def from_time(stamp: Time | Duration) -> int:
    """Return a stamp, or a duration, in int nanoseconds."""
    return int(stamp.sec) * SECOND + int(stamp.nanosec)


def to_duration(seconds: float) -> Duration:
    """Return a duration of seconds as a message."""
    nanoseconds = round(seconds * SECOND)
    return Duration(sec=nanoseconds // SECOND, nanosec=nanoseconds % SECOND)


def header(stamp: int, frame_id: str = "") -> Header:
    """Return a header of a stamp in nanoseconds."""
    return Header(stamp=to_time(stamp), frame_id=frame_id)
