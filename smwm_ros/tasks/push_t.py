"""``smwm/PushT-v0`` and ``smwm/PushTStiff-v0``: a pusher and a T block on a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks.distractors import Distractors
from smwm_ros.tasks.mujoco_task import MujocoTask, load_model

TABLE = 0.246
"""m: half the side of the table inside its rim; this and what follows as in push_t.xml."""
RADIUS = 0.015
"""m, of the pusher."""
BOXES = (((0.0, 0.0343), (0.08, 0.02)), ((0.0, -0.0457), (0.02, 0.06)))
"""m: centres and half sides of the bar and the stem, in the block's frame."""
SLACK = 0.004
"""m by which things give when they are pressed together."""
YAW_TOLERANCE = np.pi / 9
"""rad: stable-worldmodel's, 20 degrees."""
STIFF, STIFF_FORCE = 500.0, 5.0
"""N s/m and N: the gain and the largest force of the stiff pusher's drives."""


class PushT(MujocoTask):
    """
    A round pusher that moves a T block about on a table with a rim, seen from above.

    * action: velocity of the pusher in x and y, m/s
    * state (10,): pusher x and y, block x, y and yaw, and their velocities; m, rad, m/s, rad/s. The
      block's position is that of its centre of mass; at yaw 0 its bar is at the top of the picture.
    * errors (2,): both in metres, after stable-worldmodel's criterion: the distance of (pusher, block)
      from where they should be, in their four coordinates at once, at most 20 mm; and the block's yaw
      error as an arc, on which the 20 degrees allowed are 20 mm long as well (a radius of 57 mm)
    * a random start: anywhere on the table, at rest, the pusher not in the block

    The compliant pusher is driven by 10 N s/m: a block in its way takes a third of its speed, and a
    stuck one stops it, so what a command does depends on what is touched. The stiff one does as it is told.
    """

    threshold = 0.02
    unit = "m"
    tip = "pusher"
    thing = "block"

    def __init__(
        self, contract: Contract | None = None, *, stiff: bool = False, distractors: bool = False
    ) -> None:
        """
        Build the table.

        Args:
            contract: the robot; ``config/robots/push_t.yaml``, or ``push_t_stiff.yaml``, by default.
            stiff: drives that hardly give way.
            distractors: show moving blobs, a box that wanders about and a flickering light, anew with
                every reset.

        Raises:
            SimulationError: the contract's action or joints do not fit.
        """
        model = load_model("push_t")
        if stiff:
            for drive in model.actuators:
                drive.gainprm[0], drive.biasprm[2] = STIFF, -STIFF
                drive.forcelimited, drive.forcerange = True, [-STIFF_FORCE, STIFF_FORCE]
        super().__init__(
            contract or find_contract("push_t_stiff" if stiff else "push_t"),
            model,
            Distractors(reach=0.22, height=0.004, box=0.025) if distractors else None,
        )

    @override
    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        values = super().check_state(state)
        pusher, block, yaw = values[:2], values[2:4], values[4]
        if np.abs(pusher).max() > TABLE - RADIUS + SLACK:
            raise SimulationError(f"the pusher cannot be at {pusher.round(4).tolist()} m: the rim is there")
        corners = np.array(
            [
                np.add(centre, np.multiply(half, signs))
                for centre, half in BOXES
                for signs in ((-1, -1), (-1, 1), (1, -1), (1, 1))
            ]
        )
        if np.abs(block + corners @ _rotation(yaw).T).max() > TABLE + SLACK:
            raise SimulationError(
                f"the block cannot be at {block.round(4).tolist()} m with yaw {yaw:.3f} rad: the rim is there"
            )
        if distance_to_block(pusher, block, yaw) < RADIUS - SLACK:
            raise SimulationError(
                f"the pusher cannot be at {pusher.round(4).tolist()} m: the block, at "
                f"{block.round(4).tolist()} m with yaw {yaw:.3f} rad, is there"
            )
        return values

    @override
    def errors(self, state: ArrayLike, goal: ArrayLike) -> NDArray[np.float64]:
        difference = super().check_state(state)[:5] - super().check_state(goal)[:5]
        yaw = abs((difference[4] + np.pi) % (2 * np.pi) - np.pi)
        return np.array([np.linalg.norm(difference[:4]), yaw * self.threshold / YAW_TOLERANCE])

    @override
    def criterion(self, threshold: float) -> str:
        degrees = np.degrees(YAW_TOLERANCE) * threshold / self.threshold
        return f"pusher and block within {1000 * threshold:g} mm, the block's yaw within {degrees:g}°"

    @override
    def _draw_state(self, generator: np.random.Generator) -> NDArray[np.float64]:
        block, yaw = generator.uniform(-0.15, 0.15, 2), generator.uniform(-np.pi, np.pi)
        while True:
            pusher = generator.uniform(-0.22, 0.22, 2)
            if distance_to_block(pusher, block, yaw) > RADIUS:
                return np.array([*pusher, *block, yaw, 0, 0, 0, 0, 0])


def distance_to_block(point: NDArray[np.float64], block: NDArray[np.float64], yaw: float) -> float:
    """Return the distance of a point (2,) from the T, m; 0 inside."""
    inside = _rotation(yaw).T @ (point - block)
    return min(float(np.linalg.norm(np.maximum(np.abs(inside - centre) - half, 0))) for centre, half in BOXES)


def _rotation(yaw: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine], [sine, cosine]])
