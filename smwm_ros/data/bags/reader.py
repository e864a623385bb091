"""
Reading ROS 2 bags without ROS: MCAP and SQLite, of any distribution.

A recording that was cut off (the recorder was killed, the disk was full) has no index and no
metadata. What its files hold up to the cut is read all the same; the files stay as they are.
Whatever a bag claims is judged before memory is taken for it, and checksums are verified.

``rosbags`` reads the definitions and the messages. Its readers of files believe what these say, and
are not used.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import chain
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from rosbags.interfaces import MessageDefinitionFormat, Qos
from typing_extensions import Self

from smwm_ros.data.bags.compression import decompress, decompress_file
from smwm_ros.data.bags.contents import COMPRESSED, contents_of, custom_data_in
from smwm_ros.data.bags.definitions import deserializer, types_of
from smwm_ros.data.bags.mcap_reader import McapReader
from smwm_ros.data.bags.sqlite_reader import SqliteReader
from smwm_ros.data.bags.storage import CDR, HOPELESS, Channel, Damaged, Loss, Message, in_order
from smwm_ros.errors import DataError


class BagReader:
    """
    A bag that was opened for reading; use it as a context manager.

    Attributes:
        path: the bag's folder, or one of its files.
        topics: type of each topic that is in the bag.
        notes: what was wrong with the bag and could be mended, in words.
        losses: what cannot be read; empty unless the bag is salvaged.
        files: the bag's files.
    """

    def __init__(self, path: Path | str, *, salvage: bool = False) -> None:
        """
        Open a bag.

        Args:
            path: a bag's folder, or an .mcap or .db3 file.
            salvage: read everything once, and go on after what is damaged. Otherwise a damaged bag is
                refused, but for one that was cut off while it was recorded.

        Raises:
            DataError: no such bag, an empty or damaged one, or one of an unknown kind.
        """
        self.path = Path(path)
        contents = contents_of(self.path, salvage=salvage)
        self.files = contents.files
        self._noted = contents.custom_data
        self.notes = contents.notes
        self.losses = [Loss(name, 0, 0, "the file is not there") for name in contents.absent]
        self._compressed = contents.compressed_messages
        self._salvage = salvage
        self._stack = ExitStack()
        self._mcaps: list[McapReader] = []
        self._databases: list[SqliteReader] = []
        try:
            for file in self.files:
                with self._errors_named(file):
                    self._open(file)
            self.topics = {channel.topic: channel.kind for channel in self._channels()}
            if not self.count(self.topics):
                why = "; ".join(map(str, self.losses)) or "no message was recorded"
                raise DataError(f"{self.path}: the bag is empty: {why}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def count(self, topics: Collection[str]) -> int:
        """Return the number of messages on some topics."""
        return sum(file.count(topic) for file in self._readers() for topic in topics)

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """
        Read the messages of some topics in the order they were received.

        Yields:
            Topic, time of reception (ns), and the message, with the attributes that ROS gives it.

        Raises:
            DataError: the bag is damaged.
        """
        known: dict[int, Callable[[bytes], Any]] = {}
        for received, channel, data in self.records(topics):
            deserialize = known.get(id(channel))
            if deserialize is None:
                deserialize = known[id(channel)] = self._deserializer(channel)
            yield channel.topic, received, deserialize(data)

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
        for received, channel, data in self.records(topics, start):
            yield channel.topic, received, data

    @property
    def span(self) -> tuple[int, int]:
        """When the first and the last message were received, nanoseconds."""
        spans = [file.span for file in self._readers()]
        return min(first for first, _ in spans), max(last for _, last in spans)

    def offered_qos(self, topic: str) -> list[Qos]:
        """Return the quality of service that each publisher of a topic offered, as far as it was noted."""
        offered = [channel.qos for channel in self._channels() if channel.topic == topic]
        return list(dict.fromkeys(chain.from_iterable(offered)))

    def type_hash(self, kind: str) -> str:
        """Return the hash (REP-2016) of a message type's definition in the bag; empty if there is none."""
        for channel in self._channels():
            if channel.kind == kind and channel.definition.format is not MessageDefinitionFormat.NONE:
                with self._errors_named(), suppress(LookupError):  # rosbags has none for some types
                    return types_of(kind, channel.definition).hash_rihs01(kind)
        return ""

    def channel(self, topic: str) -> Channel:
        """Return what a topic of the bag is: its type, with the definition, and its encoding."""
        return next(channel for channel in self._channels() if channel.topic == topic)

    @cached_property
    def custom_data(self) -> dict[str, str]:
        """What the recorder noted: in metadata.yaml, or else in one of the files."""
        if self._noted:
            return self._noted
        return next(filter(None, (custom_data_in(file.metadata) for file in self._readers())), {})

    @property
    def storage(self) -> Literal["mcap", "sqlite3"]:
        """The format of its files."""
        return "mcap" if self._mcaps else "sqlite3"

    @property
    def compression(self) -> str:
        """What the chunks of an MCAP bag are compressed by; empty if they are not."""
        return next((file.compression for file in self._mcaps), "")

    def records(self, topics: Collection[str], start: int | None = None) -> Iterator[Message]:
        """
        Read the messages of some topics as :meth:`raw` does.

        Yields:
            Time of reception (ns), what is known of the topic, and the message's bytes.

        Raises:
            DataError: the bag is damaged.
        """
        sources: list[Iterator[Message]] = [file.messages(topics, start) for file in self._databases]
        if self._mcaps:
            parts = chain.from_iterable(file.parts(topics, start) for file in self._mcaps)
            sources.append(in_order(sorted(parts, key=itemgetter(0))))
        merged = sources[0] if len(sources) == 1 else heapq.merge(*sources, key=itemgetter(0))
        with self._errors_named():
            if not self._compressed:
                yield from merged
                return
            damaged = 0
            for received, channel, data in merged:
                try:
                    message = decompress(data, "zstd")
                except DataError:
                    if not self._salvage:
                        raise
                    damaged += 1
                    continue
                yield received, channel, message
            if damaged:
                self.losses.append(Loss(self.path.name, 0, 0, "zstd cannot decompress them", damaged))

    def _deserializer(self, channel: Channel) -> Callable[[bytes], Any]:
        if channel.encoding != CDR:
            raise DataError(
                f"{self.path}: {channel.topic} is encoded as {channel.encoding!r}; {CDR!r} is known"
            )
        with self._errors_named():
            known = deserializer(channel.kind, channel.definition)

        def deserialize(data: bytes) -> Any:
            try:
                return known(data)
            except MemoryError:
                raise
            except Exception as error:  # parsers of damaged bytes raise anything
                raise DataError(
                    f"{self.path}: a message on {channel.topic} is not a {channel.kind}: "
                    f"{str(error)[:200] or type(error).__name__}"
                ) from error

        return deserialize

    def _open(self, path: Path) -> None:
        if path.suffix == COMPRESSED:
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="smwm-bag-")))
            path = decompress_file(path, folder / path.stem)
        file: McapReader | SqliteReader
        try:
            if path.suffix == ".mcap":
                self._mcaps.append(file := McapReader(path, salvage=self._salvage))
            else:
                self._databases.append(file := SqliteReader(path, salvage=self._salvage))
        except Damaged as damage:
            if not self._salvage:
                raise
            self.losses.append(Loss(path.name, 0, path.stat().st_size, damage.reason))
            return
        self._stack.callback(file.close)
        self.notes += file.notes
        self.losses += file.losses

    def _readers(self) -> list[McapReader | SqliteReader]:
        return [*self._mcaps, *self._databases]

    def _channels(self) -> list[Channel]:
        return [channel for file in self._readers() for channel in file.channels]

    @contextmanager
    def _errors_named(self, file: Path | None = None) -> Iterator[None]:
        where = f"{file or self.path}"
        try:
            yield
        except Damaged as damage:
            place = f" at byte {damage.offset}" if damage.offset else ""
            hint = (
                "" if HOPELESS in damage.reason else f"`smwm bag recover {self.path}` keeps what is intact."
            )
            reason = damage.reason if HOPELESS in damage.reason else f"{damage.reason}. {hint}"
            raise DataError(f"{where}: damaged{place}: {reason}") from damage
        except OSError as error:
            raise DataError(f"{where}: the bag cannot be read ({error})") from error
        except DataError as error:
            if str(self.path) in str(error):
                raise
            raise DataError(f"{where}: {error}") from error
