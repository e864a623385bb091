"""
Reading ROS 2 bags without ROS: MCAP and SQLite, of any distribution, through ``rosbags``.

A recording that was cut off (the recorder was killed, the disk was full) has no index and no
metadata. What its MCAP file holds up to the cut is read all the same, by reading it as if it ended
there; the file itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat, Qos
from typing_extensions import Self

from smwm_ros.data.bags.cut_off import CutOff, cut_off_at
from smwm_ros.data.bags.message_types import message_types, own_types
from smwm_ros.errors import DataError

STORAGES = (".mcap", ".db3")


class BagReader:
    """
    A bag that was opened for reading; use it as a context manager.

    Attributes:
        path: the bag's folder, or one of its files.
        topics: type of each topic that is in the bag.
        custom_data: what the recorder noted in the bag's metadata.
        notes: what was wrong with the bag and could be mended, in words.
    """

    def __init__(self, path: Path | str) -> None:
        """
        Open a bag.

        Args:
            path: a bag's folder, or an .mcap or .db3 file.

        Raises:
            DataError: no such bag, an empty or damaged one, or one of an unknown kind.
        """
        self.path = Path(path)
        self.notes: list[str] = []
        sources = self._sources()
        self.custom_data = _custom_data(self.path)
        with _errors_named(self.path):
            # The readers accept anything that behaves like a path.
            self._reader = AnyReader(sources, default_typestore=message_types())  # type: ignore[arg-type]
            self._reader.open()
        if not self._reader.message_count:
            self.close()
            raise DataError(f"{self.path}: the bag is empty: no message was recorded")
        self.topics = {c.topic: c.msgtype for c in self._reader.connections}
        # An old SQLite bag holds no definitions, and some recorders leave out those they cannot find.
        missing = {
            name: own for name, own in own_types().items() if name not in self._reader.typestore.fielddefs
        }
        self._reader.typestore.register(missing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def count(self, topics: Collection[str]) -> int:
        """Return the number of messages on some topics."""
        return sum(connection.msgcount for connection in self._connections(topics))

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """
        Read the messages of some topics in the order they were received.

        Yields:
            Topic, time of reception (ns), and the message, with the attributes that ROS gives it.

        Raises:
            DataError: the bag is damaged.
        """
        with _errors_named(self.path):
            for connection, received, data in self._reader.messages(self._connections(topics)):
                yield connection.topic, received, self._reader.deserialize(data, connection.msgtype)

    def raw(self, topics: Collection[str], start: int | None = None) -> Iterator[tuple[str, int, bytes]]:
        """
        Read the messages of some topics, serialized as they lie in the bag.

        Args:
            topics: full names.
            start: leave out what was received before this time (ns).

        Yields:
            Topic, time of reception (ns), and the message's bytes (CDR), in the order they were received.

        Raises:
            DataError: the bag is damaged.
        """
        if not (connections := self._connections(topics)):
            return
        with _errors_named(self.path):
            for connection, received, data in self._reader.messages(connections, start=start):
                yield connection.topic, received, data

    @property
    def span(self) -> tuple[int, int]:
        """When the first and the last message were received, nanoseconds."""
        return self._reader.start_time, self._reader.end_time - 1

    def offered_qos(self, topic: str) -> list[Qos]:
        """Return the quality of service that each publisher of a topic offered, as far as it was noted."""
        extensions = [connection.ext for connection in self._connections([topic])]
        return [
            qos
            for extension in extensions
            if isinstance(extension, ConnectionExtRosbag2)
            for qos in extension.offered_qos_profiles
        ]

    def type_hash(self, kind: str) -> str:
        """Return the hash (REP-2016) of a message type's definition in the bag; empty if it holds none."""
        defined = any(
            connection.msgtype == kind and connection.msgdef.format is not MessageDefinitionFormat.NONE
            for connection in self._reader.connections
        )
        return self._reader.typestore.hash_rihs01(kind) if defined else ""

    def _connections(self, topics: Collection[str]) -> list[Connection]:
        return [connection for connection in self._reader.connections if connection.topic in topics]

    def _sources(self) -> list[Path | CutOff]:
        """Choose what to read: the folder by its metadata, or its files one by one."""
        if not self.path.exists():
            raise DataError(f"{self.path}: no such bag; give a bag's folder, or an .mcap or .db3 file")
        if self.path.is_file():
            if self.path.suffix not in STORAGES:
                raise DataError(f"{self.path}: not a bag; give a bag's folder, or an .mcap or .db3 file")
            return [self._mended(self.path)]
        files = sorted(path for path in self.path.iterdir() if path.suffix in STORAGES)
        sources = [self._mended(path) for path in files]
        if self.notes:
            return sources
        if not (self.path / "metadata.yaml").exists():
            if not files:
                raise DataError(
                    f"{self.path}: not a bag: neither metadata.yaml nor .mcap or .db3 files in it"
                )
            self.notes.append("metadata.yaml is missing; the files were read without it")
            return sources
        return [self.path]

    def _mended(self, path: Path) -> Path | CutOff:
        if path.suffix != ".mcap":
            return path
        try:
            end = cut_off_at(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        if end is None:
            return path
        size = path.stat().st_size
        if end == 0:
            raise DataError(
                f"{path}: not a readable MCAP file: {size} bytes, and no complete record at the start. "
                "Nothing can be recovered; record it again."
            )
        self.notes.append(
            f"{path.name} was cut off while it was recorded: {end} of {size} bytes are complete and were read"
        )
        return CutOff(path, end)


def _custom_data(path: Path) -> dict[str, str]:
    """Read what the recorder noted; a recorder that was killed has noted it at the start."""
    metadata = (path if path.is_dir() else path.parent) / "metadata.yaml"
    if not metadata.is_file():
        return {}
    try:
        content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        noted = content["rosbag2_bagfile_information"].get("custom_data") or {}
        return {str(key): str(value) for key, value in noted.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{metadata}: not the metadata of a bag ({error}); remove the file to read the bag without it"
        ) from error


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn whatever a damaged bag makes the readers raise into a DataError that names the bag."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # parsers of damaged bytes raise anything from struct.error to KeyError
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path}: the bag cannot be read: {reason}. It is damaged, or not a ROS 2 bag."
        ) from error
