"""Robot tasks simulated and rendered by MuJoCo, headless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.tasks.base import CameraInfo, RobotTask, StateKind
from smwm_ros.tasks.distractors import Distractors
from smwm_ros.tasks.gl import make_renderer, mujoco

# Rendered at this multiple of the image size and averaged: anti-aliasing as in a real camera, without
# which a small motion often changes no pixel. OpenGL's own multisampling takes twice as long on a CPU.
SUPERSAMPLING = 2


def load_model(name: str) -> mujoco.MjSpec:
    """Read one of the models that lie beside this file."""
    return mujoco.MjSpec.from_file(str(Path(__file__).with_name(f"{name}.xml")))


class MujocoTask(RobotTask):
    """
    A robot whose state is MuJoCo's (qpos, qvel) and whose actuators take the action as it is.

    All joints have one degree of freedom; the state is their positions, then their velocities.

    The model must have one actuator per action dimension, unless a subclass drives it otherwise; its
    joints are those of the contract (all of the model's, when the contract names none).
    """

    camera = "top"
    """The model's camera that is the robot's."""
    thing: str | None = None
    """The body, if any, that the robot can move but that is no part of it."""
    tip: str | None = None
    """The site, or the body, that the robot does its work with."""

    def __init__(
        self,
        contract: Contract,
        spec: mujoco.MjSpec,
        distractors: Distractors | None,
        *,
        action_size: int | None = None,
    ) -> None:
        """
        Compile the model.

        Args:
            contract: the robot.
            spec: the MJCF model.
            distractors: what moves without the robot's doing, if anything.
            action_size: A; by default the number of actuators.

        Raises:
            SimulationError: the model does not fit the contract.
        """
        self._distractors = distractors
        if distractors is not None:
            distractors.add_to(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._other = mujoco.MjData(self.model)
        self.timestep_ns = round(self.model.opt.timestep * 1e9)
        joints = contract.observation.joints
        self._joint_names = joints.names if joints else tuple(joint.name for joint in spec.joints)
        size = self.model.nu if action_size is None else action_size
        if size != contract.action.size:
            raise SimulationError(
                f"the task '{contract.task}' takes {size} numbers per action; the contract of "
                f"'{contract.name}' lists {contract.action.size} under action.dimensions"
            )
        known = [joint.name for joint in spec.joints]
        self._state_names = (*known, *(f"{name}_velocity" for name in known))
        if unknown := [name for name in self._joint_names if name not in known]:
            raise SimulationError(
                f"the task '{contract.task}' has the joints {known}; the contract of '{contract.name}' "
                f"names {unknown} under observation.joints.names"
            )
        numbers = [known.index(name) for name in self._joint_names]
        self._qpos_rows = self.model.jnt_qposadr[numbers]
        self._qvel_rows = self.model.jnt_dofadr[numbers]
        self._renderers: dict[bool, mujoco.Renderer] = {}
        super().__init__(contract)

    @property
    @override
    def joint_names(self) -> tuple[str, ...]:
        return self._joint_names

    @property
    @override
    def joints(self) -> NDArray[np.float64]:
        return self.data.qpos[self._qpos_rows]

    @property
    @override
    def joint_velocities(self) -> NDArray[np.float64]:
        return self.data.qvel[self._qvel_rows]

    @property
    @override
    def state_names(self) -> tuple[str, ...]:
        return self._state_names

    @property
    @override
    def objects(self) -> tuple[str, ...]:
        if self.thing is None:
            return ()
        joints = np.flatnonzero(self.model.jnt_bodyid == self.model.body(self.thing).id)
        return tuple(self.state_names[joint] for joint in joints)

    @property
    @override
    def landmarks(self) -> tuple[str, ...]:
        return tuple(name for name in (self.tip, self.thing) if name is not None)

    @override
    def places(self, state: ArrayLike) -> NDArray[np.float64]:
        self._set_state(self._other, RobotTask.check_state(self, state))
        mujoco.mj_kinematics(self.model, self._other)
        sites = {self.model.site(number).name for number in range(self.model.nsite)}
        places = [
            (self._other.site(name) if name in sites else self._other.body(name)).xpos
            for name in self.landmarks
        ]
        return np.reshape(places, (-1, 3))

    @property
    @override
    def state_kinds(self) -> tuple[StateKind, ...]:
        turning = self.model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE
        positions: list[StateKind] = ["angle" if turns else "position" for turns in turning]
        return (*positions, *(("velocity",) * self.model.nv))

    @property
    @override
    def state(self) -> NDArray[np.float64]:
        return np.concatenate([self.data.qpos, self.data.qvel])

    @property
    @override
    def camera_info(self) -> CameraInfo:
        image = self.contract.observation.image
        focal = image.height / 2 / np.tan(np.radians(self.model.camera(self.camera).fovy[0]) / 2)
        matrix = np.array(
            [
                [focal, 0, (image.width - 1) / 2],
                [0, focal, (image.height - 1) / 2],
                [0, 0, 1],
            ]
        )
        return CameraInfo(image.width, image.height, matrix)

    @override
    def render_state(self, state: ArrayLike | None, seconds: float | None = None) -> NDArray[np.uint8]:
        data = self.data
        if state is not None or seconds is not None:
            data = self._other
            self._set_state(data, self.state if state is None else self.check_state(state))
            data.time = self.data.time if seconds is None else seconds
        if self._distractors is not None:
            self._distractors.move(self.model, data)
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_camlight(self.model, data)
        fine = self._render(data, depth=False).astype(np.uint16)
        rows = fine[0::2] + fine[1::2]
        return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)

    @override
    def depth(self) -> NDArray[np.float32]:
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return self._render(self.data, depth=True)

    def close(self) -> None:
        """Free the GL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    @override
    def _begin(self, state: NDArray[np.float64], generator: np.random.Generator) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self._set_state(self.data, state)
        if self._distractors is not None:
            # A child, so that the robot's own randomness is the same with and without them.
            self._distractors.draw(self.model, generator.spawn(1)[0])

    @override
    def _simulate(self, action: NDArray[np.float64], steps: int) -> None:
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, steps)

    def _set_state(self, data: mujoco.MjData, state: NDArray[np.float64]) -> None:
        data.qpos[:] = state[: self.model.nq]
        data.qvel[:] = state[self.model.nq :]

    def _render(self, data: mujoco.MjData, *, depth: bool) -> NDArray[Any]:
        if depth not in self._renderers:
            image = self.contract.observation.image
            scale = 1 if depth else SUPERSAMPLING
            renderer = make_renderer(self.model, image.height * scale, image.width * scale)
            if depth:
                renderer.enable_depth_rendering()
            self._renderers[depth] = renderer
        renderer = self._renderers[depth]
        renderer.update_scene(data, self.camera)
        return renderer.render()
