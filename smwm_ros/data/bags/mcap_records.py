"""The records of MCAP files (mcap.dev/spec), with every length judged before it is believed."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from smwm_ros.data.bags.compression import LARGEST, largest_content
from smwm_ros.data.bags.storage import FORMATS, LAST_STAMP, Channel, Damaged, parse_offered_qos

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = range(1, 8)
STATISTICS, METADATA, DATA_END, PRIVATE = 0x0B, 0x0C, 0x0F, 0x80
ANNOUNCEMENTS = (SCHEMA, CHANNEL)
MOST_RECORDS = 2**21
"""In a chunk: 64 MiB of the smallest messages there are; each takes several times its bytes in memory."""
LARGEST_TEXT = 2**20
"""Bytes of a definition or of metadata; the largest definitions of ROS have some ten thousand."""

HEAD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<BQHIQQ")
CHUNK_HEAD = struct.Struct("<QQQII")
INDEX_HEAD = struct.Struct("<HI")
INDEX_ENTRY = 16
FOOTER_SIZE = HEAD.size + 20
ENDING = FOOTER_SIZE + len(MAGIC)

CANDIDATE = re.compile(
    rb"\x06.{8}.{28}(?:\x00\x00\x00\x00|\x03\x00\x00\x00lz4|\x04\x00\x00\x00zstd)"  # chunk
    rb"|\x07.{6}\x00\x00"  # message index
    rb"|\x05.{4}\x00{4}",  # message
    re.DOTALL,
)
"""Where a record could begin; what it says decides."""


@dataclass
class Block:
    """Messages that lie together: a chunk, or a run of messages outside of chunks."""

    offset: int
    end: int
    start_time: int
    end_time: int
    chunk: ChunkHead | None
    counts: dict[int, int] = field(default_factory=dict)
    """Messages of each channel, as far as that is known."""

    def add(self, channel: int, stamp: int) -> None:
        """Count a message."""
        self.counts[channel] = self.counts.get(channel, 0) + 1
        self.start_time = min(self.start_time, stamp)
        self.end_time = max(self.end_time, stamp)


class ChunkHead(NamedTuple):
    """What a chunk says of its contents."""

    start_time: int
    end_time: int
    size: int
    crc: int
    compression: str
    data: tuple[int, int]
    """Where its compressed contents begin and end in the file."""


class Schema(NamedTuple):
    """The definition of a type."""

    name: str
    encoding: str
    text: str


class Fields:
    """The content of a record, read field by field."""

    def __init__(self, content: bytes, offset: int) -> None:
        self._content = content
        self._offset = offset
        self._at = 0

    def number(self, size: int) -> int:
        """Read an integer of some bytes."""
        return int.from_bytes(self._take(size), "little")

    def data(self) -> bytes:
        """Read bytes whose number comes before them."""
        return self._take(self.number(4))

    def text(self) -> str:
        """Read a string."""
        try:
            return self.data().decode()
        except UnicodeDecodeError as error:
            raise Damaged(self._offset, f"a text in it is not UTF-8 ({error.reason})") from error

    def texts(self) -> dict[str, str]:
        """Read a map of strings."""
        inner = Fields(self.data(), self._offset)
        found = {}
        while inner._at < len(inner._content):
            key = inner.text()
            found[key] = inner.text()
        return found

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self._at != len(self._content):
            raise Damaged(self._offset, "a record is longer than what it holds")

    def _take(self, size: int) -> bytes:
        part = self._content[self._at : self._at + size]
        if len(part) != size:
            raise Damaged(self._offset, "a record is shorter than what it should hold")
        self._at += size
        return part


class Topics:
    """The channels of a file, put together from its schemas and channels."""

    def __init__(self) -> None:
        self.schemas = {0: Schema("", "", "")}
        self.channels: dict[int, Channel] = {}

    def add(self, opcode: int, content: bytes, offset: int) -> None:
        """
        Note a schema or a channel; the first of each number holds.

        Raises:
            Damaged: it is not well formed, or refers to nothing.
        """
        fields = Fields(content, offset)
        number = fields.number(2)
        if opcode == SCHEMA:
            schema = Schema(fields.text(), fields.text(), fields.text())
            fields.end()
            self.schemas.setdefault(number, schema)
            return
        schema_number = fields.number(2)
        topic, encoding = fields.text(), fields.text()
        qos = parse_offered_qos(fields.texts().get("offered_qos_profiles", ""))
        fields.end()
        if schema_number not in self.schemas:
            raise Damaged(offset, f"the topic {topic!r} refers to a type that is not in the file")
        if number not in self.channels:
            schema = self.schemas[schema_number]
            language = FORMATS.get(schema.encoding, MessageDefinitionFormat.NONE)
            text = schema.text if language is not MessageDefinitionFormat.NONE else ""
            definition = MessageDefinition(language, text)
            self.channels[number] = Channel(topic, schema.name, definition, qos, encoding)


def judge_record(offset: int, opcode: int, length: int, start: bytes, room: int) -> None:
    """
    Judge a record by its length, before any of it is taken into memory.

    Args:
        offset: of the record in the file.
        opcode: its kind.
        length: of its content.
        start: its first bytes.
        room: bytes that there are for its content.

    Raises:
        Damaged: it cannot be a record.
    """
    if not (HEADER <= opcode <= DATA_END or opcode >= PRIVATE):
        raise Damaged(offset, f"no record begins where one should (kind {opcode})")
    if length > room:
        raise Damaged(offset, f"a record of {length} bytes goes beyond the end")
    if (opcode == DATA_END and length != 4) or (opcode == FOOTER and length != 20):
        raise Damaged(offset, f"a record of kind {opcode} cannot have {length} bytes")
    if opcode in (*ANNOUNCEMENTS, HEADER, METADATA) and length > LARGEST_TEXT:
        raise Damaged(offset, f"a text of {length} bytes")
    if opcode == MESSAGE:
        if not MESSAGE_HEAD.size - HEAD.size <= length <= LARGEST:
            raise Damaged(offset, f"a message of {length} bytes")
        if MESSAGE_HEAD.unpack_from(start)[4] > LAST_STAMP:
            raise Damaged(offset, "a message of a time that no clock can show")
    if opcode == MESSAGE_INDEX:
        size = INDEX_HEAD.unpack_from(start, HEAD.size)[1] if length >= INDEX_HEAD.size else -1
        if size % INDEX_ENTRY or size != length - INDEX_HEAD.size:
            raise Damaged(offset, "the lengths in the index of a chunk do not agree")


def parse_chunk_head(content: bytes, offset: int, length: int) -> ChunkHead:
    """
    Read the head of a chunk.

    Args:
        content: the first bytes of the record's content.
        offset: of the record in the file.
        length: of the record's content.

    Raises:
        Damaged: its parts do not make up its length, or its size is absurd.
    """
    fields = Fields(content, offset)
    if len(content) < CHUNK_HEAD.size:
        raise Damaged(offset, "a chunk is too short")
    start, end, size, crc, name_size = CHUNK_HEAD.unpack_from(content)
    if name_size > 4:
        raise Damaged(offset, "a chunk names an unknown compression")
    fields.number(28)
    compression = fields.text()
    compressed = fields.number(8)
    begin = offset + HEAD.size + CHUNK_HEAD.size + name_size + 8
    if CHUNK_HEAD.size + name_size + 8 + compressed != length or (not compression and size != compressed):
        raise Damaged(offset, "the lengths in a chunk do not agree")
    if size > largest_content(compressed):
        raise Damaged(offset, f"{compressed} bytes of a chunk are said to hold {size}, which is not believed")
    return ChunkHead(start, end, size, crc, compression, (begin, begin + compressed))


def records(data: bytes, offset: int) -> Iterator[tuple[int, int, int]]:
    """
    Go through the records in a chunk, or in a part of a file.

    Args:
        data: whole records.
        offset: at which a fault is reported.

    Yields:
        Of each record the opcode, and where its content begins and ends.

    Raises:
        Damaged: a record goes beyond the end.
    """
    at, size, count = 0, len(data), 0
    while at < size:
        count += 1
        if size - at < HEAD.size:
            raise Damaged(offset, "a record is cut off in it")
        opcode, length = HEAD.unpack_from(data, at)
        at += HEAD.size
        if opcode == 0 or count > MOST_RECORDS:
            raise Damaged(offset, "it does not hold records")
        if length > size - at:
            raise Damaged(offset, f"a record of {length} bytes does not fit into it")
        yield opcode, at, at + length
        at += length
