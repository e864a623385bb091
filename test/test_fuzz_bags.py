"""No bag, however damaged or malicious, does more than be refused, with a message."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lz4.frame
import pytest
from backports import zstd
from recordings import PERIOD, Recording, robot
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from smwm_ros.cli import bench_fuzz as module
from smwm_ros.cli.bag_mutations import BOMBS, METADATA_BOMBS
from smwm_ros.cli.bench_fuzz import bench_fuzz
from smwm_ros.cli.small_bags import Files, small_bags, write_files
from smwm_ros.data.bags import compression
from smwm_ros.data.bags import mcap_records as mcap
from smwm_ros.data.bags.compression import decompress
from smwm_ros.data.bags.definitions import deserializer, lacking
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.storage import Damaged
from smwm_ros.data.bags.yaml_text import load_yaml
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.errors import DataError


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    return small_bags(tmp_path_factory.mktemp("bases"))[1]


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fail if the block has taken more memory (bytes) at any time, whatever the process had before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def test_two_hundred_damaged_bags() -> None:
    """In processes with little memory: no crash, no hang, and no damage that checksums should show."""
    report = bench_fuzz(200, seed=7, workers=2).to_json()
    assert report["faults"] == []
    assert (report["count"], report["crashes"], report["hangs"]) == (200, 0, 0)
    assert min(report[outcome] for outcome in ("refused", "recovered", "unharmed", "undetected")) > 5
    assert report["undetected_despite_checksums"] == 0


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("raise ValueError('oh')", "crash"),
        ("import os; os.kill(os.getpid(), 9)", "crash"),
        ("bytearray(2**33)", "crash"),
        ("import time; time.sleep(60)", "hang"),
    ],
    ids=["exception", "death", "memory", "hang"],
)
def test_faults_of_a_reader_are_seen(monkeypatch: pytest.MonkeyPatch, fault: str, outcome: str) -> None:
    """The bench must be able to fail: an exception, the end of the process, the memory, a hang."""
    monkeypatch.setattr(module, "PATIENCE", 2.0)
    monkeypatch.setattr(module, "_messages", lambda path: exec(fault))
    report = bench_fuzz(1, workers=1)
    assert [case.outcome for case in report.cases] == [outcome]
    assert len(report.to_json()["faults"]) == 1


# What was found, and must not come back


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_bomb_is_not_decompressed(kind: str) -> None:
    """Rosbags lets a chunk of 8 kB take 256 MB, whatever it says its size is."""
    library = {"zstd": zstd, "lz4": lz4.frame}[kind]
    bomb = library.compress(bytes(2**28))
    with at_most(3 * compression.SMALL):
        for size in (100, 2**20, None if kind == "zstd" else 2**20, 2**50):
            with pytest.raises(DataError, match=r"believed|come out"):
                decompress(bomb, kind, size)
    with pytest.raises(AssertionError), at_most(3 * compression.SMALL):  # it is seen where it is
        library.decompress(bomb)


def test_what_does_not_end_is_refused() -> None:
    whole = zstd.compress(bytes(1000))
    assert decompress(whole, "zstd", 1000) == bytes(1000)
    for data in (whole[:-1], whole + b"x", b"", b"x" * 50):
        with pytest.raises(DataError):
            decompress(data, "zstd", 1000)


@pytest.mark.parametrize("text", METADATA_BOMBS, ids=range(len(METADATA_BOMBS)))
def test_metadata_bombs_are_defused(tmp_path: Path, bags: dict[str, Files], text: str) -> None:
    """Deep nesting ends PyYAML's C loader with a segmentation fault; merges fill the memory."""
    write_files(tmp_path / "bag", {**bags["zstd"], "metadata.yaml": text.encode()})
    try:
        with BagReader(tmp_path / "bag") as bag:
            assert sum(1 for _ in bag.raw(bag.topics)) <= 24
    except DataError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017


def test_yaml_is_still_yaml() -> None:
    assert load_yaml("{a: [1, &x {b: c}, *x]}") == {"a": [1, {"b": "c"}, {"b": "c"}]}
    with pytest.raises(ValueError, match="merged"):
        load_yaml("{a: &a {b: c}, <<: *a}")


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_definition_bombs_are_defused(text: str) -> None:
    """
    Rosbags makes code for every item of an array: string[100000000] fills the memory; items without a
    byte could be there billions of times.
    """
    definition = MessageDefinition(MessageDefinitionFormat.MSG, text.format("=" * 80))
    with at_most(2**28):
        try:
            deserialize = deserializer("p/msg/T", definition)
        except DataError as error:
            assert "p/msg/T" in str(error)  # noqa: PT017
        else:
            with pytest.raises(Exception, match=r".*"):
                deserialize(b"\x00\x01\x00\x00" + b"\xff" * 50)


def test_names_of_types_are_names() -> None:
    """They become Python code in rosbags."""
    definition = MessageDefinition(MessageDefinitionFormat.MSG, "uint8 x")
    for name in ("x", "p/msg/T\nimport os", "p/msg/T'", "", "p/msg/T q"):
        with pytest.raises(DataError, match="is no name"):
            deserializer(name, definition)


def test_a_type_defined_otherwise_is_refused(tmp_path: Path, bags: dict[str, Files]) -> None:
    """A damaged definition that could still be read made ingest fail with an AttributeError."""
    data = bags["bare"]["bag_0.mcap"].replace(b"uint8[] data", b"uint8[] dada")
    write_files(tmp_path / "bag", {**bags["bare"], "bag_0.mcap": data})
    with pytest.raises(DataError, match=r"sensor_msgs/msg/Image .*otherwise than in ROS 2: data is missing"):
        ingest([tmp_path / "bag"], tmp_path / "store.h5", jobs=1)


@pytest.mark.parametrize(
    ("fields", "lacked"),
    [
        ("builtin_interfaces/Time stamp\nstring frame_id\nuint8 more", ""),
        ("builtin_interfaces/Time stamp\nstring frame", "frame_id"),
        ("builtin_interfaces/Time stamp\nuint8 frame_id", "frame_id"),
    ],
)
def test_only_more_fields_than_known_are_no_fault(fields: str, lacked: str) -> None:
    """Later distributions add some."""
    time = f"\n{'=' * 80}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
    definition = MessageDefinition(MessageDefinitionFormat.MSG, fields + time)
    assert lacking("std_msgs/msg/Header", definition) == lacked


def test_chunks_in_any_order_are_read_in_order(tmp_path: Path) -> None:
    """Messages that overlap from chunk to chunk, as where a clock was set back: every one, by its time."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(6):
            bag.tick((number + 1) * PERIOD, number)
            bag.writer.flush()
    data = (tmp_path / "bag" / "bag_0.mcap").read_bytes()
    records = mcap.records(data[8:-8], 0)
    places = [slice(begin - 1, end + 8) for opcode, begin, end in records if opcode == mcap.CHUNK]
    first, second = places[1], places[4]
    between = data[first.stop : second.start]
    swapped = data[: first.start] + data[second] + between + data[first] + data[second.stop :]
    with BagReader(tmp_path / "bag") as bag:
        expected = list(bag.raw(bag.topics))
    (tmp_path / "bag" / "bag_0.mcap").write_bytes(swapped)
    with BagReader(tmp_path / "bag") as bag:
        assert list(bag.raw(bag.topics)) == expected
        assert list(bag.raw(bag.topics, start=expected[7][1])) == expected[7:]


def test_a_record_that_claims_the_world_is_not_believed(tmp_path: Path, bags: dict[str, Files]) -> None:
    """Lengths beyond the file, and chunks that would fill the memory."""
    data = bags["zstd"]["bag_0.mcap"]
    places = [begin + 8 for opcode, begin, _ in mcap.records(data[8:-8], 0) if opcode == mcap.CHUNK]
    file = tmp_path / "x.mcap"
    for place, value in ((places[1] - 8, 2**62), (places[1] + 16, 2**40), (places[1] - 8, 2**64 - 1)):
        file.write_bytes(data[:place] + struct.pack("<Q", value) + data[place + 8 :])
        with pytest.raises(DataError, match=r"goes beyond the end|not believed"):
            BagReader(file)


@pytest.mark.parametrize(
    "content", [bytes(2**25), mcap.HEAD.pack(0x90, 0) * 2**22], ids=["zeros", "private ones"]
)
def test_endless_records_are_not_walked_through(content: bytes) -> None:
    """A chunk of zeros is a million records of kind 0; such a chunk compresses to a few kilobytes."""
    with pytest.raises(Damaged, match="does not hold records"):
        for _ in mcap.records(content, 7):
            pass
