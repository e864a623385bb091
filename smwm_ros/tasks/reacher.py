"""``smwm/Reacher-v0``: a planar two-link arm driven by joint velocities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks.distractors import Distractors
from smwm_ros.tasks.mujoco_task import MujocoTask, load_model

ELBOW_LIMIT = 2.6
"""rad to either side, as in reacher.xml."""
LIMIT_SLACK = 0.05
"""rad by which the elbow's (soft) limit may give."""


class Reacher(MujocoTask):
    """
    A planar arm of two 12 cm links, seen from above, driven as by ros2_control's forward velocity controller.

    * action: velocities of shoulder and elbow, rad/s; reached within 10 ms
    * state (4,): shoulder, elbow, their velocities; rad and rad/s. The shoulder turns freely (and
      counts turns), the elbow goes 2.6 rad to either side.
    * errors (2,): of shoulder and elbow, rad, the short way round
    * a random start: any angles, at rest
    * no target is in view: a goal is a state, or the image of one
    """

    threshold = 0.1
    unit = "rad"
    tip = "fingertip"

    def __init__(self, contract: Contract | None = None, *, distractors: bool = False) -> None:
        """
        Build the arm.

        Args:
            contract: the robot; ``config/robots/reacher.yaml`` by default.
            distractors: show moving blobs and a flickering light, anew with every reset.

        Raises:
            SimulationError: the contract's action or joints do not fit.
        """
        super().__init__(
            contract or find_contract("reacher"),
            load_model("reacher"),
            # In view, and lower than the links.
            Distractors(reach=0.3, height=0.01) if distractors else None,
        )

    @override
    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        values = super().check_state(state)
        if abs(values[1]) > ELBOW_LIMIT + LIMIT_SLACK:
            raise SimulationError(
                f"the elbow cannot be at {values[1]:.3f} rad; it goes from {-ELBOW_LIMIT} to {ELBOW_LIMIT}"
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
            [generator.uniform(-np.pi, np.pi), generator.uniform(-ELBOW_LIMIT, ELBOW_LIMIT), 0, 0]
        )
