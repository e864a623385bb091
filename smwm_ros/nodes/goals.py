"""What a goal of the ``reach_goal`` action asks for; parameters where it leaves that open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract
from smwm_ros.errors import DataError
from smwm_ros.messages import decode_goal, from_time
from smwm_ros.nodes.parameters import Param
from smwm_ros.runtime.goal import Limits

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint

PARAMETERS = (
    Param(
        name="tolerance",
        default=0.2,
        low=0.0,
        unit="model steps",
        dynamic=True,
        description="Distance at which a goal counts as reached; goals may give their own.",
    ),
    Param(
        name="time_limit",
        default=30.0,
        low=0.1,
        unit="s",
        dynamic=True,
        description="ROS time until a goal is given up; goals may give their own.",
    ),
    Param(
        name="no_progress",
        default=5.0,
        low=0.0,
        unit="s",
        dynamic=True,
        description="ROS time without getting nearer until a goal is given up; 0: never.",
    ),
    Param(
        name="max_belief_age",
        default=0.5,
        low=0.0,
        unit="s",
        dynamic=True,
        description="ROS time by which a belief may be old, or ahead, and still be planned from.",
    ),
    Param(
        name="belief_timeout",
        default=2.0,
        low=0.0,
        unit="s",
        dynamic=True,
        description="Steady time without a usable belief until a goal is given up.",
    ),
    Param(
        name="lock_step_timeout",
        default=30.0,
        low=0.0,
        unit="s",
        dynamic=True,
        description="The same in lock-step, where time stands still while the slowest node works.",
    ),
)


def read_limits(request: ReachGoal.Goal, value: Callable[[str], Any]) -> Limits:
    """
    Return when to end a goal.

    Args:
        request: the goal.
        value: gives a parameter's value by its name.

    Raises:
        DataError: a tolerance or time limit that makes no sense.
    """
    seconds = from_time(request.time_limit) * 1e-9
    if seconds < 0 or not np.isfinite(request.tolerance):
        raise DataError(
            f"tolerance {request.tolerance} and time limit {seconds} s: expected finite numbers, and no "
            "negative time; see the comments in action/ReachGoal"
        )
    return Limits(
        tolerance=request.tolerance if request.tolerance >= 0 else value("tolerance"),
        time_limit=seconds or value("time_limit"),
        no_progress=value("no_progress"),
        max_belief_age=value("max_belief_age"),
        belief_timeout=value("lock_step_timeout" if value("lock_step") else "belief_timeout"),
    )


def read_latent(request: ReachGoal.Goal, contract: Contract, model: Checkpoint) -> NDArray[np.float32]:
    """
    Return the goal's latent, shape (D,): that of its image, or the one it gives.

    Raises:
        DataError: the image does not fit the contract, or the latent the model.
    """
    if len(request.image.data):
        image = decode_goal(contract, request.image)
        latent = model.encode(np.stack([image] * model.frames))
        if not np.isfinite(latent).all():
            raise DataError(f"{model.id} makes numbers that are not finite of the goal's image")
        return latent
    if request.model not in ("", model.id):
        raise DataError(
            f"the goal's latent is by {request.model!r}, expected one by {model.id!r}; send the image, or "
            "start all nodes with that checkpoint"
        )
    latent = np.array(request.latent, np.float32)
    if latent.shape != (model.latent_size,) or not np.isfinite(latent).all():
        raise DataError(
            f"the goal has no image, and a latent of {latent.size} numbers; expected an image, or "
            f"{model.latent_size} finite numbers as {model.id} has"
        )
    return latent
