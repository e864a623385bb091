"""Recording without ROS: bounds that hold, losses that are counted, a disk that stalls or fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.errors import DataError, SmwmError
from smwm_ros.runtime.backlog import Message, MessageWindow, Topic
from smwm_ros.runtime.bag_session import BagSession
from smwm_ros.runtime.recording import LOST_KEY, Recorder, RecorderSettings

TOPIC, OTHER = Topic("/a", "std_msgs/msg/String"), Topic("/b", "std_msgs/msg/String")
SECOND = 10**9
PATIENCE = 30.0


def message(number: int, size: int = 100, topic: Topic = TOPIC) -> Message:
    return Message(topic, number * SECOND, number.to_bytes(4, "little") + bytes(size - 4))


def numbers(path: Path) -> list[int]:
    with BagReader(path) as bag:
        return [int.from_bytes(data[:4], "little") for _, _, data in bag.raw(bag.topics)]


def test_a_window_is_bounded_in_bytes() -> None:
    """Known answer: of five messages of 100 bytes, the newest three are within 350."""
    window = MessageWindow(350)
    gone = [old for number in range(5) for old in window.add(message(number))]
    assert [old.received for old in gone] == [0, SECOND]
    assert [kept.received for kept in window.since(0)] == [2 * SECOND, 3 * SECOND, 4 * SECOND]
    assert window.bytes == 300
    assert [window.pop().received for _ in range(len(window))] == [2 * SECOND, 3 * SECOND, 4 * SECOND]
    assert window.bytes == 0


def test_a_window_is_bounded_in_time() -> None:
    window = MessageWindow(10**9, 2 * SECOND)
    for number in (0, 1, 2, 3, 7):
        window.add(message(number))
    assert [kept.received for kept in window.since(0)] == [7 * SECOND]


def test_a_message_beyond_the_bound_gives_way_itself() -> None:
    window = MessageWindow(350)
    window.add(message(0))
    assert len(window.add(message(1, size=400))) == 2
    assert (len(window), window.bytes) == (0, 0)


@given(st.lists(st.integers(4, 500), max_size=60), st.integers(1, 1000), st.integers(0, 10))
def test_a_window_loses_nothing_untold(sizes: list[int], max_bytes: int, seconds: int) -> None:
    """What was added is either still there or was returned, in order, and the bounds always hold."""
    window = MessageWindow(max_bytes, seconds * SECOND)
    gone: list[Message] = []
    for number, size in enumerate(sizes):
        gone += window.add(message(number, size))
        kept = window.since(0)
        assert gone + kept == [message(n, s) for n, s in enumerate(sizes[: number + 1])]
        assert window.bytes == sum(len(m.data) for m in kept) <= max_bytes
        assert not kept or kept[-1].received - kept[0].received <= seconds * SECOND


class StalledBag(BagWriter):
    """A bag on a disk that takes nothing until it is let go."""

    def __init__(self, path: Path) -> None:
        self.busy, self.free = threading.Event(), threading.Event()
        super().__init__(path)

    def write(self, topic: str, received: int, data: bytes | memoryview) -> None:
        self.busy.set()
        assert self.free.wait(PATIENCE)
        super().write(topic, received, data)


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[StalledBag]:
    """Return a bag; let it go in the end, so that no thread stays behind."""
    bag = StalledBag(tmp_path / "bag")
    yield bag
    bag.free.set()


def never(error: SmwmError) -> None:
    pytest.fail(f"failed: {error}")


def test_a_stalled_disk_holds_up_nobody_and_costs_the_oldest(stalled: StalledBag) -> None:
    """
    Known answer: one message is in the disk's hands, five of ten fit, so the other four are dropped.

    A bound in messages instead of bytes would drop none of the small ones, or keep too much.
    """
    session = BagSession(stalled, 500, never)
    session.offer([message(0)])
    assert stalled.busy.wait(PATIENCE)
    assert session.offer([message(1), message(2, topic=OTHER), message(3)]) == {}
    assert session.offer([message(number) for number in range(4, 10)]) == {"/a": 3, "/b": 1}
    assert session.dropped == {"/a": 3, "/b": 1}
    assert session.waiting == 500
    stalled.free.set()
    session.end()
    assert numbers(stalled.path) == [0, 5, 6, 7, 8, 9]


def test_a_disk_that_hangs_does_not_hang_the_recorder(stalled: StalledBag) -> None:
    session = BagSession(stalled, 500, never)
    session.offer([message(0)])
    with pytest.raises(DataError, match="has not taken the rest of the bag within 0 s"):
        session.end(patience=0.05)


def test_what_came_is_flushed_without_more_coming(tmp_path: Path) -> None:
    """The last messages before a silence must outlive a kill too."""
    flushed = threading.Event()

    class Bag(BagWriter):
        def flush(self) -> None:
            super().flush()
            if self.counts:
                flushed.set()

    session = BagSession(Bag(tmp_path / "bag"), 500, never)
    session.offer([message(7)])
    assert flushed.wait(PATIENCE)
    assert numbers(tmp_path / "bag") == [7]
    session.end()


@pytest.mark.parametrize("error", [DataError("the disk is full"), RuntimeError("a defect")])
def test_a_failure_is_told_once_and_ends_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A defect as well: a recording that has silently ended is the worst of all."""

    def fail(*_: object) -> None:
        raise error

    told: list[SmwmError] = []
    happened = threading.Event()
    bag = BagWriter(tmp_path / "bag")
    monkeypatch.setattr(bag, "write", fail)
    session = BagSession(bag, 500, lambda failure: (told.append(failure), happened.set())[0])
    session.offer([message(0)])
    assert happened.wait(PATIENCE)
    session.offer([message(1)])
    with pytest.raises(DataError, match=str(error)):
        session.end()
    assert len(told) == 1


Make = Callable[..., Recorder]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a way to make recorders; stop them in the end."""
    made: list[Recorder] = []

    def recorder(failed: Callable[[SmwmError], None] = never, **settings: Any) -> Recorder:
        chosen = RecorderSettings(**{"folder": str(tmp_path), **settings})
        made.append(Recorder(chosen, prefix="tiny", custom_data={"robot": "tiny"}, failed=failed))
        return made[-1]

    yield recorder
    for each in made:
        if each.recording:
            each.stop()


def test_recordings_follow_one_another(make: Make, tmp_path: Path) -> None:
    """What comes between them is in none; each has its own counts."""
    recorder = make()
    recorder.offer([message(0)])
    assert recorder.start("first") == tmp_path / "first"
    recorder.offer([message(1), message(2, topic=OTHER)])
    assert recorder.stop().counts == {"/a": 1, "/b": 1}
    recorder.offer([message(3)])
    recorder.start(str(tmp_path / "elsewhere" / "second"))
    recorder.offer([message(4), message(6)])
    recorded = recorder.stop()
    assert (recorded.counts, recorded.seconds) == ({"/a": 2}, 2.0)
    assert numbers(tmp_path / "first") == [1, 2]
    assert numbers(tmp_path / "elsewhere" / "second") == [4, 6]


def test_a_second_start_and_a_second_stop_are_refused(make: Make, tmp_path: Path) -> None:
    recorder = make()
    recorder.start("one")
    with pytest.raises(DataError, match=r"already recording into .*one; stop that one first"):
        recorder.start("two")
    recorder.stop()
    with pytest.raises(DataError, match="nothing is being recorded"):
        recorder.stop()
    assert not (tmp_path / "two").exists()


def test_a_folder_that_exists_leaves_the_recorder_ready(make: Make, tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    recorder = make()
    with pytest.raises(DataError, match="exists already"):
        recorder.start("bag")
    assert not recorder.recording
    recorder.start("other")


def test_bags_without_a_name_get_different_ones(make: Make, tmp_path: Path) -> None:
    """Also several within one second."""
    paths = set()
    for _ in range(3):
        recorder = make()
        paths.add(recorder.start())
    assert len(paths) == 3
    assert all(path.parent == tmp_path and path.name.startswith("tiny_2") for path in paths)


def test_losses_are_noted_in_the_bag(make: Make, tmp_path: Path) -> None:
    """Whoever trains on it can know; those before the recording do not belong to it."""
    recorder = make()
    recorder.miss({"/a": 100})
    recorder.start("bag")
    recorder.offer([message(0)])
    recorder.miss({"/a": 3})
    recorder.miss({"/a": 1, "/b": 2})
    assert recorder.status()["lost /a"] == 4
    assert recorder.stop().lost == {"/a": 4, "/b": 2}
    with BagReader(tmp_path / "bag") as bag:
        assert json.loads(bag.custom_data[LOST_KEY]) == {"/a": 4, "/b": 2}
        assert bag.custom_data["robot"] == "tiny"


def test_a_snapshot_holds_the_last_seconds(make: Make, tmp_path: Path) -> None:
    """Known answer: 5 s are kept of 0 ... 9 s, and 2 s of them are asked for."""
    recorder = make(snapshot_seconds=5.0)
    recorder.offer([message(number) for number in range(10)])
    made = recorder.snapshot("part", 2.0)
    assert (made.path, made.counts, made.seconds) == (tmp_path / "part", {"/a": 3}, 2.0)
    assert numbers(tmp_path / "part") == [7, 8, 9]
    recorder.snapshot("all")
    assert numbers(tmp_path / "all") == [4, 5, 6, 7, 8, 9], "a snapshot takes nothing away"


def test_a_snapshot_disturbs_no_recording(make: Make, tmp_path: Path) -> None:
    """And holds what came before it began."""
    recorder = make(snapshot_seconds=60.0)
    recorder.offer([message(0)])
    recorder.start("bag")
    recorder.offer([message(1)])
    recorder.snapshot("snapshot")
    recorder.offer([message(2)])
    recorder.stop()
    assert numbers(tmp_path / "snapshot") == [0, 1]
    assert numbers(tmp_path / "bag") == [1, 2]


def test_the_memory_of_snapshots_is_bounded(make: Make, tmp_path: Path) -> None:
    recorder = make(snapshot_seconds=60.0, snapshot_mb=1)
    recorder.offer([message(number, size=300_000) for number in range(10)])
    recorder.snapshot("bag")
    assert numbers(tmp_path / "bag") == [7, 8, 9]


def test_a_snapshot_of_nothing_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set the parameter snapshot_seconds"):
        make().snapshot()
    with pytest.raises(DataError, match="no message has been received"):
        make(snapshot_seconds=1.0).snapshot()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["mcap", "sqlite3"])
def test_settings_reach_the_bag(make: Make, tmp_path: Path, kind: str) -> None:
    recorder = make(format=kind, compression="none", split_seconds=2.0)
    recorder.start("bag")
    recorder.offer([message(number) for number in range(6)])
    recorder.stop()
    suffix = ".mcap" if kind == "mcap" else ".db3"
    files = sorted(path.name for path in (tmp_path / "bag").glob(f"*{suffix}"))
    assert files == [f"bag_{number}{suffix}" for number in range(3)]
    assert numbers(tmp_path / "bag") == list(range(6))


def test_a_failed_recording_makes_room_for_another(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was flushed is there; the owner has been told."""
    told = threading.Event()
    recorder = make(failed=lambda _: told.set())
    recorder.start("bag")

    def fail(*_: object) -> None:
        raise DataError("the disk is full")

    monkeypatch.setattr(BagWriter, "write", fail)
    recorder.offer([message(0)])
    assert told.wait(PATIENCE)
    monkeypatch.undo()
    end = threading.Event()
    while recorder.recording and not end.wait(0.01):
        pass
    recorder.start("other")
