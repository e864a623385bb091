"""When a bag's messages are sent again, which of them, and with what quality of service; no ROS in here."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from smwm_ros.data.bags.offered_qos import load_overrides, to_offer
from smwm_ros.data.bags.playback import Message, Playback, PlaybackSettings
from smwm_ros.data.bags.read_ahead import ReadAhead
from smwm_ros.data.bags.selection import choose_topics
from smwm_ros.data.bags.timeline import Timeline
from smwm_ros.errors import ConfigError, DataError

EPOCH = 1_700_000_000_000_000_000
STARTED = 100.0
"""When the tests' steady clock begins."""


def bag(*seconds: float) -> list[Message]:
    """Return messages received so many seconds after the first; each says its number."""
    return [("/topic", EPOCH + round(s * 1e9), bytes([n])) for n, s in enumerate(seconds)]


class FakeClock:
    """A steady clock that only sleeping and ``spend`` move on."""

    def __init__(self) -> None:
        self.time = STARTED
        self.events: list[tuple[float, Callable[[], None]]] = []
        """What others do, and when, in order."""

    def now(self) -> float:
        return self.time

    def sleep(self, until: float) -> None:
        if self.events and self.events[0][0] <= until:
            when, happen = self.events.pop(0)
            self.time = max(self.time, when)
            happen()
            return
        assert until < math.inf, "would sleep for ever"
        self.time = max(self.time, until)

    def wake(self) -> None:
        pass


class Played:
    """A playback with a fake clock, and what it sent."""

    def __init__(self, messages: list[Message], stamped: Any = (), **settings: Any) -> None:
        self.zero = EPOCH
        """What the clock's times are told from, ns."""
        self.clock = FakeClock()
        self.sent: list[tuple[float, int]] = []
        """Seconds since the start, and the message's number."""
        self.clocks: list[tuple[float, float]] = []
        """Seconds since the start, and seconds of the bag."""
        self.cost: dict[int, float] = {}
        """Seconds that sending a message takes."""
        self.playback = Playback(
            lambda start: (message for message in messages if message[1] >= start),
            (messages[0][1], messages[-1][1]),
            PlaybackSettings(**settings),
            send=self._send,
            send_clock=lambda stamp: self.clocks.append(
                (round(self.clock.time - STARTED, 6), round((stamp - self.zero) * 1e-9, 6))
            ),
            stamped=stamped,
            clock=self.clock,
        )

    def _send(self, topic: str, data: bytes) -> None:
        self.sent.append((round(self.clock.time - STARTED, 6), data[-1]))
        self.clock.time += self.cost.get(data[-1], 0.0)

    def at(self, seconds: float, happen: Callable[[], None]) -> None:
        self.clock.events.append((STARTED + seconds, happen))

    def run(self) -> Played:
        self.playback.run()
        return self


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, [(0.0, 0), (0.5, 1), (2.0, 2), (3.0, 3)]),
        ({"rate": 10.0}, [(0.0, 0), (0.05, 1), (0.2, 2), (0.3, 3)]),
        ({"rate": 0.5}, [(0.0, 0), (1.0, 1), (4.0, 2), (6.0, 3)]),
        ({"start": 1.5}, [(0.5, 2), (1.5, 3)]),
        ({"start": 0.5, "duration": 1.5, "rate": 2.0}, [(0.0, 1), (0.75, 2)]),
        ({"duration": 1.9}, [(0.0, 0), (0.5, 1)]),
        ({"start": 3.0}, [(0.0, 3)]),
    ],
)
def test_messages_are_sent_when_they_are_due(settings: Any, sent: list[tuple[float, int]]) -> None:
    """Known answers for rate, start and duration; silence at either end is kept."""
    played = Played(bag(0.0, 0.5, 2.0, 3.0), **settings).run()
    assert played.sent == sent
    length = min(settings.get("duration") or math.inf, 3.0 - settings.get("start", 0.0))
    assert played.clock.time - STARTED == pytest.approx(length / settings.get("rate", 1.0))
    assert played.playback.report().worst_lateness == pytest.approx(0.0, abs=1e-9)


def test_a_start_after_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot start at 3\.1 s: the bag lasts 3\.000 s"):
        Played(bag(0.0, 3.0), start=3.1)


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"rate": math.nan}, {"start": -1.0}, {"clock": -1.0}])
def test_settings_out_of_range_are_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        PlaybackSettings(**settings)


def test_a_late_message_goes_at_once_and_delays_none_after_it() -> None:
    """A schedule made of sleeps between messages would drift by every delay."""
    played = Played(bag(0.0, 1.0, 1.2, 2.0))
    played.cost = {0: 1.5}
    played.run()
    assert played.sent == [(0.0, 0), (1.5, 1), (1.5, 2), (2.0, 3)]
    report = played.playback.report()
    assert report.worst_lateness == pytest.approx(0.5)
    assert report.median_lateness == pytest.approx(0.15)  # of 0, 0.5, 0.3 and 0
    assert report.messages == {"/topic": 4}


@given(
    st.lists(st.integers(0, 200_000_000), min_size=1, max_size=50),
    st.lists(st.floats(0.0, 0.5), min_size=50, max_size=50),
    st.floats(0.1, 50.0),
)
def test_whatever_it_costs_to_send_each_goes_when_due_or_when_the_one_before_is_done(
    gaps: list[int], costs: list[float], rate: float
) -> None:
    """The schedule in one sentence; all messages go out, in order, and none early."""
    stamps = [sum(gaps[:n]) for n in range(len(gaps))]
    played = Played(bag(*(stamp * 1e-9 for stamp in stamps)), rate=rate)
    played.cost = dict(enumerate(costs))
    played.run()
    free = 0.0
    for number, (when, which) in enumerate(played.sent):
        assert which == number
        assert when == pytest.approx(max(free, stamps[number] * 1e-9 / rate), abs=1e-5)
        free = when + costs[number]
    assert len(played.sent) == len(stamps)


def test_paused_time_does_not_count() -> None:
    """And the time a pause lasts is not lateness."""
    played = Played(bag(0.0, 1.0, 2.0))
    played.at(0.4, lambda: played.playback.pause(True))
    played.at(5.4, lambda: played.playback.pause(False))
    played.run()
    assert played.sent == [(0.0, 0), (6.0, 1), (7.0, 2)]
    assert played.playback.report().worst_lateness == pytest.approx(0.0, abs=1e-9)


def test_paused_before_it_begins() -> None:
    played = Played(bag(0.0, 1.0))
    played.playback.pause(True)
    played.at(2.0, lambda: played.playback.pause(False))
    assert played.run().sent == [(2.0, 0), (3.0, 1)]


def test_stop_ends_it_also_while_paused() -> None:
    played = Played(bag(0.0, 1.0, 2.0))
    played.at(0.4, lambda: played.playback.pause(True))
    played.at(0.6, played.playback.stop)
    assert played.run().sent == [(0.0, 0)]


def test_each_round_of_a_loop_begins_anew() -> None:
    """With the bag's length between two beginnings, and the clock set back to the bag's start."""
    played = Played(bag(0.0, 0.25, 1.0), loop=True, clock=2.0, start=0.25)
    played.at(1.3, played.playback.stop)
    played.run()
    assert played.sent == [(0.0, 1), (0.75, 2), (0.75, 1)]
    assert played.clocks == [(0.0, 0.25), (0.5, 0.75), (0.75, 0.25), (1.25, 0.75)]
    assert played.playback.report().rounds == 2


def test_lateness_does_not_pass_into_the_next_round() -> None:
    played = Played(bag(0.0, 0.5), loop=True)
    played.cost = {0: 0.0, 1: 3.0}
    played.at(4.1, played.playback.stop)
    assert played.run().sent[:4] == [(0.0, 0), (0.5, 1), (3.5, 0), (4.0, 1)]


def test_a_loop_over_one_moment_does_not_run_wild() -> None:
    """A bag of one message in a loop would be sent as fast as the machine can, for ever."""
    played = Played(bag(0.0), loop=True)
    played.at(0.95, played.playback.stop)
    assert len(played.run().sent) == 10


def test_the_clock_ticks_evenly_and_never_ahead_of_what_was_sent() -> None:
    """At the rate asked for in steady time; after a delay it does not run through the ticks it missed."""
    played = Played(bag(0.0, 0.1, 1.0), clock=4.0, rate=2.0)
    played.cost = {0: 0.3}
    played.run()
    # At 0.3 s the bag is at 0.6 s; but the message of 0.1 s has not gone out yet.
    assert played.clocks == [(0.0, 0.0), (0.3, 0.1), (0.5, 1.0)]
    assert [when for when, _ in played.sent] == [0.0, 0.3, 0.5]


def test_the_clock_shows_the_same_time_while_paused() -> None:
    """Who listens for the time only then must learn it."""
    played = Played(bag(0.0, 1.0), clock=10.0)
    played.at(0.25, lambda: played.playback.pause(True))
    played.at(0.75, lambda: played.playback.pause(False))
    played.run()
    held = [stamp for when, stamp in played.clocks if 0.25 < when < 0.75]
    assert held == [0.25] * len(held)
    assert len(held) == 5
    assert played.sent[-1] == (1.5, 1)


def test_where_the_bag_is() -> None:
    timeline = Timeline(rate=2.0)
    timeline.begin(EPOCH, 10.0)
    assert timeline.at(10.5) == EPOCH + 10**9
    assert timeline.due(EPOCH + 10**9) == 10.5
    timeline.pause(11.0)
    assert timeline.at(12.0) == EPOCH + 2 * 10**9
    assert timeline.due(EPOCH) == math.inf
    timeline.resume(20.0)
    assert timeline.at(20.5) == EPOCH + 3 * 10**9


def stamped(*messages: tuple[float, float | None]) -> list[Message]:
    """Return messages by when they were received and their header's stamp (s); None: without a header."""
    made = []
    for number, (received, stamp) in enumerate(messages):
        topic, data = "/plain", bytes([number])
        if stamp is not None:
            order, code = (b"\0\1", "<") if number % 2 else (b"\0\0", ">")
            topic, time = "/stamped", divmod(round(stamp * 1e9), 10**9)
            data = order + bytes([0, 0]) + struct.pack(f"{code}iI", *time) + bytes([number])
        made.append((topic, EPOCH + round(received * 1e9), data))
    return made


def by_stamps(messages: list[Message], **settings: Any) -> Played:
    played = Played(messages, by_stamps=True, stamped=["/stamped"], **settings)
    played.zero = 0
    return played


def test_by_stamps_the_robots_time_is_played() -> None:
    """Lock-step runs faster or slower than the robot: when its messages were received says nothing."""
    played = by_stamps(
        stamped((0.0, 5.0), (0.01, 5.5), (0.011, None), (0.012, 5.4), (0.02, 7.0)), rate=2.0, clock=1.0
    ).run()
    assert played.sent == [(0.0, 0), (0.25, 1), (0.25, 2), (0.25, 3), (1.0, 4)]
    assert played.clocks == [(0.0, 5.0), (1.0, 7.0)]


def test_by_stamps_a_clock_that_is_set_is_followed_at_once() -> None:
    """Back or forward: nobody waits for the difference, and /clock shows the new time."""
    played = by_stamps(stamped((0.0, 50.0), (0.1, 51.0), (0.2, 2.0), (0.3, 2.5), (0.4, 90.0)), clock=1000.0)
    played.run()
    assert played.sent == [(0.0, 0), (1.0, 1), (1.0, 2), (1.5, 3), (1.5, 4)]
    assert (1.0, 2.0) in played.clocks
    assert played.clocks[-1] == (1.5, 90.0)


def test_by_stamps_start_duration_and_loop_go_by_what_was_received() -> None:
    messages = stamped((0.0, 5.0), (1.0, 6.0), (2.0, 7.5), (3.0, 8.0))
    assert by_stamps(messages, start=1.0, duration=1.0).run().sent == [(0.0, 1), (1.5, 2)]
    looping = by_stamps(messages, start=2.0, loop=True)
    looping.at(0.7, looping.playback.stop)
    assert looping.run().sent == [(0.0, 2), (0.5, 3), (0.5, 2)]


def test_by_stamps_needs_stamps() -> None:
    with pytest.raises(ConfigError, match="none of the topics has a header"):
        Played(bag(0.0), by_stamps=True)
    damaged = Played([("/stamped", EPOCH, b"\0\1\0\0")], by_stamps=True, stamped=["/stamped"])
    with pytest.raises(DataError, match="no room for a header"):
        damaged.run()


def test_a_damaged_bag_plays_up_to_the_damage() -> None:
    """The error must reach whoever plays, although another thread reads."""

    def read(start: int) -> Iterator[Message]:
        yield from bag(0.0, 0.1)
        raise DataError("the chunk at byte 4096 is damaged")

    sent: list[bytes] = []
    playback = Playback(
        read,
        (EPOCH, EPOCH + 10**9),
        PlaybackSettings(),
        send=lambda topic, data: sent.append(data),
        send_clock=lambda stamp: None,
        clock=FakeClock(),
    )
    with pytest.raises(DataError, match="byte 4096"):
        playback.run()
    assert sent == [b"\0", b"\1"]


def test_reading_ahead_is_bounded_in_bytes() -> None:
    """A bag larger than memory: the reader must wait for the one who plays."""
    taken = 0
    reached = threading.Event()

    def read() -> Any:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            if taken == 11:
                reached.set()
            yield bytes(100)

    with ReadAhead(read, len, limit=1000) as items:
        assert not reached.wait(0.3)  # waits for the consumer with ten of them
        assert taken <= 10
        next(items)
        assert reached.wait(30)
        assert items.waiting <= 1000
        assert len(list(items)) == 999


def test_reading_ahead_ends_early_in_its_own_thread() -> None:
    """SQLite may be closed only by the thread that opened it."""
    threads = []

    def read() -> Any:
        threads.append(threading.current_thread())
        try:
            while True:
                yield b""
        finally:
            threads.append(threading.current_thread())

    with ReadAhead(read, lambda _: 100, limit=1000) as items:
        next(items)
    assert len(threads) == 2
    assert threads[0] is threads[1] is not threading.current_thread()
    assert not threads[0].is_alive()


def offered(**changes: Any) -> Qos:
    """Return what most bags say of a publisher: the history is unknown."""
    none = QosTime(0, 0)
    return Qos(
        QosHistory.UNKNOWN,
        0,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        none,
        none,
        QosLiveliness.AUTOMATIC,
        none,
        False,
    )._replace(**changes)


BEST_EFFORT = {"reliability": QosReliability.BEST_EFFORT}
LATCHED = {"durability": QosDurability.TRANSIENT_LOCAL}


@pytest.mark.parametrize(
    ("recorded", "reliability", "durability", "depth"),
    [
        ([], "RELIABLE", "VOLATILE", 100),
        ([offered(**BEST_EFFORT)], "BEST_EFFORT", "VOLATILE", 10),
        ([offered(history=QosHistory.KEEP_LAST, depth=7)], "RELIABLE", "VOLATILE", 7),
        ([offered(**LATCHED)], "RELIABLE", "TRANSIENT_LOCAL", 100),
        ([offered(reliability=QosReliability.UNKNOWN)], "RELIABLE", "VOLATILE", 100),
        # Several publishers: whoever could hear one of them can hear the player.
        ([offered(**BEST_EFFORT), offered()], "RELIABLE", "VOLATILE", 100),
        ([offered(**BEST_EFFORT), offered(depth=3, **BEST_EFFORT)], "BEST_EFFORT", "VOLATILE", 3),
        ([offered(), offered(**LATCHED)], "RELIABLE", "TRANSIENT_LOCAL", 100),
    ],
)
def test_topics_are_offered_as_they_were(
    recorded: list[Qos], reliability: str, durability: str, depth: int
) -> None:
    qos = to_offer(recorded)
    assert (qos.reliability.name, qos.durability.name, qos.depth) == (reliability, durability, depth)
    assert qos.history is QosHistory.KEEP_LAST


def test_promises_of_time_are_kept_only_where_all_made_them() -> None:
    deadline = offered(deadline=QosTime(0, 50_000_000))
    assert to_offer([deadline, deadline]).deadline == QosTime(0, 50_000_000)
    assert to_offer([deadline, offered()]).deadline == QosTime(0, 0)


def test_overrides_change_what_they_name(tmp_path: Path) -> None:
    """The file's form is that of ros2 bag; what it does not name stays as recorded."""
    path = tmp_path / "qos.yaml"
    path.write_text(
        "/camera: {reliability: reliable, history: keep_all}\n"
        "/map:\n  durability: transient_local\n  depth: 1\n  deadline: {sec: 1, nsec: 5}\n"
        "  lifespan: {sec: 2, nsec: 0}\n  liveliness: manual_by_topic\n"
        "  avoid_ros_namespace_conventions: true\n"
    )
    overrides = load_overrides(path)
    camera = to_offer([offered(**BEST_EFFORT)], overrides["/camera"])
    assert camera == offered(history=QosHistory.KEEP_ALL, depth=100)
    changed = to_offer([offered(**BEST_EFFORT)], overrides["/map"])
    assert changed == offered(
        history=QosHistory.KEEP_LAST,
        depth=1,
        deadline=QosTime(1, 5),
        lifespan=QosTime(2, 0),
        liveliness=QosLiveliness.MANUAL_BY_TOPIC,
        avoid_ros_namespace_conventions=True,
        **BEST_EFFORT,
        **LATCHED,
    )
    assert to_offer([offered(**BEST_EFFORT)], overrides["/map"], reliable=True).reliability.name == "RELIABLE"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/camera: {reliabilty: reliable}", "/camera.reliabilty: Extra inputs"),
        ("/camera: {reliability: always}", "/camera.reliability: Input should be 'reliable'"),
        ("/camera: {depth: -1}", "/camera.depth"),
        ("/camera: reliable", "/camera: Input should be a valid dictionary"),
        ("- /camera", "valid dictionary"),
        ("/camera: {", "not valid YAML"),
    ],
)
def test_wrong_overrides_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "qos.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_overrides(path)
    assert says in str(refusal.value)
    assert str(path) in str(refusal.value)


TOPICS = ["/camera/image_raw", "/camera/info", "/joint_states"]


@pytest.mark.parametrize(
    ("wanted", "without", "chosen"),
    [
        ([], [], TOPICS),
        (["joint_states"], [], ["/joint_states"]),
        (["/camera/*"], [], TOPICS[:2]),
        (["*info", "/joint_states"], [], TOPICS[1:]),
        ([], ["/camera/*"], ["/joint_states"]),
        (["/camera/*"], ["camera/info"], ["/camera/image_raw"]),
    ],
)
def test_topics_are_chosen_by_name_and_pattern(
    wanted: list[str], without: list[str], chosen: list[str]
) -> None:
    assert choose_topics(TOPICS, wanted, without, Path("bag")) == chosen


@pytest.mark.parametrize(
    ("wanted", "without", "says"),
    [
        (["/camera"], [], "no topic is called /camera. Topics in it: /camera/image_raw"),
        ([], ["/tf"], "no topic is called /tf"),
        (["/joint_states"], ["/joint_*"], "no topic is left"),
    ],
)
def test_topics_that_are_not_there_are_told(wanted: list[str], without: list[str], says: str) -> None:
    """A misspelt name must not play, or leave out, something else in silence."""
    with pytest.raises(DataError, match=f"bag: {says}"):
        choose_topics(TOPICS, wanted, without, Path("bag"))
