"""
What a bag says of itself: ``metadata.yaml``, in version 9 of rosbag2's format.

Source: ``rosbag2_storage/yaml.hpp`` and ``qos.cpp``, which write and read it on an installed ROS 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Qos, QosTime

VERSION = 9
FILE_NAME = "metadata.yaml"
NEVER = 2**63 - 1
"""Starting time of what holds no message, as rosbag2 writes it."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag."""

    name: str
    """The full name."""
    kind: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    definition: str
    """The message's definition with all that it refers to, as ROS's .msg files and rosbag2 write it."""
    digest: str
    """The type's hash (RIHS01, REP 2011)."""
    qos: tuple[Qos, ...]
    """What its publishers offered, as far as it is known."""

    @property
    def offered_qos(self) -> list[dict[str, Any]]:
        """What was offered, as version 9 of the metadata says it."""
        return [_qos(qos) for qos in self.qos]


@dataclass
class Span:
    """Messages, and the time that they span."""

    count: int = 0
    first: int = NEVER
    """ns"""
    last: int = 0
    """ns"""

    @property
    def duration(self) -> int:
        """Between the first message and the last, ns."""
        return self.last - self.first if self.count else 0

    def add(self, received: int) -> None:
        """Count a message, received at a time (ns)."""
        self.count += 1
        self.first = min(self.first, received)
        self.last = max(self.last, received)

    def described(self) -> dict[str, Any]:
        """Return it as the metadata say it."""
        return {
            "starting_time": {"nanoseconds_since_epoch": self.first},
            "duration": {"nanoseconds": self.duration},
            "message_count": self.count,
        }


@dataclass
class Metadata:
    """All that a bag says of itself."""

    storage: str
    """rosbag2's name of the storage: mcap or sqlite3."""
    custom_data: dict[str, str]
    topics: dict[str, Topic] = field(default_factory=dict)
    """By full name."""
    counts: dict[str, int] = field(default_factory=dict)
    """Messages by topic."""
    files: dict[str, Span] = field(default_factory=dict)
    """What each file holds, by its name, in the order in which they were written."""

    def described(self) -> dict[str, Any]:
        """Return it as rosbag2 writes it, for YAML."""
        return {
            "version": VERSION,
            "storage_identifier": self.storage,
            **self.total.described(),
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic.name,
                        "type": topic.kind,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": topic.offered_qos,
                        "type_description_hash": topic.digest,
                    },
                    "message_count": self.counts[topic.name],
                }
                for topic in self.topics.values()
            ],
            # Of whole files or messages, which rosbag2 would undo; chunks know for themselves.
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": list(self.files),
            "files": [{"path": name, **span.described()} for name, span in self.files.items()],
            "custom_data": self.custom_data or None,
            "ros_distro": "rosbags",  # the distribution whose definitions these are: rosbags' own
        }

    @property
    def total(self) -> Span:
        """All messages of all files."""
        total = Span()
        for span in self.files.values():
            total.count += span.count
            total.first = min(total.first, span.first)
            total.last = max(total.last, span.last)
        return total

    def text(self) -> str:
        """Return it as YAML, as MCAP and SQLite files hold it."""
        return as_yaml(self.described())

    def write(self, folder: Path) -> None:
        """
        Write ``metadata.yaml``; whoever reads it finds the old one or the new one, never a half.

        Raises:
            OSError: it cannot be written.
        """
        temporary = folder / f"{FILE_NAME}.tmp"
        temporary.write_text(as_yaml({"rosbag2_bagfile_information": self.described()}), encoding="utf-8")
        temporary.replace(folder / FILE_NAME)


def as_yaml(content: Mapping[str, Any] | list[dict[str, Any]]) -> str:
    """Write YAML as every parser reads it: blocks, in the order given, without references."""
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: yaml-cpp reads them, simpler tools do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _qos(qos: Qos) -> dict[str, Any]:
    return {
        "history": qos.history.name.lower(),
        "depth": qos.depth,
        "reliability": qos.reliability.name.lower(),
        "durability": qos.durability.name.lower(),
        "deadline": _time(qos.deadline),
        "lifespan": _time(qos.lifespan),
        "liveliness": qos.liveliness.name.lower(),
        "liveliness_lease_duration": _time(qos.liveliness_lease_duration),
        "avoid_ros_namespace_conventions": qos.avoid_ros_namespace_conventions,
    }


def _time(time: QosTime) -> dict[str, int]:
    return {"sec": time.sec, "nsec": time.nsec}
