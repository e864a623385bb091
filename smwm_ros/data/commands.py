"""
Command messages to actions: the contract says which number lies in which field of which message.

These functions take the messages' fields and know nothing of ROS.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.errors import DataError


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
    if contract.action.type.endswith("JointTrajectory"):
        expected, found = joint_names(contract), list(message.joint_names)
        if sorted(found) != sorted(expected) or not message.points:
            raise DataError(
                f"trajectory for the joints {found} with {len(message.points)} points; "
                f"expected the joints {expected} and at least one point"
            )
        places = [found.index(name) for name in expected]
    values = []
    for dimension in contract.action.dimensions:
        path, index = split_field(dimension.field)
        field = follow(message, path)
        if index is not None:
            if len(field) != array_length(contract, path):
                raise DataError(
                    f"command has {len(field)} numbers in {path!r}; "
                    f"the contract says {array_length(contract, path)}"
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


def split_field(field: str) -> tuple[str, int | None]:
    """Split ``path[index]``; the index is None where there is none at the end."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", field)
    return (match[1], int(match[2])) if match else (field, None)


def follow(message: Any, path: str) -> Any:
    """Follow a path such as ``points[0].velocities``; the message itself for an empty one."""
    for part in filter(None, path.split(".")):
        name, index = split_field(part)
        message = getattr(message, name)
        if index is not None:
            message = message[index]
    return message


def array_length(contract: Contract, path: str) -> int:
    """Return how many numbers an array field of the command has."""
    fields = [split_field(dimension.field) for dimension in contract.action.dimensions]
    if contract.action.type.endswith("JointTrajectory"):
        return 1 + max(index for _, index in fields if index is not None)
    return 1 + max(index for other, index in fields if other == path and index is not None)


def joint_names(contract: Contract) -> list[str]:
    """Return the names of a trajectory's joints: that of the first dimension with each index."""
    names: dict[int, str] = {}
    for dimension in contract.action.dimensions:
        index = split_field(dimension.field)[1]
        if index is not None:
            names.setdefault(index, dimension.name)
    return [names.get(index, f"joint_{index}") for index in range(1 + max(names))]
