"""``smwm/TwoRoom-v0``: a mobile base in two rooms with one door between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks.distractors import Distractors
from smwm_ros.tasks.mujoco_task import MujocoTask, load_model

RADIUS = 0.09
"""m, of the base; this and what follows as in two_room.xml."""
REACH = 0.85
"""m: the base's centre can be this far from the middle in x and y."""
DIVIDER = 0.047
"""m: half the thickness of the wall between the rooms."""
DOOR = (0.27, 0.61)
"""m: y of the door's posts."""
SLACK = 0.01
"""m by which walls give."""


class TwoRoom(MujocoTask):
    """
    A holonomic base of 18 cm in a square of 1.88 m, seen from above; a wall with one door divides it.

    * action: velocity in x and y, m/s, as a Twist on ``cmd_vel``; the base does not turn, so its frame
      and the room's are parallel
    * state (4,): x, y, and their velocities; m and m/s. The door is at x = 0, y = 0.27 to 0.61.
    * errors (1,): distance, m; the threshold is stable-worldmodel's, 4.5/64 of the picture's side
    * a random start: anywhere but in walls and door, at rest

    A tick moves the base by at most 2/64 of the picture's side, as there.
    """

    threshold = 2.0 * 4.5 / 64
    unit = "m"
    tip = "base"

    def __init__(self, contract: Contract | None = None, *, distractors: bool = False) -> None:
        """
        Build the rooms.

        Args:
            contract: the robot; ``config/robots/two_room.yaml`` by default.
            distractors: show moving blobs, a box that wanders about and a flickering light, anew with
                every reset.

        Raises:
            SimulationError: the contract's action or joints do not fit.
        """
        super().__init__(
            contract or find_contract("two_room"),
            load_model("two_room"),
            Distractors(reach=0.8, height=0.01, box=0.08) if distractors else None,
        )

    @override
    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        values = super().check_state(state)
        x, y = values[:2]
        # From the centre to the nearest point of the dividing wall, whose ends are the door's posts.
        beyond_post = max(0.0, min(y - DOOR[0], DOOR[1] - y))
        to_divider = np.hypot(max(0.0, abs(x) - DIVIDER), beyond_post)
        if max(abs(x), abs(y)) > REACH + SLACK or to_divider < RADIUS - SLACK:
            raise SimulationError(f"the base cannot be at ({x:.3f}, {y:.3f}) m: a wall is there")
        return values

    @override
    def errors(self, state: ArrayLike, goal: ArrayLike) -> NDArray[np.float64]:
        difference = super().check_state(state)[:2] - super().check_state(goal)[:2]
        return np.array([np.hypot(*difference)])

    @override
    def criterion(self, threshold: float) -> str:
        return f"within {100 * threshold:.3g} cm"

    @override
    def _draw_state(self, generator: np.random.Generator) -> NDArray[np.float64]:
        side = generator.choice([-1.0, 1.0])
        return np.array(
            [side * generator.uniform(DIVIDER + RADIUS, REACH), generator.uniform(-REACH, REACH), 0, 0]
        )
