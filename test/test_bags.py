"""Bags are written so that no kill loses more than the last moment, and read whatever became of them."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import Writer as PlainWriter
from recordings import PERIOD, Recording, action, joints, numbered, record, robot
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.recover import recover
from smwm_ros.data.bags.summary import summarise
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.errors import DataError

IMAGES, ACTIONS = "/camera/image_raw", "/applied_action"


def read(path: Path, *topics: str) -> list[tuple[str, int, Any]]:
    with BagReader(path) as bag:
        return list(bag.messages(topics or bag.topics))


def raw_bytes(path: Path) -> list[tuple[str, int, bytes]]:
    with BagReader(path) as bag:
        return list(bag.raw(bag.topics))


def raw(path: Path) -> list[tuple[str, int, bytes]]:
    """Read with rosbags alone, as other tools do."""
    with Reader(path) as reader:
        return [(c.topic, stamp, bytes(data)) for c, stamp, data in reader.messages()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bag of 40 ticks."""
    return record(tmp_path_factory.mktemp("bags") / "bag", ticks=40)


@pytest.mark.parametrize("compress", [True, False])
def test_messages_are_kept_byte_for_byte(tmp_path: Path, compress: bool) -> None:
    """A recorder must not change what it records."""
    sent = []
    with BagWriter(tmp_path / "bag", compress=compress) as bag:
        bag.add_topic("/x", "std_msgs/msg/Float64MultiArray")
        for number in range(300):
            data = np.random.default_rng(number).bytes(9000)
            bag.write("/x", 1000 + number, data)
            sent.append(("/x", 1000 + number, data))
    assert raw(tmp_path / "bag") == sent
    assert bag.counts == {"/x": 300}


def test_a_bag_is_laid_out_as_rosbag2_does(whole: Path) -> None:
    """So that ros2 bag and Foxglove open it: folder, name.mcap, metadata.yaml of version 9."""
    assert sorted(path.name for path in whole.iterdir()) == ["bag_0.mcap", "metadata.yaml"]
    information = yaml.safe_load((whole / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (information["version"], information["storage_identifier"]) == (9, "mcap")
    assert information["message_count"] == 120
    assert information["relative_file_paths"] == ["bag_0.mcap"]
    topics = {t["topic_metadata"]["name"]: t for t in information["topics_with_message_count"]}
    assert topics[ACTIONS]["message_count"] == 40
    assert topics[ACTIONS]["topic_metadata"]["type"] == "smwm_ros/msg/AppliedAction"
    assert topics[ACTIONS]["topic_metadata"]["type_description_hash"].startswith("RIHS01_")


def test_messages_come_back_with_their_fields(whole: Path) -> None:
    """Our own AppliedAction too, whose definition no distribution has."""
    topic, _, message = read(whole, ACTIONS)[7]
    assert topic == ACTIONS
    assert message.header.stamp.nanosec == 8 * PERIOD
    assert message.values.tolist() == [7.0, 7.5]
    image = read(whole, IMAGES)[7][2]
    assert (image.encoding, image.step, len(image.data)) == ("rgb8", 36, 432)
    assert [stamp for _, stamp, _ in read(whole)] == sorted(stamp for _, stamp, _ in read(whole))


def test_counts_are_known_before_reading(whole: Path) -> None:
    with BagReader(whole) as bag:
        assert bag.count([IMAGES]) == 40
        assert bag.count(bag.topics) == 120
        assert bag.topics[IMAGES] == "sensor_msgs/msg/Image"
        assert bag.notes == []


def test_the_qos_of_publishers_is_noted(tmp_path: Path) -> None:
    endless = QosTime(9223372036, 854775807)
    offered = Qos(
        QosHistory.KEEP_LAST,
        5,
        QosReliability.BEST_EFFORT,
        QosDurability.VOLATILE,
        endless,
        endless,
        QosLiveliness.AUTOMATIC,
        endless,
        False,
    )
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/x", "std_msgs/msg/String", offered)
        bag.write("/x", 1, b"\x00\x01\x00\x00\x01\x00\x00\x00\x00")
    with Reader(tmp_path / "bag") as reader:
        assert reader.connections[0].ext.offered_qos_profiles == [offered]  # type: ignore[union-attr]


def test_sqlite_bags_are_read(tmp_path: Path) -> None:
    """With the definitions left out, as recorders do that cannot find them."""
    types = message_types()
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        made = action(5, [1.0, 2.0])
        connection = writer.add_connection(ACTIONS, made.__msgtype__, typestore=types)
        writer.write(connection, 5, types.serialize_cdr(made, made.__msgtype__))
    with sqlite3.connect(next((tmp_path / "bag").glob("*.db3"))) as database:
        database.execute("DELETE FROM message_definitions")
    assert read(tmp_path / "bag", ACTIONS)[0][2].values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_bags_compressed_as_rosbag2_can_are_read(
    tmp_path: Path, storage: StoragePlugin, mode: CompressionMode
) -> None:
    """Whole files or single messages; damage to them is named as everywhere."""
    types = message_types()
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        made = action(5, [1.0, 2.0])
        connection = writer.add_connection(ACTIONS, made.__msgtype__, typestore=types)
        for stamp in range(3):
            writer.write(connection, stamp, types.serialize_cdr(made, made.__msgtype__))
    assert [message.values.tolist() for _, _, message in read(tmp_path / "bag", ACTIONS)] == 3 * [[1.0, 2.0]]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_chunks_are_read_however_they_are_compressed(tmp_path: Path, compression: Any) -> None:
    sent = []
    with BagWriter(tmp_path / "bag", compression=compression) as bag:
        bag.add_topic("/x", "std_msgs/msg/Float64MultiArray")
        for number in range(300):
            data = np.random.default_rng(number // 3).bytes(9000)
            bag.write("/x", 1000 + number, data)
            sent.append(("/x", 1000 + number, data))
    with BagReader(tmp_path / "bag") as reader:
        assert reader.compression == ("" if compression == "none" else compression)
        assert list(reader.raw(["/x"])) == sent
        assert list(reader.raw(["/x"], start=1250)) == sent[250:]
        assert reader.span == (1000, 1299)


def test_other_languages_are_no_fault(tmp_path: Path) -> None:
    """Foxglove's tools put JSON beside ROS 2 messages; only those who read such a topic are refused."""
    types = message_types()
    made = action(5, [1.0, 2.0])
    with (tmp_path / "x.mcap").open("wb") as file:
        writer = PlainWriter(file)
        writer.start(profile="ros2")
        other = writer.register_channel("/other", "json", writer.register_schema("o", "jsonschema", b"{}"))
        text, _ = types.generate_msgdef(made.__msgtype__, ros_version=2)
        kind = writer.register_schema(made.__msgtype__, "ros2msg", text.encode())
        actions = writer.register_channel(ACTIONS, "cdr", kind)
        writer.add_message(other, 1, b"{}", 1)
        writer.add_message(actions, 2, bytes(types.serialize_cdr(made, made.__msgtype__)), 2)
        writer.finish()  # type: ignore[no-untyped-call]
    assert read(tmp_path / "x.mcap", ACTIONS)[0][2].values.tolist() == [1.0, 2.0]
    assert raw_bytes(tmp_path / "x.mcap")[0] == ("/other", 1, b"{}")
    assert summarise(tmp_path / "x.mcap", check=True)["whole"], "a file alone needs no metadata.yaml"
    with pytest.raises(DataError, match="/other is encoded as 'json'"):
        read(tmp_path / "x.mcap", "/other")
    made_whole = recover(tmp_path / "x.mcap", tmp_path / "new")
    assert made_whole.topics == {ACTIONS: 1}
    assert "/other (o, json) has no place in a bag of ROS 2" in str(made_whole.losses[0])


def test_a_file_alone_is_a_bag(whole: Path) -> None:
    assert len(read(whole / "bag_0.mcap")) == 120
    with BagReader(whole / "bag_0.mcap") as bag:
        assert "robot_contract" in bag.custom_data


def test_a_bag_without_metadata_is_read(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "bag_0.mcap").write_bytes((whole / "bag_0.mcap").read_bytes())
    with BagReader(tmp_path) as bag:
        assert bag.count(bag.topics) == 120
        assert "metadata.yaml is missing" in bag.notes[0]


# What goes wrong


def try_to_read(path: Path) -> tuple[bool, list[tuple[str, int, Any]]]:
    """Return whether a bag is refused, by a DataError that names it, and else its messages."""
    try:
        return False, read(path, ACTIONS)
    except DataError as error:
        if str(path) not in str(error):
            raise
        return True, []


def killed_at(path: Path, flushes: int) -> Path:
    """Write a bag, flushing after every ten ticks, and leave it as a kill would; the rest is lost."""
    with Recording(path, robot()) as bag:
        for number in range(10 * flushes + 5):
            bag.tick((number + 1) * PERIOD, number)
            if number % 10 == 9:
                bag.writer.flush()
        bag.writer.close = bag.writer.abort  # type: ignore[method-assign]
    return path


def test_a_cut_off_bag_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path = killed_at(tmp_path / "bag", flushes=3)
    before = (path / "bag_0.mcap").read_bytes()
    with BagReader(path) as bag:
        assert [m.values[0] for _, _, m in bag.messages([ACTIONS])] == list(range(30))
        assert bag.count([ACTIONS]) == 30
        assert "bag_0.mcap was cut off" in bag.notes[0]
        assert "robot_contract" in bag.custom_data, "noted at the start, not at the end"
    assert (path / "bag_0.mcap").read_bytes() == before, "reading mends nothing in the file"


def test_zeros_after_a_power_cut_are_not_data(tmp_path: Path) -> None:
    """File systems may give a file its length before its contents."""
    path = killed_at(tmp_path / "bag", flushes=2)
    with (path / "bag_0.mcap").open("ab") as file:
        file.write(bytes(100_000))
    assert [message.values[0] for _, _, message in read(path, ACTIONS)] == list(range(20))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_wherever_a_bag_is_cut_what_is_left_is_true(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Either a DataError, or messages that were recorded, from the first on; nothing else, ever."""
    content = (whole / "bag_0.mcap").read_bytes()
    path = tmp_path / "cut.mcap"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refused, messages = try_to_read(path)
    assert refused or [m.values[0] for _, _, m in messages] == list(range(len(messages)))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_never_escape_as_something_else(
    whole: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """A damaged bag is refused with its name, not with a parser's struct.error."""
    content = bytearray((whole / "bag_0.mcap").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped.mcap"
    path.write_bytes(content)
    try_to_read(path)


def test_kill_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    """A real kill -9 of a process that writes and flushes."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()

    def child() -> None:
        bag = Recording(tmp_path / "bag", robot())
        for number in range(10**6):
            bag.tick((number + 1) * PERIOD, number)
            if number % 20 == 19:
                bag.writer.flush()
                sender.send(number + 1)

    process = context.Process(target=child)
    process.start()
    deadline = time.monotonic() + 20
    flushed = 0
    while flushed < 200 and time.monotonic() < deadline:
        if receiver.poll(1):
            flushed = receiver.recv()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)
    while receiver.poll():
        flushed = receiver.recv()
    values = [message.values[0] for _, _, message in read(tmp_path / "bag", ACTIONS)]
    assert values == list(range(len(values)))
    assert flushed <= len(values) <= flushed + 20


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    """And says what happened; every message that was handed over before is there."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk that is full
        number = 0
        try:
            with Recording(tmp_path / "bag", robot()) as bag:
                for number in range(10**6):
                    noise = np.random.default_rng(number).integers(0, 256, 500)
                    bag.tick((number + 1) * PERIOD, number, joints=joints(number, noise, names=["a"] * 500))
                    bag.writer.flush()
        except BaseException as error:
            sender.send((type(error).__name__, str(error), number))

    process = context.Process(target=child)
    process.start()
    assert receiver.poll(30)
    kind, message, written = receiver.recv()
    process.join(10)
    assert (kind, process.exitcode) == ("DataError", 0)
    assert "File too large" in message
    assert str(tmp_path / "bag") in message
    values = [m.values[0] for _, _, m in read(tmp_path / "bag", ACTIONS)]
    assert values == list(range(written))
    assert written > 10


def test_an_existing_folder_is_never_written_into(whole: Path) -> None:
    before = (whole / "bag_0.mcap").read_bytes()
    with pytest.raises(DataError, match="exists already"):
        BagWriter(whole)
    assert (whole / "bag_0.mcap").read_bytes() == before


def test_an_unknown_message_type_is_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag, pytest.raises(DataError, match="'acme_msgs/msg/Rocket'"):
        bag.add_topic("/x", "acme_msgs/msg/Rocket")


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such bag"):
        BagReader(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"not a bag: neither metadata\.yaml"):
        BagReader(tmp_path)
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(DataError, match=r"not a bag; give a bag's folder, or an \.mcap"):
        BagReader(tmp_path / "x.txt")
    (tmp_path / "x.mcap").write_text("hello")
    with pytest.raises(DataError, match="Nothing can be recovered"):
        BagReader(tmp_path / "x.mcap")
    (tmp_path / "x.db3").write_text("hello")
    with pytest.raises(DataError, match="SQLite cannot read it"):
        BagReader(tmp_path / "x.db3")


def test_an_empty_bag_is_refused(tmp_path: Path) -> None:
    """With topics or without."""
    with BagWriter(tmp_path / "bag"):
        pass
    with pytest.raises(DataError, match="empty"):
        BagReader(tmp_path / "bag")
    with BagWriter(tmp_path / "other") as bag:
        bag.add_topic("/x", "std_msgs/msg/String")
    with pytest.raises(DataError, match="empty"):
        BagReader(tmp_path / "other")


@pytest.mark.parametrize("text", ["", "hello", "rosbag2_bagfile_information: {version: 9}", "a: [", "\x00"])
def test_broken_metadata_are_named(whole: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "bag_0.mcap").write_bytes((whole / "bag_0.mcap").read_bytes())
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(DataError, match=str(tmp_path)):
        BagReader(tmp_path)


def test_messages_that_came_before_the_last_are_moved(tmp_path: Path) -> None:
    """A clock set back while recording must not make a cut-off bag unreadable."""
    with Recording(tmp_path / "bag", robot()) as bag:
        bag.add("camera/image_raw", numbered(1, 1))
        bag.received -= 10**12
        bag.add("camera/image_raw", numbered(2, 2))
        bag.writer.flush()
        bag.writer.close = bag.writer.abort  # type: ignore[method-assign]
    assert [message.data[0] for _, _, message in read(tmp_path / "bag", IMAGES)] == [1, 2]
