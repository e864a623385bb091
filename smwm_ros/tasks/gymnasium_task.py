"""Any gymnasium environment with Box actions and pictures as a robot: ``task: gymnasium:Pendulum-v1``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.tasks.base import CameraInfo, RobotTask
from smwm_ros.tasks.gl import mujoco


class GymnasiumTask(RobotTask):
    """
    A third-party environment, driven tick by tick; its rewards and its ends of episodes are ignored.

    * action: the environment's own; the contract gives names, units and limits inside the Box
    * state: of a MuJoCo environment (qpos, qvel), which can be set and rendered; of one with an array
      ``state``, as those of classic control, that; else the observation, which cannot: then goals are
      images from recordings, ``reset`` takes no state, and ``smwm eval`` cannot be used
    * errors: absolute differences, of qpos in MuJoCo's case, else of the whole state. The threshold is a
      guess; give ``--threshold``.
    * a random start: the environment's own

    Time goes in whole steps of the environment. There is neither depth nor a calibrated camera, and
    joint states only of a MuJoCo environment. Randomness of the environment's own after a reset is not part
    of the state.
    """

    threshold = 0.1
    unit = ""

    def __init__(self, contract: Contract, name: str, **options: Any) -> None:
        """
        Make the environment.

        Args:
            contract: the robot.
            name: the environment's id.
            options: for the environment.

        Raises:
            SimulationError: it does not exist, cannot be rendered, or does not fit the contract; says
                what to change.
        """
        image = contract.observation.image
        self._env = _make(name, image.width, image.height, options)
        self.timestep_ns = contract.period_ns
        self._states = _find_states(self._env)
        self._check(name, contract)
        joints = contract.observation.joints
        self._joint_names = joints.names if joints else ()
        super().__init__(contract)
        observation, _ = self._env.reset(seed=0)
        self._observation = np.asarray(observation, np.float64).ravel()
        size = len(self.state)
        self._state_names = tuple(f"{self._states}[{number}]" for number in range(size))
        try:
            found = self._render().shape
        except gymnasium.error.Error as error:  # a library for its pictures is missing
            raise SimulationError(f"cannot render '{name}': {error}") from error
        if found != (image.height, image.width, 3):
            raise SimulationError(
                f"'{name}' renders {found[1]}x{found[0]} pixels; give these as width and height in the "
                f"contract of '{contract.name}', and what the model shall see as size"
            )

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @property
    @override
    def joint_names(self) -> tuple[str, ...]:
        return self._joint_names

    @property
    @override
    def joints(self) -> NDArray[np.float64]:
        return np.array([self._env.data.joint(name).qpos[0] for name in self._joint_names], np.float64)

    @property
    @override
    def joint_velocities(self) -> NDArray[np.float64]:
        return np.array([self._env.data.joint(name).qvel[0] for name in self._joint_names], np.float64)

    @property
    @override
    def state_names(self) -> tuple[str, ...]:
        return self._state_names

    @property
    @override
    def state(self) -> NDArray[np.float64]:
        if self._states == "mujoco":
            return np.concatenate([self._env.data.qpos, self._env.data.qvel])
        if self._states == "state":
            return np.array(self._env.state, np.float64).ravel()
        return self._observation.copy()

    @property
    @override
    def camera_info(self) -> CameraInfo:
        raise SimulationError(f"the camera of '{self.contract.task}' is not known; leave camera_info out")

    @override
    def depth(self) -> NDArray[np.float32]:
        raise SimulationError(f"'{self.contract.task}' has no depth image; leave depth out")

    @override
    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        values = super().check_state(state)
        if self._states == "observation":
            raise SimulationError(
                f"'{self.contract.task}' does not tell its state, only observations, so it cannot be put "
                "into one; it can be recorded and driven, but not evaluated"
            )
        return values

    @override
    def render_state(self, state: ArrayLike | None, seconds: float | None = None) -> NDArray[np.uint8]:
        if state is None:
            return self._render()
        wanted = self.check_state(state)
        before = self._snapshot()
        self._set_state(wanted)
        picture = self._render()
        self._restore(before)
        return picture

    @override
    def errors(self, state: ArrayLike, goal: ArrayLike) -> NDArray[np.float64]:
        difference = np.abs(super().check_state(state) - super().check_state(goal))
        return difference[: self._env.model.nq] if self._states == "mujoco" else difference

    @override
    def criterion(self, threshold: float) -> str:
        what = "position" if self._states == "mujoco" else "number of the state"
        return f"every {what} within {threshold:g}"

    @override
    def _draw_state(self, generator: np.random.Generator) -> NDArray[np.float64]:
        observation, _ = self._env.reset(seed=int(generator.integers(2**31)))
        self._observation = np.asarray(observation, np.float64).ravel()
        return self.state

    @override
    def _begin(self, state: NDArray[np.float64], generator: np.random.Generator) -> None:
        if self._states != "observation" and not np.array_equal(state, self.state):
            self._set_state(state)

    @override
    def _simulate(self, action: NDArray[np.float64], steps: int) -> None:
        for _ in range(steps):
            observation, *_ = self._env.step(action.astype(self._env.action_space.dtype))
            self._observation = np.asarray(observation, np.float64).ravel()

    def _render(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._env.render(), np.uint8)

    def _snapshot(self) -> Any:
        if self._states == "state":
            return self._env.state.copy()
        # All that MuJoCo's next step depends on, down to the solver's warm start.
        before = np.empty(mujoco.mj_stateSize(self._env.model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(self._env.model, self._env.data, before, mujoco.mjtState.mjSTATE_INTEGRATION)
        return before

    def _restore(self, before: Any) -> None:
        if self._states == "state":
            self._env.state = before
            return
        mujoco.mj_setState(self._env.model, self._env.data, before, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self._env.model, self._env.data)
        mujoco.mj_setState(self._env.model, self._env.data, before, mujoco.mjtState.mjSTATE_INTEGRATION)

    def _set_state(self, state: NDArray[np.float64]) -> None:
        if self._states == "state":
            self._env.state = state.reshape(np.shape(self._env.state)).copy()
        else:
            positions = self._env.model.nq
            self._env.set_state(state[:positions], state[positions:])

    def _check(self, name: str, contract: Contract) -> None:
        """Raise a SimulationError if the environment and the contract do not fit."""
        action, space = contract.action, self._env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise SimulationError(f"'{name}' takes actions of {space}; a robot's are a Box of one dimension")
        if space.shape != (action.size,):
            raise SimulationError(
                f"'{name}' takes {space.shape[0]} numbers per action; the contract of '{contract.name}' "
                f"lists {action.size} under action.dimensions"
            )
        # To the precision of the spaces, which are mostly float32.
        outside = (action.low < space.low - 1e-6) | (action.high > space.high + 1e-6)
        if outside.any():
            raise SimulationError(
                f"'{name}' takes actions from {space.low.tolist()} to {space.high.tolist()}; the contract of "
                f"'{contract.name}' goes beyond, from {action.low.tolist()} to {action.high.tolist()}"
            )
        step = getattr(self._env, "dt", None)
        if isinstance(step, float) and abs(step - contract.period) > 1e-6:
            raise SimulationError(
                f"'{name}' simulates {step:g} s per step; the rate in the contract of '{contract.name}' must "
                f"be {1 / step:g}, not {contract.rate:g}"
            )
        observation = contract.observation
        if observation.depth or observation.camera_info:
            raise SimulationError(
                f"'{name}' has neither depth nor a calibrated camera; leave depth and camera_info out"
            )
        if observation.joints:
            model = getattr(self._env, "model", None)
            known = [model.joint(number).name for number in range(model.njnt)] if model else []
            if unknown := [joint for joint in observation.joints.names if joint not in known]:
                raise SimulationError(
                    f"'{name}' has the joints {known}; the contract of '{contract.name}' names {unknown}"
                )


def _make(name: str, width: int, height: int, options: dict[str, Any]) -> Any:
    """Make the environment itself, without the wrappers that watch over its use and end its episodes."""
    try:
        specification = gymnasium.spec(name)
        mujoco_made = "mujoco" in str(specification.entry_point)
        sized: dict[str, Any] = {"width": width, "height": height} if mujoco_made else {}
        env: Any = gymnasium.make(name, render_mode="rgb_array", **sized, **options).unwrapped
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        raise SimulationError(f"cannot build '{name}' with pictures: {error}") from error
    return env


def _find_states(env: Any) -> str:
    """Tell where the environment's state is: ``mujoco``, ``state`` or only the ``observation``."""
    if hasattr(env, "set_state") and hasattr(env, "data") and hasattr(env, "model"):
        return "mujoco"
    env.reset(seed=0)
    return "state" if isinstance(getattr(env, "state", None), np.ndarray) else "observation"
