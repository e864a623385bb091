"""Where latents are in space: the tasks' landmarks, and what is learned of them from pictures."""

from __future__ import annotations

import numpy as np
import pytest

from smwm_ros.messages import markers_to_message
from smwm_ros.models.checkpoint import load_checkpoint
from smwm_ros.resources import checkpoint_path, find_contract
from smwm_ros.runtime.geometry import learn_geometry
from smwm_ros.tasks import make_task

UPPER_ARM, FOREARM, HEIGHT = 0.12, 0.12, 0.09


def test_landmarks_are_where_the_kinematics_say() -> None:
    """Whatever state the robot itself is in."""
    with make_task(find_contract("reacher")) as task:
        task.reset(seed=0)
        shoulder, elbow = 0.4, -1.1
        tip = UPPER_ARM * np.exp(1j * shoulder) + FOREARM * np.exp(1j * (shoulder + elbow))
        before = task.state
        np.testing.assert_allclose(
            task.places([shoulder, elbow, 0, 0]), [[tip.real, tip.imag, HEIGHT]], atol=1e-9
        )
        np.testing.assert_array_equal(task.state, before)


@pytest.mark.parametrize(
    ("robot", "landmarks"),
    [
        ("reacher", ("fingertip",)),
        ("reacher_torque", ("finger",)),
        ("two_room", ("base",)),
        ("push_t", ("pusher", "block")),
        ("push_t_stiff", ("pusher", "block")),
        ("pick_cube", ("grip", "cube")),
    ],
)
def test_each_landmark_moves_with_the_state(robot: str, landmarks: tuple[str, ...]) -> None:
    with make_task(find_contract(robot)) as task:
        assert task.landmarks == landmarks
        places = np.stack([task.places(task.reset(seed=seed)[1]["state"]) for seed in range(5)])
    assert places.shape == (5, len(landmarks), 3)
    assert (np.ptp(places, axis=0).max(1) > 0.05).all()


def test_places_are_read_from_latents_of_pictures_not_seen() -> None:
    """With the shipped model: within 3 cm, of an arm of 24 cm, after a fifth of the usual pictures."""
    model = load_checkpoint(checkpoint_path("reacher"))
    with make_task(model.contract) as task:
        geometry = learn_geometry(model, task, states=300)
        assert geometry is not None
        assert geometry.error < 0.03
        found, right = [], []
        for seed in range(10_000, 10_020):
            observation, info = task.reset(seed=seed)
            found.append(geometry(model.encode(observation["pixels"][None])[None])[0])
            right.append(task.places(info["state"]))
        assert np.median(np.linalg.norm(np.subtract(found, right), axis=-1)) < 0.03


def test_learning_ends_when_it_is_not_to_go_on() -> None:
    model = load_checkpoint(checkpoint_path("reacher"))
    with make_task(model.contract) as task:
        assert learn_geometry(model, task, going_on=lambda: False) is None


def test_markers_show_a_line_and_balls_for_each_landmark_and_replace_what_was_there() -> None:
    path = np.arange(18.0).reshape(3, 2, 3)
    goal = np.array([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    clear, *shown = markers_to_message(
        {"path": path, "goal": goal}, ("hand", "cup"), 1_500_000_000, 0.04
    ).markers
    assert clear.action == clear.DELETEALL
    assert [(marker.ns, marker.id, marker.text) for marker in shown] == [
        ("path", 0, "hand"), ("path", 1, "cup"), ("goal", 0, "hand"), ("goal", 1, "cup"),
    ]  # fmt: skip
    assert [(point.x, point.y, point.z) for point in shown[1].points] == [
        (3, 4, 5),
        (9, 10, 11),
        (15, 16, 17),
    ]
    assert (shown[0].type, shown[2].type) == (clear.LINE_STRIP, clear.SPHERE)
    assert (shown[3].pose.position.x, shown[3].pose.position.z, shown[3].scale.y) == (4, 6, 0.04)
    assert {marker.header.frame_id for marker in shown} == {"world"}
    assert shown[0].header.stamp.nanosec == 500_000_000
    assert [marker.action for marker in markers_to_message({}, ("hand",), 0, 0.04).markers] == [
        clear.DELETEALL
    ]
