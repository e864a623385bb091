"""Every type of command, in lock-step against the simulated robot: what is planned is what the robot does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acting import REACHER, Stage, write_contract
from sensor_msgs.msg import Image, JointState

from smwm_ros.contract import load_contract
from smwm_ros.messages import from_time
from smwm_ros.nodes import qos
from smwm_ros.nodes.action_node import ActionNode
from smwm_ros.nodes.sim_node import SimNode
from smwm_ros.tasks import make_task

TICKS = 12
POINTS = 3
ACTIONS = np.random.default_rng(5).uniform(-0.9, 0.9, (TICKS + POINTS, 2))
"""Within the reacher's limits, also those of change."""
SEED = 3
KINDS: dict[str, tuple[str, str]] = {
    "std_msgs/msg/Float64MultiArray": ("data[1]", "data[0]"),
    "trajectory_msgs/msg/JointTrajectory": ("points[0].velocities[0]", "points[0].velocities[1]"),
    "geometry_msgs/msg/Twist": ("linear.x", "angular.z"),
    "geometry_msgs/msg/TwistStamped": ("twist.linear.y", "twist.angular.x"),
}


@pytest.fixture(scope="module")
def expected() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the joints at each tick, without ROS."""
    with make_task(load_contract(REACHER)) as task:
        rows = [task.reset(seed=SEED)[0]["joints"]]
        rows += [task.step(action)[0]["joints"] for action in ACTIONS[:TICKS]]
    return np.array(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_simulated_robot_does_what_was_planned(
    kind: str, expected: np.ndarray[Any, np.dtype[np.float64]], tmp_path: Path
) -> None:
    """Pins each adapter from plan to physics: another field, order, unit or tick moves another joint."""
    path = tmp_path / "robot.yaml"
    dimensions = [
        {"field": field, "name": name, "unit": "rad/s", "low": -2.0, "high": 2.0, "max_change": 40.0}
        for field, name in zip(KINDS[kind], ("shoulder", "elbow"), strict=True)
    ]
    points = {"points": POINTS} if kind.endswith("JointTrajectory") else {}
    contract = write_contract(path, type=kind, topic="controller/commands", dimensions=dimensions, **points)
    images: list[int] = []
    joints: dict[int, list[float]] = {}
    with Stage(contract, path) as stage:
        reliable = qos.sensor("reliable")

        def on_image(message: Image) -> None:
            stamp = from_time(message.header.stamp)
            if stamp not in images:
                images.append(stamp)
            tick = images.index(stamp)
            # Again when the image comes again: the simulator may have missed the answer.
            stage.plan(*ACTIONS[tick : tick + POINTS], stamp=stamp, execute=1)

        def on_joints(message: JointState) -> None:
            joints[from_time(message.header.stamp)] = list(message.position)

        stage.probe.create_subscription(Image, "camera/image_raw", on_image, reliable)
        stage.probe.create_subscription(JointState, "joint_states", on_joints, reliable)
        stage.start(ActionNode, lock_step=True, use_sim_time=True)
        stage.start(SimNode, lock_step=True, sensor_reliability="reliable", seed=SEED)
        stage.spin(lambda: len(images) > TICKS and images[TICKS] in joints, "the ticks", 60)
        messages = list(stage.messages)
    shown = np.array([joints[stamp] for stamp in images[: TICKS + 1]])
    np.testing.assert_array_equal(shown, expected)
    assert images[:TICKS] == [images[0] + tick * contract.period_ns for tick in range(TICKS)]
    if points:
        trajectory = messages[0]
        assert [from_time(point.time_from_start) for point in trajectory.points] == [
            (number + 1) * contract.period_ns for number in range(POINTS)
        ]
        told = np.array([point.velocities for point in trajectory.points])
        np.testing.assert_array_equal(told, ACTIONS[:POINTS])
        assert from_time(trajectory.header.stamp) == images[0]
