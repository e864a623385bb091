"""The belief: newest latent, surprise by the actions really applied, and when it begins anew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from smwm_ros.contract import load_contract
from smwm_ros.errors import DataError
from smwm_ros.runtime.belief import Belief, BeliefTracker, Latent

REACHER = load_contract("config/robots/reacher.yaml")
PERIOD, BLOCK = REACHER.period_ns, REACHER.block
START = 10_000_000_000


class Integrator:
    """A world whose latent moves by the sum of the actions, and in which that is foreseen exactly."""

    id = "toy"
    latent_size = 2

    def surprise(self, latent: Any, block: Any, next_latent: Any) -> float:
        assert block.shape == (BLOCK, 2)
        return float(np.abs(latent + block.sum(0) - next_latent).max())


def track(**settings: Any) -> BeliefTracker:
    return BeliefTracker(REACHER, Integrator(), **{"threshold": 1.0, "patience": 3} | settings)  # type: ignore[arg-type]


def latent(tick: float, values: Any = (0.0, 0.0), model: str = "toy") -> Latent:
    return Latent(
        stamp=START + round(tick * PERIOD),
        frame_id="camera",
        model=model,
        values=np.array(values, np.float32),
    )


def believe(tracker: BeliefTracker, *seen: Latent) -> Belief:
    for one in seen:
        belief, _ = tracker.observe(one)
    assert belief is not None
    return belief


def test_surprise_is_zero_where_the_applied_actions_explain_the_latent() -> None:
    """
    Pins alignment: a tick's action is what was applied from its image on, here 0.3 ticks late.

    With a shift by one tick, or with planned instead of applied actions, the surprise would not vanish.
    """
    rng = np.random.default_rng(0)
    tracker, position = track(), np.zeros(2)
    lag = 0.3
    signal = rng.uniform(-1, 1, (20, 2))
    tracker.apply(START - PERIOD, signal[-1])
    for tick in range(12):
        belief = believe(tracker, latent(tick, position))
        tracker.apply(START + round((tick + lag) * PERIOD), signal[tick])
        position = position + lag * signal[tick - 1] + (1 - lag) * signal[tick]
        assert math.isnan(belief.surprise) == (tick < BLOCK)
        if tick >= BLOCK:
            assert belief.surprise < 1e-6
        assert belief.observations == tick + 1


def test_surprise_is_unknown_while_an_action_is_unknown() -> None:
    tracker = track()
    believe(tracker, *[latent(tick) for tick in range(3)])
    tracker.apply(START + 3 * PERIOD, np.zeros(2))
    assert math.isnan(believe(tracker, *[latent(tick) for tick in range(3, 8)]).surprise)
    assert believe(tracker, latent(8)).surprise == 0.0


def test_belief_is_the_newest_latent_with_its_stamp() -> None:
    belief = believe(track(), latent(0), latent(1, (3.0, 4.0)))
    assert (belief.stamp, belief.evidence, belief.frame_id) == (START + PERIOD, START + PERIOD, "camera")
    assert belief.latent.tolist() == [3.0, 4.0]


def test_only_lasting_surprise_is_flagged() -> None:
    tracker = track(patience=BLOCK + 1)
    tracker.apply(START, np.zeros(2))

    def flags(first: int, *jumps: float) -> list[bool]:
        return [believe(tracker, latent(first + i, (jump, 0.0))).surprised for i, jump in enumerate(jumps)]

    assert not any(flags(0, *[0.0] * 10))
    assert not any(flags(10, *[50.0] * 20)), "one jolt is in the steps of k ticks, and then over"
    drift = flags(30, *[50.0 + 2.0 * i for i in range(1, 20)])
    assert drift.index(True) == BLOCK
    assert all(drift[BLOCK:])
    assert not any(flags(49, *[88.0] * 10)[BLOCK:]), "it ends with its cause"


def test_a_picture_that_stands_still_where_motion_was_foreseen_is_flagged_until_it_changes() -> None:
    """Pins that a frozen camera is noticed before a model step is over; the robot's rest excuses nothing."""
    tracker = track(patience=1000)
    tracker.apply(START, np.ones(2))
    moving = [believe(tracker, latent(tick, (tick, tick))).surprised for tick in range(10)]
    frozen = [believe(tracker, latent(tick, (9.0, 9.0))).surprised for tick in range(10, 20)]
    assert not any(moving)
    assert frozen.index(True) == BLOCK - 2, "then as many latents as a model step has ticks are the same"
    tracker.apply(START + 20 * PERIOD, np.zeros(2))
    assert all(believe(tracker, latent(tick, (9.0, 9.0))).surprised for tick in range(20, 40))
    assert not believe(tracker, latent(40, (9.5, 9.0))).surprised
    assert not believe(tracker, latent(41, (9.5, 9.0))).surprised
    resting = [believe(tracker, latent(tick, (9.5, 9.0))).surprised for tick in range(42, 60)]
    assert not any(resting), "as foreseen, for a robot that is not moved"


@pytest.mark.parametrize(("tick", "reason"), [(12.0, "gap of 0.150 s"), (2.0, "stamp jumped back 0.350 s")])
def test_gap_and_jump_back_begin_the_belief_anew(tick: float, reason: str) -> None:
    tracker = track()
    tracker.apply(START, np.zeros(2))
    believe(tracker, *[latent(i) for i in range(10)])
    belief, said = tracker.observe(latent(tick))
    assert said == reason
    assert belief is not None
    assert belief.observations == 1
    assert math.isnan(belief.surprise)


def test_image_shown_again_gives_the_same_belief_and_surplus_ones_none() -> None:
    """Pins lock-step's start, where the simulator repeats its image, and cameras faster than the contract."""
    tracker = track()
    first, _ = tracker.observe(latent(0))
    assert tracker.observe(latent(0)) == (first, "")
    assert tracker.observe(latent(0.5)) == (None, "")
    assert believe(tracker, latent(1)).observations == 2


def test_a_latent_that_comes_late_gives_no_belief_and_begins_none() -> None:
    """Two images that change places on the wire must not cost the belief its past."""
    tracker = track()
    believe(tracker, *[latent(tick) for tick in range(4)])
    assert tracker.observe(latent(2.5)) == (None, "")
    assert believe(tracker, latent(4)).observations == 5


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (latent(1, model="other"), "'other'"),
        (latent(1, (1.0, 2.0, 3.0)), "3 numbers"),
        (latent(1, (float("nan"), 0.0)), "not finite"),
    ],
)
def test_bad_latents_are_refused_and_leave_no_trace(bad: Latent, what: str) -> None:
    tracker = track()
    believe(tracker, latent(0))
    with pytest.raises(DataError, match=what):
        tracker.observe(bad)
    assert believe(tracker, latent(1)).observations == 2


@pytest.mark.parametrize("first", ["images", "actions"])
def test_clock_set_back_forgets_what_was_applied_before(first: str) -> None:
    """
    Pins a bag played in a loop and a simulation begun anew: the same stamps come again.

    Whichever topic jumps first: the actions from before must not stand for those of the new time,
    nor may those of the new time be lost when the images follow.
    """
    tracker = track()
    for tick in range(10):
        tracker.apply(START + tick * PERIOD, np.ones(2))
        believe(tracker, latent(tick))
    if first == "actions":
        tracker.apply(START, np.zeros(2))
        late = tracker.observe(latent(10))  # was still being encoded
        assert late[1] == "stamp of an action jumped back 0.450 s"
        said = tracker.observe(latent(0))[1]
    else:
        said = tracker.observe(latent(0))[1]
        tracker.apply(START, np.zeros(2))
    assert said == f"stamp jumped back {0.5 if first == 'actions' else 0.45:.3f} s"
    beliefs = [believe(tracker, latent(tick)) for tick in range(1, BLOCK + 1)]
    assert [belief.observations for belief in beliefs] == list(range(2, BLOCK + 2))
    assert beliefs[-1].surprise == 0.0


def test_action_that_is_not_finite_leaves_its_ticks_unknown() -> None:
    """As ingest does: the action before it must not be thought to have held on."""
    tracker = track()
    for tick in range(3 * BLOCK):
        tracker.apply(START + tick * PERIOD, np.full(2, np.nan if tick == BLOCK else 0.0))
    known = [math.isfinite(believe(tracker, latent(tick)).surprise) for tick in range(3 * BLOCK)]
    assert known == [tick == BLOCK or tick > 2 * BLOCK for tick in range(3 * BLOCK)]


def test_action_that_comes_late_counts_from_then_on() -> None:
    """A belief cannot wait for it, as ingest does; the steps judged later know of it."""
    tracker = track()
    tracker.apply(START, np.zeros(2))
    before = [believe(tracker, latent(tick)).surprise for tick in range(BLOCK + 2)]
    tracker.apply(START + BLOCK * PERIOD, np.ones(2))
    assert before[-2:] == [0.0, 0.0]
    assert believe(tracker, latent(BLOCK + 2)).surprise == pytest.approx(2.0)
