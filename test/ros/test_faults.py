"""The benches that break a running robot: what they send is as broken as they say, and they notice."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, JointState

from smwm_ros import msg
from smwm_ros.cli.bench_faults import bench_faults
from smwm_ros.cli.bench_fuzz_messages import bench_fuzz_messages
from smwm_ros.messages import encode_image, from_time, header, plan_from_message
from smwm_ros.nodes.fault_injector import AWAY, BURST, camera_fault, plan_fault
from smwm_ros.nodes.message_damage import damage, damage_bytes
from smwm_ros.resources import find_contract

CONTRACT = find_contract("reacher")
NOW = 5_000 * 10**9


def image(level: int, stamp: int = NOW) -> Image:
    return encode_image(CONTRACT, np.full((64, 64, 3), level, np.uint8), stamp)


def plan() -> msg.Plan:
    return msg.Plan(
        header=header(NOW), model="toy", sequence=1, period=0.05, action_size=2, execute=1, actions=[0.1] * 10
    )


def test_faults_of_the_camera_are_what_they_are_called() -> None:
    last = image(1, NOW - CONTRACT.period_ns)
    assert camera_fault("", image(7), last) == [image(7)]
    assert camera_fault("stops", image(7), last) == []
    assert camera_fault("repeats", image(7), last) == [last]
    (frozen,) = camera_fault("freezes", image(7), last)
    assert (frozen.data, frozen.header) == (last.data, image(7).header)
    assert last == image(1, NOW - CONTRACT.period_ns), "the good one is kept as it was"
    (nan,) = camera_fault("nan", image(7), last)
    assert np.isnan(np.frombuffer(nan.data, np.float32)).all()
    assert len(nan.data) == nan.step * nan.height
    (small,) = camera_fault("wrong_size", image(7), last)
    assert (small.height, len(small.data)) == (32, 32 * small.step)
    for kind, away in {"old_stamps": -AWAY, "future_stamps": AWAY}.items():
        (wrong,) = camera_fault(kind, image(7), last)
        assert from_time(wrong.header.stamp) == NOW + away
    burst = camera_fault("burst", image(7), last)
    assert len({from_time(one.header.stamp) for one in burst}) == BURST
    with pytest.raises(KeyError):
        camera_fault("sneezes", image(7), last)


@pytest.mark.parametrize(
    ("kind", "flaw"),
    [
        ("nan", "not finite"),
        ("one_nan", "not finite"),
        ("too_long", "too long"),
        ("wrong_model", "wrong model"),
    ],
)
def test_faults_of_the_planner_are_what_the_gate_calls_them(kind: str, flaw: str) -> None:
    (broken,) = plan_fault(kind, plan())
    assert plan_from_message(plan()).flaw(CONTRACT, "toy") == ""
    assert plan_from_message(broken).flaw(CONTRACT, "toy") == flaw


def test_the_order_to_stop_is_never_damaged() -> None:
    stop = msg.Plan(header=header(NOW))
    for kind in ("nan", "too_long", "stale", "future", "wrong_model", "burst"):
        assert plan_fault(kind, copy.deepcopy(stop)) == [stop]


def test_damage_follows_from_its_seed_and_can_be_sent() -> None:
    """A message that the middleware would not take says nothing about the nodes."""
    changed = 0
    for number in range(300):
        sound = (plan(), image(3), JointState(name=["a", "b"], position=[0.0, 1.0]))[number % 3]
        before = copy.deepcopy(sound)
        once, again = (damage(sound, np.random.default_rng(number)) for _ in range(2))
        data = serialize_message(once)  # not compared: what lies between its fields is left to chance
        if len(data) < 100_000:
            assert repr(once) == repr(again)
        assert sound == before
        deserialize_message(data, type(sound))
        changed += once != sound
        broken, same = (damage_bytes(data, np.random.default_rng(number)) for _ in range(2))
        assert broken == same
    assert changed > 200


@pytest.mark.timeout(300)
def test_a_few_hundred_damaged_messages_do_nothing_but_count() -> None:
    """All nodes, through their real callbacks: no exception, no hang, no command outside the limits."""
    figures = bench_fuzz_messages(200, seed=3).to_json()
    assert figures["sent"] == 200
    assert (figures["crashes"], figures["hangs"], figures["unnoticed"]) == (0, 0, 0), figures["failing"]
    assert figures["outside_limits"] == 0, figures["failing"]
    assert figures["refused"] > 40
    assert figures["used"] > 20


@pytest.mark.timeout(300)
def test_a_robot_stops_at_bad_plans_and_goes_on_after_them() -> None:
    """One fault end to end: real processes, a real fault, the witness, and the way back."""
    figures = bench_faults(1, only=["plan_nan"])["faults"]["plan_nan"]
    assert figures["recovered"]
    assert figures["outside_limits"] == 0
    assert "not finite" in figures["reasons"]
    assert figures["repeats"] == len(figures["safe_ms"]["all"]) == 1
