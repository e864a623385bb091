"""``smwm/ReacherTorque-v0``: the control suite's two-link arm, driven by torques."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks.distractors import Distractors
from smwm_ros.tasks.mujoco_task import MujocoTask, load_model

WRIST_LIMIT = np.radians(160)
"""rad to either side, as in reacher_torque.xml."""
LIMIT_SLACK = 0.35
"""rad by which the wrist's limit gives: it is as soft as the suite's, at its time step of 20 ms."""


class ReacherTorque(MujocoTask):
    """
    A planar arm of two links with the dynamics of the DeepMind Control Suite's reacher, seen from above.

    No single picture shows a velocity, and what a torque does depends on it.

    * action: torques at shoulder and wrist, N m; the suite's range of -1 to 1 is -0.05 to 0.05 here
    * state (4,): shoulder, wrist, their velocities; rad and rad/s. The shoulder turns freely (and
      counts turns), the wrist goes 160 degrees to either side.
    * errors (2,): of shoulder and wrist, rad, the short way round
    * a random start: any angles, at rest
    * no target is in view: a goal is a state, or the image of one
    """

    threshold = 0.05
    unit = "rad"
    tip = "finger"

    def __init__(self, contract: Contract | None = None, *, distractors: bool = False) -> None:
        """
        Build the arm.

        Args:
            contract: the robot; ``config/robots/reacher_torque.yaml`` by default.
            distractors: show moving blobs, a box that wanders about and a flickering light, anew with
                every reset.

        Raises:
            SimulationError: the contract's action or joints do not fit.
        """
        super().__init__(
            contract or find_contract("reacher_torque"),
            load_model("reacher_torque"),
            Distractors(reach=0.3, height=0.01, box=0.03) if distractors else None,
        )

    @override
    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        values = super().check_state(state)
        if abs(values[1]) > WRIST_LIMIT + LIMIT_SLACK:
            raise SimulationError(
                f"the wrist cannot be at {values[1]:.3f} rad; it goes from {-WRIST_LIMIT} to {WRIST_LIMIT}"
            )
        return values

    @override
    def errors(self, state: ArrayLike, goal: ArrayLike) -> NDArray[np.float64]:
        difference = super().check_state(state)[:2] - super().check_state(goal)[:2]
        return np.abs((difference + np.pi) % (2 * np.pi) - np.pi)

    @override
    def criterion(self, threshold: float) -> str:
        return f"both joints within {threshold:g} rad"

    @override
    def _draw_state(self, generator: np.random.Generator) -> NDArray[np.float64]:
        return np.array(
            [generator.uniform(-np.pi, np.pi), generator.uniform(-WRIST_LIMIT, WRIST_LIMIT), 0, 0]
        )
