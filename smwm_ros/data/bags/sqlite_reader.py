"""Reading SQLite files of bags, also those that were not closed, or are damaged."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import MessageDefinition

from smwm_ros.data.bags.compression import LARGEST
from smwm_ros.data.bags.storage import (
    CDR,
    FORMATS,
    HOPELESS,
    LAST_STAMP,
    NO_DEFINITION,
    Channel,
    Damaged,
    Loss,
    Message,
    parse_offered_qos,
)

JOURNALS = ("-journal", "-wal")
STEPS_PER_BYTE = 50
"""Instructions of SQLite's machine that a sound file needs at most; a damaged one may lead in circles."""
STEPS_AT_LEAST = 10**7
STEPS_AT_ONCE = 10**5
SMALLEST_PAGE = 512
"""Bytes; there cannot be more damaged places than pages."""
LARGEST_NUMBER = 2**62
"""Above the number of any row that was written."""


class SqliteReader:
    """
    An SQLite file of a bag that was opened for reading.

    A file beside which a journal lies was not closed: it is read in a temporary copy, in which SQLite
    completes or undoes what was going on. The file itself is never written to.

    Attributes:
        path: of the file.
        size: of the file, bytes.
        notes: what is wrong with the file and costs no message, in words.
        losses: what cannot be read.
        metadata: what the recorder noted in the file (YAML); empty if it did not.
        span: when the first and the last message were received (ns).
    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        """
        Open a file.

        Args:
            path: of the file.
            salvage: go around what is damaged.

        Raises:
            DataError: it is damaged, or no bag.
            OSError: it cannot be read.
        """
        self.path = path
        self.notes: list[str] = []
        self.losses: list[Loss] = []
        self.metadata = ""
        self.span = (LAST_STAMP, 0)
        self._salvage = salvage
        self._stack = ExitStack()
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)
        try:
            self.size = path.stat().st_size
            with self._judged():
                self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    @property
    def channels(self) -> Collection[Channel]:
        """The topics that it announces."""
        return self._channels.values()

    def count(self, topic: str) -> int:
        """Return the number of messages on a topic."""
        return sum(
            self._counts[number] for number, channel in self._channels.items() if channel.topic == topic
        )

    def messages(self, topics: Collection[str], start: int | None = None) -> Iterator[Message]:
        """
        Read the messages of some topics in the order they were received.

        Raises:
            Damaged: a part cannot be read.
        """
        wanted = {number: channel for number, channel in self._channels.items() if channel.topic in topics}
        self._steps = 0
        with self._judged():
            if self._salvage:
                yield from self._salvaged(wanted)
                return
            query = "SELECT topic_id, timestamp, data FROM messages"
            if start is not None:
                query += f" WHERE timestamp >= {start:d}"
            for number, stamp, data in self._database.execute(query + " ORDER BY timestamp"):
                if number in wanted:
                    yield self._message(wanted[number], stamp, data)

    def _open(self) -> None:
        path = self.path
        beside = [path.with_name(path.name + ending) for ending in JOURNALS]
        if any(journal.exists() and journal.stat().st_size for journal in beside):
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="smwm-bag-")))
            for each in (self.path, *(journal for journal in beside if journal.exists())):
                shutil.copyfile(each, folder / each.name)
            path = folder / self.path.name
            self.notes.append(
                f"{self.path.name} was not closed; it was read as SQLite mends it, in a temporary copy"
            )
            options = "mode=rw"
        else:
            options = "mode=ro&immutable=1"
        uri = path.absolute().as_uri()
        self._database = sqlite3.connect(f"{uri}?{options}", uri=True, check_same_thread=False)
        self._stack.callback(self._database.close)
        self._database.text_factory = lambda text: text.decode(errors="strict")
        self._steps = 0
        self._most_steps = STEPS_AT_LEAST + STEPS_PER_BYTE * self.size
        self._database.set_progress_handler(self._step, STEPS_AT_ONCE)
        if sys.version_info >= (3, 11):
            # No text or blob can be larger than the file; a function in the file's tables could make one.
            self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(LARGEST, path.stat().st_size + 2**20))
        self._database.execute("PRAGMA trusted_schema = OFF")
        self._database.execute("PRAGMA cell_size_check = ON")
        self._read_topics()
        if self._salvage:
            self._find_rows()
            return
        self._counts: Counter[int] = Counter()
        for number, count in self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY 1"):
            self._counts[self._known(number)] = count
        first, last = self._database.execute("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        if first is not None:
            self.span = (self._stamp(first), self._stamp(last))

    def _read_topics(self) -> None:
        kinds = dict(self._database.execute("SELECT name, type FROM sqlite_master").fetchall())
        if kinds.get("messages") != "table" or kinds.get("topics") != "table":
            raise Damaged(0, f"it has no tables of topics and messages. {HOPELESS}")
        definitions = {}
        if kinds.get("message_definitions") == "table":
            for kind, language, text in self._database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ):
                if language in FORMATS and isinstance(text, str):
                    definitions[kind] = MessageDefinition(FORMATS[language], text)
        columns = [row[1] for row in self._database.execute("PRAGMA table_info(topics)")]
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        self._channels: dict[int, Channel] = {}
        for number, name, kind, encoding, offered in self._database.execute(
            f"SELECT id, name, type, serialization_format, {qos} FROM topics ORDER BY id"
        ):
            if not all(isinstance(text, str) for text in (name, kind, encoding, offered)):
                raise Damaged(0, "the table of topics does not hold texts")
            self._channels[number] = Channel(
                name, kind, definitions.get(kind, NO_DEFINITION), parse_offered_qos(offered), encoding or CDR
            )
        if kinds.get("metadata") == "table":
            for (text,) in self._database.execute("SELECT metadata FROM metadata ORDER BY id"):
                self.metadata = text if isinstance(text, str) else ""

    def _find_rows(self) -> None:
        """List the rows that can be read, in the order of their times."""
        numbers, stamps = array("q"), array("q")
        self._counts = Counter()
        bad = gaps = 0
        damage = ""
        following = -LARGEST_NUMBER
        while True:
            try:
                for row, number, stamp, data in self._database.execute(
                    "SELECT rowid, topic_id, timestamp, data FROM messages NOT INDEXED WHERE rowid >= ? "
                    "ORDER BY rowid",
                    (following,),
                ):
                    if row < following:
                        raise sqlite3.DatabaseError("rows lie out of order")
                    following = row + 1
                    if number not in self._channels or not isinstance(data, bytes) or not _is_stamp(stamp):
                        bad += 1
                        continue
                    numbers.append(row)
                    stamps.append(stamp)
                    self._counts[number] += 1
                break
            except sqlite3.DatabaseError as error:
                gaps += 1
                damage = str(error)
                beyond = self._beyond(following) if gaps <= self.size // SMALLEST_PAGE else None
                if beyond is None:
                    break
                following = beyond
        if bad:
            self.losses.append(Loss(self.path.name, 0, 0, "rows that are no messages", bad))
        if gaps:
            self.losses.append(Loss(self.path.name, 0, 0, f"{gaps} parts cannot be read ({damage})"))
        if stamps:
            order = np.argsort(np.frombuffer(stamps, np.int64), kind="stable")
            self._rows = np.frombuffer(numbers, np.int64)[order]
            self.span = (min(stamps), max(stamps))

    def _beyond(self, row: int) -> int | None:
        """Find the first row after a damaged place; None if there is none."""
        step = 1
        while not self._readable(row + step):
            step *= 2
            if row + step > LARGEST_NUMBER:
                return None
        low, high = row + step // 2, row + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._readable(middle) else (middle, high)
        found = self._first(high)
        return None if found is None else max(high, found)

    def _readable(self, row: int) -> bool:
        try:
            self._first(row)
        except sqlite3.DatabaseError:
            return False
        return True

    def _first(self, row: int) -> int | None:
        found = self._database.execute(
            "SELECT rowid, topic_id, timestamp, data FROM messages NOT INDEXED WHERE rowid >= ? "
            "ORDER BY rowid LIMIT 1",
            (row,),
        ).fetchone()
        return None if found is None else int(found[0])

    def _salvaged(self, wanted: dict[int, Channel]) -> Iterator[Message]:
        for row in self._rows:
            found = self._database.execute(
                "SELECT topic_id, timestamp, data FROM messages NOT INDEXED WHERE rowid = ?", (int(row),)
            ).fetchone()
            if found is not None and found[0] in wanted:
                yield self._message(wanted[found[0]], *found[1:])

    def _message(self, channel: Channel, stamp: Any, data: Any) -> Message:
        if not isinstance(data, bytes):
            raise Damaged(0, f"a row of {channel.topic} holds no message")
        return self._stamp(stamp), channel, data

    def _known(self, number: Any) -> int:
        if number not in self._channels:
            raise Damaged(0, "a message is of a topic that is not announced")
        return int(number)

    @staticmethod
    def _stamp(stamp: Any) -> int:
        if not _is_stamp(stamp):
            raise Damaged(0, "a message is of a time that no clock can show")
        return int(stamp)

    def _step(self) -> bool:
        self._steps += STEPS_AT_ONCE
        return self._steps > self._most_steps

    @contextmanager
    def _judged(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise Damaged(0, f"SQLite cannot read it: {error}") from error


def _is_stamp(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= LAST_STAMP
