"""What must hold for every simulated robot."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks import RobotTask, make_task
from smwm_ros.tasks.exploration import POLICIES, make_policy
from smwm_ros.tasks.noise import ColouredNoise

ROBOTS = ("reacher", "reacher_torque", "two_room", "push_t", "push_t_stiff", "pick_cube")


@pytest.fixture(scope="module", params=ROBOTS)
def task(request: pytest.FixtureRequest) -> Iterator[RobotTask]:
    with make_task(find_contract(request.param)) as made:
        yield made


def explore(task: RobotTask, seed: int, ticks: int) -> list[np.ndarray]:
    """Run the task's exploration policy without rendering; return the states."""
    policy = make_policy(task.contract, np.random.default_rng(seed), lambda: task.state)
    task.reset(seed=seed)
    states = [task.state]
    for _ in range(ticks):
        task.advance(policy.next(), task.contract.period)
        states.append(task.state)
    return states


def test_gymnasium_finds_nothing_wrong(task):
    """The id is registered, makes the robot of the shipped contract, and passes gymnasium's own checker."""
    env = gymnasium.make(task.contract.task)
    assert env.unwrapped.contract == task.contract
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges it would rather see
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_same_seed_same_episode(task):
    first, again, other = (explore(task, seed, 20) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[0], other[0])


def test_reached_states_can_be_restored_and_judged(task):
    """Pairs for evaluation are such states: refused ones would end it, and others could not be reached."""
    for state in explore(task, 5, 60):
        np.testing.assert_array_equal(task.check_state(state), state)
        np.testing.assert_allclose(task.errors(state, state), 0, atol=1e-12)
        assert task.success(state, state)


def test_restored_state_goes_on_alike(task):
    """Physics that depends on more than the state cannot be evaluated from recorded states."""
    task.reset(seed=1)
    limits = task.contract.action
    actions = np.random.default_rng(0).uniform(limits.low, limits.high, (8, limits.size))
    for action in actions:
        task.advance(action, task.contract.period)
    before = task.state
    for _ in range(2):
        task.advance(actions[0], task.contract.period)
    expected = task.state
    task.reset(seed=2, options={"state": before})
    np.testing.assert_array_equal(task.state, before)
    for _ in range(2):
        task.advance(actions[0], task.contract.period)
    np.testing.assert_allclose(task.state, expected, atol=2e-4)


def test_goal_pictures_are_those_of_the_camera(task):
    """A goal image that no camera would ever see, or one that disturbs the robot by being rendered."""
    states = explore(task, 7, 10)
    picture, state = task.observe()["pixels"], task.state
    goal = task.render_state(states[0])
    np.testing.assert_array_equal(task.render_state(state), picture)
    np.testing.assert_array_equal(task.state, state)
    assert (np.abs(goal.astype(int) - picture) > 30).any()


def test_distractors_change_pictures_and_nothing_else(task):
    with make_task(task.contract, distractors=True) as distracted:
        assert (explore(task, 9, 10)[-1] == explore(distracted, 9, 10)[-1]).all()
        shown = distracted.observe()["pixels"].astype(int)
        assert (np.abs(shown - task.observe()["pixels"]) > 8).any(axis=-1).mean() > 0.03
        state = distracted.state
        distracted.advance(np.zeros(task.contract.action.size), task.contract.period)
        later = distracted.render_state(state)
        assert (np.abs(shown - later) > 2).any(), "neither the light nor anything else has changed"


def test_camera_info_and_depth_are_one_camera(task):
    """The floor or table is a plane: depth and calibration together must say so."""
    task.reset(seed=0)
    camera, depth = task.camera_info, task.depth()
    assert depth.shape == (camera.height, camera.width)
    rows, columns = np.mgrid[: camera.height, : camera.width]
    rays = np.linalg.inv(camera.matrix) @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    points = (rays * depth.ravel()).T
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(30):
        a, b, c = points[generator.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        shares.append((np.abs((points - a) @ normal) < 0.005 * np.linalg.norm(normal)).mean())
    assert max(shares) > 0.5


@pytest.mark.parametrize("wrong", ["short", "nan", "text"])
def test_impossible_states_are_refused(task, wrong):
    state = {"short": np.zeros(1), "nan": task.reset(seed=0)[1]["state"] * np.nan, "text": "left"}[wrong]
    with pytest.raises(SimulationError, match="state"):
        task.reset(options={"state": state})


def test_policies_keep_to_limits_and_to_their_seed(task):
    """The gate would change actions that go beyond; then the recorded one is not what was meant."""
    limits = task.contract.action
    runs = []
    for _ in range(2):
        policy = make_policy(task.contract, np.random.default_rng(2), lambda: task.state)
        task.reset(seed=2)
        actions = []
        for _ in range(40):
            actions.append(policy.next())
            task.advance(actions[-1], task.contract.period)
        runs.append(np.array(actions))
    np.testing.assert_array_equal(*runs)
    assert (runs[0] >= limits.low).all()
    assert (runs[0] <= limits.high).all()
    change = np.abs(np.diff(runs[0], axis=0))
    assert (change <= limits.max_change * task.contract.period * (1 + 1e-9)).all()
    assert (task.contract.task in POLICIES) == (not isinstance(policy, ColouredNoise))


def test_policies_begin_anew():
    """A script that went on with the last episode's plan would begin by going to where the block was."""
    with make_task(find_contract("push_t")) as task:
        policy = make_policy(task.contract, np.random.default_rng(0), lambda: task.state)
        task.reset(seed=0)
        script = policy._steps
        policy.next()
        policy.reset()
        assert policy._steps is not script
        assert policy._last is None
