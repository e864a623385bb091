"""Bags made message by message, for tests: the messages that a camera, joints and the action node send."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from typing_extensions import Self

from smwm_ros.contract import Contract, parse_contract
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.topics import CONTRACT_KEY
from smwm_ros.data.bags.writer import BagWriter

PERIOD = 50_000_000
"""Of the tests' robot, nanoseconds."""
TYPES = message_types().types


def robot(
    *, joints: bool = True, image: str = "{width: 12, height: 12, size: 12}", dimensions: int = 2
) -> Contract:
    """Return the contract of a small robot at 20 Hz; ``image`` overrides keys of its camera."""
    lines = [
        "name: tiny",
        "rate: 20.0",
        "block: 5",
        "observation:",
        f"  image: {{topic: camera/image_raw, {image.strip('{}')}}}",
        "  joints: {topic: joint_states, names: [a, b]}" if joints else "",
        "action:",
        "  topic: commands",
        "  type: std_msgs/msg/Float64MultiArray",
        "  timeout: 0.25",
        "  safe: zero",
        "  dimensions:",
        *(
            f"    - {{field: 'data[{i}]', name: d{i}, unit: rad/s, low: -1e6, high: 1e6, max_change: 1.0}}"
            for i in range(dimensions)
        ),
    ]
    return parse_contract("\n".join(lines), "test")


def header(stamp: int) -> Any:
    """Return a std_msgs/msg/Header."""
    time = TYPES["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))
    return TYPES["std_msgs/msg/Header"](stamp=time, frame_id="camera")


def image(stamp: int, pixels: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> Any:
    """Return a sensor_msgs/msg/Image of pixels (H, W, C), each row followed by ``padding`` bytes."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return TYPES["sensor_msgs/msg/Image"](
        header=header(stamp),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


def numbered(stamp: int, number: int, side: int = 12) -> Any:
    """Return an image that says its number: ``number % 251`` in red, ``number // 251`` in green."""
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[:] = number % 251, number // 251, 5
    return image(stamp, pixels)


def compressed(stamp: int, data: bytes, kind: str = "png") -> Any:
    """Return a sensor_msgs/msg/CompressedImage."""
    return TYPES["sensor_msgs/msg/CompressedImage"](
        header=header(stamp), format=kind, data=np.frombuffer(data, np.uint8)
    )


def action(stamp: int, values: Sequence[float]) -> Any:
    """Return a smwm_ros/msg/AppliedAction."""
    made = header(stamp)
    return TYPES["smwm_ros/msg/AppliedAction"](
        header=made, evidence=made.stamp, values=np.array(values, np.float64), source=0, reason=""
    )


def joints(stamp: int, positions: Sequence[float], names: Sequence[str] = ("a", "b")) -> Any:
    """Return a sensor_msgs/msg/JointState."""
    return TYPES["sensor_msgs/msg/JointState"](
        header=header(stamp),
        name=list(names),
        position=np.array(positions, np.float64),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )


class Recording:
    """A bag in the making; a context manager."""

    def __init__(self, path: Path, contract: Contract | None, namespace: str = "") -> None:
        noted = {} if contract is None else {CONTRACT_KEY: contract.model_dump_json()}
        self.writer = BagWriter(path, custom_data=noted)
        self.namespace = namespace
        self.received = 1_700_000_000_000_000_000

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.__exit__(kind, error, trace)

    def add(self, topic: str, message: Any) -> bytes:
        """Write a message one millisecond after the one before; return it serialized."""
        name = f"{self.namespace}/{topic}"
        if name not in self.writer.counts:
            self.writer.add_topic(name, message.__msgtype__)
        self.received += 1_000_000
        data = bytes(message_types().serialize_cdr(message, message.__msgtype__))
        self.writer.write(name, self.received, data)
        return data

    def tick(self, stamp: int, number: int, **replaced: Any) -> None:
        """Write a tick: joints, image and action that all say the number; ``None`` leaves one out."""
        messages = {
            "joint_states": replaced.get("joints", joints(stamp, [number, -number])),
            "camera/image_raw": replaced.get("image", numbered(stamp, number)),
            "applied_action": replaced.get("action", action(stamp, [number, number + 0.5])),
        }
        for topic, message in messages.items():
            if message is not None:
                self.add(topic, message)


def record(path: Path, contract: Contract | None = None, ticks: int = 10, **options: Any) -> Path:
    """Write a bag of one episode of numbered ticks; return its path."""
    with Recording(path, contract or robot(), **options) as bag:
        for number in range(ticks):
            bag.tick((number + 1) * PERIOD, number)
    return path
