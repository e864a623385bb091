"""Messages: what goes in comes out, through every command type and encoding; what is wrong is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState

from smwm_ros import messages, msg
from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract, load_contract
from smwm_ros.errors import DataError
from smwm_ros.messages.images import RAW_IMAGE
from smwm_ros.runtime.belief import Belief, Latent
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.goal import Outcome
from smwm_ros.runtime.plan import Plan

REACHER = load_contract("config/robots/reacher.yaml")
COMMANDS = {
    "std_msgs/msg/Float64MultiArray": ("data[1]", "data[0]", "data[3]"),
    "trajectory_msgs/msg/JointTrajectory": (
        "points[0].velocities[1]",
        "points[0].velocities[0]",
        "points[0].positions[2]",
    ),
    "geometry_msgs/msg/Twist": ("linear.x", "angular.z", "linear.y"),
    "geometry_msgs/msg/TwistStamped": ("twist.linear.x", "twist.angular.z", "twist.linear.y"),
}
finite = st.floats(allow_nan=False, allow_infinity=False)
stamps = st.integers(0, 2**31 * 10**9 - 1)


def robot(kind: str) -> Contract:
    """A robot with three dimensions in the fields of a command type, in mixed order."""
    first = REACHER.action.dimensions[0]
    dimensions = tuple(
        first.model_copy(update={"field": field, "name": name})
        for field, name in zip(COMMANDS[kind], ("a", "b", "c"), strict=True)
    )
    action = REACHER.action.model_copy(update={"type": kind, "dimensions": dimensions})
    return REACHER.model_copy(update={"action": action})


def camera(encoding: str = "rgb8", kind: str = RAW_IMAGE) -> Contract:
    stream = REACHER.observation.image.model_copy(
        update={"encoding": encoding, "type": kind, "width": 24, "height": 16, "size": 16}
    )
    return REACHER.model_copy(
        update={"observation": REACHER.observation.model_copy(update={"image": stream})}
    )


def over_the_wire(message: Any) -> Any:
    return deserialize_message(serialize_message(message), type(message))


@settings(deadline=None)
@given(kind=st.sampled_from(sorted(COMMANDS)), values=st.tuples(finite, finite, finite), stamp=stamps)
def test_commands_come_back_bit_for_bit(kind: str, values: tuple[float, ...], stamp: int) -> None:
    """Pins what lock-step builds on: the simulator compares the decoded command with the applied action."""
    contract = robot(kind)
    message = over_the_wire(messages.encode_command(contract, np.array(values), stamp))
    assert isinstance(message, messages.command_type(contract))
    assert messages.decode_command(contract, message).tolist() == list(values)


def test_commands_are_what_the_controllers_expect() -> None:
    """Pins the place of each number, against the message definitions."""
    values = np.array([1.0, 2.0, 3.0])
    made = {kind: messages.encode_command(robot(kind), values, 5_000_000_007) for kind in COMMANDS}
    assert made["std_msgs/msg/Float64MultiArray"].data.tolist() == [2.0, 1.0, 0.0, 3.0]
    trajectory = made["trajectory_msgs/msg/JointTrajectory"]
    assert trajectory.joint_names == ["b", "a", "c"]
    assert trajectory.points[0].velocities.tolist() == [2.0, 1.0, 0.0]
    assert trajectory.points[0].positions.tolist() == [0.0, 0.0, 3.0]
    assert messages.from_time(trajectory.points[0].time_from_start) == REACHER.period_ns
    assert messages.from_time(trajectory.header.stamp) == 5_000_000_007
    twist = made["geometry_msgs/msg/Twist"]
    assert (twist.linear.x, twist.linear.y, twist.angular.z) == (1.0, 3.0, 2.0)
    stamped = made["geometry_msgs/msg/TwistStamped"]
    assert stamped.twist == twist
    assert messages.from_time(stamped.header.stamp) == 5_000_000_007


def test_a_trajectory_tells_what_follows() -> None:
    """Pins time_from_start: the first point a period after the stamp, each later one a period after it."""
    contract = robot("trajectory_msgs/msg/JointTrajectory")
    later = np.array([[4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    message = over_the_wire(messages.CommandEncoder(contract)(np.array([1.0, 2.0, 3.0]), 7, later))
    assert [messages.from_time(point.time_from_start) for point in message.points] == [
        REACHER.period_ns,
        2 * REACHER.period_ns,
        3 * REACHER.period_ns,
    ]
    assert [point.velocities.tolist() for point in message.points] == [[2, 1, 0], [5, 4, 0], [8, 7, 0]]
    assert [point.positions.tolist() for point in message.points] == [[0, 0, 3], [0, 0, 6], [0, 0, 9]]
    assert messages.decode_command(contract, message).tolist() == [1.0, 2.0, 3.0], "the first point counts"
    for kind in COMMANDS.keys() - {"trajectory_msgs/msg/JointTrajectory"}:
        one, other = (messages.CommandEncoder(robot(kind))(later[0], 7, rows) for rows in (None, later))
        assert one == other


def test_stamps_of_commands() -> None:
    values = np.zeros(3)
    stamps = {
        kind: messages.command_stamp(messages.encode_command(robot(kind), values, 9)) for kind in COMMANDS
    }
    assert stamps == {
        "std_msgs/msg/Float64MultiArray": 0,
        "trajectory_msgs/msg/JointTrajectory": 9,
        "geometry_msgs/msg/Twist": 0,
        "geometry_msgs/msg/TwistStamped": 9,
    }


def test_joint_states_by_name() -> None:
    assert messages.joint_positions(JointState(name=["a", "b"], position=[1.0, 2.0])) == {"a": 1.0, "b": 2.0}
    assert messages.joint_positions(JointState(name=["a"], velocity=[1.0])) == {}, "positions may be left out"
    with pytest.raises(DataError, match="1 positions for 2 names"):
        messages.joint_positions(JointState(name=["a", "b"], position=[1.0]))


def test_trajectory_joints_may_come_in_any_order() -> None:
    contract = robot("trajectory_msgs/msg/JointTrajectory")
    message = messages.encode_command(contract, np.array([1.0, 2.0, 3.0]), 0)
    message.joint_names = ["c", "b", "a"]
    point = message.points[0]
    point.velocities, point.positions = [0.0, 2.0, 1.0], [3.0, 0.0, 0.0]
    assert messages.decode_command(contract, message).tolist() == [1.0, 2.0, 3.0]


def test_bad_commands_are_refused() -> None:
    contract = robot("std_msgs/msg/Float64MultiArray")
    message = messages.command_type(contract)
    for data, what in [
        ([1.0, 2.0, 3.0], "3 numbers"),
        ([], "0 numbers"),
        ([0.0, np.nan, 0.0, 0.0], "not finite"),
    ]:
        with pytest.raises(DataError, match=what):
            messages.decode_command(contract, message(data=data))
    contract = robot("trajectory_msgs/msg/JointTrajectory")
    empty = messages.command_type(contract)(joint_names=["a", "b", "c"])
    with pytest.raises(DataError, match="0 points"):
        messages.decode_command(contract, empty)
    other = messages.encode_command(contract, np.zeros(3), 0)
    other.joint_names = ["a", "b", "d"]
    with pytest.raises(DataError, match="'d'"):
        messages.decode_command(contract, other)


@settings(deadline=None)
@given(nanoseconds=stamps)
def test_stamps_are_exact(nanoseconds: int) -> None:
    assert messages.from_time(over_the_wire(messages.to_time(nanoseconds))) == nanoseconds


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_images_come_back_exactly(encoding: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    contract = camera(encoding)
    message = over_the_wire(messages.encode_image(contract, image, 7, "camera"))
    np.testing.assert_array_equal(messages.decode_image(contract, message), image)
    assert (message.header.frame_id, messages.from_time(message.header.stamp)) == ("camera", 7)


def test_grey_and_compressed_images_come_back_nearly() -> None:
    smooth = np.broadcast_to(np.linspace(0, 250, 24, dtype=np.uint8)[None, :, None], (16, 24, 3)).copy()
    for contract in (camera("mono8"), camera(kind="sensor_msgs/msg/CompressedImage")):
        message = over_the_wire(messages.encode_image(contract, smooth, 0))
        back = messages.decode_image(contract, message).astype(int)
        assert np.abs(back - smooth).max() <= 8


def test_goals_are_raw_images_also_for_a_compressed_camera() -> None:
    contract = camera(kind="sensor_msgs/msg/CompressedImage")
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    goal = ReachGoal.Goal(image=messages.encode_image(contract, image, 0, raw=True))
    assert messages.decode_goal(contract, over_the_wire(goal).image).shape == (16, 16, 3)
    with pytest.raises(DataError, match=r"expected \(16, 24, 3\)"):
        messages.encode_image(contract, image[:8], 0)
    with pytest.raises(DataError, match="64x64"):
        messages.decode_goal(REACHER, goal.image)


def test_latent_belief_and_plan_come_back() -> None:
    values = np.array([1.5, -2.0], np.float32)
    latent = Latent(stamp=3, frame_id="camera", model="toy", values=values)
    back = messages.latent_from_message(over_the_wire(messages.latent_to_message(latent)))
    assert (back.stamp, back.frame_id, back.model, back.values.tolist()) == (3, "camera", "toy", [1.5, -2.0])

    belief = Belief(
        stamp=4,
        evidence=3,
        frame_id="camera",
        model="toy",
        latent=values,
        surprise=2.5,
        surprised=True,
        observations=7,
    )
    back = messages.belief_from_message(over_the_wire(messages.belief_to_message(belief)))
    assert back.latent.tolist() == values.tolist()
    assert {**vars(back), "latent": 0} == {**vars(belief), "latent": 0}

    actions = np.arange(6.0).reshape(3, 2)
    plan = Plan(
        stamp=4, evidence=3, model="toy", sequence=2, period=0.05, execute=1, actions=actions, cost=0.5
    )
    back = messages.plan_from_message(over_the_wire(messages.plan_to_message(plan)))
    np.testing.assert_array_equal(back.actions, actions)
    assert {**vars(back), "actions": 0} == {**vars(plan), "actions": 0}


def test_empty_plan_stops_and_a_torn_one_is_refused() -> None:
    assert messages.plan_from_message(msg.Plan()).stops
    assert messages.plan_from_message(msg.Plan(action_size=2)).stops
    for torn in (msg.Plan(action_size=2, actions=[1.0, 2.0, 3.0]), msg.Plan(actions=[1.0])):
        with pytest.raises(DataError, match="rows"):
            messages.plan_from_message(torn)


def test_applied_actions_come_back_and_bad_ones_are_refused() -> None:
    command = Command(np.array([0.1, 0.2]), stamp=9, safe=True, reason="stopped")
    message = over_the_wire(messages.applied_to_message(command))
    assert (message.source, message.reason) == (msg.AppliedAction.SAFE, "stopped")
    stamp, values = messages.applied_from_message(REACHER, message)
    assert (stamp, values.tolist()) == (9, [0.1, 0.2])
    for bad in ([1.0], [1.0, np.nan]):
        with pytest.raises(DataError):
            messages.applied_from_message(REACHER, msg.AppliedAction(values=bad))


def test_outcomes_are_the_error_codes_of_the_action() -> None:
    """Pins runtime/goal.py, which knows no ROS, to action/ReachGoal."""
    codes = {outcome.name: outcome.value for outcome in Outcome}
    codes["NONE"] = codes.pop("REACHED")
    assert codes == {name: getattr(ReachGoal.Result, name) for name in codes}
    assert len(codes) == 10
