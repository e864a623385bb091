"""
Image messages to the square RGB pictures that the encoder sees.

The live perception and the reader of bags both call these functions, so a model meets the same
pixels in training and on the robot. They take the messages' fields and know nothing of ROS.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import ImageStream
from smwm_ros.errors import DataError

Picture = NDArray[np.uint8]
"""Shape (H, W, 3), RGB."""

# Bytes per pixel, and which of them are red, green and blue.
ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}


class ImageMessage(Protocol):
    """What a sensor_msgs/msg/Image has, whether rclpy or a bag reader made it."""

    encoding: str
    height: int
    width: int
    step: int
    data: Any
    is_bigendian: int


class CompressedImageMessage(Protocol):
    """What a sensor_msgs/msg/CompressedImage has, whether rclpy or a bag reader made it."""

    format: str
    data: Any


def decode_image(
    encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: int = 0
) -> Picture:
    """
    Unpack the fields of a sensor_msgs/msg/Image.

    Args:
        encoding: one of ``ENCODINGS``.
        height: pixels.
        width: pixels.
        step: bytes from one row to the next; more than a row needs means padding, which is skipped.
        data: any buffer of at least ``step * height`` bytes.
        is_bigendian: of no consequence for 8-bit channels.

    Returns:
        RGB, shape (height, width, 3); may share memory with ``data``.

    Raises:
        DataError: unknown encoding, empty image, or sizes that contradict each other.
    """
    if encoding not in ENCODINGS:
        raise DataError(f"image encoding {encoding!r} is not supported; use one of {', '.join(ENCODINGS)}")
    channels, order = ENCODINGS[encoding]
    if height < 1 or width < 1:
        raise DataError(f"image of {width}x{height} pixels is empty")
    if step < width * channels:
        raise DataError(
            f"image step {step} is less than the {width * channels} bytes that {width} {encoding} pixels need"
        )
    buffer = np.frombuffer(data, np.uint8)
    # The last row need not carry its padding.
    needed = step * (height - 1) + width * channels
    if len(buffer) < needed:
        raise DataError(
            f"image holds {len(buffer)} bytes; {width}x{height} {encoding} with step {step} needs {needed}"
        )
    if encoding == "rgb8" and step == width * channels:
        return buffer[:needed].reshape(height, width, 3)
    rows = np.lib.stride_tricks.as_strided(
        buffer, (height, width, channels), (step, channels, 1), writeable=False
    )
    return np.ascontiguousarray(rows[..., order])


def decode_compressed(kind: str, data: Any) -> Picture:
    """
    Unpack the fields of a sensor_msgs/msg/CompressedImage (JPEG or PNG).

    Args:
        kind: the field ``format``; only for messages, as the data say themselves what they are.
        data: any buffer.

    Returns:
        RGB, shape (height, width, 3).

    Raises:
        DataError: empty or damaged data, or a format that OpenCV cannot read.
    """
    buffer = np.frombuffer(data, np.uint8)
    # OpenCV raises on an empty buffer and returns None for one that it cannot read.
    decoded = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if len(buffer) else None
    if decoded is None:
        raise DataError(
            f"compressed image ({kind!r}, {len(buffer)} bytes) cannot be decoded; JPEG and PNG with "
            "8-bit channels are supported, and the data may be damaged"
        )
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def model_input(image: Picture, stream: ImageStream) -> Picture:
    """
    Crop an image and resize it (area averaging) to the encoder's square, as the contract says.

    Args:
        image: RGB, shape (height, width, 3), of the contract's size.
        stream: the contract's image.

    Returns:
        RGB, shape (size, size, 3), contiguous; may be ``image`` itself.

    Raises:
        DataError: another size than the contract's; says both.
    """
    if image.shape != (stream.height, stream.width, 3):
        raise DataError(
            f"image is {image.shape[1]}x{image.shape[0]} pixels, but the contract says "
            f"{stream.width}x{stream.height} for {stream.topic}; correct the contract or the camera"
        )
    if stream.crop is not None:
        left, top, width, height = stream.crop
        image = image[top : top + height, left : left + width]
    if image.shape[:2] != (stream.size, stream.size):
        image = cv2.resize(image, (stream.size, stream.size), interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
    return np.ascontiguousarray(image)


def picture(message: ImageMessage | CompressedImageMessage, stream: ImageStream) -> Picture:
    """
    Turn a camera message into what the encoder sees: decode, check against the contract, crop, resize.

    Args:
        message: of the type the contract names.
        stream: the contract's image.

    Returns:
        RGB, shape (size, size, 3).

    Raises:
        DataError: see the other functions here; also another encoding than the contract's.
    """
    if stream.type == "sensor_msgs/msg/CompressedImage":
        compressed = cast("CompressedImageMessage", message)
        return model_input(decode_compressed(compressed.format, compressed.data), stream)
    raw = cast("ImageMessage", message)
    if raw.encoding != stream.encoding:
        raise DataError(
            f"image encoding is {raw.encoding!r}, but the contract says {stream.encoding!r} for "
            f"{stream.topic}; correct the contract or the camera"
        )
    image = decode_image(raw.encoding, raw.height, raw.width, raw.step, raw.data, raw.is_bigendian)
    return model_input(image, stream)
