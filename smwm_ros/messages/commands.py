"""Commands: the contract says which number of the action goes into which field of which message."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from numpy.typing import NDArray
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from smwm_ros.contract import Contract
from smwm_ros.errors import DataError
from smwm_ros.messages.stamps import header, to_duration


def command_type(contract: Contract) -> Any:
    """Return the message class of the contract's action topic."""
    kinds = {"Float64MultiArray": Float64MultiArray, "JointTrajectory": JointTrajectory}
    kinds |= {"Twist": Twist, "TwistStamped": TwistStamped}
    return kinds[contract.action.type.rpartition("/")[2]]


def encode_command(contract: Contract, values: NDArray[np.float64], stamp: int) -> Any:
    """
    Return a command message of the contract's type, each number in the field that the contract names.

    Numbers that the contract does not name are zero. A JointTrajectory has one point, due one control
    period after ``stamp``; its joints are called as the dimensions.

    Args:
        contract: the robot.
        values: contract units, shape (A,).
        stamp: nanoseconds; for the types that have a header.
    """
    message = command_type(contract)()
    if isinstance(message, (JointTrajectory, TwistStamped)):
        message.header = header(stamp)
    if isinstance(message, JointTrajectory):
        message.joint_names = _joint_names(contract)
        message.points = [JointTrajectoryPoint(time_from_start=to_duration(contract.period))]
    arrays: dict[str, list[float]] = {}
    for dimension, value in zip(contract.action.dimensions, values.tolist(), strict=True):
        path, index = _split(dimension.field)
        if index is None:
            owner, _, name = path.rpartition(".")
            setattr(_follow(message, owner), name, value)
        else:
            numbers = arrays.setdefault(path, [0.0] * _length(contract, path))
            numbers[index] = value
    for path, numbers in arrays.items():
        owner, _, name = path.rpartition(".")
        setattr(_follow(message, owner), name, numbers)
    return message


def decode_command(contract: Contract, message: Any) -> NDArray[np.float64]:
    """
    Read a command message.

    The joints of a JointTrajectory may come in any order; only its first point counts.

    Returns:
        The action in the contract's units and order, shape (A,).

    Raises:
        DataError: a field is missing or has another length than the contract says, or is not finite.
    """
    places: list[int] | None = None
    if isinstance(message, JointTrajectory):
        expected, found = _joint_names(contract), list(message.joint_names)
        if sorted(found) != sorted(expected) or not message.points:
            raise DataError(
                f"trajectory for the joints {found} with {len(message.points)} points; "
                f"expected the joints {expected} and at least one point"
            )
        places = [found.index(name) for name in expected]
    values = []
    for dimension in contract.action.dimensions:
        path, index = _split(dimension.field)
        field = _follow(message, path)
        if index is not None:
            if len(field) != _length(contract, path):
                raise DataError(
                    f"command has {len(field)} numbers in {path!r}; "
                    f"the contract says {_length(contract, path)}"
                )
            field = field[index if places is None else places[index]]
        values.append(field)
    return check_action(contract, values, "command")


def check_action(contract: Contract, values: Any, what: str) -> NDArray[np.float64]:
    """
    Return numbers as an action, shape (A,).

    Raises:
        DataError: another number of them than the contract's, or not finite; calls them ``what``.
    """
    action = np.array(values, np.float64)
    if action.shape != (contract.action.size,):
        raise DataError(f"{what} has {action.size} values; the contract says {contract.action.size}")
    if not np.isfinite(action).all():
        raise DataError(f"{what} is not finite: {action.tolist()}")
    return action


def _split(field: str) -> tuple[str, int | None]:
    """Split ``path[index]``; the index is None where there is none at the end."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", field)
    return (match[1], int(match[2])) if match else (field, None)


def _follow(message: Any, path: str) -> Any:
    """Follow a path such as ``points[0].velocities``; the message itself for an empty one."""
    for part in filter(None, path.split(".")):
        name, index = _split(part)
        message = getattr(message, name)
        if index is not None:
            message = message[index]
    return message


def _length(contract: Contract, path: str) -> int:
    """Return how many numbers an array field of the command has."""
    fields = [_split(dimension.field) for dimension in contract.action.dimensions]
    if contract.action.type.endswith("JointTrajectory"):
        return 1 + max(index for _, index in fields if index is not None)
    return 1 + max(index for other, index in fields if other == path and index is not None)


def _joint_names(contract: Contract) -> list[str]:
    """Return the names of a trajectory's joints: that of the first dimension with each index."""
    names: dict[int, str] = {}
    for dimension in contract.action.dimensions:
        index = _split(dimension.field)[1]
        if index is not None:
            names.setdefault(index, dimension.name)
    return [names.get(index, f"joint_{index}") for index in range(1 + max(names))]
