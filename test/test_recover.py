"""A damaged bag becomes a whole one of all that is intact, and never less than it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import PERIOD
from rosbags.interfaces import MessageDefinitionFormat, Qos, QosTime
from rosbags.interfaces import QosDurability as Durability
from rosbags.interfaces import QosHistory as History
from rosbags.interfaces import QosLiveliness as Liveliness
from rosbags.interfaces import QosReliability as Reliability
from rosbags.rosbag2 import Reader
from typer.testing import CliRunner

from smwm_ros.cli.bag import app
from smwm_ros.cli.small_bags import Files, read_files, small_bags, write_files
from smwm_ros.data.bags import mcap_records as mcap
from smwm_ros.data.bags import recover as module
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.recover import recover
from smwm_ros.data.bags.summary import summarise
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.errors import DataError

Raw = list[tuple[str, int, bytes]]
FOREVER = QosTime(9223372036, 854775807)


def raw(path: Path) -> Raw:
    with BagReader(path) as bag:
        return list(bag.raw(bag.topics))


def by_others(path: Path) -> Raw:
    """Read with rosbags alone, as other tools do."""
    with Reader(path) as reader:
        return [(c.topic, stamp, bytes(data)) for c, stamp, data in reader.messages()]


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Return small bags of all formats: four chunks of two ticks, with three messages each."""
    return small_bags(tmp_path_factory.mktemp("bases"))[1]


@pytest.fixture(scope="module")
def original(bags: dict[str, Files], tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """Return the messages that are in all of them."""
    folder = tmp_path_factory.mktemp("original")
    write_files(folder / "bag", bags["zstd"])
    return raw(folder / "bag")


def damaged(folder: Path, files: Files, change: Callable[[bytes], bytes]) -> Path:
    """Write a bag whose one data file is changed."""
    name = next(name for name in files if name != "metadata.yaml")
    write_files(folder / "bag", {**files, name: change(files[name])})
    return folder / "bag"


def chunks(data: bytes) -> list[tuple[int, int]]:
    """Return where the contents of the chunks lie."""
    places = mcap.records(data[8:-8], 0)
    return [(begin + 8, end + 8) for opcode, begin, end in places if opcode == mcap.CHUNK]


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


@pytest.mark.parametrize("kind", ["zstd", "none"])
def test_a_flipped_byte_costs_its_chunk_and_no_more(
    tmp_path: Path, bags: dict[str, Files], original: Raw, kind: str
) -> None:
    """And the message says which bytes, how many messages, of what time; the original is kept as it was."""
    begin, end = chunks(bags[kind]["bag_0.mcap"])[2]
    path = damaged(tmp_path, bags[kind], flip(end - 40))
    before = read_files(path)
    with pytest.raises(DataError, match=r"at byte \d+: a chunk is damaged.*`smwm bag recover .*keeps"):
        raw(path)
    made = recover(path)
    kept = original[:12] + original[18:]
    assert raw(path) == by_others(path) == kept
    (loss,) = made.losses
    assert f"bytes {begin - 9} to {end}: 6 messages received within 0.05 s" in str(loss)
    assert (made.messages, sum(made.topics.values())) == (18, 18)
    assert read_files(tmp_path / "bag.damaged") == before
    assert not summarise(tmp_path / "bag.damaged", check=True)["whole"]
    assert summarise(path, check=True)["whole"]


def test_a_recovered_bag_is_left_alone(tmp_path: Path, bags: dict[str, Files]) -> None:
    """Recovery is idempotent, and never makes a backup of a bag without fault."""
    path = damaged(tmp_path, bags["zstd"], lambda data: data[:-100])
    assert recover(path).original == str(tmp_path / "bag.damaged")
    before = read_files(path)
    assert recover(path).original == ""
    assert read_files(path) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bag", "bag.damaged"]


def test_cut_at_every_byte(tmp_path: Path) -> None:
    """Reading and recovery give a DataError or the first messages, never fewer of a longer file."""
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/x", "std_msgs/msg/String")
        for number in range(6):
            writer.write("/x", number, bytes([0, 1, 0, 0, 2, 0, 0, 0, 65 + number, 0]))
            if number % 2:
                writer.flush()
    sent = raw(tmp_path / "bag")
    data = (tmp_path / "bag" / "bag_0.mcap").read_bytes()
    file = tmp_path / "cut.mcap"
    counts = []
    for length in range(len(data)):
        file.write_bytes(data[:length])
        counts.append(0)
        for salvage in (False, True) if length % 64 == 0 else (False,):
            try:
                with BagReader(file, salvage=salvage) as bag:
                    found = list(bag.raw(bag.topics))
            except DataError:
                continue
            assert found == sent[: len(found)]
            counts[-1] = len(found)
    assert counts == sorted(counts)
    assert set(counts) == {0, 2, 4, 6}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_recovered_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    """Wherever chunks are damaged: each message is one that was recorded, once, and in order."""
    files, original = request.getfixturevalue("bags")["zstd"], request.getfixturevalue("original")
    size = len(files["bag_0.mcap"])
    start = data.draw(st.integers(0, size - 1))
    noise = bytes([data.draw(st.sampled_from([0, 0x06, 0xFF]))]) * data.draw(st.integers(1, 3000))
    path = damaged(
        tmp_path_factory.mktemp("at"),
        files,
        lambda old: (old[:start] + noise + old[start + len(noise) :])[:size],
    )
    try:
        recover(path)
    except DataError:
        return
    found = raw(path)
    assert found == [message for message in original if message in found]
    assert by_others(path) == found


def test_a_bag_that_goes_on_after_a_hole(tmp_path: Path, bags: dict[str, Files], original: Raw) -> None:
    """Zeros where a record should begin do not end a file after which more chunks follow."""
    begin, end = chunks(bags["zstd"]["bag_0.mcap"])[1]
    path = damaged(
        tmp_path, bags["zstd"], lambda data: data[: begin - 9] + bytes(end - begin) + data[end - 9 :]
    )
    made = recover(path)
    assert raw(path) == original[:6] + original[12:]
    assert made.losses[0].messages == 6, "as the index behind the hole says"


def test_lost_announcements_are_taken_from_the_index(
    tmp_path: Path, bags: dict[str, Files], original: Raw
) -> None:
    """Topics are announced in the first chunk, and again at the end of the file."""
    first = chunks(bags["zstd"]["bag_0.mcap"])[0]
    path = damaged(tmp_path, bags["zstd"], flip(first[1] - 30))
    recover(path)
    assert raw(path) == original[6:]


def test_without_any_announcement_nothing_is_made_up(tmp_path: Path, bags: dict[str, Files]) -> None:
    first = chunks(bags["zstd"]["bag_0.mcap"])[0]
    path = damaged(tmp_path, bags["zstd"], lambda data: flip(first[1] - 30)(data)[:-1500])
    before = read_files(path)
    with pytest.raises(DataError, match="their topics were announced in a part that is lost"):
        recover(path)
    assert read_files(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_are_written_anew(tmp_path: Path, bags: dict[str, Files], original: Raw) -> None:
    """The notes of the recorder are also in the file."""
    write_files(tmp_path / "bag", {**bags["zstd"], "metadata.yaml": b"\x00\x00"})
    with pytest.raises(DataError, match="not the metadata of a bag"):
        BagReader(tmp_path / "bag")
    made = recover(tmp_path / "bag")
    assert (made.messages, made.losses) == (24, ())
    information = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    assert information["rosbag2_bagfile_information"]["message_count"] == 24
    with BagReader(tmp_path / "bag") as bag:
        assert "robot_contract" in bag.custom_data


def test_a_missing_file_costs_what_was_in_it(tmp_path: Path) -> None:
    """A missing and a cut file cost what was in them, and no other file's messages."""
    path = tmp_path / "bag"
    writer = BagWriter(path, split_bytes=4000)
    with writer:
        writer.add_topic("/x", "std_msgs/msg/String")
        for number in range(60):
            writer.write("/x", number, np.random.default_rng(number).bytes(500))
            writer.flush()
    sent = raw(path)
    names = sorted(file.name for file in path.glob("*.mcap"))
    assert len(names) > 4
    counts = [len(raw(path / name)) for name in names]
    (path / names[1]).unlink()
    (path / names[-1]).write_bytes((path / names[-1]).read_bytes()[:-200])
    with pytest.raises(DataError, match=rf"lists {names[1]}, which cannot be found"):
        BagReader(path)
    made = recover(path, tmp_path / "new")
    assert raw(tmp_path / "new") == sent[: counts[0]] + sent[counts[0] + counts[1] :]
    assert f"{names[1]}: an unknown number of messages: the file is not there" in map(str, made.losses)


def test_types_and_offers_are_kept(tmp_path: Path) -> None:
    """Also of a type that nobody here knows, and of several publishers."""
    qos = [
        Qos(
            History.KEEP_LAST,
            depth,
            reliability,
            Durability.VOLATILE,
            FOREVER,
            FOREVER,
            Liveliness.AUTOMATIC,
            FOREVER,
            False,
        )
        for depth, reliability in ((5, Reliability.RELIABLE), (7, Reliability.BEST_EFFORT))
    ]
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/x", "acme/msg/Rocket", more_qos=qos, definition=("float64 height\n", "RIHS01_1"))
        writer.write("/x", 5, b"\x00\x01\x00\x00" + bytes(8))
    recover(tmp_path / "bag", tmp_path / "new")
    with BagReader(tmp_path / "new") as bag:
        assert bag.offered_qos("/x") == qos
        assert bag.channel("/x").definition == (MessageDefinitionFormat.MSG, "float64 height\n")
        assert [message.height for _, _, message in bag.messages(["/x"])] == [0.0]


# SQLite


def big_database(folder: Path) -> Path:
    with BagWriter(folder / "db", storage="sqlite3") as writer:
        writer.add_topic("/x", "std_msgs/msg/String")
        for number in range(300):
            writer.write("/x", number, number.to_bytes(4, "little") * 500)
    return folder / "db"


def test_a_damaged_page_costs_what_is_in_it(tmp_path: Path) -> None:
    """And reading says so instead of giving what is left without a word."""
    path = big_database(tmp_path)
    sent = raw(path)
    file = path / "db_0.db3"
    content = bytearray(file.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    place = content.index((150).to_bytes(4, "little") * 500) // size * size
    content[place : place + 200] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(DataError, match="SQLite cannot read it"):
        raw(path)
    made = recover(path)
    found = raw(path)
    assert 200 < len(found) < 300
    assert set(found) < set(sent)
    assert found == sorted(found, key=lambda message: message[1])
    assert "1 parts cannot be read" in str(made.losses[0])
    assert [child.suffix for child in path.iterdir() if child.name != "metadata.yaml"] == [".db3"]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_an_unfinished_transaction_is_mended(tmp_path: Path, mode: str) -> None:
    """A journal beside the file belongs to it; neither is changed by reading."""
    path = big_database(tmp_path)
    sent = raw(path)

    def child() -> None:
        database = sqlite3.connect(path / "db_0.db3")
        database.executescript(
            f"PRAGMA journal_mode = {mode}; PRAGMA cache_size = 5; PRAGMA cache_spill = ON;"
        )
        database.execute("BEGIN IMMEDIATE")
        if mode == "WAL":
            database.execute("DELETE FROM messages WHERE timestamp >= 200")
            database.commit()
        else:
            database.execute("DELETE FROM messages")
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert (path / {"DELETE": "db_0.db3-journal", "WAL": "db_0.db3-wal"}[mode]).exists()
    before = read_files(path)
    expected = sent if mode == "DELETE" else sent[:200]
    with BagReader(path) as bag:
        assert "was not closed" in bag.notes[0]
        assert list(bag.raw(bag.topics)) == expected
    assert read_files(path) == before
    recover(path)
    assert raw(path) == expected
    assert read_files(tmp_path / "db.damaged") == before


# What goes wrong


def test_a_full_disk_leaves_the_original(tmp_path: Path, bags: dict[str, Files]) -> None:
    path = damaged(tmp_path, bags["none"], lambda data: data[:-100])
    before = read_files(path)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
        try:
            recover(path)
        except BaseException as error:
            sender.send((type(error).__name__, str(error)))

    process = context.Process(target=child)
    process.start()
    assert receiver.poll(30)
    kind, message = receiver.recv()
    process.join(10)
    assert (kind, "File too large" in message) == ("DataError", True), message
    assert read_files(path) == before
    assert list(tmp_path.iterdir()) == [path], "no half of a bag is left"


def test_a_new_bag_that_cannot_be_put_in_place_changes_nothing(
    tmp_path: Path, bags: dict[str, Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step fails: the old bag is back under its name."""
    path = damaged(tmp_path, bags["zstd"], lambda data: data[:-100])
    before = read_files(path)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if ".recovering-" in str(self):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(module.Path, "rename", fail)
    with pytest.raises(DataError, match="nothing was changed"):
        recover(path)
    assert read_files(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_overwritten(tmp_path: Path, bags: dict[str, Files]) -> None:
    path = damaged(tmp_path, bags["zstd"], lambda data: data[:-100])
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match="exists already"):
        recover(path, tmp_path / "there")
    with pytest.raises(DataError, match="--output"):
        recover(path / "bag_0.mcap")
    (tmp_path / "bag.damaged").mkdir()
    assert recover(path).original == str(tmp_path / "bag.damaged-2")


def test_a_single_file_becomes_a_bag(tmp_path: Path, bags: dict[str, Files], original: Raw) -> None:
    (tmp_path / "x.mcap").write_bytes(bags["bare"]["bag_0.mcap"][:-500])
    made = recover(tmp_path / "x.mcap", tmp_path / "new")
    assert raw(tmp_path / "new") == original
    assert made.original == str(tmp_path / "x.mcap")


def test_clock_steps_while_recording_are_no_damage(tmp_path: Path) -> None:
    """Chunks may overlap in time: they are put in order, and no stamp is changed."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path, offset in ((first, 0), (second, 1)):
        with BagWriter(path) as writer:
            writer.add_topic("/x", "std_msgs/msg/String")
            for number in range(100):
                writer.write("/x", 2 * number * PERIOD + offset, number.to_bytes(8, "little"))
    (second / "second_0.mcap").rename(first / "first_1.mcap")
    recover(first)
    stamps = [stamp for _, stamp, _ in raw(first)]
    assert stamps == sorted([2 * n * PERIOD + offset for n in range(100) for offset in (0, 1)])


# The commands


def test_info_and_recover_from_the_command_line(tmp_path: Path, bags: dict[str, Files]) -> None:
    """Each prints one JSON object; without --json, all that a person needs."""
    (tmp_path / "kitchen").mkdir()
    path = damaged(tmp_path / "kitchen", bags["none"], lambda data: data[:-6000])
    runner = CliRunner()
    assert runner.invoke(app, ["info", str(path), "--json"]).exit_code == 0
    told = json.loads(runner.invoke(app, ["info", str(path), "--check", "--json"]).stdout)
    assert (told["whole"], told["contract"], told["storage"]) == (False, "reacher", "mcap")
    assert told["messages"] == sum(topic["messages"] for topic in told["topics"].values()) < 24
    assert "was cut off" in told["notes"][0]
    assert runner.invoke(app, ["recover", str(path)]).exit_code == 0
    made = json.loads(runner.invoke(app, ["recover", str(path), "--json"]).stdout)
    assert (made["messages"], made["original"], made["losses"]) == (told["messages"], "", [])
    again = json.loads(runner.invoke(app, ["info", str(path), "--json"]).stdout)
    assert again == {**told, "whole": True, "notes": [], "bytes": again["bytes"], "files": again["files"]}
