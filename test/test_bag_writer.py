"""Bags as they are written: what other programs must find in them, and what a full disk or a kill leaves."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import NonSeekingReader, make_reader
from mcap.records import Chunk, DataEnd, Footer
from mcap.stream_reader import CRCValidationError, StreamReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader

from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.writer import BagWriter, Storage
from smwm_ros.errors import DataError

STRING, ARRAY = "std_msgs/msg/String", "std_msgs/msg/Float64MultiArray"
ENDLESS = QosTime(9223372036, 854775807)
OFFERED = Qos(
    QosHistory.KEEP_LAST,
    7,
    QosReliability.BEST_EFFORT,
    QosDurability.VOLATILE,
    ENDLESS,
    ENDLESS,
    QosLiveliness.AUTOMATIC,
    ENDLESS,
    False,
)
STORAGES: tuple[Storage, ...] = ("mcap", "sqlite3")
SUFFIX = {"mcap": ".mcap", "sqlite3": ".db3"}


def fill(path: Path, count: int = 20, size: int = 100, **options: Any) -> list[tuple[str, int, bytes]]:
    """Write a bag of two topics in turn; return what is in it."""
    generator = np.random.default_rng(0)
    written = []
    with BagWriter(path, **options) as bag:
        bag.add_topic("/a", STRING, OFFERED)
        bag.add_topic("/b", ARRAY)
        for number in range(count):
            written.append(("/a" if number % 2 == 0 else "/b", 1000 + number, generator.bytes(size)))
            bag.write(*written[-1])
    return written


def content(path: Path) -> list[tuple[str, int, bytes]]:
    """Read a bag by rosbags alone."""
    with Reader(path) as reader:
        return [(connection.topic, stamp, bytes(data)) for connection, stamp, data in reader.messages()]


def information(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((path / "metadata.yaml").read_text())
    return dict(found["rosbag2_bagfile_information"])


@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_are_those_of_rosbag2(tmp_path: Path, storage: Storage) -> None:
    """Every key that rosbag2's parser demands, with the values and spellings that it writes."""
    fill(tmp_path / "bag", storage=storage, custom_data={"robot": "tiny"})
    assert sorted(path.name for path in (tmp_path / "bag").iterdir()) == [
        f"bag_0{SUFFIX[storage]}",
        "metadata.yaml",
    ]
    found = information(tmp_path / "bag")
    topics = found.pop("topics_with_message_count")
    span = {
        "starting_time": {"nanoseconds_since_epoch": 1000},
        "duration": {"nanoseconds": 19},
        "message_count": 20,
    }
    assert found == {
        "version": 9,
        "storage_identifier": storage,
        **span,
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [f"bag_0{SUFFIX[storage]}"],
        "files": [{"path": f"bag_0{SUFFIX[storage]}", **span}],
        "custom_data": {"robot": "tiny"},
        "ros_distro": "rosbags",
    }
    endless = {"sec": 9223372036, "nsec": 854775807}
    assert topics[0]["message_count"] == 10
    assert topics[0]["topic_metadata"] == {
        "name": "/a",
        "type": STRING,
        "serialization_format": "cdr",
        "offered_qos_profiles": [
            {
                "history": "keep_last",
                "depth": 7,
                "reliability": "best_effort",
                "durability": "volatile",
                "deadline": endless,
                "lifespan": endless,
                "liveliness": "automatic",
                "liveliness_lease_duration": endless,
                "avoid_ros_namespace_conventions": False,
            }
        ],
        # Of ROS 2 itself, since Iron: std_msgs/msg/String is what every publisher of it announces.
        "type_description_hash": "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    }
    assert topics[1]["topic_metadata"]["offered_qos_profiles"] == []


@pytest.mark.parametrize("storage", STORAGES)
def test_rosbags_reads_every_byte(tmp_path: Path, storage: Storage) -> None:
    written = fill(tmp_path / "bag", storage=storage)
    assert content(tmp_path / "bag") == written
    with Reader(tmp_path / "bag") as reader:
        assert reader.connections[0].ext.offered_qos_profiles == [OFFERED]  # type: ignore[union-attr]


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_the_reader_of_mcap_itself_finds_every_checksum_right(tmp_path: Path, compression: Any) -> None:
    """Of chunks, of the data and of the summary: none may be left out, as rosbag2 itself does."""
    written = fill(tmp_path / "bag", count=40, size=100_000, compression=compression)
    file = tmp_path / "bag" / "bag_0.mcap"
    with file.open("rb") as stream:
        assert [
            (channel.topic, message.log_time, message.data)
            for _, channel, message in NonSeekingReader(stream, validate_crcs=True).iter_messages()
        ] == written
    with file.open("rb") as stream:
        records = list(StreamReader(stream, emit_chunks=True, validate_crcs=True).records)
    chunks = [record for record in records if isinstance(record, Chunk)]
    assert len(chunks) == 4
    assert all(chunk.uncompressed_crc for chunk in chunks)
    assert all(chunk.compression == compression.replace("none", "") for chunk in chunks)
    assert next(record.data_section_crc for record in records if isinstance(record, DataEnd))
    assert next(record.summary_crc for record in records if isinstance(record, Footer))


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    """What the checksums are for: the same byte passed unnoticed while chunks had none."""
    fill(tmp_path / "bag", compression="none")
    file = tmp_path / "bag" / "bag_0.mcap"
    damaged = bytearray(file.read_bytes())
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    index = summary.chunk_indexes[0]
    damaged[index.chunk_start_offset + index.chunk_length - 30] ^= 1
    file.write_bytes(damaged)
    with file.open("rb") as stream, pytest.raises(CRCValidationError):
        list(make_reader(stream, validate_crcs=True).iter_messages())


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_is_split_by_time(tmp_path: Path, storage: Storage) -> None:
    """Known answer: stamps 1000 ... 1019 in files of 8 ns; each is found in metadata, and by itself."""
    written = fill(tmp_path / "bag", storage=storage, split_ns=8, custom_data={"robot": "tiny"})
    files = information(tmp_path / "bag")["files"]
    assert [file["path"] for file in files] == [f"bag_{n}{SUFFIX[storage]}" for n in range(3)]
    assert [file["starting_time"]["nanoseconds_since_epoch"] for file in files] == [1000, 1008, 1016]
    assert [file["duration"]["nanoseconds"] for file in files] == [7, 7, 3]
    assert [file["message_count"] for file in files] == [8, 8, 4]
    assert content(tmp_path / "bag") == written
    with BagReader(tmp_path / "bag" / f"bag_1{SUFFIX[storage]}") as alone:
        assert list(alone.raw(["/a", "/b"])) == written[8:16]


def test_a_file_alone_tells_what_its_bag_is(tmp_path: Path) -> None:
    """The notes are in each file, written before the first message: metadata.yaml may be lost."""
    fill(tmp_path / "bag", split_ns=8, custom_data={"robot": "tiny"})
    with (tmp_path / "bag" / "bag_1.mcap").open("rb") as stream:
        first, *_, last = make_reader(stream).iter_metadata()
    assert (first.name, last.name) == ("rosbag2", "rosbag2")
    assert yaml.safe_load(first.metadata["serialized_metadata"])["custom_data"] == {"robot": "tiny"}
    assert yaml.safe_load(last.metadata["serialized_metadata"])["message_count"] == 16


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_is_split_by_size(tmp_path: Path, storage: Storage) -> None:
    """Files grow no further than a chunk or a commit beyond the bound."""
    written = []
    with BagWriter(tmp_path / "bag", storage=storage, compression="none", split_bytes=1_000_000) as bag:
        bag.add_topic("/a", STRING)
        for number in range(40):
            written.append(("/a", number, bytes([number]) * 100_000))
            bag.write(*written[-1])
            bag.flush()
        while_writing = information(tmp_path / "bag")["relative_file_paths"]
    files = sorted((tmp_path / "bag").glob(f"*{SUFFIX[storage]}"))
    assert len(files) in (4, 5)
    assert all(file.stat().st_size < 1_200_000 for file in files)
    assert while_writing == [file.name for file in files], "a bag that is cut off must know its files"
    assert content(tmp_path / "bag") == written


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3000), st.booleans()), min_size=1, max_size=60),
    st.sampled_from(STORAGES),
    st.sampled_from([0, 1, 5000]),
    st.sampled_from([0, 1, 7]),
)
def test_whatever_is_written_is_read(
    tmp_path: Path,
    messages: list[tuple[str, int, bool]],
    storage: Storage,
    split_bytes: int,
    split_ns: int,
) -> None:
    """Whatever the sizes, early flushes, splits and the moment at which a topic begins."""
    path = tmp_path / "bag"
    shutil.rmtree(path, ignore_errors=True)
    written = []
    with BagWriter(path, storage=storage, split_bytes=split_bytes, split_ns=split_ns) as bag:
        for number, (topic, size, flushed) in enumerate(messages):
            if f"/{topic}" not in bag.counts:
                bag.add_topic(f"/{topic}", STRING)
            written.append((f"/{topic}", number, bytes([number]) * size))
            bag.write(*written[-1])
            if flushed:
                bag.flush()
        counts = bag.counts
    assert content(path) == written
    assert sum(counts.values()) == information(path)["message_count"] == len(written)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_was_flushed_outlives_a_kill(tmp_path: Path, storage: Storage) -> None:
    """The files as they are at that moment, with no help from the writer; and without SQLite's journal."""
    with BagWriter(tmp_path / "bag", storage=storage, custom_data={"robot": "tiny"}) as bag:
        bag.add_topic("/a", STRING)
        for number in range(30):
            bag.write("/a", number, bytes([number]) * 100_000)
            if number == 19:
                bag.flush()
        (tmp_path / "killed").mkdir()
        for file in (tmp_path / "bag").iterdir():
            if not file.name.endswith("-journal"):
                shutil.copy(file, tmp_path / "killed")
    with BagReader(tmp_path / "killed") as left:
        assert left.custom_data == {"robot": "tiny"}
        kept = [data[0] for _, _, data in left.raw(["/a"])]
    assert kept[:20] == list(range(20))
    if storage == "sqlite3":
        database = sqlite3.connect(f"file:{tmp_path / 'killed' / 'bag_0.db3'}?immutable=1", uri=True)
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()


def test_one_folder_has_one_writer(tmp_path: Path) -> None:
    """Of many that begin at the same moment, exactly one gets it; the others get a sentence."""
    start, outcomes = threading.Barrier(8), []

    def write() -> None:
        start.wait()
        try:
            with BagWriter(tmp_path / "deep" / "bag"):
                outcomes.append("written")
        except DataError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("written") == 1
    assert sum("exists already, and a bag is never overwritten" in outcome for outcome in outcomes) == 7


@pytest.mark.parametrize("storage", STORAGES)
def test_a_disk_that_fails_leaves_what_was_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: Storage
) -> None:
    """An error of the system names the bag, the cause and what to do, and the rest stays readable."""
    error = {
        "mcap": OSError(28, "No space left on device"),
        "sqlite3": sqlite3.OperationalError("disk is full"),
    }

    def fail(*_: object) -> None:
        raise error[storage]

    with BagWriter(tmp_path / "bag", storage=storage) as bag:
        bag.add_topic("/a", STRING)
        for number in range(5):
            bag.write("/a", number, b"x")
        bag.flush()
        monkeypatch.setattr(bag._file, "write", fail)
        with pytest.raises(DataError, match=r"bag: writing the bag failed \(.*; make room on the disk"):
            bag.write("/a", 5, b"x")
        bag.close = bag.abort  # type: ignore[method-assign]
    with BagReader(tmp_path / "bag") as left:
        assert left.count(["/a"]) == 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return where a file system of 3 MB is mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_keeps_every_chunk_before(small_disk: Path, storage: Storage) -> None:
    """A real one: the kernel says so in the middle of a chunk, or of a commit."""
    generator = np.random.default_rng(0)
    sent: list[tuple[str, int, bytes]] = []
    flushed = 0
    bag = BagWriter(small_disk / "bag", storage=storage)
    bag.add_topic("/a", STRING)

    def write_ten() -> None:
        for _ in range(10):
            sent.append(("/a", len(sent), generator.bytes(10_000)))
            bag.write(*sent[-1])
        bag.flush()

    with pytest.raises(DataError, match=r"No space left on device|disk is full"):  # noqa: PT012
        for _ in range(100):
            write_ten()
            flushed = len(sent)
    bag.abort()
    assert flushed > 100
    with BagReader(small_disk / "bag") as left:
        kept = list(left.raw(["/a"]))
    assert kept == sent[: len(kept)]
    assert len(kept) >= flushed
