"""Writing ROS 2 bags without ROS: serialized messages into MCAP, in rosbag2's own layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import TypesysError
from typing_extensions import Self

from smwm_ros.data.bags.message_types import message_types
from smwm_ros.errors import DataError


class BagWriter:
    """
    A bag that is being written; use it as a context manager.

    Messages are gathered in chunks (zstd or plain) of 1 MiB. ``flush`` ends one early and hands it to
    the operating system: a process that is killed loses no more than what came since then.

    ``rosbags`` does the writing: it takes serialized messages as they are, it is what reads the bags
    anyway, and its chunks can be ended early, which the ``mcap`` package does not offer.
    """

    def __init__(
        self, path: Path | str, *, custom_data: Mapping[str, str] | None = None, compress: bool = True
    ) -> None:
        """
        Create the bag's folder.

        Args:
            path: the folder; it must not exist, its parents are made.
            custom_data: notes that go into the bag's metadata.
            compress: chunks with zstd.

        Raises:
            DataError: the folder exists or cannot be made.
        """
        self.path = Path(path)
        if self.path.exists():
            raise DataError(
                f"{self.path} exists already, and a bag is never overwritten; give another folder"
            )
        self.counts: dict[str, int] = {}
        """Messages written so far, by topic."""
        self._connections: dict[str, Connection] = {}
        self._received = 0
        with self._errors_named():
            self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin.MCAP)
            if compress:
                self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            for key, value in (custom_data or {}).items():
                self._writer.set_custom_data(key, value)
            self._writer.open()
            # As rosbag2 does, so that a recording that is cut off still says what it is.
            (self.path / "metadata.yaml").write_text(
                yaml.safe_dump(_metadata_at_start(self.path, dict(custom_data or {}))), encoding="utf-8"
            )

    def add_topic(self, topic: str, kind: str, qos: Qos | None = None) -> None:
        """
        Announce a topic.

        Args:
            topic: full name.
            kind: message type, such as ``sensor_msgs/msg/Image``.
            qos: what its publisher offered.

        Raises:
            DataError: no definition of the type is known.
        """
        try:
            with self._errors_named():
                self._connections[topic] = self._writer.add_connection(
                    topic, kind, typestore=message_types(), offered_qos_profiles=[qos] if qos else []
                )
        except (KeyError, TypesysError) as error:
            raise DataError(
                f"{self.path}: no definition of the message type {kind!r} ({topic}) is known"
            ) from error
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
            self._writer.write(self._connections[topic], self._received, data)
        self.counts[topic] += 1

    def flush(self) -> None:
        """
        Hand everything so far to the operating system.

        Raises:
            DataError: see :meth:`write`.
        """
        storage = self._writer.storage
        assert isinstance(storage, McapWriter)
        with self._errors_named():
            if storage.chunk.msgs:
                storage.close_chunk()
            storage.bio.flush()

    def close(self) -> None:
        """
        Write the index and the metadata.

        Raises:
            DataError: see :meth:`write`.
        """
        with self._errors_named():
            try:
                self._writer.close()
            except BaseException:
                self.abort()
                raise

    def abort(self) -> None:
        """Leave the bag as a killed recorder would: readable up to the last chunk."""
        with suppress(OSError):
            self._writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.path}: writing the bag failed ({error}). What was written before is kept; "
                "make room on the disk, and record into another folder."
            ) from error


def _metadata_at_start(path: Path, custom_data: dict[str, str]) -> dict[str, Any]:
    """Describe a bag that is empty so far, in version 9 of rosbag2's metadata."""
    name = f"{path.name}.mcap"
    return {
        "rosbag2_bagfile_information": {
            "version": 9,
            "storage_identifier": "mcap",
            "relative_file_paths": [name],
            **_span(),
            "topics_with_message_count": [],
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": name, **_span()}],
            "custom_data": custom_data or None,
            "ros_distro": "rosbags",
        }
    }


def _span() -> dict[str, Any]:
    """Return the time that no message spans; anew each time, as YAML would refer back to the same object."""
    return {
        "starting_time": {"nanoseconds_since_epoch": 0},
        "duration": {"nanoseconds": 0},
        "message_count": 0,
    }
