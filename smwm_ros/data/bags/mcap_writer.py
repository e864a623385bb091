"""One MCAP file of a bag, as rosbag2's MCAP plugin lays it out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mcap.writer import CompressionType, Writer

from smwm_ros.data.bags.metadata import Metadata, Topic, as_yaml

COMPRESSION = {
    "zstd": CompressionType.ZSTD,
    "lz4": CompressionType.LZ4,
    "none": CompressionType.NONE,
}


class McapFile:
    """
    A file that is being written.

    Chunks end at 1 MiB, or earlier by ``flush``. Each carries the checksum of its content, and the
    file those of its data and of its summary.

    Methods raise OSError when the disk does.
    """

    def __init__(self, path: Path, metadata: Metadata, compression: str) -> None:
        """
        Create the file.

        Args:
            path: it must not exist.
            metadata: of the bag, as far as they are known; a file that is found alone still tells them.
            compression: one of ``COMPRESSION``, for the chunks.
        """
        self._file = path.open("xb")
        self._writer = Writer(self._file, compression=COMPRESSION[compression], enable_data_crcs=True)
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._writer.start(profile="ros2", library="smwm_ros")
        self._describe(metadata)

    @property
    def size(self) -> int:
        """Bytes so far, without the chunk that is being gathered."""
        return self._file.tell()

    def add_topic(self, topic: Topic) -> None:
        """Announce a topic."""
        if topic.kind not in self._schemas:
            self._schemas[topic.kind] = self._writer.register_schema(
                topic.kind, "ros2msg", topic.definition.encode()
            )
        self._channels[topic.name] = self._writer.register_channel(
            topic.name,
            "cdr",
            self._schemas[topic.kind],
            {"offered_qos_profiles": as_yaml(topic.offered_qos), "topic_type_hash": topic.digest},
        )

    def write(self, topic: str, received: int, data: bytes | memoryview) -> None:
        """Add a message of an announced topic, received at a time (ns)."""
        # The package's annotation says bytes; it takes any buffer.
        self._writer.add_message(self._channels[topic], received, data, received)  # type: ignore[arg-type]

    def flush(self) -> None:
        """End the chunk and hand it to the operating system."""
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self, metadata: Metadata) -> None:
        """Write the metadata and the index."""
        # In this order, so that the record of the metadata comes after the last chunk.
        self._writer.flush()  # type: ignore[no-untyped-call]
        self._describe(metadata)
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.close()

    def abort(self) -> None:
        """Close the file as it is."""
        with suppress(OSError):
            self._file.close()

    def _describe(self, metadata: Metadata) -> None:
        self._writer.add_metadata("rosbag2", {"serialized_metadata": metadata.text()})
