"""Reading the messages of MCAP files, whose checksums are verified."""

from __future__ import annotations

from binascii import crc32
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from smwm_ros.data.bags import mcap_records as mcap
from smwm_ros.data.bags.compression import decompress
from smwm_ros.data.bags.mcap_layout import Layout
from smwm_ros.data.bags.mcap_records import HEAD, MESSAGE_HEAD, Block
from smwm_ros.data.bags.storage import HOPELESS, LAST_STAMP, Channel, Damaged, Loss, Message
from smwm_ros.errors import DataError

KEPT = 2**24
"""Bytes that the C library keeps for the next chunk instead of giving them back to the system."""


class McapReader:
    """
    An MCAP file that was opened for reading.

    Attributes:
        path: of the file.
        notes: what is wrong with the file and costs no message but those at its end, in words.
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
        self._salvage = salvage
        self._orphans = 0
        """Messages in the block read last whose topic is not known."""
        self._file = path.open("rb")
        try:
            self._layout = layout = Layout(self._file, path, salvage=salvage)
            self._topics = layout.topics
            self._blocks = layout.blocks
            self.notes = layout.notes
            self.metadata = layout.metadata
            # glibc keeps as much as the largest block that was ever given back, at most 32 MiB. Without
            # this one, reading a chunk takes as long again for the system to find its pages anew.
            bytes(KEPT)
            self._take_stock()
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
        return sum(block.counts.get(number, 0) for block in self._blocks for number in numbers)

    @property
    def span(self) -> tuple[int, int]:
        """When the first and the last message were received (ns); the wrong way round if there is none."""
        filled = [block for block in self._blocks if block.start_time <= block.end_time]
        return (
            min((block.start_time for block in filled), default=LAST_STAMP),
            max((block.end_time for block in filled), default=0),
        )

    @property
    def compression(self) -> str:
        """What its chunks are compressed by; empty if they are not."""
        return next((block.chunk.compression for block in self._blocks if block.chunk), "")

    @property
    def losses(self) -> list[Loss]:
        """What cannot be read, in the order of the file."""
        lost = sorted(self._layout.lost, key=lambda each: each[0].offset)
        untold = [block for block, _ in lost if not block.counts]
        rest = None
        if self._layout.announced is not None:
            known = [*self._blocks, *(block for block, _ in lost)]
            rest = self._layout.announced - sum(sum(block.counts.values()) for block in known)
        if rest is None or rest < 0 or (rest and len(untold) > 1):
            rest = None  # nobody knows in which of several parts they were
        return [
            Loss(
                self.path.name,
                block.offset,
                block.end,
                reason,
                sum(block.counts.values()) if block.counts else rest,
                (block.start_time, block.end_time) if block.chunk else None,
            )
            for block, reason in lost
        ]

    def parts(
        self, topics: Collection[str], start: int | None = None
    ) -> Iterator[tuple[int, Callable[[], list[Message]]]]:
        """Give the time at which each block begins, and what reads its messages of some topics."""
        for block in self._blocks:
            if start is None or block.end_time >= start:
                yield block.start_time, partial(self._messages, block, topics, start)

    def _messages(self, block: Block, topics: Collection[str], start: int | None) -> list[Message]:
        messages = self._read(block, topics)
        return messages if start is None else [message for message in messages if message[0] >= start]

    def _take_stock(self) -> None:
        """Learn what topics there are and how many messages; read no more blocks than that takes."""
        layout = self._layout
        end = layout.end
        if self._salvage:
            self._verify()
        else:
            end = self._learn()
        if not layout.complete:
            if not self._blocks and not self._salvage:
                raise Damaged(end, f"{layout.size} bytes, and no complete record of messages. {HOPELESS}")
            self.notes.append(
                f"{self.path.name} was cut off while it was recorded: {end} of {layout.size} bytes are "
                "complete and were read"
            )

    def _learn(self) -> int:
        """Read the blocks that announce topics or are not told about; return where a file was cut off."""
        layout = self._layout
        end = layout.end
        for block in list(self._blocks):
            last = not layout.complete and block is self._blocks[-1]
            if last or not block.counts or not block.counts.keys() <= self._topics.channels.keys():
                try:
                    self._take_stock_of(block)
                except Damaged:
                    if not last:
                        raise
                    # After a power cut, the end of a file may have its length, but not yet its contents.
                    self._blocks.remove(block)
                    end = block.offset
        found = sum(sum(block.counts.values()) for block in self._blocks)
        if layout.announced not in (None, found):
            raise Damaged(
                layout.size, f"its index tells of {layout.announced} messages, but there are {found}"
            )
        return end

    def _verify(self) -> None:
        """Read all blocks, and take out those that cannot be read."""
        intact, orphaned = [], []
        for block in self._blocks:
            try:
                self._take_stock_of(block)
            except Damaged as damage:
                self._layout.lost.append((block, damage.reason))
                continue
            intact.append(block)
            if self._orphans:
                orphaned.append(block)
        # What announces their topics may have come later.
        for number, channel in self._layout.spare.channels.items():
            self._topics.channels.setdefault(number, channel)
        for block in orphaned:
            self._take_stock_of(block)
            if self._orphans:
                lost = Block(block.offset, block.end, LAST_STAMP, 0, None, {0: self._orphans})
                self._layout.lost.append((lost, "their topics were announced in a part that is lost"))
        self._blocks = intact

    def _take_stock_of(self, block: Block) -> None:
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
            return self._layout.read(block.offset, block.end)
        try:
            data = decompress(self._layout.read(*chunk.data), chunk.compression, chunk.size)
        except DataError as error:
            raise Damaged(block.offset, f"a chunk is damaged: {error}") from error
        if chunk.crc and crc32(data) != chunk.crc:
            raise Damaged(block.offset, "a chunk is damaged: its checksum is not that of its contents")
        return data
