"""Simulated robots as gymnasium environments. Importing this package registers them."""

from __future__ import annotations

from typing import Any

import gymnasium

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError
from smwm_ros.tasks.base import CameraInfo, RobotTask

__all__ = ["CameraInfo", "RobotTask", "make_task"]

FOREIGN = "gymnasium:"
"""Before the id of an environment that is no robot task, in a contract."""

for _name, _place, _stiff in (
    ("Reacher", "reacher:Reacher", None),
    ("ReacherTorque", "reacher_torque:ReacherTorque", None),
    ("TwoRoom", "two_room:TwoRoom", None),
    ("PushT", "push_t:PushT", False),
    ("PushTStiff", "push_t:PushT", True),
    ("PickCube", "pick_cube:PickCube", None),
):
    gymnasium.register(
        f"smwm/{_name}-v0",
        entry_point=f"smwm_ros.tasks.{_place}",
        kwargs={} if _stiff is None else {"stiff": _stiff},
        # The task checks its own input, and the checker's second look costs a tenth of a step.
        disable_env_checker=True,
        order_enforce=False,
    )


def make_task(contract: Contract, **options: Any) -> RobotTask:
    """
    Build the simulated robot that a contract names.

    Args:
        contract: the robot; its ``task`` is the gymnasium id of a robot task, or ``gymnasium:`` and
            the id of any environment (see :class:`smwm_ros.tasks.gymnasium_task.GymnasiumTask`).
        options: passed to the task, e.g. ``distractors=True``.

    Raises:
        SimulationError: the contract names no task, or one that is unknown, not a robot task,
            or cannot be built or rendered here.
    """
    if contract.task is None:
        raise SimulationError(
            f"the contract of '{contract.name}' names no task: it is a real robot. To simulate it, add "
            "'task: <gymnasium id>', for example 'task: smwm/Reacher-v0'."
        )
    if contract.task.startswith(FOREIGN):
        from smwm_ros.tasks.gymnasium_task import GymnasiumTask  # noqa: PLC0415 - MuJoCo, which many do without

        return GymnasiumTask(contract, contract.task.removeprefix(FOREIGN), **options)
    try:
        task = gymnasium.make(contract.task, contract=contract, **options).unwrapped
    except (gymnasium.error.Error, TypeError) as error:
        raise SimulationError(f"cannot build the task '{contract.task}': {error}") from error
    if not isinstance(task, RobotTask):
        raise SimulationError(
            f"'{contract.task}' is a {type(task).__name__}, not a robot task; write "
            f"'task: {FOREIGN}{contract.task}' to use it as it is, or a subclass of smwm_ros.tasks.RobotTask."
        )
    return task
