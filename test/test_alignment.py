"""Which action belongs to which image."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import PERIOD, robot

from smwm_ros.data.alignment import PATIENCE_NS, Aligner, Row
from smwm_ros.data.signals import ActionHistory, SampleHistory
from smwm_ros.data.ticks import Cut, Tick, TickGate

CONTRACT = robot(joints=False)
WITH_JOINTS = robot()

stamps = st.lists(st.integers(0, 20 * PERIOD), min_size=1, max_size=12, unique=True).map(sorted)
# Distances between images, in hundredths of a period: on time, early, too early, late, gaps, jumps back.
distances = st.lists(
    st.sampled_from([100, 100, 100, 97, 110, 80, 40, 0, 150, 179, 181, 400, -100, -700]), max_size=25
)
offsets = st.lists(st.integers(0, PERIOD - 1), min_size=30, max_size=30)


def history(*samples: tuple[int, float]) -> ActionHistory:
    actions = ActionHistory()
    for stamp, value in samples:
        actions.append(stamp, [value])
    return actions


def run(aligner: Aligner[Any], events: list[tuple[str, int, Any]]) -> list[Row[Any]]:
    """Feed events in their order."""
    add = {"image": aligner.add_image, "action": aligner.add_action, "joints": aligner.add_joints}
    rows = [row for kind, stamp, value in events for row in add[kind](stamp, value)]
    return rows + aligner.finish()


def in_lock_step(images: list[int]) -> list[tuple[str, int, Any]]:
    """Number the images and give each an action that says the same number."""
    return [
        event
        for number, stamp in enumerate(images)
        for event in (("image", stamp, number), ("action", stamp, [number, -number]))
    ]


def episodes(rows: list[Row[Any]]) -> list[list[Row[Any]]]:
    made: list[list[Row[Any]]] = [[]]
    for row in rows:
        made[-1].append(row)
        if row.last:
            made.append([])
    assert not made.pop(), "the last episode was never ended"
    return made


# Actions


def test_an_action_holds_until_the_next() -> None:
    """Known answer: a quarter of the time 8, the rest 4."""
    actions = history((0, 8.0), (25, 4.0), (100, 99.0))
    assert actions.hold(0, 100) == pytest.approx([5.0])
    assert actions.hold(50, 100) == [4.0]
    assert actions.hold(90, 110) == pytest.approx([51.5])


def test_an_action_that_holds_throughout_is_returned_exactly() -> None:
    """In lock-step the action of a tick is the command itself, to the last bit."""
    value = 0.1 + 0.2
    assert history((0, value), (50, 1.0)).hold(0, 50) == [value]
    assert history((-10, value)).hold(0, 50) == [value]


def test_before_the_first_action_there_is_none() -> None:
    """A robot that was not commanded yet has no known action; zero would be a guess."""
    assert history().hold(0, 10) is None
    assert history((5, 1.0)).hold(0, 10) is None
    assert history((0, 1.0)).hold(0, 10) == [1.0]


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        history((0, 1.0)).hold(10, 10)


@given(stamps, st.randoms())
def test_late_actions_fall_into_their_place(order: list[int], random: Any) -> None:
    """The order of arrival must not matter, and is counted."""
    arrival = list(order)
    random.shuffle(arrival)
    shuffled = history(*((stamp, float(stamp)) for stamp in arrival))
    sorted_ = history(*((stamp, float(stamp)) for stamp in order))
    assert shuffled.hold(order[0], order[0] + 30 * PERIOD) == sorted_.hold(order[0], order[0] + 30 * PERIOD)
    late = sum(stamp < max(arrival[:i], default=stamp) for i, stamp in enumerate(arrival))
    assert (shuffled.reordered, sorted_.reordered) == (late, 0)


def test_the_same_stamp_again_replaces_and_is_counted() -> None:
    actions = history((0, 1.0), (10, 2.0), (0, 3.0))
    assert (actions.hold(0, 10), actions.duplicates, len(actions)) == ([3.0], 1, 2)


def test_a_history_is_bounded() -> None:
    """A node runs for days."""
    actions = ActionHistory(capacity=3)
    for stamp in range(10):
        actions.append(stamp, [stamp])
    assert len(actions) == 3
    assert actions.hold(6, 7) is None
    assert actions.hold(7, 8) == [7.0]


@given(stamps, st.lists(st.integers(1, 5 * PERIOD), min_size=1, max_size=20))
def test_averaging_conserves_the_integral(order: list[int], lengths: list[int]) -> None:
    """However time is cut into ticks, their means times lengths add up to the held signal's integral."""
    values = [float(7 * i % 5 - 2) for i in range(len(order))]
    actions = history(*zip(order, values, strict=True))
    edges = np.cumsum([order[0], *lengths]).tolist()
    total = sum(actions.hold(a, b)[0] * (b - a) for a, b in pairwise(edges))  # type: ignore[index]
    ends = [*order[1:], np.inf]
    expected = sum(
        value * max(0, min(end, edges[-1]) - min(start, edges[-1]))
        for start, end, value in zip(order, ends, values, strict=True)
    )
    assert total == pytest.approx(expected, rel=1e-9, abs=1e-3)


def test_the_newest_sample_at_a_stamp() -> None:
    samples = SampleHistory()
    samples.append(10, [1.0])
    samples.append(20, [2.0])
    assert samples.at(9) is None
    assert samples.at(10) == (10, [1.0])
    assert samples.at(19) == (10, [1.0])
    assert samples.at(500) == (20, [2.0])


# Images


@pytest.mark.parametrize(
    ("periods", "tick"),
    [
        (1.0, Tick.NEXT),
        (0.67, Tick.NEXT),
        (0.65, Tick.SURPLUS),
        (1.8, Tick.NEXT),
        (1.81, Tick.START),
        (-0.01, Tick.LATE),
        (-1.79, Tick.LATE),
        (-1.8, Tick.START),
        (-50, Tick.START),
        (0, Tick.DUPLICATE),
    ],
)
def test_what_an_image_is(periods: float, tick: Tick) -> None:
    gate = TickGate(CONTRACT)
    start = 100 * PERIOD
    assert gate.offer(start) is Tick.START
    assert gate.offer(start + round(periods * PERIOD)) is tick


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32))
def test_late_images_change_nothing_but_their_count(most: int, seed: int) -> None:
    """An image that another overtook on the wire must not look like a clock that was set back."""
    random = np.random.default_rng(seed)
    on_time, mixed = TickGate(CONTRACT), TickGate(CONTRACT)
    late = 0
    for number in range(40):
        stamp = number * PERIOD
        assert mixed.offer(stamp) is on_time.offer(stamp)
        for _ in range(random.integers(0, most) if number > 2 else 0):
            assert mixed.offer(stamp - int(random.integers(1, 1.8 * PERIOD))) is Tick.LATE
            late += 1
    assert (mixed.late, mixed.jumps, mixed.gaps, mixed.last) == (late, 0, 0, on_time.last)


@pytest.mark.parametrize(
    ("camera", "ticks"),
    [(20, 20), (40, 20), (60, 20), (80, 20), (100, 20), (25, 25), (30, 30), (50, 25), (70, 23.4), (15, 15)],
)
def test_a_fast_camera_is_thinned_evenly(camera: int, ticks: float) -> None:
    """Ticks of changing length would teach the model a world whose speed changes."""
    gate = TickGate(CONTRACT)
    accepted = [
        stamp
        for stamp in (round(i * 1e9 / camera) for i in range(10 * camera))
        if gate.offer(stamp) in (Tick.START, Tick.NEXT)
    ]
    assert np.ptp(np.diff(accepted)) <= 1, "all distances are equal, but for rounding"
    assert len(accepted) == pytest.approx(10 * ticks, abs=1)
    assert gate.gaps == gate.jumps == 0


# Rows


def test_row_t_holds_image_t_and_the_action_until_the_next() -> None:
    """The one thing that must never shift: image number and action number agree."""
    images = [PERIOD * i for i in range(1, 6)]
    rows = run(Aligner(CONTRACT), in_lock_step(images))
    assert [row.image for row in rows] == [0, 1, 2, 3, 4]
    assert [row.stamp for row in rows] == images
    assert [None if row.action is None else row.action.tolist() for row in rows] == [
        [0, 0],
        [1, -1],
        [2, -2],
        [3, -3],
        None,
    ]


@settings(deadline=None)
@given(distances, offsets)
def test_episodes_never_cross_a_gap_or_a_jump(steps: list[int], delays: list[int]) -> None:
    """And within one, ticks are neither much too short nor longer than the contract's gap, and in order."""
    images = np.cumsum([1000, *steps]).astype(int) * (PERIOD // 100)
    events = [
        event
        for number, (stamp, delay) in enumerate(zip(images.tolist(), delays, strict=False))
        for event in (("image", stamp, number), ("action", stamp + delay, [number, 0.0]))
    ]
    aligner: Aligner[int] = Aligner(CONTRACT)
    rows = run(aligner, events)
    for episode in episodes(rows):
        assert len(episode) >= 2
        between = np.diff([row.stamp for row in episode])
        assert (between >= 0.65 * PERIOD).all()
        assert (between <= CONTRACT.max_gap_ns).all()
        assert np.diff([row.image for row in episode]).min() > 0
    assert len({row.image for row in rows}) == len(rows), "an image is used once"
    assert aligner.gate.images == len(images)


@settings(deadline=None)
@given(distances, offsets, st.integers(-(10**9), 10**18))
def test_shifting_all_stamps_shifts_nothing_else(steps: list[int], delays: list[int], shift: int) -> None:
    """Times near the epoch and today's must give the same data: no stamp may pass through a float."""
    images = (np.cumsum([1000, *steps]) * (PERIOD // 100)).tolist()

    def rows(by: int) -> list[Any]:
        events = [
            event
            for number, (stamp, delay) in enumerate(zip(images, delays, strict=False))
            for event in (("image", stamp + by, number), ("action", stamp + by + delay, [number, 0.0]))
        ]
        made = run(Aligner(CONTRACT), events)
        return [(r.stamp - by, r.image, None if r.last else r.action.tolist()) for r in made]

    assert rows(shift) == rows(0)


@settings(deadline=None)
@given(st.permutations(range(4)), st.integers(0, 5))
def test_actions_that_changed_places_are_where_they_belong(order: list[int], first: int) -> None:
    """Four actions within a tick and a half, received in any order: the means are those of the true order."""
    images = [PERIOD * i for i in range(1, 13)]
    acted = [(PERIOD * (first + 2) + i * PERIOD // 3, [10.0 + i, 0.0]) for i in range(4)]

    def rows(arrival: list[tuple[int, list[float]]]) -> list[Any]:
        held = [("action", stamp, [0.0, 0.0]) for stamp in images]
        late = max(stamp for stamp, _ in arrival)
        sent = sorted([*[("image", stamp, 0) for stamp in images], *held], key=lambda event: event[1])
        place = next((i for i, event in enumerate(sent) if event[1] > late), len(sent))
        sent[place:place] = [("action", stamp + 1, values) for stamp, values in arrival]
        return [None if row.last else row.action.tolist() for row in run(Aligner(CONTRACT), sent)]

    assert rows([acted[i] for i in order]) == rows(acted)


@settings(deadline=None)
@given(offsets, st.randoms())
def test_topics_may_arrive_in_any_order(delays: list[int], random: Any) -> None:
    """Rows must not depend on how transport interleaves the topics, within the patience."""
    images = [PERIOD * i for i in range(1, 16)]
    sent = [("image", stamp, number) for number, stamp in enumerate(images)]
    acted = [("action", PERIOD // 2 + i * PERIOD + delay, [i, 0]) for i, delay in enumerate(delays[:16])]
    in_order = sorted([*sent, *acted], key=lambda event: event[1])
    # Each topic keeps its order, one may lag behind the other by up to half a second.
    lag = {"image": random.randint(0, 10) * PERIOD, "action": random.randint(0, 10) * PERIOD}
    lagging = sorted([*sent, *acted], key=lambda event: event[1] + lag[event[0]])

    def told(rows: list[Row[Any]]) -> list[Any]:
        return [(r.stamp, r.image, None if r.last else r.action.tolist()) for r in rows]

    assert told(run(Aligner(CONTRACT), lagging)) == told(run(Aligner(CONTRACT), in_order))


def test_an_episode_starts_when_actions_do() -> None:
    events = in_lock_step([PERIOD * i for i in range(1, 6)])
    del events[1], events[2]  # the actions of ticks 0 and 1
    aligner: Aligner[int] = Aligner(CONTRACT)
    assert [row.image for row in run(aligner, events)] == [2, 3, 4]
    assert aligner.without_action == 2


def test_an_action_that_is_not_finite_splits() -> None:
    """Dropping such an action would let the one before hold, which is not what the robot did."""
    events = in_lock_step([PERIOD * i for i in range(1, 8)])
    events[7] = ("action", PERIOD * 4, [np.nan, 0.0])
    aligner: Aligner[int] = Aligner(CONTRACT)
    made = [[row.image for row in episode] for episode in episodes(run(aligner, events))]
    assert made == [[0, 1, 2, 3], [4, 5, 6]]
    assert aligner.without_action == 1


def test_after_a_jump_back_nothing_of_the_old_time_is_used() -> None:
    """A looped bag: the old run's actions at the same stamps must not fill the new run's first tick."""
    first = in_lock_step([PERIOD * i for i in range(1, 21)])
    second = [("image", PERIOD * i, 100 + i) for i in range(1, 4)] + [
        ("action", PERIOD * 2 + 1, [7.0, 7.0]),
        ("image", PERIOD * 4, 104),
        ("action", PERIOD * 4, [8.0, 8.0]),
    ]
    aligner: Aligner[int] = Aligner(CONTRACT)
    made = episodes(run(aligner, [*first, *second]))
    assert [row.image for row in made[0]] == list(range(20))
    assert [row.image for row in made[1]] == [103, 104]
    assert made[1][0].action == pytest.approx([7.0, 7.0])
    assert aligner.gate.jumps == 1


def test_an_action_that_jumps_back_first_does_the_same() -> None:
    """The action topic may notice the new time before the camera does."""
    first = in_lock_step([PERIOD * i for i in range(101, 111)])
    second = in_lock_step([PERIOD * i for i in range(1, 5)])
    second[0], second[1] = second[1], second[0]
    made = episodes(run(Aligner(CONTRACT), [*first, *second]))
    assert [[row.image for row in episode] for episode in made] == [list(range(10)), [0, 1, 2, 3]]
    assert made[1][0].action == pytest.approx([0.0, 0.0])


def test_an_old_image_between_does_not_cost_the_new_actions() -> None:
    """The action topic has jumped, the camera follows late: what was applied since then is known."""
    first = in_lock_step([PERIOD * i for i in range(101, 111)])
    old = first.pop(-2)
    second = in_lock_step([PERIOD * i for i in range(1, 5)])
    events = [*first, second[1], old, second[0], *second[2:]]
    made = episodes(run(Aligner(CONTRACT), events))
    assert [[row.image for row in episode] for episode in made] == [list(range(9)), [0, 1, 2, 3]]


def test_actions_that_stalled_before_a_jump_are_not_taken_for_new_ones() -> None:
    """Their last stamp may lie just before the new time's: a guess would pair it with the new run."""
    first = in_lock_step([PERIOD * i for i in range(1, 31)])
    first = [event for event in first if event[0] == "image" or event[1] <= 5 * PERIOD]
    second = [("image", PERIOD * i, 100 + i) for i in range(6, 12)]
    aligner: Aligner[int] = Aligner(CONTRACT)
    rows = run(aligner, [*first, *second])
    assert max(row.image for row in rows) < 100
    assert aligner.without_action == 5


def test_images_do_not_wait_for_ever_for_an_action() -> None:
    """When actions cease, memory must not grow, and the held action still holds."""
    aligner: Aligner[int] = Aligner(CONTRACT)
    aligner.add_action(0, [1.0, 2.0])
    ticks = 1000
    rows = [row for i in range(ticks) for row in aligner.add_image(i * PERIOD, i)]
    assert len(rows) >= ticks - PATIENCE_NS // PERIOD - 2
    assert rows[-1].action == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(
    ("periods", "cut"), [(2, Cut.GAP), (-9, Cut.JUMP), (None, Cut.ACTION)], ids=["gap", "jump", "action"]
)
def test_an_episode_knows_why_it_ended(periods: int | None, cut: Cut) -> None:
    """The report names the reasons: a camera that pauses asks for another remedy than a clock that jumps."""
    images = [PERIOD * i for i in range(20, 25)]
    images += [images[-1] + PERIOD * ((periods or 1) + i) for i in range(5)]
    events = in_lock_step(images)
    if periods is None:
        events[2 * 4 + 1] = ("action", images[4], [np.nan, 0.0])
    made = episodes(run(Aligner(CONTRACT), events))
    assert [episode[-1].cut for episode in made] == [cut, Cut.FINISH]
    assert [len(episode) for episode in made] == [5, 5]


# Events


def told(events: list[tuple[str, int, Any]], **said: Any) -> list[tuple[list[int], int, str]]:
    """Run events, of which ("event", stamp, ...) says what is given; return images, outcome and label."""
    aligner: Aligner[Any] = Aligner(CONTRACT)
    add = {"image": aligner.add_image, "action": aligner.add_action}
    rows: list[Row[Any]] = []
    for kind, stamp, value in events:
        if kind == "event":
            aligner.add_event(stamp, **{**said, **value})
        else:
            rows += add[kind](stamp, value)
    rows += aligner.finish()
    return [([row.image for row in made], made[-1].outcome, made[-1].label) for made in episodes(rows)]


@given(st.integers(0, 9), st.integers(0, 30), st.integers(0, PERIOD - 1))
def test_an_event_splits_after_its_stamp(tick: int, arrival: int, offset: int) -> None:
    """However early it is heard: the images up to the stamp are of the old episode, later ones of the new."""
    events = in_lock_step([PERIOD * i for i in range(1, 11)])
    events.insert(min(arrival, 2 * tick + 2), ("event", PERIOD * (tick + 1) + offset, {"outcome": 1}))
    first, second = [*range(tick + 1)], [*range(tick + 1, 10)]
    expected = [(first, 1, ""), (second, 0, "")]
    # An image alone has no action that is known until a next one, so it makes no episode.
    assert told(events, ends=True) == [part for part in expected if len(part[0]) > 1]


def test_an_event_that_is_heard_late_splits_at_the_next_image() -> None:
    """What was given as one episode's inner row cannot be taken back; the split must not get lost."""
    events = in_lock_step([PERIOD * i for i in range(1, 11)])
    events.insert(10, ("event", PERIOD * 2, {"ends": True}))
    assert [images for images, *_ in told(events)] == [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9]]


def test_outcome_and_label_are_of_the_episode_around_them() -> None:
    """Also when they are said in the pause after it, and not when they are said before it."""
    images = [PERIOD * i for i in (*range(1, 5), *range(20, 25))]
    events = in_lock_step(images)
    events[8:8] = [("event", PERIOD * 10, {"outcome": 2}), ("event", PERIOD * 11, {"label": "cup"})]
    events.insert(0, ("event", 1, {"outcome": 1, "label": "too early"}))
    assert told(events) == [([0, 1, 2, 3], 2, "cup"), ([4, 5, 6, 7, 8], 0, "")]


def test_the_last_word_counts() -> None:
    events = in_lock_step([PERIOD * i for i in range(1, 5)])
    events[4:4] = [
        ("event", PERIOD, {"outcome": 2, "label": "a"}),
        ("event", PERIOD + 1, {"outcome": 1}),
        ("event", PERIOD + 2, {"label": "b"}),
        ("event", PERIOD + 3, {}),
    ]
    assert told(events) == [([0, 1, 2, 3], 1, "b")]


# Depth


def test_depth_is_the_nearest_within_half_a_period() -> None:
    """A depth camera that runs free: each image gets the nearest one, before or after, or none."""
    aligner: Aligner[Any] = Aligner(CONTRACT, depth=True)
    rows: list[Row[Any]] = []
    depths = {0: -10, 1: 20, 2: 26, 4: -30}  # tick: milliseconds from its image
    for tick in range(6):
        stamp = (tick + 10) * PERIOD
        rows += aligner.add_image(stamp, tick)
        rows += aligner.add_action(stamp, [0.0, 0.0])
        if tick in depths:
            rows += aligner.add_depth(stamp + depths[tick] * 1_000_000, f"depth {tick}")
    rows += aligner.finish()
    found = [row.depth for row in rows]
    # Tick 3 has one 24 ms before it and one 20 ms after.
    assert found == ["depth 0", "depth 1", None, "depth 4", None, None]
    assert aligner.without_depth == 3


def test_images_do_not_wait_for_ever_for_depth() -> None:
    """A depth camera that died must not hold the colour images in memory, nor end the episode."""
    aligner: Aligner[Any] = Aligner(CONTRACT, depth=True)
    aligner.add_action(0, [1.0, 2.0])
    rows = [row for i in range(100) for row in aligner.add_image(i * PERIOD, i)]
    assert len(rows) >= 100 - PATIENCE_NS // PERIOD - 2
    assert not any(row.last for row in rows)


# Joints


def joint_events(bad: dict[int, tuple[str, int, Any] | None]) -> list[tuple[str, int, Any]]:
    events = []
    for number in range(8):
        stamp = PERIOD * (number + 1)
        sample = bad.get(number, ("joints", stamp, [number, 2 * number]))
        events += [sample] if sample else []
        events += [("image", stamp, number), ("action", stamp, [number, -number])]
    return events


def test_joints_are_those_at_the_image() -> None:
    rows = run(Aligner(WITH_JOINTS), joint_events({}))
    assert [row.joints.tolist() for row in rows if row.joints is not None] == [[i, 2 * i] for i in range(8)]


def test_joints_that_are_not_finite_split() -> None:
    """The image before the bad one still ends its episode: its action is known, what follows is not."""
    aligner: Aligner[int] = Aligner(WITH_JOINTS)
    rows = run(aligner, joint_events({3: ("joints", PERIOD * 4, [np.nan, 0.0])}))
    assert [[row.image for row in episode] for episode in episodes(rows)] == [[0, 1, 2], [4, 5, 6, 7]]
    assert aligner.bad_joints == 1


def test_joints_that_are_too_old_are_not_used() -> None:
    """A joint topic that stalls must not freeze the joints of images that go on."""
    aligner: Aligner[int] = Aligner(WITH_JOINTS)
    rows = run(aligner, joint_events({3: None, 4: None, 5: None}))
    # Tick 3 takes the joints of tick 2, one period old; ticks 4 and 5 have none that are fresh.
    assert [[row.image for row in episode] for episode in episodes(rows)] == [[0, 1, 2, 3], [6, 7]]
    assert aligner.bad_joints == 2


def test_late_joints_do_not_undo_a_decision() -> None:
    """Regression: a row was given as inner one, and its successor then refused: an episode without an end."""
    aligner: Aligner[int] = Aligner(WITH_JOINTS)
    events = joint_events({})
    place = events.index(("image", PERIOD * 6, 5))
    events.insert(place, ("joints", PERIOD * 5 - 1, [np.nan, np.nan]))
    made = episodes(run(aligner, events))
    assert sum(len(episode) for episode in made) == 8
