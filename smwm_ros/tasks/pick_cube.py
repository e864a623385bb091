"""``smwm/PickCube-v0``: an arm with a gripper, and a cube."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks.distractors import Distractors
from smwm_ros.tasks.gl import mujoco
from smwm_ros.tasks.mujoco_task import MujocoTask, load_model

ARM = 6
"""Joints of the arm; two of the gripper and four of the cube follow."""
CUBE = slice(8, 11)
"""The cube's x, y and z in the state."""
LOW, HIGH = np.array([0.3, -0.18, 0.015]), np.array([0.54, 0.18, 0.22])
"""m: where the grip, the point between the fingertips, may go."""
CUBE_LOW, CUBE_HIGH = np.array([0.28, -0.2, 0.02]), np.array([0.56, 0.2, 0.3])
"""m: where the cube's centre may be, as in pick_cube.xml."""
OPEN = 0.04
"""m that a finger opens."""
SLACK = 0.01
"""m by which limits give."""
HOME = np.array([-1.5708, -1.5708, 1.5708, -1.5708, -1.5708, np.pi])
"""rad: the gripper's axes are nearly those of ``DOWN``."""
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""The gripper's axes as columns: the fingers open along the room's y, and point down."""
EVERY = 4
"""Physics steps between two looks at where the arm is: 10 ms."""
BRAKE = 0.1
"""Seconds in which the grip would come to the end of its box: nearer to it, it is made slower."""
UPRIGHT = 5.0
"""1/s: rate at which a tilt of the gripper is taken back."""
DAMPING = 0.02
"""Of the inverse kinematics, so that joint velocities stay bounded near singular poses."""
FASTEST = 2.0
"""rad/s of any joint."""


class PickCube(MujocoTask):
    """
    A UR5e that holds its gripper downwards, over a table with a cube of 4 cm, seen from the front.

    * action: velocity of the grip in x, y and z, m/s, which becomes joint velocities (damped least
      squares), and the fingers' effort, N: positive closes, and none lets go of what was held
    * state (24,): six angles of the arm, two fingers' ways, the cube's x, y, z and yaw, and their
      velocities; rad, m, rad/s, m/s. The cube stays upright.
    * errors (1,): distance of the cube from where it should be, m, at most OGBench's 4 cm. Where the arm is
      does not count.
    * a random start: the grip and the cube anywhere, the cube on the table, at rest
    """

    threshold = 0.04
    unit = "m"
    camera = "front"
    tip = "grip"
    thing = "cube"

    def __init__(self, contract: Contract | None = None, *, distractors: bool = False) -> None:
        """
        Build arm, table and cube.

        Args:
            contract: the robot; ``config/robots/pick_cube.yaml`` by default.
            distractors: show moving blobs, a box that wanders about and a flickering light, anew with
                every reset.

        Raises:
            SimulationError: the contract's action or joints do not fit.
        """
        super().__init__(
            contract or find_contract("pick_cube"),
            load_model("pick_cube"),
            Distractors(reach=0.45, height=0.002, box=0.04) if distractors else None,
            action_size=4,
        )
        self._jacobian = np.empty((6, self.model.nv))
        self._grip = self.model.site("grip").id

    @override
    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        values = super().check_state(state)
        cube = values[CUBE]
        if (cube < CUBE_LOW - SLACK).any() or (cube > CUBE_HIGH + SLACK).any():
            raise SimulationError(
                f"the cube cannot be at {cube.round(4).tolist()} m; it goes from {CUBE_LOW.tolist()} to "
                f"{CUBE_HIGH.tolist()}"
            )
        fingers = values[ARM:8]
        if fingers.min() < -SLACK or fingers.max() > OPEN + SLACK:
            raise SimulationError(
                f"the fingers cannot be at {fingers.round(4).tolist()} m; they open up to {OPEN}"
            )
        return values

    @override
    def errors(self, state: ArrayLike, goal: ArrayLike) -> NDArray[np.float64]:
        difference = super().check_state(state)[CUBE] - super().check_state(goal)[CUBE]
        return np.array([np.linalg.norm(difference)])

    @override
    def criterion(self, threshold: float) -> str:
        return f"the cube within {100 * threshold:g} cm"

    @override
    def _draw_state(self, generator: np.random.Generator) -> NDArray[np.float64]:
        # Not under the rim, where no gripper gets at it.
        cube = generator.uniform([0.32, -0.16], [0.52, 0.16])
        while True:
            grip = generator.uniform(LOW, HIGH)
            if grip[2] > 0.06 or np.abs(grip[:2] - cube).max() > 0.1:
                break
        opened = generator.uniform(0, OPEN)
        yaw = generator.uniform(-np.pi, np.pi)
        resting = [opened, opened, *cube, CUBE_LOW[2], yaw]
        return np.concatenate([self._reach(grip), resting, np.zeros(self.model.nv)])

    @override
    def _simulate(self, action: NDArray[np.float64], steps: int) -> None:
        self.data.ctrl[ARM:] = action[3]
        for done in range(0, steps, EVERY):
            self.data.ctrl[:ARM] = self._joint_velocities(self.data, action[:3])
            mujoco.mj_step(self.model, self.data, min(EVERY, steps - done))

    def _joint_velocities(self, data: mujoco.MjData, velocity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the joint velocities (6,) that move the grip (3,) and keep the gripper upright."""
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_jacSite(self.model, data, self._jacobian[:3], self._jacobian[3:], self._grip)
        jacobian = self._jacobian[:, :ARM]
        place, axes = data.site_xpos[self._grip], data.site_xmat[self._grip].reshape(3, 3)
        linear = np.clip(velocity, (LOW - place) / BRAKE, (HIGH - place) / BRAKE)
        # Half the sum of the cross products of the axes as they are and as they should be.
        turn = DOWN @ axes.T
        tilt = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
        twist = np.concatenate([linear, UPRIGHT * tilt])
        square = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
        velocities = jacobian.T @ np.linalg.solve(square, twist)
        return velocities * min(1.0, FASTEST / max(np.abs(velocities).max(), 1e-9))

    def _reach(self, grip: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the arm's angles (6,) that bring the grip to a place (3,), by following the velocities."""
        data, period = self._other, 0.05
        mujoco.mj_resetData(self.model, data)
        data.qpos[:ARM] = HOME
        for _ in range(60):
            mujoco.mj_kinematics(self.model, data)
            data.qpos[:ARM] += period * self._joint_velocities(
                data, (grip - data.site_xpos[self._grip]) / (2 * period)
            )
        return data.qpos[:ARM].copy()
