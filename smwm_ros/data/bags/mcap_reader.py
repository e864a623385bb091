"""
Reading MCAP files that may be cut off, damaged, or made to do harm.

The index at a file's end is not relied on: the records are walked through by their lengths, which
takes microseconds each and shows at once where a file is not as it should be. The messages are read
from the chunks, whose checksums are verified.
"""

from __future__ import annotations

import os
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from smwm_ros.data.bags import mcap_records as mcap
from smwm_ros.data.bags.compression import decompress
from smwm_ros.data.bags.mcap_records import HEAD, INDEX_HEAD, MAGIC, MESSAGE_HEAD, Block
from smwm_ros.data.bags.storage import HOPELESS, LAST_STAMP, Channel, Damaged, Loss, Message
from smwm_ros.errors import DataError

RUN = 2**20
"""Bytes of messages outside of chunks that are read at once."""
GLANCE = 64
"""Bytes of a record that are enough to judge it."""
LARGEST_INDEX = 2**27
"""Bytes; that of a bag of 20 GB has some 5 MB."""
WINDOW = 2**22
"""Bytes that are searched at once for where a file goes on."""


class McapReader:
    """
    An MCAP file that was opened for reading.

    Attributes:
        path: of the file.
        size: of the file, bytes.
        blocks: what holds the messages, in the order of the file.
        notes: what is wrong with the file and costs no message, in words.
        metadata: what rosbag2 noted in the file (YAML); empty if it did not.
    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        """
        Open a file.

        Args:
            path: of the file.
            salvage: read everything once, and go on after what is damaged. Otherwise only the end of
                a file may be missing.

        Raises:
            DataError: it is damaged.
            OSError: it cannot be read.
        """
        self.path = path
        self.blocks: list[Block] = []
        self.notes: list[str] = []
        self.metadata = ""
        self._lost: list[tuple[Block, str]] = []
        self._topics = mcap.Topics()
        self._spare = mcap.Topics()
        """What the index announces: used only for what nothing else announces, as it has no checksum."""
        self._salvage = salvage
        self._announced: int | None = None
        """Messages that the index tells of."""
        self._latest: Block | None = None
        """Which the following message indexes are about."""
        self._orphans = 0
        """Messages in the block read last whose topic is not known."""
        self._file = path.open("rb")
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def channels(self) -> Collection[Channel]:
        """The topics that it announces."""
        return self._topics.channels.values()

    def count(self, topic: str) -> int:
        """Return the number of messages on a topic."""
        numbers = [number for number, channel in self._topics.channels.items() if channel.topic == topic]
        return sum(block.counts.get(number, 0) for block in self.blocks for number in numbers)

    @property
    def span(self) -> tuple[int, int]:
        """When the first and the last message were received (ns); the wrong way round if there is none."""
        filled = [block for block in self.blocks if block.start_time <= block.end_time]
        return (
            min((block.start_time for block in filled), default=LAST_STAMP),
            max((block.end_time for block in filled), default=0),
        )

    @property
    def compression(self) -> str:
        """What its chunks are compressed by; empty if they are not."""
        return next((block.chunk.compression for block in self.blocks if block.chunk), "")

    @property
    def losses(self) -> list[Loss]:
        """What cannot be read, in the order of the file."""
        return [
            Loss(
                self.path.name,
                block.offset,
                block.end,
                reason,
                sum(block.counts.values()) if block.counts else None,
                (block.start_time, block.end_time) if block.chunk else None,
            )
            for block, reason in sorted(self._lost, key=lambda lost: lost[0].offset)
        ]

    def parts(
        self, topics: Collection[str], start: int | None = None
    ) -> Iterator[tuple[int, Callable[[], list[Message]]]]:
        """Give the time at which each block begins, and what reads its messages of some topics."""
        for block in self.blocks:
            if start is None or block.end_time >= start:
                yield block.start_time, partial(self._messages, block, topics, start)

    def _messages(self, block: Block, topics: Collection[str], start: int | None) -> list[Message]:
        messages = self._read(block, topics)
        return messages if start is None else [message for message in messages if message[0] >= start]

    def _open(self) -> None:
        self._complete = self._bytes(self.size - len(MAGIC), self.size) == MAGIC
        begin = len(MAGIC)
        if self._bytes(0, begin) != MAGIC:
            if not self._salvage:
                hopeless = "" if self._search(0, self.size) else f". {HOPELESS}"
                raise Damaged(0, f"its {self.size} bytes do not begin as those of an MCAP file{hopeless}")
            begin = 0
        end = self._walk(begin, self._summary() or self.size)
        if self._salvage:
            self._verify()
        else:
            end = self._learn(end)
        if not self._complete:
            if not self.blocks and not self._salvage:
                raise Damaged(end, f"{self.size} bytes, and no complete record of messages. {HOPELESS}")
            self.notes.append(
                f"{self.path.name} was cut off while it was recorded: {end} of {self.size} bytes are "
                "complete and were read"
            )

    def _learn(self, end: int) -> int:
        """Read the blocks that announce topics or are not told about; return where a file was cut off."""
        for block in list(self.blocks):
            last = not self._complete and block is self.blocks[-1]
            if last or not block.counts or not block.counts.keys() <= self._topics.channels.keys():
                try:
                    self._take_stock(block)
                except Damaged:
                    if not last:
                        raise
                    # After a power cut, the end of a file may have its length, but not yet its contents.
                    self.blocks.remove(block)
                    end = block.offset
        found = sum(sum(block.counts.values()) for block in self.blocks)
        if self._announced not in (None, found):
            raise Damaged(self.size, f"its index tells of {self._announced} messages, but there are {found}")
        return end

    def _summary(self) -> int | None:
        """Read the index at the end, and say where it begins; None if there is none that can be used."""
        if not self._complete:
            return None
        footer = self.size - mcap.ENDING
        head = self._bytes(footer, footer + mcap.FOOTER_SIZE)
        start = int.from_bytes(head[9:17], "little")
        if head[:9] != HEAD.pack(mcap.FOOTER, 20) or (start and not len(MAGIC) <= start <= footer):
            self.notes.append(f"the index at the end of {self.path.name} is not used: no footer tells of it")
            return None
        if not start or footer - start > LARGEST_INDEX:
            return None
        content = self._bytes(start, footer)
        told = int.from_bytes(head[25:29], "little")
        try:
            if told and crc32(content + head[:25]) != told:
                raise Damaged(start, "its checksum is wrong")
            for opcode, begin, end in mcap.records(content, start):
                if opcode in mcap.ANNOUNCEMENTS and self._salvage:
                    self._spare.add(opcode, content[begin:end], start)
                elif opcode == mcap.STATISTICS:
                    self._announced = int.from_bytes(content[begin : begin + 8], "little")
        except Damaged as damage:
            self.notes.append(f"the index at the end of {self.path.name} is not used: {damage.reason}")
            self._announced, self._spare = None, mcap.Topics()
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
                if found is None and not self._complete:
                    break
                if not self._salvage:
                    raise
                following = found or end
                self._latest = Block(at, following, LAST_STAMP, 0, None)
                self._lost.append((self._latest, damage.reason))
            at = following
        return at

    def _check_data(self, opcode: int, at: int, head: bytes) -> None:
        """Verify the checksum of all data, which also covers what lies between the chunks."""
        told = int.from_bytes(head[:4], "little") if opcode == mcap.DATA_END else 0
        if not told or not self._salvage or self._lost:
            return
        found = 0
        for start in range(0, at, WINDOW):
            found = crc32(self._bytes(start, min(at, start + WINDOW)), found)
        if found != told:
            self.notes.append(f"the checksum of all data of {self.path.name} is wrong")

    def _judge(self, at: int, end: int) -> tuple[int, int, bytes]:
        """Return opcode and length of a record that is as it should be, and how its content begins."""
        start = self._bytes(at, min(end, at + GLANCE))
        if len(start) < HEAD.size:
            raise Damaged(at, "a record is cut off")
        opcode, length = HEAD.unpack_from(start)
        mcap.judge_record(at, opcode, length, start, room=end - at - HEAD.size)
        if opcode >= mcap.PRIVATE and not self._complete:
            raise Damaged(at, f"no record begins where one should (kind {opcode})")
        return opcode, length, start[HEAD.size : HEAD.size + length]

    def _note(self, opcode: int, at: int, length: int, head: bytes) -> None:
        """Keep what a record tells."""
        begin, end = at + HEAD.size, at + HEAD.size + length
        if opcode in mcap.ANNOUNCEMENTS:
            self._topics.add(opcode, self._bytes(begin, end), at)
        elif opcode == mcap.CHUNK:
            chunk = mcap.parse_chunk_head(head, at, length)
            self._latest = Block(at, end, chunk.start_time, chunk.end_time, chunk)
            self.blocks.append(self._latest)
        elif opcode == mcap.MESSAGE:
            channel, _, stamp, _ = MESSAGE_HEAD.unpack_from(HEAD.pack(opcode, length) + head)[2:]
            run = self.blocks[-1] if self.blocks else None
            if run is None or run.chunk or run.end != at or end - run.offset > RUN:
                run = Block(at, at, LAST_STAMP, 0, None)
                self.blocks.append(run)
            run.end = end
            run.add(channel, stamp)
        elif opcode == mcap.MESSAGE_INDEX and self._latest is not None:
            channel, size = INDEX_HEAD.unpack_from(head)
            self._latest.counts[channel] = size // mcap.INDEX_ENTRY
        elif opcode == mcap.METADATA:
            fields = mcap.Fields(self._bytes(begin, end), at)
            if fields.text() == "rosbag2":
                self.metadata = fields.texts().get("serialized_metadata", "")

    def _search(self, at: int, end: int) -> int | None:
        """Find the next record that is beyond doubt."""
        found = self._find(at, end, self._is_chunk)
        if found is None and not any(block.chunk for block in self.blocks):
            # A file without chunks. Elsewhere what looks like a message would be one of a damaged chunk.
            found = self._find(at, end, self._is_message)
        return found

    def _find(self, at: int, end: int, accept: Callable[[int, int], bool]) -> int | None:
        while at < end:
            window = self._bytes(at, min(end, at + WINDOW))
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
        if opcode != mcap.MESSAGE or not (number in self._topics.channels or number in self._spare.channels):
            return False
        following = at + HEAD.size + length
        return following == end or bool(self._judge(following, end))

    def _verify(self) -> None:
        """Read all blocks, and take out those that cannot be read."""
        intact, orphaned = [], []
        for block in self.blocks:
            try:
                self._take_stock(block)
            except Damaged as damage:
                self._lost.append((block, damage.reason))
                continue
            intact.append(block)
            if self._orphans:
                orphaned.append(block)
        # What announces their topics may have come later.
        for number, channel in self._spare.channels.items():
            self._topics.channels.setdefault(number, channel)
        for block in orphaned:
            self._take_stock(block)
            if self._orphans:
                lost = Block(block.offset, block.end, LAST_STAMP, 0, None, {0: self._orphans})
                self._lost.append((lost, "their topics were announced in a part that is lost"))
        self.blocks = intact

    def _take_stock(self, block: Block) -> None:
        """Read a block to learn what it announces, and to count its messages."""
        counts: Counter[int] = Counter()
        messages = self._read(block, counts=counts)
        block.counts = counts
        if self._salvage:
            block.start_time = min((message[0] for message in messages), default=LAST_STAMP)
            block.end_time = max((message[0] for message in messages), default=0)

    def _read(
        self, block: Block, topics: Collection[str] | None = None, counts: Counter[int] | None = None
    ) -> list[Message]:
        """Read the messages of a block, of some topics or all, and learn what it announces."""
        data = self._content(block)
        low, high = (0, LAST_STAMP) if self._salvage else (block.start_time, block.end_time)
        channels = self._topics.channels
        messages: list[Message] = []
        self._orphans = 0
        for opcode, begin, end in mcap.records(data, block.offset):
            if opcode == mcap.MESSAGE:
                if end - begin < MESSAGE_HEAD.size - HEAD.size:
                    raise Damaged(block.offset, "a message in it is too short")
                _, _, number, _, stamp, _ = MESSAGE_HEAD.unpack_from(data, begin - HEAD.size)
                if not low <= stamp <= high:
                    raise Damaged(block.offset, "a message in it is of a time that it does not tell of")
                channel = channels.get(number)
                if channel is None:
                    if not self._salvage:
                        raise Damaged(block.offset, "a message in it is of a topic that is not announced")
                    self._orphans += 1
                    continue
                if counts is not None:
                    counts[number] += 1
                if topics is None or channel.topic in topics:
                    messages.append((stamp, channel, data[begin + MESSAGE_HEAD.size - HEAD.size : end]))
            elif opcode in mcap.ANNOUNCEMENTS:
                if end - begin > mcap.LARGEST_TEXT:
                    raise Damaged(block.offset, f"a definition of {end - begin} bytes in it")
                self._topics.add(opcode, data[begin:end], block.offset)
            elif opcode == mcap.CHUNK:
                raise Damaged(block.offset, "a chunk lies within a chunk")
        return messages

    def _content(self, block: Block) -> bytes:
        chunk = block.chunk
        if chunk is None:
            return self._bytes(block.offset, block.end)
        try:
            data = decompress(self._bytes(*chunk.data), chunk.compression, chunk.size)
        except DataError as error:
            raise Damaged(block.offset, f"a chunk is damaged: {error}") from error
        if chunk.crc and crc32(data) != chunk.crc:
            raise Damaged(block.offset, "a chunk is damaged: its checksum is not that of its contents")
        return data

    def _bytes(self, start: int, end: int) -> bytes:
        return os.pread(self._file.fileno(), max(0, end - start), max(0, start))
