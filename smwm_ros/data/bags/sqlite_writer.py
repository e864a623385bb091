"""One SQLite file of a bag, as rosbag2's sqlite3 plugin lays it out (version 4 of its schema)."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from smwm_ros.data.bags.metadata import VERSION, Metadata, Topic, as_yaml

SCHEMA = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    serialization_format TEXT NOT NULL,
    offered_qos_profiles TEXT NOT NULL,
    type_description_hash TEXT NOT NULL
);
CREATE TABLE message_definitions(
    id INTEGER PRIMARY KEY,
    topic_type TEXT NOT NULL,
    encoding TEXT NOT NULL,
    encoded_message_definition TEXT NOT NULL,
    type_description_hash TEXT NOT NULL
);
CREATE TABLE messages(
    id INTEGER PRIMARY KEY,
    topic_id INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema(schema_version, ros_distro) VALUES (4, 'rosbags');
"""
# Readers of bags open files without looking for a journal, so what a killed process leaves must not
# need one: nothing reaches the file but in commits (no spilling of the cache), and there is no
# write-ahead log. Only a kill in the middle of a commit leaves a journal, which SQLite undoes when it
# opens the file for writing. That the disk has it is not waited for: a process that dies takes nothing
# with it.
SETTINGS = """
PRAGMA page_size = 32768;
PRAGMA cache_spill = OFF;
PRAGMA synchronous = OFF;
"""


class SqliteFile:
    """
    A file that is being written; ``flush`` commits. There is no compression.

    Methods raise sqlite3.Error when the disk fails.
    """

    def __init__(self, path: Path, metadata: Metadata) -> None:
        """
        Create the file.

        Args:
            path: it must not exist.
            metadata: of the bag, as far as they are known.
        """
        self._path = path
        self._topics: dict[str, int] = {}
        self._definitions: set[str] = set()
        path.touch(exist_ok=False)
        # The thread that writes need not be the one that opens.
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.executescript(SETTINGS + SCHEMA)
        self._describe(metadata)
        self._database.commit()

    @property
    def size(self) -> int:
        """Bytes so far, without what is not yet committed."""
        return self._path.stat().st_size

    def add_topic(self, topic: Topic) -> None:
        """Announce a topic."""
        if topic.kind not in self._definitions:
            self._definitions.add(topic.kind)
            self._database.execute(
                "INSERT INTO message_definitions"
                "(topic_type, encoding, encoded_message_definition, type_description_hash)"
                "VALUES (?, 'ros2msg', ?, ?)",
                (topic.kind, topic.definition, topic.digest),
            )
        number = len(self._topics) + 1
        self._database.execute(
            "INSERT INTO topics VALUES (?, ?, ?, 'cdr', ?, ?)",
            (number, topic.name, topic.kind, as_yaml(topic.offered_qos), topic.digest),
        )
        self._topics[topic.name] = number

    def write(self, topic: str, received: int, data: bytes | memoryview) -> None:
        """Add a message of an announced topic, received at a time (ns)."""
        self._database.execute(
            "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)",
            (self._topics[topic], received, data),
        )

    def flush(self) -> None:
        """Commit."""
        self._database.commit()

    def close(self, metadata: Metadata) -> None:
        """Write the metadata and close the file."""
        self._describe(metadata)
        self._database.commit()
        self._database.close()

    def abort(self) -> None:
        """Close the file as the last commit left it."""
        with suppress(sqlite3.Error):
            self._database.rollback()
        with suppress(sqlite3.Error):
            self._database.close()

    def _describe(self, metadata: Metadata) -> None:
        # One row: rosbag2 reads the last.
        self._database.execute("INSERT OR REPLACE INTO metadata VALUES (1, ?, ?)", (VERSION, metadata.text()))
