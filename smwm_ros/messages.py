"""
Between ROS messages and the package's own values: numpy arrays, int nanoseconds, small dataclasses.

Decoding raises DataError on anything that does not fit; what it returns is finite and of the right shape.
"""

from __future__ import annotations

import re
from array import array
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Twist, TwistStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64MultiArray, Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from smwm_ros import msg
from smwm_ros.contract import Contract
from smwm_ros.data import images
from smwm_ros.errors import DataError
from smwm_ros.runtime.belief import Belief, Latent
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.plan import Plan

SECOND = 1_000_000_000
RAW_IMAGE = "sensor_msgs/msg/Image"
JPEG_QUALITY = 95


def to_time(nanoseconds: int) -> Time:
    """Return a stamp of int nanoseconds as a message."""
    return Time(sec=nanoseconds // SECOND, nanosec=nanoseconds % SECOND)


def from_time(stamp: Time | Duration) -> int:
    """Return a stamp, or a duration, in int nanoseconds."""
    return int(stamp.sec) * SECOND + int(stamp.nanosec)


def to_duration(seconds: float) -> Duration:
    """Return a duration of seconds as a message."""
    nanoseconds = round(seconds * SECOND)
    return Duration(sec=nanoseconds // SECOND, nanosec=nanoseconds % SECOND)


def header(stamp: int, frame_id: str = "") -> Header:
    """Return a header of a stamp in nanoseconds."""
    return Header(stamp=to_time(stamp), frame_id=frame_id)


def latent_to_message(latent: Latent) -> msg.Latent:
    """Return msg/Latent."""
    return msg.Latent(
        header=header(latent.stamp, latent.frame_id), model=latent.model, values=_floats("f", latent.values)
    )


def latent_from_message(message: msg.Latent) -> Latent:
    """Read msg/Latent; whether its size and values are right is the belief's to judge."""
    return Latent(
        stamp=from_time(message.header.stamp),
        frame_id=message.header.frame_id,
        model=message.model,
        values=np.array(message.values, np.float32),
    )


def belief_to_message(belief: Belief) -> msg.Belief:
    """Return msg/Belief."""
    return msg.Belief(
        header=header(belief.stamp, belief.frame_id),
        evidence=to_time(belief.evidence),
        model=belief.model,
        latent=_floats("f", belief.latent),
        surprise=belief.surprise,
        surprised=belief.surprised,
        observations=belief.observations,
    )


def belief_from_message(message: msg.Belief) -> Belief:
    """Read msg/Belief."""
    return Belief(
        stamp=from_time(message.header.stamp),
        evidence=from_time(message.evidence),
        frame_id=message.header.frame_id,
        model=message.model,
        latent=np.array(message.latent, np.float32),
        surprise=float(message.surprise),
        surprised=bool(message.surprised),
        observations=int(message.observations),
    )


def plan_to_message(plan: Plan) -> msg.Plan:
    """Return msg/Plan."""
    return msg.Plan(
        header=header(plan.stamp),
        evidence=to_time(plan.evidence),
        model=plan.model,
        sequence=plan.sequence,
        period=plan.period,
        action_size=plan.actions.shape[1],
        execute=plan.execute,
        actions=_floats("d", plan.actions),
        cost=plan.cost,
    )


def plan_from_message(message: msg.Plan) -> Plan:
    """
    Read msg/Plan; whether it may be played is the gate's to judge.

    Raises:
        DataError: the actions do not divide into rows of ``action_size``.
    """
    size, count = int(message.action_size), len(message.actions)
    if count and (size < 1 or count % size):
        raise DataError(f"plan {message.sequence}: {count} numbers are no rows of action_size {size}")
    return Plan(
        stamp=from_time(message.header.stamp),
        evidence=from_time(message.evidence),
        model=message.model,
        sequence=int(message.sequence),
        period=float(message.period),
        execute=int(message.execute),
        actions=np.array(message.actions, np.float64).reshape(-1, max(size, 1)),
        cost=float(message.cost),
    )


def applied_to_message(command: Command) -> msg.AppliedAction:
    """Return msg/AppliedAction."""
    return msg.AppliedAction(
        header=header(command.stamp),
        evidence=to_time(command.evidence),
        values=_floats("d", command.values),
        source=msg.AppliedAction.SAFE if command.safe else msg.AppliedAction.PLAN,
        reason=command.reason,
    )


def applied_from_message(contract: Contract, message: msg.AppliedAction) -> tuple[int, NDArray[np.float64]]:
    """
    Read msg/AppliedAction.

    Returns:
        When it took effect (ns), and the action in the contract's units, shape (A,).

    Raises:
        DataError: another number of values than the contract's, or not finite.
    """
    return from_time(message.header.stamp), _action(contract, message.values, "applied action")


def image_type(contract: Contract) -> Any:
    """Return the message class of the contract's camera topic."""
    return Image if contract.observation.image.type == RAW_IMAGE else CompressedImage


def encode_image(
    contract: Contract, image: NDArray[np.uint8], stamp: int, frame_id: str = "", *, raw: bool = False
) -> Any:
    """
    Return a camera message of the contract's type and encoding.

    Args:
        contract: the robot.
        image: RGB, shape (height, width, 3).
        stamp: nanoseconds.
        frame_id: of the camera.
        raw: make an Image also where the camera sends compressed ones, as for a goal.

    Raises:
        DataError: another size than the contract's.
    """
    stream = contract.observation.image
    if image.shape != (stream.height, stream.width, 3) or image.dtype != np.uint8:
        raise DataError(
            f"image has shape {image.shape} of {image.dtype}, expected ({stream.height}, {stream.width}, 3) "
            "of uint8, RGB, as the contract says"
        )
    if stream.type != RAW_IMAGE and not raw:
        jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )[1]
        return CompressedImage(header=header(stamp, frame_id), format="jpeg", data=array("B", jpeg.tobytes()))
    pixels = {
        "rgb8": lambda: image,
        "bgr8": lambda: image[..., ::-1],
        "rgba8": lambda: cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        "bgra8": lambda: cv2.cvtColor(image, cv2.COLOR_RGB2BGRA),
        "mono8": lambda: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
    }[stream.encoding]()
    return Image(
        header=header(stamp, frame_id),
        height=stream.height,
        width=stream.width,
        encoding=stream.encoding,
        step=pixels[0].size,
        data=array("B", pixels.tobytes()),
    )


def decode_image(contract: Contract, message: Any) -> NDArray[np.uint8]:
    """
    Read a camera message as the camera sent it.

    Returns:
        RGB, shape (height, width, 3).

    Raises:
        DataError: damaged, or an unknown encoding.
    """
    if contract.observation.image.type != RAW_IMAGE:
        return images.decode_compressed(message.format, message.data)
    return images.decode_image(message.encoding, message.height, message.width, message.step, message.data)


def decode_goal(contract: Contract, message: Image) -> NDArray[np.uint8]:
    """
    Read a goal image as the encoder sees it; goals are raw images whatever the camera sends.

    Returns:
        RGB, shape (size, size, 3).

    Raises:
        DataError: another size or encoding than the contract's, or damaged.
    """
    return images.picture(message, contract.observation.image.model_copy(update={"type": RAW_IMAGE}))


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
    return _action(contract, values, "command")


def _action(contract: Contract, values: Any, what: str) -> NDArray[np.float64]:
    action = np.array(values, np.float64)
    if action.shape != (contract.action.size,):
        raise DataError(f"{what} has {action.size} values; the contract says {contract.action.size}")
    if not np.isfinite(action).all():
        raise DataError(f"{what} is not finite: {action.tolist()}")
    return action


def _floats(code: str, values: NDArray[Any]) -> array[float]:
    """Return numbers as the array that rclpy takes without looking at each one."""
    return array(code, np.ascontiguousarray(values, np.dtype(code)).tobytes())


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
