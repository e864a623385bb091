"""
How the records of an MCAP file lie, which may be cut off, damaged, or made to do harm.

The index at the end is not relied on: the records are walked through by their lengths, which takes
microseconds each and shows at once where a file is not as it should be.
"""

from __future__ import annotations

import os
from binascii import crc32
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from smwm_ros.data.bags import mcap_records as mcap
from smwm_ros.data.bags.mcap_records import HEAD, INDEX_HEAD, MAGIC, MESSAGE_HEAD, Block
from smwm_ros.data.bags.storage import HOPELESS, LAST_STAMP, Damaged

RUN = 2**20
"""Bytes of messages outside of chunks that are read at once."""
GLANCE = 64
"""Bytes of a record that are enough to judge it."""
LARGEST_INDEX = 2**27
"""Bytes; that of a bag of 20 GB has some 5 MB."""
WINDOW = 2**22
"""Bytes that are searched at once for where a file goes on."""


class Layout:
    """
    Where a file's messages are, and what it says outside of its chunks.

    Attributes:
        blocks: what holds the messages, in the order of the file.
        lost: parts that cannot be read, and why.
        topics: what is announced outside of chunks.
        spare: what the index announces, which has no checksum of its own in many files; for what nothing
            else announces.
        announced: messages that the index tells of; None if there is none.
        complete: whether the file ends as it should.
        end: where the last complete record ends.
        notes: what is wrong and costs no message, in words.
        metadata: what rosbag2 noted in the file (YAML); empty if it did not.
    """

    def __init__(self, file: BinaryIO, path: Path, *, salvage: bool) -> None:
        """
        Walk through a file.

        Args:
            file: it, opened.
            path: its path, for messages.
            salvage: go on after what is damaged.

        Raises:
            Damaged: it is damaged; not for one that is cut off at the end.
        """
        self._file = file
        self._name = path.name
        self._salvage = salvage
        self.size = os.fstat(file.fileno()).st_size
        self.blocks: list[Block] = []
        self.lost: list[tuple[Block, str]] = []
        self.topics = mcap.Topics()
        self.spare = mcap.Topics()
        self.announced: int | None = None
        self.notes: list[str] = []
        self.metadata = ""
        self._latest: Block | None = None
        """Which the following message indexes are about."""
        self._no_chunks = self.size
        """From here on there are none, as a search has shown."""
        self.complete = self.read(self.size - len(MAGIC), self.size) == MAGIC
        begin = len(MAGIC)
        if self.read(0, begin) != MAGIC:
            if not salvage:
                hopeless = "" if self._search(0, self.size) else f". {HOPELESS}"
                raise Damaged(0, f"its {self.size} bytes do not begin as those of an MCAP file{hopeless}")
            begin = 0
        self.end = self._walk(begin, self._summary() or self.size)

    def read(self, start: int, end: int) -> bytes:
        """Read a part of the file, as far as it is there."""
        return os.pread(self._file.fileno(), max(0, end - start), max(0, start))

    def _summary(self) -> int | None:
        """Read the index at the end, and say where it begins; None if there is none that can be used."""
        if not self.complete:
            return None
        footer = self.size - mcap.ENDING
        head = self.read(footer, footer + mcap.FOOTER_SIZE)
        start = int.from_bytes(head[9:17], "little")
        if head[:9] != HEAD.pack(mcap.FOOTER, 20) or (start and not len(MAGIC) <= start <= footer):
            self.notes.append(f"the index at the end of {self._name} is not used: no footer tells of it")
            return None
        if not start or footer - start > LARGEST_INDEX:
            return None
        content = self.read(start, footer)
        told = int.from_bytes(head[25:29], "little")
        try:
            if told and crc32(content + head[:25]) != told:
                raise Damaged(start, "its checksum is wrong")
            for opcode, begin, end in mcap.records(content, start):
                if opcode in mcap.ANNOUNCEMENTS and self._salvage:
                    self.spare.add(opcode, content[begin:end], start)
                elif opcode == mcap.STATISTICS:
                    self.announced = int.from_bytes(content[begin : begin + 8], "little")
        except Damaged as damage:
            self.notes.append(f"the index at the end of {self._name} is not used: {damage.reason}")
            self.announced, self.spare = None, mcap.Topics()
            return None
        return start

    def _walk(self, at: int, end: int) -> int:
        """Note where the blocks lie, and what is announced outside of chunks; return where it ended."""
        while at < end:
            try:
                opcode, length, head = self._judge(at, end)
                self._note(opcode, at, length, head)
                following = at + HEAD.size + length
                if opcode in (mcap.DATA_END, mcap.FOOTER):
                    if opcode == mcap.DATA_END and following < end < self.size:
                        raise Damaged(at, "the data are said to end where they do not")
                    self._check_data(opcode, at, head)
                    return at
            except Damaged as damage:
                found = self._search(at + 1, end)
                if found is None and not self.complete:
                    break
                if not self._salvage:
                    raise
                following = found or end
                self._latest = Block(at, following, LAST_STAMP, 0, None)
                self.lost.append((self._latest, damage.reason))
            at = following
        return at

    def _check_data(self, opcode: int, at: int, head: bytes) -> None:
        """Verify the checksum of all data, which also covers what lies between the chunks."""
        told = int.from_bytes(head[:4], "little") if opcode == mcap.DATA_END else 0
        if not told or not self._salvage or self.lost:
            return
        found = 0
        for start in range(0, at, WINDOW):
            found = crc32(self.read(start, min(at, start + WINDOW)), found)
        if found != told:
            self.notes.append(f"the checksum of all data of {self._name} is wrong")

    def _judge(self, at: int, end: int) -> tuple[int, int, bytes]:
        """Return opcode and length of a record that is as it should be, and how its content begins."""
        start = self.read(at, min(end, at + GLANCE))
        if len(start) < HEAD.size:
            raise Damaged(at, "a record is cut off")
        opcode, length = HEAD.unpack_from(start)
        mcap.judge_record(at, opcode, length, start, room=end - at - HEAD.size)
        if opcode >= mcap.PRIVATE and not self.complete:
            raise Damaged(at, f"no record begins where one should (kind {opcode})")
        return opcode, length, start[HEAD.size : HEAD.size + length]

    def _note(self, opcode: int, at: int, length: int, head: bytes) -> None:
        """Keep what a record tells."""
        begin, end = at + HEAD.size, at + HEAD.size + length
        if opcode in mcap.ANNOUNCEMENTS:
            self.topics.add(opcode, self.read(begin, end), at)
        elif opcode == mcap.CHUNK:
            chunk = mcap.parse_chunk_head(head, at, length)
            self._latest = Block(at, end, chunk.start_time, chunk.end_time, chunk)
            self.blocks.append(self._latest)
        elif opcode == mcap.MESSAGE:
            channel, _, stamp, _ = MESSAGE_HEAD.unpack_from(HEAD.pack(opcode, length) + head)[2:]
            run = self.blocks[-1] if self.blocks else None
            if run is not None and run.chunk:
                # Writers use chunks for all messages or for none; here it would have no checksum.
                raise Damaged(at, "a message lies outside of the chunks")
            if run is None or run.end != at or end - run.offset > RUN:
                run = Block(at, at, LAST_STAMP, 0, None)
                self.blocks.append(run)
            run.end = end
            run.add(channel, stamp)
        elif opcode == mcap.MESSAGE_INDEX and self._latest is not None:
            channel, size = INDEX_HEAD.unpack_from(head)
            self._latest.counts[channel] = size // mcap.INDEX_ENTRY
        elif opcode == mcap.METADATA:
            fields = mcap.Fields(self.read(begin, end), at)
            if fields.text() == "rosbag2":
                self.metadata = fields.texts().get("serialized_metadata", "")

    def _search(self, at: int, end: int) -> int | None:
        """Find the next record that is beyond doubt."""
        found = self._find(at, min(end, self._no_chunks), self._is_chunk)
        if found is None:
            self._no_chunks = min(at, self._no_chunks)
        if found is None and not any(block.chunk for block in self.blocks):
            # A file without chunks. Elsewhere what looks like a message would be one of a damaged chunk.
            found = self._find(at, end, self._is_message)
        return found

    def _find(self, at: int, end: int, accept: Callable[[int, int], bool]) -> int | None:
        while at < end:
            window = self.read(at, min(end, at + WINDOW))
            found = mcap.CANDIDATE.search(window)
            while found:
                with suppress(Damaged):
                    if accept(at + found.start(), end):
                        return at + found.start()
                found = mcap.CANDIDATE.search(window, found.start() + 1)
            if at + len(window) >= end:
                break
            at += len(window) - GLANCE
        return None

    def _is_chunk(self, at: int, end: int) -> bool:
        """Tell whether a chunk or its index begins there."""
        opcode, length, head = self._judge(at, end)
        if opcode == mcap.CHUNK:
            mcap.parse_chunk_head(head, at, length)
        return opcode in (mcap.CHUNK, mcap.MESSAGE_INDEX)

    def _is_message(self, at: int, end: int) -> bool:
        """Tell whether a message of a known topic begins there, and then another record."""
        opcode, length, head = self._judge(at, end)
        number = int.from_bytes(head[:2], "little")
        if opcode != mcap.MESSAGE or not (number in self.topics.channels or number in self.spare.channels):
            return False
        following = at + HEAD.size + length
        return following == end or bool(self._judge(following, end))
