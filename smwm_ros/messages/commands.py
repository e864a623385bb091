"""Commands: the contract says which number of the action goes into which field of which message."""

from __future__ import annotations

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
from smwm_ros.messages.stamps import header, to_duration

__all__ = ["check_action", "command_type", "decode_command", "encode_command"]


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
        message.joint_names = joint_names(contract)
        message.points = [JointTrajectoryPoint(time_from_start=to_duration(contract.period))]
    arrays: dict[str, list[float]] = {}
    for dimension, value in zip(contract.action.dimensions, values.tolist(), strict=True):
        path, index = split_field(dimension.field)
        if index is None:
            owner, _, name = path.rpartition(".")
            setattr(follow(message, owner), name, value)
        else:
            numbers = arrays.setdefault(path, [0.0] * array_length(contract, path))
            numbers[index] = value
    for path, numbers in arrays.items():
        owner, _, name = path.rpartition(".")
        setattr(follow(message, owner), name, numbers)
    return message
