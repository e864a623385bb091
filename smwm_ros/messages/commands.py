"""Commands: the contract says which number of the action goes into which field of which message."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from numpy.typing import NDArray
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from smwm_ros.contract import Contract
from smwm_ros.data.commands import (
    array_length,
    check_action,
    decode_command,
    follow,
    joint_names,
    split_field,
)
from smwm_ros.messages.stamps import from_time, header, to_duration

__all__ = [
    "CommandEncoder",
    "check_action",
    "command_stamp",
    "command_type",
    "decode_command",
    "encode_command",
]
POINT = "points[0]."
TYPES = {kind.__name__: kind for kind in (Float64MultiArray, JointTrajectory, Twist, TwistStamped)}


def command_type(contract: Contract) -> Any:
    """Return the message class of the contract's action topic."""
    return TYPES[contract.action.type.rpartition("/")[2]]


def command_stamp(message: Any) -> int:
    """Return the stamp of a command message, in ns; 0 if it has none, or one of zero."""
    return from_time(message.header.stamp) if hasattr(message, "header") else 0


class CommandEncoder:
    """
    Makes command messages of the contract's type, each number in the field that the contract names.

    Numbers that the contract does not name are zero. The joints of a JointTrajectory are called as the
    dimensions; its first point is due one control period after the stamp, and each later one a period
    after the one before.
    """

    def __init__(self, contract: Contract) -> None:
        """Look up the fields, once for all messages."""
        self._type = command_type(contract)
        self._period = contract.period
        self._stamped = self._type in (JointTrajectory, TwistStamped)
        self._joints = joint_names(contract) if self._type is JointTrajectory else []
        self._numbers: list[tuple[str, str, int]] = []
        self._arrays: dict[tuple[str, str], tuple[int, list[tuple[int, int]]]] = {}
        for source, dimension in enumerate(contract.action.dimensions):
            path, index = split_field(dimension.field)
            owner, _, name = path.removeprefix(POINT).rpartition(".")
            if index is None:
                self._numbers.append((owner, name, source))
            else:
                places = self._arrays.setdefault((owner, name), (array_length(contract, path), []))[1]
                places.append((index, source))

    def __call__(
        self, values: NDArray[np.float64], stamp: int, later: NDArray[np.float64] | None = None
    ) -> Any:
        """
        Return a message.

        Args:
            values: contract units, shape (A,).
            stamp: nanoseconds; for the types that have a header.
            later: what is meant to follow, a period apart, shape (T, A); only a JointTrajectory tells it.
        """
        message = self._type()
        if self._stamped:
            message.header = header(stamp)
        if self._type is not JointTrajectory:
            self._fill(message, values.tolist())
            return message
        rows = [values.tolist(), *([] if later is None else later.tolist())]
        message.joint_names = self._joints
        message.points = list(self._points(rows))
        return message

    def _points(self, rows: Sequence[Sequence[float]]) -> Iterator[JointTrajectoryPoint]:
        for number, row in enumerate(rows, 1):
            point = JointTrajectoryPoint(time_from_start=to_duration(number * self._period))
            self._fill(point, row)
            yield point

    def _fill(self, message: Any, row: Sequence[float]) -> None:
        for owner, name, source in self._numbers:
            setattr(follow(message, owner), name, row[source])
        for (owner, name), (length, places) in self._arrays.items():
            numbers = [0.0] * length
            for index, source in places:
                numbers[index] = row[source]
            setattr(follow(message, owner), name, array("d", numbers))


def encode_command(contract: Contract, values: NDArray[np.float64], stamp: int) -> Any:
    """Return one command message; see :class:`CommandEncoder`, which is for many."""
    return CommandEncoder(contract)(values, stamp)
