"""Third-party environments as robots."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks import make_task


class Cart(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point that the action moves; if ``visible``, its state is an array, as in classic control."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's way

    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    dt = 0.1

    def __init__(self, render_mode: str, *, visible: bool = True) -> None:
        self.render_mode = render_mode
        self.visible = visible

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._put(self.np_random.uniform(-1, 1, 2)), {}

    def step(self, action: np.ndarray) -> Any:
        place = self.state if self.visible else self._hidden
        return self._put(place + self.dt * action[0]), 1.0, True, False, {}

    def render(self) -> Any:
        place = self.state if self.visible else self._hidden
        return np.full((16, 16, 3), np.clip(128 + 40 * place[0], 0, 255), np.uint8)

    def _put(self, state: np.ndarray) -> np.ndarray:
        if self.visible:
            self.state = state
        else:
            self._hidden = state
        return state.astype(np.float32)


gymnasium.register("test/Cart-v0", entry_point=Cart, kwargs={"visible": True}, max_episode_steps=3)
gymnasium.register("test/HiddenCart-v0", entry_point=Cart, kwargs={"visible": False})


def contract(task: str, size: int = 1, **changes: Any) -> Contract:
    """Return a contract for an environment; ``changes``: rate, low, high, side, joints, info."""
    rate, side = changes.get("rate", 10.0), changes.get("side", 16)
    content = find_contract("reacher").model_dump() | {"task": f"gymnasium:{task}", "rate": rate}
    observation = content["observation"]
    observation["image"] |= {"width": side, "height": side, "size": side}
    joints = changes.get("joints")
    observation["joints"] = joints and {"topic": "joint_states", "names": joints}
    observation["depth"] = None
    if not changes.get("info"):
        observation["camera_info"] = None
    limits = {"low": changes.get("low", -1.0), "high": changes.get("high", 1.0), "max_change": 100.0}
    content["action"]["dimensions"] = [
        {"field": f"data[{number}]", "name": f"a{number}", "unit": "N", **limits} for number in range(size)
    ]
    return Contract.model_validate(content)


@pytest.fixture(params=["mujoco", "state"])
def task(request):
    made = {
        "mujoco": contract("InvertedPendulum-v5", rate=25.0, side=32, joints=["slider", "hinge"]),
        "state": contract("test/Cart-v0"),
    }
    with make_task(made[request.param]) as task:
        yield task


def test_states_can_be_set_and_rendered(task):
    """Goal images and pairs for evaluation need both, without disturbing the robot."""
    first = task.reset(seed=1)[0]["pixels"]
    start = task.state
    for _ in range(5):
        task.step(np.array([0.9]))
    state, picture = task.state, task.observe()["pixels"]
    np.testing.assert_array_equal(task.render_state(start), first)
    np.testing.assert_array_equal(task.state, state)
    np.testing.assert_array_equal(task.observe()["pixels"], picture)
    task.step(np.array([0.5]))
    expected = task.state
    task.reset(options={"state": state})
    task.step(np.array([0.5]))
    np.testing.assert_allclose(task.state, expected, atol=1e-9)


def test_rendering_a_goal_changes_nothing_that_follows(task):
    after = []
    for look in (False, True):
        task.reset(seed=1)
        start = task.state
        task.step(np.array([0.9]))
        if look:
            task.render_state(start)
        after.append(task.step(np.array([0.3]))[-1]["state"])
    np.testing.assert_array_equal(*after)


def test_the_seed_decides(task):
    states = [task.reset(seed=seed)[1]["state"] for seed in (5, 5, 6)]
    np.testing.assert_array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])


def test_ends_of_episodes_are_ignored():
    """The environment says after every step that all is over, and its time limit is three."""
    with make_task(contract("test/Cart-v0")) as task:
        task.reset(options={"state": [0.0, 0.0]})
        for _ in range(8):
            _, reward, terminated, truncated, info = task.step(np.array([1.0]))
            assert (reward, terminated, truncated) == (0.0, False, False)
        np.testing.assert_allclose(info["state"], 0.8)


def test_time_goes_in_the_environments_steps():
    with make_task(contract("test/Cart-v0")) as task:
        task.reset(options={"state": [0.0, 0.0]})
        for _ in range(5):
            task.advance([1.0], 0.05)
        np.testing.assert_allclose(task.state, 0.2)


def test_joints_and_errors_are_mujocos():
    made = contract("InvertedPendulum-v5", rate=25.0, side=32, joints=["hinge", "slider"])
    with make_task(made) as task:
        task.reset(options={"state": [0.1, 0.2, 0.3, 0.4]})
        np.testing.assert_allclose(task.joints, [0.2, 0.1])
        np.testing.assert_allclose(task.joint_velocities, [0.4, 0.3])
        np.testing.assert_allclose(task.errors(task.state, np.zeros(4)), [0.1, 0.2])


def test_an_unknown_state_is_said_to_be_so():
    """It can be recorded and driven; pretending to reset it to a state would falsify every evaluation."""
    with make_task(contract("test/HiddenCart-v0")) as task:
        observation, info = task.reset(seed=0)
        assert observation["pixels"].shape == (16, 16, 3)
        assert task.step(np.array([1.0]))[-1]["state"] == pytest.approx(info["state"] + 0.1, abs=1e-6)
        for use in (lambda: task.reset(options={"state": info["state"]}), lambda: task.render_state([0, 0])):
            with pytest.raises(SimulationError, match="does not tell its state"):
                use()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (contract("test/Nowhere-v0"), "cannot build 'test/Nowhere-v0'"),
        (contract("CartPole-v1"), "Discrete"),
        (contract("test/Cart-v0", size=2), "takes 1 numbers per action.*lists 2"),
        (contract("test/Cart-v0", high=2.0), "goes beyond"),
        (contract("test/Cart-v0", rate=20.0), "must be 10, not 20"),
        (contract("test/Cart-v0", side=64), "renders 16x16 pixels"),
        (contract("test/Cart-v0", joints=["wheel"]), "wheel"),
        (contract("test/Cart-v0", info=True), "leave depth and camera_info out"),
    ],
)
def test_what_does_not_fit_is_named(wrong, message):
    with pytest.raises(SimulationError, match=message):
        make_task(wrong)
