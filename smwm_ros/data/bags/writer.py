"""
Writing ROS 2 bags without ROS: serialized messages into MCAP or SQLite, in rosbag2's own layout.

Foxglove's ``mcap`` package writes the MCAP files: it is the format's own, its chunks carry checksums
and can be ended early, and at 640x480 and 30 Hz it costs 6 % of a core with zstd. The writer of
``rosbags``, which reads the bags, has no checksums, no files to split into and other file names than
rosbag2.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal

from rosbags.interfaces import Qos
from rosbags.typesys import TypesysError
from typing_extensions import Self

from smwm_ros.data.bags.mcap_writer import McapFile
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.metadata import Metadata, Span, Topic
from smwm_ros.data.bags.sqlite_writer import SqliteFile
from smwm_ros.errors import DataError

Storage = Literal["mcap", "sqlite3"]
Compression = Literal["zstd", "lz4", "none"]
SUFFIXES = {"mcap": ".mcap", "sqlite3": ".db3"}
"""Of the files, by storage."""


class BagWriter:
    """
    A bag that is being written; use it as a context manager.

    Messages are gathered (in MCAP, in chunks of 1 MiB); ``flush`` hands them to the operating system
    early: a process that is killed loses no more than what came since then. ``metadata.yaml`` is
    written at the start, at each new file and at the end, so that a bag that was cut off still says
    what it is.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        custom_data: Mapping[str, str] | None = None,
        compress: bool = True,
        storage: Storage = "mcap",
        compression: Compression = "zstd",
        split_bytes: int = 0,
        split_ns: int = 0,
    ) -> None:
        """
        Create the bag's folder and its first file.

        Args:
            path: the folder; it must not exist, its parents are made.
            custom_data: notes that go into the bag's metadata.
            compress: False is short for the compression ``none``.
            storage: MCAP or SQLite files.
            compression: of MCAP's chunks; SQLite files have none.
            split_bytes: begin another file once one has this size; 0: never.
            split_ns: begin another file once one spans this time; 0: never.

        Raises:
            DataError: the folder exists or cannot be made.
        """
        self.path = Path(path)
        self.counts: dict[str, int] = {}
        """Messages written so far, by topic."""
        self._compression = compression if compress else "none"
        self._split_bytes, self._split_ns = split_bytes, split_ns
        self._metadata = Metadata(storage, dict(custom_data or {}), counts=self.counts)
        self._received = 0
        self._ended_bytes = 0
        with self._errors_named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Of two that make the folder at the same moment, the second one fails.
                self.path.mkdir()
            except FileExistsError:
                raise DataError(
                    f"{self.path} exists already, and a bag is never overwritten; give another folder"
                ) from None
            self._begin_file()

    @property
    def size(self) -> int:
        """Bytes in the bag's files, as far as they were flushed, and without their indexes."""
        return self._ended_bytes + self._file.size

    @property
    def seconds(self) -> float:
        """Between the first message and the last."""
        return self._metadata.total.duration / 1e9

    def note(self, key: str, value: str) -> None:
        """Put a further note into the metadata, when they are written next."""
        self._metadata.custom_data[key] = value

    def add_topic(
        self,
        topic: str,
        kind: str,
        qos: Qos | None = None,
        *,
        more_qos: Sequence[Qos] = (),
        definition: tuple[str, str] | None = None,
    ) -> None:
        """
        Announce a topic.

        Args:
            topic: full name.
            kind: message type, such as ``sensor_msgs/msg/Image``.
            qos: what its publisher offered.
            more_qos: what its other publishers offered.
            definition: of the type, with all that it refers to (ros2msg), and its hash (RIHS01); by
                default those that are known.

        Raises:
            DataError: no definition of the type is known.
        """
        types = message_types()
        try:
            if definition is None:
                definition = (types.generate_msgdef(kind, ros_version=2)[0], types.hash_rihs01(kind))
        except (KeyError, TypesysError) as error:
            raise DataError(
                f"{self.path}: no definition of the message type {kind!r} ({topic}) is known"
            ) from error
        made = Topic(topic, kind, *definition, (*([qos] if qos else []), *more_qos))
        with self._errors_named():
            self._file.add_topic(made)
        self._metadata.topics[topic] = made
        self.counts[topic] = 0

    def write(self, topic: str, received: int, data: bytes | memoryview) -> None:
        """
        Add a message.

        Args:
            topic: announced before.
            received: when it was received, nanoseconds; one earlier than the message before is moved to
                that one's, as readers of bags without an index rely on the order.
            data: the message, serialized (CDR).

        Raises:
            DataError: writing failed, for instance because the disk is full.
        """
        self._received = max(self._received, received)
        with self._errors_named():
            if self._full():
                self._end_file()
                self._begin_file()
            self._file.write(topic, self._received, data)
        self._span.add(self._received)
        self.counts[topic] += 1

    def flush(self) -> None:
        """
        Hand everything so far to the operating system.

        Raises:
            DataError: see :meth:`write`.
        """
        with self._errors_named():
            self._file.flush()

    def close(self) -> None:
        """
        Write the index and the metadata.

        Raises:
            DataError: see :meth:`write`; the bag is then as after :meth:`abort`.
        """
        with self._errors_named():
            try:
                self._end_file()
                self._metadata.write(self.path)
            except BaseException:
                self.abort()
                raise

    def abort(self) -> None:
        """Leave the bag as a killed recorder would: readable up to the last chunk."""
        self._file.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _full(self) -> bool:
        """Tell whether the next message goes into another file."""
        if not self._span.count:
            return False
        if self._split_ns and self._received - self._span.first >= self._split_ns:
            return True
        return bool(self._split_bytes) and self._file.size >= self._split_bytes

    def _begin_file(self) -> None:
        name = f"{self.path.name}_{len(self._metadata.files)}{SUFFIXES[self._metadata.storage]}"
        self._span = self._metadata.files[name] = Span()
        if self._metadata.storage == "mcap":
            self._file: McapFile | SqliteFile = McapFile(self.path / name, self._metadata, self._compression)
        else:
            self._file = SqliteFile(self.path / name, self._metadata)
        for topic in self._metadata.topics.values():
            self._file.add_topic(topic)
        self._metadata.write(self.path)

    def _end_file(self) -> None:
        self._ended_bytes += self._file.size
        self._file.close(self._metadata)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"{self.path}: writing the bag failed ({error}). What was written before is kept; "
                "make room on the disk, and record into another folder."
            ) from error
