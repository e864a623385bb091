"""
The robot contract: one file that says what a robot senses and what it accepts.

Sim, recorder, ingest, training, perception and the action node all read it; a checkpoint
carries the one it was trained under.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from smwm_ros.errors import ContractError
from smwm_ros.validation import Settings, parse, read_text

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=8, le=8192)]
Topic = Annotated[str, Field(pattern=r"^[~/]?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$")]

ImageType = Literal["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"]
ImageEncoding = Literal[
    "rgb8",
    "bgr8",
    "rgba8",
    "bgra8",
    "mono8",
    "rgb16",
    "bgr16",
    "rgba16",
    "bgra16",
    "mono16",
    "bayer_rggb8",
    "bayer_bggr8",
    "bayer_gbrg8",
    "bayer_grbg8",
    "bayer_rggb16",
    "bayer_bggr16",
    "bayer_gbrg16",
    "bayer_grbg16",
    "yuv422",
    "uyvy",
    "yuv422_yuy2",
    "yuyv",
    "16UC1",
    "32FC1",
]
CommandType = Literal[
    "std_msgs/msg/Float64MultiArray",
    "trajectory_msgs/msg/JointTrajectory",
    "geometry_msgs/msg/Twist",
    "geometry_msgs/msg/TwistStamped",
]
# What a dimension's ``field`` may name in each command type.
COMMAND_FIELDS: dict[str, str] = {
    "std_msgs/msg/Float64MultiArray": r"data\[\d+\]",
    "trajectory_msgs/msg/JointTrajectory": r"points\[0\]\.(positions|velocities|effort)\[\d+\]",
    "geometry_msgs/msg/Twist": r"(linear|angular)\.[xyz]",
    "geometry_msgs/msg/TwistStamped": r"twist\.(linear|angular)\.[xyz]",
}


class ImageStream(Settings):
    """The camera: what it sends, and the square that the encoder sees of it."""

    topic: Topic
    type: ImageType = "sensor_msgs/msg/Image"
    encoding: ImageEncoding = "rgb8"
    width: Pixels
    height: Pixels
    crop: tuple[int, int, int, int] | None = None
    """Left, top, width, height in pixels; the whole image when absent."""
    size: Pixels
    """Side, in pixels, of the square the (cropped) image is resized to."""
    depth_range: tuple[Positive, Positive] | None = None
    """Of a depth camera: metres that are shown to the encoder as white and as black."""

    @model_validator(mode="after")
    def _range_of_depth(self) -> ImageStream:
        depth = self.encoding in ("16UC1", "32FC1")
        if depth != (self.depth_range is not None):
            raise ValueError(
                f"encoding {self.encoding} needs depth_range: [nearest, farthest], in metres"
                if depth
                else f"depth_range is of depth cameras (16UC1, 32FC1); the encoding is {self.encoding}"
            )
        if self.depth_range is not None and not self.depth_range[0] < self.depth_range[1]:
            raise ValueError(
                f"depth_range {list(self.depth_range)}: the nearest must be less than the farthest"
            )
        return self

    @model_validator(mode="after")
    def _crop_inside(self) -> ImageStream:
        if self.crop is not None:
            left, top, width, height = self.crop
            inside = left >= 0 and top >= 0 and width > 0 and height > 0
            if not (inside and left + width <= self.width and top + height <= self.height):
                raise ValueError(
                    f"crop {list(self.crop)} (left, top, width, height) does not lie inside "
                    f"the {self.width}x{self.height} image"
                )
        return self


class DepthStream(Settings):
    """A depth image aligned with the camera: 32FC1 in metres or 16UC1 in millimetres."""

    topic: Topic
    encoding: Literal["32FC1", "16UC1"] = "32FC1"


class InfoStream(Settings):
    """The camera's calibration (sensor_msgs/msg/CameraInfo)."""

    topic: Topic


class JointStream(Settings):
    """Joint states (sensor_msgs/msg/JointState): the names that matter, in this order."""

    topic: Topic
    names: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("names")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"joint names repeat: {list(names)}")
        return names


class Observation(Settings):
    """What the robot senses. Only the image is needed to learn and to plan."""

    image: ImageStream
    depth: DepthStream | None = None
    camera_info: InfoStream | None = None
    joints: JointStream | None = None


class PositionLimit(Settings):
    """How far the joint that a dimension moves may go; see docs/safety.md."""

    joint: Annotated[str, Field(min_length=1)]
    """Its name in the joint states."""
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _ordered(self) -> PositionLimit:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        return self


class Dimension(Settings):
    """One number of the action: where it goes in the command message, and its limits."""

    field: str
    name: Annotated[str, Field(min_length=1)]
    unit: Annotated[str, Field(min_length=1)]
    low: Finite
    high: Finite
    max_change: Positive
    """Largest change per second, in ``unit``/s."""
    position: PositionLimit | None = Field(default=None, exclude=True)
    """
    For the velocity of a joint: where it must stop. The action node's alone to know, so it is not written
    into bags, stores and checkpoints.
    """

    @model_validator(mode="after")
    def _ordered(self) -> Dimension:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        return self


class Action(Settings):
    """What the robot accepts, and what it gets when no usable plan is there."""

    topic: Topic
    type: CommandType
    timeout: Positive
    """Seconds without a usable plan until the safe action is sent."""
    safe: Literal["zero", "decelerate", "hold"] | tuple[Finite, ...]
    """
    ``zero``; ``decelerate`` (to zero as well, all numbers in proportion, so that the robot stays on its
    path); ``hold`` (the last action goes on); or one value per dimension. Reached within ``max_change``.
    """
    open_loop: Annotated[Positive | None, Field(exclude=True)] = None
    """Longest time, in s, that a plan may want to be played before the next; absent: as long as it says."""
    points: Annotated[int, Field(ge=1, le=100, exclude=True)] = 1
    """Of a JointTrajectory: the action due, and the plan's next ones a period apart."""
    dimensions: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _consistent(self) -> Action:
        pattern = COMMAND_FIELDS[self.type]
        for number, dimension in enumerate(self.dimensions):
            if not re.fullmatch(pattern, dimension.field):
                raise ValueError(
                    f"dimensions.{number}.field {dimension.field!r} is not a field of {self.type} "
                    f"(expected the form {pattern})"
                )
        for what in ("field", "name"):
            values = [getattr(dimension, what) for dimension in self.dimensions]
            if len(set(values)) != len(values):
                raise ValueError(f"dimensions repeat a {what}: {values}")
        if self.safe != "hold":
            if len(self.safe_values) != self.size:
                raise ValueError(
                    f"safe has {len(self.safe_values)} values, but there are {self.size} dimensions"
                )
            outside = (self.safe_values < self.low) | (self.safe_values > self.high)
            if outside.any():
                raise ValueError(
                    f"safe {self.safe_values.tolist()} lies outside low {self.low.tolist()} "
                    f"and high {self.high.tolist()}"
                )
        if self.points > 1 and not self.type.endswith("JointTrajectory"):
            raise ValueError(
                f"points {self.points}: a {self.type} holds one action; only JointTrajectory more"
            )
        return self

    @model_validator(mode="after")
    def _stops_in_time(self) -> Action:
        limits = self.positions
        if not limits:
            return self
        for index in limits:
            field = self.dimensions[index].field
            if re.search(r"\.(positions|effort)\[", field):
                raise ValueError(
                    f"dimensions.{index}.position: {field} is no velocity; low and high limit what it may be"
                )
        joints = [limit.joint for limit in limits.values()]
        if len(set(joints)) != len(joints):
            raise ValueError(f"dimensions repeat the joint of a position limit: {joints}")
        if self.safe == "hold" or self.safe_values[list(limits)].any():
            raise ValueError(
                f"safe {self.safe!r} moves the joints {joints} on, beyond any position limit; "
                "use zero or decelerate, or a zero for each of them"
            )
        if self.points > 1:
            raise ValueError(
                f"points {self.points}: nothing could keep the later ones within a position limit; "
                "leave out one of the two"
            )
        return self

    @property
    def positions(self) -> dict[int, PositionLimit]:
        """Position limits by the index of the dimension."""
        return {
            index: dimension.position
            for index, dimension in enumerate(self.dimensions)
            if dimension.position is not None
        }

    @property
    def size(self) -> int:
        """A, the numbers in one action."""
        return len(self.dimensions)

    @property
    def low(self) -> NDArray[np.float64]:
        """Lower limits, shape (A,)."""
        return np.array([dimension.low for dimension in self.dimensions])

    @property
    def high(self) -> NDArray[np.float64]:
        """Upper limits, shape (A,)."""
        return np.array([dimension.high for dimension in self.dimensions])

    @property
    def max_change(self) -> NDArray[np.float64]:
        """Largest change per second, shape (A,)."""
        return np.array([dimension.max_change for dimension in self.dimensions])

    @property
    def safe_values(self) -> NDArray[np.float64]:
        """The safe action, shape (A,); zeros stand in for ``hold`` before any action was sent."""
        if isinstance(self.safe, str):
            return np.zeros(self.size)
        return np.array(self.safe)


class Contract(Settings):
    """One robot. Made by :func:`load_contract` or :func:`parse_contract`."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    task: str | None = None
    """gymnasium id of the simulated robot; absent for a real one."""
    rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    """Control ticks per second: one image and one action each."""
    block: Annotated[int, Field(ge=1, le=100)]
    """k, the ticks in one model step."""
    max_gap: Annotated[float, Field(gt=1, le=100)] = 1.8
    """Ticks between two images beyond which an episode, or a belief, ends."""
    observation: Observation
    action: Action
    planner: dict[str, bool | int | float | str] = Field(default={}, exclude=True)
    """
    Settings of the planner that suit this robot, by name (docs/planning.md); checked when one is made. They
    are not written into bags, stores and checkpoints: neither data nor models depend on them.
    """

    @model_validator(mode="after")
    def _senses_what_it_limits(self) -> Contract:
        known = () if self.observation.joints is None else self.observation.joints.names
        for index, limit in self.action.positions.items():
            if limit.joint not in known:
                raise ValueError(
                    f"action.dimensions.{index}.position.joint {limit.joint!r} is not among "
                    f"observation.joints.names {list(known)}"
                )
        return self

    @model_validator(mode="after")
    def _lets_plans_be_played(self) -> Contract:
        if self.action.open_loop is not None and self.action.open_loop < self.period:
            raise ValueError(
                f"action.open_loop {self.action.open_loop:g} s is less than a control period of "
                f"{self.period:g} s: no plan could be played"
            )
        return self

    @property
    def commanded_joints(self) -> tuple[str, ...]:
        """The joints whose positions an action is, by dimension; none if it is not, or senses none."""
        sensed = () if self.observation.joints is None else self.observation.joints.names
        dimensions = self.action.dimensions
        positions = all(".positions[" in dimension.field for dimension in dimensions)
        names = tuple(dimension.name for dimension in dimensions)
        return names if positions and set(names) <= set(sensed) else ()

    @property
    def period(self) -> float:
        """Seconds in one control tick."""
        return 1.0 / self.rate

    @property
    def period_ns(self) -> int:
        """Nanoseconds in one control tick."""
        return round(1e9 / self.rate)

    @property
    def max_gap_ns(self) -> int:
        """Nanoseconds between two images beyond which an episode, or a belief, ends."""
        return round(self.max_gap * 1e9 / self.rate)

    @property
    def block_size(self) -> int:
        """k*A, the numbers in one action block."""
        return self.block * self.action.size

    def differences(self, other: Contract) -> list[str]:
        """
        Compare what a model depends on: rates, block, image and action.

        Topics and message types may differ: the same model can drive a remapped robot.

        Returns:
            One line per differing field, ``field: this here, that there``; empty if none.
        """
        ignored = {"topic", "type", "timeout", "safe", "field"}
        mine, theirs = (
            dict(_leaves(part.model_dump(include={"rate", "block", "observation", "action"})))
            for part in (self, other)
        )
        return [
            f"{key}: {mine.get(key, 'absent')} here, {theirs.get(key, 'absent')} there"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
            and key.split(".")[-1] not in ignored
            and not key.startswith(("observation.depth", "observation.camera_info", "observation.joints"))
        ]


def load_contract(path: Path | str) -> Contract:
    """
    Read a contract from a YAML file.

    Raises:
        ContractError: no such file, not YAML, or not a valid contract; names file, key and reason.
    """
    path = Path(path)
    what = "the robot contract; contracts are YAML files such as config/robots/reacher.yaml"
    return parse_contract(read_text(path, what, ContractError), str(path))


def parse_contract(text: str, source: str) -> Contract:
    """
    Read a contract from YAML (or JSON) text.

    Args:
        text: the contract.
        source: where it came from, for the messages.

    Raises:
        ContractError: not YAML, or not a valid contract; names source, key and reason.
    """
    return parse(Contract, text, source, ContractError)


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested mappings and sequences into (dotted key, value) pairs."""
    if isinstance(tree, dict):
        items: list[tuple[Any, Any]] = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        items = list(enumerate(tree))
    else:
        return [(prefix, tree)]
    return [
        leaf for key, value in items for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    ]
