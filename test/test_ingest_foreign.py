"""Bags as others record them: commands for actions, damaged images, depth, what people said of episodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ingesting import assert_aligned, numbers, refused, run
from recordings import PERIOD, TYPES, Recording, action, compressed, header, image, numbered, record, robot

from smwm_ros.cli.bench_ingest import vga_contract, write_bag
from smwm_ros.contract import Contract, parse_contract
from smwm_ros.errors import ContractError

SECOND = 1_000_000_000


def commanded(kind: str, *fields: str, depth: str = "") -> Contract:
    """Return the contract of a robot without joints whose actions are fields of a command type."""
    dimensions = "\n".join(
        f"    - {{field: '{field}', name: d{i}, unit: m/s, low: -1e6, high: 1e6, max_change: 1.0}}"
        for i, field in enumerate(fields)
    )
    return parse_contract(
        "name: tiny\nrate: 20.0\nblock: 5\nobservation:\n"
        "  image: {topic: camera/image_raw, width: 12, height: 12, size: 12}\n"
        + (f"  depth: {{topic: depth, encoding: {depth}}}\n" if depth else "")
        + f"action:\n  topic: commands\n  type: {kind}\n  timeout: 0.25\n  safe: zero\n"
        f"  dimensions:\n{dimensions}\n",
        "test",
    )


def vector(*values: float) -> Any:
    return TYPES["geometry_msgs/msg/Vector3"](*map(float, values))


def twist(number: int) -> Any:
    return TYPES["geometry_msgs/msg/Twist"](linear=vector(number, 7, 7), angular=vector(7, 7, number + 0.5))


def array_command(number: int) -> Any:
    layout = TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return TYPES["std_msgs/msg/Float64MultiArray"](layout=layout, data=np.array([number, number + 0.5]))


def trajectory(number: int, stamp: int, names: tuple[str, ...] = ("d1", "d0")) -> Any:
    nothing = np.zeros(0)
    point = TYPES["trajectory_msgs/msg/JointTrajectoryPoint"](
        positions=nothing,
        velocities=np.array([number + 0.5, number]),
        accelerations=nothing,
        effort=nothing,
        time_from_start=TYPES["builtin_interfaces/msg/Duration"](0, 0),
    )
    return TYPES["trajectory_msgs/msg/JointTrajectory"](
        header=header(stamp), joint_names=list(names), points=[point]
    )


COMMANDS = {
    "std_msgs/msg/Float64MultiArray": (("data[0]", "data[1]"), lambda number, _: array_command(number)),
    "geometry_msgs/msg/Twist": (("linear.x", "angular.z"), lambda number, _: twist(number)),
    "geometry_msgs/msg/TwistStamped": (
        ("twist.linear.x", "twist.angular.z"),
        lambda number, stamp: TYPES["geometry_msgs/msg/TwistStamped"](
            header=header(stamp), twist=twist(number)
        ),
    ),
    "trajectory_msgs/msg/JointTrajectory": (
        ("points[0].velocities[0]", "points[0].velocities[1]"),
        trajectory,
    ),
}


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("delay", [0, 20_000_000], ids=["at once", "received late"])
def test_commands_stand_in_for_applied_actions(tmp_path: Path, kind: str, delay: int) -> None:
    """A bag of `ros2 bag record`: by the header's stamp where there is one, else by when it was received."""
    fields, message = COMMANDS[kind]
    contract = commanded(kind, *fields)
    with Recording(tmp_path / "bag", None) as bag:
        for number in range(6):
            stamp = SECOND + number * PERIOD
            bag.received = stamp - 1_000_000
            bag.add("camera/image_raw", numbered(stamp, number))
            bag.received = stamp + delay - 1_000_000
            bag.add("commands", message(number, stamp))
    store, report = run(tmp_path, tmp_path / "bag", contract=contract)
    assert "no applied_action: /commands was taken" in report.bags[0].notes[0]
    late = delay / PERIOD if kind in ("std_msgs/msg/Float64MultiArray", "geometry_msgs/msg/Twist") else 0.0
    # What was commanded a little after an image holds from then on; before the first, nothing is known.
    said = np.array(numbers(store, 0))[:-1]
    assert said[0] == (1 if late else 0)
    expected = said - late
    np.testing.assert_allclose(
        store.read("action")[:-1], np.stack([expected, expected + 0.5], axis=1), atol=1e-6
    )


def test_a_trajectory_without_a_stamp_applies_at_once(tmp_path: Path) -> None:
    """Zero means "now" to a trajectory controller, not 1970."""
    fields, message = COMMANDS["trajectory_msgs/msg/JointTrajectory"]
    with Recording(tmp_path / "bag", None) as bag:
        for number in range(4):
            bag.received = SECOND + number * PERIOD - 2_000_000
            bag.add("commands", message(number, 0))
            bag.add("camera/image_raw", numbered(SECOND + number * PERIOD, number))
    contract = commanded("trajectory_msgs/msg/JointTrajectory", *fields)
    store, _ = run(tmp_path, tmp_path / "bag", contract=contract)
    assert numbers(store, 0) == [0, 1, 2, 3]


def test_a_command_that_is_not_understood_makes_the_action_unknown(tmp_path: Path) -> None:
    """The robot did something then; the command before must not be taken to have gone on."""
    fields, message = COMMANDS["trajectory_msgs/msg/JointTrajectory"]
    with Recording(tmp_path / "bag", None) as bag:
        for number in range(9):
            stamp = SECOND + number * PERIOD
            names = ("gripper", "finger") if number == 4 else ("d1", "d0")
            bag.add("camera/image_raw", numbered(stamp, number))
            bag.add("commands", message(number, stamp, names))
    contract = commanded("trajectory_msgs/msg/JointTrajectory", *fields)
    store, report = run(tmp_path, tmp_path / "bag", contract=contract)
    assert [numbers(store, i) for i in range(2)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert (report.bags[0].bad_commands, report.bags[0].without_action) == (1, 1)
    assert "gripper" in report.bags[0].notes[1]


def test_commands_of_another_robot_are_refused(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", None) as bag:
        for number in range(9):
            bag.add("camera/image_raw", numbered(SECOND + number * PERIOD, number))
            bag.add("commands", array_command(number))
    contract = commanded("std_msgs/msg/Float64MultiArray", "data[0]", "data[1]", "data[2]")
    refused(
        tmp_path, r"not one of .*/commands.*2 numbers.*contract says 3", tmp_path / "bag", contract=contract
    )


# Images


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_image_is_a_dropped_image(tmp_path: Path, jobs: int) -> None:
    """One of two hundred cut short on the wire: it is counted, and the episode splits as at any gap."""
    contract = robot(image="{width: 12, height: 12, size: 12, type: sensor_msgs/msg/CompressedImage}")
    with Recording(tmp_path / "bag", contract) as bag:
        for number in range(200):
            pixels = np.full((12, 12, 3), (5, 0, number), np.uint8)
            data = cv2.imencode(".png", pixels)[1].tobytes()
            data = data[:30] if number == 90 else data
            bag.tick((number + 1) * PERIOD, number, image=compressed((number + 1) * PERIOD, data))
    store, report = run(tmp_path, tmp_path / "bag", jobs=jobs)
    assert [numbers(store, i) for i in range(2)] == [[*range(90)], [*range(91, 200)]]
    assert_aligned(store)
    assert (report.total("bad_images"), report.total("gaps"), report.drops) == (1, 1, 1)
    assert "images dropped: 1; the first: compressed image ('png', 30 bytes)" in report.bags[0].notes[0]


def test_a_damaged_surplus_image_costs_nothing(tmp_path: Path) -> None:
    """It is as if it had never come, as for the live perception."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(9):
            stamp = (number + 1) * PERIOD
            bag.tick(stamp, number)
            bag.add("camera/image_raw", image(stamp + PERIOD // 2, np.zeros((6, 6, 3), np.uint8)))
    store, report = run(tmp_path, tmp_path / "bag")
    assert numbers(store, 0) == [*range(9)]
    assert (report.total("bad_images"), report.splits) == (9, 0)


def test_a_bag_of_wrong_images_is_refused_at_once(tmp_path: Path) -> None:
    """A wrong contract must be told after a moment, not after twenty gigabytes."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(300):
            bag.tick((number + 1) * PERIOD, number, image=image(PERIOD, np.zeros((6, 6, 3), np.uint8)))
    refused(tmp_path, r"not one of the first 50 messages of /camera/image_raw.*6x6.*12x12", tmp_path / "bag")


# Depth


@pytest.mark.parametrize(("encoding", "packed"), [("16UC1", False), ("16UC1", True), ("32FC1", False)])
def test_depth_becomes_a_column(tmp_path: Path, encoding: str, packed: bool) -> None:
    """Metres where the camera measured, NaN where it did not or where no depth image came."""
    contract = commanded("std_msgs/msg/Float64MultiArray", "data[0]", "data[1]", depth=encoding)
    with Recording(tmp_path / "bag", contract) as bag:
        for number in range(6):
            stamp = SECOND + number * PERIOD
            bag.add("camera/image_raw", numbered(stamp, number))
            bag.add("applied_action", action(stamp, [number, number]))
            if number != 3:
                metres = np.full((12, 12), number + 0.5)
                metres[0, 0] = 0
                kind, unit = (np.uint16, 1000) if encoding == "16UC1" else (np.float32, 1)
                raw = (metres * unit).astype(kind)
                if packed:
                    data = bytes(12) + cv2.imencode(".png", raw)[1].tobytes()
                    message = compressed(stamp + PERIOD // 4, data, "16UC1; compressedDepth png")
                    bag.add("depth/compressedDepth", message)
                else:
                    pixels = raw.view(np.uint8).reshape(12, 12, -1)
                    bag.add("depth", image(stamp + PERIOD // 4, pixels, encoding))
    store, report = run(tmp_path, tmp_path / "bag", depth=True)
    depth = store.read("depth")
    assert (depth.shape, depth.dtype) == ((6, 12, 12), np.float32)
    np.testing.assert_allclose(depth[:, 5, 5], [0.5, 1.5, 2.5, np.nan, 4.5, 5.5])
    assert np.isnan(depth[:, 0, 0]).all()
    assert report.bags[0].without_depth == 1
    assert "without a depth image within half a period: 1" in report.bags[0].notes[0]
    assert "depth" not in run(tmp_path, tmp_path / "bag")[0].columns


def test_a_bag_of_wrong_depth_is_refused(tmp_path: Path) -> None:
    """Who asks for depth does not want a column of nothing."""
    contract = commanded("std_msgs/msg/Float64MultiArray", "data[0]", "data[1]", depth="32FC1")
    with Recording(tmp_path / "bag", contract) as bag:
        for number in range(6):
            stamp = SECOND + number * PERIOD
            bag.add("camera/image_raw", numbered(stamp, number))
            bag.add("applied_action", action(stamp, [number, number]))
            bag.add("depth", image(stamp, np.zeros((12, 12, 2), np.uint8), "16UC1"))
    refused(tmp_path, r"first 6 messages of /depth.*'16UC1'.*'32FC1'", tmp_path / "bag", depth=True)


def test_depth_needs_a_contract_that_has_it(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag")
    with pytest.raises(ContractError, match=r"no observation.depth.*--depth"):
        run(tmp_path, bag, depth=True)


# Events


def event(stamp: int, outcome: int, label: str = "", ends: bool = False) -> Any:
    return TYPES["smwm_ros/msg/EpisodeEvent"](header=header(stamp), outcome=outcome, label=label, ends=ends)


def test_events_split_and_say_what_became_of_the_episodes(tmp_path: Path) -> None:
    """What an operator marked while recording is in the store, at the episode it belongs to."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(12):
            bag.tick((number + 1) * PERIOD, number)
            if number in (3, 7):
                bag.add("episode_events", event((number + 1) * PERIOD + 9, 1 + number // 7, "cup", True))
    store, report = run(tmp_path, tmp_path / "bag")
    assert store.lengths.tolist() == [4, 4, 4]
    assert_aligned(store)
    assert [(facts.outcome, facts.label) for facts in store.facts] == [(1, "cup"), (2, "cup"), (0, "")]
    assert (report.total("events"), report.splits) == (2, 2)
    assert [episode.outcome for episode in report.bags[0].quality] == [1, 2, 0]
    assert report.bags[0].quality[0].ended == "episode event"


def test_an_outcome_that_is_not_known_is_none(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(4):
            bag.tick((number + 1) * PERIOD, number)
        bag.add("episode_events", event(PERIOD, 77))
    assert run(tmp_path, tmp_path / "bag")[0].facts[0].outcome == 0


# Memory

# Not ru_maxrss: a process inherits that from the one that started it.
MEASURED = """
import re, sys
from pathlib import Path
from smwm_ros.data.ingest.ingest import ingest
ingest(sys.argv[1:2], sys.argv[2])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_bag(tmp_path: Path) -> None:
    """For 220 MB of images more it may not need 60 MB more."""
    peaks = []
    for frames in (120, 360):
        bag = tmp_path / f"bag_{frames}"
        write_bag(bag, vga_contract(jpeg=False), frames, compress=False, different=4)
        command = [sys.executable, "-c", MEASURED, str(bag), str(tmp_path / f"{frames}.h5")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * 1024)
    assert max(peaks) < 1e9
    assert peaks[1] - peaks[0] < 60e6, [f"{peak / 1e6:.0f} MB" for peak in peaks]
