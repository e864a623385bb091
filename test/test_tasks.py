"""The simulated robots, in-process."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks import RobotTask, make_task

ACTIONS = np.random.default_rng(7).uniform(-2, 2, (30, 2))


@pytest.fixture(scope="module")
def contract() -> Contract:
    return find_contract("reacher")


@pytest.fixture(scope="module")
def task(contract):
    made = make_task(contract)
    yield made
    made.close()


@pytest.fixture(scope="module")
def distracted(contract):
    made = make_task(contract, distractors=True)
    yield made
    made.close()


def rollout(task: RobotTask, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Run ACTIONS after a reset; return pixels and states."""
    observation, info = task.reset(seed=seed)
    pixels, states = [observation["pixels"]], [info["state"]]
    for action in ACTIONS:
        observation, _, _, _, info = task.step(action)
        pixels.append(observation["pixels"])
        states.append(info["state"])
    return np.stack(pixels), np.stack(states)


def changed(contract: Contract, **parts: object) -> Contract:
    return Contract.model_validate(contract.model_dump() | parts)


def test_is_a_gymnasium_environment(task):
    """Spaces that contradict what reset and step return."""
    observation, info = task.reset(seed=1)
    assert task.observation_space.contains(observation)
    assert info["state"].shape == (4,)
    observation, reward, terminated, truncated, _ = task.step(task.action_space.sample())
    assert task.observation_space.contains(observation)
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_gymnasium_makes_it_without_a_contract():
    """The registered id must be usable by people who know nothing of this package."""
    env = gymnasium.make("smwm/Reacher-v0", distractors=True)
    assert env.unwrapped.contract == find_contract("reacher")
    env.close()


@pytest.mark.parametrize("name", ["task", "distracted"])
def test_same_seed_same_pixels(name, request):
    """State, blobs or light drawn from anything but the seed, or left over from the episode before."""
    task = request.getfixturevalue(name)
    first = rollout(task, 3)
    rollout(task, 4)
    again = rollout(task, 3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_other_seed_other_episode(task):
    assert not np.allclose(rollout(task, 3)[1][0], rollout(task, 4)[1][0])


def test_distractors_change_the_picture_and_nothing_else(task, distracted):
    """Distractors that push the robot, or that shift its random numbers."""
    pixels, states = rollout(task, 5)
    other_pixels, other_states = rollout(distracted, 5)
    np.testing.assert_array_equal(states, other_states)
    assert (pixels != other_pixels).any(axis=-1).mean() > 0.5


def test_distractors_move_while_the_robot_rests(distracted):
    first = distracted.reset(seed=0)[0]["pixels"]
    state = distracted.state
    for _ in range(20):
        last = distracted.step(np.zeros(2))[0]["pixels"]
    np.testing.assert_array_equal(distracted.state, state)
    assert (np.abs(last.astype(int) - first) > 30).any(axis=-1).sum() > 20


def test_picture_shows_every_joint_and_direction(task):
    """A colour, a camera or a link so chosen that two poses look the same."""
    poses = [(s, e) for s in np.arange(-3, 3.1, 0.5) for e in np.arange(-2.5, 2.6, 0.5)]
    pictures = (
        np.stack([task.render_state([*pose, 0, 0]) for pose in poses]).reshape(len(poses), -1).astype(int)
    )
    for index, picture in enumerate(pictures):
        differing = (np.abs(pictures - picture) > 40).sum(axis=1)
        assert np.delete(differing, index).min() > 30


def test_small_motion_changes_the_picture(task):
    """Without anti-aliasing 0.05 rad of the elbow often changes next to nothing."""
    base = task.render_state([0.3, 0.4, 0, 0]).astype(int)
    for other in ([0.35, 0.4, 0, 0], [0.3, 0.45, 0, 0]):
        assert (np.abs(task.render_state(other) - base) > 8).sum() > 20


def test_state_round_trip(task):
    """A reset that drops velocities, or perturbs angles beyond a full turn."""
    state = np.array([7.5, -1.2, 0.5, -0.25])
    _, info = task.reset(seed=0, options={"state": state})
    np.testing.assert_array_equal(info["state"], state)


def test_every_reached_state_can_be_restored(task):
    """The elbow's soft limit gives a little; states recorded there must still be accepted."""
    task.reset(seed=0)
    for _ in range(60):
        task.step(np.array([0.0, 2.0]))
    assert task.state[1] > 2.59
    task.check_state(task.state)


def test_restored_state_goes_on_alike(task):
    """Physics that depends on more than the state cannot be evaluated from recorded states."""
    _, states = rollout(task, 6)
    task.reset(seed=0, options={"state": states[10]})
    for action in ACTIONS[10:]:
        task.step(action)
    np.testing.assert_allclose(task.state, states[-1], atol=1e-6)


def test_rendering_a_goal_does_not_disturb(task):
    """Goal images are rendered while the robot runs: same states and pixels as without."""
    pixels, states = rollout(task, 8)
    observation, _ = task.reset(seed=8)
    goal = None
    for row, action in enumerate(ACTIONS):
        np.testing.assert_array_equal(observation["pixels"], pixels[row])
        goal = task.render_state(states[-1])
        observation = task.step(action)[0]
    np.testing.assert_array_equal(task.state, states[-1])
    np.testing.assert_array_equal(goal, pixels[-1])


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.floats(0, 0.1), max_size=8))
def test_advancing_in_pieces_is_one_step(task, cuts):
    """Commands arrive between ticks: physics must not lose or gain time by the splitting."""
    action, total = np.array([1.5, -1.0]), 0.1
    task.reset(seed=0, options={"state": [0.1, 0.2, 0, 0]})
    task.advance(action, total)
    expected = task.state
    task.reset(seed=0, options={"state": [0.1, 0.2, 0, 0]})
    edges = np.array([0, *sorted(cuts), total])
    for piece in np.diff(edges):
        task.advance(action, piece)
    np.testing.assert_allclose(task.state, expected, atol=1e-12 if len(cuts) == 0 else 2e-2)
    task.advance(action, 1.0 - total)
    assert task.state[0] == pytest.approx(0.1 + 1.5, abs=0.02)


def test_a_tick_of_pieces_equals_a_step(task):
    task.reset(seed=0, options={"state": [0.1, 0.2, 0, 0]})
    task.step(np.array([1.5, -1.0]))
    expected = task.state
    task.reset(seed=0, options={"state": [0.1, 0.2, 0, 0]})
    for piece in (0.0123, 0.0001, 0.0302, 0.0074):
        task.advance([1.5, -1.0], piece)
    np.testing.assert_array_equal(task.state, expected)


@pytest.mark.parametrize("velocity", [(2.0, -2.0), (-2.0, 0.5), (0.3, 2.0)])
def test_commanded_velocity_is_reached(task, velocity):
    """An actuator too weak, or coupled links, would make the same command move differently each time."""
    task.reset(seed=0, options={"state": [0, 0, 0, 0]})
    task.advance(velocity, 0.015)
    np.testing.assert_allclose(task.joint_velocities, velocity, atol=0.02)
    task.advance(velocity, 0.035)
    np.testing.assert_allclose(task.joints, np.array(velocity) * 0.05, atol=0.01)


def test_commands_beyond_the_limits_are_limited(task):
    task.reset(seed=0, options={"state": [0, 0, 0, 0]})
    for _ in range(10):
        task.step(np.array([100.0, 0.0]))
    assert task.state[0] == pytest.approx(1.0, abs=0.01)


def test_elbow_stops_at_its_limit(task):
    task.reset(seed=0, options={"state": [0, 2.5, 0, 0]})
    for _ in range(20):
        task.step(np.array([0.0, 2.0]))
    assert 2.6 <= task.state[1] < 2.65
    assert abs(task.state[3]) < 1e-3


@pytest.mark.parametrize(
    "state",
    [
        [0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, np.nan, 0, 0],
        [0, 0, np.inf, 0],
        [0, 3.0, 0, 0],
        "left",
        [[0, 0, 0, 0]],
    ],
)
def test_impossible_states_are_refused(task, state):
    """... and the running episode goes on as if nothing had been asked."""
    task.reset(seed=2)
    before = task.state
    for use in (lambda: task.reset(options={"state": state}), lambda: task.render_state(state)):
        with pytest.raises(SimulationError, match=r"state|elbow"):
            use()
    np.testing.assert_array_equal(task.state, before)


@pytest.mark.parametrize("action", [[1.0], [1.0, 2.0, 3.0], [np.nan, 0.0], [np.inf, 0.0]])
def test_impossible_actions_are_refused(task, action):
    task.reset(seed=2)
    before = task.state
    with pytest.raises(SimulationError, match="2 finite numbers"):
        task.step(action)
    np.testing.assert_array_equal(task.state, before)


@given(
    angles=st.tuples(st.floats(-20, 20), st.floats(-2.5, 2.5)),
    turns=st.integers(-3, 3),
    offset=st.floats(-0.5, 0.5),
)
def test_errors_go_the_short_way_round(task, angles, turns, offset):
    """A shoulder that has made whole turns looks the same and must count as the same."""
    goal = [angles[0] + 2 * np.pi * turns + offset, angles[1], 9.0, 9.0]
    np.testing.assert_allclose(task.errors([*angles, 0, 0], goal), [abs(offset), 0], atol=1e-9)


def test_success_needs_every_joint(task):
    goal = [np.pi - 0.02, 1.0, 0, 0]
    assert task.success([-np.pi + 0.02, 1.05, 0, 0], goal)
    assert not task.success([-np.pi + 0.02, 1.05, 0, 0], goal, threshold=0.045)
    assert not task.success([0, 1.0, 0, 0], goal)
    assert not task.success([np.pi, 1.2, 0, 0], goal)


def test_depth_and_camera_info_agree_with_the_geometry(task):
    """K, the depth and the picture must describe the same camera: find the fingertip with all three."""
    shoulder, elbow = 0.6, 0.9
    task.reset(seed=0, options={"state": [shoulder, elbow, 0, 0]})
    pixels, depth, camera = task.observe()["pixels"].astype(int), task.depth(), task.camera_info
    yellow = (pixels[..., 0] > 150) & (pixels[..., 1] > 150) & (pixels[..., 2] < 90)
    row, column = np.argwhere(yellow).mean(axis=0)
    distance = depth[yellow].min()
    x, y, _ = distance * np.linalg.inv(camera.matrix) @ [column, row, 1]
    tip = 0.12 * np.array([np.cos(shoulder), np.sin(shoulder)])
    tip += 0.12 * np.array([np.cos(shoulder + elbow), np.sin(shoulder + elbow)])
    np.testing.assert_allclose([x, -y], tip, atol=0.006)  # the optical frame's y points down
    # The camera is 0.9 m above the floor; the fingertip is a sphere of 25 mm, 100 mm above it.
    assert depth.max() == pytest.approx(0.9, abs=1e-3)
    assert distance == pytest.approx(0.9 - 0.125, abs=2e-3)
    assert depth.dtype == np.float32
    assert depth.shape == (camera.height, camera.width) == (64, 64)


def test_contract_without_simulation(contract):
    with pytest.raises(SimulationError, match="it is a real robot"):
        make_task(changed(contract, task=None))


@pytest.mark.parametrize("task_id", ["smwm/Recher-v0", "Nowhere/Unknown-v3", "CartPole-v1", ""])
def test_unknown_or_foreign_tasks_are_refused(contract, task_id):
    with pytest.raises(SimulationError, match="task"):
        make_task(changed(contract, task=task_id))


def test_contract_that_does_not_fit_the_robot(contract):
    action = contract.action.model_dump()
    one = changed(contract, action=action | {"dimensions": action["dimensions"][:1]})
    with pytest.raises(SimulationError, match=r"takes 2 numbers per action.*lists 1"):
        make_task(one)
    observation = contract.observation.model_dump()
    observation["joints"]["names"] = ["shoulder", "wrist"]
    with pytest.raises(SimulationError, match="wrist"):
        make_task(changed(contract, observation=observation))


def test_joints_follow_the_contracts_order_and_choice(contract):
    observation = contract.observation.model_dump()
    observation["joints"]["names"] = ["elbow"]
    task = make_task(changed(contract, observation=observation))
    task.reset(seed=0, options={"state": [0.1, 0.2, 0.3, 0.4]})
    assert (task.joints, task.joint_velocities) == ([0.2], [0.4])
    task.close()


RENDER = "from smwm_ros.tasks import make_task; from smwm_ros.resources import find_contract; " + (
    "make_task(find_contract('reacher')).reset(seed=0)"
)


@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ("import sys; sys.modules['OpenGL'] = None; ", {"MUJOCO_GL": "egl"}),  # no library at all
        ("", {"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "999"}),  # a library that does not work
    ],
)
def test_missing_gl_is_one_clear_sentence(before, environment):
    """PyOpenGL's own failure is an AttributeError of NoneType, which helps nobody."""
    run = subprocess.run(
        [sys.executable, "-c", before + RENDER],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert "SimulationError: cannot render" in last
    assert "libgl1-mesa-dri" in last


def test_silent_exit_with_an_open_renderer():
    """MuJoCo's renderers complain on stderr when they outlive GL at the interpreter's end."""
    run = subprocess.run([sys.executable, "-c", RENDER], capture_output=True, text=True, check=True)
    assert run.stderr == ""
